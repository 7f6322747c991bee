"""A linear classifier on pooled features, as a value: it classifies, moves between devices and is stored."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class LinearHead:
    """A classifier on pooled features: standardise, then one linear layer.

    Args:
        weight: float32 [K, D].
        bias: float32 [K].
        mean, scale: float32 [D], of the training features; scale is 1 where a feature is constant.
        pooling: which features it takes: "cls", "mean" (of the patch tokens), or "cls-lastN" and "mean-lastN", those of
            the last N layers side by side.
        l2: chosen penalty, see fit_linear; the weight decay of a head that was found by gradient descent.
        images: number of training images.
        held_out_loss: mean cross-entropy in nats on the held-out part of the training images, at the chosen penalty;
            NaN where nothing was chosen.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    scale: Tensor
    pooling: str
    l2: float
    images: int
    held_out_loss: float

    def __call__(self, features: Tensor) -> Tensor:
        """Features [B, D] -> logits [B, K], in float32, autocast or not."""
        with torch.autocast(features.device.type, enabled=False):
            return (features.float() - self.mean) / self.scale @ self.weight.T + self.bias

    def to(self, device: str) -> LinearHead:
        """The head on a device; it takes features there."""
        arrays = {name: getattr(self, name).to(device) for name in ("weight", "bias", "mean", "scale")}
        return replace(self, **arrays)

    @property
    def name(self) -> str:
        """For the protocol of a row, e.g. "logistic-lbfgs(l2=0.001,pool=mean,train=4096)"."""
        return f"logistic-lbfgs(l2={self.l2:g},pool={self.pooling},train={self.images})"

    @cached_property
    def digest(self) -> str:
        """16 hex digits of what its logits depend on."""
        arrays = (self.weight, self.bias, self.mean, self.scale)
        content = b"".join(array.cpu().numpy().tobytes() for array in arrays)
        return hashlib.blake2b(content + self.pooling.encode(), digest_size=8).hexdigest()

    def to_bytes(self) -> bytes:
        """The head as an .npz file."""
        arrays = {name: getattr(self, name).cpu().numpy() for name in ("weight", "bias", "mean", "scale")}
        numbers = {name: np.array(getattr(self, name)) for name in ("pooling", "l2", "images", "held_out_loss")}
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays, **numbers)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> LinearHead:
        """The inverse of to_bytes."""
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            values: dict[str, Any] = {
                name: torch.from_numpy(file[name]) for name in ("weight", "bias", "mean", "scale")
            }
            values |= {name: file[name].item() for name in ("pooling", "l2", "images", "held_out_loss")}
        return cls(**values)
