"""Elastic transform: the image is bent like a rubber sheet."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from pixmim_eval.corruptions.blur import gaussian_matrix
from pixmim_eval.corruptions.pixels import truncate

# All in pixels: how far the smoothed noise moves a pixel, standard deviation of that smoothing, and how far the three
# points that fix an affine map move. The published code computes them from 244, 64 and 32 whatever the image's size.
ELASTIC_TRANSFORM = {
    "imagenet-c": (
        (244 * 2, 244 * 0.7, 244 * 0.1),
        (244 * 2, 244 * 0.08, 244 * 0.2),
        (244 * 0.05, 244 * 0.01, 244 * 0.02),
        (244 * 0.07, 244 * 0.01, 244 * 0.02),
        (244 * 0.12, 244 * 0.01, 244 * 0.02),
    ),
    "tiny-imagenet-c": (
        (0, 0, 64 * 0.08),
        (64 * 0.05, 64 * 0.3, 64 * 0.06),
        (64 * 0.1, 64 * 0.08, 64 * 0.06),
        (64 * 0.1, 64 * 0.03, 64 * 0.03),
        (64 * 0.16, 64 * 0.03, 64 * 0.02),
    ),
    "cifar-c": (
        (0, 0, 32 * 0.08),
        (32 * 0.05, 32 * 0.2, 32 * 0.07),
        (32 * 0.08, 32 * 0.06, 32 * 0.06),
        (32 * 0.1, 32 * 0.04, 32 * 0.05),
        (32 * 0.1, 32 * 0.03, 32 * 0.03),
    ),
}

NUMBER_BITS = 23  # after the point, of numbers to be smoothed
_ROW_BITS, _COLUMN_BITS = 29, 26  # after the point, of the weights of the two passes: sums of products have 52 bits
_BLOCK = 48  # outputs of one matrix product: long enough to be fast, short enough to leave out most zeros
_AFFINE_BITS, _FRACTION_BITS = 10, 5  # OpenCV adds source positions in 1/1024 pixel and keeps 1/32


def elastic_transform(
    images: Tensor, parameters: tuple[float, float, float], numbers: Iterator[torch.Generator]
) -> Tensor:
    """A random affine map, then every pixel moved by smoothed noise; borders are mirrored.

    Source: Hendrycks and Dietterich, ICLR 2019, section 4.1; hendrycks/robustness `elastic_transform`, with OpenCV 3
        and 4's `warpAffine` (positions in 1/32 pixel; OpenCV 5 no longer rounds them). In images that are not square,
        the centre of the three points is (H // 2, W // 2) taken as (x, y), as there.
    Differs: noise has 16 random bits a number. Images of less than 3 pixels a side, which leave the affine map of the
        published code undefined, use points 1 pixel from the centre. The package `imagecorruptions` has another
        elastic transform: without the affine map, and with other displacements at every severity.
    """
    amount, deviation, reach = parameters
    height, width = images.shape[-2:]
    moves, noise = _draw(images, reach, numbers)
    levels = _sample(images.float(), _affine_grid(moves, height, width), align_corners=True)
    if amount > 0:
        shifts = smooth_noise(noise, deviation, border="reflect", truncate=3)
        levels = _sample(levels, _displaced_grid(shifts, amount), align_corners=False)
    return truncate(levels)


def smooth_noise(numbers: Tensor, deviation: float, *, border: str, truncate: float) -> Tensor:
    """Gaussian smoothing of random fields: the same to the bit on any device, in any batch, on any number of threads.

    Weights are multiples of a power of two, and so is what lies between the two passes: every sum is exact.

    Args:
        numbers: float64 [..., H, W] in [-1, 1], multiples of 2^-NUMBER_BITS.
        deviation: standard deviation in pixels.
        border: see blur.gaussian_matrix.
        truncate: see blur.gaussian_matrix.

    Returns:
        float64 of the same shape, within 1e-7 (4e-7 where the deviation is 170).

    Source: scipy.ndimage.gaussian_filter.
    """
    height, width = numbers.shape[-2:]
    fields = numbers.reshape(-1, height, width)
    rows = torch.empty_like(fields)
    down = _bands(height, deviation, border, truncate, _ROW_BITS, _COLUMN_BITS, numbers.device)
    for taken, made, weights in down:
        rows[:, made] = weights @ fields[:, taken]
    lines = rows.round_().view(-1, width)
    columns = torch.empty_like(lines)
    along = _bands(width, deviation, border, truncate, _COLUMN_BITS, -_COLUMN_BITS, numbers.device)
    for taken, made, weights in along:
        torch.mm(lines[:, taken], weights.T, out=columns[:, made])
    return columns.view(numbers.shape)


@lru_cache(maxsize=64)
def _bands(
    size: int, deviation: float, border: str, truncate: float, bits: int, scale: int, device: torch.device
) -> list[tuple[slice, slice, Tensor]]:
    """The Gaussian as blocks of rows of its matrix without their zeros: (what they take, what they make, weights).

    The weights are rounded to `bits` bits after the point, then multiplied by 2^scale.
    """
    matrix = gaussian_matrix(size, deviation, truncate=truncate, border=border)
    weights = matrix.mul_(2.0**bits).round_().mul_(2.0 ** (scale - bits))
    block = _BLOCK if weights.count_nonzero() < weights.numel() // 2 + 1 else size
    bands = []
    for start in range(0, size, block):
        made = slice(start, min(start + block, size))
        used = weights[made].any(dim=0).nonzero()
        taken = slice(int(used.min()), int(used.max()) + 1)
        bands.append((taken, made, weights[made, taken].contiguous().to(device)))
    return bands


def _draw(images: Tensor, reach: float, numbers: Iterator[torch.Generator]) -> tuple[Tensor, Tensor]:
    """Moves float32 [B, 3, 2] of the points, uniform in ±reach pixels, and noise [B, 2, H, W], uniform in ±1."""
    count, height, width = len(images), *images.shape[-2:]
    moves = torch.empty(count, 3, 2, device=images.device)
    words = torch.empty(count, -(-height * width // 2), dtype=torch.int64, device=images.device)
    for move, word, generator in zip(moves, words, numbers, strict=False):  # other generators are for later images
        move.uniform_(-reach, reach, generator=generator)
        word.random_(-(2**63), None, generator=generator)
    noise = words.view(torch.int16)[:, : 2 * height * width].double()  # four numbers from each 64-bit word
    return moves, noise.add_(0.5).mul_(2.0**-15).view(count, 2, height, width)


def _affine_grid(moves: Tensor, height: int, width: int) -> Tensor:
    """Where the warped image is sampled: float32 [B, 2, H, W], (x, y), -1 and 1 at the centres of the edge pixels."""
    linear, offset = _invert_affine(moves, height, width)
    scale = 2.0**_AFFINE_BITS
    x, y = (torch.arange(n, dtype=torch.float64, device=moves.device) for n in (width, height))
    along = _to_whole(linear[:, :, :1] * x * scale)
    down = _to_whole((linear[:, :, 1:] * y + offset[:, :, None]) * scale) + (1 << (_AFFINE_BITS - _FRACTION_BITS - 1))
    positions = (down[..., None] + along[:, :, None, :]) >> (_AFFINE_BITS - _FRACTION_BITS)
    last = torch.tensor((width - 1, height - 1), device=moves.device).clamp_(min=1).view(2, 1, 1)
    return positions.float().mul_(2 / (last << _FRACTION_BITS)).sub_(1)


def _invert_affine(moves: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The map from a pixel of the warped image to its source: matrix float64 [B, 2, 2] and offset [B, 2], (x, y)."""
    half = max(1, min(height, width) // 3)
    corner = torch.tensor((height // 2, width // 2), device=moves.device) - half  # the published order, not (x, y)
    sides = torch.tensor(((2, 2), (2, 0), (0, 0)), device=moves.device) * half
    first, second, third = ((corner + sides).float() + moves).double().unbind(1)
    forward = torch.stack(((second - third), (first - second)), dim=2) / (2 * half)
    shift = third - (forward * corner).sum(2)
    (a, b), (c, d) = (row.unbind(1) for row in forward.unbind(1))
    determinant = a * d - b * c
    inverse = torch.stack((d, -b, -c, a), dim=1) * determinant.reciprocal().where(determinant != 0, 0.0)[:, None]
    inverse = inverse.view(-1, 2, 2)
    return inverse, -(inverse * shift[:, None]).sum(2)


def _to_whole(positions: Tensor) -> Tensor:
    return positions.round().clamp_(-(2**29), 2**29).to(torch.int32)


def _displaced_grid(shifts: Tensor, amount: float) -> Tensor:
    """Where the bent image is sampled: float32 [B, 2, H, W], (x, y), -1 and 1 at the image's outer edges."""
    grid = shifts.float()
    for axis, size in enumerate((shifts.shape[-1], shifts.shape[-2])):
        here = torch.arange(1, 2 * size, 2, device=shifts.device) / size - 1
        grid[:, axis].mul_(2 * amount / size).add_(here if axis == 0 else here[:, None])
    return grid


def _sample(levels: Tensor, grid: Tensor, *, align_corners: bool) -> Tensor:
    grid = grid.permute(0, 2, 3, 1)
    return F.grid_sample(levels, grid, mode="bilinear", padding_mode="reflection", align_corners=align_corners)
