"""Noise against the closed form of the distribution that the published code draws from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from pixmim_eval.corruptions import corrupt
from pixmim_eval.corruptions.noise import GAUSSIAN_NOISE, IMPULSE_NOISE, SHOT_NOISE, _count_thresholds

SETS = ("imagenet-c", "tiny-imagenet-c", "cifar-c")
LEVELS = (0, 10, 128, 200, 255)


def corrupt_flat(level: int, name: str, severity: int, parameters: str) -> np.ndarray:
    """Two flat images of 128 x 128 pixels: 98,304 independent values."""
    images = torch.full((2, 3, 128, 128), level, dtype=torch.uint8)
    noisy: Tensor = corrupt(images, name, severity, seed=11, index=torch.tensor([0, 1]), parameters=parameters)
    return noisy.numpy().astype(np.float64)


@pytest.mark.parametrize("parameters", SETS)
@pytest.mark.parametrize("severity", [1, 3, 5])
def test_gaussian_noise_has_the_moments_of_a_clipped_and_truncated_normal(severity: int, parameters: str) -> None:
    spread = GAUSSIAN_NOISE[parameters][severity - 1] * 255
    whole = np.arange(1, 256)
    for level in LEVELS:
        reached = stats.norm.sf(whole, loc=level, scale=spread)  # P(byte >= k)
        mean, square = reached.sum(), ((2 * whole - 1) * reached).sum()
        probabilities = -np.diff(np.concatenate([[1.0], reached, [0.0]]))
        fourth = (probabilities * (np.arange(256) - mean) ** 4).sum()
        variance = square - mean**2
        values = corrupt_flat(level, "gaussian_noise", severity, parameters)
        for channel in range(3):
            sample = values[:, channel].ravel()
            assert abs(sample.mean() - mean) < 5 * np.sqrt(variance / sample.size)
            assert abs(sample.var() - variance) < 5 * np.sqrt((fourth - variance**2) / sample.size)


def test_gaussian_noise_is_independent_between_pixels_and_channels() -> None:
    values = corrupt_flat(128, "gaussian_noise", 1, "imagenet-c")
    values -= values.mean()
    for shifted in (np.roll(values, 1, 3), np.roll(values, 1, 2), np.roll(values, 1, 1), np.roll(values, 1, 0)):
        assert abs((values * shifted).mean() / values.var()) < 0.02


@pytest.mark.parametrize("parameters", SETS)
@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_shot_noise_counts_follow_poissons_law(severity: int, parameters: str) -> None:
    photons = SHOT_NOISE[parameters][severity - 1]
    for level in LEVELS:
        values = corrupt_flat(level, "shot_noise", severity, parameters).ravel()
        expected = stats.poisson.pmf(np.arange(photons), level / 255 * photons) * values.size
        expected = np.append(expected, values.size - expected.sum())  # photons and more are white
        bytes_of_counts = (np.arange(photons + 1) / photons * 255).astype(np.uint8)
        seen = np.array([(values == byte).sum() for byte in np.unique(bytes_of_counts)])
        law = np.array([expected[bytes_of_counts == byte].sum() for byte in np.unique(bytes_of_counts)])
        assert seen.sum() == values.size
        common = law >= 10
        rare_seen, rare_law = seen[~common].sum(), law[~common].sum()
        assert abs(rare_seen - rare_law) <= 5 * np.sqrt(rare_law) + 1
        if common.sum() > 1:
            assert stats.chisquare(seen[common], law[common] / law[common].sum() * seen[common].sum()).pvalue > 1e-4


@pytest.mark.parametrize("photons", sorted({value for values in SHOT_NOISE.values() for value in values}))
def test_shot_noise_inverts_the_distribution_function(photons: int) -> None:
    table = _count_thresholds(photons).reshape(256, -1)
    expected = stats.poisson.cdf(np.arange(photons), np.arange(256)[:, None] / 255 * photons)
    np.testing.assert_allclose(table[:, :photons], expected, atol=1e-7)
    assert (table[:, photons:] > 1).all()


@pytest.mark.parametrize("parameters", SETS)
@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_impulse_noise_hits_the_published_fraction_with_as_much_salt_as_pepper(severity: int, parameters: str) -> None:
    amount = IMPULSE_NOISE[parameters][severity - 1]
    values = corrupt_flat(100, "impulse_noise", severity, parameters)
    n = values.size
    for extreme in (0, 255):
        assert abs((values == extreme).sum() - n * amount / 2) < 5 * np.sqrt(n * amount / 2)
    assert set(np.unique(values)) == {0, 100, 255}


def test_impulse_noise_hits_channels_one_by_one() -> None:
    hit = corrupt_flat(100, "impulse_noise", 5, "imagenet-c") != 100
    both = (hit[:, 0] & hit[:, 1]).mean()
    assert abs(both - 0.27**2) < 0.01
