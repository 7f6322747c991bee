"""The figure of a metric over pretraining epochs: one line a pretraining run, PixMIM dashed beside its baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from matplotlib import patheffects, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.captions import format_value, list_counts, name_metric
from analysis.epochs.lines import EpochCurves, EpochPanel, Line
from analysis.layout import (
    GRID,
    HUES,
    INK,
    LEFT,
    LINE,
    PAGE_WIDTHS,
    RIGHT,
    STYLE,
    TITLE,
    TOP,
    Canvas,
    Legend,
    Look,
    choose_looks,
    wrap_items,
    wrap_label,
)
from analysis.report.parts import mark_method
from pixmim_eval.errors import InputError

GAP = 0.5  # inches between panels side by side: the ticks of the right one
HEIGHTS = {1: 2.3, 2: 1.7}  # of a panel, where so many stand side by side
FOOT = 0.42  # below a panel: its ticks and the axis's name
STEPS = (1, 2, 2.5, 5, 10)  # between ticks
ROWS = 4  # lines of panels of one page
NUMBER, SPREAD = 0.36, 0.115  # room right of the last point for its value; between two such values, in inches


def draw_epochs(curves: EpochCurves, panels: Sequence[EpochPanel], *, columns: int = 2) -> Figure:
    """The metric over epochs (or radius), the value at the end of each line beside it.

    Args:
        curves: the numbers.
        panels: those of this page; see plan_panels.
        columns: width of the figure, one (3.4 in) or two (7 in) columns of a page.

    Raises:
        InputError: more families of methods than can be told apart.
    """
    families = {subject.family for subject in curves.subjects}
    if len(families) > len(HUES):
        raise InputError(
            "methods of one figure",
            expected=f"at most {len(HUES)}, each with its PixMIM version",
            found=str(len(families)),
            where=f"{curves.suite}/{curves.metric}",
            fix="Name fewer run folders with --runs.",
        )
    with rc_context(STYLE):
        width, looks = PAGE_WIDTHS[columns], choose_looks(curves.subjects)
        legend, shown = _list_methods(curves, width)
        looks = _share_marks(curves, looks)
        lines = wrap_items(panels, columns)
        side = len(lines[0])
        height, room = HEIGHTS[side], (width - LEFT - RIGHT - GAP * (side - 1)) / side
        titles = {id(panel): wrap_label(panel.title, room) for panel in panels}
        cursor, tops = TOP + legend.height + 0.06, []
        for line in lines:
            deepest = max(len(titles[id(panel)]) if panel.title else 0 for panel in line)
            cursor += TITLE + (deepest - 1) * LINE if deepest else 0.04
            tops.append(cursor)
            cursor += height + FOOT
        canvas = Canvas(width, cursor + 0.02, write_caption(curves, panels))
        for line, top in zip(lines, tops, strict=True):
            for place, panel in enumerate(line):
                axes = canvas.add_axes(LEFT + place * (room + GAP), top, room, height)
                _draw_panel(axes, panel, curves, looks, room, height)
                axes.set_ylabel(name_axis(curves) if place == 0 else "")
                axes.text(
                    0, 1 + 0.06 / height, "\n".join(titles[id(panel)]), va="bottom", color=INK, transform=axes.transAxes
                )
        canvas.add_legend(legend, [looks[position] for position in shown])
        return canvas.figure


def plan_panels(curves: EpochCurves, columns: int) -> list[tuple[EpochPanel, ...]]:
    """The panels of each page."""
    return wrap_items(curves.panels, columns * ROWS)


def name_axis(curves: EpochCurves) -> str:
    """The metric with its unit."""
    return name_metric(curves.metric) + (" (%)" if curves.unit == "fraction" else "")


def write_caption(curves: EpochCurves, panels: Sequence[EpochPanel]) -> str:
    """The text under the figure: what was measured on how many images, how lines and bands are to be read."""
    return " ".join([*describe_curves(curves, panels), *_describe_lines(curves)])


def describe_curves(curves: EpochCurves, panels: Sequence[EpochPanel]) -> list[str]:
    """Sentences on data, protocol, number of images, and what is not shown."""
    points = [point for panel in panels for line in panel.lines.values() for point in line.points]
    known = {key: value for key, value in curves.common.items() if (key, value) != ("subset", "all")}
    known.pop("digest", None)
    data = known.pop("data", "as the panels say")
    condition = f", condition {known.pop('condition')}" if "condition" in known else ""
    sentences = [
        f"Suite {curves.suite}{condition}. Data: {data}; n = {list_counts(point.estimate.n for point in points)}."
    ]
    if known:
        sentences.append(f"Protocol: {', '.join(f'{key}={value}' for key, value in known.items())}.")
    if curves.left_out:
        sentences.append(f"Left out: {curves.left_out} of unknown {curves.over}.")
    return sentences


def _describe_lines(curves: EpochCurves) -> list[str]:
    sentences = ["Bands: 95 % intervals of each point; numbers: the last points."]
    methods = [subject.method for subject in curves.subjects]
    if len(set(methods)) < len(methods):
        sentences.append("Thin lines: the runs of one method, each by itself.")
    return sentences


def _list_methods(curves: EpochCurves, width: float) -> tuple[Legend, list[int]]:
    """The legend: a method each, with how many lines it has; and the positions of their first lines."""
    subjects, shown = [], []
    for position, subject in enumerate(curves.subjects):
        same = [other for other in curves.subjects if other.method == subject.method]
        if subject.method == "unknown" or len(same) == 1:
            subjects.append(subject)
        elif same[0] is subject:
            subjects.append(replace(subject, label=f"{subject.method} ({len(same)} runs)"))
        else:
            continue
        shown.append(position)
    return Legend(width, tuple(subjects), {}), shown


def _share_marks(curves: EpochCurves, looks: list[Look]) -> list[Look]:
    """The looks, with one name and mark for the lines that share an entry of the legend."""
    first: dict[str, Look] = {}
    shared = []
    for subject, look in zip(curves.subjects, looks, strict=True):
        one = first.setdefault(subject.label if subject.method == "unknown" else subject.method, look)
        several = one is not look or sum(other.method == subject.method for other in curves.subjects) > 1
        label = subject.method if several and subject.method != "unknown" else look.label
        shared.append(replace(look, label=label, mark=mark_method(label, looks.index(one))))
    return shared


def _draw_panel(
    axes: Axes, panel: EpochPanel, curves: EpochCurves, looks: list[Look], room: float, height: float
) -> None:
    """Lines, bands and last values of one panel."""
    scale = 100.0 if curves.unit == "fraction" else 1.0
    _set_limits(axes, [*panel.lines.values()], scale, room)
    ends = []
    for position, line in panel.lines.items():
        several = sum(subject.method == line.subject.method for subject in curves.subjects) > 1
        _draw_line(axes, line, looks[position], scale, 0.6 if several else 1.1)
        last = line.points[-1]
        ends.append((scale * last.estimate.value, last.place, format_value(last.estimate.value, curves.unit), position))
    ends.sort()
    low, high = axes.get_ylim()
    levels = _spread([value for value, *_ in ends], SPREAD * (high - low) / height, low, high)
    left, right = axes.get_xlim()
    for (_, place, text, position), level in zip(ends, levels, strict=True):
        weight = "bold" if curves.subjects[position].is_pixmim else "normal"
        own: dict[str, Any] = {"color": looks[position].colour, "gid": looks[position].mark}
        drawn = axes.text(
            place + 0.06 * (right - left) / room, level, text, fontweight=weight, va="center_baseline", **own
        )
        drawn.set_path_effects([patheffects.withStroke(linewidth=1.6, foreground="white")])
    axes.set_xlabel("pretraining epoch" if curves.over == "epoch" else "radius r of the low-pass filter")
    axes.set_yticks([tick for tick in MaxNLocator(6, steps=STEPS).tick_values(low, high) if low <= tick <= high])
    axes.grid(axis="y", color=GRID, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.tick_params(length=2, pad=2)


def _set_limits(axes: Axes, lines: Sequence[Line], scale: float, room: float) -> None:
    """All intervals with some air, and room for the last values; fractions stay within 0 and 100 per cent."""
    points = [point for line in lines for point in line.points]
    bounds = [scale * bound for point in points for bound in (point.estimate.low, point.estimate.high)]
    air = 0.06 * (max(bounds) - min(bounds)) or 0.02 * scale
    low, high = min(bounds) - air, max(bounds) + air
    axes.set_ylim(max(low, -air / 4) if min(bounds) >= 0 else low, high)
    places = sorted({point.place for point in points})
    span = places[-1] - places[0] or 1.0
    axes.set_xlim(places[0] - 0.04 * span, places[-1] + span * (0.04 + NUMBER / (room - NUMBER)))
    axes.set_xticks(places)
    if len(places) > 8 or min((after - before for before, after in pairwise(places)), default=1) < span / 8:
        ticks = MaxNLocator(6, steps=STEPS, integer=True).tick_values(places[0], places[-1])
        axes.set_xticks([tick for tick in ticks if places[0] <= tick <= places[-1]])


def _draw_line(axes: Axes, line: Line, look: Look, scale: float, thickness: float) -> None:
    places = [point.place for point in line.points]
    values, lows, highs = (
        [scale * getattr(point.estimate, bound) for point in line.points] for bound in ("value", "low", "high")
    )
    style: dict[str, Any] = {"color": look.colour, "linestyle": look.line, "marker": look.marker, "markersize": 2.6}
    own: dict[str, Any] = {"color": look.colour, "gid": look.mark}
    if len(places) > 1:
        axes.fill_between(places, lows, highs, alpha=0.16 if thickness > 1 else 0.08, linewidth=0, **own)
    else:
        axes.vlines(places, lows, highs, linewidth=0.8, **own)
    axes.plot(places, values, linewidth=thickness, gid=look.mark, **style)


def _spread(levels: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Ascending levels moved apart as little as one sweep up and one down take, within the axis."""
    moved: list[float] = []
    for level in levels:
        moved.append(max(level, moved[-1] + gap) if moved else max(level, low))
    ceiling = high
    for place in reversed(range(len(moved))):
        moved[place] = min(moved[place], ceiling)
        ceiling = moved[place] - gap
    return moved
