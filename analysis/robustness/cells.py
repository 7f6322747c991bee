"""The numbers and colour scales of heat maps, which are only drawn elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.colors import Normalize

from analysis.differences import Comparison
from analysis.robustness.statistics import Robustness
from pixmim_eval.types import Estimate

STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)  # ends of the scale of differences


@dataclass(frozen=True)
class Cell:
    """One number: a fraction, None where there is none; `marked` where its interval excludes 0."""

    value: float | None
    marked: bool = False


@dataclass(frozen=True)
class HeatMap:
    """One panel.

    Args:
        title: the model, or "second − first".
        cells: corruption -> clean, severity 1…5.
        is_difference: signed, in points.
    """

    title: str
    cells: dict[str, tuple[Cell, ...]]
    is_difference: bool

    def format(self, value: float, digits: int) -> str:
        text = f"{100 * value:{'+' if self.is_difference else ''}.{digits}f}"
        return "0" + text[2:] if float(text) == 0 and self.is_difference else text.replace("-", "−")


@dataclass(frozen=True)
class Scales:
    """The colours of all pages of a group, from per cent and points."""

    accuracy: Normalize
    difference: Normalize | None


def build_maps(robustness: Robustness, comparisons: Sequence[Comparison]) -> tuple[list[HeatMap], list[HeatMap]]:
    """A heat map for each model, and one for each pair."""
    maps = [
        HeatMap(
            subject.label,
            {
                name: tuple(_read_cell(column.estimates[position]) for column in curve)
                for name, curve in robustness.curves.items()
            },
            False,
        )
        for position, subject in enumerate(robustness.subjects)
    ]
    pairs = []
    for pair in comparisons:
        found = {
            difference.name: Cell(difference.estimate.value if difference.estimate else None, difference.separable)
            for difference in pair.differences
        }
        first, second = (robustness.subjects[position].label for position in (pair.first, pair.second))
        cells = {name: tuple(found[column.name] for column in curve) for name, curve in robustness.curves.items()}
        pairs.append(HeatMap(f"{second} − {first}", cells, True))
    return maps, pairs


def _read_cell(estimate: Estimate | None) -> Cell:
    return Cell(estimate.value if estimate else None)


def choose_scales(maps: Sequence[HeatMap], pairs: Sequence[HeatMap]) -> Scales:
    """Accuracy from and to a multiple of five per cent, differences as far to either side of 0."""
    accuracies, differences = (
        [cell.value for one in found for cells in one.cells.values() for cell in cells if cell.value is not None]
        for found in (maps, pairs)
    )
    low, high = math.floor(20 * min(accuracies)) / 20, math.ceil(20 * max(accuracies)) / 20
    largest = max((abs(value) for value in differences), default=0.0)
    end = next((step for step in STEPS if step >= largest), 1.0)
    return Scales(
        Normalize(100 * low, 100 * max(high, low + 0.05)), Normalize(-100 * end, 100 * end) if differences else None
    )
