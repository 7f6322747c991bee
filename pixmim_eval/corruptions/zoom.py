"""Zoom: images enlarged about their centre."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=256)
def zoom_taps(size: int, factor: float) -> tuple[Tensor, Tensor]:
    """One axis enlarged about its middle, as two taps for each pixel: the middle is cut out, stretched and trimmed.

    Args:
        size: pixels of the axis, before and after.
        factor: at least 1.

    Returns:
        index int64 [2, size] into the axis, and weights float64 [2, size] that add up to 1 (see Differs).

    Source: hendrycks/robustness `clipped_zoom`, with scipy.ndimage.zoom of order 1: the first and the last pixel of the
        part that is cut out become the first and the last of the stretched one.
    Differs: nothing, and so the last pixel may be black (weights 0): SciPy does that where rounding puts its position
        past the end.
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
