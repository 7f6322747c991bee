"""Multinomial logistic regression on frozen features, to its optimum: L-BFGS on whitened features, chunk by chunk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from pixmim_eval.errors import InputError
from pixmim_eval.models.heads.features import CHUNK, Features, standardise
from pixmim_eval.models.heads.linear import LinearHead
from pixmim_eval.seeds import derive_seed, uniform

L2_GRID = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)
HELD_OUT = 0.2
_HISTORY = 20
_TOLERANCE = 3e-6  # of the loss: stop where the next step promises less
_ARMIJO = 1e-4
_LEAST_LENGTH = 1e-6  # of a step
_RIDGE = 1e-5  # of the mean curvature, so that the factorisation exists whatever the features are
# Steps, and rows a feature to measure the Hessian on. Near the optimum of separable data few rows have any curvature.
_ROUNDS = ((25, 4), (40, 64), (80, 64), (160, 64), (320, 64))


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
        features: float [N, D], which may be memory-mapped: they are never in memory whole beyond 1 GiB.
        labels: int64 [N] in [0, classes).
        classes: number K of classes.
        pooling: how the features were pooled, kept on the head.
        l2_grid: penalties to choose from; scikit-learn's C is 1 / (l2 · N).
        seed: of the held-out part.
        device: "cpu" or "cuda".

    Raises:
        InputError: fewer than two images, labels outside [0, classes), or features that are not finite.
    """
    _check_labels(labels, classes)
    order = uniform(derive_seed(seed, "held-out"), torch.arange(len(labels)), 1)[:, 0].argsort().numpy()
    held_out, fitted = (np.sort(rows) for rows in np.split(order, [max(1, round(HELD_OUT * len(order)))]))
    everything = Features((features,), np.arange(len(labels)), torch.device(device))

    part, rest = _standardise_parts(everything, fitted, held_out)
    targets = _targets(labels[fitted], device)
    solution = torch.zeros(classes, features.shape[1] + 1, device=device)
    best_loss, best_l2 = float("inf"), float("nan")
    for l2 in sorted(l2_grid, reverse=True):  # each solution is a good start for the next weaker penalty
        solution = minimise_loss(part, targets, l2, start=solution)
        loss = measure_loss(solution, rest, _targets(labels[held_out], device))
        if not loss < best_loss:  # weaker penalties overfit more, and take the longest
            break
        best_loss, best_l2, best = loss, l2, solution

    (whole,) = standardise([everything])
    inputs, targets = whole.load(), _targets(labels, device)
    solution = minimise_loss(inputs, targets, best_l2, start=best).cpu()
    assert whole.mean is not None and whole.scale is not None
    return LinearHead(
        weight=solution[:, :-1].contiguous(),
        bias=solution[:, -1].contiguous(),
        mean=whole.mean.cpu(),
        scale=whole.scale.cpu(),
        pooling=pooling,
        l2=best_l2,
        images=len(labels),
        held_out_loss=best_loss,
    )


def choose_pooling(
    candidates: Mapping[str, np.ndarray], labels: np.ndarray, classes: int, *, seed: int = 0, device: str = "cpu"
) -> LinearHead:
    """The head of lowest held-out cross-entropy over poolings.

    Args:
        candidates: pooling ("cls", "mean") -> features float [N, D].
        labels, classes, seed, device: as fit_linear.
    """
    heads = [
        fit_linear(features, labels, classes, pooling=pooling, seed=seed, device=device)
        for pooling, features in candidates.items()
    ]
    return min(heads, key=lambda head: head.held_out_loss)


