"""Fog against the published definition, point by point in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from pixmim_eval.corruptions import PARAMETER_SETS, SEVERITIES, corrupt, weather
from pixmim_eval.seeds import derive_seed, generators

Maker = Callable[..., Tensor]


def grow_plainly(numbers: np.ndarray, side: int, decay: float) -> np.ndarray:
    """The published fractal on [0, 1]; numbers between -1 and 1 are used in the order in which it draws them."""
    height, stream = np.zeros((side, side)), iter(numbers.tolist())
    step, wibble = side, 100.0
    while step >= 2:
        half = step // 2

        def move(y: int, x: int, *neighbours: tuple[int, int], wibble: float = wibble) -> None:
            total = sum(height[(y + dy) % side, (x + dx) % side] for dy, dx in neighbours)
            height[y, x] = total / 4 + wibble * (wibble * next(stream))

        corners = range(0, side, step)
        for y in corners:
            for x in corners:
                move(y + half, x + half, (-half, -half), (-half, half), (half, -half), (half, half))
        plus = ((-half, 0), (half, 0), (0, -half), (0, half))
        for y in corners:
            for x in corners:
                move(y, x + half, *plus)
        for y in corners:
            for x in corners:
                move(y + half, x, *plus)
        step, wibble = half, wibble / decay
    return (height - height.min()) / (height - height.min()).max()


def fog_plainly(image: np.ndarray, plasma: np.ndarray, amount: float) -> np.ndarray:
    unit = image / 255.0
    height, width, _ = unit.shape
    foggy = (unit + amount * plasma[:height, :width, None]) * unit.max() / (unit.max() + amount)
    return np.uint8(np.clip(foggy, 0, 1) * 255)


def assert_published(images: Tensor, severity: int, parameters: str, side: int) -> None:
    index = torch.arange(len(images)) + 3
    results = corrupt(images, "fog", severity, seed=2, index=index, parameters=parameters)
    amount, decay = weather.FOG[parameters][severity - 1]
    numbers = weather._draw_plasma(images, generators(derive_seed(2, "fog", severity), index))
    for image, own, result in zip(images, numbers, results, strict=True):
        published = fog_plainly(image.permute(1, 2, 0).numpy(), grow_plainly(own.double().numpy(), side, decay), amount)
        difference = np.abs(result.permute(1, 2, 0).numpy().astype(int) - published)
        assert difference.max() <= 1 and difference.mean() < 0.005


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("parameters", ["tiny-imagenet-c", "cifar-c"])
def test_fog_of_the_same_numbers_is_the_published_fog(parameters: str, severity: int, make_images: Maker) -> None:
    size = PARAMETER_SETS[parameters]
    assert_published(make_images(1, size, size), severity, parameters, size)


@pytest.mark.parametrize(("severity", "shape", "side"), [(2, (224, 224), 256), (5, (60, 130), 256)])
def test_the_fractal_is_the_next_power_of_two(
    severity: int, shape: tuple[int, int], side: int, make_images: Maker
) -> None:
    assert_published(make_images(1, *shape), severity, "imagenet-c", side)


def test_the_numbers_are_uniform_and_never_reused() -> None:
    images = torch.zeros(4, 3, 224, 224, dtype=torch.uint8)
    numbers = weather._draw_plasma(images, generators(0, torch.arange(4))).double().numpy()
    assert numbers.shape == (4, 256**2) and np.abs(numbers).max() < 1
    assert stats.kstest(numbers.ravel(), stats.uniform(-1, 2).cdf).pvalue > 0.01
    assert np.abs(np.corrcoef(numbers) - np.eye(4)).max() < 0.02
    quarters = numbers.reshape(4, -1, 4)  # of one random word
    assert np.abs(np.corrcoef(quarters.reshape(-1, 4).T) - np.eye(4)).max() < 0.02


def test_the_veil_has_the_law_of_the_published_one() -> None:
    count, (amount, decay) = 400, weather.FOG["cifar-c"][4]
    images = torch.zeros(count, 3, 32, 32, dtype=torch.uint8)
    images[:, :, -1, -1] = 255
    index = torch.arange(count)
    ours = corrupt(images, "fog", 5, seed=0, index=index, parameters="cifar-c")[:, 0].double().numpy() / 255
    random = np.random.default_rng(0)
    plasmas = np.stack([grow_plainly(random.uniform(-1, 1, 32 * 32), 32, decay) for _ in range(count)])
    published = np.clip((images[:, 0].numpy() / 255 + amount * plasmas) / (1 + amount), 0, 1)
    published = np.floor(published * 255) / 255
    np.testing.assert_allclose(ours.mean(), published.mean(), atol=0.015)
    np.testing.assert_allclose(ours.std(0).mean(), published.std(0).mean(), rtol=0.05)
    assert np.abs(ours.mean(0) - published.mean(0)).max() < 5 * published.std(0).mean() * np.sqrt(2 / count)
    power, expected = (np.abs(np.fft.fft2(f - f.mean((1, 2), keepdims=True))) ** 2 for f in (ours, published))
    for ring in range(1, 16):
        inside = np.round(np.hypot(*np.meshgrid(*2 * [np.fft.fftfreq(32) * 32]))) == ring
        np.testing.assert_allclose(power[:, inside].mean(), expected[:, inside].mean(), rtol=0.25)


def test_the_brightest_value_decides_how_much_is_dimmed() -> None:
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    images[1] = 100
    black, grey = corrupt(images, "fog", 5, seed=0, index=torch.tensor([1, 1]), parameters="imagenet-c")
    assert not black.any()
    thinnest = 100 * (100 / 255) / (100 / 255 + 3)
    assert int(thinnest) <= grey.min() <= grey.max() <= 100


def test_fog_depends_on_seed_image_and_severity(make_images: Maker) -> None:
    image = make_images(1, 64, 64).expand(2, -1, -1, -1)
    first, second = corrupt(image, "fog", 3, seed=0, index=torch.tensor([0, 1]))
    assert not torch.equal(first, second)
    assert not torch.equal(first, corrupt(image[:1], "fog", 3, seed=1, index=torch.tensor([0]))[0])
