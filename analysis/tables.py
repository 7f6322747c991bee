"""Tables as Markdown, LaTeX (booktabs) and CSV. A cell is bold only where its lead is beyond its interval."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.captions import describe_data, describe_intervals, name_column
from analysis.groups import split_groups
from analysis.published import NAMES, read_published
from analysis.statistics import Column, Robustness, summarise_robustness, tabulate
from pixmim_eval.results import write_atomic
from pixmim_eval.types import Estimate

MISSING = "–"
WIDEST = 8  # corruptions side by side; above, their families stand in the main table and they in one of their own
LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"$\pm$",
        "−": r"$-$",
        "<": r"$<$",
        ">": r"$>$",
        "–": "--",
        "“": "``",
        "”": "''",
        "’": "'",
    }
)
MARKDOWN = str.maketrans({character: f"\\{character}" for character in "\\|*_`<[]"})
TITLES = {"robustness": "Published robustness", "main_results": "Published main results"}


@dataclass(frozen=True)
class Cell:
    """Plain text, and whether it leads its column beyond doubt."""

    text: str
    bold: bool = False


@dataclass(frozen=True)
class Table:
    """A table in no format yet.

    Args:
        title: one line over it.
        head: names of the columns.
        rows: cells, row by row.
        sides: "l" or "r" for each column: text stands left, numbers right.
        notes: sentences below it.
        long: may run over pages.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    sides: str
    notes: tuple[str, ...]
    long: bool = False


def write_tables(rows: pd.DataFrame, out: Path) -> list[Path]:
    """Writes the robustness table of each group of comparable rows, and the published reference numbers.

    Args:
        rows: result rows of any number of runs.
        out: the reports folder; files go to out/tables.

    Returns:
        The files written.
    """
    written = []
    for group in split_groups(rows, "robustness"):
        robustness = summarise_robustness(group)
        stem = f"robustness-{group.suffix}" if group.suffix else "robustness"
        written += _write(out / "tables" / stem, build_robustness(robustness), tabulate(robustness))
    published = pd.concat([read_published(name).assign(table=name) for name in NAMES], ignore_index=True)
    tables = [build_published(name) for name in NAMES]
    return written + _write(out / "tables" / "published", tables, published.drop(columns="printed"))


def build_robustness(robustness: Robustness) -> list[Table]:
    """The main table, models as rows; and, of more than eight corruptions, one with a row for each."""
    many = len(robustness.corruptions) > WIDEST
    clean = (robustness.clean,) if robustness.clean else ()
    means = robustness.families if many else robustness.corruptions
    columns = (*clean, *means, *robustness.errors, *robustness.variants)
    usual = next((column.metric for column in columns if not column.lower_is_better), "top1")
    body = tuple(
        (Cell(subject.label), *(_format_cell(column, position) for column in columns))
        for position, subject in enumerate(robustness.subjects)
    )
    notes = (*describe_data(robustness), *describe_intervals(robustness), *_explain_bold(columns))
    if many:
        notes = (*notes, "A family’s value and interval are the means of its corruptions’ (how many, in brackets).")
    chosen = [f"{subject.label}: {subject.chosen}." for subject in robustness.subjects if subject.chosen]
    main = Table(
        f"Robustness: {usual} in per cent, value ± half the width of its 95 % interval",
        ("model", *(" ".join(name_column(column, usual)).strip() for column in columns)),
        body,
        "l" + "r" * len(columns),
        (*notes, *chosen),
    )
    return [main, _build_corruptions(robustness)] if many else [main]


def _build_corruptions(robustness: Robustness) -> Table:
    models = range(len(robustness.subjects))
    return Table(
        f"Each corruption: {robustness.corruptions[0].metric} in per cent, mean over severities 1–5",
        ("corruption", *(subject.label for subject in robustness.subjects)),
        tuple(
            (Cell(column.name.replace("_", " ")), *(_format_cell(column, position) for position in models))
            for column in robustness.corruptions
        ),
        "l" + "r" * len(models),
        tuple(_explain_bold(robustness.corruptions)),
    )


