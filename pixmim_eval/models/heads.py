"""Linear heads: multinomial logistic regression on frozen features, fitted to its optimum by L-BFGS."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from pixmim_eval.errors import InputError
from pixmim_eval.seeds import derive_seed, uniform

L2_GRID = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)
HELD_OUT = 0.2
_ITERATIONS = 500
_TOLERANCE = 1e-7


@dataclass(frozen=True)
class LinearHead:
    """A classifier on pooled features: standardise, then one linear layer.

    Args:
        weight: float32 [K, D].
        bias: float32 [K].
        mean, scale: float32 [D], of the training features; scale is 1 where a feature is constant.
        pooling: "cls" or "mean" (of the patch tokens).
        l2: chosen penalty, see fit_linear.
        images: number of training images.
        held_out_loss: mean cross-entropy in nats on the held-out part of the training images, at the chosen penalty.
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


def fit_linear(
    features: np.ndarray,
    labels: np.ndarray,
    classes: int,
    *,
    pooling: str = "mean",
    l2_grid: Sequence[float] = L2_GRID,
    seed: int = 0,
    device: str = "cpu",
) -> LinearHead:
    """The best linear classifier on frozen features, and how strongly to penalise it.

    Minimises mean cross-entropy + l2 / 2 · ‖W‖² on standardised features (the bias is free). From the strongest penalty
    on, the next weaker one is taken as long as it lowers the cross-entropy of a held-out fifth of these images; then
    all of them are fitted. No scored image is ever looked at.

    Args:
        features: float32 [N, D].
        labels: int64 [N] in [0, classes).
        classes: number K of classes.
        pooling: how the features were pooled, kept on the head.
        l2_grid: penalties to choose from; scikit-learn's C is 1 / (l2 · N).
        seed: of the held-out part.
        device: "cpu" or "cuda".

    Raises:
        InputError: fewer than two images, or labels outside [0, classes).
    """
    _check_training_set(features, labels, classes)
    inputs = torch.from_numpy(np.array(features, dtype=np.float32)).to(device)
    targets = torch.from_numpy(np.array(labels, dtype=np.int64)).to(device)
    order = uniform(derive_seed(seed, "held-out"), torch.arange(len(targets)), 1)[:, 0].argsort().to(device)
    held_out, fitted = order.tensor_split([max(1, round(HELD_OUT * len(order)))])

    mean, scale = _measure_scale(inputs[fitted])
    part, rest = (inputs[fitted] - mean) / scale, (inputs[held_out] - mean) / scale
    solution = torch.zeros(classes, inputs.shape[1] + 1, device=device)
    best_loss, best_l2 = float("inf"), float("nan")
    for l2 in sorted(l2_grid, reverse=True):  # each solution is a good start for the next weaker penalty
        solution = minimise_loss(part, targets[fitted], l2, start=solution)
        loss = cross_entropy(apply_solution(solution, rest), targets[held_out]).item()
        if not loss < best_loss:  # weaker penalties overfit more, and take the longest
            break
        best_loss, best_l2, best = loss, l2, solution

    mean, scale = _measure_scale(inputs)
    solution = minimise_loss((inputs - mean) / scale, targets, best_l2, start=best).cpu()
    return LinearHead(
        weight=solution[:, :-1].contiguous(),
        bias=solution[:, -1].contiguous(),
        mean=mean.cpu(),
        scale=scale.cpu(),
        pooling=pooling,
        l2=best_l2,
        images=len(targets),
        held_out_loss=best_loss,
    )


def choose_pooling(
    candidates: Mapping[str, np.ndarray], labels: np.ndarray, classes: int, *, seed: int = 0, device: str = "cpu"
) -> LinearHead:
    """The head of lowest held-out cross-entropy over poolings.

    Args:
        candidates: pooling ("cls", "mean") -> features float32 [N, D].
        labels, classes, seed, device: as fit_linear.
    """
    heads = [
        fit_linear(features, labels, classes, pooling=pooling, seed=seed, device=device)
        for pooling, features in candidates.items()
    ]
    return min(heads, key=lambda head: head.held_out_loss)


def minimise_loss(inputs: Tensor, targets: Tensor, l2: float, *, start: Tensor) -> Tensor:
    """The minimum of mean cross-entropy + l2 / 2 · ‖W‖² by full-batch L-BFGS.

    Args:
        inputs: float [N, D]; targets: int64 [N]; l2: penalty.
        start: [K, D + 1], weights and, in the last column, the bias.

    Returns:
        [K, D + 1], like start.
    """
    solution = start.clone().requires_grad_()
    optimiser = torch.optim.LBFGS(
        [solution],
        max_iter=_ITERATIONS,
        history_size=20,
        tolerance_grad=_TOLERANCE,
        tolerance_change=_TOLERANCE,
        line_search_fn="strong_wolfe",
    )

    def evaluate() -> Tensor:
        optimiser.zero_grad()
        loss = cross_entropy(apply_solution(solution, inputs), targets) + l2 / 2 * solution[:, :-1].square().sum()
        loss.backward()
        return loss

    with torch.inference_mode(False), torch.enable_grad():
        optimiser.step(evaluate)
    return solution.detach()


def apply_solution(solution: Tensor, inputs: Tensor) -> Tensor:
    """Logits [N, K] of a solution [K, D + 1] (see minimise_loss)."""
    return torch.addmm(solution[:, -1], inputs, solution[:, :-1].T)


def _measure_scale(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each feature; constant features have scale 1."""
    scale, mean = torch.std_mean(inputs, dim=0, correction=0)
    return mean, torch.where(scale > 1e-6 * mean.abs().clamp(min=1e-6), scale, 1.0)


def _check_training_set(features: np.ndarray, labels: np.ndarray, classes: int) -> None:
    wrong = labels[(labels < 0) | (labels >= classes)]
    if len(wrong) or len(labels) < 2 or not np.isfinite(features).all():
        raise InputError(
            "training set of a linear head",
            expected=f"finite features of at least two images with labels 0…{classes - 1}",
            found=f"{len(labels)} images" + (f" with labels such as {wrong[:3].tolist()}" if len(wrong) else ""),
            where="role train",
            fix="Give a labelled data set: --data train=PATH, or raise --limit.",
        )