@torch.no_grad()
def minimise_loss(
    inputs: Tensor | Features, targets: Tensor, l2: float, *, start: Tensor, tolerance: float = _TOLERANCE
) -> Tensor:
    """The minimum of mean cross-entropy + l2 / 2 · ‖W‖².

    L-BFGS in coordinates in which the loss has curvature near 1 in every direction. The Hessian's block of a class is a
    second moment of the inputs weighted by p (1 - p); the mean of the blocks stands for all of them. At W = 0 it is
    exact, so the first step is Newton's, and what correlated features and a weak penalty make ill-conditioned is gone.
    It is measured anew where 25 steps were not enough. A step reads the inputs once.

    Args:
        inputs: float32 [N, D], standardised.
        targets: int64 [N], on their device.
        l2: penalty.
        start: [K, D + 1], weights and, in the last column, the bias; on the device of the inputs.
        tolerance: stop where the next step promises less, as a part of the loss.

    Returns:
        [K, D + 1], like start; at the default tolerance its loss is within 1e-4 of the optimum, relative.

    Source: Nocedal and Wright, Numerical Optimization (2006), algorithms 7.4 and 7.5; Böhning, Annals of the Institute
        of Statistical Mathematics 44 (1992), for the Hessian.
    """
    solution = start.float()
    for steps, sample in _ROUNDS:
        factor = _factorise(measure_curvature(solution, inputs, sample), l2)
        solution, arrived = _descend(solution, factor, inputs, targets, l2, steps=steps, tolerance=tolerance)
        if arrived:
            break
    return solution


def _descend(
    start: Tensor,
    factor: Tensor,
    inputs: Tensor | Features,
    targets: Tensor,
    l2: float,
    *,
    steps: int,
    tolerance: float,
) -> tuple[Tensor, bool]:
    """Some steps of L-BFGS in the coordinates that a factor of the Hessian makes, and whether no more are needed."""
    point = start @ factor
    loss, gradient = _evaluate(point, factor, inputs, targets, l2)
    moves: list[Tensor] = []
    changes: list[Tensor] = []
    for _ in range(steps):
        direction = -_apply_inverse_hessian(gradient, moves, changes)
        slope, length = float((direction * gradient).sum()), 1.0
        if -slope / 2 <= tolerance * loss:
            return _unwhiten(point, factor), True
        while True:  # backtrack along the parabola through what is known
            lower, new = _evaluate(point + length * direction, factor, inputs, targets, l2)
            if lower <= loss + _ARMIJO * length * slope:
                break
            length *= min(0.5, max(0.1, -slope * length / (2 * (lower - loss - length * slope))))
            if length < _LEAST_LENGTH:  # float32 knows no lower point
                return _unwhiten(point, factor), True
        moves.append(length * direction)
        changes.append(new - gradient)
        point, loss, gradient = point + moves[-1], lower, new
        del moves[:-_HISTORY], changes[:-_HISTORY]
    return _unwhiten(point, factor), False


def measure_loss(solution: Tensor, inputs: Tensor | Features, targets: Tensor) -> float:
    """Mean cross-entropy in nats of a solution (see minimise_loss)."""
    total = 0.0
    for chunk, labels in zip(inputs.split(CHUNK), targets.split(CHUNK), strict=True):
        total += float(cross_entropy(apply_solution(solution, chunk), labels, reduction="sum"))
    return total / len(targets)


