"""Whether two numbers are separable: paired where outcomes are known, else from their intervals; corrected together."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from analysis.differences import compare_hits
from pixmim_eval.types import Estimate

PAIRED, FROM_INTERVALS = "paired bootstrap over images", "from the two intervals"


class Measured(Protocol):
    """A number, and how every image fared (see attach_hits); None where unknown."""

    @property
    def estimate(self) -> Estimate: ...
    @property
    def hits(self) -> np.ndarray | None: ...


Point = TypeVar("Point", bound=Measured)
Tested = TypeVar("Tested", bound=Any)  # a dataclass with `probability` and `adjusted`


@dataclass(frozen=True)
class PointDifference(Generic[Point]):
    """By how much one number exceeds another.

    Args:
        base, other: the two.
        estimate: other − base.
        interval: where its bounds come from, PAIRED or FROM_INTERVALS.
        probability: McNemar's exact two-sided p; None where the outcomes of both on the same images are unknown.
        adjusted: the same, corrected for all tests that are shown together (Holm).
    """

    base: Point
    other: Point
    estimate: Estimate
    interval: str
    probability: float | None = None
    adjusted: float | None = None

    @property
    def separable(self) -> bool:
        """Whether the corrected test excludes chance; without outcomes, whether the interval excludes 0."""
        if self.adjusted is not None:
            return self.adjusted < 0.05
        return not self.estimate.low <= 0 <= self.estimate.high


def compare_points(base: Point, other: Point) -> PointDifference[Point]:
    """other − base; its p is not corrected yet."""
    compared = compare_hits(base.hits, other.hits)
    if compared:
        return PointDifference(base, other, compared[0], PAIRED, compared[1])
    return PointDifference(base, other, subtract(other.estimate, base.estimate), FROM_INTERVALS)


def correct_together(differences: Iterable[Tested]) -> list[Tested]:
    """The same, in their order; those with a p have it corrected for their number."""
    found = list(differences)
    adjusted = iter(adjust_holm(one.probability for one in found if one.probability is not None))
    return [one if one.probability is None else replace(one, adjusted=next(adjusted)) for one in found]


def subtract(first: Estimate, second: Estimate) -> Estimate:
    """first − second, with an interval recovered from the two intervals as if the numbers were independent.

    Of two numbers on the same images, which rise and fall together, it is conservative.

    Source: Newcombe, Statistics in Medicine 1998, method 10; Zou and Donner, Statistics in Medicine 2008, equation 3.
    """
    value = first.value - second.value
    below = math.hypot(first.value - first.low, second.high - second.value)
    above = math.hypot(first.high - first.value, second.value - second.low)
    return Estimate(value, value - below, value + above, min(first.n, second.n), first.unit)


def adjust_holm(probabilities: Iterable[float]) -> list[float]:
    """p-values corrected for their number, in the order given; those below 0.05 are wrong together in 5 % at most.

    Source: Holm, Scandinavian Journal of Statistics 1979.
    """
    values = np.asarray(list(probabilities), dtype=float)
    order = np.argsort(values, kind="stable")
    factors = np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * values[order]), 1.0)
    return adjusted.tolist()
