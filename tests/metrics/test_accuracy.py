"""Answers against a loop that sorts, with ties and subsets."""

from __future__ import annotations

import numpy as np
import pytest

from pixmim_eval.errors import InputError
from pixmim_eval.metrics.accuracy import answer_top1


@pytest.mark.parametrize("subset", [None, [0, 3, 4, 9], [7, 2], [5]])
def test_answers_equal_a_sorting_loop_with_ties(subset: list[int] | None) -> None:
    random = np.random.default_rng(0)
    logits = random.integers(-4, 5, (300, 10)).astype(np.float32)  # many ties
    allowed = subset or list(range(10))
    answers, probability = answer_top1(logits, None if subset is None else np.array(subset))
    for row, found, share in zip(logits.astype(np.float64), answers, probability, strict=True):
        assert found == sorted(allowed, key=lambda k: (-row[k], allowed.index(k)))[0]
        assert share == pytest.approx(np.exp(row[found]) / np.exp(row[allowed]).sum(), rel=1e-6)
    assert answers.dtype == np.int64


def test_large_logits_do_not_overflow() -> None:
    answers, probability = answer_top1(np.array([[1e4, 0.0], [-1e4, 1e4]], dtype=np.float32))
    assert answers.tolist() == [0, 1] and probability.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("logits", "classes", "message"),
    [
        (np.zeros((0, 3)), None, r"\[0, 3\]"),
        (np.zeros(3), None, r"\[3\]"),
        (np.array([[0.0, np.nan], [0.0, 1.0]]), None, "NaN in 1 rows"),
        (np.zeros((2, 3)), np.array([0, 3]), "classes"),
        (np.zeros((2, 3)), np.array([-1, 0]), "classes"),
        (np.zeros((2, 3)), np.array([], dtype=np.int64), "classes"),
    ],
)
def test_what_cannot_be_answered_is_named(logits: np.ndarray, classes: np.ndarray | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        answer_top1(logits, classes)
