"""The report as PDF, typeset by Typst: the same sections, figures and tables as the page, without what moves."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import matplotlib
import typst

from analysis.formats import Table
from analysis.report.parts import Report, Section
from analysis.report.pictures import encode_picture
from pixmim_eval.files import write_atomic

_LONGEST = 24  # letters of a word that are never parted
_LONG_WORD = re.compile(rf"\S{{{_LONGEST}}}(?=\S)")
_ZERO_WIDTH_SPACE = "\u200b"


def write_document(report: Report, path: Path, figures: Mapping[str, Path]) -> Path:
    """Writes a report as PDF.

    Args:
        report: what it says; its rows stand in the page alone.
        path: the file to write.
        figures: of every Plot's stem, its file, PDF or PNG.

    Returns:
        The path. Same report, same bytes.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        content = {
            "title": _prepare(report.title),
            "text": _prepare_all(report.text),
            "problems": _prepare_all(report.problems),
            "sections": [_describe_section(section, figures, folder) for section in report.sections],
        }
        (folder / "report.json").write_text(json.dumps(content), encoding="utf-8")
        source = folder / "document.typ"
        source.write_bytes(files("analysis.report").joinpath("document.typ").read_bytes())
        fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"  # DejaVu, for what Typst's own fonts lack
        pdf: Any = typst.compile(source, root=folder, font_paths=[fonts], ignore_system_fonts=True)
    write_atomic(path, pdf)
    return path


def _describe_section(section: Section, figures: Mapping[str, Path], folder: Path) -> dict[str, Any]:
    """The section as JSON; its figures, whose files hold their captions, are copied to where Typst may read."""
    shown: list[dict[str, str]] = []
    for plot in section.plots:
        path = figures[plot.stem]
        name = f"{section.name}-{len(shown)}{path.suffix}"
        shutil.copyfile(path, folder / name)
        shown.append({"title": _prepare(plot.title), "caption": "", "alt": plot.caption, "file": name})
    for picture in section.pictures:
        encoded = encode_picture(picture.path, "JPEG")
        name = f"{section.name}-{len(shown)}.{encoded.kind}"
        (folder / name).write_bytes(encoded.data)
        caption = _prepare(picture.caption)
        shown.append({"title": _prepare(picture.title), "caption": caption, "alt": picture.caption, "file": name})
    return {
        "title": _prepare(section.title),
        "text": _prepare_all(section.text),
        "figures": shown,
        "tables": [_describe_table(table) for table in section.tables],
        "made": _prepare_all(section.made),
    }


def _describe_table(table: Table) -> dict[str, Any]:
    return {
        "title": _prepare(table.title),
        "head": _prepare_all(table.head),
        "sides": list(table.sides),
        "rows": [[{"text": _prepare(cell.text), "bold": cell.bold} for cell in row] for row in table.rows],
        "notes": _prepare_all(table.notes),
    }


def _prepare_all(texts: tuple[str, ...]) -> list[str]:
    return [_prepare(text) for text in texts]


def _prepare(text: str) -> str:
    """One line, in which words longer than any column can be parted."""
    return _LONG_WORD.sub(lambda match: match[0] + _ZERO_WIDTH_SPACE, " ".join(text.split()))
