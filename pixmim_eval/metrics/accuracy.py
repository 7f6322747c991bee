"""Accuracy of predictions, over all classes of a model or over a subset of them."""

from __future__ import annotations

import numpy as np

from pixmim_eval.errors import InputError
from pixmim_eval.metrics.intervals import wilson
from pixmim_eval.types import Estimate


def correct_top1(logits: np.ndarray, labels: np.ndarray, classes: np.ndarray | None = None) -> np.ndarray:
    """Whether the highest logit is that of the label; of equal logits the first counts, as in argmax.

    Args:
        logits: [N, K] numbers.
        labels: [N] integers in 0…K-1: the label's index in the model's space, with a subset as well.
        classes: [M] integers in 0…K-1, the only classes among which the highest logit is looked for (top1_masked200 of
            ImageNet-A and -R); None for all (top1_full1000).

    Returns:
        bool [N].

    Raises:
        InputError: no images, unequal lengths, a NaN, a label that is no class (of the subset).
    """
    return correct_top(1, logits, labels, classes)


def correct_top(count: int, logits: np.ndarray, labels: np.ndarray, classes: np.ndarray | None = None) -> np.ndarray:
    """Whether the label is among the `count` highest logits; otherwise as correct_top1."""
    logits, labels = _check_predictions(logits, labels)
    allowed = np.ones(logits.shape[1], dtype=bool)
    if classes is not None:
        _check_classes(classes, labels, logits.shape[1])
        allowed[:] = False
        allowed[np.asarray(classes)] = True
    label_logits = np.take_along_axis(logits, labels[:, None], axis=1)
    before = np.arange(logits.shape[1]) < labels[:, None]
    ahead = (logits > label_logits) | ((logits == label_logits) & before)
    return np.asarray((ahead & allowed).sum(axis=1) < count)


def top1(logits: np.ndarray, labels: np.ndarray, classes: np.ndarray | None = None) -> Estimate:
    """The fraction of images whose highest logit is the label's, with Wilson's interval; see correct_top1."""
    return _rate(correct_top1(logits, labels, classes))


def top5(logits: np.ndarray, labels: np.ndarray, classes: np.ndarray | None = None) -> Estimate:
    """The fraction of images whose label is among the five highest logits, with Wilson's interval; see correct_top1."""
    return _rate(correct_top(5, logits, labels, classes))


def _rate(correct: np.ndarray) -> Estimate:
    return wilson(int(correct.sum()), len(correct))


def _check_predictions(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    logits, labels = np.asarray(logits), np.asarray(labels)
    found = ""
    if logits.ndim != 2 or 0 in logits.shape or labels.shape != logits.shape[:1]:
        found = f"{list(logits.shape)} and {list(labels.shape)}"
    elif not np.issubdtype(labels.dtype, np.integer):
        found = f"labels of {labels.dtype}"
    elif (bad := np.flatnonzero(np.isnan(logits).any(axis=1))).size:
        found = f"NaN in {len(bad)} rows, first {bad[:3].tolist()}"
    elif (bad := np.flatnonzero((labels < 0) | (labels >= logits.shape[1]))).size:
        found = f"labels {labels[bad[:3]].tolist()} in rows {bad[:3].tolist()} for {logits.shape[1]} classes"
    if found:
        raise InputError(
            "predictions",
            expected="logits [N, K] without NaN and integer labels [N] in 0…K-1, N of at least 1",
            found=found,
            where="accuracy",
            fix="Check the model's output and the map from the data set's labels to the model's.",
        )
    return logits, labels


def _check_classes(classes: np.ndarray, labels: np.ndarray, number: int) -> None:
    subset = np.asarray(classes)
    found = ""
    if subset.ndim != 1 or subset.size == 0 or not np.issubdtype(subset.dtype, np.integer):
        found = f"{subset.dtype} {list(subset.shape)}"
    elif (outside := subset[(subset < 0) | (subset >= number)]).size:
        found = f"classes {outside[:3].tolist()}"
    elif (outside := np.setdiff1d(labels, subset)).size:
        found = f"labels {outside[:3].tolist()} outside the subset"
    if found:
        raise InputError(
            "subset of classes",
            expected=f"integers in 0…{number - 1} that hold every label",
            found=found,
            where="accuracy",
            fix="Take the subset from the data set's own label space.",
        )
