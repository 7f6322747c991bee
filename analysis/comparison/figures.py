"""The figure of a comparison: every difference of the page with its interval, grouped by suite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis.captions import format_interval
from analysis.comparison.checkpoints import BETTER, HIGHER, LOWER, SAME, UNTESTED, WORSE, CheckpointComparison
from analysis.comparison.lines import Line, list_lines
from analysis.layout import (
    CAPTION,
    FAINT,
    GRID,
    HUES,
    INK,
    LABEL_LINE,
    LINE,
    MARGIN,
    PAGE_WIDTHS,
    RIGHT,
    STYLE,
    TOP,
    Canvas,
    wrap_items,
    wrap_label,
)

LONGEST = 40  # differences of one page
LABELS, NUMBERS = {1: 1.45, 2: 2.5}, {1: 0.0, 2: 1.35}  # room for names and for numbers, in inches
_ROW, _HEAD, _FOOT = 0.05, 0.19, 0.6  # inches: air of a row, a suite's name, ticks and the axis's name
_LOOKS: dict[str, tuple[str, str]] = {  # verdict -> marker, colour; filled where separable
    BETTER: (">", HUES[0]),
    WORSE: ("<", HUES[5]),
    HIGHER: ("^", INK),
    LOWER: ("v", INK),
    SAME: ("o", FAINT),
    UNTESTED: ("x", FAINT),
}
_WORDS = {
    BETTER: "B better",
    WORSE: "B worse",
    HIGHER: "B higher",
    LOWER: "B lower",
    SAME: "not separable",
    UNTESTED: "not tested",
}


@dataclass(frozen=True)
class _Row:
    """A suite's name, or a line, and how far below the panel's upper edge its middle is."""

    middle: float
    texts: list[str]
    line: Line | None


def draw_differences(comparison: CheckpointComparison, *, columns: int = 2) -> list[Figure]:
    """A forest plot in as many pages as it takes: B's side is right, whichever way the metric goes.

    Args:
        comparison: the numbers.
        columns: width of the figure, one (3.4 in) or two (7 in) columns of a page.
    """
    lines = list_lines(comparison)
    units = list(dict.fromkeys(line.unit for line in lines))
    ordered = [line for unit in units for line in lines if line.unit == unit]
    return [_draw_page(comparison, page, columns) for page in wrap_items(ordered, LONGEST)]


def write_caption(comparison: CheckpointComparison, lines: Sequence[Line]) -> str:
    """What the figure shows."""
    sentences = [
        f"A: {comparison.first.describe()}. B: {comparison.second.describe()}.",
        "Differences with 95 % intervals, B’s favour to the right; filled: separable after Holm’s correction.",
    ]
    if any(line.found.direction < 0 for line in lines):
        sentences.append("↓: less is better, drawn with its sign turned.")
    if any(line.found.direction == 0 for line in lines):
        sentences.append("◇: neither is better, right is B higher.")
    return " ".join(sentences)


def _draw_page(comparison: CheckpointComparison, lines: Sequence[Line], columns: int) -> Figure:
    with rc_context(STYLE):
        width, room = PAGE_WIDTHS[columns], LABELS[columns]
        verdicts = [verdict for verdict in _LOOKS if any(line.verdict == verdict for line in lines)]
        across = min(len(verdicts), 2 * columns)
        top = TOP + LINE * -(-len(verdicts) // across) + 0.06
        panels = []
        for unit in dict.fromkeys(line.unit for line in lines):
            rows, height = _place_rows([line for line in lines if line.unit == unit], room)
            panels.append((unit, rows, top, height))
            top += height + _FOOT
        canvas = Canvas(width, top + 0.02, write_caption(comparison, lines))
        if NUMBERS[columns]:
            canvas.add_text("B − A [95 %]", width - MARGIN, panels[0][2] - 0.05, ha="right", fontweight="bold")
        span = width - MARGIN - room - NUMBERS[columns] - RIGHT
        for unit, rows, above, height in panels:
            axes = canvas.add_axes(MARGIN + room, above, span, height)
            _draw_panel(axes, rows, unit, height)
            for row in rows:
                _write_row(canvas, row, above, width, columns)
        handles = [_draw_marker(verdict) for verdict in verdicts]
        canvas.figure.legend(
            handles,
            [_WORDS[verdict] for verdict in verdicts],
            loc="upper left",
            bbox_to_anchor=(MARGIN / canvas.width, 1 - TOP / canvas.height),
            ncols=across,
            frameon=False,
            borderaxespad=0,
            borderpad=0,
            handletextpad=0.2,
        )
        return canvas.figure


def _place_rows(lines: Sequence[Line], room: float) -> tuple[list[_Row], float]:
    """The rows of a panel from above, and its height."""
    rows, cursor, previous = [], 0.02, ""
    for line in lines:
        if line.suite != previous:
            rows.append(_Row(cursor + _HEAD / 2, [line.suite.replace("_", " ")], None))
            cursor, previous = cursor + _HEAD, line.suite
        sign = {1: "", -1: " ↓", 0: " ◇"}[line.found.direction]
        texts = wrap_label(line.name + sign, room - 0.12)[:3]
        height = len(texts) * LABEL_LINE + _ROW
        rows.append(_Row(cursor + height / 2, texts, line))
        cursor += height
    return rows, cursor + 0.04


def _write_row(canvas: Canvas, row: _Row, above: float, width: float, columns: int) -> None:
    """A row's name left of the panel and its numbers right of it."""
    style: dict[str, Any] = {"va": "center", "linespacing": 1.0}
    if row.line is None:
        canvas.add_text(row.texts[0], MARGIN, above + row.middle, fontweight="bold", **style)
        return
    canvas.add_text("\n".join(row.texts), MARGIN + 0.08, above + row.middle, color=INK, **style)
    if NUMBERS[columns]:
        text = format_interval(row.line.found.estimate, "+")
        canvas.add_text(text, width - MARGIN, above + row.middle, color=CAPTION, **style, ha="right")


