"""How figures look and where their parts go on the page: sizes in inches, type in points."""

from __future__ import annotations

import colorsys
import math
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.container import Container
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis.report.parts import mark_method
from analysis.subjects import Subject
from pixmim_eval.types import Estimate

# Okabe & Ito's colours, safe for the colour-blind; yellow last, it is weak on white.
HUES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#666666", "#F0E442")
MARKERS = ("o", "^", "D", "v", "P", "X", "<", ">")
INK, FAINT, CAPTION, GRID = "#222222", "#8a8a8a", "#444444", "#e4e4e4"
ON_LIGHT, ON_DARK = "#202020", "#fdfdfd"  # what stands in coloured cells, which are the same on a dark page
CAPTION_MARK = "caption"  # gid of the text under a figure, which a page writes itself
SMALL = 7.0  # points: nothing is set smaller
STYLE: dict[Any, Any] = {
    "font.size": SMALL,
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that the same rows give the same picture anywhere
    "text.parse_math": False,  # a model may be called $x$
    "axes.titlesize": SMALL,
    "axes.labelsize": SMALL,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "hatch.linewidth": 0.7,
    "pdf.fonttype": 42,
}
PAGE_WIDTHS = {1: 3.4, 2: 7.0}  # of one and two columns
WIDE_CHARACTER, CHARACTER = 0.0585, 0.052  # of a short label and of running text at 7 pt
LINE, LABEL_LINE = 0.128, 0.101  # from line to line of text and of a tick label at 7 pt
LEFT, RIGHT, TOP, MARGIN = 0.5, 0.1, 0.06, 0.06
TITLE = 0.2  # from the top of a panel's title to its axes
LIMITS = (10, 20, 30, 40, 50, 75, 100)  # upper ends of an axis in per cent

Item = TypeVar("Item")


@dataclass(frozen=True)
class Look:
    """How one model is drawn everywhere: a PixMIM version is its baseline's hue, darker, hatched and dashed.

    Args:
        label: its name.
        mark: the gid of all that is drawn of it (see report.parts.mark_method).
        colour, hatch, marker, line: as matplotlib calls them.
    """

    label: str
    mark: str
    colour: str
    hatch: str
    marker: str
    line: Literal["-"] | tuple[float, tuple[float, ...]]


def choose_looks(subjects: tuple[Subject, ...]) -> list[Look]:
    """A hue for each family; the PixMIM version of a pair is darker, hatched and dashed."""
    families = list(dict.fromkeys(subject.family for subject in subjects))
    looks = []
    for number, subject in enumerate(subjects):
        named = subject.label, mark_method(subject.label, number)
        place = families.index(subject.family)
        paired = sum(other.family == subject.family for other in subjects) > 1
        if paired and subject.is_pixmim:
            looks.append(Look(*named, darken(HUES[place]), "////", "s", (0, (3, 1.2))))
        else:
            looks.append(Look(*named, HUES[place], "", MARKERS[place], "-"))
    return looks


def darken(hue: str) -> str:
    """A PixMIM version's colour beside its baseline's."""
    tone, lightness, saturation = colorsys.rgb_to_hls(*to_rgb(hue))
    return to_hex(colorsys.hls_to_rgb(tone, 0.6 * lightness, saturation))


def lighten(hue: str) -> str:
    """The same on a dark page, on which a darker one would be lost."""
    tone, lightness, saturation = colorsys.rgb_to_hls(*to_rgb(hue))
    return to_hex(colorsys.hls_to_rgb(tone, lightness + 0.5 * (1 - lightness), saturation))


# Colours that would be lost on a dark page, and what they are there.
ON_DARK_PAGE = {**{darken(hue): lighten(hue) for hue in HUES}, "#0072b2": "#1f86c6", "#666666": "#828282"}


def mark_artists(drawn: Container, mark: str) -> None:
    """Gives all parts of error bars or bars their method's mark."""
    for artist in drawn.get_children():
        artist.set_gid(mark)


def choose_limit(estimates: Iterable[Estimate | None]) -> float:
    """The upper end of an axis in per cent, above every interval."""
    highest = max((100 * found.high for found in estimates if found), default=100)
    return next((limit for limit in LIMITS if limit >= highest), 100)


def finish_scale(axes: Axes, top: float, spans: Sequence[tuple[float, float]]) -> None:
    """Ticks of a vertical axis from 0 to `top` per cent, and its grid over some spans of the horizontal one."""
    levels = range(0, int(top) + 1, 25 if top > 50 else 10 if top > 10 else 5)
    axes.set_ylim(0, top)
    axes.set_yticks(levels)
    for left, right in spans:
        axes.hlines(levels[1:], left, right, colors=GRID, linewidth=0.5, zorder=0.5)


def wrap_items(items: Sequence[Item], longest: int) -> list[tuple[Item, ...]]:
    """Lines of nearly equal length, none with more than `longest` items."""
    lines = math.ceil(len(items) / longest)
    size = math.ceil(len(items) / lines) if lines else 1
    return [tuple(items[start : start + size]) for start in range(0, len(items), size)]


