"""The shape-bias plot people know, and shape bias against accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis.captions import format_value, list_counts
from analysis.layout import (
    CAPTION,
    FAINT,
    GRID,
    INK,
    LEFT,
    PAGE_WIDTHS,
    RIGHT,
    STYLE,
    TOP,
    WIDE_CHARACTER,
    Canvas,
    Legend,
    Look,
    choose_looks,
    mark_artists,
)
from analysis.shape_bias.icons import ICONS, draw_icon
from analysis.shape_bias.numbers import Observer, ShapeBias
from analysis.subjects import Subject

ICON, DODGE = 0.16, 0.036  # inches: size of an icon; between the markers of two models in one row
HEAD, FOOT = 0.36, 0.38  # above and below the rows: the two scales
HEIGHT = 2.3  # of the panel of bias against accuracy
PERSON = "#9a9a9a"


def draw_bias(bias: ShapeBias, page: range, *, columns: int = 2) -> Figure:
    """Categories as rows, from shape (left) to texture: a marker a model, people as a line with their spread.

    Args:
        bias: the numbers.
        page: positions of the subjects to be shown, at most 8.
        columns: width of the figure, one (3.4 in) or two (7 in) columns of a page.
    """
    with rc_context(STYLE):
        width, subjects = PAGE_WIDTHS[columns], bias.subjects[page.start : page.stop]
        looks, observers = choose_looks(subjects), bias.observers[page.start : page.stop]
        extra = _explain_people(bias)
        legend = Legend(width, tuple(map(_label_subject, subjects, observers)), extra)
        pitch = min(max(0.11 + DODGE * len(subjects), 0.19), 0.36)
        rows = [*bias.categories, ""]
        top, height = TOP + legend.height + HEAD, pitch * len(rows)
        canvas = Canvas(width, top + height + FOOT, write_caption(bias, observers))
        left = 0.12 + ICON + max(len(name) for name in [*bias.categories, "all images"]) * WIDE_CHARACTER
        axes = canvas.add_axes(left, top, width - left - RIGHT, height)
        axes.set_xlim(102, -2)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        _label_rows(canvas, rows, left, top, pitch)
        _draw_people(axes, bias, rows)
        for place, (look, observer) in enumerate(zip(looks, observers, strict=True)):
            shift = (place - (len(looks) - 1) / 2) * DODGE / pitch
            _draw_observer(axes, observer, rows, look, shift)
        _finish(axes, len(rows))
        canvas.add_legend(legend, looks)
        return canvas.figure


def _label_subject(subject: Subject, observer: Observer) -> Subject:
    """The subject with its overall bias behind its name."""
    known = f": {format_value(observer.overall.value, 'fraction')} %" if observer.overall else ""
    return replace(subject, label=f"{subject.label}{known}")


def _explain_people(bias: ShapeBias) -> dict[str, Line2D]:
    """The legend's entry of people."""
    middle = bias.people or (bias.persons[0] if len(bias.persons) == 1 else None)
    if not middle and not bias.persons:
        return {}
    known = f": {format_value(middle.overall.value, 'fraction')} %" if middle and middle.overall else ""
    count = f" ({len(bias.persons)})" if bias.persons else ""
    return {f"people{count}{known}": Line2D([], [], color=INK, marker="o", markersize=2.4, linewidth=1.1)}


def write_caption(bias: ShapeBias, observers: Sequence[Observer]) -> str:
    """The text under the figure: images, protocol, and what markers, lines and shades are."""
    counts = [found.overall.n for found in (*observers, *bias.persons, *filter(None, [bias.people])) if found.overall]
    pieces = [f"Data: {bias.dataset}; n = {list_counts(counts) if counts else 0} images of conflicting cues."]
    pieces += describe_protocol(bias)
    pieces.append("Scales: of all decisions for an image’s shape or its texture.")
    if observers:
        pieces.append("Markers: images of a shape; vertical lines and last row: all images; whiskers: 95 % intervals.")
    spread = "Shaded: from the least to the greatest of them."
    if bias.people:
        shade = spread if len(bias.persons) > 1 else "Shaded: 95 % intervals."
        pieces.append(f"Line: people, all trials taken together. {shade}")
    elif len(bias.persons) > 1:
        pieces.append(f"Line: mean over people. {spread}")
    missing = [found.name for found in observers if len(found.categories) < len(bias.categories)]
    if missing:
        pieces.append(f"No marker: no decision for shape or texture ({', '.join(missing)}).")
    return " ".join(pieces)


