"""Zoom: images enlarged about their centre."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pixmim_eval.corruptions.pixels import truncate

# Factors are 1, 1 + step, … below the first number.
ZOOM_BLUR = {
    "imagenet-c": ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
    "tiny-imagenet-c": ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
    "cifar-c": ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
}

_WEIGHT_BITS = 16  # with the 8 of a byte they fit the 24 of float32: no sum rounds, whatever its order
_BAND_PIXELS = 1 << 16  # of the result, worked on at a time


def zoom_blur(images: Tensor, parameters: tuple[float, float], _: Iterator[torch.Generator]) -> Tensor:
    """Moves towards the centre: the mean of the image and of its enlargements.

    All of them together are one linear operator, a sum over some thirty pixels, which is built once for a size and
    severity; several images at a time share the reading of it.

    Source: Hendrycks and Dietterich, ICLR 2019, section 4.1; hendrycks/robustness `zoom_blur`.
    Differs: weights have 16 binary places. Where an image is not square each axis is enlarged about its own middle (the
        published code cuts a square out of the height alone).
    """
    count, channels, height, width = images.shape
    lines = images.reshape(count * channels, height * width).T.float().contiguous()
    rows = max(1, _BAND_PIXELS // width)
    bands = []
    for first in range(0, height, rows):
        index, offsets, weights = _zoom_operator(
            height, width, parameters, first, min(first + rows, height), images.device
        )
        bands.append(F.embedding_bag(index, lines, offsets, mode="sum", per_sample_weights=weights))
    return truncate(torch.cat(bands)).T.reshape(images.shape)


def zoom_taps(size: int, factor: float) -> tuple[Tensor, Tensor]:
    """One axis enlarged about its middle, as two taps for each pixel: the middle is cut out, stretched and trimmed.

    Args:
        size: pixels of the axis, before and after.
        factor: at least 1.

    Returns:
        index int64 [2, size] into the axis, and weights float64 [2, size] that add up to 1 (but see Source).

    Source: hendrycks/robustness `clipped_zoom`, with scipy.ndimage.zoom of order 1: the first and the last pixel of the
        part that is cut out become the first and the last of the stretched one. At some sizes (36, 71, 139, …; none of
        the published) rounding puts the last position past the end, where SciPy has black: weights 0, there and here.
    """
    part = math.ceil(size / factor)
    first = (size - part) // 2
    stretched = round(part * factor)
    step = (part - 1) / (stretched - 1) if stretched > 1 else 1.0
    position = torch.arange(size, dtype=torch.float64).add_((stretched - size) // 2).mul_(step)
    below = position.floor()
    above_weight = position - below
    weights = torch.stack((1 - above_weight, above_weight)) * (position <= part - 1)
    index = torch.stack((below, below + 1)).long().clamp_(max=part - 1) + first
    return index, weights


@lru_cache(maxsize=8)  # at 224 px one is a severity, and takes 9 to 14 MB
def _zoom_operator(
    height: int, width: int, parameters: tuple[float, float], first: int, last: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows `first` to `last` of a zoom blur: source pixels, where those of each pixel begin, and weights."""
    factors = [float(factor) for factor in np.arange(1, *parameters)]
    own = torch.arange(first * width, last * width)
    sources, weights = [own], [torch.ones(len(own), dtype=torch.float64)]
    for factor in factors:
        row_index, row_weights = (taps[:, first:last] for taps in zoom_taps(height, factor))
        column_index, column_weights = zoom_taps(width, factor)
        for row in range(2):
            for column in range(2):
                sources.append((row_index[row][:, None] * width + column_index[column]).flatten())
                weights.append((row_weights[row][:, None] * column_weights[column]).flatten())
    source, order = torch.stack(sources, dim=1).sort(dim=1)
    weight = torch.stack(weights, dim=1).gather(1, order) / (len(factors) + 1)
    # Taps of one source become one, in the place of the first of them.
    new = F.pad(source.diff(dim=1) != 0, (1, 0), value=True)
    place = new.cumsum(1) - 1
    merged = torch.zeros_like(weight).scatter_add_(1, place, weight)
    source = torch.zeros_like(source).scatter_(1, place, source)
    whole = (merged * 2**_WEIGHT_BITS).round()
    missing = (merged.sum(1, keepdim=True) * 2**_WEIGHT_BITS).round() - whole.sum(1, keepdim=True)
    whole += missing * ((source == own[:, None]) & (whole > 0))  # the pixel itself has one of the largest weights
    kept = whole > 0
    counts = kept.sum(1)
    offsets = counts.cumsum(0) - counts
    fixed = (whole[kept] * 2.0**-_WEIGHT_BITS).float()
    return source[kept].int().to(device), offsets.int().to(device), fixed.to(device)