def measure_curvature(solution: Tensor, inputs: Tensor | Features, sample: int) -> Tensor:
    """The mean over classes of their blocks of the Hessian, float64 [D + 1, D + 1], the bias last and uncorrelated.

    Args:
        solution, inputs: see minimise_loss.
        sample: rows a feature that are enough: of more an evenly spaced part is taken.
    """
    (count, width), device = inputs.shape, solution.device
    step = max(1, count // (sample * width))
    curvature = torch.zeros(width + 1, width + 1, dtype=torch.float64, device=device)
    used = 0
    for chunk in inputs.split(CHUNK):
        part = chunk[::step]
        probabilities = apply_solution(solution, part).softmax(dim=1)
        weights = (probabilities - probabilities.square()).mean(dim=1)
        curvature[:-1, :-1] += (part * weights[:, None]).T @ part
        curvature[-1, -1] += weights.sum()
        used += len(part)
    return curvature / used


def apply_solution(solution: Tensor, inputs: Tensor) -> Tensor:
    """Logits [N, K] of a solution [K, D + 1] (see minimise_loss)."""
    return torch.addmm(solution[:, -1], inputs, solution[:, :-1].T)


def _evaluate(
    point: Tensor, factor: Tensor, inputs: Tensor | Features, targets: Tensor, l2: float
) -> tuple[float, Tensor]:
    """Loss and its gradient [K, D + 1], both in whitened coordinates; sums over chunks in float64."""
    solution = _unwhiten(point, factor)
    total = torch.zeros((), dtype=torch.float64, device=point.device)
    gradient = torch.zeros(solution.shape, dtype=torch.float64, device=point.device)
    for chunk, labels in zip(inputs.split(CHUNK), targets.split(CHUNK), strict=True):
        errors = apply_solution(solution, chunk)
        own = labels[:, None]
        peak = errors.amax(dim=1, keepdim=True)
        total -= (errors.gather(1, own) - peak).sum(dtype=torch.float64)
        masses = errors.sub_(peak).exp_().sum(dim=1, keepdim=True)
        total += masses.log().sum(dtype=torch.float64)
        errors.div_(masses).scatter_add_(1, own, torch.full_like(peak, -1.0))  # probabilities less the truth
        gradient[:, :-1] += errors.T @ chunk
        gradient[:, -1] += errors.sum(dim=0)
    weight = solution[:, :-1].double()
    gradient /= len(targets)
    gradient[:, :-1] += l2 * weight
    return float(total / len(targets) + l2 / 2 * weight.square().sum()), _whiten_gradient(gradient.float(), factor)


def _apply_inverse_hessian(gradient: Tensor, moves: Sequence[Tensor], changes: Sequence[Tensor]) -> Tensor:
    """L-BFGS's two loops; the loss is convex, so no pair is ever left out."""
    result = gradient.clone()
    shares = []
    for move, change in zip(reversed(moves), reversed(changes), strict=True):
        shares.append((move * result).sum() / (move * change).sum())
        result -= shares[-1] * change
    if moves:
        result *= (moves[-1] * changes[-1]).sum() / changes[-1].square().sum()
    for move, change, share in zip(moves, changes, reversed(shares), strict=True):
        result += (share - (change * result).sum() / (move * change).sum()) * move
    return result


def _factorise(curvature: Tensor, l2: float) -> Tensor:
    """Cholesky factor [D + 1, D + 1] of the Hessian of one class; the bias has no penalty."""
    penalty = torch.full_like(curvature.diagonal(), l2)
    penalty[-1] = 0
    hessian = curvature + torch.diag(penalty + _RIDGE * curvature[-1, -1])
    return torch.linalg.cholesky(hessian).float()


def _unwhiten(point: Tensor, factor: Tensor) -> Tensor:
    return torch.linalg.solve_triangular(factor, point, upper=False, left=False)


def _whiten_gradient(gradient: Tensor, factor: Tensor) -> Tensor:
    return torch.linalg.solve_triangular(factor.T, gradient, upper=True, left=False)


def _standardise_parts(features: Features, fitted: np.ndarray, held_out: np.ndarray) -> list[Tensor | Features]:
    """Both parts, standardised by the first."""
    (part,) = standardise([replace(features, rows=fitted)])
    return [part.load(), replace(part, rows=held_out).load()]


def _targets(labels: np.ndarray, device: str) -> Tensor:
    return torch.from_numpy(np.array(labels, dtype=np.int64)).to(device)


def _check_labels(labels: np.ndarray, classes: int) -> None:
    wrong = labels[(labels < 0) | (labels >= classes)]
    if len(wrong) or len(labels) < 2:
        raise InputError(
            "training set of a linear head",
            expected=f"at least two images with labels 0…{classes - 1}",
            found=f"{len(labels)} images" + (f" with labels such as {wrong[:3].tolist()}" if len(wrong) else ""),
            where="role train",
            fix="Give a labelled data set: --data train=PATH, or raise --limit.",
        )
