"""Small multiples: accuracy against severity, one panel a corruption or a group of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.captions import describe_chance, describe_data
from analysis.columns import Column, group_corruptions
from analysis.layout import (
    INK,
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
    wrap_items,
    wrap_label,
)
from analysis.robustness.statistics import Robustness

GAP = 0.13  # inches between panels
BEFORE, SPAN = 0.3, 5.6  # what a panel shows left of severity 0, and in all, in severities
PER_LINE, LINES = 4, 7  # of a page of corruptions: none of ImageNet-C's groups has more


@dataclass(frozen=True)
class Panel:
    """One small multiple: its title, and accuracy at severity 0 (clean) … 5."""

    title: str
    curve: tuple[Column, ...]


@dataclass(frozen=True)
class PanelLine:
    """Panels side by side.

    Args:
        panels: from left to right.
        slots: how many would fit.
        height: of a panel in inches.
        lowest: for each panel, whether none stands below it.
        name: of what they have in common, "" for nothing.
    """

    panels: tuple[Panel, ...]
    slots: int
    height: float
    lowest: tuple[bool, ...]
    name: str = ""

    def titles(self, width: float) -> list[list[str]]:
        """The lines of each panel's title on a page of that width."""
        pitch = (width - LEFT - RIGHT + GAP) / self.slots
        return [wrap_label(panel.title, pitch - 0.04) for panel in self.panels]

    def title_height(self, width: float) -> float:
        return TITLE + (max(map(len, self.titles(width))) - 1) * LINE


def draw_curves(robustness: Robustness, lines: Sequence[tuple[str, tuple[str, ...]]], *, columns: int = 2) -> Figure:
    """Accuracy against severity, one panel a corruption.

    Args:
        robustness: the numbers, of 1…8 models.
        lines: (group, corruptions) of each line of panels; see plan_curves.
        columns: width of the figure, one (3.4 in) or two (7 in) columns of a page.
    """
    with rc_context(STYLE):
        width, looks = PAGE_WIDTHS[columns], choose_looks(robustness.subjects)
        shown = [name for _, names in lines for name in names]
        cells = [column for name in shown for column in robustness.curves[name]]
        limit = choose_limit(estimate for column in cells for estimate in column.estimates)
        chance = describe_chance(cells)
        legend = Legend(width, robustness.subjects, {chance: draw_chance()} if chance else {})
        height = 0.8 if columns == 2 else 0.62
        panel_lines, tops, cursor = [], [], TOP + legend.height + 0.1
        for place, (group, names) in enumerate(lines):
            panels = tuple(Panel(name.replace("_", " "), robustness.curves[name]) for name in names)
            last = place + 1 == len(lines)
            lowest = tuple(last or position >= len(lines[place + 1][1]) for position in range(len(names)))
            panel_lines.append(PanelLine(panels, PER_LINE, height, lowest, group))
            cursor += panel_lines[-1].title_height(width)
            tops.append(cursor)
            cursor += height + (0.34 if any(lowest) else 0.2)
        caption = [*describe_data(robustness), "Severity 0: clean images.", "Bands: 95 % intervals of each cell."]
        canvas = Canvas(width, cursor + 0.06, " ".join(caption))
        for line, top in zip(panel_lines, tops, strict=True):
            add_panels(canvas, top, line, looks, limit)
        canvas.add_legend(legend, looks)
        return canvas.figure


def plan_curves(robustness: Robustness) -> list[list[tuple[str, tuple[str, ...]]]]:
    """Pages of lines (group, corruptions): a group starts on a line of its own."""
    lines = [
        (group, names)
        for group, members in group_corruptions(robustness.curves).items()
        for names in wrap_items(members, PER_LINE)
    ]
    return [list(page) for page in wrap_items(lines, LINES)]


def add_panels(canvas: Canvas, top: float, line: PanelLine, looks: list[Look], limit: float) -> None:
    """Draws one line of panels: one pair of axes for all, in which panels stand a pitch apart."""
    panel = (canvas.width - LEFT - RIGHT - GAP * (line.slots - 1)) / line.slots
    pitch = SPAN * (1 + GAP / panel)
    count = len(line.panels)
    axes = canvas.add_axes(LEFT, top, count * panel + (count - 1) * GAP, line.height)
    starts = [place * pitch for place in range(count)]
    spans = [(start - BEFORE, start + SPAN - BEFORE) for start in starts]
    for position, look in enumerate(looks):
        _draw_model(axes, line.panels, starts, look, position)
    for span, one in zip(spans, line.panels, strict=True):
        if one.curve[1].chance is not None:
            axes.hlines(100 * one.curve[1].chance, *span, colors=INK, linestyles=":", linewidth=0.9)
    finish_scale(axes, limit, spans)
    _draw_frames(axes, spans, limit)
    axes.set_xlim(-BEFORE, spans[-1][1])
    severities = range(len(line.panels[0].curve))
    ticks = [(start + severity, str(severity)) for start in starts for severity in severities]
    axes.set_xticks([place for place, _ in ticks], [label for _, label in ticks])
    axes.tick_params(axis="x", length=2, pad=2)
    axes.set_ylabel("top-1 (%)")
    if line.name:
        canvas.add_text(line.name, MARGIN, top - TITLE + 0.03, weight="bold", color=INK)
    for start, title, lowest in zip(starts, line.titles(canvas.width), line.lowest, strict=True):
        middle = start + (SPAN - 2 * BEFORE) / 2
        _write(axes, "\n".join(title), middle, 1, 3, "bottom")
        if lowest:
            _write(axes, "severity", middle, 0, -12, "top")


def _draw_model(axes: Axes, panels: tuple[Panel, ...], starts: list[float], look: Look, position: int) -> None:
    """One model's curves and bands in all panels, with a gap from panel to panel and where a number is missing."""
    places: list[float] = []
    bounds: dict[str, list[float]] = {"value": [], "low": [], "high": []}
    for start, panel in zip(starts, panels, strict=True):
        found = [column.estimates[position] for column in panel.curve]
        places += [*(start + severity for severity in range(len(found))), start + len(found)]
        for bound, levels in bounds.items():
            levels += [*(100 * getattr(estimate, bound) if estimate else math.nan for estimate in found), math.nan]
    band: dict[str, Any] = {"color": look.colour, "alpha": 0.18, "linewidth": 0, "gid": look.mark}
    axes.fill_between(places, bounds["low"], bounds["high"], **band)
    style: dict[str, Any] = {"color": look.colour, "linestyle": look.line, "marker": look.marker, "gid": look.mark}
    axes.plot(places, bounds["value"], markersize=2.2, linewidth=1, **style)


def _draw_frames(axes: Axes, spans: list[tuple[float, float]], limit: float) -> None:
    """The left and lower edge of each panel, in place of those of the axes."""
    axes.spines[["left", "bottom"]].set_visible(False)
    for left, right in spans:
        axes.plot([left, left, right], [limit, 0, 0], color=INK, linewidth=0.6, clip_on=False, zorder=3)


def _write(axes: Axes, text: str, place: float, edge: float, offset: float, side: str) -> None:
    axes.annotate(
        text,
        (place, edge),
        xycoords=axes.get_xaxis_transform(),
        xytext=(0, offset),
        textcoords="offset points",
        ha="center",
        va=side,
        color=INK,
    )
