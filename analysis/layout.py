"""How figures look and where their parts go on the page: sizes in inches, type in points."""

from __future__ import annotations

import colorsys
import math
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis.subjects import Subject

# Okabe & Ito's colours, safe for the colour-blind; yellow last, it is weak on white.
HUES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#666666", "#F0E442")
MARKERS = ("o", "^", "D", "v", "P", "X", "<", ">")
INK, FAINT, CAPTION = "#222222", "#8a8a8a", "#444444"
SMALL = 7.0  # points: nothing is set smaller
STYLE: dict[Any, Any] = {
    "font.size": SMALL,
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that the same rows give the same picture anywhere
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
LEFT, RIGHT, TOP = 0.5, 0.1, 0.06
BAR_HEIGHT, CURVE_HEIGHT, CURVE_GAP = 1.0, 0.95, 0.13
TITLE = 0.2  # from the top of a panel's title to its axes

Item = TypeVar("Item")


@dataclass(frozen=True)
class Look:
    """How one model is drawn everywhere: a PixMIM version is its baseline's hue, darker, hatched and dashed."""

    colour: str | tuple[float, float, float]
    hatch: str
    marker: str
    line: Literal["-"] | tuple[float, tuple[float, ...]]


def choose_looks(subjects: tuple[Subject, ...]) -> list[Look]:
    """A hue for each family; the PixMIM version of a pair is darker, hatched and dashed."""
    families = list(dict.fromkeys(subject.family for subject in subjects))
    looks = []
    for subject in subjects:
        place = families.index(subject.family)
        paired = sum(other.family == subject.family for other in subjects) > 1
        if paired and subject.is_pixmim:
            hue, lightness, saturation = colorsys.rgb_to_hls(*to_rgb(HUES[place]))
            darker = colorsys.hls_to_rgb(hue, 0.6 * lightness, saturation)
            looks.append(Look(darker, "////", "s", (0, (3, 1.2))))
        else:
            looks.append(Look(HUES[place], "", MARKERS[place], "-"))
    return looks


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


@dataclass(frozen=True)
class BarLine:
    """One line of groups of bars: its title ("" for none), labels under the groups, and a group's width in inches."""

    title: str
    labels: tuple[str, ...]
    slot: float


class Page:
    """Places a legend, lines of bars, lines of small multiples and a caption below one another."""

    def __init__(
        self, width: float, subjects: tuple[Subject, ...], bars: list[BarLine], curve_lines: int, caption: str
    ) -> None:
        self.width = width
        self.entries = ["\n".join(wrap_label(subject.label, width - 0.55)) for subject in subjects]
        longest = max(len(line) for entry in self.entries for line in entry.split("\n"))
        self.legend_columns = max(1, min(int(width / (longest * WIDE_CHARACTER + 0.55)), len(subjects) + 1))
        rows = math.ceil((len(subjects) + 1) / self.legend_columns)
        cursor = TOP + (rows + sum(entry.count("\n") for entry in self.entries)) * LINE + 0.1
        self.bars = bars
        self.bar_tops: list[float] = []
        for line in bars:
            cursor += TITLE if line.title or not self.bar_tops else 0.04
            self.bar_tops.append(cursor)
            cursor += BAR_HEIGHT + (1 + max(label.count("\n") for label in line.labels)) * LINE + 0.09
        self.curve_tops = [cursor + TITLE + row * (CURVE_HEIGHT + 0.34) for row in range(curve_lines)]
        self.caption_top = self.curve_tops[-1] + CURVE_HEIGHT + 0.42 if curve_lines else cursor + 0.04
        self.caption = textwrap.wrap(caption, int((width - 0.1) / CHARACTER), break_on_hyphens=False)
        self.height = self.caption_top + len(self.caption) * LINE + 0.06
        self.figure = Figure(figsize=(width, self.height))

    def add_bars(self, line: int) -> Axes:
        """The axes of one line of bars, as wide as its groups need."""
        spec = self.bars[line]
        axes = self._add_axes(LEFT, self.bar_tops[line], spec.slot * len(spec.labels), BAR_HEIGHT)
        axes.set_title(spec.title, loc="left", pad=4, color=INK)
        axes.set_xlim(-0.5, len(spec.labels) - 0.5)
        axes.set_xticks(range(len(spec.labels)), spec.labels, linespacing=1.05, va="baseline")
        axes.tick_params(axis="x", length=0, pad=9)
        for label in axes.get_xticklabels():  # they hang from their last line; their first ones shall be level
            label.set_y(-label.get_text().count("\n") * LABEL_LINE / BAR_HEIGHT)
        return axes

    def add_curve(self, line: int, place: int, per_line: int) -> Axes:
        """The axes of one small multiple."""
        width = (self.width - LEFT - RIGHT - CURVE_GAP * (per_line - 1)) / per_line
        return self._add_axes(LEFT + place * (width + CURVE_GAP), self.curve_tops[line], width, CURVE_HEIGHT)

    def add_letters(self) -> None:
        """The bold a and b of two panels."""
        for letter, top in zip("ab", (self.bar_tops[0], self.curve_tops[0]), strict=True):
            self._add_text(letter, top - TITLE + 0.03, size=9, weight="bold")

    def add_legend(self, looks: list[Look], chance: str) -> None:
        """Every model as bar and line; `chance` names the dotted line, "" where there is none."""
        handles: list[Any] = [
            (
                Patch(facecolor=look.colour, hatch=look.hatch, edgecolor="white", linewidth=0),
                Line2D([], [], color=look.colour, linestyle=look.line, marker=look.marker, markersize=3, linewidth=1.1),
            )
            for look in looks
        ]
        if chance:
            handles.append(Line2D([], [], color=INK, linestyle=":", linewidth=0.9))
        self.figure.legend(
            handles,
            [*self.entries, chance] if chance else self.entries,
            loc="upper left",
            bbox_to_anchor=(0.06 / self.width, 1 - TOP / self.height),
            ncols=self.legend_columns,
            frameon=False,
            borderaxespad=0,
            borderpad=0,
            handlelength=3.2,
            columnspacing=1.4,
            labelspacing=0.3,
            handler_map={tuple: HandlerTuple(ndivide=None, pad=0.4)},
        )

    def add_caption(self) -> None:
        """The lines under the figure."""
        self._add_text("\n".join(self.caption), self.caption_top, size=SMALL, color=CAPTION, linespacing=1.2)

    def _add_text(self, text: str, top: float, **style: object) -> None:
        self.figure.text(0.06 / self.width, 1 - top / self.height, text, va="top", ha="left", **style)  # type: ignore[arg-type]

    def _add_axes(self, left: float, top: float, width: float, height: float) -> Axes:
        bottom = self.height - top - height
        return self.figure.add_axes((left / self.width, bottom / self.height, width / self.width, height / self.height))
