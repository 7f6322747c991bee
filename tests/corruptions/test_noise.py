"""Noise against the closed form of the distribution that the published code draws from."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from pixmim_eval.corruptions import corrupt, noise
from pixmim_eval.corruptions.noise import GAUSSIAN_NOISE, IMPULSE_NOISE, SHOT_NOISE, SPECKLE_NOISE

SETS = ("imagenet-c", "tiny-imagenet-c", "cifar-c")
LEVELS = (0, 10, 128, 200, 255)


def corrupt_flat(level: int, name: str, severity: int, parameters: str) -> np.ndarray:
    """Two flat images of 128 x 128 pixels: 98,304 independent values."""
    images = torch.full((2, 3, 128, 128), level, dtype=torch.uint8)
    noisy: Tensor = corrupt(images, name, severity, seed=11, index=torch.tensor([0, 1]), parameters=parameters)
    return noisy.numpy().astype(np.float64)


def every(parameters: Mapping[str, tuple[float, ...]]) -> list[float]:
    return sorted({value for values in parameters.values() for value in values})


def assert_law_of_table(law: noise.Law, parameter: float, expected: np.ndarray) -> None:
    """The probabilities that 8 + 24 random bits give in an alias table, column by column, are the expected ones."""
    entries = noise._tabulate(law, parameter, torch.device("cpu")).numpy().astype(np.int64).reshape(256, 256)
    own, alias = (entries >> 8) + (1 << 23), entries & 255
    parts = own.copy()
    np.add.at(parts, (np.arange(256)[:, None], alias), (1 << 24) - own)
    assert (own >= 0).all() and (own < 1 << 24).all() and (parts.sum(axis=1) == 1 << 32).all()
    np.testing.assert_allclose(parts / 2**32, expected, rtol=0, atol=1.01 * 2**-32)


def law_of_normal(spreads: np.ndarray) -> np.ndarray:
    """P(trunc(clip(level + spread · z, 0, 255)) = byte) by scipy."""
    with np.errstate(invalid="ignore", divide="ignore"):
        below = stats.norm.cdf(np.arange(1, 256), loc=np.arange(256)[:, None], scale=spreads[:, None])
    below[spreads == 0] = np.arange(1, 256) > np.arange(256)[spreads == 0][:, None]
    return np.diff(below, prepend=0.0, append=1.0)


@pytest.mark.parametrize("deviation", every(GAUSSIAN_NOISE))
def test_gaussian_noise_draws_from_the_clipped_and_truncated_normal(deviation: float) -> None:
    assert_law_of_table(noise._gaussian_law, deviation, law_of_normal(np.full(256, 255 * deviation)))


@pytest.mark.parametrize("deviation", every(SPECKLE_NOISE))
def test_speckle_noise_draws_from_a_normal_that_grows_with_the_level(deviation: float) -> None:
    assert_law_of_table(noise._speckle_law, deviation, law_of_normal(np.arange(256) * deviation))


@pytest.mark.parametrize("photons", every(SHOT_NOISE))
def test_shot_noise_draws_from_poissons_law(photons: int) -> None:
    counts = np.arange(photons)
    bytes_of_counts = np.uint8(np.clip(counts / photons, 0, 1) * 255)
    expected = np.zeros((256, 256))
    for level in range(256):
        np.add.at(expected[level], bytes_of_counts, stats.poisson.pmf(counts, level / 255 * photons))
        expected[level, 255] += stats.poisson.sf(photons - 1, level / 255 * photons)
    assert_law_of_table(noise._shot_law, photons, expected)


@pytest.mark.parametrize("amount", every(IMPULSE_NOISE))
def test_impulse_noise_draws_black_white_or_nothing(amount: float) -> None:
    expected = np.diag(np.full(256, 1 - amount))
    expected[:, 0] += amount / 2
    expected[:, 255] += amount / 2
    assert_law_of_table(noise._impulse_law, amount, expected)


def test_a_word_gives_its_columns_byte_or_the_alias(make_images: Callable[..., Tensor]) -> None:
    images, generator = make_images(2, 9, 7), torch.Generator()  # an odd number of values: half a word is left over
    seeded = (generator.manual_seed(seed) for seed in (1, 2))
    noisy = noise.shot_noise(images, 12, seeded)
    table = noise._tabulate(noise._shot_law, 12, torch.device("cpu")).tolist()
    for row, seed in enumerate((1, 2)):
        pairs = torch.empty(95, dtype=torch.int64).random_(-(2**63), None, generator=generator.manual_seed(seed))
        words = pairs.numpy().view(np.uint32).tolist()
        for level, byte, word in zip(
            images[row].flatten().tolist(), noisy[row].flatten().tolist(), words, strict=False
        ):
            entry, side = table[256 * level + word % 256], (word >> 8 ^ 1 << 23) - (1 << 23)
            assert byte == (word % 256 if side < entry >> 8 else entry & 255)


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


@pytest.mark.parametrize("parameters", SETS)
def test_speckle_noise_has_the_moments_of_its_law(parameters: str) -> None:
    for severity in (1, 3, 5):
        law = law_of_normal(np.arange(256) * SPECKLE_NOISE[parameters][severity - 1])
        for level in LEVELS:
            values = corrupt_flat(level, "speckle_noise", severity, parameters)
            mean = law[level] @ np.arange(256)
            variance, fourth = (law[level] @ (np.arange(256) - mean) ** power for power in (2, 4))
            assert abs(values.mean() - mean) <= 5 * np.sqrt(variance / values.size)
            assert abs(values.var() - variance) <= 5 * np.sqrt((fourth - variance**2) / values.size)


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
