"""The figure of everything at a glance: accuracy as bars with intervals, and against severity as curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.captions import (
    describe_baselines,
    describe_chance,
    describe_data,
    describe_groups,
    describe_intervals,
    describe_metric,
    name_column,
)
from analysis.columns import Column
from analysis.layout import (
    FAINT,
    HUES,
    INK,
    LABEL_LINE,
    LEFT,
    LINE,
    MARGIN,
    PAGE_WIDTHS,
    RIGHT,
    STYLE,
    TITLE,
    TOP,
    Canvas,
    Legend,
    Look,
    choose_limit,
    choose_looks,
    draw_chance,
    finish_scale,
    mark_artists,
    wrap_items,
    wrap_label,
)
from analysis.robustness.curves import Panel, PanelLine, add_panels
from analysis.robustness.statistics import Robustness
from pixmim_eval.errors import InputError
from pixmim_eval.types import Estimate

MAX_MODELS = len(HUES)
BAR_HEIGHT, CURVE_HEIGHT = 1.0, 0.95
SAME_CLASSES = "clean, same classes"


@dataclass(frozen=True)
class BarLine:
    """One line of groups of bars.

    Args:
        title: over it, "" for none.
        columns: what the groups show.
        labels: under the groups.
        slot: a group's width in inches.
    """

    title: str
    columns: tuple[Column, ...]
    labels: tuple[str, ...]
    slot: float


def draw_robustness(robustness: Robustness, *, columns: int = 2) -> Figure:
    """Panel a: accuracy on clean images, corruptions and variants as bars; panel b: accuracy against severity.

    Up to six corruptions are shown one by one; of more, the means over the groups noise, blur, weather, digital, extra.

    Args:
        robustness: the numbers, of 1…8 models.
        columns: width of the figure, one (3.4 in) or two (7 in) columns of a page.

    Raises:
        InputError: more models than can be told apart.
    """
    subjects = robustness.subjects
    if len(subjects) > MAX_MODELS:
        raise InputError(
            "models of one figure",
            expected=f"at most {MAX_MODELS}",
            found=str(len(subjects)),
            where=f"data set {robustness.group.dataset}",
            fix="Name fewer run folders with --runs (tables have no limit).",
        )
    with rc_context(STYLE):
        width, looks = PAGE_WIDTHS[columns], choose_looks(subjects)
        bars, curves = _arrange_bars(robustness, columns), _arrange_curves(robustness, columns)
        shown = [column for line in bars for column in line.columns]
        baselines = robustness.fair_baselines
        cells = [column for line in curves for panel in line.panels for column in panel.curve]
        limit = choose_limit(found for column in (*shown, *baselines.values(), *cells) for found in column.estimates)
        chance = describe_chance(shown)
        extra = {chance: draw_chance()} if chance else {}
        if baselines:
            extra[SAME_CLASSES] = Line2D([], [], linestyle="", **_outline(INK, 3.2))
        legend = Legend(width, subjects, extra)
        bar_tops, curve_tops, end = _stack(TOP + legend.height + 0.1, bars, curves, width)
        canvas = Canvas(width, end, write_caption(robustness))
        for line, top in zip(bars, bar_tops, strict=True):
            axes = _add_bars(canvas, top, line, looks, baselines)
            axes.set_ylabel(f"{describe_metric(shown[0].metric)} (%)")
            finish_scale(axes, limit, [(-0.5, len(line.columns) - 0.5)])
        for panels, top in zip(curves, curve_tops, strict=True):
            add_panels(canvas, top, panels, looks, limit)
        if curves:
            heads = (bar_tops[0] - TITLE, curve_tops[0] - curves[0].title_height(width))
            for letter, top in zip("ab", heads, strict=True):
                canvas.add_text(letter, MARGIN, top + 0.03, size=9, weight="bold")
        canvas.add_legend(legend, looks)
        return canvas.figure


def write_caption(robustness: Robustness) -> str:
    """The text under the figure: data, number of images, protocol, and what the intervals are."""
    pieces = [*describe_data(robustness), "Whiskers and bands: 95 % intervals."]
    means = [f"100 − {column.name}" for column in robustness.means]
    if robustness.has_many:
        pieces += [f"All corruptions: {' or '.join(means)}, with image-level intervals."] if means else []
        pieces += describe_groups(robustness)
        pieces.append("b: means over a group’s corruptions, with the means of their bounds (conservative).")
    else:
        pieces += describe_intervals(robustness)
        pieces += [f"All corruptions: {' or '.join(means)}."] if means else []
    return " ".join([*pieces, *describe_baselines(robustness)])


def _arrange_bars(robustness: Robustness, columns: int) -> list[BarLine]:
    """Lines of bars with a title over the first of each section; a single section where all fits on one line."""
    plain, corruptions, longest = robustness.plain_columns, robustness.corruptions, 4 * columns
    kinds = {"clean": "clean", "summary": "mean of all corruptions", "variant": "variants"}
    if robustness.has_many:
        before = tuple(column for column in plain if column.kind != "variant")
        title = ", ".join([*dict.fromkeys(kinds[column.kind] for column in before), "groups of corruptions"])
        sections = [(title, (*before, *robustness.families)), ("variants", robustness.variants)]
    elif len(plain) + len(corruptions) <= longest:
        sections = [("", (*plain, *corruptions))]
    else:
        title = ", ".join(dict.fromkeys(kinds[column.kind] for column in plain))
        sections = [(title, plain), ("each corruption (mean over severities 1–5)", corruptions)]
    usual = next(column.metric for _, found in sections for column in found)
    room = PAGE_WIDTHS[columns] - LEFT - RIGHT
    lines = []
    for title, found in sections:
        wrapped = wrap_items(found, longest)
        for position, line in enumerate(wrapped):
            # The lines of one section keep the slots of its first.
            slot = min(room / len(wrapped[0]), 0.32 * len(robustness.subjects) + 0.7)
            labels = tuple(_label_bars(column, usual, slot) for column in line)
            lines.append(BarLine(title[:1].upper() + title[1:] if position == 0 else "", line, labels, slot))
    return lines


def _arrange_curves(robustness: Robustness, columns: int) -> list[PanelLine]:
    if robustness.has_many:
        parts = {family.name: family.parts for family in robustness.families}
        panels = [Panel(f"{name} ({parts[name]})", curve) for name, curve in robustness.family_curves.items()]
    else:
        panels = [Panel(name.replace("_", " "), curve) for name, curve in robustness.curves.items()]
    lines = wrap_items(panels, 3 * columns)
    counts = [*(len(line) for line in lines), 0]
    return [
        PanelLine(
            line,
            max(counts[0], 2 * columns),
            CURVE_HEIGHT,
            tuple(position >= counts[row + 1] for position in range(len(line))),
        )
        for row, line in enumerate(lines)
    ]


def _stack(
    cursor: float, bars: list[BarLine], curves: list[PanelLine], width: float
) -> tuple[list[float], list[float], float]:
    """Where the axes of each line begin, and the caption."""
    bar_tops: list[float] = []
    for line in bars:
        cursor += TITLE if line.title or not bar_tops else 0.04
        bar_tops.append(cursor)
        cursor += BAR_HEIGHT + (1 + max(label.count("\n") for label in line.labels)) * LINE + 0.09
    curve_tops: list[float] = []
    for panels in curves:
        cursor += panels.title_height(width)
        curve_tops.append(cursor)
        cursor += CURVE_HEIGHT + (0.18 if panels is not curves[-1] else 0.38)
    return bar_tops, curve_tops, cursor + 0.04


def _label_bars(column: Column, usual_metric: str, slot: float) -> str:
    """What stands under a group of bars, broken to its width."""
    return "\n".join(
        line for part in name_column(column, usual_metric) if part for line in wrap_label(part, slot - 0.04)
    )


def _add_bars(canvas: Canvas, top: float, line: BarLine, looks: list[Look], baselines: dict[str, Column]) -> Axes:
    count = len(line.columns)
    axes = canvas.add_axes(LEFT, top, line.slot * count, BAR_HEIGHT)
    axes.set_title(line.title, loc="left", pad=4, color=INK)
    axes.set_xlim(-0.5, count - 0.5)
    axes.set_xticks(range(count), line.labels, linespacing=1.05, va="baseline")
    axes.tick_params(axis="x", length=0, pad=9)
    for label in axes.get_xticklabels():  # they hang from their last line; their first ones shall be level
        label.set_y(-label.get_text().count("\n") * LABEL_LINE / BAR_HEIGHT)
    step = min(0.84 / len(looks), 0.3 / line.slot)
    thickness = 0.9 * step * line.slot * 72
    for position, look in enumerate(looks):
        shift = (position - (len(looks) - 1) / 2) * step
        centres = [place + shift for place in range(count)]
        estimates = [column.estimates[position] for column in line.columns]
        _draw_bars(axes, centres, estimates, look, 0.9 * step, min(1.6, 0.28 * thickness))
        fair = [(baselines.get(column.name), column.kind == "variant") for column in line.columns]
        known = [column.estimates[position] if column and variant else None for column, variant in fair]
        _draw_baselines(axes, [centre + 0.27 * step for centre in centres], known, look, min(3.2, 0.4 * thickness))
    for place, column in enumerate(line.columns):
        if column.chance is not None:
            level = 100 * column.chance
            axes.hlines(level, place - 0.47, place + 0.47, colors=INK, linestyles=":", linewidth=0.9, zorder=5)
    return axes


def _draw_bars(
    axes: Axes, centres: Sequence[float], estimates: Sequence[Estimate | None], look: Look, width: float, cap: float
) -> None:
    for centre in (centre for centre, found in zip(centres, estimates, strict=True) if found is None):
        axes.text(centre, 1.5, "missing", rotation=90, ha="center", va="bottom", color=FAINT, gid=look.mark)
    known = [(centre, found) for centre, found in zip(centres, estimates, strict=True) if found is not None]
    places, values = [centre for centre, _ in known], [100 * found.value for _, found in known]
    style: dict[str, Any] = {"color": look.colour, "hatch": look.hatch, "edgecolor": "white", "linewidth": 0}
    axes.bar(places, values, width, zorder=2, gid=look.mark, **style)
    # A white whisker below the dark one, which would be lost on a dark bar.
    for colour, thick, order in (("white", 1.9, 3), (INK, 0.7, 4)):
        whiskers = axes.errorbar(
            places,
            values,
            _lengths(known),
            fmt="none",
            ecolor=colour,
            elinewidth=thick,
            capsize=cap + thick / 4,
            capthick=thick,
            zorder=order,
        )
        mark_artists(whiskers, look.mark)


def _draw_baselines(
    axes: Axes, centres: Sequence[float], estimates: Sequence[Estimate | None], look: Look, size: float
) -> None:
    """Outlined diamonds with thin whiskers, beside the middle of their bars."""
    known = [(centre, found) for centre, found in zip(centres, estimates, strict=True) if found is not None]
    if known:
        places, values = [centre for centre, _ in known], [100 * found.value for _, found in known]
        line: dict[str, Any] = {"ecolor": look.colour, "elinewidth": 0.6, "linestyle": "", "zorder": 6}
        mark_artists(axes.errorbar(places, values, _lengths(known), **line, **_outline(look.colour, size)), look.mark)


def _outline(colour: object, size: float) -> dict[str, Any]:
    return {"marker": "D", "markersize": size, "mfc": "white", "mec": colour, "mew": 0.7}


def _lengths(known: list[tuple[float, Estimate]]) -> list[list[float]]:
    """How far whiskers reach below and above, in points of per cent."""
    return [
        [max(100 * (found.value - found.low), 0) for _, found in known],
        [max(100 * (found.high - found.value), 0) for _, found in known],
    ]
