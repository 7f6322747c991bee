"""The figure of an ablation: numbers over the radius of the low-pass filter, over crops, or of PixMIM's two parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from analysis.ablation.arms import CROPS
from analysis.ablation.numbers import Ablation, ArmPanel, ArmPoint, find_base
from analysis.ablation.tables import TITLES, name_value
from analysis.captions import list_counts
from analysis.columns import find_direction
from analysis.layout import (
    FAINT,
    GRID,
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
    mark_artists,
    wrap_items,
    wrap_label,
)
from analysis.report.parts import Plot
from analysis.subjects import Subject

PUBLISHED = 40 / 112  # of Nyquist: the radius of PixMIM (arXiv 2303.02416) at 224 px
GAP = 0.55  # inches between panels side by side
HEIGHT = 1.5  # of a panel
FOOT, HEAD = 0.42, 0.28  # below and above a panel: ticks and names of its lower and its upper axis
ROWS = 4  # lines of panels of one page
DODGE = 0.09  # between series at one crop, of the distance between crops
TICK = 0.24  # inches that the label of a tick needs
NO_FILTER, HELD, PUBLISHED_R = "no filter", "above what images hold", "published r (40 of 112)"


@dataclass(frozen=True)
class _Series:
    """What is drawn as one line: a family, or in "components" a family with one of the two targets."""

    subject: Subject
    family: int
    target: str | None

    def list_points(self, panel: ArmPanel) -> list[ArmPoint]:
        """Its points in a panel."""
        own = [point for point in panel.points if point.family == self.family]
        return [point for point in own if self.target in (None, point.arm.target)]


def plot_ablation(ablation: Ablation, columns: int) -> list[Plot]:
    """The figure, in pages where it has many panels; see draw_ablation."""
    plots = []
    pages = wrap_items(ablation.panels, columns * ROWS)
    for number, panels in enumerate(pages, start=1):
        part = f"-part-{number}" if len(pages) > 1 else ""
        stem = f"ablation-{ablation.name}{part}{'-one-column' * (columns == 1)}"
        figure = draw_ablation(ablation, panels, columns=columns)
        plots.append(Plot(stem, f"{TITLES[ablation.name]}{part.replace('-', ' ')}", figure, str(figure.get_label())))
    return plots


def draw_ablation(ablation: Ablation, panels: Sequence[ArmPanel], *, columns: int = 2) -> Figure:
    """A panel a metric: every arm with its interval.

    The radius stands on two axes, in cycles per image and as a fraction of Nyquist of the images trained on.

    Args:
        ablation: the numbers.
        panels: those of this page.
        columns: width of the figure, one (3.4 in) or two (7 in) columns of a page.
    """
    with rc_context(STYLE):
        width, series = PAGE_WIDTHS[columns], _list_series(ablation)
        looks = choose_looks(tuple(one.subject for one in series))
        ceiling = max(ablation.ceilings)
        legend = Legend(width, tuple(one.subject for one in series), _explain(ablation, panels, ceiling))
        lines = wrap_items(panels, columns)
        side = len(lines[0])
        room = (width - LEFT - RIGHT - GAP * (side - 1)) / side
        titles = {id(panel): wrap_label(panel.title, room) for panel in panels}
        cursor, tops = TOP + legend.height + 0.06, []
        for line in lines:
            deepest = max(len(titles[id(panel)]) for panel in line)
            cursor += TITLE + (deepest - 1) * LINE + (HEAD if ablation.name == "bandwidth" else 0)
            tops.append(cursor)
            cursor += HEIGHT + FOOT
        canvas = Canvas(width, cursor + 0.02, write_caption(ablation, panels, ceiling))
        for line, top in zip(lines, tops, strict=True):
            for place, panel in enumerate(line):
                axes = canvas.add_axes(LEFT + place * (room + GAP), top, room, HEIGHT)
                _draw_panel(axes, ablation, panel, list(zip(series, looks, strict=True)), ceiling, room)
                above = 0.06 + (HEAD if ablation.name == "bandwidth" else 0)
                heading: dict[str, Any] = {"va": "bottom", "color": INK, "transform": axes.transAxes}
                axes.text(0, 1 + above / HEIGHT, "\n".join(titles[id(panel)]), **heading)
        canvas.add_legend(legend, looks)
        return canvas.figure


def write_caption(ablation: Ablation, panels: Sequence[ArmPanel], ceiling: float) -> str:
    """The text under the figure: data, number of images, and how it is to be read."""
    sets = ", ".join(dict.fromkeys(panel.setting["dataset"] for panel in panels))
    points = [point for panel in panels for point in panel.points]
    sizes = " and ".join(f"{size} px" for size in sorted({*ablation.image_sizes}))
    epochs = sorted({point.subject.epoch for point in points if point.subject.epoch is not None})
    trained = f", {list_counts(epochs)} epoch{'s' if epochs != [1] else ''}" if epochs else ""
    pieces = [
        f"{TITLES[ablation.name]}. Data: {sets}; n = {list_counts(point.estimate.n for point in points)}.",
        f"Pretrained at {sizes}{trained}; the arms of a line differ in nothing else. Whiskers: 95 % intervals.",
    ]
    if ablation.name == "components":
        radii = sorted({(point.arm.radius, ablation.image_sizes[point.family]) for point in points if point.arm.radius})
        shares = [f"r = {radius:g} cycles per image, {radius / (size / 2):.2g} of Nyquist" for radius, size in radii]
        pieces.append(f"Low frequencies: {' or '.join(shares)}.")
    if ablation.name == "bandwidth":
        nyquist = ablation.image_sizes[0] / 2
        pieces.append(
            f"Upper axis: r as a fraction of Nyquist, the {nyquist:g} cycles along a side that {sizes} can hold; "
            f"published: 40 of 112. {NO_FILTER.capitalize()}: all frequencies are the target; band: its 95 % interval."
        )
        if _reaches(panels, ceiling):
            pieces.append(
                f"Shaded: images of {2 * ceiling:g} px hold nothing above {ceiling:g} cycles along a side, and less if "
                "they were enlarged; a filter there takes hardly anything away."
            )
    return " ".join(pieces)


def _reaches(panels: Sequence[ArmPanel], ceiling: float) -> bool:
    return any((point.arm.radius or 0) >= ceiling for panel in panels for point in panel.points)


def _explain(ablation: Ablation, panels: Sequence[ArmPanel], ceiling: float) -> dict[str, Any]:
    """What the legend of a bandwidth figure shows besides the families."""
    if ablation.name != "bandwidth":
        return {}
    published = {PUBLISHED_R: Line2D([], [], color=INK, linestyle=":", linewidth=0.9)}
    plain = {NO_FILTER: Line2D([], [], color=INK, linestyle="-.", linewidth=0.9)}
    shade = {HELD: Patch(facecolor=GRID, edgecolor=FAINT, hatch="\\\\\\", linewidth=0)}
    has_plain = any(point.arm.radius is None for panel in panels for point in panel.points)
    return {**(plain if has_plain else {}), **published, **(shade if _reaches(panels, ceiling) else {})}


def _list_series(ablation: Ablation) -> list[_Series]:
    series = []
    for number, label in enumerate(ablation.families):
        if ablation.name != "components":
            series.append(_Series(_stand_for(label, "", number), number, None))
            continue
        for target, name, method in (("normalised", "all frequencies", ""), ("lowfreq", "low frequencies", "pixmim-")):
            series.append(_Series(_stand_for(f"{label}, {name}", method, number), number, target))
    return series


def _stand_for(label: str, method: str, family: int) -> Subject:
    """A subject by which a line gets its look."""
    return Subject(label, "", label, "", f"{method}line", None, 0, family, "")


def _draw_panel(
    axes: Axes,
    ablation: Ablation,
    panel: ArmPanel,
    series: Sequence[tuple[_Series, Look]],
    ceiling: float,
    room: float,
) -> None:
    scale = 100.0 if panel.unit == "fraction" else 1.0
    band = ablation.name == "bandwidth"
    for number, (one, look) in enumerate(series):
        points = one.list_points(panel)
        base = find_base(points, ablation.name, one.family) if band else None
        if base:
            _draw_reference(axes, base, look, scale)
        shift = 0.0 if band else (number - (len(series) - 1) / 2) * DODGE
        placed = [(point.arm.radius if band else CROPS.index(point.arm.crop) + shift, point) for point in points]
        _draw_line(axes, [(place, point) for place, point in placed if place is not None], look, scale)
    axes.margins(y=0.1)
    less = ", less is better" if find_direction(panel.setting["metric"]) < 0 else ""
    axes.set_ylabel(f"{name_value(panel)}{less}")
    low, high = axes.get_ylim()
    ticks = MaxNLocator(5, steps=(1, 2, 2.5, 5, 10)).tick_values(low, high)
    axes.set_yticks([tick for tick in ticks if low <= tick <= high])
    axes.set_ylim(low, high)
    axes.grid(axis="y", color=GRID, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.tick_params(length=2, pad=2)
    if band:
        _finish_radius(axes, panel, ablation.image_sizes[0] / 2, ceiling, room)
    else:
        places = sorted({CROPS.index(point.arm.crop) for point in panel.points})
        axes.set_xlim(places[0] - 0.5, places[-1] + 0.5)
        axes.set_xticks(places, [CROPS[place].upper() for place in places])
        axes.set_xlabel("crop of pretraining")


def _draw_line(axes: Axes, placed: Sequence[tuple[float, ArmPoint]], look: Look, scale: float) -> None:
    """Points with their intervals, and a thin line through them."""
    if not placed:
        return
    found = [point.estimate for _, point in placed]
    values = [scale * estimate.value for estimate in found]
    lengths = [
        [scale * max(estimate.value - estimate.low, 0) for estimate in found],
        [scale * max(estimate.high - estimate.value, 0) for estimate in found],
    ]
    style: dict[str, Any] = {"color": look.colour, "linestyle": look.line, "marker": look.marker, "markersize": 3.4}
    drawn = axes.errorbar(
        [place for place, _ in placed], values, lengths, linewidth=0.9, elinewidth=0.8, capsize=1.6, **style
    )
    mark_artists(drawn, look.mark)


def _draw_reference(axes: Axes, base: ArmPoint, look: Look, scale: float) -> None:
    """The arm without a filter, which has no radius, as a level with its interval."""
    found = base.estimate
    own: dict[str, Any] = {"color": look.colour, "gid": look.mark}
    axes.axhspan(scale * found.low, scale * found.high, alpha=0.15, linewidth=0, zorder=0.8, **own)
    axes.axhline(scale * found.value, linestyle="-.", linewidth=0.9, zorder=0.9, **own)


def _finish_radius(axes: Axes, panel: ArmPanel, nyquist: float, ceiling: float, room: float) -> None:
    """Cycles per image below, fractions of Nyquist above, the published radius, and a shade over what images lack."""
    radii = sorted({point.arm.radius for point in panel.points if point.arm.radius})
    axes.set_xscale("log", base=2)
    left, right = min(*radii, PUBLISHED * nyquist) / 1.25, max(*radii, PUBLISHED * nyquist) * 1.25
    axes.set_xlim(left, right)
    axes.axvline(PUBLISHED * nyquist, color=INK, linestyle=":", linewidth=0.9, zorder=0.7)
    if radii[-1] >= ceiling:
        shade: dict[str, Any] = {"facecolor": GRID, "edgecolor": FAINT, "hatch": "\\\\\\", "linewidth": 0}
        axes.axvspan(ceiling, right, zorder=0.4, **shade)
    ticks = _thin(radii, left, right, room)
    upper = axes.secondary_xaxis("top")
    for scale, labels in ((axes, [f"{tick:.3g}" for tick in ticks]), (upper, [f"{t / nyquist:.2g}" for t in ticks])):
        scale.set_xticks(ticks, labels)
        scale.minorticks_off()
        scale.tick_params(length=2, pad=2)
    axes.set_xlabel("radius r (cycles per image)", labelpad=2)
    upper.set_xlabel("fraction of Nyquist", labelpad=3)
    upper.spines["top"].set_visible(True)
    upper.spines["top"].set_linewidth(0.6)


def _thin(radii: Sequence[float], left: float, right: float, room: float) -> list[float]:
    """Those of ascending radii, on a logarithmic axis, whose labels have room; the last always."""
    kept = [radii[-1]]
    least = (right / left) ** (TICK / room)
    for radius in reversed(radii):
        if radius * least <= kept[-1]:
            kept.append(radius)
    return kept[::-1]
