"""From the scores of windows to the class of every pixel of an image, at the size of its mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pixmim_eval.transfer.segmentation.heads import resize_maps

Scorer = Callable[[Tensor], Tensor]
"""Images float [B, 3, H, W], normalised -> scores of the classes [B, K, H, W], the highest of which is the answer."""

_WINDOWS_AT_ONCE = 4
_CLASSES_AT_ONCE = 8  # scores of all classes at the size of a large photograph would take gigabytes


@dataclass(frozen=True)
class Geometry:
    """How images go through a model.

    Args:
        short_side: pixels that the short side of an image is resized to.
        crop: side of the windows in pixels; None for the whole image at once.
        stride: pixels between windows, at most.
        interpolation: of the resize, "bilinear" or "bicubic" (PIL).
        patch: sides of an image that goes in whole are multiples of it.

    Source: mmsegmentation's test pipeline and slide inference. Differs: PIL's antialiased resize; the long side may be
        more than four times the short one.
    """

    short_side: int
    crop: int | None
    stride: int
    interpolation: str
    patch: int

    @property
    def name(self) -> str:
        """For the protocol of a row."""
        windows = f"slide-{self.crop}-by-{self.stride}" if self.crop else "whole"
        return f"pil-{self.interpolation}-short-side-{self.short_side}-{windows}"


def list_windows(height: int, width: int, crop: int, stride: int) -> list[tuple[int, int]]:
    """Top and left of the windows that cover an image, row by row; the last ones are moved back inside.

    Source: mmsegmentation, slide inference.
    """
    tops, lefts = (
        [min(place * stride, side - crop) for place in range(-(-max(side - crop, 0) // stride) + 1)]
        for side in (height, width)
    )
    return [(top, left) for top in tops for left in lefts]


def score_image(score: Scorer, image: Tensor, geometry: Geometry) -> Tensor:
    """Scores of every class at every pixel of one image: the mean over the windows that a pixel is in.

    Args:
        score: see Scorer.
        image: float [3, H, W], normalised; sides are at least those of a window.
        geometry: whose windows.

    Returns:
        float32 [K, H, W].
    """
    if geometry.crop is None:
        return score(image[None])[0].float()
    crop, (height, width) = geometry.crop, image.shape[1:]
    places = list_windows(height, width, crop, geometry.stride)
    counts = image.new_zeros(height, width)
    total: Tensor | None = None
    for start in range(0, len(places), _WINDOWS_AT_ONCE):
        part = places[start : start + _WINDOWS_AT_ONCE]
        windows = torch.stack([image[:, top : top + crop, left : left + crop] for top, left in part])
        for (top, left), scores in zip(part, score(windows).float(), strict=True):
            if total is None:
                total = scores.new_zeros(len(scores), height, width)
            total[:, top : top + crop, left : left + crop] += scores
            counts[top : top + crop, left : left + crop] += 1
    assert total is not None  # an image has at least one window
    return total / counts


def choose_classes(scores: Tensor, shape: tuple[int, int]) -> np.ndarray:
    """The class of highest score at every pixel, after scores were resized to a shape; of equal scores the first.

    Args:
        scores: float [K, h, w].
        shape: (H, W).

    Returns:
        uint8 [H, W].

    Raises:
        FloatingPointError: scores are not finite.
    """
    if not torch.isfinite(scores).all():
        raise FloatingPointError(f"{int((~torch.isfinite(scores)).sum())} of {scores.numel()} scores are not finite")
    best = torch.full(shape, -torch.inf, device=scores.device)
    chosen = torch.zeros(shape, dtype=torch.uint8, device=scores.device)
    for start in range(0, len(scores), _CLASSES_AT_ONCE):
        large = resize_maps(scores[None, start : start + _CLASSES_AT_ONCE], shape)[0]
        for label, values in enumerate(large, start):  # on the CPU far faster than a maximum over the first dimension
            chosen.masked_fill_(values > best, label)
            torch.maximum(best, values, out=best)
    return chosen.cpu().numpy()
