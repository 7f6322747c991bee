"""Expected overlap equals its definition, written out; drawn crops agree with it; unions are unions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import binom

from pixmim_eval.data import crops
from pixmim_eval.metrics import overlap
from tests.references.overlap import paint, rrc_expectation, slide_mean

MAE, ALEXNET, WIDE = ((0.2, 1.0), (3 / 4, 4 / 3)), ((0.08, 1.0), (3 / 4, 4 / 3)), ((0.5, 0.9), (0.5, 2.0))


def draw_boxes(random: np.random.Generator, size: tuple[int, int], count: int, least: float = 0.08) -> np.ndarray:
    """Boxes with whole-numbered edges, of at least a share of each side; the last is the whole image."""
    found = [(0, 0, *size)]
    while len(found) < count:
        (top, bottom), (left, right) = (np.sort(random.choice(side + 1, 2, replace=False)) for side in size)
        if bottom - top >= least * size[0] and right - left >= least * size[1]:
            found.append((top, left, bottom, right))
    return np.array(found[::-1], dtype=np.float64)


def areas(edges: np.ndarray) -> np.ndarray:
    return (edges[:, 2:] - edges[:, :2]).prod(axis=1)


@pytest.mark.parametrize(
    ("size", "law"),
    [
        ((75, 100), MAE),
        ((64, 64), MAE),
        ((64, 64), ALEXNET),
        ((120, 70), ALEXNET),
        ((70, 80), WIDE),
        ((40, 150), WIDE),
        ((24, 30), MAE),
        ((24, 30), WIDE),
    ],
)
def test_random_resized_crops_are_summed_over_every_size_and_place(size: tuple[int, int], law: tuple) -> None:
    edges = draw_boxes(np.random.default_rng(sum(size)), size, 25)
    found = overlap.expect_rectangles(
        overlap.RandomResizedCropLaw(*law), np.array([size]), edges, np.zeros(25, dtype=np.int64)
    )
    area, share = rrc_expectation(*size, edges, *law)
    error = (found.area - area) / areas(edges)
    bound = 2e-4 if min(size) >= 64 else 1e-3
    assert np.abs(error).max() < bound
    assert abs(error.mean()) < bound / 2
    assert np.abs(found.share - share).max() < bound


def test_a_panorama_falls_back_to_its_middle() -> None:
    edges = np.array([[0.0, 0.0, 50.0, 500.0], [0.0, 217.0, 50.0, 284.0]])
    law = overlap.RandomResizedCropLaw((0.9, 1.0))  # no rectangle of these ratios has nine tenths of it
    found = overlap.expect_rectangles(law, np.array([[50, 500]]), edges, np.array([0, 0]))
    np.testing.assert_allclose(found.area, [50 * 67, 50 * 66], rtol=1e-6)  # 50 x 4 / 3 = 67 wide, at 216
    np.testing.assert_allclose(found.share, [1, 66 / 67], rtol=1e-6)


@pytest.mark.parametrize("size", [(32, 32), (32, 41), (57, 32)])
@pytest.mark.parametrize("padding", [0, 3])
def test_simple_resized_crops_are_counted_pixel_by_pixel_with_their_border_and_without(
    size: tuple[int, int], padding: int
) -> None:
    edges = draw_boxes(np.random.default_rng(0), size, 12)
    law, owner = overlap.SimpleResizedCropLaw(32, padding), np.zeros(12, dtype=np.int64)
    counted = overlap.expect_rectangles(law, np.array([size]), edges, owner, border=True)
    inside = overlap.expect_rectangles(law, np.array([size]), edges, owner)
    for row, box in enumerate(edges):
        mask = paint(box[None], size)
        assert counted.area[row] == pytest.approx(slide_mean(mask, 32, padding), rel=1e-9)
        empty = np.zeros((size[0] + 2 * padding, size[1] + 2 * padding))
        empty[padding : padding + size[0], padding : padding + size[1]] = mask
        assert inside.area[row] == pytest.approx(slide_mean(empty, 32, 0), rel=1e-9)
    np.testing.assert_allclose(inside.share, inside.area / 32**2, rtol=1e-12)
    assert padding == 0 or (counted.area >= inside.area).all()


def sample_crops(crop: crops.Crop, size: tuple[int, int], count: int) -> np.ndarray:
    heights, widths = torch.full((count,), size[0]), torch.full((count,), size[1])
    return crop.sample(heights, widths, seed=5, index=torch.arange(count)).numpy()[None]


@pytest.mark.parametrize("size", [(375, 500), (333, 250), (96, 400)])
@pytest.mark.parametrize(
    ("crop", "law"),
    [
        (crops.RandomResizedCrop(224, (0.2, 1)), overlap.RandomResizedCropLaw()),
        (crops.RandomResizedCrop(224, (0.3, 0.6), (0.4, 1.2)), overlap.RandomResizedCropLaw((0.3, 0.6), (0.4, 1.2))),
        (crops.SimpleResizedCrop(224), overlap.SimpleResizedCropLaw(224)),
        (crops.CenterCrop(224), overlap.CenterCropLaw(224, 224)),
        (crops.CenterCrop(224, 256), overlap.CenterCropLaw(224, 256)),
    ],
    ids=["rrc", "rrc-ratios", "src", "cc", "cc-256"],
)
def test_crops_that_are_drawn_agree_with_their_law(size: tuple, crop: crops.Crop, law: overlap.CropLaw) -> None:
    draws = 1 if isinstance(crop, crops.CenterCrop) else 40_000
    edges = draw_boxes(np.random.default_rng(1), size, 6)
    drawn = sample_crops(crop, size, draws)
    found = overlap.expect_rectangles(law, np.array([size]), edges, np.zeros(6, dtype=np.int64))
    for row, box in enumerate(edges):
        kept = overlap.measure_crops(overlap.Cells(box[None], np.zeros(1, dtype=np.int64)), drawn)[0]
        close = 4.5 * kept.std() / np.sqrt(draws) + 1e-4 * areas(box[None])[0] * (draws > 1)
        assert found.area[row] == pytest.approx(kept.mean(), abs=close, rel=1e-9)
        share = kept / drawn[0, :, 2:].prod(axis=1)
        assert found.share[row] == pytest.approx(share.mean(), abs=4.5 * share.std() / np.sqrt(draws) + 1e-4, rel=1e-9)


def test_the_pixels_of_a_rectangle_are_worth_what_it_is() -> None:
    box = np.array([[20.0, 11.0, 64.0, 70.0]])
    for law in (overlap.RandomResizedCropLaw(), overlap.SimpleResizedCropLaw(48), overlap.CenterCropLaw(48, 56)):
        expected = overlap.expect_rectangles(law, np.array([[80, 96]]), box, np.array([0]))
        area, share = overlap.expect_pixels(law, paint(box, (80, 96)) > 0)
        assert area == pytest.approx(expected.area[0], rel=1e-5)
        assert share == pytest.approx(expected.share[0], rel=1e-5)


def test_cells_are_disjoint_and_cover_the_union() -> None:
    random = np.random.default_rng(3)
    edges, image, pictures = [], [], []
    for number in range(200):
        count = int(random.integers(1, 10))
        low = random.integers(0, 24, (count, 2))
        edges.append(np.concatenate((low, low + random.integers(1, 14, (count, 2))), axis=1))
        if number % 5 == 0:
            edges[-1][-1] = edges[-1][0]  # the same box twice
        image += [2 * number] * count  # images between them have none
        pictures.append(paint(edges[-1], (40, 40)) > 0)
    cells = overlap.unite(np.concatenate(edges).astype(float), np.array(image))
    for number, picture in enumerate(pictures):
        assert np.array_equal(paint(cells.edges[cells.image == 2 * number], (40, 40)), picture)
    totals = overlap.sum_by_image(cells.areas(), cells.image, 400)
    assert totals[::2].tolist() == [picture.sum() for picture in pictures]
    assert not totals[1::2].any()


def test_boxes_that_only_touch_stay_as_they_are() -> None:
    edges = np.array([[0, 0, 2, 2], [0, 2, 2, 5], [2, 0, 4, 5]], dtype=float)
    assert np.array_equal(overlap.unite(edges, np.zeros(3, dtype=np.int64)).edges, edges)


def test_patches_count_by_their_covered_area() -> None:
    random = np.random.default_rng(2)
    edges = draw_boxes(random, (40, 60), 5)[:3]
    cells = overlap.unite(edges, np.zeros(3, dtype=np.int64))
    drawn = np.array([[[0.0, 0.0, 40.0, 60.0], [7.0, 3.0, 20.0, 48.0], [-4.0, 20.0, 24.0, 44.0]]])
    covered = overlap.measure_patches(cells, drawn, 4)
    np.testing.assert_allclose(covered.sum(axis=(2, 3)), overlap.measure_crops(cells, drawn), rtol=1e-12)
    picture = paint(edges, (40, 60)) > 0
    assert np.array_equal(covered[0, 0], picture.reshape(4, 10, 4, 15).sum(axis=(1, 3)))
    assert np.array_equal(covered[0, 1], picture[7:27, 3:51].reshape(4, 5, 4, 12).sum(axis=(1, 3)))
    outside = np.pad(picture, ((4, 0), (0, 4)))[:24, 20:64]  # the border holds nothing
    assert np.array_equal(covered[0, 2], outside.reshape(4, 6, 4, 11).sum(axis=(1, 3)))


def test_pixels_count_in_patches_as_the_rectangles_that_they_make_up() -> None:
    random = np.random.default_rng(8)
    edges = draw_boxes(random, (40, 60), 4)[:3]
    cells, mask = overlap.unite(edges, np.zeros(3, dtype=np.int64)), paint(edges, (40, 60)) > 0
    drawn = np.concatenate((random.uniform(-9, 20, (50, 2)), random.uniform(5, 45, (50, 2))), axis=1)
    expected = overlap.measure_patches(cells, drawn[None], 5)[0]
    np.testing.assert_allclose(overlap.measure_pixels(mask, drawn, 5), expected, atol=1e-9)


@pytest.mark.parametrize(("units", "ratio", "kept"), [(14, 0.75, 49), (7, 0.75, 12), (14, 0.6, 78), (14, 0.0, 196)])
def test_a_mask_leaves_the_units_of_least_noise_whole(units: int, ratio: float, kept: int) -> None:
    random = np.random.default_rng(1)
    covered, noise = random.random((3, 2, 14, 14)), random.random((3, 2, units, units))
    found = overlap.count_visible(covered, noise, ratio)
    for image in range(3):
        for draw in range(2):
            mask = noise[image, draw] <= np.sort(noise[image, draw], axis=None)[kept - 1]
            side = 14 // units
            visible = np.kron(mask, np.ones((side, side)))
            assert found[image, draw] == pytest.approx((visible * covered[image, draw]).sum(), rel=1e-12)


def test_in_expectation_a_mask_keeps_its_share_of_the_object() -> None:
    random = np.random.default_rng(6)
    covered = np.broadcast_to(random.random((1, 1, 8, 8)), (1, 20_000, 8, 8))
    found = overlap.count_visible(covered, random.random((1, 20_000, 4, 4)), 0.75)[0]
    assert found.mean() == pytest.approx(covered[0, 0].sum() / 4, abs=4.5 * found.std() / np.sqrt(20_000))


def test_quantiles_of_one_draw_an_image_have_the_binomial_interval_of_their_rank() -> None:
    values = np.random.default_rng(4).permutation(1001) / 1000
    for level, found in zip((0.1, 0.5), overlap.quantile_intervals(values[:, None], (0.1, 0.5)), strict=True):
        assert found.value == pytest.approx(level, abs=0.0011)
        assert found.n == 1001
        low, high = binom.ppf([0.025, 0.975], 1001, level) / 1000
        assert found.low == pytest.approx(low, abs=0.003)
        assert found.high == pytest.approx(high, abs=0.003)


def test_draws_of_one_image_do_not_narrow_a_quantile_where_they_are_equal() -> None:
    values = np.random.default_rng(5).random((300, 1))
    one, many = (overlap.quantile_intervals(np.repeat(values, draws, axis=1), (0.25,))[0] for draws in (1, 9))
    assert (one.value, one.low, one.high, one.n) == (many.value, many.low, many.high, many.n)
