"""Blur by a fixed kernel, the same to the bit on any device, in any batch, on any number of threads.

Weights are whole multiples of a power of two, chosen so that sums fit the digits of their type: no addition rounds,
whatever its order. Where one has to, it is an operation of its own on whole images, which rounds alike everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, lru_cache

import numpy as np
import torch
from torch import Tensor

from pixmim_eval.corruptions.pixels import truncate

# Disk radius in pixels and standard deviation of the small Gaussian that smooths its rim.
DEFOCUS_BLUR = {
    "imagenet-c": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    "tiny-imagenet-c": ((0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1)),
    "cifar-c": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
}
# Standard deviation in pixels.
GAUSSIAN_BLUR = {
    "imagenet-c": (1, 2, 3, 4, 6),
    "tiny-imagenet-c": (0.5, 0.75, 1, 1.25, 1.5),
    "cifar-c": (0.4, 0.6, 0.7, 0.8, 1),
}

_DISK_GRID = 8  # pixels from the middle of the grid, or the radius where that is larger
_DISK_BITS = 32  # a byte, these and the error of a float64 Fourier transform: 53
# Weights of a narrow Gaussian: along rows they and a byte fill float32, so that flat images stay what they are.
_NARROW_BITS, _NARROW = 16, 6  # and how far from the middle it may reach, in pixels
# A wide Gaussian is two products of matrices. A byte less 128 has 7 bits and a sign; with 17 bits it fills float32, and
# so does what is kept of the sum (5 binary places) with 12.
_WIDE_BITS, _WIDE_PLACES = (17, 12), 5
SMOOTH_TIE = 2.0**-13  # more than `smooth` rounds a whole level off
_BLOCK = 32  # pixels whose weights are one dense matrix: the rest of the band would be zeros


def defocus_blur(images: Tensor, parameters: tuple[float, float], _: Iterator[torch.Generator]) -> Tensor:
    """A lens out of focus: every point becomes a disk. Borders are mirrored without repeating the edge.

    Source: Hendrycks and Dietterich, ICLR 2019, section 4.1; hendrycks/robustness `defocus_blur`. The weights of the
        disks of radius 8 and 10 add up to 1.013 and 1.011, there and here: their rim reaches the edge of the kernel's
        grid, where smoothing mirrors it.
    """
    radius, deviation = parameters
    if radius + 1 <= _DISK_GRID:  # the smoothed rim does not reach the edge of the grid
        return _average_disk(images, radius, deviation)
    return _convolve_disk(images, parameters)


def gaussian_blur(images: Tensor, deviation: float, _: Iterator[torch.Generator]) -> Tensor:
    """Gaussian blur, cut off at four standard deviations. Borders repeat the edge.

    Source: Hendrycks and Dietterich, ICLR 2019, appendix B; hendrycks/robustness `gaussian_blur` (scikit-image's
        `gaussian`, mode "nearest", truncate 4).
    Differs: by up to 0.01 grey levels, on average, before it is truncated (see `smooth`).
    """
    return truncate(smooth(images, deviation), tie=SMOOTH_TIE)


def smooth(levels: Tensor, deviation: float) -> Tensor:
    """Gaussian blur of whole grey levels, not truncated. Borders repeat the edge; flat images stay what they are.

    Args:
        levels: whole numbers on [0, 255] of any dtype, [B, C, H, W].
        deviation: standard deviation in pixels; the filter is cut off at four of them.

    Returns:
        float32 [B, C, H, W] (float64 from a wide blur on a GPU, where float32 products may be cut to 11 bits).

    Source: scipy.ndimage.gaussian_filter, mode "nearest".
    Differs: in fixed point. Up to a deviation of 1.6 the error is 0.001 grey levels, beyond it 0.01 on photographs.
    """
    if _cut_off(deviation) <= _NARROW:
        return _smooth_narrow(levels, deviation)
    centred = levels.to(torch.float32 if levels.device.type == "cpu" else torch.float64, copy=True).sub_(128)
    centred = _apply_band(centred, 3, deviation, _WIDE_BITS[0])
    centred.mul_(2.0**_WIDE_PLACES).round_().mul_(2.0**-_WIDE_PLACES)
    return _apply_band(centred, 2, deviation, _WIDE_BITS[1]).add_(128)


def gaussian_matrix(size: int, deviation: float, *, truncate: float, border: str) -> Tensor:
    """Gaussian blur of one axis as a matrix: `matrix @ line` is scipy.ndimage.gaussian_filter1d(line, deviation).

    Args:
        size: pixels of the axis.
        deviation: standard deviation in pixels.
        truncate: the filter is cut off at this many standard deviations.
        border: "repeat" (the edge; SciPy's mode "nearest") or "reflect" (mirrored, the edge twice; SciPy's "reflect").

    Returns:
        float64 [size, size]; rows add up to 1.
    """
    return _spread(_gaussian_weights(int(truncate * deviation + 0.5), deviation), size, border)


def _gaussian_weights(radius: int, deviation: float) -> np.ndarray:
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / deviation) ** 2)
    return weights / weights.sum()


def _spread(weights: np.ndarray, size: int, border: str) -> Tensor:
    """The matrix [size, size] that filters a line with the weights."""
    positions = torch.arange(size)[:, None] + torch.arange(len(weights)) - len(weights) // 2
    if border == "repeat":
        positions = positions.clamp(0, size - 1)
    else:
        positions = size - ((positions % (2 * size)) - size + 0.5).abs().add(0.5).long()
    matrix = torch.zeros(size, size, dtype=torch.float64)
    return matrix.scatter_add_(1, positions, torch.from_numpy(weights).expand(size, -1))


def _smooth_narrow(levels: Tensor, deviation: float) -> Tensor:
    middle, *others = (_whole_weights(deviation, _NARROW_BITS) * 2.0**-_NARROW_BITS)[_cut_off(deviation) :].tolist()
    levels = levels.float()
    total = levels * middle
    for (before, after), weight in zip(_neighbours(levels, 3, len(others)), others, strict=True):
        total.add_(before, alpha=weight).add_(after, alpha=weight)
    levels, total = total, total * middle
    for (before, after), weight in zip(_neighbours(levels, 2, len(others)), others, strict=True):
        total += (before + after).mul_(
            weight
        )  # rounded twice; add_ with alpha would round once or twice, as it pleases
    return total


def _neighbours(levels: Tensor, dimension: int, radius: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Levels [B, C, H, W] from 1, 2, … radius pixels before and after; the edge is repeated."""
    size = levels.shape[dimension]
    first, last = levels.narrow(dimension, 0, 1), levels.narrow(dimension, size - 1, 1)
    padded = torch.cat((*[first] * radius, levels, *[last] * radius), dimension)
    for step in range(1, radius + 1):
        yield padded.narrow(dimension, radius - step, size), padded.narrow(dimension, radius + step, size)


