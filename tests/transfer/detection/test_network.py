"""How weights are grouped, by the published rule written out; and that the loss of a crop is its own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pixmim_eval.transfer.detection.network import MaskRCNN, group_parameters
from pixmim_eval.transfer.detection.recipes import RECIPES
from pixmim_eval.types import Model
from tests.transfer.encoders import make_convvit, make_vit

RECIPE = replace(
    RECIPES["vitdet-b"],
    image_size=32,
    window=2,
    global_blocks=(2,),
    channels=4,
    box_width=8,
    proposals=10,
    roi_samples=8,
    drop_path=0.5,
)


def build(model: Model, **changes: object) -> MaskRCNN:
    torch.manual_seed(0)
    return MaskRCNN(model, 3, replace(RECIPE, **changes), masks=True, seed=1)  # type: ignore[arg-type]


def expect(name: str, *, convolutional: bool) -> tuple[float, float]:
    """(share of the learning rate, weight decay) of a parameter of an encoder of three blocks, with decay 0.7 and 0.1.

    detectron2: number of layers L = 3; 0.7^(L + 1 - layer), where the layer is 0 for what embeds patches, i + 1 for
    block i and L + 1 for the rest. Norms of the encoder and positions are not decayed; biases are.
    """
    layer = 4
    if name.startswith("backbone"):
        if "patch_embed" in name or "blocks1." in name or "blocks2." in name:
            layer = 0
        elif "blocks" in name:
            layer = int(name.split("blocks3." if convolutional else "blocks.")[1].split(".")[0]) + 1
        elif "pos_embed" in name and not convolutional:
            layer = 0
    of_norm = name.startswith("backbone") and "norm" in name
    return 0.7 ** (4 - layer), 0.0 if of_norm or name.endswith("pos_embed") else 0.1


@pytest.mark.parametrize("convolutional", [False, True])
def test_groups_are_the_published_rule(convolutional: bool) -> None:
    network = build(make_convvit(32) if convolutional else make_vit(32))
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    found = {}
    for group in group_parameters(network, RECIPE):
        for parameter in group["params"]:
            assert id(parameter) not in found
            found[id(parameter)] = (group["lr_scale"], group["weight_decay"])
    assert found.keys() == names.keys()
    wrong = {
        name: found[key]
        for key, name in names.items()
        if found[key] != pytest.approx(expect(name, convolutional=convolutional))
    }
    assert not wrong
    known = set(names.values())
    prefix = "backbone.maps.encoder.blocks3" if convolutional else "backbone.blocks"
    assert {f"{prefix}.1.attn.steps_down", f"{prefix}.0.norm1.weight", "heads.box_head.convolutions.1.weight"} <= known


def make_inputs(network: MaskRCNN) -> tuple[Tensor, ...]:
    torch.manual_seed(2)
    masks = torch.zeros(3, 32, 32, dtype=torch.uint8)
    boxes = torch.tensor([[2.0, 2, 12, 12], [10, 8, 30, 20], [4, 6, 28, 24]])
    for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
        mask[top:bottom, left:right] = 1
    return (
        torch.randn(2, 3, 32, 32),
        torch.tensor([[32, 32], [24, 30]]),
        torch.tensor([0, 0, 1]),
        boxes,
        torch.tensor([1, 2, 3]),
        masks,
        torch.rand(2, network.random_numbers),
        torch.tensor([10, 11]),
    )


@pytest.mark.parametrize("convolutional", [False, True])
def test_the_loss_of_a_batch_is_the_mean_of_its_crops_and_trains_every_weight(convolutional: bool) -> None:
    network = build(make_convvit(32) if convolutional else make_vit(32)).train()
    images, sizes, owners, boxes, labels, masks, numbers, places = make_inputs(network)
    loss = network(images, sizes, owners, boxes, labels, masks, numbers, places)
    alone = []
    for image in range(2):
        own = owners == image
        part = slice(image, image + 1)
        objects = (owners[own] - image, boxes[own], labels[own], masks[own])
        alone.append(network(images[part], sizes[part], *objects, numbers[part], places[part]))
    torch.testing.assert_close(loss, torch.stack(alone).mean(), rtol=1e-4, atol=1e-5)
    loss.backward()
    assert not [name for name, parameter in network.named_parameters() if parameter.grad is None]


def test_detections_lie_in_the_image_and_are_ranked() -> None:
    network = build(make_vit(32), least_score=0.0).eval()
    with torch.no_grad():
        (found,) = network.detect(torch.randn(1, 3, 32, 32), [(24, 30)])
    assert len(found["boxes"]) == len(found["masks"]) > 0
    assert (found["boxes"] >= 0).all() and (found["boxes"].amax(dim=0) <= torch.tensor([30.0, 24, 30, 24])).all()
    assert (found["scores"].diff() <= 0).all() and set(found["labels"].tolist()) <= {1, 2, 3}


def test_features_that_are_not_finite_are_named() -> None:
    network = build(make_vit(32)).eval()
    with torch.no_grad(), pytest.raises(FloatingPointError, match="level 0"):
        network.detect(torch.full((1, 3, 32, 32), float("nan")), [(32, 32)])
