"""A report as one HTML file: nothing is loaded from elsewhere, and whatever a name holds is shown as text."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape

from analysis.formats import Table
from analysis.report.methods import Method, find_shared, list_methods
from analysis.report.parts import Picture, Plot, Report, Section
from analysis.report.pictures import encode_picture
from analysis.report.svg import to_svg
from pixmim_eval.files import write_atomic
from pixmim_eval.results import COLUMNS

SCRIPTS = ("elements.js", "tables.js", "plots.js", "record.js", "rows.js", "start.js")  # in one scope, in this order
FILTERED = 9  # rows from which a table has a field to filter it
SHOWN_PROBLEMS = 8  # more of them are folded
SHORT, LONG = 18, 60  # characters up to which a cell is not broken into lines, and from which it is a wide one
_WHOLE, _LONG_WORD, _BREAKS = 14, 24, re.compile(r"(?<=[/:,=_@])(?=[^/:,=_@])")
_EXACT = 2**53  # the integers that JavaScript tells apart
_COMMAND = re.compile(r"(python -m .+?)(?=\.?$|\.\s)")
# Of JSON in a page: what could end its element or open another. Inside JSON's strings an escape means the same.
_JSON_ESCAPES = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"})


@dataclass(frozen=True)
class Drawing:
    """A figure or picture in the page: its anchor, its SVG or the data: URL of its image with the size in pixels."""

    anchor: str
    title: str
    caption: str
    svg: Markup | None = None
    methods: tuple[Method, ...] = ()
    image: str = ""
    size: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class PageTable:
    """A table in the page; `hints` are the commands that would fill its empty cells."""

    anchor: str
    table: Table
    hints: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """A section in the page."""

    anchor: str
    section: Section
    drawings: tuple[Drawing, ...]
    tables: tuple[PageTable, ...]


def write_page(report: Report, path: Path) -> Path:
    """Writes a report as one self-contained HTML page.

    The page sorts and filters its tables, switches methods in its plots and shows the rows behind each number; without
    JavaScript all tables and figures are there still.

    Args:
        report: what it shows; `rows` has the fields of ResultRow and `source`, 0…N-1 each once.
        path: the file to write, e.g. reports/index.html.

    Returns:
        `path`.

    Raises:
        InputError: a picture is not a PNG that can be read.
        ValueError: the rows are not numbered.
    """
    write_atomic(path, render_page(report).encode("utf-8", "xmlcharrefreplace"))
    return path


def render_page(report: Report) -> str:
    """The text of write_page's file."""
    script = '"use strict";\n{\n' + "\n".join(map(_read_data, SCRIPTS)) + "}\n"
    parts = tuple(_lay_out(report.sections))
    environment = Environment(
        loader=FunctionLoader(_read_data),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"soften": soften, "mark_commands": mark_commands}
    page = environment.get_template("template.html").render(
        report=report,
        parts=parts,
        shared_methods=find_shared(drawing.methods for part in parts for drawing in part.drawings),
        filtered=FILTERED,
        shown_problems=SHOWN_PROBLEMS,
        short=SHORT,
        long=LONG,
        rows=Markup(encode_rows(report.rows)),
        style=Markup(_read_data("style.css")),
        script=Markup(script),
        policy=_write_policy(script),
    )
    return page.lstrip()