def _apply_band(levels: Tensor, dimension: int, deviation: float, bits: int) -> Tensor:
    """Levels [B, C, H, W] filtered along one dimension, a block of pixels at a time."""
    size, radius = levels.shape[dimension], _cut_off(deviation)
    matrix = _fixed_matrix(size, deviation, bits, levels.dtype, levels.device)
    blocks = []
    for first in range(0, size, _BLOCK):
        last = min(first + _BLOCK, size)
        low, high = max(first - radius, 0), min(last + radius, size)
        weights, near = matrix[first:last, low:high], levels.narrow(dimension, low, high - low)
        blocks.append(near @ weights.T if dimension == 3 else weights @ near)
    return torch.cat(blocks, dimension)


@lru_cache(maxsize=32)
def _fixed_matrix(size: int, deviation: float, bits: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return _spread(_whole_weights(deviation, bits) * 2.0**-bits, size, "repeat").to(device, dtype)


@cache
def _whole_weights(deviation: float, bits: int) -> np.ndarray:
    """Whole numbers that add up to 2^bits."""
    whole = np.rint(_gaussian_weights(_cut_off(deviation), deviation) * 2.0**bits)
    whole[len(whole) // 2] += 2.0**bits - whole.sum()
    return whole


def _cut_off(deviation: float) -> int:
    return int(4 * deviation + 0.5)


def _average_disk(images: Tensor, radius: float, deviation: float) -> Tensor:
    """Whole pixels of the disk, added up row by row in the order of the rows' widths, and then smoothed."""
    reach = int(radius)
    widths = [int((radius**2 - row**2) ** 0.5) for row in range(-reach, reach + 1)]
    height, width = images.shape[2] + 2, images.shape[3] + 2  # smoothing needs one pixel more on each side
    padded = _mirror(images, reach + 1).to(torch.int16)  # at most 113 pixels: their sum is below 2^15
    run = padded.narrow(3, reach, width)
    total = torch.zeros_like(run[:, :, :height])
    for extent in range(reach + 1):
        if extent:
            run = run + padded.narrow(3, reach - extent, width) + padded.narrow(3, reach + extent, width)
        for row, half in enumerate(widths):
            if half == extent:
                total += run.narrow(2, row, height)
    side, middle, _ = _gaussian_weights(1, deviation).tolist()
    area = len(widths) + 2 * sum(widths)
    smoothed = total.float().mul_(1 / area)
    for dimension, size in ((2, height - 2), (3, width - 2)):
        around = smoothed.narrow(dimension, 0, size) + smoothed.narrow(dimension, 2, size)
        smoothed = smoothed.narrow(dimension, 1, size).mul(middle).add_(around.mul_(side))
    return truncate(smoothed, tie=SMOOTH_TIE)


def _convolve_disk(images: Tensor, parameters: tuple[float, float]) -> Tensor:
    radius = len(_disk_kernel(*parameters)) // 2
    height, width = images.shape[-2:]
    padded = _mirror(images, radius)
    size = (_fast_length(height + 2 * radius), _fast_length(width + 2 * radius))
    spectrum = torch.fft.rfft2(padded.double(), s=size).mul_(_transform_disk(parameters, size, images.device))
    lines = torch.fft.ifft(spectrum, dim=2)[:, :, radius : radius + height]
    sums = torch.fft.irfft(lines, n=size[1], dim=3)[..., radius : radius + width]
    return truncate(sums.round().mul_(2.0**-_DISK_BITS), tie=2.0**-16)


@cache
def _disk_kernel(radius: float, deviation: float) -> np.ndarray:
    extent, smoothing = (_DISK_GRID, 1) if radius <= _DISK_GRID else (int(radius), 2)
    offsets = np.arange(-extent, extent + 1)
    disk = (offsets[:, None] ** 2 + offsets**2 <= radius**2).astype(np.float64)
    disk /= disk.sum()
    weights = _gaussian_weights(smoothing, deviation)
    window = np.lib.stride_tricks.sliding_window_view(np.pad(disk, smoothing, mode="reflect"), (len(weights),) * 2)
    return np.einsum("yxij,i,j->yx", window, weights, weights)


@lru_cache(maxsize=32)
def _transform_disk(parameters: tuple[float, float], size: tuple[int, int], device: torch.device) -> Tensor:
    """Spectrum of the disk about pixel (0, 0): real, because the disk is its own mirror image."""
    kernel = torch.from_numpy(np.rint(_disk_kernel(*parameters) * 2.0**_DISK_BITS)).to(device)
    around = torch.zeros(size, dtype=torch.float64, device=device)
    around[: len(kernel), : len(kernel)] = kernel
    return torch.fft.rfft2(around.roll((-(len(kernel) // 2),) * 2, dims=(0, 1))).real.contiguous()


def _mirror(images: Tensor, radius: int) -> Tensor:
    """Images with `radius` pixels of border, mirrored as often as that takes; the edge itself is not repeated."""
    for dimension in (2, 3):
        size = images.shape[dimension]
        period = max(1, 2 * (size - 1))
        positions = torch.cat((torch.arange(-radius, 0), torch.arange(size, size + radius)))
        sources = (size - 1 - (positions % period - (size - 1)).abs()).to(images.device)
        before, after = images.index_select(dimension, sources).split(radius, dimension)
        images = torch.cat((before, images, after), dimension)
    return images


def _fast_length(size: int) -> int:
    """The next size whose prime factors are 2, 3 and 5, on which Fourier transforms are fast."""
    while 30**16 % size:  # 30^16 is a multiple of all such sizes below 2^17
        size += 1
    return size
