"""The power of images by radius: how much of what a model gets wrong is coarse, and how much is detail."""

from __future__ import annotations

import math

import torch
from torch import Tensor

BANDS = 16


class RadialBands:
    """Rings of equal width in the two-dimensional spectrum, from radius 0 to the Nyquist limit of size / 2.

    A ring holds the frequencies (u, v), in cycles per image, with low <= sqrt(u² + v²) < high; the last one also those
    at the limit itself. The corners beyond the limit, where only diagonal waves are, belong to none.

    Args:
        size: pixels a side.
        device: where images are.
    """

    def __init__(self, size: int, device: torch.device | str = "cpu") -> None:
        self.size = size
        self.edges = [band * size / (2 * BANDS) for band in range(BANDS + 1)]
        cycles = torch.arange(size)
        squares = torch.minimum(cycles, size - cycles) ** 2
        radius = (squares[:, None] + squares[None, :]).double()
        limits = torch.tensor(self.edges, dtype=torch.float64) ** 2
        ring = torch.bucketize(radius, limits, right=True) - 1
        ring[radius == limits[-1]] = BANDS - 1
        rings = [(ring == band).flatten() for band in range(BANDS)]
        self.membership = torch.stack(rings, dim=1).double().to(device)  # [size * size, BANDS]

    @property
    def names(self) -> list[str]:
        """ "0-2", "2-4", …: from radius to radius, in cycles per image."""
        return [f"{low:g}-{high:g}" for low, high in zip(self.edges, self.edges[1:], strict=False)]

    def power(self, images: Tensor) -> Tensor:
        """Power in each ring, summed over its frequencies and the channels.

        Args:
            images: float [B, C, size, size].

        Returns:
            float64 [B, BANDS]; over all frequencies it would add up to the sum of squares of an image (Parseval).
        """
        spectrum = torch.fft.fft2(images.double()) / math.sqrt(images.shape[-1] * images.shape[-2])
        density = spectrum.real.square() + spectrum.imag.square()
        return density.sum(dim=1).flatten(1) @ self.membership
