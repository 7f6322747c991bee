"""UperNet: every part equals its published definition, written out plainly, and a training can be learnt by heart."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from pixmim_eval.data.segmentation import IGNORED, SegmentationSet, open_segmentation
from pixmim_eval.errors import InputError
from pixmim_eval.metrics.segmentation import count_confusion, score_segmentation, tally
from pixmim_eval.models.vit import Architecture, VisionTransformer
from pixmim_eval.training import TrainingSettings, schedule_learning_rate
from pixmim_eval.transfer.networks import group_by_layer
from pixmim_eval.transfer.segmentation.backbone import build_backbone
from pixmim_eval.transfer.segmentation.examples import read_examples, segment
from pixmim_eval.transfer.segmentation.heads import PixelClassifier, RowDropout, UperHead
from pixmim_eval.transfer.segmentation.recipes import RECIPES, resolve_sizes
from pixmim_eval.transfer.segmentation.upernet import UperNet, load_upernet, measure_pixel_loss, train_upernet
from pixmim_eval.transfer.segmentation.windows import Geometry
from pixmim_eval.types import SuiteConfig
from tests.transfer.processes import run_in_two_processes
from tests.transfer.segmenters import SMALL, make_conv, make_model


def open_shapes(variant: str = "val") -> SegmentationSet:
    return open_segmentation(f"builtin:shapes16:{variant}@32")


def make_config(out: Path, **changes: object) -> SuiteConfig:
    return SuiteConfig(**{"data": {}, "workers": 0, "out": out, **changes})  # type: ignore[arg-type]


# --- heads and loss ---------------------------------------------------------------------------------------------------


def test_the_head_is_upernets() -> None:
    """Against the definition with every resize written out; batch norms are near identities in eval mode."""
    torch.manual_seed(2)
    head = UperHead((6, 6, 6, 6), channels=4, classes=5, dropout=0.1).eval()
    maps = [torch.randn(2, 6, side, side) for side in (16, 8, 4, 2)]

    def run(part: nn.Module, values: Tensor) -> Tensor:
        convolution = part[0]  # type: ignore[index]
        return F.relu(F.conv2d(values, convolution.weight, padding=convolution.padding) / math.sqrt(1 + 1e-5))

    def grow(values: Tensor, side: int) -> Tensor:
        return F.interpolate(values, size=(side, side), mode="bilinear", align_corners=False)

    pools = [F.adaptive_avg_pool2d(maps[3], side) for side in (1, 2, 3, 6)]
    pyramid = [grow(run(pool[1], values), 2) for pool, values in zip(head.pools, pools, strict=True)]  # type: ignore[index]
    fourth = run(head.bottleneck, torch.cat((maps[3], *pyramid), dim=1))
    third = run(head.laterals[2], maps[2]) + grow(fourth, 4)
    second = run(head.laterals[1], maps[1]) + grow(third, 8)
    first = run(head.laterals[0], maps[0]) + grow(second, 16)
    outputs = [run(head.outputs[place], values) for place, values in enumerate((first, second, third))]
    together = torch.cat([outputs[0], grow(outputs[1], 16), grow(outputs[2], 16), grow(fourth, 16)], dim=1)
    linear = head.classifier.linear
    wanted = F.conv2d(run(head.fusion, together), linear.weight, linear.bias)
    torch.testing.assert_close(head(maps), wanted, rtol=1e-4, atol=1e-5)


def test_logits_are_of_float32_whatever_the_maps_are_of() -> None:
    torch.manual_seed(3)
    classifier = PixelClassifier(24, 5, 0.0).eval()
    maps = torch.randn(2, 24, 4, 4).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = classifier(maps)
    wanted = torch.einsum("kc,bchw->bkhw", classifier.linear.weight[:, :, 0, 0].double(), maps.double())
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=1e-6)


def test_the_loss_is_a_mean_over_all_pixels() -> None:
    logits, labels = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 8, 8))
    labels[0, :3] = IGNORED
    large = F.interpolate(logits.double(), size=(8, 8), mode="bilinear", align_corners=False)
    total = 0.0
    for image in range(2):
        for y in range(8):
            for x in range(8):
                if labels[image, y, x] != IGNORED:
                    total -= float(large[image, :, y, x].log_softmax(dim=0)[labels[image, y, x]])
    assert float(measure_pixel_loss(logits, labels)) == pytest.approx(total / 128, rel=1e-5)


def test_both_heads_are_in_the_loss() -> None:
    network = UperNet(build_backbone(make_model(), SMALL), 5, replace(SMALL, dropout=0.0, drop_path=0.0)).eval()
    images, labels = torch.randn(2, 3, 32, 32), torch.randint(0, 5, (2, 32, 32))
    maps = network.backbone(images)
    assert network.auxiliary is not None
    wanted = measure_pixel_loss(network.head(maps), labels) + 0.4 * measure_pixel_loss(
        network.auxiliary(maps[2]), labels
    )
    torch.testing.assert_close(network(images, labels, torch.zeros(2, network.random_numbers)), wanted)


def test_dropout_takes_whole_channels_of_single_images() -> None:
    dropout = RowDropout(0.25, 4).train()
    numbers = torch.tensor([[0.1, 0.3, 0.9, 0.2], [0.25, 0.24, 0.5, 0.0]])
    dropout.begin(numbers)
    found = dropout(torch.ones(2, 4, 3, 3))
    torch.testing.assert_close(found[:, :, 0, 0], (numbers >= 0.25).float() / 0.75)
    assert torch.equal(dropout.eval()(torch.ones(2, 4, 3, 3)), torch.ones(2, 4, 3, 3))


# --- the training -----------------------------------------------------------------------------------------------------


def test_learning_rates_decay_layer_by_layer_as_published() -> None:
    """0.65^(13 - layer): 0 for the embedding, n for block n of 12, 13 for what is new; vectors are not decayed."""
    torch.manual_seed(0)
    model = make_model(VisionTransformer(32, Architecture(patch=16, dim=24, depth=12, heads=3)))
    network = UperNet(build_backbone(model, SMALL), 3, SMALL)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    found = {
        names[id(parameter)]: (group["lr_scale"], group["weight_decay"])
        for group in group_by_layer(network, 0.05, 0.65)
        for parameter in group["params"]
    }
    assert found.keys() == dict(network.named_parameters()).keys()
    for name, parameter in network.named_parameters():
        layer = 13
        if name.startswith("backbone.encoder.blocks."):
            layer = int(name.split(".")[3]) + 1
        elif name.startswith("backbone.encoder."):
            layer = 0
        assert found[name][0] == pytest.approx(0.65 ** (13 - layer)), name
        assert found[name][1] == (0.05 if parameter.ndim > 1 else 0.0), name
    assert found["backbone.encoder.pos_embed"][1] == found["backbone.encoder.cls_token"][1] == 0.05


def test_stages_before_attention_are_the_first_layer_of_a_convvit() -> None:
    network = UperNet(build_backbone(make_model(make_conv()), SMALL), 3, SMALL)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    for group in group_by_layer(network, 0.05, 0.75):
        for parameter in group["params"]:
            name = names[id(parameter)].removeprefix("backbone.encoder.")
            layer = int(name.split(".")[1]) + 1 if name.startswith("blocks3") else 3
            layer = 0 if name.startswith(("patch_embed", "pos_embed", "blocks1", "blocks2")) else layer
            assert group["lr_scale"] == pytest.approx(0.75 ** (3 - layer)), name


@pytest.mark.parametrize("power", [1.0, 0.9])
def test_the_learning_rate_follows_the_polynomial(power: float) -> None:
    """Step by step, as mmcv's hook computes it with its warm-up ratio."""
    steps, warmup, peak = 200, 30, 1e-4
    settings = TrainingSettings(1, 16, 1, peak, 0.0, warmup / steps, False, 0, 1, 0, 10.0, poly_power=power)
    for step in range(steps):
        regular = peak * (1 - step / steps) ** power
        wanted = regular * (1 - (1 - step / warmup) * (1 - 1e-6)) if step < warmup else regular
        assert schedule_learning_rate(settings, step / steps) == pytest.approx(wanted, abs=1.1e-6 * peak)