def describe_protocol(bias: ShapeBias) -> list[str]:
    """A sentence on how the models were asked."""
    text = ", ".join(f"{key}={value}" for key, value in sorted(bias.protocol.items()))
    return [f"Protocol: {text}."] if text else []


def _label_rows(canvas: Canvas, rows: Sequence[str], left: float, top: float, pitch: float) -> None:
    """Name and icon before each row."""
    strip = canvas.add_axes(0, top, left, pitch * len(rows))
    strip.set_xlim(0, left)
    strip.set_ylim(pitch * len(rows), 0)
    strip.set_axis_off()
    for place, name in enumerate(rows):
        middle = (place + 0.5) * pitch
        edge = left - 0.08 if name not in ICONS else left - 0.12 - ICON
        strip.text(edge, middle, name or "all images", ha="right", va="center_baseline", color=INK)
        draw_icon(strip, name, left - 0.07 - ICON, middle - ICON / 2, ICON, ink=CAPTION)


def _draw_people(axes: Axes, bias: ShapeBias, rows: Sequence[str]) -> None:
    """A line through the rows, the spread of single persons behind it, and a vertical line of all images."""
    levels = np.array([100 * np.array(_describe_people(bias, name)) for name in rows[:-1]]).reshape(-1, 3)
    if np.isnan(levels).all():
        return
    middles, lows, highs = levels.T
    places = range(len(middles))
    axes.fill_betweenx(places, lows, highs, color=PERSON, alpha=0.3, linewidth=0, zorder=1)
    axes.plot(middles, places, color=INK, linewidth=1.1, marker="o", markersize=2.4, zorder=2.5)
    overall = [found.overall for found in ((bias.people,) if bias.people else bias.persons) if found and found.overall]
    if overall:
        level = 100 * float(np.mean([found.value for found in overall]))
        axes.axvline(level, color=INK, linewidth=0.8, zorder=1.5)
        axes.plot([level], [len(rows) - 1], color=INK, marker="o", markersize=2.8, zorder=2.5)


def _describe_people(bias: ShapeBias, category: str) -> tuple[float, float, float]:
    """All people together, or their mean where no row is of that; and the bounds of their spread."""
    pooled = bias.people.categories.get(category) if bias.people else None
    values = [person.categories[category].value for person in bias.persons if category in person.categories]
    middle = pooled.value if pooled else float(np.mean(values)) if values else math.nan
    if len(values) > 1:
        return middle, min(values), max(values)
    return (middle, pooled.low, pooled.high) if pooled else (middle, middle, middle)


def _draw_observer(axes: Axes, observer: Observer, rows: Sequence[str], look: Look, shift: float) -> None:
    """One model: a marker with its interval in every row, and a line where its decisions on all images are."""
    estimates = {place: observer.categories.get(name) for place, name in enumerate(rows[:-1])}
    estimates[len(rows) - 1] = observer.overall
    known = [(place + shift, found) for place, found in estimates.items() if found]
    if not known:
        return
    heights, values = [height for height, _ in known], [100 * found.value for _, found in known]
    axes.hlines(
        heights,
        [100 * found.low for _, found in known],
        [100 * found.high for _, found in known],
        colors=[look.colour],
        linewidth=0.6,
        alpha=0.55,
        zorder=3,
        gid=look.mark,
    )
    style: dict[str, Any] = {"color": look.colour, "marker": look.marker, "markeredgecolor": "white", "gid": look.mark}
    axes.plot(values, heights, linestyle="", markersize=4.2, markeredgewidth=0.4, zorder=4, **style)
    if observer.overall:
        line: dict[str, Any] = {"linestyle": look.line, "linewidth": 0.8, "alpha": 0.7, "zorder": 1.5}
        axes.axvline(100 * observer.overall.value, color=look.colour, gid=look.mark, **line)


