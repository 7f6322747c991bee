"""Draws figures from finished numbers: nothing is computed here but positions on the page."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.captions import describe_chance, describe_data, describe_intervals, describe_metric, name_column
from analysis.groups import Group, split_groups
from analysis.layout import (
    FAINT,
    HUES,
    INK,
    LEFT,
    PAGE_WIDTHS,
    RIGHT,
    STYLE,
    BarLine,
    Look,
    Page,
    choose_looks,
    wrap_items,
    wrap_label,
)
from analysis.statistics import Column, Robustness, summarise_robustness
from pixmim_eval.errors import InputError
from pixmim_eval.results import write_atomic

MAX_MODELS = len(HUES)
LIMITS = (10, 20, 30, 40, 50, 75, 100)  # upper ends of an axis in per cent


def write_figures(rows: pd.DataFrame, out: Path, *, columns: int = 2) -> list[Path]:
    """Writes the robustness figure of each group of comparable rows as PNG and PDF.

    Args:
        rows: result rows of any number of runs.
        out: the reports folder; files go to out/figures.
        columns: width of the figure, one or two columns of a page.

    Returns:
        The files written.
    """
    written = []
    pages = [page for found in split_groups(rows, "robustness") for page in split_pages(found)]
    for group in pages:
        figure = draw_robustness(summarise_robustness(group), columns=columns)
        stem = "-".join(part for part in ("robustness", group.suffix, "one-column" if columns == 1 else "") if part)
        # Without dates and versions the same rows give the same bytes.
        for ending, metadata in (("png", {"Software": None}), ("pdf", {"CreationDate": None})):
            buffer = io.BytesIO()
            with matplotlib.rc_context(STYLE):
                figure.savefig(buffer, format=ending, dpi=200, metadata=metadata)
            path = out / "figures" / f"{stem}.{ending}"
            write_atomic(path, buffer.getvalue())
            written.append(path)
    return written


def split_pages(group: Group) -> list[Group]:
    """The group in figures of as many models as can be told apart, "part-1", "part-2", …; itself where it is small."""
    count = len(group.subjects)
    if count <= MAX_MODELS:
        return [group]
    pages = []
    for number, start in enumerate(range(0, count, MAX_MODELS), start=1):
        subjects = group.subjects[start : start + MAX_MODELS]
        rows = group.rows[group.rows["subject"].between(start, start + len(subjects) - 1)]
        rows = rows.assign(subject=rows["subject"] - start)
        suffix = "-".join(part for part in (group.suffix, f"part-{number}") if part)
        pages.append(replace(group, suffix=suffix, subjects=subjects, rows=rows))
    return pages


def draw_robustness(robustness: Robustness, *, columns: int = 2) -> Figure:
    """Panel a: accuracy on clean images, corruptions and variants as bars; panel b: accuracy against severity.

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
    with matplotlib.rc_context(STYLE):
        looks, top = choose_looks(subjects), _choose_limit(robustness)
        lines = _arrange_bars(robustness, 4 * columns)
        usual = lines[0][1][0].metric
        curve_lines = wrap_items(list(robustness.curves), 3 * columns)
        bars = _measure_bars(lines, usual, PAGE_WIDTHS[columns] - LEFT - RIGHT, len(subjects))
        page = Page(PAGE_WIDTHS[columns], subjects, bars, len(curve_lines), write_caption(robustness))
        for position, (_, line) in enumerate(lines):
            axes = page.add_bars(position)
            _draw_bars(axes, line, looks, bars[position].slot)
            axes.set_ylabel(f"{describe_metric(usual)} (%)")
            _finish_scale(axes, top)
        for row, names in enumerate(curve_lines):
            for place, name in enumerate(names):
                axes = page.add_curve(row, place, max(len(curve_lines[0]), 2 * columns))
                _draw_curve(axes, robustness.curves[name], looks)
                _finish_scale(axes, top)
                axes.set_title(name.replace("_", " "), pad=3, color=INK)
                _label_curve(axes, place == 0, row == len(curve_lines) - 1 or place >= len(curve_lines[row + 1]))
        if curve_lines:
            page.add_letters()
        page.add_legend(looks, describe_chance([column for _, line in lines for column in line]))
        page.add_caption()
        return page.figure


def write_caption(robustness: Robustness) -> str:
    """The text under the figure: data, number of images, protocol, and what the intervals are."""
    pieces = [*describe_data(robustness), "Whiskers and bands: 95 % intervals.", *describe_intervals(robustness)]
    if robustness.means:
        pieces.append(f"All corruptions: 100 − {' or 100 − '.join(column.name for column in robustness.means)}.")
    return " ".join(pieces)


def _choose_limit(robustness: Robustness) -> float:
    """The common upper end of all axes in per cent, above every interval."""
    curves = (column for curve in robustness.curves.values() for column in curve)
    columns = (*robustness.plain_columns, *robustness.corruptions, *curves)
    highest = max((100 * found.high for column in columns for found in column.estimates if found), default=100)
    return next((limit for limit in LIMITS if limit >= highest), 100)


