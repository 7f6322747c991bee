"""What a classifier answers, over all of its classes or over a subset."""

from __future__ import annotations

import numpy as np

from pixmim_eval.errors import InputError


def answer_top1(logits: np.ndarray, classes: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The highest output and its probability.

    Args:
        logits: [N, K] numbers.
        classes: distinct integers in 0…K-1, the only ones that may be the answer and that share the probability
            (top1_masked200 of ImageNet-A and -R); None for all (top1_full1000).

    Returns:
        answers int64 [N] in 0…K-1 (of equal logits the first), and probabilities float32 [N] by softmax.

    Raises:
        InputError: logits without a row or with a NaN, classes outside the model's.
    """
    logits = np.asarray(logits)
    found = ""
    if logits.ndim != 2 or 0 in logits.shape:
        found = f"logits {list(logits.shape)}"
    elif (bad := np.flatnonzero(np.isnan(logits).any(axis=1))).size:
        found = f"NaN in {len(bad)} rows, first {bad[:3].tolist()}"
    elif classes is not None and (len(classes) == 0 or classes.min() < 0 or classes.max() >= logits.shape[1]):
        found = f"classes {classes[:3].tolist()} for {logits.shape[1]} outputs"
    if found:
        raise InputError(
            "predictions",
            expected="logits [N, K] without NaN, N of at least 1, and classes in 0…K-1",
            found=found,
            where="accuracy",
            fix="Check the model's output and the map from the data set's labels to the model's.",
        )
    part = np.asarray(logits if classes is None else logits[:, classes], dtype=np.float32)
    best = part.argmax(axis=1)
    probability = 1 / np.exp(part - part.max(axis=1, keepdims=True)).sum(axis=1)
    return best if classes is None else classes[best], probability


def rank_labels(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many classes go before the right one, int64 [N]: 0 where the answer is right, below 5 where top-5 is.

    Args:
        logits: [N, K] numbers without NaN; of equal ones the first goes before, as in answer_top1.
        labels: int64 [N] in 0…K-1.
    """
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    earlier = np.arange(logits.shape[1]) < labels[:, None]
    ranks: np.ndarray = ((logits > own) | ((logits == own) & earlier)).sum(axis=1)
    return ranks
