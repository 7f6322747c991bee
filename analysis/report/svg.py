"""A figure as SVG inside a page: its text is text, its ink is the page's, and its methods can be switched off."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text
from matplotlib.textpath import text_to_path

from analysis.layout import CAPTION, CAPTION_MARK, GRID, INK, ON_DARK_PAGE, STYLE
from analysis.report.parts import read_mark
from pixmim_eval.errors import InputError

PAPER = "var(--paper, Canvas)"
"""What is white on paper: the page's own background."""

_INK = dict.fromkeys(("#000000", INK, CAPTION), "currentColor")
_FAINT_GRID = "0.14"  # of the page's ink, about GRID on white
_SCREEN = 134  # pixels an inch of paper at the most: type of 7 points is 13 pixels high
_ILLEGAL = re.compile(r"[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # characters that XML has not
_LONG = re.compile(r"-?\d+\.\d{3,}")
_LINK = re.compile(r"url\(#([^)]+)\)")
_PLAIN = re.compile(r"rotate\(-?0(?:\.0)? [^)]*\)$")
_SHIFT = re.compile(r"translate\((\S+) (\S+)\)$")
_HREF = "{http://www.w3.org/1999/xlink}href"


class _Note(NamedTuple):
    """What SVG as matplotlib writes it does not tell of a text.

    Args:
        gid: the text's own.
        align: "left", "center" or "right" of lines that stand below each other; "" of a single line.
        font: of the lines.
        halo: width of the paper-coloured line around letters; 0 for none.
    """

    gid: str | None
    align: str
    font: FontProperties
    halo: float


def to_svg(figure: Figure, *, prefix: str) -> str:
    """A figure as an <svg> element that may stand in HTML beside others.

    Text stays text in the font of the page. Black becomes the page's text colour, white its background (the custom
    property --paper, else the browser's own), grid lines a shade of the text colour, and colours too dark for a dark
    page are lighter where `color-scheme` is dark. What carries a mark_method as its gid has data-method="NUMBER". The
    caption under the figure is left out: the figure's label has it, and a page writes it itself. The same figure gives
    the same bytes.

    Args:
        figure: drawn in layout.STYLE.
        prefix: of all ids, unique in the page: letters, digits, "-", "_" and ".", a letter first.

    Raises:
        InputError: a prefix that cannot begin an id.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9._-]*", prefix):
        raise InputError(
            "prefix of the ids of a figure",
            expected='letters, digits, "-", "_" and ".", a letter first',
            found=repr(prefix),
            where="analysis.report.svg.to_svg",
            fix="Take the figure's stem, with a word before it.",
        )
    text, notes = _draw(figure)
    root = ElementTree.fromstring(_ILLEGAL.sub("", text))
    page = _strip(root)
    _set_texts(page, notes)
    _rename(page, prefix)
    for element in page.iter():
        _adapt(element)
    width, height = figure.get_figwidth(), figure.get_figheight() * _find_end(figure)
    root.attrib.clear()
    root.attrib |= {
        "xmlns": "http://www.w3.org/2000/svg",
        "viewBox": f"0 0 {_round(72 * width)} {_round(72 * height)}",
        "fill": "currentColor",
        "style": f"width:100%;max-width:{_SCREEN * width:.0f}px;height:auto;stroke-linejoin:round;stroke-linecap:butt",
    }
    return ElementTree.tostring(root, encoding="unicode")


def _draw(figure: Figure) -> tuple[str, dict[str, _Note]]:
    """The figure as matplotlib writes it, and notes on texts by the ids that they have in it."""
    buffer = io.StringIO()
    style = {**STYLE, "svg.fonttype": "none", "svg.hashsalt": "pixmim-eval", "svg.image_inline": True}
    with rc_context(style), _noted(figure) as notes, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the page's font will have it
        canvas, resolution = figure.canvas, figure.get_dpi()
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
        figure.set_canvas(canvas)
        figure.set_dpi(resolution)
    return buffer.getvalue(), notes


@contextmanager
def _noted(figure: Figure) -> Iterator[dict[str, _Note]]:
    """Lets texts carry ids by which they are found again, and no outlines: outlined text would be drawn as curves."""
    notes: dict[str, _Note] = {}
    changed = []
    for text in (found for found in figure.findobj(Text) if isinstance(found, Text)):
        effects = text.get_path_effects()
        several = "\n" in text.get_text() and text.get_rotation() == 0
        if (several or effects) and text.get_gid() != CAPTION_MARK:
            align = str(text.get_horizontalalignment()) if several else ""
            halo = max((float(getattr(one, "_gc", {}).get("linewidth", 0)) for one in effects or ()), default=0.0)
            name = f"noted-{len(notes)}"
            notes[name] = _Note(text.get_gid(), align, text.get_fontproperties(), halo)
            changed.append((text, text.get_gid(), effects))
            text.set_gid(name)
            text.set_path_effects([])
    try:
        yield notes
    finally:
        for text, gid, effects in changed:
            text.set_gid(gid)
            text.set_path_effects(effects)


def _find_end(figure: Figure) -> float:
    """Where the caption begins, as a share of the figure's height; 1 where it has none."""
    tops = (1 - text.get_position()[1] for text in figure.texts if text.get_gid() == CAPTION_MARK)
    return next(tops, 1.0)


def _strip(root: Element) -> Element:
    """The group of the figure: names without their namespace, no metadata, rules, background, caption or empty groups;
    definitions go to its end."""
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    page = next(element for element in root if element.get("id", "").startswith("figure_"))
    for element in list(root):
        if element is not page:
            root.remove(element)
            if element.tag == "defs" and element.find("style") is None:
                page.append(element)
    background = next(element for element in page if element.get("id") == "patch_1")
    page.remove(background)
    for parent in list(page.iter()):
        for element in list(parent):
            if element.tag == "g" and (element.get("id") == CAPTION_MARK or not _holds(element)):
                parent.remove(element)
    return page


def _holds(group: Element) -> bool:
    """Whether anything is drawn in a group."""
    return any(element.tag not in ("g", "defs") for element in group.iter())


def _set_texts(page: Element, notes: dict[str, _Note]) -> None:
    """Plain positions, alignment of lines whatever the font, and halos."""
    for group in page.iter("g"):
        note = notes.get(group.get("id", ""))
        if note is not None:
            group.set("id", note.gid or "")
        for text in group.findall("text"):
            style = _read_style(text.get("style", ""))
            _place(text)
            if note is not None and note.align in ("center", "right") and text.text:
                width, _, _ = text_to_path.get_text_width_height_descent(text.text, note.font, False)
                share, anchor = (0.5, "middle") if note.align == "center" else (1.0, "end")
                text.set("x", str(float(text.get("x", "0")) + share * width))
                style["text-anchor"] = anchor
            if note is not None and note.halo:
                style |= {"paint-order": "stroke", "stroke": "#ffffff", "stroke-width": f"{note.halo:g}"}
            text.set("style", _write_style(_inherit_font(style)))


def _place(text: Element) -> None:
    """x and y of a text that is not rotated, in place of a transformation."""
    transform = text.attrib.pop("transform", "")
    if shift := _SHIFT.fullmatch(transform):
        text.attrib |= {"x": shift[1], "y": shift[2]}
    elif not _PLAIN.fullmatch(transform):
        text.set("transform", transform)


def _inherit_font(style: dict[str, str]) -> dict[str, str]:
    """The size and weight of a font, and not its family. Releases of matplotlib write them apart or together."""
    together = style.pop("font", "")
    style.pop("font-family", None)
    if size := re.search(r"[\d.]+px", together):
        style["font-size"] = size[0]
    if re.search(r"\b(bold|[6-9]00)\b", together):
        style["font-weight"] = "700"
    return style


def _rename(page: Element, prefix: str) -> None:
    """Ids that something refers to get the prefix and a number; others go, and those of methods become data-method."""
    linked = {name for element in page.iter() for value in element.attrib.values() for name in _LINK.findall(value)}
    linked |= {element.get(_HREF, "").removeprefix("#") for element in page.iter()}
    names: dict[str, str] = {}
    for element in page.iter():
        name = element.attrib.pop("id", "")
        number = read_mark(name)
        if number is not None:
            element.set("data-method", str(number))
        elif name in linked and name:
            names[name] = f"{prefix}-{len(names)}"
            element.set("id", names[name])
    for element in page.iter():
        for key, value in element.attrib.items():
            if "url(#" in value:
                element.set(key, _LINK.sub(lambda link: f"url(#{names[link[1]]})", value))
        if reference := element.attrib.pop(_HREF, ""):
            element.set("href", f"#{names[reference[1:]]}" if reference.startswith("#") else reference)


def _adapt(element: Element) -> None:
    """Colours for light and dark pages, and numbers as long as the eye needs."""
    element.tail = None
    if element.tag != "text":
        element.text = None
    for key in ("d", "x", "y", "width", "height", "transform"):
        if key in element.attrib:
            element.set(key, _LONG.sub(lambda number: _round(float(number[0])), " ".join(element.attrib[key].split())))
    style = _read_style(element.attrib.pop("style", ""))
    if "fill" in element.attrib:  # behind a hatch
        style["fill"] = element.attrib.pop("fill")
    if style:
        element.set("style", _write_style(_recolour(style)))


def _recolour(style: dict[str, str]) -> dict[str, str]:
    found = dict(style)
    for key in ("fill", "stroke"):
        colour = style.get(key, "")
        if colour in _INK:
            found[key] = _INK[colour]
        elif colour == "#ffffff":
            found[key] = PAPER
        elif colour == GRID:
            found |= {key: "currentColor", f"{key}-opacity": _FAINT_GRID}
        elif colour in ON_DARK_PAGE:  # twice: browsers pass over what they do not know
            found[key] = f"{colour};{key}:light-dark({colour},{ON_DARK_PAGE[colour]})"
    return found


def _read_style(text: str) -> dict[str, str]:
    pairs = (piece.partition(":") for piece in text.split(";") if piece.strip())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _write_style(style: dict[str, str]) -> str:
    return ";".join(f"{key}:{value}" for key, value in style.items())


def _round(number: float) -> str:
    return f"{number:.2f}".rstrip("0").rstrip(".")
