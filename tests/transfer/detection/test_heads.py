"""Anchors, the choice of what is trained on, pooling and losses against plain loops."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from pixmim_eval.transfer.detection.heads import BoxHead, MaskHead, PyramidPool, RegionHeads, cut_masks
from pixmim_eval.transfer.detection.proposals import Anchors, SeededSampler, build_proposals, list_strides
from pixmim_eval.transfer.detection.recipes import RECIPES

RECIPE = replace(RECIPES["short"], channels=4, box_width=8, roi_samples=8, proposals=20)


def test_anchors_have_eight_strides_and_three_shapes_around_every_place() -> None:
    levels = [torch.zeros(1, 4, 3, 2), torch.zeros(1, 4, 1, 1)]
    found = Anchors((4.0, 8.0))(SimpleNamespace(image_sizes=[(12, 8)]), levels)[0]
    expected = []
    for stride, (height, width) in ((4, (3, 2)), (8, (1, 1))):
        for y in range(height):
            for x in range(width):
                for ratio in (0.5, 1.0, 2.0):
                    wide, high = 8 * stride / math.sqrt(ratio) / 2, 8 * stride * math.sqrt(ratio) / 2
                    expected.append([x * stride - wide, y * stride - high, x * stride + wide, y * stride + high])
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    assert list_strides(16) == (4, 8, 16, 32, 64)


def test_a_sampler_takes_at_most_its_share_of_positive_ones_and_fills_up_with_negative_ones() -> None:
    sampler = SeededSampler(10, 0.5)
    labels = torch.tensor([1.0] * 20 + [0.0] * 30 + [-1.0] * 10)
    few = torch.tensor([1.0] * 2 + [0.0] * 4)
    sampler.begin(0, torch.tensor([7, 8]))
    (positive, few_positive), (negative, few_negative) = sampler([labels, few])
    assert positive.sum() == 5 and negative.sum() == 5 and few_positive.sum() == 2 and few_negative.sum() == 4
    assert (labels[positive] == 1).all() and (labels[negative] == 0).all()


def test_what_is_chosen_depends_on_seed_and_crop_alone() -> None:
    labels = torch.tensor([1.0, 0.0] * 50)
    sampler = SeededSampler(20, 0.25)

    def choose(seed: int, places: list[int], row: int) -> Tensor:
        sampler.begin(seed, torch.tensor(places))
        positive, negative = sampler([labels] * len(places))
        return positive[row] | negative[row]

    assert torch.equal(choose(1, [4, 5], 1), choose(1, [5], 0))
    assert not torch.equal(choose(1, [4], 0), choose(1, [5], 0))
    assert not torch.equal(choose(2, [4], 0), choose(1, [4], 0))


def test_every_candidate_is_chosen_equally_often() -> None:
    sampler, places = SeededSampler(5, 0.0), torch.arange(1000)
    sampler.begin(3, places)
    _, negative = sampler([torch.zeros(20)] * len(places))
    rates = torch.stack(negative).double().mean(dim=0)
    assert (rates - 0.25).abs().max() < 5 * math.sqrt(0.25 * 0.75 / len(places))


def test_regions_are_read_at_the_middle_of_pixels_from_the_level_of_their_size() -> None:
    """On maps that rise linearly, pooling gives the values at the middles of the region's places."""
    strides = (4.0, 8.0, 16.0, 32.0)
    levels = []
    for number, stride in enumerate(strides):
        middle = (torch.arange(int(1024 / stride)) + 0.5) * stride
        rise = middle[:, None] * 1000 + middle[None, :]
        levels.append(torch.stack((rise, torch.full_like(rise, number)))[None].double())
    boxes = torch.tensor(
        [[100.0, 60.0, 131.0, 90.0], [100, 60, 211, 171], [101, 60, 213, 172], [16, 32, 400, 300], [8, 8, 900, 1000]],
        dtype=torch.float64,
    )
    found = PyramidPool(strides, 7)(levels, [boxes])
    sides = [math.sqrt((right - left) * (bottom - top)) for left, top, right, bottom in boxes.tolist()]
    expected_levels = [min(max(math.floor(4 + math.log2(side / 224)) - 2, 0), 3) for side in sides]
    assert expected_levels == [0, 0, 1, 2, 3]
    assert found[:, 1, 3, 3].tolist() == expected_levels
    for (left, top, right, bottom), values in zip(boxes.tolist(), found[:, 0], strict=True):
        y = top + (torch.arange(7) + 0.5) * (bottom - top) / 7
        x = left + (torch.arange(7) + 0.5) * (right - left) / 7
        torch.testing.assert_close(values, (y[:, None] * 1000 + x[None, :]).double(), rtol=1e-4, atol=1.0)


