"""Weather and light."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from pixmim_eval.corruptions.motion import blur_along
from pixmim_eval.corruptions.pixels import change_hsv, truncate
from pixmim_eval.corruptions.zoom import zoom_taps

# Flakes: mean and standard deviation of the normal numbers, zoom, threshold, all on [0, 1]; motion: radius and standard
# deviation in pixels; weight that the image keeps where it is whitened.
SNOW = {
    "imagenet-c": (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
    "tiny-imagenet-c": (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.8),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.8),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.7),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.65),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.6),
    ),
    "cifar-c": (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
}
# Brightness of the thickest fog (1 is white), and the factor by which fog wavers less at each finer scale.
FOG = {
    "imagenet-c": ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    "tiny-imagenet-c": ((0.4, 3), (0.7, 3), (1, 2.5), (1.5, 2), (2, 1.75)),
    "cifar-c": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
}
# Added to the value (the largest channel), on [0, 1].
BRIGHTNESS = {
    "imagenet-c": (0.1, 0.2, 0.3, 0.4, 0.5),
    "tiny-imagenet-c": (0.1, 0.2, 0.3, 0.4, 0.5),
    "cifar-c": (0.05, 0.1, 0.15, 0.2, 0.3),
}

_GREY = (0.299, 0.587, 0.114)  # of red, green and blue
_COARSE = 16  # points a side, up to which a fractal is one product with a matrix


def snow(images: Tensor, parameters: tuple[float, ...], generators: Iterator[torch.Generator]) -> Tensor:
    """Whitens the image and lets flakes fall on it, once from above and once turned by 180 degrees.

    Source: Hendrycks and Dietterich, ICLR 2019, section 4.1; hendrycks/robustness `snow`, whose motion blur is
        ImageMagick's: rounded to bytes, as it was when the published set was made (since October 2019 ImageMagick
        truncates). Images that are not square are zoomed along each side by itself.
    """
    location, deviation, factor, threshold, radius, blur_deviation, kept = parameters
    flakes, angles = _draw_flakes(images, factor, generators)
    levels = _zoom(flakes.double().mul_(deviation).add_(location), images.shape[-2:], factor)
    levels = F.threshold(levels, threshold, 0).clamp_(max=1).mul_(255).floor_().float()
    fallen = blur_along(levels[:, None], int(radius), blur_deviation, angles).round_()
    clear = images.float()
    red, green, blue = clear.unbind(1)
    white = (red * _GREY[0]).add_(green * _GREY[1]).add_(blue * _GREY[2]).mul_(1.5).add_(0.5 * 255).mul_(1 - kept)
    # kept · x + (1 - kept) · max(x, white) is the larger of x and kept · x + (1 - kept) · white.
    whitened = torch.maximum(clear, (clear * kept).add_(white[:, None]))
    return truncate(whitened.add_(fallen + fallen.flip(2, 3)))


def _draw_flakes(images: Tensor, factor: float, generators: Iterator[torch.Generator]) -> tuple[Tensor, Tensor]:
    """Standard normal float32 [B, rows, columns] for the part that is zoomed, and directions [B] in degrees."""
    rows, columns = (_zoom_part(size, factor, images.device)[2] for size in images.shape[-2:])
    flakes = torch.empty(len(images), rows, columns, device=images.device)
    angles = torch.empty(len(images), dtype=torch.float64, device=images.device)
    for flake, angle, generator in zip(flakes, angles, generators, strict=False):  # the others are for later images
        flake.normal_(generator=generator)
        angle.uniform_(-135, -45, generator=generator)
    return flakes, angles


def _zoom(flakes: Tensor, shape: torch.Size, factor: float) -> Tensor:
    """Flakes [B, rows, columns] enlarged to shape: first along the columns, while there are few rows."""
    for dimension, size in ((2, shape[1]), (1, shape[0])):
        index, weights, _ = _zoom_part(size, factor, flakes.device)
        weights = weights if dimension == 2 else weights[..., None]
        near, far = (flakes.index_select(dimension, taps) for taps in index)
        flakes = near.mul_(weights[0]).add_(far.mul_(weights[1]))
    return flakes


@lru_cache(maxsize=64)
def _zoom_part(size: int, factor: float, device: torch.device) -> tuple[Tensor, Tensor, int]:
    """The taps of zoom_taps, counted from the first pixel that is used, and the number of pixels that are."""
    index, weights = zoom_taps(size, factor)
    first, last = index.aminmax()
    return (index - first).to(device), weights.to(device), int(last - first) + 1


def fog(images: Tensor, parameters: tuple[float, float], generators: Iterator[torch.Generator]) -> Tensor:
    """Adds a plasma fractal and dims the sum by as much as the thickest fog would exceed the brightest value.

    The fractal's side is the next power of two at least as long as the image's long side (256, 64 and 32 at the
    published sizes); its upper left part is used, its darkest and brightest points anywhere are 0 and 1.

    Source: Hendrycks and Dietterich, ICLR 2019, section 4.1; hendrycks/robustness `fog` and `plasma_fractal`.
    Differs: its random numbers have 16 bits, a hundredth of a grey level.
    """
    amount, decay = parameters
    height, width = images.shape[-2:]
    plasma = _grow_plasma(_draw_plasma(images, generators), decay)
    darkest, brightest = plasma.amin((1, 2), keepdim=True), plasma.amax((1, 2), keepdim=True)
    top = images.amax((1, 2, 3), keepdim=True).double() / 255
    dimming = (top / (top + amount)).float()
    veil = plasma[:, :height, :width].sub(darkest).mul_(dimming[:, 0] * (amount * 255) / (brightest - darkest))
    return truncate(images.float().mul_(dimming).add_(veil[:, None]))


def _draw_plasma(images: Tensor, generators: Iterator[torch.Generator]) -> Tensor:
    """Uniform numbers float32 [B, side²] strictly between -1 and 1, four from each random 64-bit word."""
    side = 1 << max(1, (max(images.shape[-2:]) - 1).bit_length())
    words = torch.empty(len(images), side**2 // 4, dtype=torch.int64, device=images.device)
    for word, generator in zip(words, generators, strict=False):  # the other generators are for later images
        word.random_(-(2**63), None, generator=generator)
    return words.view(torch.int16).float().add_(0.5).mul_(2.0**-15)


def _grow_plasma(numbers: Tensor, decay: float) -> Tensor:
    """Diamond-square fractals [B, side, side] of uniform numbers [B, side²], on a torus.

    The coarse steps are one product with a matrix. Its entries, and the numbers, are whole multiples of a power of two,
    so that every sum is exact and does not depend on the order in which a library adds, nor on the batch.
    """
    side = math.isqrt(numbers.shape[1])
    size = min(side, _COARSE)
    coarse = numbers[:, : size**2].double() @ _coarse_growth(size, decay, numbers.device)
    grid = coarse.float().view(-1, size, size)
    moves = numbers * _wavering(side, decay, numbers.device)
    while size < side:
        grid = _refine(grid, moves[:, size**2 - 1 : 4 * size**2 - 1].view(-1, 3, size, size))
        size *= 2
    return grid


def _refine(corners: Tensor, moves: Tensor) -> Tensor:
    """A grid [B, n, n] made twice as fine: a new point is the mean of its four neighbours, and moves [B, 3, n, n].

    The middles of the squares come first, then the middles of the upper and left sides, each between two corners and
    two middles. A quarter of a sum is exact, so fused multiply-adds round alike.
    """
    middle, upper, left = moves.unbind(1)
    batch, side, _ = corners.shape
    finer = corners.new_empty(batch, side, 2, side, 2)
    across, down = corners + corners.roll(-1, 2), corners + corners.roll(-1, 1)
    middle = middle.add(across + across.roll(-1, 1), alpha=0.25)
    finer[:, :, 0, :, 0] = corners
    finer[:, :, 1, :, 1] = middle
    torch.add(upper, across.add_(middle).add_(middle.roll(1, 1)), alpha=0.25, out=finer[:, :, 0, :, 1])
    torch.add(left, down.add_(middle).add_(middle.roll(1, 2)), alpha=0.25, out=finer[:, :, 1, :, 0])
    return finer.view(batch, 2 * side, 2 * side)


@lru_cache(maxsize=64)
def _coarse_growth(side: int, decay: float, device: torch.device) -> Tensor:
    """The fractal of each number by itself, float64 [side² numbers, side² points], in multiples of 2^-20."""
    moves = torch.diag(_wavering(side, decay, torch.device("cpu")).double())
    grid, size = moves.new_zeros(side**2, 1, 1), 1
    while size < side:
        grid = _refine(grid, moves[:, size**2 - 1 : 4 * size**2 - 1].view(-1, 3, size, size))
        size *= 2
    return grid.flatten(1).mul_(2.0**20).round_().mul_(2.0**-20).to(device)


@lru_cache(maxsize=64)
def _wavering(side: int, decay: float, device: torch.device) -> Tensor:
    """How far each of the side² numbers moves its point: 10,000 in the first step, less in each finer one."""
    wavering = torch.zeros(side**2)  # the last one moves nothing
    size, wibble = 1, 100.0
    while size < side:
        wavering[size**2 - 1 : 4 * size**2 - 1] = wibble**2
        size, wibble = 2 * size, wibble / decay
    return wavering.to(device)


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
