"""What supervised training does to images after the crop: 3-Augment, then mixup or CutMix of two images."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pixmim_eval.seeds import uniform

BLUR_RADIUS = (0.1, 2.0)  # deviation in pixels, at any image size
JITTER = 0.3  # brightness, contrast and saturation times 1 - JITTER … 1 + JITTER
MIXUP_ALPHA, CUTMIX_ALPHA = 0.8, 1.0
BLACK, MEAN_GREY, GREY = range(3)  # what brightness, contrast and saturation move an image away from


def augment_three(images: Tensor, seed: int, index: Tensor) -> Tensor:
    """3-Augment: one of grey, solarised and blurred, then brightness, contrast and saturation in random order.

    Args:
        images: uint8 [B, 3, H, W], cropped and flipped.
        seed: see seeds.derive_seed.
        index: int64 [B], on any device; what happens to image i depends on (seed, index[i]) alone.

    Returns:
        uint8 [B, 3, H, W], to the bit what PIL's operations give.

    Source: DeiT III (arXiv 2204.07118) section 3.2 and its code: choice among three, ColorJitter(0.3, 0.3, 0.3).
    """
    numbers = uniform(seed, index.to(images.device), 8, dtype=torch.float64)
    choice = (numbers[:, 0] * 3).long()
    images = images.clone()
    for rows, change in ((choice == 0, _turn_grey), (choice == 1, solarise)):
        images[rows] = change(images[rows])
    low, high = BLUR_RADIUS
    blurred = choice == 2
    images[blurred] = blur(images[blurred], low + (high - low) * numbers[blurred, 1])
    factors = 1 - JITTER + 2 * JITTER * numbers[:, 2:5]
    return jitter_colours(images, factors, numbers[:, 5:8].argsort(dim=1))


def to_grey(images: Tensor) -> Tensor:
    """Luma of uint8 [B, 3, H, W], int32 [B, 1, H, W].

    Source: ITU-R 601 in PIL's 16-bit fixed point.
    """
    red, green, blue = images.to(torch.int32).unbind(1)
    return ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16)[:, None]


def _turn_grey(images: Tensor) -> Tensor:
    return to_grey(images).to(torch.uint8).expand_as(images)


def solarise(images: Tensor) -> Tensor:
    """uint8 levels from 128 on inverted."""
    return torch.where(images < 128, images, 255 - images)


def blur(images: Tensor, radius: Tensor) -> Tensor:
    """Gaussian blur as PIL does it: three box filters along the rows, then three along the columns.

    Args:
        images: uint8 [B, C, H, W].
        radius: float64 [B], the Gaussian's deviation in pixels, at most 2.

    Returns:
        uint8 [B, C, H, W].

    Source: Gwosdek et al., Theoretical Foundations of Gaussian Convolution by Extended Box Filtering (SSVM 2011),
        equations 7, 11 and 14; PIL's 24-bit fixed point, rounded after each filter.
    """
    variance = radius.float().square() / 3  # of each of the three filters
    whole = (((12 * variance + 1).sqrt() - 1) / 2).floor()
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1).square()))
    inner = (2**24 / (2 * (whole + part).double() + 1)).to(torch.int32)  # weight of a pixel that the box covers
    outer = (2**24 - (2 * whole.to(torch.int32) + 1) * inner) // 2  # of the two that it covers in part
    near = torch.where(whole == 0, outer, inner)  # at a distance of one pixel
    far = torch.where(whole == 0, 0, outer)  # of two
    inner, near, far = (weight[:, None, None, None] for weight in (inner, near, far))
    for axis in (3, 2):
        length = images.shape[axis]
        places = torch.arange(-2, length + 2, device=images.device).clamp(0, length - 1)  # the border repeats
        for _ in range(3):
            padded = images.index_select(axis, places).to(torch.int32)
            a, b, c, d, e = (padded.narrow(axis, start, length) for start in range(5))
            # sums below 2^32 wrap in 32 bits: their upper 8 are the rounded level all the same
            images = ((inner * c + near * (b + d) + far * (a + e) + 2**23) >> 24).to(torch.uint8)
    return images


def jitter_colours(images: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """Brightness, contrast and saturation, each image in its own order.

    Args:
        images: uint8 [B, 3, H, W].
        factors: float [B, 3], of brightness, contrast and saturation; 1 changes nothing.
        order: int64 [B, 3], permutations of 0 (brightness), 1 (contrast), 2 (saturation).

    Returns:
        uint8 [B, 3, H, W].

    Source: torchvision's ColorJitter on PIL images: base + factor * (image - base), cut off to whole levels, where the
        base is black, the mean grey level, or the grey image.
    """
    for what in order.unbind(1):
        grey = to_grey(images)
        mean = (grey.double().mean(dim=(1, 2, 3), keepdim=True) + 0.5).floor().to(torch.int32)
        kind = what[:, None, None, None]
        base = torch.where(kind == GREY, grey, torch.where(kind == MEAN_GREY, mean, 0)).float()
        factor = factors.gather(1, what[:, None]).float()[:, :, None, None]
        images = (base + factor * (images.float() - base)).clamp(0, 255).to(torch.uint8)
    return images


@dataclass(frozen=True)
class Mixing:
    """How each image of a batch is mixed with its partner.

    Args:
        weight: of the image's own label, in [0, 1]; the partner has the rest.
        box: (top, bottom, left, right) in pixels of what the partner covers in CutMix; None in mixup, where `weight`
            is that of the pixels too.
    """

    weight: float
    box: tuple[int, int, int, int] | None = None


def draw_mixing(size: int, seed: int) -> Mixing:
    """Mixup or CutMix, each half of the time, for a whole batch.

    Args:
        size: pixels a side.
        seed: see seeds.derive_seed.

    Source: mixup (arXiv 1710.09412), CutMix (arXiv 1905.04899, the box clipped at the border and the weight corrected
        for it); DeiT III: Beta(0.8, 0.8) and Beta(1, 1), one draw a batch.
    """
    generator = np.random.default_rng(seed)
    cut = generator.random() < 0.5
    weight = generator.beta(CUTMIX_ALPHA, CUTMIX_ALPHA) if cut else generator.beta(MIXUP_ALPHA, MIXUP_ALPHA)
    if not cut:
        return Mixing(weight)
    half = int(size * math.sqrt(1 - weight)) // 2
    row, column = (int(place) for place in generator.integers(size, size=2))
    box = max(row - half, 0), min(row + half, size), max(column - half, 0), min(column + half, size)
    return Mixing(1 - (box[1] - box[0]) * (box[3] - box[2]) / size**2, box)


def mix(images: Tensor, labels: Tensor, classes: int, mixing: Mixing) -> tuple[Tensor, Tensor]:
    """Images mixed with those of the reversed batch, and their labels.

    Args:
        images: float [B, 3, H, W].
        labels: int64 [B].
        classes: number K.
        mixing: of the batch.

    Returns:
        Images [B, 3, H, W], and targets float32 [B, K] that sum to one.
    """
    own = F.one_hot(labels, classes).float()
    targets = mixing.weight * own + (1 - mixing.weight) * own.flip(0)
    if mixing.box is None:
        return mixing.weight * images + (1 - mixing.weight) * images.flip(0), targets
    top, bottom, left, right = mixing.box
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images.flip(0)[:, :, top:bottom, left:right]
    return mixed, targets
