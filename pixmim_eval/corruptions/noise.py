"""Noise: every number is drawn from the generator of its own image.

A function takes images uint8 [B, 3, H, W], the parameters of one severity, and one generator an image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import torch
from torch import Tensor

from pixmim_eval.corruptions.pixels import truncate

# Standard deviation, on [0, 1].
GAUSSIAN_NOISE = {
    "imagenet-c": (0.08, 0.12, 0.18, 0.26, 0.38),
    "tiny-imagenet-c": (0.04, 0.08, 0.12, 0.15, 0.18),
    "cifar-c": (0.04, 0.06, 0.08, 0.09, 0.10),
}
# Photons that a white pixel receives on average.
SHOT_NOISE = {
    "imagenet-c": (60, 25, 12, 5, 3),
    "tiny-imagenet-c": (250, 100, 50, 30, 15),
    "cifar-c": (500, 250, 100, 75, 50),
}
# Fraction of the values that become black or white.
IMPULSE_NOISE = {
    "imagenet-c": (0.03, 0.06, 0.09, 0.17, 0.27),
    "tiny-imagenet-c": (0.01, 0.02, 0.05, 0.08, 0.14),
    "cifar-c": (0.01, 0.02, 0.03, 0.05, 0.07),
}


def gaussian_noise(images: Tensor, deviation: float, generators: Iterator[torch.Generator]) -> Tensor:
    """Adds a normal number to every value.

    Source: Hendrycks and Dietterich, ICLR 2019, section 4.1; hendrycks/robustness `gaussian_noise`.
    """
    noise = _draw(images, generators, torch.Tensor.normal_)
    return truncate(noise.mul_(255 * deviation).add_(images))


def shot_noise(images: Tensor, photons: int, generators: Iterator[torch.Generator]) -> Tensor:
    """Counts photons: a value x on [0, 1] becomes Poisson(x · photons) / photons.

    Source: Hendrycks and Dietterich, ICLR 2019, section 4.1; hendrycks/robustness `shot_noise`.
    Differs: counts are drawn by inverting the distribution function of each of the 256 grey levels, three times as
        fast as torch.poisson on a processor; the law is the same to the 24 random bits of a float32 number.
    """
    uniforms = _draw(images, generators, torch.Tensor.uniform_).flatten()
    thresholds = torch.from_numpy(_count_thresholds(photons)).to(images.device)
    width = len(thresholds) // 256
    first = images.flatten().to(torch.int32) * width
    counts, step = torch.zeros_like(first), width // 2
    while step:  # binary search in the row of each value's grey level
        passed = thresholds.index_select(0, (first + counts).add_(step - 1)) <= uniforms
        counts.add_(passed.to(torch.int32), alpha=step)
        step //= 2
    return truncate(counts.float().mul_(255 / photons)).view_as(images)


def impulse_noise(images: Tensor, amount: float, generators: Iterator[torch.Generator]) -> Tensor:
    """Salt and pepper: a fraction `amount` of the values (each channel by itself) becomes 0 or 255, equally often.

    Source: Hendrycks and Dietterich, ICLR 2019, section 4.1; hendrycks/robustness `impulse_noise`.
    """
    uniforms = _draw(images, generators, torch.Tensor.uniform_)
    return images.masked_fill(uniforms < amount / 2, 0).masked_fill_(uniforms >= 1 - amount / 2, 255)


def _draw(images: Tensor, generators: Iterator[torch.Generator], fill: Callable[..., Tensor]) -> Tensor:
    numbers = torch.empty(images.shape, device=images.device)
    for image, generator in zip(numbers, generators, strict=False):  # the other generators are for later images
        fill(image, generator=generator)
    return numbers


@cache
def _count_thresholds(photons: int) -> np.ndarray:
    """P(count <= k) for each grey level (rows, flattened) and k = 0…photons-1, filled up to a power of two with 2."""
    mean = np.arange(256)[:, None] / 255 * photons
    ratios = mean / np.arange(1, photons)  # P(k) / P(k - 1)
    probabilities = np.cumprod(np.hstack([np.exp(-mean), ratios]), axis=1)
    table = np.full((256, 1 << photons.bit_length()), 2.0, dtype=np.float32)
    table[:, :photons] = np.cumsum(probabilities, axis=1)
    return table.ravel()
