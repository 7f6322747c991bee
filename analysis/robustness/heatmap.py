"""Heat maps: accuracy of every corruption at every severity, and how much one model exceeds another there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure

from analysis.captions import describe_data, describe_metric
from analysis.columns import SEVERITIES, group_corruptions
from analysis.layout import (
    CHARACTER,
    FAINT,
    INK,
    LINE,
    MARGIN,
    ON_DARK,
    ON_LIGHT,
    PAGE_WIDTHS,
    RIGHT,
    STYLE,
    TOP,
    Canvas,
    wrap_items,
    wrap_label,
)
from analysis.robustness.cells import Cell, HeatMap, Scales
from analysis.robustness.statistics import Robustness

MODELS = {1: 2, 2: 4}  # of one page of one and two columns
PAIRS = {1: 1, 2: 3}  # side by side: signed numbers need wider cells
ROWS = 40  # of one page
CELL, WIDEST, GAP = 0.14, 0.36, 0.04  # height and greatest width of a cell; between groups, and clean and severity 1
WORD = 0.32  # the width that "clean" needs; where cells are much narrower, 0 stands for it
BETWEEN, HEAD, FOOT = 0.14, 0.16, 0.32  # between panels; from severities to cells; below the cells of a line of panels
DIGIT = 0.062  # width at 7 pt
BAR = 0.09  # height of a colour bar
ACCURACY, DIFFERENCE = colormaps["viridis"], colormaps["RdBu"]  # both told apart by the colour-blind


def draw_heatmaps(
    robustness: Robustness,
    maps: Sequence[HeatMap],
    pairs: Sequence[HeatMap],
    scales: Scales,
    names: Sequence[str],
    *,
    columns: int = 2,
) -> Figure:
    """Corruption × severity: accuracy of each model side by side, then differences of pairs.

    Args:
        robustness: what they are of.
        maps, pairs: the panels of this page; see build_maps.
        scales: the colours; see choose_scales.
        names: the corruptions of this page.
        columns: width of the figure, one (3.4 in) or two (7 in) columns of a page.
    """
    with rc_context(STYLE):
        width = PAGE_WIDTHS[columns]
        grid = _Grid(names)
        lines = _arrange(maps, pairs, columns)
        tops, cursor, titles = [], TOP, []
        for line in lines:
            span = GAP + sum(grid.fit(width, len(line)))
            titles.append([wrap_label(one.title, span + 0.5 * BETWEEN) for one in line])
            cursor += max(map(len, titles[-1])) * LINE + HEAD
            tops.append(cursor)
            cursor += grid.height + FOOT
        caption = write_caption(robustness, [one for line in lines for one in line])
        canvas = Canvas(width, cursor + BAR + 0.48, caption)
        # One pair of axes for all panels, in inches from the upper left corner of the page.
        axes = canvas.add_axes(0, 0, width, cursor)
        axes.set_xlim(0, width)
        axes.set_ylim(cursor, 0)
        axes.set_axis_off()
        for line, top, headings in zip(lines, tops, titles, strict=True):
            grid.label_rows(axes, top)
            widths = grid.fit(width, len(line))
            for place, (one, heading) in enumerate(zip(line, headings, strict=True)):
                left = grid.left + place * (GAP + sum(widths) + BETWEEN)
                _draw_map(axes, grid, one, scales, left, top, widths)
                axes.text(left, top - HEAD - 0.03, "\n".join(heading), va="bottom", ha="left", color=INK)
        _add_bars(canvas, scales if pairs else Scales(scales.accuracy, None), grid.left, cursor, maps, robustness)
        return canvas.figure


def write_caption(robustness: Robustness, panels: Sequence[HeatMap]) -> str:
    """The text under the figure."""
    pieces = [*describe_data(robustness), "Columns: clean images (0), severities 1–5."]
    if any(one.is_difference for one in panels):
        pieces.append(
            "Differences on the same images, in points of accuracy; dot: the paired-bootstrap 95 % interval excludes 0"
            " (each cell by itself, not corrected for their number)."
        )
    return " ".join(pieces)


class _Grid:
    """Rows of corruptions in their groups: where they are, in inches below the top of the cells."""

    def __init__(self, names: Sequence[str]) -> None:
        groups = group_corruptions(names)
        self.rows: dict[str, float] = {}
        self.groups: list[tuple[str, float, float]] = []
        self.blocks: list[tuple[str, float, float]] = []  # the first corruption of each group, and where it is
        cursor = 0.0
        for group, members in groups.items():
            start = cursor
            for name in members:
                self.rows[name] = cursor
                cursor += CELL
            self.groups.append((group, start, cursor))
            self.blocks.append((members[0], start, cursor))
            cursor += GAP
        self.height = cursor - GAP
        self.labels = {name: wrap_label(name.replace("_", " "), 1.3)[0] for name in self.rows}
        self.left = MARGIN + 0.2 + max(len(label) for label in self.labels.values()) * 0.056

    def fit(self, width: float, panels: int) -> tuple[float, ...]:
        """The widths of clean and severities 1…5 where so many panels stand side by side."""
        room = (width - self.left - RIGHT - (panels - 1) * BETWEEN) / panels - GAP
        clean = WORD if (room - WORD) / len(SEVERITIES) >= 0.22 else room / (1 + len(SEVERITIES))
        return (clean, *[min((room - clean) / len(SEVERITIES), WIDEST)] * len(SEVERITIES))

    def label_rows(self, axes: Axes, top: float) -> None:
        for name, row in self.rows.items():
            label = self.labels[name]
            axes.text(self.left - 0.05, top + row + CELL / 2, label, ha="right", va="center_baseline", color=INK)
        for group, start, end in self.groups:
            axes.plot([MARGIN + 0.14] * 2, [top + start + 0.01, top + end - 0.01], color=FAINT, linewidth=0.6)
            if len(group) * CHARACTER <= end - start:
                middle = top + (start + end) / 2
                axes.text(MARGIN + 0.06, middle, group, rotation=90, ha="center", va="center", color=INK)


def _arrange(maps: Sequence[HeatMap], pairs: Sequence[HeatMap], columns: int) -> list[tuple[HeatMap, ...]]:
    if len(maps) + len(pairs) <= 2 * columns - 1:
        return [(*maps, *pairs)]
    return [*wrap_items(maps, MODELS[columns]), *wrap_items(pairs, PAIRS[columns])]


def _draw_map(
    axes: Axes, grid: _Grid, one: HeatMap, scales: Scales, left: float, top: float, widths: tuple[float, ...]
) -> None:
    scale, colours = (scales.difference, DIFFERENCE) if one.is_difference else (scales.accuracy, ACCURACY)
    starts = [left + sum(widths[:place]) + (GAP if place else 0) for place in range(len(widths))]
    # Clean images are the same in every row, and so one box for each group.
    boxes = [(starts[0], start, widths[0], end - start, one.cells[name][0]) for name, start, end in grid.blocks]
    boxes += [
        (starts[place], row, widths[place], CELL, one.cells[name][place])
        for name, row in grid.rows.items()
        for place in range(1, len(widths))
    ]
    digits = _choose_digits([box[-1] for box in boxes], one, min(widths))
    corners, fills, dots = [], [], []
    for x, row, width, height, found in boxes:
        y = top + row
        fill = _colour(found, scale, colours)
        ink = ON_DARK if _luminance(fill) < 0.5 else ON_LIGHT
        corners.append([(x, y), (x + width, y), (x + width, y + height), (x, y + height)])
        fills.append(fill)
        text = "–" if found.value is None else one.format(found.value, digits)
        if _measure(text) <= width - 0.02:
            axes.text(x + width / 2, y + height / 2, text, ha="center", va="center_baseline", color=ink)
        if found.marked:
            dots.append((x + width - 0.025, y + 0.025, ink))
    axes.add_collection(PolyCollection(corners, facecolors=fills, edgecolors="white", linewidths=0.4, zorder=1))
    if dots:
        places, heights, inks = zip(*dots, strict=True)
        axes.scatter(places, heights, s=4, c=inks, linewidths=0, zorder=3)
    middle = (starts[1] + starts[-1] + widths[-1]) / 2
    axes.text(middle, top + grid.height + 0.03, "severity", ha="center", va="top", color=INK)
    names = ("clean" if widths[0] >= WORD else "0", *map(str, SEVERITIES))
    for start, width, name in zip(starts, widths, names, strict=True):
        axes.text(start + width / 2, top - 0.03, name, ha="center", va="bottom", color=INK)


def _choose_digits(cells: Sequence[Cell], one: HeatMap, width: float) -> int:
    """One digit after the point where all numbers have room for it."""
    texts = (one.format(found.value, 1) for found in cells if found.value is not None)
    margin = 0.05 if any(found.marked for found in cells) else 0.02
    return int(all(_measure(text) <= width - margin for text in texts))


def _measure(text: str) -> float:
    """Width of a number in inches: a sign is wider than a digit, a point narrower."""
    return sum({"+": 1.32, "−": 1.32, ".": 0.5}.get(character, 1.0) for character in text) * DIGIT


def _colour(cell: Cell, scale: Normalize | None, colours: Colormap) -> tuple[float, ...]:
    if cell.value is None or scale is None:
        return (0.93, 0.93, 0.93, 1.0)
    return colours(float(scale(100 * cell.value)))


def _luminance(colour: tuple[float, ...]) -> float:
    return sum(weight * level for weight, level in zip((0.299, 0.587, 0.114), colour, strict=False))


def _add_bars(
    canvas: Canvas, scales: Scales, left: float, top: float, maps: Sequence[HeatMap], robustness: Robustness
) -> None:
    """Colour bars below the panels."""
    metric = describe_metric(robustness.corruptions[0].metric)
    bars: list[tuple[Normalize, Colormap, str]] = [(scales.accuracy, ACCURACY, f"{metric} (%)")] if maps else []
    if scales.difference:
        bars.append((scales.difference, DIFFERENCE, "difference (points)"))
    width = min(1.6, (canvas.width - left - RIGHT - 0.3 * (len(bars) - 1)) / len(bars))
    for place, (scale, colours, label) in enumerate(bars):
        axes = canvas.add_axes(left + place * (width + 0.3), top, width, BAR)
        bar: Any = canvas.figure.colorbar(ScalarMappable(scale, colours), cax=axes, orientation="horizontal")
        bar.outline.set_linewidth(0.4)
        bar.set_ticks([scale.vmin, (scale.vmin + scale.vmax) / 2, scale.vmax])  # type: ignore[operator]
        axes.tick_params(length=2, pad=2)
        bar.set_label(label, labelpad=1.5)
