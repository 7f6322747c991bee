from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pixmim_eval.errors import InputError
from pixmim_eval.metrics.accuracy import correct_top, correct_top1, top1, top5


def rank_by_loop(logits: np.ndarray, label: int, classes: list[int]) -> int:
    """How many of the classes come before the label when they are sorted, equal ones in their order."""
    ordered = sorted(classes, key=lambda k: (-logits[k], k))
    return ordered.index(label)


@pytest.mark.parametrize("subset", [None, [1, 3, 4, 7, 11], list(range(12))])
def test_top1_and_top5_equal_a_sorting_loop_with_ties(subset: list[int] | None) -> None:
    random = np.random.default_rng(1)
    logits = random.integers(0, 5, (400, 12)).astype(np.float32)  # few values, so that ties abound
    classes = list(range(12)) if subset is None else subset
    labels = random.choice(classes, 400)
    ranks = np.array([rank_by_loop(row, label, classes) for row, label in zip(logits, labels, strict=True)])
    array = None if subset is None else np.array(subset)
    assert np.array_equal(correct_top1(logits, labels, array), ranks == 0)
    assert np.array_equal(correct_top(5, logits, labels, array), ranks < 5)
    assert top1(logits, labels, array).value == (ranks == 0).mean()
    assert top5(logits, labels, array).value == (ranks < 5).mean()


def test_the_first_of_equal_logits_counts_as_in_argmax() -> None:
    logits = np.zeros((3, 4))
    assert correct_top1(logits, np.array([0, 1, 3])).tolist() == [True, False, False]
    assert correct_top1(logits, np.array([2, 3, 2]), np.array([3, 2])).tolist() == [True, False, True]


def test_a_subset_hides_the_other_classes() -> None:
    logits = np.array([[9.0, 1.0, 2.0]])
    labels = np.array([2])
    assert not correct_top1(logits, labels)[0]
    assert correct_top1(logits, labels, np.array([1, 2]))[0]


def test_rates_carry_wilsons_interval_and_the_number_of_images() -> None:
    logits, labels = np.eye(10), np.array([0, 1, 2, 3, 4, 5, 6, 0, 0, 0])
    estimate = top1(logits, labels)
    expected = stats.binomtest(7, 10).proportion_ci(method="wilson")
    assert (estimate.value, estimate.n, estimate.unit) == (0.7, 10, "fraction")
    assert estimate.low == pytest.approx(expected.low) and estimate.high == pytest.approx(expected.high)


def test_minus_infinity_is_a_logit() -> None:
    assert correct_top1(np.array([[-np.inf, 0.0]]), np.array([1]))[0]


@pytest.mark.parametrize(
    ("logits", "labels", "found"),
    [
        (np.zeros((0, 3)), np.zeros(0, int), r"\[0, 3\] and \[0\]"),
        (np.zeros((2, 3)), np.zeros(3, int), r"\[2, 3\] and \[3\]"),
        (np.zeros(3), np.zeros(3, int), r"\[3\] and \[3\]"),
        (np.zeros((2, 3)), np.zeros(2), "labels of float64"),
        (np.array([[0, 1.0], [np.nan, 0]]), np.zeros(2, int), r"NaN in 1 rows, first \[1\]"),
        (np.zeros((2, 3)), np.array([0, 3]), r"labels \[3\] in rows \[1\] for 3 classes"),
        (np.zeros((2, 3)), np.array([-1, 0]), r"labels \[-1\] in rows \[0\]"),
    ],
)
def test_bad_predictions_are_named(logits: np.ndarray, labels: np.ndarray, found: str) -> None:
    with pytest.raises(InputError, match=found):
        top1(logits, labels)


@pytest.mark.parametrize(
    ("classes", "found"),
    [
        (np.array([0, 1]), r"labels \[2\] outside the subset"),
        (np.array([0, 3]), r"classes \[3\]"),
        (np.zeros(0, int), r"int64 \[0\]"),
        (np.array([True, False, True]), r"bool \[3\]"),
    ],
)
def test_bad_subsets_are_named(classes: np.ndarray, found: str) -> None:
    with pytest.raises(InputError, match=found):
        top1(np.zeros((2, 3)), np.array([0, 2]), classes)
