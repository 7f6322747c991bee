"""What the tables say. A cell is bold only where its lead, or a difference, is beyond its interval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from analysis.captions import (
    SEVERITY_MEANS,
    describe_data,
    describe_groups,
    describe_intervals,
    describe_metric,
    describe_relative,
    name_column,
    name_difference,
)
from analysis.columns import Column
from analysis.differences import MAX_PAIRS, Comparison, Difference, compare_models, list_pairs, tabulate_differences
from analysis.foreground.numbers import list_foreground
from analysis.foreground.tables import build_choices, tabulate_overlaps
from analysis.formats import Cell, Table, to_latex, to_markdown
from analysis.groups import Group, split_groups
from analysis.main_results import list_main_sheets
from analysis.published import NAMES, read_published
from analysis.published.comparison import list_comparison_sheets
from analysis.report.parts import Sheet
from analysis.robustness.statistics import Robustness, summarise_robustness, tabulate
from analysis.scores import build_scores, list_scores, tabulate_scores
from analysis.sources import list_sources, suggest_command
from pixmim_eval.results import write_atomic
from pixmim_eval.types import Estimate

MISSING = "–"
TITLES = {
    "main_results": "Published main results",
    "robustness": "Published robustness",
    "shape_bias": "Published shape bias",
    "foreground_overlap": "Published foreground overlap, and independent measurements of it",
    "ablations": "Published ablations",
}
PUBLISHED_COLUMNS = {  # of read_published -> for readers
    "ablation": "ablation",
    "setting": "setting",
    "method": "method",
    "backbone": "backbone",
    "epochs": "epochs",
    "dataset": "data set",
    "metric": "metric",
    "printed": "value",
    "confidence": "confidence",
    "source": "source",
}
_RELEASES = "Per cent, AP or mIoU points, as printed in code releases; the papers’ digits may differ by tenths."
PUBLISHED_NOTES = {
    "main_results": (_RELEASES,),
    "robustness": (_RELEASES,),
    "shape_bias": ("Per cent of shape decisions among those for shape or texture.",),
    "foreground_overlap": ("Per cent of the object that a crop keeps; method: the crop.",),
    "ablations": (_RELEASES, "A gain is in points; a direction says which way the number moves."),
}


def write_tables(rows: pd.DataFrame, out: Path) -> list[Path]:
    """Writes the main table, those of each group of comparable rows, and published numbers, alone and beside ours.

    Robustness has tables of its own; all other suites share `scores`, every metric by model.

    The suite reconstruction has no table: its rows are the points of a figure.

    Args:
        rows: result rows of any number of runs; `hits` too where models shall be compared image by image (attach_hits).
        out: the reports folder; files go to out/tables.

    Returns:
        The files written.
    """
    sheets = [sheet for sheet in list_main_sheets(rows) if len(sheet.numbers)]
    sheets += [*list_robustness_sheets(rows), *list_foreground_sheets(rows)]
    sheets += [*list_score_sheets(list_scores(rows)), *list_comparison_sheets(rows), *list_published_sheets()]
    return [path for sheet in sheets for path in write_table(out / "tables" / sheet.stem, sheet.tables, sheet.numbers)]


def list_robustness_sheets(rows: pd.DataFrame) -> list[Sheet]:
    """The tables of each group of the suite robustness, and its paired differences where outcomes are known."""
    sheets = []
    for group in split_groups(rows, "robustness") if "robustness" in set(rows["suite"]) else ():
        robustness = summarise_robustness(group)
        end = f"-{group.suffix}" if group.suffix else ""
        tables = tuple(build_robustness(robustness))
        sheets.append(Sheet(f"robustness{end}", tables, tabulate(robustness)))
        if comparisons := compare_models(robustness):
            numbers = tabulate_differences(robustness, comparisons)
            table = build_differences(robustness, comparisons)
            sheets.append(Sheet(f"robustness-differences{end}", (table,), numbers))
    return sheets


def list_foreground_sheets(rows: pd.DataFrame) -> list[Sheet]:
    """The table of overlaps; none where nothing of it was measured."""
    overlaps = list_foreground(rows)
    return [Sheet("foreground", (build_choices(overlaps),), tabulate_overlaps(overlaps))] if overlaps else []


def list_score_sheets(scores: Sequence[tuple[str, Group]], stem: str = "scores") -> list[Sheet]:
    """The tables of some groups, each with its suite; none of none."""
    tables = tuple(table for suite, group in scores for table in build_scores(suite, group))
    return [Sheet(stem, tables, tabulate_scores(scores))] if scores else []


def list_published_sheets() -> list[Sheet]:
    """The published tables as they are."""
    published = pd.concat([read_published(name).assign(table=name) for name in NAMES], ignore_index=True)
    tables = tuple(build_published(name) for name in NAMES)
    return [Sheet("published", tables, published)]


def build_robustness(robustness: Robustness) -> list[Table]:
    """The main table, models as rows; of many corruptions one with a row for each; and variants beside clean images."""
    many = robustness.has_many
    baselines = robustness.fair_baselines
    clean = [column for column in (robustness.clean, robustness.calibration) if column]
    means = robustness.families if many else robustness.corruptions
    columns = (*clean, *means, *robustness.errors, *(() if baselines else robustness.variants))
    notes = [*describe_data(robustness), *describe_intervals(robustness)]
    notes += describe_groups(robustness) if many else []
    notes += describe_relative(robustness)
    notes += [f"{subject.label}: {subject.chosen}." for subject in robustness.subjects if subject.chosen]
    usual = next((column.metric for column in columns if not column.lower_is_better), "top1")
    title = f"Robustness: {usual} in per cent, value ± half the width of its 95 % interval"
    tables = [_build_models(robustness, title, columns, usual, notes)]
    if many:
        tables.append(_build_corruptions(robustness))
    if baselines:
        pairs = [(column, baselines.get(column.name)) for column in robustness.variants]
        shown = tuple(column for pair in pairs for column in pair if column)
        title = "Variants beside clean images of the same classes, in per cent"
        tables.append(_build_models(robustness, title, shown, "top1", ()))
    return tables


def _build_models(
    robustness: Robustness, title: str, columns: tuple[Column, ...], usual: str, notes: Sequence[str]
) -> Table:
    """A row a model."""
    body = tuple(
        (Cell(subject.label), *(_format_cell(column, position) for column in columns))
        for position, subject in enumerate(robustness.subjects)
    )
    head = ("model", *(" ".join(name_column(column, usual)).strip() for column in columns))
    return Table(title, head, body, "l" + "r" * len(columns), (*notes, *_explain_bold(columns)))


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
        (SEVERITY_MEANS, *_explain_bold(robustness.corruptions)),
    )


def build_differences(robustness: Robustness, comparisons: Sequence[Comparison]) -> Table:
    """Paired differences, a row for each pair and condition."""
    subjects = robustness.subjects
    usual = comparisons[0].differences[0].metric
    body = []
    for pair in comparisons:
        title = f"{subjects[pair.second].label} − {subjects[pair.first].label}"
        body += [
            (Cell(title), Cell(name_difference(found, usual)), *_format_difference(found)) for found in pair.differences
        ]
    notes = [
        *describe_data(robustness),
        "Positive: the model named first is better.",
        "Of a mean over corruptions, each image counts with how often each model was right on it.",
        "Interval: 95 %, paired bootstrap over images; separable: it excludes 0. p: McNemar’s exact test, two-sided."
        " Neither is corrected for the number of comparisons.",
    ]
    if any(found.probability is None for pair in comparisons for found in pair.differences):
        notes.append(f"{MISSING}: no p of a mean, or no outcomes of both models for the same images.")
    beyond = [f"{subjects[second].label} − {subjects[first].label}" for first, second in list_pairs(subjects)]
    if beyond[MAX_PAIRS:]:
        notes.append(f"Not compared, being more than {MAX_PAIRS} pairs: {'; '.join(beyond[MAX_PAIRS:])}.")
    return Table(
        f"Paired differences: {describe_metric(usual)} on the same images, in points",
        ("models", "condition", "difference [interval]", "p", "n", "separable"),
        tuple(body),
        "llrrrl",
        tuple(notes),
        long=True,
    )


def _format_difference(found: Difference) -> tuple[Cell, ...]:
    estimate = found.estimate
    if estimate is None:
        return (Cell(MISSING, hint=suggest_command("robustness")),) * 4
    value, low, high = (_format_points(number) for number in (estimate.value, estimate.low, estimate.high))
    probability = found.probability
    p = MISSING if probability is None else "< 0.001" if probability < 0.0005 else f"{probability:.3f}"
    separable = "yes" if found.separable else "no"
    sources = list_sources(estimate)
    difference = Cell(f"{value} [{low}, {high}]", bold=found.separable, sources=sources)
    return difference, Cell(p, sources=sources), Cell(f"{estimate.n:,}"), Cell(separable)


def _format_points(fraction: float) -> str:
    text = f"{100 * fraction:+.1f}".replace("-", "−")
    return "0.0" if text[1:] == "0.0" else text


def build_published(name: str) -> Table:
    """The published numbers, one a row, with their source and how sure they are."""
    published = read_published(name)
    notes = [note for note in dict.fromkeys(published["note"]) if note]
    texts = published.astype("object").where(published.notna(), "").astype(str)
    shown = [column for column in PUBLISHED_COLUMNS if column in texts and texts[column].any()]
    body = []
    for row in texts.to_dict("records"):
        note = f"({notes.index(row['note']) + 1})" if row["note"] else ""
        body.append(tuple(Cell(text) for text in (*(row[column] or MISSING for column in shown), note)))
    legend = (
        *PUBLISHED_NOTES[name],
        "exact: read in, or computed from, the named file; secondary: quoted by somebody else, or inferred.",
        *(f"({number}) {note}" for number, note in enumerate(notes, start=1)),
    )
    head = (*(PUBLISHED_COLUMNS[column] for column in shown), "note")
    numbers = "printed" if published["value"].notna().all() else ""  # else texts stand among them
    sides = "".join("r" if column == numbers else "l" for column in (*shown, "note"))
    return Table(TITLES[name], head, tuple(body), sides, legend, long=True)


def _format_cell(column: Column, position: int) -> Cell:
    estimate = column.estimates[position]
    hint = "" if estimate else suggest_command("robustness")
    text = format_estimate(estimate)
    return Cell(text, bold=column.best() == position, sources=list_sources(estimate), hint=hint)


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


def write_table(stem: Path, tables: Sequence[Table], numbers: pd.DataFrame) -> list[Path]:
    """Writes tables as STEM.md and STEM.tex, and the numbers as STEM.csv."""
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