def test_the_published_recipe_is_the_published_one() -> None:
    published = RECIPES["published"]
    assert (published.crop, published.stride, published.inference, published.iterations) == (512, 341, "slide", 160_000)
    assert (published.train_batch_size, published.learning_rate, published.weight_decay) == (16, 1e-4, 0.05)
    assert (published.layer_decay, published.drop_path, published.warmup_iterations, published.power) == (
        0.65,
        0.1,
        1500,
        1,
    )
    assert (published.channels, published.auxiliary_channels, published.auxiliary_weight) == (768, 256, 0.4)
    assert (published.least_scale, published.most_scale, published.most_of_a_class, published.dropout) == (
        0.5,
        2,
        0.75,
        0.1,
    )
    assert published.layer_scale and published.relative_positions and published.distort
    conv = RECIPES["published-convmae"]
    assert replace(conv, layer_decay=0.65, drop_path=0.1) == published
    assert (conv.layer_decay, conv.drop_path) == (0.75, 0.2)


def read_losses(folder: Path) -> list[float]:
    (log,) = folder.rglob("log.jsonl")
    return [json.loads(line)["loss"] for line in log.read_text().splitlines()]


def test_a_killed_training_goes_on_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data, rows = make_model(), open_shapes("train"), np.arange(10)
    whole, _ = train_upernet(model, data, rows, make_config(tmp_path / "whole"), SMALL)
    config = make_config(tmp_path / "broken")
    real, steps = UperNet.forward, []

    def forward(self: UperNet, *inputs: Tensor) -> Tensor:
        steps.append(1)
        if len(steps) == 3:
            raise KeyboardInterrupt
        return real(self, *inputs)

    monkeypatch.setattr(UperNet, "forward", forward)
    monkeypatch.setattr(
        "pixmim_eval.training._Loop._check_steps",
        lambda loop: setattr(loop, "settings", replace(loop.settings, state_minutes=0.0)),
    )
    with pytest.raises(KeyboardInterrupt):
        train_upernet(model, data, rows, config, SMALL)
    assert load_upernet(model, data, rows, config, SMALL) is None  # two steps of four
    again, _ = train_upernet(model, data, rows, config, SMALL)
    assert len(steps) == 5  # two, the one that was killed, and the two that were missing
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    loaded = load_upernet(model, data, rows, config, SMALL)
    assert loaded is not None
    assert all(torch.equal(value, loaded[0].state_dict()[name]) for name, value in whole.state_dict().items())


