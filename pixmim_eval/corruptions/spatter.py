"""Spatter: drops of water or mud on the lens.

The look of the water comes from four operations on bytes, each as OpenCV defines it: Canny's edges, the distance to
them, histogram equalisation, and 3 x 3 filters. They compute in whole numbers, to the bit what OpenCV computes.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from pixmim_eval.corruptions.elastic import NUMBER_BITS, smooth_noise
from pixmim_eval.corruptions.pixels import truncate

# Mean and standard deviation of the noise, standard deviation of its smoothing in pixels, the level above which it is
# liquid, and of which kind; then the strength of water, or the standard deviation of the smoothing of mud's outline.
SPATTER = {
    "imagenet-c": (
        (0.65, 0.3, 4, 0.69, "water", 0.6),
        (0.65, 0.3, 3, 0.68, "water", 0.6),
        (0.65, 0.3, 2, 0.68, "water", 0.5),
        (0.65, 0.3, 1, 0.65, "mud", 1.5),
        (0.67, 0.4, 1, 0.65, "mud", 1.5),
    ),
    "tiny-imagenet-c": (
        (0.62, 0.1, 0.7, 0.7, "water", 0.6),
        (0.65, 0.1, 0.8, 0.7, "water", 0.6),
        (0.65, 0.3, 1, 0.69, "water", 0.6),
        (0.65, 0.1, 0.7, 0.68, "mud", 0.6),
        (0.65, 0.1, 0.5, 0.67, "mud", 0.6),
    ),
    "cifar-c": (
        (0.62, 0.1, 0.7, 0.7, "water", 0.5),
        (0.65, 0.1, 0.8, 0.7, "water", 0.5),
        (0.65, 0.3, 1, 0.69, "water", 0.5),
        (0.65, 0.1, 0.7, 0.69, "mud", 0.6),
        (0.65, 0.1, 0.5, 0.68, "mud", 0.6),
    ),
}

_LARGEST = 8.0  # no normal number in float32 is as large
_WATER, _MUD = (175, 238, 238), (63, 42, 20)  # red, green, blue
_THINNEST_MUD = 0.8

_WEAK_EDGE, _STRONG_EDGE = 50, 150
_FOLLOWED = 4  # pixels of an edge between two looks at whether it has ended
_TANGENT_BITS = 15
_TANGENT = round((2**0.5 - 1) * 2**_TANGENT_BITS)  # of 22.5 degrees

# OpenCV's 5 x 5 distance: lengths of steps in 1/10000 pixel, and the steps (down, right), each of them both ways.
_PIXEL = 10_000
_STRAIGHT, _DIAGONAL, _KNIGHT = 10_000, 14_000, 21_969
_STEPS = (
    (_STRAIGHT, ((0, 1), (1, 0))),
    (_DIAGONAL, ((1, 1), (1, -1))),
    (_KNIGHT, ((1, 2), (2, 1), (1, -2), (2, -1))),
)
_FARTHEST = 20  # pixels; distances are cut off there


def spatter(
    images: Tensor, parameters: tuple[float, float, float, float, str, float], numbers: Iterator[torch.Generator]
) -> Tensor:
    """Smoothed noise above a level is liquid: water glitters between its edges, mud covers.

    Source: Hendrycks and Dietterich, ICLR 2019, appendix B; hendrycks/robustness `spatter`.
    Differs: an image that no drop has hit stays as it is; the published code divides 0 by 0 there.
    """
    mean, spread, deviation, threshold, kind, last = parameters
    normals = _draw(images, numbers)
    layer = smooth_noise(normals, deviation, border="repeat", truncate=4).mul_(spread * _LARGEST).add_(mean)
    if kind == "mud":
        return _add_mud(images, layer > threshold, last)
    return _add_water(images, layer.where(layer >= threshold, 0.0), last)


def _draw(images: Tensor, numbers: Iterator[torch.Generator]) -> Tensor:
    """Normal numbers divided by _LARGEST, ready to be smoothed: float64 [B, H, W]."""
    normals = torch.empty(len(images), *images.shape[-2:], device=images.device)
    for normal, generator in zip(normals, numbers, strict=False):  # the other generators are for later images
        normal.normal_(generator=generator)
    return normals.mul_(2.0**NUMBER_BITS / _LARGEST).round_().double().mul_(2.0**-NUMBER_BITS)


def _add_mud(images: Tensor, wet: Tensor, deviation: float) -> Tensor:
    cover = smooth_noise(wet.double(), deviation, border="repeat", truncate=4)
    cover = cover.where(cover >= _THINNEST_MUD, 0.0).float()[:, None]
    colour = torch.tensor(_MUD, dtype=torch.float32, device=images.device).view(3, 1, 1)
    return truncate((cover * colour).add_((1 - cover) * images.float()))


def _add_water(images: Tensor, layer: Tensor, strength: float) -> Tensor:
    levels = (layer * 255).to(torch.int32) & 255  # the rare levels above 255 begin again at 0, as in the published code
    distance = measure_distance(find_edges(levels))
    pixels = (
        (_sum_neighbours(distance).float() + 0.5).mul_(1 / (9 * _PIXEL)).to(torch.int32)
    )  # 0.5: rounds down exactly
    relief = sharpen(equalise(pixels))
    light = (levels * _divide_by_9(_sum_neighbours(relief) + 4)).float()
    brightest = light.amax((1, 2), keepdim=True)
    light = light.div_(brightest.where(brightest > 0, 1.0)).mul_(strength)[:, None]
    colour = torch.tensor(_WATER, dtype=torch.float32, device=images.device).view(3, 1, 1)
    return truncate((light * colour).add_(images.float()))


def find_edges(levels: Tensor) -> Tensor:
    """Canny's edges with thresholds 50 and 150.

    Args:
        levels: int32 [B, H, W], bytes.

    Returns:
        bool [B, H, W].

    Source: Canny, IEEE PAMI 8 (1986); OpenCV `Canny` with aperture 3 and the L1 norm of the gradient.
    """
    padded = _pad(levels, inner=0)
    smoothed = padded[:, :-2] + padded[:, 1:-1] * 2 + padded[:, 2:]
    right = smoothed[..., 2:] - smoothed[..., :-2]
    slopes = padded[:, 2:] - padded[:, :-2]
    down = slopes[..., :-2] + slopes[..., 1:-1] * 2 + slopes[..., 2:]
    across, along = right.abs(), down.abs()
    size = across + along
    ridge = size >= _required_size(size, across, along, (right ^ down) < 0).clamp_(min=_WEAK_EDGE + 1)
    return _follow(ridge & (size > _STRONG_EDGE), ridge)


def _required_size(size: Tensor, across: Tensor, along: Tensor, falling: Tensor) -> Tensor:
    """What a gradient must reach to be as large as at its two neighbours along it, in the nearest of four directions.

    Where two are equal, the left or upper one is the ridge; on a slant, neither.
    """
    height, width = size.shape[1:]
    padded = F.pad(size, (1, 1, 1, 1))

    def beside(down: int, right: int) -> Tensor:
        return padded[:, 1 + down : 1 + down + height, 1 + right : 1 + right + width]

    flat, steep = across * _TANGENT, along << _TANGENT_BITS
    level = steep < flat
    upright = steep > flat.add_(across << (_TANGENT_BITS + 1))
    slanting = torch.where(
        falling, torch.maximum(beside(-1, 1), beside(1, -1)), torch.maximum(beside(-1, -1), beside(1, 1))
    )
    required = torch.where(upright, torch.maximum(beside(-1, 0) + 1, beside(1, 0)), slanting.add_(1))
    return torch.where(level, torch.maximum(beside(0, -1) + 1, beside(0, 1)), required)


def _follow(found: Tensor, ridge: Tensor) -> Tensor:
    """All pixels of the ridges that are connected, by sides or corners, to those found: bool [B, H, W]."""
    found, ridge = (F.pad(mask, (1, 1, 1, 1)) for mask in (found, ridge))
    reached, allowed, line = found.flatten(), ridge.flatten(), found.shape[2]
    wide, before = torch.zeros_like(reached), None
    while before is None or not torch.equal(reached, before):
        before = reached.clone()
        for _ in range(_FOLLOWED):  # rows lie one after another; what runs over their ends meets a border
            torch.bitwise_or(reached[:-2], reached[2:], out=wide[1:-1]).bitwise_or_(reached[1:-1])
            torch.bitwise_or(wide[: -2 * line], wide[2 * line :], out=reached[line:-line])
            reached.bitwise_or_(wide).bitwise_and_(allowed)
    return reached.view(found.shape)[:, 1:-1, 1:-1]


def measure_distance(edges: Tensor) -> Tensor:
    """Distance to the nearest edge, at most 20 pixels.

    Args:
        edges: bool [B, H, W].

    Returns:
        int32 [B, H, W] in 1/10000 pixel.

    Source: Borgefors, Computer Vision, Graphics, and Image Processing 34 (1986); OpenCV `distanceTransform` with
        DIST_L2 and mask size 5: the shortest way in straight, diagonal and knight's steps. A shortest way takes steps
        of two directions at most and in any order, so one direction after another finds it.
    Differs: OpenCV built without Intel's IPP rounds the lengths 1.4 and 2.1969 to 1/65536 pixel.
    """
    count, height, width = edges.shape
    distance = torch.full(
        (count, height + _FARTHEST, width + _FARTHEST), _FARTHEST * _PIXEL, dtype=torch.int32, device=edges.device
    )
    inside = distance[:, :height, :width]
    inside.masked_fill_(edges, 0)
    line, farther = distance.flatten(), torch.empty_like(distance).flatten()
    for length, directions in _STEPS:
        for down, right in directions:
            offset = down * (width + _FARTHEST) + right  # the border is too wide for a way around it to be short
            for steps in (1, 2, 4, 8, 16):  # there and back: together they are any number of steps
                if steps * length < _FARTHEST * _PIXEL and steps * offset < len(line):
                    torch.add(line, steps * length, out=farther)
                    before, after = slice(0, -steps * offset), slice(steps * offset, None)
                    for here, there in ((before, after), (after, before)):
                        torch.minimum(line[here], farther[there], out=line[here])
    return inside


def equalise(levels: Tensor) -> Tensor:
    """Histogram equalisation.

    Args:
        levels: int32 [B, H, W] from 0 to 20.

    Returns:
        int32 [B, H, W] from 0 to 255; an image of one level as it is.

    Source: OpenCV `equalizeHist`.
    """
    count, pixels = len(levels), levels[0].numel()
    bins = _FARTHEST + 1
    index = (levels.flatten(1) + bins * torch.arange(count, device=levels.device)[:, None]).flatten()
    reached = index.bincount(minlength=count * bins).view(count, bins).cumsum(1)
    darkest = (reached == 0).sum(1, keepdim=True)
    first = reached.gather(1, darkest)
    scale = torch.tensor(255.0, device=levels.device) / (pixels - first)
    table = ((reached - first) * scale).round().clamp_(0, 255).to(torch.int32)
    table = torch.where(first < pixels, table, darkest.int())
    return table.flatten().index_select(0, index).view_as(levels)


def sharpen(levels: Tensor) -> Tensor:
    """A relief lit from below right: the kernel ((-2, -1, 0), (-1, 1, 1), (0, 1, 2)), clipped to bytes.

    Args:
        levels: int32 [B, H, W], bytes.

    Returns:
        int32 [B, H, W], bytes.
    """
    padded = _pad(levels, inner=1)
    height, width = levels.shape[1:]

    def beside(down: int, right: int) -> Tensor:
        return padded[:, 1 + down : 1 + down + height, 1 + right : 1 + right + width]

    corners = beside(1, 1) - beside(-1, -1)
    sides = beside(0, 1) + beside(1, 0) - beside(0, -1) - beside(-1, 0)
    return (corners.mul_(2) + sides + levels).clamp_(0, 255)


def _sum_neighbours(levels: Tensor) -> Tensor:
    """Sums over 3 x 3 pixels, int32 [B, H, W]; borders are mirrored without repeating the edge."""
    padded = _pad(levels, inner=1)
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    return rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]


def _divide_by_9(sums: Tensor) -> Tensor:
    return (sums * 7282) >> 16  # rounded down: exact below 32768, and much faster than a division


def _pad(levels: Tensor, inner: int) -> Tensor:
    """One pixel more at each side of [B, H, W]: a copy of the edge (inner 0) or of what lies next to it (inner 1)."""
    for dimension in (1, 2):
        size = levels.shape[dimension]
        inside = min(inner, size - 1)
        first, last = levels.narrow(dimension, inside, 1), levels.narrow(dimension, size - 1 - inside, 1)
        levels = torch.cat((first, levels, last), dim=dimension)
    return levels
