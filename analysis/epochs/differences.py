"""What PixMIM adds at each epoch: differences of curves, paired where outcomes are known, and corrected together."""

from __future__ import annotations

from dataclasses import dataclass

from analysis.epochs.lines import EpochCurves, EpochPanel, Line, Point
from analysis.separability import PointDifference, compare_points, correct_together


@dataclass(frozen=True, kw_only=True)
class EpochDifference(PointDifference[Point]):
    """By how much a PixMIM model exceeds its baseline at one place.

    Args:
        panel: position among the panels.
        labels: the names of their lines.
    """

    panel: int
    labels: tuple[str, str]


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
                    compared = compare_points(points[point.place], point)
                    found.append(EpochDifference(**vars(compared), panel=number, labels=labels))
    return correct_together(found)


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
