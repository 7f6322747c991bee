"""Windows cover every pixel, answers have the size of the mask, and crops are functions of seed and place alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from pixmim_eval.data.segmentation import IGNORED
from pixmim_eval.transfer.segmentation.crops import MaskedCrop, distort
from pixmim_eval.transfer.segmentation.examples import resize_image
from pixmim_eval.transfer.segmentation.recipes import UperNetRecipe
from pixmim_eval.transfer.segmentation.windows import Geometry, choose_classes, list_windows, score_image

RECIPE = UperNetRecipe(crop=32, most_of_a_class=1.0, distort=False)
FILL = (124, 116, 104)


@pytest.mark.parametrize(("height", "width"), [(512, 512), (512, 683), (853, 512), (512, 513), (1024, 2048)])
def test_windows_are_where_the_published_code_has_them(height: int, width: int) -> None:
    crop, stride = 512, 341
    wanted = []
    for row in range(max(height - crop + stride - 1, 0) // stride + 1):
        for column in range(max(width - crop + stride - 1, 0) // stride + 1):
            bottom, right = min(row * stride + crop, height), min(column * stride + crop, width)
            wanted.append((max(bottom - crop, 0), max(right - crop, 0)))
    windows = list_windows(height, width, crop, stride)
    assert windows == wanted
    covered = np.zeros((height, width), dtype=bool)
    for top, left in windows:
        covered[top : top + crop, left : left + crop] = True
    assert covered.all()


def test_scores_are_means_over_the_windows_that_a_pixel_is_in() -> None:
    torch.manual_seed(0)
    image, weight = torch.randn(3, 20, 27), torch.randn(4, 3)

    def score(windows: Tensor) -> Tensor:  # depends on the whole window, so that overlaps differ
        return torch.einsum("kc,bchw->bkhw", weight, windows) * windows.mean(dim=(1, 2, 3))[:, None, None, None]

    found = score_image(score, image, Geometry(20, 16, 10, "bilinear", 4))
    total, counts = torch.zeros(4, 20, 27), torch.zeros(20, 27)
    for top in (0, 4):
        for left in (0, 10, 11):
            total[:, top : top + 16, left : left + 16] += score(image[None, :, top : top + 16, left : left + 16])[0]
            counts[top : top + 16, left : left + 16] += 1
    torch.testing.assert_close(found, total / counts)
    torch.testing.assert_close(score_image(score, image, Geometry(20, None, 10, "bilinear", 4)), score(image[None])[0])


def test_answers_are_the_highest_of_resized_scores() -> None:
    torch.manual_seed(1)
    scores = torch.randn(40, 7, 9)
    scores[35] = scores[3]  # of equal scores the first
    whole = F.interpolate(scores[None], size=(23, 31), mode="bilinear", align_corners=False)[0]
    np.testing.assert_array_equal(choose_classes(scores, (23, 31)), whole.argmax(dim=0).numpy())


def test_scores_that_are_not_finite_are_an_error() -> None:
    with pytest.raises(FloatingPointError, match="1 of 12 scores"):
        choose_classes(torch.tensor([1.0, float("nan"), *[0.0] * 10]).reshape(3, 2, 2), (2, 2))


def test_an_image_that_goes_in_whole_can_be_cut_into_patches() -> None:
    image = np.zeros((50, 81, 3), np.uint8)
    assert resize_image(image, Geometry(32, None, 1, "bilinear", 8)).shape == (32, 48, 3)  # 51.8 is nearer to 48
    assert resize_image(image, Geometry(32, 32, 16, "bilinear", 8)).shape == (32, 51, 3)


# --- crops ------------------------------------------------------------------------------------------------------------


def make_pair(height: int = 40, width: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """A colour for each class, so that a crop of the one tells the other."""
    labels = np.zeros((height, width), np.uint8)
    labels[:, width // 2 :] = 1
    labels[height // 2 :, :] += 2
    colours = np.array([[250, 0, 0], [0, 250, 0], [0, 0, 250], [250, 250, 0]], np.uint8)
    return colours[labels], labels


def test_crops_of_image_and_mask_show_the_same_place() -> None:
    image, labels = make_pair()
    crop = MaskedCrop(RECIPE, FILL)
    colours = np.array([[250, 0, 0], [0, 250, 0], [0, 0, 250], [250, 250, 0]])
    flips, scales = set(), set()
    for index in range(30):
        pixels, classes = crop(image, labels, seed=3, index=index)
        assert pixels.shape == (32, 32, 3) and classes.shape == (32, 32)
        inside = classes != IGNORED
        same = (np.abs(pixels.astype(int) - colours[np.where(inside, classes, 0)]).max(axis=2) < 90)[inside]
        assert same.mean() > 0.85  # but for the edges between colours
        assert (pixels[~inside] == FILL).all()
        scales.add(inside.all())
        flips.add(int(classes[0, 0]))
    assert scales == {True, False}  # smaller images are filled up, larger ones cut
    assert len(flips) > 1


def test_a_crop_depends_on_seed_and_place_alone() -> None:
    image, labels = make_pair()
    crop = MaskedCrop(UperNetRecipe(crop=32), FILL)
    first, again, other = (crop(image, labels, seed=1, index=index) for index in (5, 5, 6))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert (first[0] != other[0]).any()


def test_scales_are_uniform_over_the_range() -> None:
    image, labels = make_pair(40, 40)
    labels[:] = 1
    crop = MaskedCrop(UperNetRecipe(crop=32, least_scale=0.25, most_scale=0.75, distort=False), FILL)
    sides = [math_side(crop(image, labels, seed=0, index=index)[1]) for index in range(200)]
    assert 8 <= min(sides) <= 9 and 22 <= max(sides) <= 24
    assert abs(np.mean(sides) - 15.5) < 0.8  # sides are cut off to whole pixels


def math_side(labels: np.ndarray) -> int:
    return round(float(np.sqrt((labels != IGNORED).sum())))


def test_a_crop_is_drawn_again_where_one_class_fills_it() -> None:
    labels = np.zeros((64, 256), np.uint8)
    labels[:, :32] = 1
    image = np.zeros((64, 256, 3), np.uint8)
    mixed = {}
    for most in (1.0, 0.75):
        recipe = UperNetRecipe(crop=64, least_scale=1.0, most_scale=1.0, distort=False, most_of_a_class=most)
        crops = [MaskedCrop(recipe, FILL)(image, labels, seed=0, index=index)[1] for index in range(60)]
        mixed[most] = np.mean([len(np.unique(crop)) == 2 for crop in crops])
    assert mixed[1.0] < 0.35 < 0.6 < mixed[0.75]  # one place in twelve is good: 11 tries find it 60 % of the time


def test_colours_change_as_published() -> None:
    """Each step against its definition; 0.9 leaves a step out."""
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    out = [0.9, 0.0, 0.0, 0.9, 0.0, 0.9, 0.0, 0.9, 0.0]
    np.testing.assert_array_equal(distort(image, out), image)
    brighter = distort(image, [0.1, 0.75, *out[2:]])
    np.testing.assert_array_equal(brighter, np.clip(image.astype(float) + 16, 0, 255).astype(np.uint8))
    flatter = distort(image, [*out[:3], 0.1, 0.25, *out[5:]])
    np.testing.assert_array_equal(flatter, (image * 0.75).astype(np.uint8))
    turned = np.array(Image.fromarray(distort(image, [*out[:7], 0.1, 1 - 1e-9])).convert("HSV")).astype(int)
    before = np.array(Image.fromarray(image).convert("HSV")).astype(int)
    coloured = (before[..., 1] > 100) & (before[..., 2] > 100)
    steps = (turned[..., 0] - before[..., 0] + 128) % 256 - 128
    assert np.abs(steps[coloured] - 17 * 256 / 180).max() < 3  # 34 degrees
    grey = np.array(Image.fromarray(distort(image, [*out[:5], 0.1, 0.0, *out[7:]])).convert("HSV")).astype(int)
    assert np.abs(grey[..., 1] - before[..., 1] / 2)[coloured].max() < 4
    order = [distort(image, [0.9, 0.0, early, 0.1, 0.9, 0.1, 0.9, 0.9, 0.0]) for early in (0.1, 0.9)]
    assert (order[0] != order[1]).any()
