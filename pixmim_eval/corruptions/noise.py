"""Noise that changes every value by itself: a byte becomes another by a law that depends on the byte alone.

Such a law is a table of 256 x 256 probabilities, held as alias tables: a random word of 32 bits then gives a byte with
its exact probability, in the same few steps for every kind of noise. Words come from the generator of their own image.
A function takes images uint8 [B, 3, H, W], the parameter of one severity, and one generator an image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

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
# Standard deviation of the factor whose mean is 1.
SPECKLE_NOISE = {
    "imagenet-c": (0.15, 0.2, 0.35, 0.45, 0.6),
    "tiny-imagenet-c": (0.15, 0.2, 0.25, 0.3, 0.35),
    "cifar-c": (0.06, 0.1, 0.12, 0.16, 0.2),
}

Law = Callable[[float], np.ndarray]  # parameter -> P(new byte | byte): float64 [256, 256], rows add up to 1

_LEVELS = np.arange(256.0)
_SIDE_BITS = 24  # of a word; the other 8 choose the column


def gaussian_noise(images: Tensor, deviation: float, generators: Iterator[torch.Generator]) -> Tensor:
    """Adds a normal number to every value.

    Source: Hendrycks and Dietterich, ICLR 2019, section 4.1; hendrycks/robustness `gaussian_noise`.
    """
    return _replace(images, _gaussian_law, deviation, generators)


def shot_noise(images: Tensor, photons: int, generators: Iterator[torch.Generator]) -> Tensor:
    """Counts photons: a value x on [0, 1] becomes Poisson(x · photons) / photons.

    Source: Hendrycks and Dietterich, ICLR 2019, section 4.1; hendrycks/robustness `shot_noise`.
    """
    return _replace(images, _shot_law, photons, generators)


def impulse_noise(images: Tensor, amount: float, generators: Iterator[torch.Generator]) -> Tensor:
    """Salt and pepper: a fraction `amount` of the values (each channel by itself) becomes 0 or 255, equally often.

    Source: Hendrycks and Dietterich, ICLR 2019, section 4.1; hendrycks/robustness `impulse_noise` (scikit-image's
        `random_noise`).
    """
    return _replace(images, _impulse_law, amount, generators)


def speckle_noise(images: Tensor, deviation: float, generators: Iterator[torch.Generator]) -> Tensor:
    """Multiplies every value by a normal number of mean 1, so that black stays black.

    Source: Hendrycks and Dietterich, ICLR 2019, appendix B; hendrycks/robustness `speckle_noise`.
    """
    return _replace(images, _speckle_law, deviation, generators)


def _gaussian_law(deviation: float) -> np.ndarray:
    return _normal_law(np.full(256, 255 * deviation))


def _speckle_law(deviation: float) -> np.ndarray:
    return _normal_law(_LEVELS * deviation)


def _normal_law(spreads: np.ndarray) -> np.ndarray:
    """The law of level + spread · normal number, clipped to [0, 255] and truncated."""
    steps = torch.from_numpy(_LEVELS[1:] - _LEVELS[:, None]) / torch.from_numpy(spreads)[:, None]
    below = torch.special.ndtr(steps).numpy()  # P(new byte < 1…255)
    return np.diff(below, prepend=0.0, append=1.0)


def _shot_law(photons: float) -> np.ndarray:
    """Fewer than `photons` make a byte, truncated as published; more are white."""
    counts = np.arange(1, int(photons))
    means = _LEVELS[:, None] / 255 * photons
    probabilities = np.cumprod(np.hstack([np.exp(-means), means / counts]), axis=1)
    law = np.zeros((256, 256))
    np.add.at(law.T, np.uint8(np.append(0, counts) / photons * 255), probabilities.T)
    law[:, 255] += np.maximum(1 - law.sum(axis=1), 0)
    return law


def _impulse_law(amount: float) -> np.ndarray:
    law = np.eye(256) * (1 - amount)
    law[:, [0, 255]] += amount / 2
    return law


def _replace(images: Tensor, law: Law, parameter: float, generators: Iterator[torch.Generator]) -> Tensor:
    """New bytes: 8 bits of a word choose a column, and the other 24 whether its own number is taken or its alias."""
    words = _draw_words(images, generators)
    index = images.to(torch.int32).mul_(256).bitwise_or_(words & 255)
    entries = _tabulate(law, parameter, images.device).index_select(0, index.flatten()).view_as(index)
    own = (words >> 8).sub_(entries >> 8).bitwise_right_shift_(31)  # all bits set where the column's own number is
    return (words ^ entries).bitwise_and_(own).bitwise_xor_(entries).bitwise_and_(255).to(torch.uint8)


def _draw_words(images: Tensor, generators: Iterator[torch.Generator]) -> Tensor:
    """32 random bits a value: int32 of the images' shape."""
    count = images[0].numel()
    pairs = torch.empty((len(images), (count + 1) // 2), dtype=torch.int64, device=images.device)
    for row, generator in zip(pairs, generators, strict=False):  # the other generators are for later images
        row.random_(-(2**63), None, generator=generator)
    return pairs.view(torch.int32)[:, :count].reshape(images.shape)


@lru_cache(maxsize=64)
def _tabulate(law: Law, parameter: float, device: torch.device) -> Tensor:
    """Alias tables of the 256 laws, flat: int32 [65536], in 24 bits P(own number) · 2^24 - 2^23, in 8 bits the alias.

    Distribution functions are rounded to whole multiples of 2^-32, and nothing is lost after that.

    Source: Walker, An Efficient Method for Generating Discrete Random Variables with General Distributions, ACM
        Transactions on Mathematical Software 3(3), 1977.
    """
    rows, full = np.arange(256), 1 << _SIDE_BITS
    parts = np.diff(np.rint(law(parameter).cumsum(axis=1) * 2.0**32), prepend=0).astype(np.int64)
    own, alias, filled = (np.zeros((256, 256), dtype=kind) for kind in (np.int64, np.int64, bool))
    for _ in range(256):  # fill up the least column of each law from the greatest; a full one is its own alias
        least, greatest = np.where(filled, 256 * full, parts).argmin(axis=1), parts.argmax(axis=1)
        part = parts[rows, least]
        own[rows, least] = np.minimum(part, full - 1)
        alias[rows, least] = np.where(part < full, greatest, least)
        parts[rows, greatest] -= full - part
        parts[rows, least], filled[rows, least] = full, True
    entries = (own - full // 2) * 256 + alias
    return torch.from_numpy(entries.astype(np.int32).ravel()).to(device)
