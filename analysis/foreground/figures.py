"""Figures of what crops and masks leave of the object, and of accuracies beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from analysis.foreground.numbers import (
    DEFINITIONS,
    PUBLISHED,
    PUBLISHED_MASKED,
    PUBLISHED_NOTE,
    Foreground,
    find_crop,
    has_low_frequency_target,
)
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
    mark_artists,
    wrap_label,
)
from analysis.report.parts import mark_method
from pixmim_eval.types import Estimate

HEIGHT, GAP, FOOT = 1.7, 0.55, 0.42  # inches: a panel, between panels, and below one
PROBE_HEIGHT = 2.3


def draw_overlap(found: Foreground, *, columns: int = 2) -> Figure:
    """Panel a: the share of the object that a crop keeps, with and without a mask; b: its distribution; c: by the size
    of the object; d: by other definitions.

    Args:
        found: of any number of crops; from the ninth on hues repeat.
        columns: width of the figure, one (3.4 in; panels below each other) or two (7 in) columns of a page.
    """
    with rc_context(STYLE):
        width, crops = PAGE_WIDTHS[columns], found.crops
        rows = _arrange_legend(crops, width)
        top = TOP + len(rows) * LINE + TITLE + 0.05
        panel = (width - columns * (LEFT + RIGHT) - (columns - 1) * 0.1) / columns
        step = HEIGHT + FOOT + TITLE
        canvas = Canvas(width, top + (4 // columns) * step - TITLE + 0.06, write_caption(found))
        titles = (
            "a  kept of the object",
            "b  distribution over images and crops",
            "c  by size of the object",
            "d  by definition",
        )
        draws = (_draw_bars, _draw_distribution, _draw_sizes, _draw_definitions)
        for place, (title, draw) in enumerate(zip(titles, draws, strict=True)):
            left = LEFT + (place % columns) * (panel + LEFT + RIGHT + 0.1)
            upper = top + (place // columns) * step
            canvas.add_text(title, left - 0.3, upper - TITLE + 0.02, weight="bold", color=INK)
            axes = canvas.add_axes(left, upper, panel, HEIGHT)
            draw(axes, found)
            axes.grid(axis="y", color=GRID, linewidth=0.5)
            axes.set_axisbelow(True)
        _add_legend(canvas, found, rows)
        return canvas.figure


def draw_against_probe(found: Foreground, rows: pd.DataFrame, *, columns: int = 2) -> Figure | None:
    """Linear-probe accuracy against what a method's crop keeps: a point a model; None where there are no such models.

    Args:
        found: overlaps of some crops.
        rows: ResultRow columns; those of the suite linear_probe count.
        columns: width of the figure.
    """
    probed = rows[(rows["suite"] == "linear_probe") & rows["metric"].isin(["top1", "top1_full1000"])]
    points: list[tuple[Any, Estimate]] = []
    for row in probed.itertuples():
        crop = find_crop(str(row.method))
        kept = found.found.get((crop, "overlap_union")) if crop else None
        if kept is not None:
            points.append((row, kept))
    if not points:
        return None
    sets = ", ".join(dict.fromkeys(str(row.dataset) for row, _ in points))
    caption = (
        f"Accuracy: linear probes on {sets}; overlap: union of the boxes of {found.dataset}, mean over images, "
        "with the crop of the method’s pretraining. Filled: low-frequency target; hollow: other targets. Bars: 95 % "
        "intervals. Methods differ in more than their crop, so that no line is drawn."
    )
    with rc_context(STYLE):
        width = PAGE_WIDTHS[columns]
        canvas = Canvas(width, TOP + PROBE_HEIGHT + FOOT + 0.06, caption)
        axes = canvas.add_axes(LEFT, TOP + 0.05, width - LEFT - RIGHT, PROBE_HEIGHT)
        hues = {crop: HUES[place % len(HUES)] for place, crop in enumerate(found.crops)}
        models = list(dict.fromkeys(str(row.model) for row, _ in points))
        for row, kept in points:
            colour = hues[find_crop(str(row.method)) or ""]
            error = [[100 * (row.value - row.low)], [100 * (row.high - row.value)]]
            across = [[100 * (kept.value - kept.low)], [100 * (kept.high - kept.value)]]
            face = colour if has_low_frequency_target(str(row.method)) else "white"
            style: dict[str, Any] = {"color": colour, "markerfacecolor": face, "markersize": 4.5, "linewidth": 0.9}
            mark = mark_method(str(row.model), models.index(str(row.model)))
            mark_artists(
                axes.errorbar(100 * kept.value, 100 * row.value, yerr=error, xerr=across, fmt="o", **style), mark
            )
            beyond = 100 * kept.value > 85
            axes.annotate(
                "\n".join(wrap_label(str(row.model), 1.5)[:4]),
                (100 * kept.value, 100 * row.value),
                xytext=(-5 if beyond else 5, 3),
                textcoords="offset points",
                ha="right" if beyond else "left",
                color=INK,
                gid=mark,
            )
        axes.set_xlim(right=102, left=min(100 * kept.value for _, kept in points) - 8)
        axes.margins(y=0.15)
        axes.grid(color=GRID, linewidth=0.5)
        axes.set_axisbelow(True)
        axes.set_xlabel("kept of the object (%)")
        axes.set_ylabel("linear probe, top-1 (%)")
        return canvas.figure


def write_caption(found: Foreground) -> str:
    """What the panels show, of which data."""
    counts = sorted({found.found[crop, "overlap_union"].n for crop in found.crops})
    images = "–".join(f"{count:,}" for count in dict.fromkeys((counts[0], counts[-1])))
    known = found.is_imagenet and any(crop in PUBLISHED for crop in found.crops)
    return (
        f"Data: {found.dataset}; n = {images} images with boxes. Protocol: "
        + ", ".join(f"{key}={value}" for key, value in sorted(found.protocol.items()))
        + ". Area of the object in the crop over area of the object. a: expectation over the crop, mean over images, "
        f"of the union of boxes; hatched: in visible patches, with {found.mask} % masked. b: share of images and crops "
        f"that keep at most this; dashed: in visible patches. c: as a, by the share of the image that is object. "
        "95 % intervals over images." + (f" Dotted: {PUBLISHED_NOTE}" if known else "")
    )


def _hue(found: Foreground, crop: str) -> str:
    return HUES[found.crops.index(crop) % len(HUES)]


def _mark(found: Foreground, crop: str) -> str:
    return mark_method(crop, found.crops.index(crop))


def _draw_bars(axes: Axes, found: Foreground) -> None:
    """A bar a crop, and one with the mask."""
    for place, crop in enumerate(found.crops):
        mark = _mark(found, crop)
        names = ("overlap_union", f"overlap_union_masked{found.mask}")
        for shift, metric, published in ((-0.2, names[0], PUBLISHED), (0.2, names[1], PUBLISHED_MASKED)):
            number = found.found[crop, metric]
            style: dict[str, Any] = {"hatch": "////", "edgecolor": "white", "linewidth": 0} if shift > 0 else {}
            axes.bar(place + shift, 100 * number.value, 0.38, color=_hue(found, crop), gid=mark, **style)
            error = [[100 * (number.value - number.low)], [100 * (number.high - number.value)]]
            whiskers: dict[str, Any] = {"fmt": "none", "ecolor": INK, "elinewidth": 0.8}
            mark_artists(axes.errorbar(place + shift, 100 * number.value, yerr=error, **whiskers), mark)
            top = 100 * number.high
            if crop in published and found.is_imagenet and (shift < 0 or found.mask == "75"):
                top = max(top, 100 * published[crop])
                ends = (place + shift - 0.19, place + shift + 0.19)
                axes.hlines(100 * published[crop], *ends, colors=INK, linestyles=":", linewidth=1.1, gid=mark)
            beside: dict[str, Any] = {"xytext": (0, 1.5), "textcoords": "offset points", "ha": "center", "gid": mark}
            axes.annotate(f"{100 * number.value:.1f}", (place + shift, top), **beside)
    axes.set_xticks(range(len(found.crops)), ["\n".join(wrap_label(crop, 0.5)) for crop in found.crops])
    for label, crop in zip(axes.get_xticklabels(), found.crops, strict=True):
        label.set_gid(_mark(found, crop))
    axes.tick_params(axis="x", length=0)
    axes.set_ylim(0, 112)
    axes.set_yticks(range(0, 101, 25))
    axes.set_ylabel("kept (%)")


def _draw_distribution(axes: Axes, found: Foreground) -> None:
    """Share of images and crops below each overlap, from the quantiles of the rows."""
    lines = (("overlap_union", "-"), (f"overlap_union_patches{found.mask}", (0, (3, 1.2))))
    for crop in found.crops:
        for metric, line in lines:
            numbers = found.list_numbers(crop, f"{metric}_quantile/")
            levels, values = [100 * float(name) for name, _ in numbers], [100 * number.value for _, number in numbers]
            if numbers:
                axes.plot(values, levels, color=_hue(found, crop), ls=line, linewidth=1, gid=_mark(found, crop))
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    axes.set_yticks(range(0, 101, 25))
    axes.set_xlabel("kept of the object (%)")
    axes.set_ylabel("images and crops (%)")


def _draw_sizes(axes: Axes, found: Foreground) -> None:
    """Overlap in classes of the object's size."""
    for crop in found.crops:
        numbers = [(name.split("-"), number) for name, number in found.list_numbers(crop, "overlap_union_size/")]
        middles = [50 * (float(low) + float(high)) for (low, high), _ in numbers]
        bounds = np.array([(number.low, number.high) for _, number in numbers]).reshape(-1, 2)
        own: dict[str, Any] = {"color": _hue(found, crop), "gid": _mark(found, crop)}
        axes.fill_between(middles, *(100 * bounds.T), alpha=0.18, linewidth=0, **own)
        values = [100 * number.value for _, number in numbers]
        axes.plot(middles, values, marker="o", markersize=2.4, linewidth=1, **own)
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 105)
    axes.set_yticks(range(0, 101, 25))
    axes.set_xlabel("object, share of the image (%)")
    axes.set_ylabel("kept (%)")


