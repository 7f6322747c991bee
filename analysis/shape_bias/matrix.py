"""Error consistency between all observers as a heat map: who errs on the same images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from analysis.captions import list_counts
from analysis.layout import (
    INK,
    LINE,
    MARGIN,
    ON_DARK,
    ON_LIGHT,
    PAGE_WIDTHS,
    RIGHT,
    STYLE,
    TOP,
    WIDE_CHARACTER,
    Canvas,
    wrap_items,
    wrap_label,
)
from analysis.shape_bias.figures import describe_protocol
from analysis.shape_bias.numbers import POOLED, ShapeBias
from pixmim_eval.types import Estimate

WITH_PEOPLE = "people (mean)"
COLOURS = colormaps["viridis"]
MOST = 24  # columns of one page
NAMES = {1: 0.95, 2: 1.7}  # greatest width of the names, where there are more than FEW columns
FEW = 8
CELL, NARROW, WIDE = 0.17, 0.235, 0.42  # inches: height of a cell; width that a number needs; greatest width
BAR = 0.09


def draw_consistency(bias: ShapeBias, *, columns: int = 2) -> list[Figure]:
    """Kappa of every pair, names on the left and their numbers above; no figure where no row has one.

    Args:
        bias: the numbers.
        columns: width of the figures, one (3.4 in) or two (7 in) columns of a page.
    """
    names = order_names(bias)
    everyone = {**bias.kappas, **{(name, WITH_PEOPLE): found for name, found in bias.kappas_people.items()}}
    if not everyone:
        return []
    table = {**{(other, name): found for (name, other), found in bias.kappas.items()}, **everyone}
    heads = [name for name in [*names, WITH_PEOPLE] if any((other, name) in table for other in names)]
    rows = [name for name in names if any((name, other) in table for other in heads)]
    scale = _choose_scale([*table.values()])
    with rc_context(STYLE):
        return [_draw_page(bias, table, rows, part, names, scale, columns) for part in wrap_items(heads, MOST)]


def order_names(bias: ShapeBias) -> list[str]:
    """Models and networks, then people by name, the pooled ones last, then names that only columns have."""
    known = [subject.label for subject in bias.subjects] + [person.name for person in bias.persons]
    known += [POOLED] if bias.people else []
    others = {name for _, name in bias.kappas} - {*known}
    return [*known, *sorted(others)]


def _choose_scale(found: Sequence[Estimate]) -> Normalize:
    values = [estimate.value for estimate in found if math.isfinite(estimate.value)]
    return Normalize(min(0.0, math.floor(10 * min(values)) / 10), max(math.ceil(10 * max(values)) / 10, 0.1))


def _draw_page(
    bias: ShapeBias,
    table: dict[tuple[str, str], Estimate],
    rows: Sequence[str],
    heads: Sequence[str],
    names: Sequence[str],
    scale: Normalize,
    columns: int,
) -> Figure:
    width = PAGE_WIDTHS[columns]
    numbers = {name: str(place) for place, name in enumerate(names, start=1)} | {WITH_PEOPLE: "mean"}
    widest = 1.6 if len(heads) <= FEW else NAMES[columns]
    said = {name: "people, among each other" if name == POOLED else name for name in rows}
    lines = {name: wrap_label(f"{numbers[name]}  {said[name]}", widest) for name in rows}
    left = MARGIN + 0.05 + min(max(len(line) for label in lines.values() for line in label) * WIDE_CHARACTER, widest)
    room = width - left - RIGHT
    mean = 0.34 if WITH_PEOPLE in heads else 0.0
    cell = min((room - mean) / max(len(heads) - bool(mean), 1), WIDE)
    widths = [mean if name == WITH_PEOPLE else cell for name in heads]
    tops, cursor = [], TOP + 0.34
    for name in rows:
        tops.append(cursor)
        cursor += max(CELL, len(lines[name]) * LINE + 0.04)
    canvas = Canvas(width, cursor + BAR + 0.52, _describe(bias, table, rows, heads))
    axes = canvas.add_axes(0, 0, width, cursor)
    axes.set_xlim(0, width)
    axes.set_ylim(cursor, 0)
    axes.set_axis_off()
    edges = [left + sum(widths[:place]) for place in range(len(widths) + 1)]
    for name, head, tail in zip(rows, tops, [*tops[1:], cursor], strict=True):
        axes.text(
            left - 0.05, (head + tail) / 2, "\n".join(lines[name]), ha="right", va="center", linespacing=1.1, color=INK
        )
        _draw_row(axes, [table.get((name, other)) for other in heads], edges, (head, tail), scale)
    for place, (name, start, end) in enumerate(zip(heads, edges, edges[1:], strict=False)):
        if name != WITH_PEOPLE and cell < 0.15 and place % 2:
            continue  # every second number, where there is no room for all
        axes.text((start + end) / 2, TOP + 0.32, numbers[name], ha="center", va="bottom", color=INK)
    if mean:
        axes.text(edges[-1], TOP + 0.2, "people,", ha="right", va="bottom", color=INK)
    _add_bar(canvas, scale, left, cursor + 0.1)
    return canvas.figure


def _draw_row(
    axes: Axes, found: Sequence[Estimate | None], edges: Sequence[float], span: tuple[float, float], scale: Normalize
) -> None:
    for estimate, start, end in zip(found, edges, edges[1:], strict=False):
        fill = COLOURS(float(scale(estimate.value))) if estimate else (0.95, 0.95, 0.95, 1.0)
        axes.fill_between([start, end], *span, facecolor=fill, edgecolor="white", linewidth=0.4)
        if estimate and end - start >= NARROW:
            light = sum(weight * level for weight, level in zip((0.299, 0.587, 0.114), fill, strict=False)) >= 0.5
            text = f"{estimate.value:.2f}".replace("-0.", "−.").removeprefix("0")
            middle = (start + end) / 2, sum(span) / 2
            axes.text(*middle, text, ha="center", va="center_baseline", color=ON_LIGHT if light else ON_DARK)


def _add_bar(canvas: Canvas, scale: Normalize, left: float, top: float) -> None:
    axes = canvas.add_axes(left, top, min(1.6, canvas.width - left - RIGHT), BAR)
    bar: Any = canvas.figure.colorbar(ScalarMappable(scale, COLOURS), cax=axes, orientation="horizontal")
    bar.outline.set_linewidth(0.4)
    bar.set_ticks([scale.vmin, scale.vmax])
    axes.tick_params(length=2, pad=2)
    bar.set_label("error consistency (κ)", labelpad=1.5)


def _describe(
    bias: ShapeBias, table: dict[tuple[str, str], Estimate], rows: Sequence[str], heads: Sequence[str]
) -> str:
    found = [table[name, other] for name in rows for other in heads if (name, other) in table]
    half = np.median([(estimate.high - estimate.low) / 2 for estimate in found])
    pieces = [f"Data: {bias.dataset}; n = {list_counts(estimate.n for estimate in found)} images a pair."]
    pieces += [*describe_protocol(bias), "κ: 1 where two are right and wrong on the same images, 0 where as by chance."]
    pieces.append(f"95 % intervals: ± {half:.2f} (median); each stands in the table of scores.")
    if WITH_PEOPLE in heads:
        pieces.append("Last column: mean over people.")
    return " ".join(pieces)
