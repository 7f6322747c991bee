"""A comparison as a report: what is separable, figure and tables, and what could not be compared."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from analysis.captions import format_interval, format_probability
from analysis.comparison.checkpoints import BETTER, HIGHER, LOWER, WORSE, CheckpointComparison
from analysis.comparison.figures import draw_differences
from analysis.comparison.gaps import list_examples
from analysis.comparison.lines import (
    DIRECTIONS,
    MARKS,
    Line,
    describe_setting,
    describe_singles,
    describe_tests,
    describe_verdict,
    list_lines,
    tabulate_comparison,
)
from analysis.comparison.names import Checkpoint
from analysis.figures import save_figure
from analysis.formats import Cell, Table
from analysis.groups import describe_settings
from analysis.report.page import write_page
from analysis.report.parts import Plot, Report, Section, Sheet
from analysis.sources import list_sources
from analysis.tables import write_table

_LONGEST = 40  # rows of a table that stays on a page


def write_comparison(
    comparison: CheckpointComparison, rows: pd.DataFrame, out: Path, *, columns: int = 2
) -> list[Path]:
    """Writes compare-A-B.html, and its tables (Markdown, CSV, LaTeX) and figures (PNG, PDF) as files of their own.

    Args:
        comparison: see compare_checkpoints.
        rows: those it was made from, with `source`.
        out: the reports folder; tables go to out/tables, figures to out/figures.
        columns: width of the figure, one or two columns of a page.

    Returns:
        The files written, the page first.
    """
    report = build_comparison(comparison, rows, columns=columns)
    written = [write_page(report, out / f"{name_files(comparison)}.html")]
    for section in report.sections:
        for sheet in section.sheets:
            written += write_table(out / "tables" / sheet.stem, sheet.tables, sheet.numbers)
        for plot in section.plots:
            written += save_figure(plot.figure, out / "figures" / plot.stem)
    return written


def name_files(comparison: CheckpointComparison) -> str:
    """ "compare-A-B": what files may be called anywhere."""
    return "-".join(["compare", *(_slug(one) for one in (comparison.first, comparison.second))])


def _slug(checkpoint: Checkpoint) -> str:
    slug = re.sub(r"[^A-Za-z0-9_.]+", "-", checkpoint.label).strip("-.")
    plain = slug == checkpoint.label and len(slug) <= 60
    return slug if plain else f"{slug[:50]}-{checkpoint.digest[:6]}".strip("-.")  # another name may look the same


def build_comparison(comparison: CheckpointComparison, rows: pd.DataFrame, *, columns: int = 2) -> Report:
    """The report of a comparison; see write_comparison."""
    lines, stem = list_lines(comparison), name_files(comparison)
    suites = list(dict.fromkeys(line.suite for line in lines))
    tables = {suite: build_suite(comparison, [line for line in lines if line.suite == suite]) for suite in suites}
    gaps = list_gaps(comparison)
    sheet = Sheet(stem, (*tables.values(), *gaps), tabulate_comparison(comparison))
    sections = [_build_overview(comparison, stem, sheet, columns)]
    sections += [Section(f"suite-{suite}", suite.replace("_", " "), tables=(table,)) for suite, table in tables.items()]
    if gaps:
        sections.append(Section("not-compared", "What could not be compared", tables=gaps))
    title = f"{comparison.second.label} against {comparison.first.label}"
    text = (describe_verdict(comparison), *(_introduce(comparison)))
    problems = (
        *comparison.notes,
        *(
            f"Several values of one number, not compared: {found.checkpoint.label}, {found.name}:"
            f" {', '.join(value for value, _ in found.values)}."
            for found in comparison.contradictions
        ),
    )
    return Report(title, text, tuple(sections), rows, problems)


def _introduce(comparison: CheckpointComparison) -> tuple[str, str]:
    sides = {"A": comparison.first, "B": comparison.second}
    told = [
        f"{side}: {one.label}, weights {one.digest}, method {one.method},"
        f" epoch {'unknown' if one.epoch is None else one.epoch}."
        for side, one in sides.items()
    ]
    return " ".join(told), "Every difference is B − A, on the same data, condition, protocol and seed."


def _build_overview(comparison: CheckpointComparison, stem: str, sheet: Sheet, columns: int) -> Section:
    figures = draw_differences(comparison, columns=columns)
    plots = []
    for number, figure in enumerate(figures, start=1):
        part = f"-part-{number}" if len(figures) > 1 else ""
        plots.append(
            Plot(
                f"{stem}{part}{'-one-column' * (columns == 1)}",
                "Every difference, B − A",
                figure,
                str(figure.get_label()),
            )
        )
    text = (*describe_tests(comparison.differences), *describe_singles(comparison))
    return Section("differences", "What is separable", text, plots=tuple(plots), sheets=(sheet,))


def build_suite(comparison: CheckpointComparison, lines: Sequence[Line]) -> Table:
    """The differences of one suite."""
    body = []
    for line in lines:
        found = line.found
        one, other = list_sources(found.first), list_sources(found.second)
        both = list_sources(found.estimate)
        separable = line.verdict in (BETTER, WORSE, HIGHER, LOWER)
        body.append(
            (
                Cell(f"{line.mark} {line.verdict}", bold=separable),
                Cell(line.name + (" (%)" if line.unit == "fraction" else "")),
                Cell(format_interval(found.first), sources=one),
                Cell(format_interval(found.second), sources=other),
                Cell(format_interval(found.estimate, "+"), bold=separable, sources=both),
                Cell(format_probability(found.probability), sources=both),
                Cell(format_probability(found.adjusted), sources=both),
                Cell(f"{found.estimate.n:,}"),
                Cell(found.test),
            )
        )
    labels = (comparison.first.label, comparison.second.label)
    head = ("B is", "number", *labels, "B − A [95 %]", "p", "p (Holm)", "n", "test")
    title = f"Suite {lines[0].suite}: {comparison.name}"
    notes = (*_describe_data(lines), *_describe_directions(lines))
    return Table(title, head, tuple(body), "llrrrrrrl", notes, long=len(body) > _LONGEST)


def _describe_data(lines: Sequence[Line]) -> list[str]:
    """Data and protocol: what all share once, then what tells them apart."""
    named: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for line in lines:
        named.setdefault(tuple(describe_setting(line.found).items()), []).append(line.found.setting.condition)
    common, titles = describe_settings([dict(setting) for setting in named])
    notes = [", ".join(f"{key}={value}" for key, value in common.items()) + "."] if common else []
    for title, conditions in zip(titles, named.values(), strict=True):
        if title:
            notes.append(f"{list_examples([*dict.fromkeys(conditions)])}: {title}.")
    return notes


def _describe_directions(lines: Sequence[Line]) -> list[str]:
    """Of which metrics less is better, or neither."""
    notes = []
    for direction in (-1, 0):
        metrics = [line.found.setting.metric for line in lines if line.found.direction == direction]
        if metrics:
            words = DIRECTIONS[direction]
            notes.append(f"{words[0].upper()}{words[1:]} of {', '.join(dict.fromkeys(metrics))}.")
    marks = {line.verdict: line.mark for line in lines}
    legend = ", ".join(f"{mark} {verdict}" for verdict, mark in MARKS.items() if verdict in marks)
    return [*notes, f"B is: {legend}."]


def list_gaps(comparison: CheckpointComparison) -> tuple[Table, ...]:
    """Tables of what only one has, was not measured alike, or has several values; none that is empty."""
    makers: tuple[Callable[[CheckpointComparison], Table], ...] = (_build_missing, _build_mismatches, _build_doubles)
    return tuple(table for table in (make(comparison) for make in makers) if table.rows)


def _build_missing(comparison: CheckpointComparison) -> Table:
    body = tuple(
        (
            Cell(found.checkpoint.label),
            Cell(found.suite),
            Cell(found.dataset),
            Cell(list_examples(found.conditions)),
            Cell(f"{found.numbers:,}", sources=found.sources),
            Cell(found.advise()),
        )
        for found in comparison.missing
    )
    head = ("lacks it", "suite", "data", "conditions", "numbers", "run")
    notes = ("The command is the one that made the other’s rows, with the checkpoint exchanged.",)
    return Table("Measured on one of them alone", head, body, "llllrl", notes, long=len(body) > _LONGEST)


def _build_mismatches(comparison: CheckpointComparison) -> Table:
    body = tuple(
        (
            Cell(found.suite),
            Cell(list_examples(found.conditions)),
            Cell(f"{found.numbers:,}", sources=found.sources),
            Cell(found.first or "–"),
            Cell(found.second or "–"),
            Cell(found.command or "nothing does"),
        )
        for found in comparison.mismatches
    )
    head = ("suite", "conditions", "numbers", "A’s alone", "B’s alone", "measures B as A was")
    notes = ("Numbers of both that stand for different things: never compared.",)
    return Table("Not the same protocol", head, body, "llrlll", notes, long=len(body) > _LONGEST)


def _build_doubles(comparison: CheckpointComparison) -> Table:
    body = tuple(
        (Cell(found.checkpoint.label), Cell(found.name), Cell(value, sources=sources))
        for found in comparison.contradictions
        for value, sources in found.values
    )
    notes = ("Which one holds, the rows do not say: neither averaged nor compared.",)
    return Table("Several values of one number", ("model", "number", "value"), body, "llr", notes)
