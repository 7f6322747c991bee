"""Snow against the published definition, with SciPy's zoom and ImageMagick's motion blur written out."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from torch import Tensor

from pixmim_eval.corruptions import PARAMETER_SETS, SEVERITIES, corrupt, weather
from pixmim_eval.corruptions.zoom import zoom_taps
from pixmim_eval.seeds import derive_seed, generators

Maker = Callable[..., Tensor]


def zoom_plainly(flakes: np.ndarray, factor: float) -> np.ndarray:
    """The published clipped_zoom, each side by itself."""
    height, width = flakes.shape
    rows, columns = math.ceil(height / factor), math.ceil(width / factor)
    top, left = (height - rows) // 2, (width - columns) // 2
    zoomed = ndimage.zoom(flakes[top : top + rows, left : left + columns], factor, order=1)
    top, left = (zoomed.shape[0] - height) // 2, (zoomed.shape[1] - width) // 2
    return zoomed[top : top + height, left : left + width]


def blur_plainly(levels: np.ndarray, radius: int, deviation: float, angle: float) -> np.ndarray:
    """ImageMagick's motion blur of bytes: the mean along a line of half a Gaussian, rounded to bytes."""
    (height, width), radians = levels.shape, math.radians(angle)
    total, weights = np.zeros(levels.shape), 0.0
    for step in range(2 * radius + 1):
        weight = math.exp(-(step**2) / (2 * deviation**2))
        rows = np.clip(np.arange(height) + math.ceil(step * math.sin(radians) - 0.5), 0, height - 1)
        columns = np.clip(np.arange(width) + math.ceil(step * math.cos(radians) - 0.5), 0, width - 1)
        total, weights = total + weight * levels[np.ix_(rows, columns)], weights + weight
    return np.round(total / weights)


def snow_plainly(image: np.ndarray, flakes: np.ndarray, angle: float, parameters: tuple[float, ...]) -> np.ndarray:
    location, deviation, factor, threshold, radius, blur, kept = parameters
    layer = zoom_plainly(location + deviation * flakes, factor)
    layer[layer < threshold] = 0
    layer = blur_plainly(np.floor(np.clip(layer, 0, 1) * 255), int(radius), blur, angle)[..., None] / 255
    unit = image / 255.0
    white = (unit @ [0.299, 0.587, 0.114])[..., None] * 1.5 + 0.5
    unit = kept * unit + (1 - kept) * np.maximum(unit, white)
    return np.clip(unit + layer + np.rot90(layer, k=2), 0, 1) * 255


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize(
    ("parameters", "shape"),
    [(name, (size, size)) for name, size in PARAMETER_SETS.items()] + [("imagenet-c", (90, 150))],
)
def test_snow_of_the_same_numbers_is_the_published_snow(
    parameters: str, shape: tuple[int, int], severity: int, make_images: Maker
) -> None:
    images, index = make_images(2, *shape), torch.tensor([5, 8])
    results = corrupt(images, "snow", severity, seed=1, index=index, parameters=parameters)
    values = weather.SNOW[parameters][severity - 1]
    flakes, angles = weather._draw_flakes(images, values[2], generators(derive_seed(1, "snow", severity), index))
    top, left = (int(zoom_taps(size, values[2])[0].min()) for size in shape)
    for image, own, angle, result in zip(images, flakes, angles.tolist(), results, strict=True):
        everywhere = np.full(shape, 1e3)  # would be seen if a number were used that we do not draw
        everywhere[top : top + len(own), left : left + len(own[0])] = own.double().numpy()
        exact = snow_plainly(image.permute(1, 2, 0).numpy(), everywhere, angle, values)
        difference = np.abs(result.permute(1, 2, 0).numpy() - np.floor(exact + 1e-3))
        assert difference.max() <= 1 and difference.mean() < 0.005


def test_flakes_are_normal_and_fall_steeply() -> None:
    images = torch.zeros(500, 3, 32, 32, dtype=torch.uint8)
    flakes, angles = weather._draw_flakes(images, 1.0, generators(0, torch.arange(500)))
    assert flakes.shape == (500, 32, 32)
    assert stats.kstest(flakes.double().numpy().ravel(), "norm").pvalue > 0.01
    assert stats.kstest(angles.numpy(), stats.uniform(-135, 90).cdf).pvalue > 0.01


def test_flakes_come_in_pairs_turned_by_180_degrees() -> None:
    black = torch.zeros(1, 3, 64, 48, dtype=torch.uint8)
    snowy = corrupt(black, "snow", 3, seed=0, index=torch.tensor([0]))
    assert torch.equal(snowy, snowy.flip(2, 3)) and snowy.unique().numel() > 20
    assert snowy.min() == int(0.3 * 0.5 * 255)  # black becomes 0.7 black and 0.3 grey


def test_snow_depends_on_seed_image_and_severity(make_images: Maker) -> None:
    image = make_images(1, 64, 64).expand(2, -1, -1, -1)
    first, second = corrupt(image, "snow", 3, seed=0, index=torch.tensor([0, 1]))
    assert not torch.equal(first, second)
    assert not torch.equal(first, corrupt(image[:1], "snow", 3, seed=1, index=torch.tensor([0]))[0])
