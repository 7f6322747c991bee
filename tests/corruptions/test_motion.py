"""Motion blur against ImageMagick's definition, written out."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from pixmim_eval.corruptions import PARAMETER_SETS, corrupt, motion
from pixmim_eval.seeds import generators

Maker = Callable[..., Tensor]


def blur_plainly(image: np.ndarray, radius: int, deviation: float, angle: float) -> np.ndarray:
    """One image [C, H, W] in float64, as MagickCore/effect.c has it: a kernel, offsets, and a sum of virtual pixels."""
    width = 2 * radius + 1
    kernel = np.array([math.exp(-i * i / (2 * deviation * deviation)) for i in range(width)])
    kernel /= kernel.sum()
    across, along = width * math.sin(math.radians(angle)), width * math.cos(math.radians(angle))
    total = np.zeros(image.shape)
    for i, weight in enumerate(kernel):
        right = math.ceil(i * along / math.hypot(across, along) - 0.5)
        down = math.ceil(i * across / math.hypot(across, along) - 0.5)
        rows = np.clip(np.arange(image.shape[1]) + down, 0, image.shape[1] - 1)
        columns = np.clip(np.arange(image.shape[2]) + right, 0, image.shape[2] - 1)
        total += weight * image[:, rows][:, :, columns]
    return total


@pytest.mark.parametrize("size", [(40, 61), (96, 96), (3, 5), (1, 1)])
@pytest.mark.parametrize("parameters", PARAMETER_SETS)
def test_blur_along_equals_imagemagicks_definition(parameters: str, size: tuple[int, int], make_images: Maker) -> None:
    angles = torch.tensor([-44.9, -13.0, 0.0, 31.7, 45.0, -134.0, -90.0], dtype=torch.float64)
    images = make_images(len(angles), *size)
    for radius, deviation in motion.MOTION_BLUR[parameters][::2]:
        blurred = motion.blur_along(images.float(), radius, deviation, angles)
        for image, angle, result in zip(images.numpy(), angles.tolist(), blurred.numpy(), strict=True):
            expected = blur_plainly(image, radius, deviation, angle)
            assert np.abs(result - expected).max() <= 0.05
            assert np.abs(result - expected).mean() <= 0.01


def test_images_blurred_at_once_equal_images_blurred_one_by_one(make_images: Maker) -> None:
    """What a GPU does and what a processor does, to the bit."""
    images = make_images(5, 40, 61).float()
    angles = torch.tensor([-44.9, -13.0, 0.0, 31.7, -110.0], dtype=torch.float64)
    together = motion._add_gathered(images, motion._line_weights(20, 15), angles)
    assert torch.equal(together, motion.blur_along(images, 20, 15, angles))


def test_flat_images_stay_as_they_are() -> None:
    levels = torch.arange(0, 256, 15, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 5, 7)
    assert torch.equal(corrupt(levels, "motion_blur", 5, seed=0, index=torch.arange(18)), levels)


def test_angles_are_uniform_within_45_degrees_and_belong_to_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    monkeypatch.setattr(motion, "blur_along", lambda levels, r, d, angles: seen.append(angles) or levels)
    images = torch.zeros(2000, 3, 2, 2, dtype=torch.uint8)
    motion.motion_blur(images, (6, 1), generators(7, torch.arange(2000)))
    (angles,) = seen
    assert stats.kstest(angles.numpy(), stats.uniform(-45, 90).cdf).pvalue > 1e-3
    motion.motion_blur(images[:3], (6, 1), generators(7, torch.tensor([12, 3, 1999])))
    assert torch.equal(seen[1], angles[[12, 3, 1999]])


def test_motion_blur_is_the_rounded_blur_along_the_drawn_angle(make_images: Maker) -> None:
    images = make_images(3, 64, 50)
    result = motion.motion_blur(images, (15, 8), generators(3, torch.arange(3)))
    for row, generator in enumerate(generators(3, torch.arange(3))):
        angle = torch.empty((), dtype=torch.float64).uniform_(-45, 45, generator=generator).item()
        exact = blur_plainly(images[row].numpy(), 15, 8, angle)
        difference = np.abs(result[row].numpy().astype(int) - np.uint8(exact + 0.5 + 1e-9))
        assert difference.max() <= 1
        assert difference.mean() <= 0.01


def test_motion_blur_equals_imagecorruptions_with_the_same_angle(make_images: Maker) -> None:
    peer = pytest.importorskip("imagecorruptions.corruptions", reason="imagecorruptions is not a dependency")
    images, angles = make_images(2, 100, 120), torch.tensor([-30.0, 17.0], dtype=torch.float64)
    for radius, deviation in motion.MOTION_BLUR["imagenet-c"]:
        blurred = motion.blur_along(images.float(), radius, deviation, angles).permute(0, 2, 3, 1).numpy()
        for image, angle, result in zip(images.permute(0, 2, 3, 1).numpy(), angles.tolist(), blurred, strict=True):
            assert np.abs(result - peer._motion_blur(image, radius, deviation, angle)).max() <= 0.1
