"""Spatter against its published definition and OpenCV's operations, written out in plain loops."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from torch import Tensor

from pixmim_eval.corruptions import SEVERITIES, corrupt, spatter
from pixmim_eval.corruptions.spatter import SPATTER, equalise, find_edges, measure_distance, sharpen
from pixmim_eval.seeds import generators


def draws(seed: int, count: int) -> Iterator[torch.Generator]:
    return generators(seed, torch.arange(count))


def make_levels(height: int, width: int, seed: int) -> np.ndarray:
    """Blobs on black with ramps, noise and plateaus inside: bytes int [H, W]."""
    random = np.random.default_rng(seed)
    blobs = ndimage.gaussian_filter(random.normal(size=(height, width)), 2.5)
    ramp = np.linspace(40, 255, width) + random.normal(size=(height, width)) * random.choice([0, 6, 25])
    return np.where(blobs > 0.02, ramp.clip(0, 255), 0).astype(int)


def canny(levels: np.ndarray) -> np.ndarray:
    """OpenCV's Canny(levels, 50, 150): Sobel with repeated edges, |dx| + |dy|, ridges, hysteresis."""
    height, width = levels.shape
    around = np.pad(levels, 1, mode="edge")
    dx, dy, size = np.zeros((3, height + 2, width + 2), dtype=int)
    for y in range(height):
        for x in range(width):
            near = around[y : y + 3, x : x + 3]
            right = (near[:, 2] - near[:, 0]) @ (1, 2, 1)
            down = (near[2] - near[0]) @ (1, 2, 1)
            dx[y + 1, x + 1], dy[y + 1, x + 1], size[y + 1, x + 1] = right, down, abs(right) + abs(down)
    ridge = np.zeros((height + 2, width + 2), dtype=bool)
    for y in range(1, height + 1):
        for x in range(1, width + 1):
            m, across, along = size[y, x], abs(dx[y, x]) * 13573, abs(dy[y, x]) << 15
            if m <= 50:
                continue
            if along < across:
                ridge[y, x] = m > size[y, x - 1] and m >= size[y, x + 1]
            elif along > across + (abs(dx[y, x]) << 16):
                ridge[y, x] = m > size[y - 1, x] and m >= size[y + 1, x]
            else:
                s = -1 if dx[y, x] * dy[y, x] < 0 else 1
                ridge[y, x] = m > size[y - 1, x - s] and m > size[y + 1, x + s]
    found = ridge & (size > 150)
    stack = list(zip(*np.nonzero(found), strict=True))
    while stack:
        y, x = stack.pop()
        for v in (y - 1, y, y + 1):
            for u in (x - 1, x, x + 1):
                if ridge[v, u] and not found[v, u]:
                    found[v, u] = True
                    stack.append((v, u))
    return found[1:-1, 1:-1]


def chamfer(edges: np.ndarray) -> np.ndarray:
    """OpenCV's two passes over the image with a 5 x 5 mask, in 1/10000 pixel, cut off at 20 pixels."""
    height, width = edges.shape
    straight, diagonal, knight = 10000, 14000, 21969
    mask = [(0, -1, straight), (-1, 0, straight), (-1, -1, diagonal), (-1, 1, diagonal)]
    mask += [(-1, -2, knight), (-1, 2, knight), (-2, -1, knight), (-2, 1, knight)]
    distance = np.full((height + 4, width + 4), 10**9)
    distance[2:-2, 2:-2][edges] = 0
    for sign, rows, columns in (
        (1, range(2, height + 2), range(2, width + 2)),
        (-1, range(height + 1, 1, -1), range(width + 1, 1, -1)),
    ):
        for y in rows:
            for x in columns:
                ways = [distance[y + sign * dy, x + sign * dx] + cost for dy, dx, cost in mask]
                distance[y, x] = min(distance[y, x], *ways)
    return np.minimum(distance[2:-2, 2:-2], 20 * 10000)


def equalize_histogram(levels: np.ndarray) -> np.ndarray:
    counts = np.bincount(levels.ravel(), minlength=256)
    first = np.nonzero(counts)[0][0]
    if counts[first] == levels.size:
        return levels
    scale = np.float32(255) / np.float32(levels.size - counts[first])
    table, total = np.zeros(256, dtype=int), 0
    for level in range(first + 1, 256):
        total += counts[level]
        table[level] = int(np.rint(np.float32(total) * scale))
    return table[levels]


def correlate(levels: np.ndarray, kernel: list[list[float]]) -> np.ndarray:
    """3 x 3, borders mirrored without repeating the edge."""
    return ndimage.correlate(levels.astype(float), np.array(kernel, dtype=float), mode="mirror")


