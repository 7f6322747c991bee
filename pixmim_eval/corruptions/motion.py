"""Blur along a line: a camera, or falling snow, that moves while the shutter is open."""

from __future__ import annotations

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor


def blur_along(levels: Tensor, radius: int, deviation: float, angles: Tensor) -> Tensor:
    """Each image blurred along its own line: half a Gaussian whose taps lie on whole pixels; borders repeat the edge.

    Args:
        levels: float32 [B, C, H, W], any unit.
        radius: the line is 2 * radius + 1 pixels long and starts at the pixel itself.
        deviation: standard deviation of the Gaussian in pixels.
        angles: float64 [B], degrees; 0 takes from the right of a pixel, 90 from below it.

    Returns:
        float32 [B, C, H, W], not rounded.

    Source: ImageMagick, MagickCore/effect.c, MotionBlurImage.
    """
    height, width = levels.shape[-2:]
    blurred = torch.empty_like(levels)
    for image, total, angle in zip(levels, blurred, angles.tolist(), strict=True):
        taps = _find_taps(radius, deviation, angle, height, width)
        rows, columns = [row for row, _ in taps], [column for _, column in taps]
        top, left = -min(rows), -min(columns)
        padded = F.pad(image[None], (left, max(columns), top, max(rows)), mode="replicate")[0]
        total.zero_()
        for (row, column), weight in taps.items():
            source = padded[:, top + row : top + row + height, left + column : left + column + width]
            total.add_(source, alpha=weight)
    return blurred


@cache
def _line_weights(radius: int, deviation: float) -> tuple[float, ...]:
    weights = [math.exp(-(step**2) / (2 * deviation**2)) for step in range(2 * radius + 1)]
    return tuple(weight / sum(weights) for weight in weights)


def _find_taps(radius: int, deviation: float, angle: float, height: int, width: int) -> dict[tuple[int, int], float]:
    """Weights of the (row, column) offsets on the line; steps that round to the same pixel are one tap."""
    down, right = math.sin(math.radians(angle)), math.cos(math.radians(angle))
    taps: dict[tuple[int, int], float] = {}
    for step, weight in enumerate(_line_weights(radius, deviation)):
        # An offset of the whole side reaches no further than the edge that is repeated.
        row = min(max(math.ceil(step * down - 0.5), 1 - height), height - 1)
        column = min(max(math.ceil(step * right - 0.5), 1 - width), width - 1)
        taps[row, column] = taps.get((row, column), 0.0) + weight
    return taps