def test_a_loss_that_is_not_finite_fails_this_model_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = UperNet.forward
    monkeypatch.setattr(UperNet, "forward", lambda network, *inputs: real(network, *inputs) * float("nan"))
    with pytest.raises(FloatingPointError, match=r"loss: expected a finite number, found nan at step 0"):
        train_upernet(make_model(), open_shapes("train"), np.arange(10), make_config(tmp_path), SMALL)


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    model, data, rows = make_model(), open_shapes("train"), np.arange(10)
    train_upernet(model, data, rows, make_config(tmp_path / "one"), SMALL)

    def work(rank: int) -> None:
        train_upernet(model, data, rows, make_config(tmp_path / "two"), SMALL)

    run_in_two_processes(work)
    np.testing.assert_allclose(read_losses(tmp_path / "two"), read_losses(tmp_path / "one"), rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"crop": 30}, "multiple of the patch"),
        ({"crop": 16}, "at least 32"),
        ({"inference": "whole"}, "relative positions"),
        ({"stride": 64}, "1 to the crop"),
        ({"channels": 0}, "at least 1"),
        ({"auxiliary_weight": -0.1}, "0 or more"),
        ({"learning_rate": 0.0}, "above 0"),
        ({"layer_decay": 1.1}, "at most 1"),
    ],
)
def test_settings_that_do_not_fit_are_errors(changes: dict[str, object], named: str) -> None:
    with pytest.raises(InputError, match=named):
        resolve_sizes(replace(SMALL, **changes), 32, 8)  # type: ignore[arg-type]


def test_a_batch_that_cannot_be_dealt_out_is_an_error(tmp_path: Path) -> None:
    recipe = replace(SMALL, train_batch_size=3, accumulate=2)
    with pytest.raises(InputError, match="multiple of processes x accumulation, 2"):
        train_upernet(make_model(), open_shapes(), np.arange(4), make_config(tmp_path), recipe)


def test_other_encoders_are_told_what_else_to_use() -> None:
    with pytest.raises(InputError, match="--protocol linear or knn"):
        build_backbone(make_model(nn.Linear(2, 2)), SMALL)


def test_sizes_of_the_model_stand_in_where_none_are_given() -> None:
    recipe = resolve_sizes(RECIPES["short"], 64, 8)
    assert (recipe.crop, recipe.stride) == (64, 42)


@pytest.mark.slow
def test_ten_photographs_are_learnt_by_heart(shared_data: Path, tmp_path: Path) -> None:
    """Ten photographs of few classes with their masks, at 32 px: mIoU of at least 0.8 shows that all is wired right.

    Half as many steps leave out classes of few pixels, the smallest of which has five; these many find them all.
    """
    source = open_segmentation(str(shared_data / "coco_mini" / "images" / "val2017"))
    counts = [len({*np.unique(labels)} - {IGNORED}) for labels in source.labels.read(range(len(source)))]
    rows = np.sort(np.argsort(counts, kind="stable")[:10]).tolist()
    for row, image, labels in zip(rows, source.manifest.source.read(rows), source.labels.read(rows), strict=True):
        for folder, values, kernel in (
            ("images/all", image, Image.Resampling.BILINEAR),
            ("masks/all", np.where(labels == IGNORED, 0, labels + 1).astype(np.uint8), Image.Resampling.NEAREST),
        ):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).resize((32, 32), kernel).save(tmp_path / folder / f"{row:04d}.png")
    data = open_segmentation(str(tmp_path / "images" / "all"))
    torch.manual_seed(0)
    model = make_model(VisionTransformer(32, Architecture(patch=4, dim=48, depth=4, heads=3)))
    recipe = replace(
        SMALL,
        crop=32,
        stride=32,
        iterations=400,
        train_batch_size=10,
        learning_rate=2e-2,
        layer_decay=1.0,
        warmup_iterations=40,
        channels=24,
        auxiliary_channels=16,
        drop_path=0.0,
        dropout=0.0,
        least_scale=1.0,
        most_scale=1.0,
        most_of_a_class=1.0,
        distort=False,
    )
    network, _ = train_upernet(model, data, np.arange(10), make_config(tmp_path), recipe)
    geometry = Geometry(32, 32, 32, "bilinear", 4)
    tallies = [
        tally(
            count_confusion(
                example.labels, segment(example, network.score, geometry, model.preprocessing, "cpu"), len(data.classes)
            )
        )
        for example in read_examples(data, np.arange(10), geometry, make_config(tmp_path))
    ]
    scores = score_segmentation(np.stack(tallies))
    print(f"mIoU {scores.miou.value:.3f}, aAcc {scores.aacc.value:.3f}, {len(scores.iou)} classes")
    assert scores.miou.value >= 0.8
