"""Whether two observers err on the same images: observed agreement, error consistency, difference in accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pixmim_eval.errors import InputError
from pixmim_eval.metrics.bootstrap import resample_totals
from pixmim_eval.metrics.intervals import CONFIDENCE
from pixmim_eval.types import Estimate

_RESAMPLES = 2000


@dataclass(frozen=True)
class Resampled:
    """Numbers of some pairs of observers, as found and in resampled sets of images.

    Args:
        values: float64 [Q].
        draws: float64 [R, Q].
        n: images behind each of them.
    """

    values: np.ndarray
    draws: np.ndarray
    n: int

    def pick(self, places: np.ndarray) -> Resampled:
        """Some of the numbers, int64 [k]."""
        return Resampled(self.values[places], self.draws[:, places], self.n)

    def mean(self, places: np.ndarray) -> Resampled:
        """The mean over some pairs, int64 [k], as the only number."""
        values, draws = self.values[places], self.draws[:, places]
        return Resampled(values.mean(keepdims=True), draws.mean(axis=1, keepdims=True), self.n)

    def estimate(self, unit: str, place: int = 0) -> Estimate:
        """One of the numbers with the percentile interval, which is widened to hold the number itself: resampling
        raises squares and pulls consistency, so at the ends of their range it may not."""
        low, high = np.quantile(self.draws[:, place], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        value = float(self.values[place])
        return Estimate(value, min(float(low), value), max(float(high), value), self.n, unit)


def average(parts: Sequence[Resampled]) -> Resampled:
    """The mean over parts that are different images: levels of distortion, or experiments; n is their sum."""
    return Resampled(
        np.mean([part.values for part in parts], axis=0),
        np.mean([part.draws for part in parts], axis=0),
        sum(part.n for part in parts),
    )


def compare_observers(correct: np.ndarray, pairs: np.ndarray, *, seed: int = 0) -> dict[str, Resampled]:
    """How alike pairs of observers are on the same images.

    Args:
        correct: bool [O, N], whether each of O observers is right on each image.
        pairs: int64 [Q, 2], which observers.
        seed: of the resampling of images.

    Returns:
        "observed_consistency": the fraction of images that both get right or both get wrong;
        "error_consistency": Cohen's kappa of right and wrong, (observed - expected) / (1 - expected) with what two
        independent observers of these accuracies would agree on; 1 where both agree everywhere;
        "accuracy_difference": the square of the difference in accuracy.

    Raises:
        InputError: no images or no pairs.

    Source: Geirhos, Meding and Wichmann, NeurIPS 2020, equations 1 to 3; Geirhos et al., NeurIPS 2021, section 2.
    """
    correct, pairs = np.asarray(correct, dtype=np.float64), np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    if correct.ndim != 2 or 0 in correct.shape or not len(pairs):
        raise InputError(
            "observers to compare",
            expected="decisions on at least one image, and at least one pair",
            found=f"decisions {list(correct.shape)}, {len(pairs)} pairs",
            where="compare_observers",
            fix="Give files of trials with at least two observers.",
        )
    first, second = pairs.T
    agree = (correct[first] == correct[second]).astype(np.float64)
    columns = np.concatenate((correct, agree)).T
    n = len(columns)
    totals = resample_totals(columns, _RESAMPLES, np.random.default_rng(seed))
    found = _compare_totals(columns.sum(axis=0, keepdims=True), first, second, n)
    drawn = _compare_totals(totals, first, second, n)
    return {name: Resampled(values[0], drawn[name], n) for name, values in found.items()}


def _compare_totals(totals: np.ndarray, first: np.ndarray, second: np.ndarray, n: int) -> dict[str, np.ndarray]:
    """The three numbers [R, Q] from sums over images [R, O + Q]: right answers of observers, agreements of pairs."""
    observers = totals.shape[1] - len(first)
    one, other, observed = totals[:, first] / n, totals[:, second] / n, totals[:, observers:] / n
    expected = one * other + (1 - one) * (1 - other)
    chance = np.where(expected < 1, 1 - expected, 1.0)  # expected to agree everywhere, they do
    return {
        "accuracy_difference": np.square(one - other),
        "observed_consistency": observed,
        "error_consistency": np.where(observed == 1, 1.0, (observed - expected) / chance),
    }


def resample_mean(values: np.ndarray, *, seed: int = 0) -> Resampled:
    """The mean of one number an image, such as its accuracy, float64 [N].

    Args:
        values: [N], N of at least 1.
        seed: of the resampling of images.
    """
    sums = resample_totals(values[:, None], _RESAMPLES, np.random.default_rng(seed))
    return Resampled(values.mean(keepdims=True), sums / len(values), len(values))