def _draw_panel(axes: Axes, rows: Sequence[_Row], unit: str, height: float) -> None:
    scale = 100.0 if unit == "fraction" else 1.0
    axes.axvline(0, color=INK, linewidth=0.6, zorder=1)
    bounds = [0.0]
    for row in rows:
        if row.line is None:
            continue
        estimate = row.line.favour
        value, low, high = (scale * number for number in (estimate.value, estimate.low, estimate.high))
        colour = _LOOKS[row.line.verdict][1]
        axes.hlines(row.middle, low, high, colors=colour, linewidth=1.0, zorder=2)
        marker = _draw_marker(row.line.verdict)
        marker.set_data([value], [row.middle])
        axes.add_line(marker)
        bounds += [low, high]
    air = 0.05 * (max(bounds) - min(bounds)) or 0.01 * scale
    low, high = min(bounds) - air, max(bounds) + air
    axes.set_xlim(low, high)
    axes.set_ylim(height, 0)
    axes.set_yticks([])
    ticks = MaxNLocator(6, steps=(1, 2, 2.5, 5, 10)).tick_values(low, high)
    axes.set_xticks([tick for tick in ticks if low <= tick <= high])
    axes.grid(axis="x", color=GRID, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    axes.tick_params(length=2, pad=2)
    axes.set_xlabel(f"{'points of per cent' if unit == 'fraction' else unit}\n← A’s favour   B’s favour →")


def _draw_marker(verdict: str) -> Line2D:
    marker, colour = _LOOKS[verdict]
    filled = verdict not in (SAME, UNTESTED)
    return Line2D(
        [],
        [],
        color=colour,
        marker=marker,
        markersize=4.5 if filled else 4.0,
        markerfacecolor=colour if filled else "white",
        markeredgewidth=0.9,
        linestyle="none",
        zorder=3,
    )
