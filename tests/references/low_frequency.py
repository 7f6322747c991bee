"""The low-frequency target of PixMIM as its public code defines it, three times: as there, by FFT and by the sum.

Source: Liu et al., "PixMIM: Rethinking Pixel Reconstruction in Masked Image Modeling", arXiv 2303.02416,
and the released target generator: the circle is centred between bins, the spectrum is not shifted back before the
inverse transform, and the modulus of the complex result is taken.
"""

from __future__ import annotations

import cmath
import math
from functools import cache

import numpy as np
import torch
from torch import Tensor

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


@cache
def circle(height: int, width: int, radius: float) -> Tensor:
    """float32 [height, width]: 1 inside and on the circle about the middle of the shifted spectrum, else 0."""
    rows = torch.arange(height, dtype=torch.float64)[:, None] - (height - 1) / 2
    columns = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
    return (rows**2 + columns**2 <= radius**2).float()


def published(images: Tensor, radius: float) -> Tensor:
    """The target as the public code computes it, float32; also the peer that the benchmark times.

    Args:
        images: normalised with ImageNet's mean and std, [B, 3, H, W].
        radius: in bins of the spectrum.
    """
    mean = torch.tensor(MEAN, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(STD, device=images.device).view(1, 3, 1, 1)
    keep = circle(images.shape[-2], images.shape[-1], radius).to(images.device)
    spectrum = torch.fft.fftshift(torch.fft.fft2(images * std + mean), dim=(-2, -1))
    return (torch.fft.ifft2(spectrum * keep).abs() - mean) / std


def double(images: np.ndarray, radius: float) -> np.ndarray:
    """The target in float64 by NumPy's FFT, for images too large for `loop`. Arguments as `published`."""
    mean, std = np.reshape(MEAN, (3, 1, 1)), np.reshape(STD, (3, 1, 1))
    height, width = images.shape[-2:]
    rows, columns = np.indices((height, width))
    outside = (rows - (height - 1) / 2) ** 2 + (columns - (width - 1) / 2) ** 2 > radius**2
    spectrum = np.fft.fftshift(np.fft.fft2(np.asarray(images, np.float64) * std + mean), axes=(-2, -1))
    spectrum[..., outside] = 0
    return (np.abs(np.fft.ifft2(spectrum)) - mean) / std


def loop(images: np.ndarray, radius: float) -> np.ndarray:
    """The target in float64 by the definition of the discrete Fourier transform; O(size³). Arguments as `published`."""
    result = np.empty(images.shape)
    for image, filtered in zip(np.asarray(images, np.float64), result, strict=True):
        for channel, (mean, std) in enumerate(zip(MEAN, STD, strict=True)):
            filtered[channel] = (_filter_plane(image[channel] * std + mean, radius) - mean) / std
    return result


def _filter_plane(plane: np.ndarray, radius: float) -> np.ndarray:
    height, width = plane.shape
    spectrum = _sum_waves(_sum_waves(plane, -1).T, -1).T
    shifted = np.zeros_like(spectrum)
    for row in range(height):
        for column in range(width):
            if (row - (height - 1) / 2) ** 2 + (column - (width - 1) / 2) ** 2 <= radius**2:
                # zero frequency stands at size // 2 of the shifted spectrum
                shifted[row, column] = spectrum[(row - height // 2) % height, (column - width // 2) % width]
    waves = _sum_waves(_sum_waves(shifted, 1).T, 1).T
    return np.abs(waves) / (height * width)


def _sum_waves(values: np.ndarray, sign: int) -> np.ndarray:
    """out[..., k] = sum over n of values[..., n] · exp(sign · 2πi · k · n / size)."""
    size = values.shape[-1]
    out = np.zeros(values.shape, np.complex128)
    for k in range(size):
        for n in range(size):
            out[..., k] += values[..., n] * cmath.exp(sign * 2j * math.pi * (k * n % size) / size)
    return out