def test_pooling_takes_images_without_regions() -> None:
    levels = [torch.randn(2, 4, 16 // 2**level, 16 // 2**level) for level in range(4)]
    pool = PyramidPool((4.0, 8.0, 16.0, 32.0), 7)
    boxes = torch.tensor([[0.0, 0.0, 20.0, 20.0]])
    assert pool(levels, [torch.zeros(0, 4), torch.zeros(0, 4)]).shape == (0, 4, 7, 7)
    both, alone = pool(levels, [torch.zeros(0, 4), boxes]), pool([level[1:] for level in levels], [boxes])
    assert torch.equal(both, alone)


def test_losses_of_proposals_are_sums_over_256_an_image() -> None:
    network = build_proposals((4.0,), RECIPE)
    labels = [torch.tensor([1.0, 0, 0, -1]), torch.tensor([0.0, 1, 1, 0])]
    logits, steps, wanted = torch.randn(8, 1), torch.randn(8, 4), torch.randn(8, 4)
    network.fg_bg_sampler.begin(0, torch.tensor([0, 1]))
    of_objects, of_boxes = network.compute_loss(logits, steps, labels, list(wanted.split(4)))
    objects = boxes = 0.0
    for place, label in enumerate(torch.cat(labels).tolist()):
        if label >= 0:
            chance = torch.sigmoid(logits[place, 0]).item()
            objects -= math.log(chance if label else 1 - chance)
        if label == 1:
            boxes += (steps[place] - wanted[place]).abs().sum().item()
    assert math.isclose(of_objects.item(), objects / 512, rel_tol=1e-5)
    assert math.isclose(of_boxes.item(), boxes / 512, rel_tol=1e-5)


def make_heads() -> tuple[RegionHeads, list[Tensor], list[Tensor], list[dict[str, Tensor]]]:
    torch.manual_seed(0)
    heads = RegionHeads(3, (4.0, 8.0, 16.0, 32.0), RECIPE, masks=True)
    for parameter in heads.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    levels = [torch.randn(2, 4, 16 // 2**level, 16 // 2**level) for level in range(4)]
    corners = torch.rand(2, 30, 2) * 40
    proposals = list(torch.cat((corners, corners + 4 + 20 * torch.rand(2, 30, 2)), dim=2))
    masks = torch.zeros(3, 64, 64, dtype=torch.uint8)
    masks[0, 4:20, 4:20], masks[1, 30:50, 20:40], masks[2, 10:30, 10:25] = 1, 1, 1
    boxes = torch.tensor([[4.0, 4, 20, 20], [20, 30, 40, 50], [10, 10, 25, 30]])
    first = {"boxes": boxes[:2], "labels": torch.tensor([1, 3]), "masks": masks[:2]}
    second = {"boxes": boxes[2:], "labels": torch.tensor([2]), "masks": masks[2:]}
    return heads, levels, proposals, [first, second]


def test_losses_of_regions_are_means_over_images_of_plain_sums() -> None:
    heads, levels, proposals, targets = make_heads()
    heads.fg_bg_sampler.begin(4, torch.tensor([0, 1]))
    found = heads.measure_loss(levels, list(proposals), targets)
    heads.fg_bg_sampler.begin(4, torch.tensor([0, 1]))
    regions, matched, labels, wanted = heads.select_training_samples(list(proposals), targets)
    expected = torch.zeros(3, dtype=torch.float64)
    for image in range(2):
        alone = [level[image : image + 1] for level in levels]
        logits, steps = heads.box_head(heads.box_roi_pool(alone, [regions[image]]))
        count = len(labels[image])
        positive = [row for row, label in enumerate(labels[image].tolist()) if label > 0]
        assert positive and len(positive) < count
        for row, label in enumerate(labels[image].tolist()):
            expected[0] -= logits[row].log_softmax(0)[label].item() / count / 2
            if label:
                difference = steps[row, 4 * label : 4 * label + 4] - wanted[image][row]
                expected[1] += difference.abs().sum().item() / count / 2
        chosen = regions[image][positive]
        drawn = heads.masks(heads.mask_pool(alone, [chosen]), labels[image][positive]).sigmoid().double()
        truth = cut_masks(targets[image]["masks"], chosen, matched[image][positive]).double()
        entropy = -(truth * drawn.log() + (1 - truth) * (1 - drawn).log())
        expected[2] += entropy.mean().item() / 2
    torch.testing.assert_close(torch.stack(found).double(), expected, rtol=1e-4, atol=1e-6)


def test_the_loss_of_a_batch_is_the_mean_of_its_images() -> None:
    heads, levels, proposals, targets = make_heads()
    heads.fg_bg_sampler.begin(4, torch.tensor([8, 9]))
    together = torch.stack(heads.measure_loss(levels, list(proposals), targets))
    alone = []
    for image in range(2):
        heads.fg_bg_sampler.begin(4, torch.tensor([8 + image]))
        own = [level[image : image + 1] for level in levels]
        alone.append(torch.stack(heads.measure_loss(own, [proposals[image]], [targets[image]])))
    torch.testing.assert_close(together, torch.stack(alone).mean(dim=0), rtol=1e-5, atol=1e-6)


def test_images_without_objects_train_what_is_background() -> None:
    heads, levels, proposals, targets = make_heads()
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "masks": targets[0]["masks"][:0]}
    heads.fg_bg_sampler.begin(4, torch.tensor([0, 1]))
    classes, boxes, masks = heads.measure_loss(levels, list(proposals), [empty, empty])
    assert classes > 0 and boxes == 0 and masks == 0
    (classes + boxes + masks).backward()
    assert all(parameter.grad is not None for parameter in heads.parameters())  # or processes wait for each other


def test_mask_targets_are_the_pixels_inside_a_box() -> None:
    mask = torch.zeros(2, 56, 56, dtype=torch.uint8)
    mask[1, 14:42, 0:28] = 1
    whole = cut_masks(mask, torch.tensor([[0.0, 0.0, 56.0, 56.0]]), torch.tensor([1]))
    assert torch.equal(whole[0] == 1, mask[1, ::2, ::2] == 1)
    inside = cut_masks(mask, torch.tensor([[0.0, 14.0, 28.0, 42.0], [0, 14, 28, 42]]), torch.tensor([1, 0]))
    assert (inside[0] == 1).all() and (inside[1] == 0).all()


def test_outputs_have_the_digits_of_float32_whatever_is_computed_in() -> None:
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        logits, steps = BoxHead(4, 8, 3)(torch.randn(2, 4, 7, 7))
        objects, boxes = build_proposals((4.0,), RECIPE).head([torch.randn(1, 4, 3, 3)])
        masks = MaskHead(4, 3)(torch.randn(2, 4, 14, 14), torch.tensor([1, 3]))
    for found in (logits, steps, *objects, *boxes, masks):
        assert found.dtype == torch.float32 and not torch.equal(found, found.bfloat16().float())


def test_a_region_has_the_mask_of_its_class() -> None:
    torch.manual_seed(0)
    head, regions = MaskHead(4, 3), torch.randn(5, 4, 14, 14)
    torch.nn.init.normal_(head.logits.bias)
    every = head.logits(head.enlarge(head.convolutions(regions)).relu())
    labels = [3, 1, 2, 3, 1]
    expected = torch.stack([every[place, label - 1] for place, label in enumerate(labels)])
    torch.testing.assert_close(head(regions, torch.tensor(labels)), expected)