def published(
    image: np.ndarray, normals: np.ndarray, parameters: tuple[float, float, float, float, str, float]
) -> np.ndarray:
    """The published function on an image uint8 [H, W, 3]."""
    mean, spread, deviation, threshold, kind, last = parameters
    layer = ndimage.gaussian_filter(mean + spread * normals, deviation, mode="nearest", truncate=4)
    layer[layer < threshold] = 0
    x = image / 255
    if kind == "mud":
        cover = ndimage.gaussian_filter((layer > threshold).astype(float), last, mode="nearest", truncate=4)
        cover[cover < 0.8] = 0
        x = x * (1 - cover[..., None]) + cover[..., None] * np.array([63, 42, 20]) / 255
    else:
        ninth = [[1 / 9] * 3] * 3
        levels = (layer * 255).astype(int) % 256
        distance = correlate(chamfer(canny(levels)) / 10000, ninth)
        relief = equalize_histogram((distance + 1e-9).astype(int))
        relief = correlate(relief, [[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]).clip(0, 255)
        light = levels * np.rint(correlate(relief, ninth))
        if light.max() > 0:
            x = x + (light / light.max() * last)[..., None] * np.array([175, 238, 238]) / 255
    return (np.clip(x, 0, 1) * 255 + 1e-6).astype(np.uint8)


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize(
    ("parameters", "height", "width"),
    [("imagenet-c", 90, 75), ("tiny-imagenet-c", 64, 64), ("cifar-c", 32, 32)],
)
def test_equals_the_published_definition_within_one_grey_level(
    parameters: str, height: int, width: int, severity: int, make_images: Callable[..., Tensor]
) -> None:
    images, values = make_images(2, height, width), SPATTER[parameters][severity - 1]
    normals = spatter._draw(images, draws(severity, 2)).numpy() * 8
    result = spatter.spatter(images, values, draws(severity, 2))
    assert not torch.equal(result, images)
    for image, normal, ours in zip(images, normals, result, strict=True):
        expected = published(image.permute(1, 2, 0).numpy(), normal, values)
        assert np.abs(ours.permute(1, 2, 0).numpy().astype(int) - expected).max() <= 1


def test_noise_is_normal(make_images: Callable[..., Tensor]) -> None:
    normals = spatter._draw(make_images(10, 64, 48), draws(0, 10)).numpy() * 8
    assert stats.kstest(normals.ravel(), stats.norm.cdf).pvalue > 1e-3


@pytest.mark.parametrize(("height", "width"), [(40, 53), (31, 7), (2, 9), (1, 1)])
def test_edges_are_cannys(height: int, width: int) -> None:
    levels = np.stack([make_levels(height, width, seed) for seed in range(6)])
    found = find_edges(torch.from_numpy(levels).int()).numpy()
    np.testing.assert_array_equal(found, np.stack([canny(image) for image in levels]))
    assert height < 20 or found.any((1, 2)).all()


def test_weak_edges_are_followed_however_long() -> None:
    levels = np.zeros((60, 60), dtype=int)
    for turn in range(0, 60, 6):  # a meander of a weak step, strong at one end
        levels[turn : turn + 3, (0 if turn % 12 else 3) : (57 if turn % 12 else 60)] = 20
    levels[:3, 3:6] = 120
    found = find_edges(torch.from_numpy(levels)[None].int())[0].numpy()
    np.testing.assert_array_equal(found, canny(levels))


@pytest.mark.parametrize(("height", "width"), [(60, 47), (5, 70), (1, 30), (1, 1)])
def test_distances_are_those_of_two_passes_with_opencvs_mask(height: int, width: int) -> None:
    random = np.random.default_rng(0)
    edges = random.random((5, height, width)) < np.array([0, 0.002, 0.01, 0.1, 1])[:, None, None]
    measured = measure_distance(torch.from_numpy(edges)).numpy()
    np.testing.assert_array_equal(measured, np.stack([chamfer(image) for image in edges]))


def test_histograms_are_equalised_one_by_one() -> None:
    random = np.random.default_rng(1)
    levels = np.stack([random.integers(low, high + 1, (30, 41)) for low, high in ((0, 20), (3, 9), (7, 8), (20, 20))])
    expected = np.stack([equalize_histogram(image) for image in levels])
    np.testing.assert_array_equal(equalise(torch.from_numpy(levels).int()).numpy(), expected)


def test_the_relief_is_clipped_to_bytes() -> None:
    levels = np.random.default_rng(2).integers(0, 256, (2, 21, 30))
    expected = [correlate(image, [[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]).clip(0, 255) for image in levels]
    np.testing.assert_array_equal(sharpen(torch.from_numpy(levels).int()).numpy(), np.stack(expected))


def test_ninths_are_rounded_down_exactly() -> None:
    sums = torch.arange(9 * 255 + 5, dtype=torch.int32)
    assert torch.equal(spatter._divide_by_9(sums), sums // 9)


@pytest.mark.parametrize("severity", [2, 4])
def test_an_image_that_no_drop_hits_stays_as_it_is(severity: int, make_images: Callable[..., Tensor]) -> None:
    images = make_images(2, 32, 32)
    mean, spread, deviation, _, kind, last = SPATTER["imagenet-c"][severity - 1]
    result = spatter.spatter(images, (mean, spread, deviation, 2.0, kind, last), draws(0, 2))
    assert torch.equal(result, images)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_a_pixel_depends_on_its_image_and_draws_alone(severity: int, make_images: Callable[..., Tensor]) -> None:
    images, index = make_images(6, 48, 70), torch.tensor([5, 0, 9, 2, 7, 1])
    together = corrupt(images, "spatter", severity, seed=3, index=index)
    for row in (0, 4):
        one = slice(row, row + 1)
        assert torch.equal(corrupt(images[one], "spatter", severity, seed=3, index=index[one])[0], together[row])
    assert not torch.equal(corrupt(images, "spatter", severity, seed=4, index=index), together)
