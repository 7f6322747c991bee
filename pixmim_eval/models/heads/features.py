"""Frozen features as a matrix that need not be in memory: read from disk a chunk at a time, standardised on the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pixmim_eval.errors import InputError

CHUNK = 4096  # rows that are worked on at a time
_RESIDENT_BYTES = 2**30  # of float32 features, which are kept in memory up to here
_RESIDENT_SHARE = 0.25  # of a GPU's free memory


@dataclass(frozen=True)
class Features:
    """Standardised features [N, D] of some rows of stored arrays; `split` reads them as a tensor's would.

    Args:
        parts: arrays [M, D_i] of any float type, memory-mapped or not, that stand side by side: D is the sum of D_i.
        rows: int64 [N], which of the M rows.
        device: where chunks come out.
        mean, scale: float32 [D], taken off and divided by; None to leave features as they are.
    """

    parts: tuple[np.ndarray, ...]
    rows: np.ndarray
    device: torch.device
    mean: Tensor | None = None
    scale: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D)"""
        return len(self.rows), sum(part.shape[1] for part in self.parts)

    def split(self, size: int) -> Iterator[Tensor]:
        """Chunks float32 [size, D] in order, the last one smaller."""
        for start in range(0, len(self.rows), size):
            yield self.read(self.rows[start : start + size])

    def read(self, rows: np.ndarray) -> Tensor:
        """float32 [len(rows), D] of these rows of the stored arrays."""
        values = np.concatenate([part[rows] for part in self.parts], axis=1, dtype=np.float32)
        chunk = torch.from_numpy(values).to(self.device)
        if self.mean is None or self.scale is None:
            return chunk
        return chunk.sub_(self.mean).div_(self.scale)

    def load(self) -> Tensor | Features:
        """The same numbers, as a tensor where there is room to keep it; else self."""
        limit: float = _RESIDENT_BYTES
        if self.device.type == "cuda":
            limit = _RESIDENT_SHARE * torch.cuda.mem_get_info(self.device)[0]
        rows, width = self.shape
        if 4 * rows * width > limit:
            return self
        resident = torch.empty(rows, width, device=self.device)
        for target, chunk in zip(resident.split(CHUNK), self.split(CHUNK), strict=True):
            target.copy_(chunk)
        return resident


def standardise(views: Sequence[Features]) -> list[Features]:
    """The views with the mean and standard deviation of each feature over all of them taken out.

    Constant features have scale 1. Sums are in float64.

    Raises:
        InputError: a feature is not finite.
    """
    count, first = 0, next(views[0].split(1))[0].double()
    total, squares = torch.zeros_like(first), torch.zeros_like(first)
    for view in views:
        for chunk in view.split(CHUNK):
            shifted = chunk - first  # in float64, and near zero: no digit of a small spread about a large mean is lost
            count, total, squares = count + len(chunk), total + shifted.sum(0), squares + shifted.square().sum(0)
    mean = total / count
    scale = (squares / count - mean.square()).clamp(min=0).sqrt()
    mean = mean + first
    if not torch.isfinite(scale).all():
        raise InputError(
            "training set of a linear head",
            expected="finite features",
            found=f"{int((~torch.isfinite(scale)).sum())} of {len(scale)} features with NaN or infinite values",
            where="role train",
            fix="Check the encoder's weights.",
        )
    scale = torch.where(scale > 1e-6 * mean.abs().clamp(min=1e-6), scale, 1.0)
    return [replace(view, mean=mean.float(), scale=scale.float()) for view in views]