def _draw_definitions(axes: Axes, found: Foreground) -> None:
    """The same crops by each definition."""
    known = [name for name in DEFINITIONS if any((crop, name) in found.found for crop in found.crops)]
    for place, crop in enumerate(found.crops):
        shift = 0.1 * (place - (len(found.crops) - 1) / 2)
        for position, metric in enumerate(known):
            number = found.found.get((crop, metric))
            if number:
                error = [[100 * (number.value - number.low)], [100 * (number.high - number.value)]]
                style: dict[str, Any] = {"color": _hue(found, crop), "markersize": 2.6, "elinewidth": 0.8}
                drawn = axes.errorbar(position + shift, 100 * number.value, yerr=error, fmt="o", **style)
                mark_artists(drawn, _mark(found, crop))
    slot = axes.bbox.width / axes.figure.dpi / max(len(known), 1)
    axes.set_xticks(range(len(known)), ["\n".join(wrap_label(DEFINITIONS[name], slot)) for name in known])
    axes.set_xlim(-0.5, len(known) - 0.5)
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("kept (%)")


def _arrange_legend(crops: list[str], width: float) -> list[list[str]]:
    """Crops in lines of the legend."""
    abreast = max(1, int((width - LEFT) / 0.95))
    return [crops[start : start + abreast] for start in range(0, len(crops), abreast)]


def _add_legend(canvas: Canvas, found: Foreground, rows: list[list[str]]) -> None:
    drawn = canvas.figure.legend(
        [Patch(facecolor=_hue(found, crop)) for crop in found.crops],
        ["-"] * len(found.crops),
        loc="upper left",
        bbox_to_anchor=(0.06 / canvas.width, 1 - TOP / canvas.height),
        ncols=max(len(row) for row in rows),
        frameon=False,
        borderaxespad=0,
        borderpad=0,
        handlelength=1.2,
        columnspacing=1.4,
        labelspacing=0.3,
    )
    for text, handle, crop in zip(drawn.get_texts(), drawn.legend_handles, found.crops, strict=True):
        text.set_text(crop)  # only now: matplotlib before 3.10 leaves out entries that begin with an underscore
        text.set_gid(_mark(found, crop))
        if handle:
            handle.set_gid(_mark(found, crop))
