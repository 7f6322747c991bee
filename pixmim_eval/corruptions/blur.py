"""Blur by a fixed kernel.

Kernels are rounded to multiples of 2^-32, so that every sum of weighted bytes is a multiple of 2^-32 too, and rounding
to it removes the error of the float64 Fourier transform altogether: the result is the same to the bit on any device, in
any batch, on any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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

Kernel = Callable[..., np.ndarray]

_SCALE = 2.0**32


def defocus_blur(images: Tensor, parameters: tuple[float, float], _: Iterator[torch.Generator]) -> Tensor:
    """A lens out of focus: every point becomes a disk. Borders are mirrored without repeating the edge.

    Source: Hendrycks and Dietterich, ICLR 2019, section 4.1; hendrycks/robustness `defocus_blur`. The weights of the
        disks of radius 8 and 10 add up to 1.013 and 1.011, there and here: their rim reaches the edge of the kernel's
        grid, where smoothing mirrors it.
    """
    return _convolve(images, _disk_kernel, parameters, "mirror")


def gaussian_blur(images: Tensor, deviation: float, _: Iterator[torch.Generator]) -> Tensor:
    """Gaussian blur, cut off at four standard deviations. Borders repeat the edge.

    Source: Hendrycks and Dietterich, ICLR 2019, appendix B; hendrycks/robustness `gaussian_blur` (scikit-image's
        `gaussian`, mode "nearest", truncate 4).
    """
    return _convolve(images, _gaussian_kernel, (deviation,), "repeat")


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
    weights = torch.from_numpy(_gaussian_weights(int(truncate * deviation + 0.5), deviation))
    positions = torch.arange(size)[:, None] + torch.arange(len(weights)) - len(weights) // 2
    if border == "repeat":
        positions = positions.clamp(0, size - 1)
    else:
        positions = size - ((positions % (2 * size)) - size + 0.5).abs().add(0.5).long()
    matrix = torch.zeros(size, size, dtype=torch.float64)
    return matrix.scatter_add_(1, positions, weights.expand(size, -1))


def _gaussian_weights(radius: int, deviation: float) -> np.ndarray:
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / deviation) ** 2)
    return weights / weights.sum()


@cache
def _disk_kernel(radius: float, deviation: float) -> np.ndarray:
    extent, smoothing = (8, 1) if radius <= 8 else (int(radius), 2)
    offsets = np.arange(-extent, extent + 1)
    disk = (offsets[:, None] ** 2 + offsets**2 <= radius**2).astype(np.float64)
    disk /= disk.sum()
    weights = _gaussian_weights(smoothing, deviation)
    window = np.lib.stride_tricks.sliding_window_view(np.pad(disk, smoothing, mode="reflect"), (len(weights),) * 2)
    return np.einsum("yxij,i,j->yx", window, weights, weights)


@cache
def _gaussian_kernel(deviation: float) -> np.ndarray:
    weights = _gaussian_weights(int(4 * deviation + 0.5), deviation)
    return np.outer(weights, weights)


def _convolve(images: Tensor, make_kernel: Kernel, parameters: tuple[float, ...], border: str) -> Tensor:
    """Images uint8 [B, 3, H, W] convolved with a square kernel of odd side, truncated to uint8."""
    radius = len(make_kernel(*parameters)) // 2
    height, width = images.shape[-2:]
    rows = _border_index(height, radius, border).to(images.device)
    columns = _border_index(width, radius, border).to(images.device)
    size = (_fast_length(len(rows)), _fast_length(len(columns)))
    spectrum = _transform_kernel(make_kernel, parameters, size, images.device)
    padded = images.index_select(2, rows).index_select(3, columns).double()
    sums = torch.fft.irfft2(torch.fft.rfft2(padded, s=size) * spectrum, s=size)
    inner = sums[..., 2 * radius : 2 * radius + height, 2 * radius : 2 * radius + width]
    return truncate(inner.round().div_(_SCALE), tie=2.0**-16)


@lru_cache(maxsize=64)
def _transform_kernel(
    make_kernel: Kernel, parameters: tuple[float, ...], size: tuple[int, int], device: torch.device
) -> Tensor:
    weights = torch.from_numpy(np.rint(make_kernel(*parameters) * _SCALE)).to(device)
    return torch.fft.rfft2(weights, s=size)


def _border_index(size: int, radius: int, border: str) -> Tensor:
    """Source positions of a line of `size` pixels with `radius` pixels of border at either end."""
    positions = torch.arange(-radius, size + radius)
    if border == "repeat":
        return positions.clamp(0, size - 1)
    period = max(1, 2 * (size - 1))
    return size - 1 - (positions % period - (size - 1)).abs()


def _fast_length(size: int) -> int:
    """The next size whose prime factors are 2, 3 and 5, on which Fourier transforms are fast."""
    while 30**16 % size:  # 30^16 is a multiple of all such sizes below 2^17
        size += 1
    return size
