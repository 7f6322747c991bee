"""Blur by a fixed kernel, against filtering in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from pixmim_eval.corruptions import CORRUPTIONS, PARAMETER_SETS, SEVERITIES, blur, corrupt

Maker = Callable[..., Tensor]
each_case = pytest.mark.parametrize(
    ("parameters", "severity"), [(name, severity) for name in PARAMETER_SETS for severity in SEVERITIES]
)


def run(images: Tensor, name: str, severity: int, parameters: str) -> np.ndarray:
    """Corrupted images [B, H, W, 3]."""
    index = torch.arange(len(images))
    return corrupt(images, name, severity, seed=0, index=index, parameters=parameters).permute(0, 2, 3, 1).numpy()


def to_unit(images: Tensor) -> np.ndarray:
    return images.permute(0, 2, 3, 1).numpy() / 255.0


def make_disk(radius: float, deviation: float) -> np.ndarray:
    """The published kernel, pixel by pixel: a disk on a grid, its rim smoothed, mirrored at the grid's edge."""
    half, reach = (8, 1) if radius <= 8 else (int(radius), 2)
    disk = np.zeros((2 * half + 1, 2 * half + 1))
    for y in range(-half, half + 1):
        for x in range(-half, half + 1):
            disk[y + half, x + half] = x * x + y * y <= radius * radius
    small = np.array([np.exp(-(i**2) / (2 * deviation**2)) for i in range(-reach, reach + 1)])
    small /= small.sum()
    return ndimage.correlate(disk / disk.sum(), np.outer(small, small), mode="mirror")


@each_case
def test_defocus_blur_equals_filtering_with_the_disk(parameters: str, severity: int, make_images: Maker) -> None:
    images = make_images(2, 56, 40)
    kernel = make_disk(*CORRUPTIONS["defocus_blur"].parameters[parameters][severity - 1])
    unit = ndimage.correlate(to_unit(images), kernel[None, :, :, None], mode="mirror")
    result, exact = run(images, "defocus_blur", severity, parameters), np.clip(unit, 0, 1) * 255
    assert np.abs(result.astype(np.float64) - np.uint8(exact)).mean() <= 0.1
    # Truncated, but for ties that rounding decides.
    assert (result <= exact + 2e-3).all() and (result > exact - 1 - 1e-9).all()


def test_the_disks_of_radius_8_and_10_brighten_as_published() -> None:
    grey = torch.full((1, 3, 64, 64), 200, dtype=torch.uint8)
    means = [run(grey, "defocus_blur", severity, "imagenet-c").mean() for severity in SEVERITIES]
    # 200 x 1.01298 = 202.6 and 200 x 1.01079 = 202.2: sums of cv2.GaussianBlur's float32 kernels.
    assert means == [200, 200, 200, 202, 202]


@pytest.mark.parametrize("size", [(56, 40), (130, 61)])
@each_case
def test_gaussian_blur_equals_scipys(parameters: str, severity: int, size: tuple[int, int], make_images: Maker) -> None:
    images = make_images(2 if size[0] < 100 else 1, *size)
    sigma = CORRUPTIONS["gaussian_blur"].parameters[parameters][severity - 1]
    exact = ndimage.gaussian_filter(to_unit(images), (0, sigma, sigma, 0), mode="nearest", truncate=4.0) * 255
    difference = np.abs(run(images, "gaussian_blur", severity, parameters).astype(int) - np.uint8(exact + 1e-9))
    assert difference.max() <= 1
    blurred = blur.smooth(images, sigma).permute(0, 2, 3, 1).numpy()
    mean, largest = (0.0025, 0.01) if sigma <= 1.6 else (0.015, 0.2)
    assert np.abs(blurred - exact).mean() <= mean
    assert np.abs(blurred - exact).max() <= largest
    # The narrowest leave most values within a thousandth of a whole level, which the truncation then tells apart.
    assert difference.mean() <= 0.03


@pytest.mark.parametrize("deviation", [0.05, 0.4, 1.5, 3, 6])
def test_no_sum_of_a_gaussian_blur_rounds(deviation: float) -> None:
    """At the largest contrast: alike forwards and backwards, and matrices alike in 32 and 64 bits."""
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 2, (2, 3, 130, 90), generator=random) * 255
    once = blur.smooth(images, deviation)
    assert torch.equal(once, blur.smooth(images.flip(3), deviation).flip(3))
    assert torch.equal(once, blur.smooth(images.flip(2), deviation).flip(2))
    for dimension, smallest, bits in ((3, 1.0, 17), (2, 2.0**-5, 12)):
        levels = images / 255 * (256 - smallest) - 128
        single = blur._apply_band(levels, dimension, deviation, bits)
        assert torch.equal(single.double(), blur._apply_band(levels.double(), dimension, deviation, bits))


@pytest.mark.parametrize("name", ["defocus_blur", "gaussian_blur"])
def test_blur_keeps_flat_images(name: str) -> None:
    levels = torch.arange(256, dtype=torch.uint8)[:, None, None, None].expand(256, 3, 9, 9)
    for severity in (1, 2, 3):
        assert np.array_equal(run(levels, name, severity, "imagenet-c"), levels.permute(0, 2, 3, 1).numpy())


@pytest.mark.parametrize("name", ["defocus_blur", "gaussian_blur"])
def test_blur_does_not_depend_on_the_number_of_threads(name: str, make_images: Maker) -> None:
    images, threads = make_images(2, 100, 90), torch.get_num_threads()
    once = run(images, name, 5, "imagenet-c")
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        assert np.array_equal(run(images, name, 5, "imagenet-c"), once)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(("border", "mode"), [("repeat", "nearest"), ("reflect", "reflect")])
@pytest.mark.parametrize("size", [1, 2, 5, 64])
def test_gaussian_matrix_equals_scipys_filter(size: int, border: str, mode: str) -> None:
    line = np.random.default_rng(size).normal(size=size)
    for deviation, cut_off in ((0.5, 4.0), (3.0, 3.0), (170.8, 3.0)):
        matrix = blur.gaussian_matrix(size, deviation, truncate=cut_off, border=border)
        expected = ndimage.gaussian_filter1d(line, deviation, mode=mode, truncate=cut_off)
        np.testing.assert_allclose(matrix.numpy() @ line, expected, atol=1e-12)