def build_published(name: str) -> Table:
    """The published numbers, one a row, with their source and how sure they are."""
    published = read_published(name)
    notes = [note for note in dict.fromkeys(published["note"]) if note]
    body = []
    rows: Any = published.itertuples()
    for row in rows:
        epochs = MISSING if pd.isna(row.epochs) else str(row.epochs)
        note = f"({notes.index(row.note) + 1})" if row.note else ""
        texts = (row.method, row.backbone or MISSING, epochs, row.dataset, row.metric, row.printed)
        body.append(tuple(Cell(str(text)) for text in (*texts, row.confidence, row.source, note)))
    legend = (
        "Per cent, AP or mIoU points, as printed in code releases; the papers’ digits may differ by tenths.",
        "exact: read in, or computed from, the named file; secondary: quoted by somebody else, or inferred.",
        *(f"({number}) {note}" for number, note in enumerate(notes, start=1)),
    )
    head = ("method", "backbone", "epochs", "data set", "metric", "value", "confidence", "source", "note")
    return Table(TITLES[name], head, tuple(body), "lllllrlll", legend, long=True)


def _format_cell(column: Column, position: int) -> Cell:
    return Cell(format_estimate(column.estimates[position]), bold=column.best() == position)


def format_estimate(estimate: Estimate | None) -> str:
    """Per cent with half the width of its interval: "81.2 ± 0.7"; a dash where there is none."""
    if estimate is None:
        return MISSING
    return f"{100 * estimate.value:.1f} ± {50 * (estimate.high - estimate.low):.1f}"


def _explain_bold(columns: Sequence[Column]) -> list[str]:
    if all(len(column.estimates) < 2 for column in columns):
        return []
    if any(column.best() is not None for column in columns):
        return ["Bold: the best, where its interval is disjoint from every other model’s."]
    return ["No model leads beyond its interval."]


def to_markdown(table: Table) -> str:
    """GitHub's Markdown: title, table, notes as a list."""
    lines = [f"### {_escape_markdown(table.title)}", "", _join_markdown(_escape_markdown(name) for name in table.head)]
    lines.append(_join_markdown("--:" if side == "r" else ":--" for side in table.sides))
    for row in table.rows:
        texts = [_escape_markdown(cell.text) for cell in row]
        lines.append(
            _join_markdown(f"**{text}**" if cell.bold else text for cell, text in zip(row, texts, strict=True))
        )
    return "\n".join([*lines, "", *(f"- {_escape_markdown(note)}" for note in table.notes), ""])


def to_latex(table: Table) -> str:
    """A booktabs table, shrunk to the line (a longtable where it may run over pages), notes in its caption."""
    caption = escape_latex(" ".join([f"{table.title}.", *(note for note in table.notes)]))
    head = [r"\toprule", " & ".join(escape_latex(name) for name in table.head) + r" \\", r"\midrule"]
    body = []
    for row in table.rows:
        texts = [escape_latex(cell.text) for cell in row]
        marked = (rf"\textbf{{{text}}}" if cell.bold else text for cell, text in zip(row, texts, strict=True))
        body.append(" & ".join(marked) + r" \\")
    if table.long:
        top = [
            rf"\begin{{longtable}}{{{table.sides}}}",
            rf"\caption{{{caption}}} \\",
            *head,
            r"\endhead",
            r"\bottomrule",
        ]
        return "\n".join([*top, r"\endlastfoot", *body, r"\end{longtable}", ""])
    fit = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
    top = [r"\begin{table}", r"\centering", rf"\caption{{{caption}}}", fit, rf"\begin{{tabular}}{{{table.sides}}}"]
    return "\n".join([*top, *head, *body, r"\bottomrule", r"\end{tabular}}", r"\end{table}", ""])


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it stands."""
    return text.translate(LATEX)


def _escape_markdown(text: str) -> str:
    return text.translate(MARKDOWN)


def _join_markdown(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _write(stem: Path, tables: list[Table], numbers: pd.DataFrame) -> list[Path]:
    formats: dict[str, Callable[[], str]] = {
        "md": lambda: "\n".join(to_markdown(table) for table in tables),
        "csv": lambda: numbers.to_csv(index=False, lineterminator="\n"),
        "tex": lambda: "% \\usepackage{booktabs,graphicx,longtable}\n" + "\n".join(to_latex(table) for table in tables),
    }
    written = []
    for ending, render in formats.items():
        path = stem.with_name(f"{stem.name}.{ending}")
        write_atomic(path, render().encode())
        written.append(path)
    return written
