"""What a report consists of, before it is a page or a PDF: sections of text, tables, figures and pictures."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from analysis.formats import Table

_MARK = re.compile(r"method-(\d+)-[0-9a-z-]*")


@dataclass(frozen=True)
class Plot:
    """A figure that is drawn from rows.

    Args:
        stem: of its files in figures/, unique in a report.
        title: one line.
        figure: what is drawn; the artists of a method carry mark_method as their gid.
        caption: what it shows, on what, with which intervals.
    """

    stem: str
    title: str
    figure: Figure
    caption: str


@dataclass(frozen=True)
class Picture:
    """A PNG that a suite drew of images, such as reconstructions; `stem`, `title` and `caption` as of a Plot."""

    stem: str
    title: str
    path: Path
    caption: str


@dataclass(frozen=True)
class Sheet:
    """Tables that share their files in tables/.

    Args:
        stem: of the files, unique in a report.
        tables: as they are read.
        numbers: what they say, and more, in long form: raw numbers, one a row.
    """

    stem: str
    tables: tuple[Table, ...]
    numbers: pd.DataFrame


@dataclass(frozen=True)
class Section:
    """One part of a report, in the order text, plots, pictures, tables, what made it.

    Args:
        name: its anchor, words joined by "-".
        title: one line.
        text: paragraphs.
        tables, plots, pictures: what it shows.
        sheets: the tables once more, as the files that they are written to.
        made: sentences on which commands made the rows.
    """

    name: str
    title: str
    text: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    plots: tuple[Plot, ...] = ()
    pictures: tuple[Picture, ...] = ()
    sheets: tuple[Sheet, ...] = ()
    made: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """All of it.

    Args:
        title: one line.
        text: paragraphs before the first section.
        sections: in order.
        rows: the result rows that everything is of, with `source` 0…N-1, which the cells of tables name.
        problems: what a reader must know of the rows, such as values that contradict each other.
    """

    title: str
    text: tuple[str, ...]
    sections: tuple[Section, ...]
    rows: pd.DataFrame
    problems: tuple[str, ...] = ()


def mark_method(label: str, number: int) -> str:
    """The gid of what belongs to one method in a figure: its number in the figure, and its name as far as ids go."""
    return f"method-{number}-{re.sub(r'[^a-z0-9]+', '-', label.lower()).strip('-')[:40]}"


def read_mark(gid: str | None) -> int | None:
    """The number of the method that a gid is of; None where it is of none."""
    match = _MARK.fullmatch(gid or "")
    return int(match[1]) if match else None