def _arrange_bars(robustness: Robustness, longest: int) -> list[tuple[str, tuple[Column, ...]]]:
    """Lines of columns with a title over the first of each section; a single section where all fits on one line."""
    plain, corruptions = robustness.plain_columns, robustness.corruptions
    if len(plain) + len(corruptions) <= longest:
        return [("", (*plain, *corruptions))]
    kinds = {"clean": "clean", "summary": "mean of all corruptions", "variant": "variants"}
    title = ", ".join(dict.fromkeys(kinds[column.kind] for column in plain))
    sections = ((title[:1].upper() + title[1:], plain), ("Each corruption (mean over severities 1–5)", corruptions))
    return [
        (title if position == 0 else "", line)
        for title, found in sections
        for position, line in enumerate(wrap_items(found, longest))
    ]


def _measure_bars(
    lines: list[tuple[str, tuple[Column, ...]]], usual_metric: str, width: float, models: int
) -> list[BarLine]:
    measured: list[BarLine] = []
    longest = 1
    for position, (title, line) in enumerate(lines):
        # The lines of one section keep the slots of its first.
        longest = len(line) if title or position == 0 else longest
        slot = min(width / longest, 0.32 * models + 0.7)
        measured.append(BarLine(title, tuple(_label_bars(column, usual_metric, slot) for column in line), slot))
    return measured


def _label_bars(column: Column, usual_metric: str, slot: float) -> str:
    """What stands under a group of bars, broken to its width."""
    return "\n".join(
        line for part in name_column(column, usual_metric) if part for line in wrap_label(part, slot - 0.04)
    )


def _draw_bars(axes: Axes, line: tuple[Column, ...], looks: list[Look], slot: float) -> None:
    step = min(0.84 / len(looks), 0.3 / slot)
    cap = min(1.6, 0.25 * step * slot * 72)
    for position, look in enumerate(looks):
        shift = (position - (len(looks) - 1) / 2) * step
        found = [(place + shift, column.estimates[position]) for place, column in enumerate(line)]
        for centre in (centre for centre, estimate in found if estimate is None):
            axes.text(centre, 1.5, "missing", rotation=90, ha="center", va="bottom", color=FAINT)
        known = [(centre, estimate) for centre, estimate in found if estimate is not None]
        centres, values = [centre for centre, _ in known], [100 * estimate.value for _, estimate in known]
        axes.bar(
            centres, values, 0.9 * step, color=look.colour, hatch=look.hatch, edgecolor="white", linewidth=0, zorder=2
        )
        below = [max(100 * (estimate.value - estimate.low), 0) for _, estimate in known]
        above = [max(100 * (estimate.high - estimate.value), 0) for _, estimate in known]
        # A white whisker below the dark one, which would be lost on a dark bar.
        for colour, thick, order in (("white", 1.9, 3), (INK, 0.7, 4)):
            axes.errorbar(
                centres,
                values,
                [below, above],
                fmt="none",
                ecolor=colour,
                elinewidth=thick,
                capsize=cap + thick / 4,
                capthick=thick,
                zorder=order,
            )
    for place, column in enumerate(line):
        if column.chance is not None:
            level = 100 * column.chance
            axes.hlines(level, place - 0.47, place + 0.47, colors=INK, linestyles=":", linewidth=0.9, zorder=5)


def _draw_curve(axes: Axes, curve: tuple[Column, ...], looks: list[Look]) -> None:
    severities = range(len(curve))
    for position, look in enumerate(looks):
        found = [column.estimates[position] for column in curve]
        values, lows, highs = (
            [100 * getattr(estimate, bound) if estimate else math.nan for estimate in found]
            for bound in ("value", "low", "high")
        )
        axes.fill_between(severities, lows, highs, color=look.colour, alpha=0.18, linewidth=0)
        axes.plot(
            severities, values, color=look.colour, linestyle=look.line, marker=look.marker, markersize=2.2, linewidth=1
        )
    if curve[1].chance is not None:
        axes.axhline(100 * curve[1].chance, color=INK, linestyle=":", linewidth=0.9)
    axes.set_xlim(-0.3, len(curve) - 0.7)
    axes.set_xticks(severities)
    axes.tick_params(axis="x", length=2, pad=2)


def _label_curve(axes: Axes, leftmost: bool, lowest: bool) -> None:
    if leftmost:
        axes.set_ylabel("top-1 (%)")
    else:
        axes.tick_params(axis="y", labelleft=False)
    if lowest:
        axes.set_xlabel("severity", labelpad=1.5)


def _finish_scale(axes: Axes, top: float) -> None:
    axes.set_ylim(0, top)
    axes.set_yticks(range(0, int(top) + 1, 25 if top > 50 else 10 if top > 10 else 5))
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.5)
    axes.set_axisbelow(True)
