"""What a page knows of the methods in a figure: their numbers, names and colours, found by the marks of its artists."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.artist import Artist
from matplotlib.collections import Collection
from matplotlib.colors import to_hex, to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text

from analysis.layout import ON_DARK_PAGE
from analysis.report.parts import read_mark

_MARK_END = 39  # characters from which the name in a mark may have been cut
_BROKEN = re.compile(r"(?<=[_./-])\n")  # where layout.wrap_label breaks a word


@dataclass(frozen=True)
class Method:
    """What a plot can switch on and off.

    Args:
        number: in the figure's marks.
        key: equal for the same name in other plots.
        label: its name.
        colour, dark: "#rrggbb" of its swatch on a light and on a dark page.
        hatched: drawn with stripes.
    """

    number: int
    key: str
    label: str
    colour: str
    dark: str
    hatched: bool


def list_methods(figure: Figure) -> tuple[Method, ...]:
    """The methods that the marks of a figure's artists tell apart (see parts.mark_method), by their numbers."""
    marked: dict[int, list[Artist]] = {}
    for artist in figure.findobj():
        number = read_mark(artist.get_gid())
        if number is not None:
            marked.setdefault(number, []).append(artist)
    return tuple(_describe_method(number, artists) for number, artists in sorted(marked.items()))


def find_shared(figures: Iterable[Sequence[Method]]) -> tuple[Method, ...]:
    """Methods of two figures or more, each as the first of them has it."""
    found: dict[str, list[Method]] = {}
    for methods in figures:
        for key in dict.fromkeys(method.key for method in methods):
            found.setdefault(key, []).append(next(method for method in methods if method.key == key))
    return tuple(same[0] for same in found.values() if len(same) > 1)


def _describe_method(number: int, artists: Sequence[Artist]) -> Method:
    label, colour = _find_label(artists), _find_colour(artists)
    hatched = any(isinstance(artist, Patch) and artist.get_hatch() for artist in artists)
    return Method(number, "".join(label.split()), label, colour, ON_DARK_PAGE.get(colour, colour), hatched)


def _find_label(artists: Sequence[Artist]) -> str:
    """The name as an artist of the method has it, in the legend or as its label; else what the mark kept of it."""
    mark = str(artists[0].get_gid()).split("-", 2)[2]
    name = _squash(mark)
    texts = [artist.get_text() for artist in artists if isinstance(artist, Text)]
    for text in (*texts, *(str(artist.get_label()) for artist in artists)):
        same = _squash(text) == name or (len(mark) >= _MARK_END and _squash(text).startswith(name))
        if text.strip() and same:
            return " ".join(_BROKEN.sub("", text).split())
    return mark.replace("-", " ").strip() or "no name"


def _squash(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", text.lower())


def _find_colour(artists: Sequence[Artist]) -> str:
    """The first that is neither paper nor ink: whiskers are grey or black."""
    colours = [to_rgba(colour) for colour in map(_read_colour, artists) if colour is not None]
    seen = [colour for colour in colours if colour[3] > 0 and min(colour[:3]) < 0.95]
    vivid = [colour for colour in seen if max(colour[:3]) - min(colour[:3]) > 0.1]
    red, green, blue, _ = (*vivid, *seen, (0.5, 0.5, 0.5, 1.0))[0]
    return to_hex((red, green, blue))


def _read_colour(artist: Artist) -> Any:
    if isinstance(artist, Line2D):
        return artist.get_color()
    if isinstance(artist, Patch):
        return artist.get_facecolor()
    if isinstance(artist, Collection):
        colours = (*artist.get_facecolor(), *artist.get_edgecolor())
        return tuple(colours[0])[:3] if colours else None  # a band is its line's colour, thinned
    return None
