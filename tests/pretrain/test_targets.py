"""Targets against the definition in float64, and their closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pixmim_eval.errors import InputError
from pretrain.targets import IMAGENET_MEAN, IMAGENET_STD, LowFrequency, normalise_patches, patchify, unpatchify
from tests.references import low_frequency as reference
from tests.references.mae import patchify_by_loop


def make_images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("size", "radius"),
    [(224, 5), (224, 40), (224, 80), (224, 112), (64, 5), (64, 11.43), (64, 32), (64, 40), (448, 40)],
)
def test_the_published_target_equals_its_definition_in_float64(size: int, radius: float) -> None:
    images = make_images(2, 3, size, size)
    wanted = reference.double(images.numpy().astype(np.float64), radius)
    np.testing.assert_allclose(LowFrequency(radius)(images), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("radius", [1, 3, 4.5, 8, 40])
def test_the_published_target_equals_a_loop_over_frequencies(radius: float) -> None:
    images = make_images(1, 3, 16, 16)
    wanted = reference.loop(images.numpy().astype(np.float64), radius)
    np.testing.assert_allclose(LowFrequency(radius)(images), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(15, 15), (16, 24), (33, 20)])
@pytest.mark.parametrize("radius", [3.0, 7.0, 30.0])
def test_a_filter_centred_on_the_zero_frequency_equals_numpy(shape: tuple[int, int], radius: float) -> None:
    images = make_images(2, 3, *shape)
    mean, std = (np.array(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    pixels = images.numpy().astype(np.float64) * std + mean
    rows, columns = (np.rint(np.fft.fftfreq(size) * size) for size in shape)
    passes = rows[:, None] ** 2 + columns[None, :] ** 2 <= radius**2
    wanted = (np.abs(np.fft.ifft2(np.fft.fft2(pixels) * passes)) - mean) / std
    np.testing.assert_allclose(LowFrequency(radius, centre="dc")(images), wanted, rtol=0, atol=1e-5)


def test_a_wave_inside_the_circle_passes_and_one_outside_vanishes() -> None:
    x = torch.arange(64) * (2 * torch.pi / 64)
    for cycles, passes in ((9, True), (10, True), (11, False), (20, False)):
        wave = (0.3 * torch.cos(cycles * x)).expand(1, 3, 64, 64)  # above zero in pixels, so the modulus is harmless
        filtered = LowFrequency(10, centre="dc")(wave)
        wanted = wave if passes else torch.zeros_like(wave)
        assert (filtered - wanted).abs().max() < 1e-5, cycles


def test_the_published_circle_of_radius_40_holds_5024_bins_from_minus_40_to_39() -> None:
    passband = LowFrequency(40).passband(224, 224)
    assert int(passband.sum()) == 5024  # facts: 10.0 % of the bins
    frequencies = torch.fft.fftfreq(224) * 224
    assert (frequencies[passband.any(0)].min(), frequencies[passband.any(0)].max()) == (-40, 39)


def test_at_64_pixels_the_published_radius_cuts_only_corners_of_the_spectrum() -> None:
    assert LowFrequency(40).passband(64, 64).float().mean() > 0.96


def test_autocast_does_not_touch_the_target() -> None:
    images = make_images(1, 3, 32, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = LowFrequency(6)(images)
    assert torch.equal(inside, LowFrequency(6)(images))


@pytest.mark.parametrize(("radius", "centre"), [(0.0, "published"), (-3.0, "dc"), (10.0, "middle")])
def test_a_meaningless_filter_is_refused(radius: float, centre: str) -> None:
    with pytest.raises(InputError, match="low-frequency target: expected"):
        LowFrequency(radius, centre=centre)  # type: ignore[arg-type]


def test_patches_are_in_the_published_order_and_come_back() -> None:
    images = make_images(2, 3, 16, 24)
    patches = patchify(images, 4)
    np.testing.assert_array_equal(patches, patchify_by_loop(images.numpy(), 4))
    assert torch.equal(unpatchify(patches, 4, (4, 6)), images)


def test_patches_are_normalised_with_the_unbiased_variance() -> None:
    patches = make_images(2, 5, 12)
    values = patches.double().numpy()
    wanted = (values - values.mean(-1, keepdims=True)) / np.sqrt(values.var(-1, ddof=1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(normalise_patches(patches), wanted, rtol=0, atol=1e-5)
