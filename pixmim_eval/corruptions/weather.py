"""Weather and light."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor

from pixmim_eval.corruptions.pixels import change_hsv

# Added to the value (the largest channel), on [0, 1].
BRIGHTNESS = {
    "imagenet-c": (0.1, 0.2, 0.3, 0.4, 0.5),
    "tiny-imagenet-c": (0.1, 0.2, 0.3, 0.4, 0.5),
    "cifar-c": (0.05, 0.1, 0.15, 0.2, 0.3),
}


def brightness(images: Tensor, added: float, _: Iterator[torch.Generator]) -> Tensor:
    """Raises the value V of HSV, and keeps hue and saturation.

    Source: Hendrycks and Dietterich, ICLR 2019, section 4.1; hendrycks/robustness `brightness`.
    Differs: red, green and blue grow by one factor, which depends on the largest, so that a table of (largest, level)
        holds all bytes. Where the middle channel comes to a whole level in exact arithmetic, it can be one level off:
        there rounding decides in the published code, with the hue. One value in 1,500 of a photograph is.
    """
    index = images.to(torch.int32).add_(images.amax(1, keepdim=True).to(torch.int32).mul_(256))
    return _brightened(added, images.device).index_select(0, index.flatten()).view_as(images)


@lru_cache(maxsize=64)
def _brightened(added: float, device: torch.device) -> Tensor:
    """Bytes uint8 [65536] of each (largest channel, level), as the smallest channel has them in the published code."""
    largest, level = torch.meshgrid(*[torch.arange(256, dtype=torch.uint8, device=device)] * 2, indexing="ij")
    return change_hsv(torch.stack((largest, level, level))[None], added=added)[0, 1].flatten()
