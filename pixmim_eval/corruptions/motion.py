"""Blur along a line: a camera, or falling snow, that moves while the shutter is open."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from pixmim_eval.corruptions.pixels import truncate

# Radius of the line and standard deviation of the weights on it, both in pixels.
MOTION_BLUR = {
    "imagenet-c": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    "tiny-imagenet-c": ((10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3)),
    "cifar-c": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
}

_STEEPEST = 45.0  # degrees
_WEIGHT_BITS = 16  # with the 8 of a byte they fit the 24 of float32: sums of whole grey levels do not round


def motion_blur(images: Tensor, parameters: tuple[int, float], generators: Iterator[torch.Generator]) -> Tensor:
    """Moves each image along its own line, at most 45 degrees from the horizontal.

    Source: Hendrycks and Dietterich, ICLR 2019, section 4.1; hendrycks/robustness `motion_blur`. Levels are rounded and
        not truncated, as ImageMagick did when the set was published (since October 2019 it truncates).
    """
    radius, deviation = parameters
    angles = torch.empty(len(images), dtype=torch.float64, device=images.device)
    for angle, generator in zip(angles, generators, strict=False):  # the other generators are for later images
        angle.uniform_(-_STEEPEST, _STEEPEST, generator=generator)
    return truncate(blur_along(images.float(), radius, deviation, angles).add_(0.5))


def blur_along(levels: Tensor, radius: int, deviation: float, angles: Tensor) -> Tensor:
    """Each image blurred along its own line: half a Gaussian whose taps lie on whole pixels; borders repeat the edge.

    Args:
        levels: float32 [B, C, H, W], any unit.
        radius: the line is 2 * radius + 1 pixels long and starts at the pixel itself.
        deviation: standard deviation of the Gaussian in pixels.
        angles: float64 [B], degrees; 0 takes from the right of a pixel, 90 from below it.

    Returns:
        float32 [B, C, H, W], not rounded; of whole numbers on [0, 255] the same to the bit on any device.

    Source: ImageMagick, MagickCore/effect.c, MotionBlurImage.
    Differs: weights have 16 binary places.
    """
    weights = _line_weights(radius, deviation)
    if levels.device.type == "cpu":
        blurred = torch.empty_like(levels)
        for image, total, angle in zip(levels, blurred, angles.tolist(), strict=True):
            _add_shifted(image, weights, angle, total)
        return blurred
    return _add_gathered(levels, weights, angles)


@cache
def _line_weights(radius: int, deviation: float) -> tuple[float, ...]:
    gaussian = [math.exp(-(step**2) / (2 * deviation**2)) for step in range(2 * radius + 1)]
    weights = [round(value / sum(gaussian) * 2**_WEIGHT_BITS) / 2**_WEIGHT_BITS for value in gaussian]
    return (1 - sum(weights[1:]), *weights[1:])


def _add_shifted(image: Tensor, weights: tuple[float, ...], angle: float, total: Tensor) -> None:
    """One image [C, H, W] blurred into `total`, tap by tap of the whole image."""
    height, width = image.shape[-2:]
    down, right = math.sin(math.radians(angle)), math.cos(math.radians(angle))
    taps: dict[tuple[int, int], float] = {}
    for step, weight in enumerate(weights):  # steps that round to the same pixel are one tap
        # An offset of the whole side reaches no further than the edge that is repeated.
        row = min(max(math.ceil(step * down - 0.5), 1 - height), height - 1)
        column = min(max(math.ceil(step * right - 0.5), 1 - width), width - 1)
        taps[row, column] = taps.get((row, column), 0.0) + weight
    rows, columns = [row for row, _ in taps], [column for _, column in taps]
    top, left = -min(rows), -min(columns)
    padded = F.pad(image[None], (left, max(columns), top, max(rows)), mode="replicate")[0]
    total.zero_()
    for (row, column), weight in taps.items():
        total.add_(padded[:, top + row : top + row + height, left + column : left + column + width], alpha=weight)


def _add_gathered(levels: Tensor, weights: tuple[float, ...], angles: Tensor) -> Tensor:
    """All images [B, C, H, W] at once, tap by tap: a GPU would wait for as many small steps as there are images."""
    height, width = levels.shape[-2:]
    radians = torch.deg2rad(angles)[:, None, None]
    down, right = radians.sin(), radians.cos()
    rows = torch.arange(height, device=levels.device)[:, None]
    columns = torch.arange(width, device=levels.device)
    lines = levels.flatten(2)
    total = torch.zeros_like(lines)
    for step, weight in enumerate(weights):
        row = (rows + (step * down - 0.5).ceil().long()).clamp_(0, height - 1)
        column = (columns + (step * right - 0.5).ceil().long()).clamp_(0, width - 1)
        position = (row * width + column).flatten(1)[:, None].expand_as(lines)
        total.add_(lines.gather(2, position), alpha=weight)
    return total.view_as(levels)
