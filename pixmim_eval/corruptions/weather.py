"""Weather and light."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from pixmim_eval.corruptions.pixels import from_hsv, to_hsv

# Added to the value (the largest channel), on [0, 1].
BRIGHTNESS = {
    "imagenet-c": (0.1, 0.2, 0.3, 0.4, 0.5),
    "tiny-imagenet-c": (0.1, 0.2, 0.3, 0.4, 0.5),
    "cifar-c": (0.05, 0.1, 0.15, 0.2, 0.3),
}


def brightness(images: Tensor, added: float, _: Iterator[torch.Generator]) -> Tensor:
    """Raises the value V of HSV, and keeps hue and saturation.

    Source: Hendrycks and Dietterich, ICLR 2019, section 4.1; hendrycks/robustness `brightness`.
    """
    hue, saturation, value = to_hsv(images)
    return from_hsv(hue, saturation, value.add_(added).clamp_(0, 1))
