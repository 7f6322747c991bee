"""The published low-frequency target, held against its own definition and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.references.low_frequency import MEAN, STD, circle, double, loop, published


def normalised(height: int, width: int, seed: int = 0) -> np.ndarray:
    pixels = np.random.default_rng(seed).random((2, 3, height, width))
    return (pixels - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))


@pytest.mark.parametrize(("height", "width", "radius"), [(8, 8, 2), (12, 12, 3.5), (9, 9, 2), (10, 7, 3), (16, 16, 20)])
def test_the_fft_agrees_with_the_sum_over_frequencies(height: int, width: int, radius: float) -> None:
    images = normalised(height, width)
    np.testing.assert_allclose(double(images, radius), loop(images, radius), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("size", "radius"), [(16, 4), (64, 12), (224, 10), (224, 40), (448, 80)])
def test_the_published_float32_agrees_with_float64(size: int, radius: float) -> None:
    images = normalised(size, size)
    result = published(torch.from_numpy(images).float(), radius)
    np.testing.assert_allclose(result, double(images, radius), rtol=0, atol=2e-5)


def test_the_published_filter_passes_5024_bins() -> None:
    assert circle(224, 224, 40).sum() == 5024


@pytest.mark.parametrize("axis", [-1, -2])
def test_a_wave_on_the_rim_keeps_one_of_its_two_bins(axis: int) -> None:
    # bins -40…39 pass: a wave of 39 periods survives, one of 41 goes, and of 40 only exp(-i…) is left beside the mean
    phase = 2 * np.pi * np.arange(224) / 224
    expected = {
        39: 0.5 + 0.25 * np.cos(39 * phase),
        40: np.sqrt(0.5**2 + 0.125**2 + 2 * 0.5 * 0.125 * np.cos(40 * phase)),
        41: np.full(224, 0.5),
    }
    for periods, line in expected.items():
        wave = 0.5 + 0.25 * np.cos(periods * phase)
        plane = np.broadcast_to(wave if axis == -1 else wave[:, None], (3, 224, 224))
        images = (plane - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
        filtered = double(images[None], 40)[0] * np.reshape(STD, (3, 1, 1)) + np.reshape(MEAN, (3, 1, 1))
        target = np.broadcast_to(line if axis == -1 else line[:, None], (3, 224, 224))
        np.testing.assert_allclose(filtered, target, rtol=0, atol=1e-12)