def wrap_label(text: str, room: float) -> list[str]:
    """Lines of a label that fit into `room` inches, broken after spaces, underscores, full stops, slashes, hyphens."""
    size = max(int(room / WIDE_CHARACTER), 4)
    pieces = [
        word[start : start + size]
        for word in re.findall(r"[^\s_./-]*[\s_./-]?", text)
        for start in range(0, len(word), size)
    ]
    lines = [""]
    for piece in pieces:
        if len((lines[-1] + piece).rstrip()) > size:
            lines.append("")
        lines[-1] += piece
    return [line.strip() for line in lines]


class _MarkingHandler(HandlerTuple):
    """Lets what a legend draws of a bar and a line carry their marks."""

    def create_artists(self, legend: Any, orig_handle: Any, *place: Any) -> list[Artist]:
        """See matplotlib's HandlerBase."""
        drawn = list(super().create_artists(legend, orig_handle, *place))
        for artist in drawn:
            artist.set_gid(orig_handle[0].get_gid())
            artist.set_label(orig_handle[0].get_label())
        return drawn


def draw_swatch(look: Look) -> tuple[Patch, Line2D]:
    """The legend's handle of a model: a bar and a line."""
    named: dict[str, Any] = {"gid": look.mark, "label": look.label}
    line: dict[str, Any] = {"linestyle": look.line, "marker": look.marker, "markersize": 3, "linewidth": 1.1}
    bar = Patch(facecolor=look.colour, hatch=look.hatch, edgecolor="white", linewidth=0, **named)
    return bar, Line2D([], [], color=look.colour, **line, **named)


class Canvas:
    """A figure whose parts are placed in inches from its left and upper edges, a caption last.

    The figure's label is its caption in one line, for whatever shows it apart; the text that is drawn has the gid
    "caption".

    Args:
        width: of the figure.
        top: where the caption begins.
        caption: its text, to be wrapped.
    """

    def __init__(self, width: float, top: float, caption: str) -> None:
        lines = textwrap.wrap(caption, int((width - 0.1) / CHARACTER), break_on_hyphens=False)
        self.width, self.height = width, top + len(lines) * LINE + 0.06
        self.figure = Figure(figsize=(self.width, self.height))
        self.figure.set_label(caption)
        self.add_text("\n".join(lines), MARGIN, top, color=CAPTION, linespacing=1.2, gid=CAPTION_MARK)

    def add_text(self, text: str, left: float, top: float, **style: Any) -> None:
        """A text whose upper left corner is there."""
        self.figure.text(left / self.width, 1 - top / self.height, text, **{"va": "top", "ha": "left", **style})

    def add_axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes whose upper left corner is there."""
        bottom = self.height - top - height
        return self.figure.add_axes((left / self.width, bottom / self.height, width / self.width, height / self.height))

    def add_legend(self, legend: Legend, looks: list[Look]) -> None:
        """Every model as bar and line, then the extra entries, at the top of the page."""
        handles: list[Any] = [draw_swatch(look) for look in looks]
        labels = [*legend.labels, *legend.extra]
        drawn = self.figure.legend(
            [*handles, *legend.extra.values()],
            ["-"] * len(labels),
            loc="upper left",
            bbox_to_anchor=(MARGIN / self.width, 1 - TOP / self.height),
            ncols=legend.columns,
            frameon=False,
            borderaxespad=0,
            borderpad=0,
            handlelength=3.2,
            columnspacing=1.4,
            labelspacing=0.3,
            handler_map={tuple: _MarkingHandler(ndivide=None, pad=0.4)},
        )
        # Named afterwards: matplotlib before 3.10 leaves out entries that begin with an underscore.
        for text, label in zip(drawn.get_texts(), labels, strict=True):
            text.set_text(label)
        for text, look in zip(drawn.get_texts(), looks, strict=False):  # the extra entries have no method
            text.set_gid(look.mark)


class Legend:
    """How much room the legend takes: its labels, columns and height.

    Args:
        width: of the page.
        subjects: one entry each.
        extra: label -> handle of what else is explained.
    """

    def __init__(self, width: float, subjects: tuple[Subject, ...], extra: Mapping[str, Artist]) -> None:
        self.labels = ["\n".join(wrap_label(subject.label, width - 0.55)) for subject in subjects]
        self.extra = extra
        lines = [line for label in (*self.labels, *extra) for line in label.split("\n")]
        longest = max(len(line) for line in lines) * WIDE_CHARACTER + 0.55
        entries = len(self.labels) + len(extra)
        self.columns = max(1, min(int(width / longest), entries))
        rows = math.ceil(entries / self.columns)
        self.height = (rows + sum(label.count("\n") for label in self.labels)) * LINE


def draw_chance() -> Line2D:
    """The legend's handle of the line of chance."""
    return Line2D([], [], color=INK, linestyle=":", linewidth=0.9)