def _write_policy(script: str) -> str:
    """What the page may do: run its own script and nothing else, load nothing, make no markup of strings."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    rules = (
        "default-src 'none'",
        f"script-src 'sha256-{digest}'",
        "style-src 'unsafe-inline'",  # matplotlib's SVG styles its elements one by one
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "require-trusted-types-for 'script'",
    )
    return "; ".join(rules)


def _read_data(name: str) -> str:
    return (files("analysis.report") / "page" / name).read_text("utf-8")


def mark_commands(text: str) -> Markup:
    """A paragraph in which what is to be typed is <code>."""
    pieces = _COMMAND.split(text)
    return Markup().join(
        Markup("<code>{}</code>").format(soften(piece)) if place % 2 else soften(piece)
        for place, piece in enumerate(pieces)
    )


def soften(text: str) -> Markup:
    """Text in which long words, such as paths, may break behind separators; options and short words break nowhere."""
    if len(text) <= _LONG_WORD and "-" not in text:
        return escape(text)
    return Markup().join(map(_soften_word, re.split(r"(\s+)", text)))


def _soften_word(word: str) -> Markup:
    if len(word) > _LONG_WORD:
        return Markup("<wbr>").join(_BREAKS.split(word))
    whole = word.startswith("--") or ("-" in word and 2 < len(word) <= _WHOLE)
    return Markup('<span class="whole">{}</span>').format(word) if whole else escape(word)


def encode_rows(rows: pd.DataFrame) -> str:
    """Result rows as JSON that may stand inside a <script> element.

    Args:
        rows: columns of ResultRow and `source`; others are left out.

    Returns:
        {"length": N, "columns": {name: {"kind": "text" | "number", "values": […], "codes": […]}}}, in the order of
        `source`. `codes` are positions in `values`, -1 of a missing value; without `codes`, `values` are one a row,
        null where missing. Strings stand for numbers that JavaScript has not: "Infinity", and integers beyond 2^53.

    Raises:
        ValueError: `source` is not 0…N-1 in some order.
    """
    if sorted(rows["source"]) != list(range(len(rows))):
        raise ValueError("rows of a report are numbered by `source`, 0…N-1, each once")
    ordered = rows.sort_values("source")
    columns = {name: _encode_column(ordered[name]) for name in COLUMNS}
    text = json.dumps({"length": len(rows), "columns": columns}, allow_nan=False, separators=(",", ":"))
    return text.translate(_JSON_ESCAPES)


def _encode_column(column: pd.Series) -> dict[str, Any]:
    kind = "number" if pd.api.types.is_numeric_dtype(column) else "text"
    codes, values = pd.factorize(column)
    distinct = [_encode_value(value) for value in values.tolist()]
    places = codes.tolist()
    if kind == "text" or 4 * len(distinct) < len(places):
        return {"kind": kind, "values": distinct, "codes": places}
    return {"kind": kind, "values": [None if place < 0 else distinct[place] for place in places]}


def _encode_value(value: Any) -> Any:
    """As JSON and JavaScript can hold it."""
    if isinstance(value, float) and math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return str(value) if isinstance(value, int) and abs(value) > _EXACT else value


def _lay_out(sections: Sequence[Section]) -> Iterator[Part]:
    """Sections with anchors that are unique in the page, and figures ready to stand in it."""
    taken: set[str] = set()
    figures = tables = 0
    for section in sections:
        name = re.sub(r"[^a-z0-9]+", "-", section.name.lower()).strip("-") or "section"
        anchor = next(found for found in _propose(name) if found not in taken)
        taken.add(anchor)
        drawings, shown = [], []
        pieces: list[Plot | Picture] = [*section.plots, *section.pictures]
        for one in pieces:
            figures += 1
            drawings.append(_draw(one, f"page-figure-{figures}"))
        for table in section.tables:
            tables += 1
            hints = tuple(dict.fromkeys(cell.hint for row in table.rows for cell in row if cell.hint))
            shown.append(PageTable(f"page-table-{tables}", table, hints))
        yield Part(anchor, section, tuple(drawings), tuple(shown))


def _propose(name: str) -> Iterator[str]:
    """Anchors, the plainest first; those that begin with "page" are the page's own."""
    if not name.startswith("page"):
        yield name
    yield from (f"section-{name}-{number}" for number in range(1, 1_000_000))


def _draw(one: Plot | Picture, anchor: str) -> Drawing:
    if isinstance(one, Plot):
        svg = Markup(to_svg(one.figure, prefix=anchor))
        return Drawing(anchor, one.title, one.caption, svg, list_methods(one.figure))
    shown = encode_picture(one.path, "WEBP")
    image = f"data:image/{shown.kind};base64,{base64.b64encode(shown.data).decode()}"
    return Drawing(anchor, one.title, one.caption, image=image, size=shown.size)