def _finish(axes: Axes, rows: int) -> None:
    """Rules between rows, and a scale of shape below and of texture above."""
    axes.hlines(range(rows - 1), 0, 100, colors=GRID, linewidth=0.5, zorder=0.5)
    axes.axhline(rows - 1.5, color=FAINT, linewidth=0.6, zorder=0.6)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    ticks = range(0, 101, 20)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xlabel("shape decisions (%)", labelpad=2)
    upper = axes.secondary_xaxis("top")
    upper.set_xticks(ticks, [str(100 - tick) for tick in ticks])
    upper.set_xlabel("texture decisions (%)", labelpad=3)
    for scale in (axes, upper):
        scale.tick_params(length=2, pad=2)
    upper.spines["top"].set_visible(True)
    upper.spines["top"].set_linewidth(0.6)


def draw_against_accuracy(bias: ShapeBias, page: range, *, columns: int = 2) -> Figure | None:
    """Shape bias against accuracy on ordinary images; None where no model of the page has both.

    Args:
        bias: the numbers.
        page: positions of the subjects to be shown, at most 8.
        columns: width of the figure, one (3.4 in) or two (7 in) columns of a page.
    """
    everyone = zip(bias.subjects[page.start : page.stop], bias.observers[page.start : page.stop], strict=True)
    both = [(subject, found) for subject, found in everyone if found.overall and found.accuracy]
    if not both:
        return None
    subjects, observers = tuple(subject for subject, _ in both), [found for _, found in both]
    with rc_context(STYLE):
        width, looks = PAGE_WIDTHS[columns], choose_looks(subjects)
        extra = _explain_people(bias) if bias.people else {}
        legend = Legend(width, subjects, extra)
        top = TOP + legend.height + 0.1
        canvas = Canvas(width, top + HEIGHT + 0.42, _describe_accuracy(bias, observers))
        axes = canvas.add_axes(LEFT, top, width - LEFT - RIGHT, HEIGHT)
        for observer, look in zip(observers, looks, strict=True):
            _draw_cross(axes, observer, look)
        axes.autoscale_view()
        if bias.people and bias.people.overall:
            axes.axhline(100 * bias.people.overall.value, color=INK, linewidth=1.1, zorder=1)
        axes.set_xlabel("accuracy on ordinary images (%)")
        axes.set_ylabel("shape bias (%)")
        axes.set_ylim(0, 100)
        axes.set_xticks(_list_ticks(*axes.get_xlim()))
        axes.grid(color=GRID, linewidth=0.5)
        axes.set_axisbelow(True)
        axes.tick_params(length=2, pad=2)
        canvas.add_legend(legend, looks)
        return canvas.figure


def _draw_cross(axes: Axes, observer: Observer, look: Look) -> None:
    """A marker with an interval to either side."""
    accuracy, overall = observer.accuracy, observer.overall
    if accuracy is None or overall is None:
        return
    lengths = [
        [[max(100 * (found.value - found.low), 0)], [max(100 * (found.high - found.value), 0)]]
        for found in (accuracy, overall)
    ]
    drawn = axes.errorbar(
        [100 * accuracy.value],
        [100 * overall.value],
        xerr=lengths[0],
        yerr=lengths[1],
        color=look.colour,
        marker=look.marker,
        markersize=4.4,
        markeredgecolor="white",
        markeredgewidth=0.4,
        elinewidth=0.8,
    )
    mark_artists(drawn, look.mark)


def _list_ticks(low: float, high: float) -> list[float]:
    ticks = MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [float(tick) for tick in ticks if low <= tick <= high]


def _describe_accuracy(bias: ShapeBias, observers: Sequence[Observer]) -> str:
    images = list_counts(found.overall.n for found in observers if found.overall)
    clean = list_counts(found.accuracy.n for found in observers if found.accuracy)
    left = len(bias.observers) - sum(bool(found.accuracy and found.overall) for found in bias.observers)
    pieces = [f"Data: {bias.dataset}, n = {images} images of conflicting cues."]
    pieces += [*describe_protocol(bias), f"Accuracy: {bias.accuracy}; n = {clean}. Whiskers: 95 % intervals."]
    if left:
        pieces.append(f"Left out, their accuracy not being measured: {left} of {len(bias.observers)}.")
    return " ".join(pieces)
