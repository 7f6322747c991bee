"""What PixMIM adds at each epoch: differences of curves, paired where outcomes are known, and corrected together."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from analysis.differences import compare_hits
from analysis.epochs.lines import EpochCurves, EpochPanel, Line, Point
from pixmim_eval.types import Estimate

PAIRED, FROM_INTERVALS = "paired bootstrap over images", "from the two intervals"


@dataclass(frozen=True)
class EpochDifference:
    """By how much a PixMIM model exceeds its baseline at one place.

    Args:
        panel: position among the panels.
        base, other: the two points; `labels` the names of their lines.
        estimate: other − base.
        interval: where its bounds come from, PAIRED or FROM_INTERVALS.
        probability: McNemar's exact two-sided p; None where the outcomes of both on the same images are unknown.
        adjusted: the same, corrected for all tests of the table (Holm).
    """

    panel: int
    labels: tuple[str, str]
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


def compare_epochs(curves: EpochCurves) -> list[EpochDifference]:
    """PixMIM − base at every place that both have, panel by panel.

    Where a method has several lines, a PixMIM line is compared with the baselines of its own evaluation run and seed,
    and with all of them where none is. All p-values are corrected together.
    """
    found: list[EpochDifference] = []
    for number, panel in enumerate(curves.panels):
        for base, other in _list_pairs(panel):
            points = {point.place: point for point in base.points}
            labels = (base.subject.label, other.subject.label)
            for point in other.points:
                if point.place in points:
                    found.append(_compare(number, labels, points[point.place], point))
    tested = [place for place, difference in enumerate(found) if difference.probability is not None]
    adjusted = adjust_holm([found[place].probability or 0.0 for place in tested])
    for place, probability in zip(tested, adjusted, strict=True):
        found[place] = replace(found[place], adjusted=probability)
    return found


def _list_pairs(panel: EpochPanel) -> list[tuple[Line, Line]]:
    pairs = []
    for other in panel.lines.values():
        family = [line for line in panel.lines.values() if line.subject.family == other.subject.family]
        bases = [line for line in family if not line.subject.is_pixmim]
        own = [
            line for line in bases if (line.subject.run, line.subject.seed) == (other.subject.run, other.subject.seed)
        ]
        pairs += [(base, other) for base in own or bases] if other.subject.is_pixmim else []
    return pairs


def _compare(panel: int, labels: tuple[str, str], base: Point, other: Point) -> EpochDifference:
    compared = compare_hits(base.hits, other.hits)
    if compared:
        return EpochDifference(panel, labels, base, other, compared[0], PAIRED, compared[1])
    return EpochDifference(panel, labels, base, other, subtract(other.estimate, base.estimate), FROM_INTERVALS)


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
