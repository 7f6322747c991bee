"""Tables of suites that need no figure to be read: every metric by model, with interval and number of images."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from analysis.captions import format_interval, list_counts, name_metric
from analysis.formats import Cell, Table
from analysis.groups import Group, split_groups
from analysis.layout import wrap_items
from analysis.robustness.statistics import describe_subject
from analysis.sources import list_sources, read_estimate, suggest_command
from analysis.subjects import name_subjects
from pixmim_eval.types import Estimate

# the first and the last have tables of their own, the rows of the second are a figure's
APART = ("robustness", "reconstruction", "foreground")
WIDEST, LONGEST = 6, 40  # columns of numbers of one table; models of one that stays on a page
MISSING = "–"


def list_scores(rows: pd.DataFrame) -> list[tuple[str, Group]]:
    """Every group of comparable rows of the suites that have no tables of their own, with its suite."""
    suites = [suite for suite in dict.fromkeys(rows["suite"]) if suite not in APART]
    return [(suite, group) for suite in suites for group in split_groups(rows, suite)]


def build_scores(suite: str, group: Group) -> list[Table]:
    """Models as rows, metrics as columns; numbers of single classes, categories or observers are left to the CSV.

    Conditions of the same models share a table.
    """
    rows = group.rows
    models = {condition: frozenset(part["subject"]) for condition, part in rows.groupby("condition", sort=False)}
    tables = []
    for same in dict.fromkeys(models.values()):
        conditions = [condition for condition, found in models.items() if found == same]
        tables += _build_part(suite, group, rows[rows["condition"].isin(conditions)])
    return tables


def _build_part(suite: str, group: Group, rows: pd.DataFrame) -> list[Table]:
    subjects, positions = name_subjects(rows)
    named = {(row.condition, row.metric): row.unit for row in _list_rows(rows)}
    columns = [key for key in named if "/" not in key[1]] or [*named]
    conditions = {condition for condition, _ in named}
    found = {
        (position, row.condition, row.metric): read_estimate(row)
        for position, row in zip(positions, _list_rows(rows), strict=True)
    }
    methods = [subject.method.removeprefix("pixmim-") for subject in subjects]
    order = sorted(  # a method by epoch, each baseline before its PixMIM version
        enumerate(subjects), key=lambda one: (methods.index(methods[one[0]]), one[1].epoch or 0, one[1].is_pixmim)
    )
    notes = [
        *_describe(group, rows),
        *(f"{subject.label}: {subject.chosen}." for subject in subjects if subject.chosen),
    ]
    if left := len(named) - len(columns):
        notes.append(f"{left} more metrics, of single parts, stand in the CSV.")
    tables = []
    for part in wrap_items(columns, WIDEST):
        body = []
        for position, subject in order:
            known = [found.get((position, *column)) for column in part]
            if any(known):
                counts = list_counts(estimate.n for estimate in known if estimate)
                cells = [_write(estimate, suite) for estimate in known]
                body.append((Cell(subject.label), *cells, Cell(counts)))
        head = [
            ", ".join([*([condition] if len(conditions) > 1 else []), name_metric(metric)])
            + (" (%)" if named[condition, metric] == "fraction" else "")
            for condition, metric in part
        ]
        title = f"Suite {suite}, {', '.join(dict.fromkeys(rows['dataset']))}: value [95 % interval]"
        sides = "l" + "r" * (len(part) + 1)
        tables.append(Table(title, ("model", *head, "n"), tuple(body), sides, tuple(notes), long=len(body) > LONGEST))
    return tables


def tabulate_scores(scores: Iterable[tuple[str, Group]]) -> pd.DataFrame:
    """Every number in long form, one a row, raw."""
    numbers = ["suite", "dataset", "subset", "condition", "metric", "value", "low", "high", "n", "unit", "protocol"]
    parts = []
    for _, group in scores:
        named = pd.DataFrame([describe_subject(group.subjects[position]) for position in group.rows["subject"]])
        parts.append(pd.concat([named, group.rows[numbers].reset_index(drop=True)], axis=1))
    return pd.concat(parts, ignore_index=True).astype({"epoch": "Int64"})


def _write(estimate: Estimate | None, suite: str) -> Cell:
    if estimate is None:
        return Cell(MISSING, hint=suggest_command(suite))
    return Cell(format_interval(estimate), sources=list_sources(estimate))


def _list_rows(rows: pd.DataFrame) -> list[Any]:
    return list(rows.itertuples())


def _describe(group: Group, rows: pd.DataFrame) -> list[str]:
    conditions, subsets = {*rows["condition"]}, {*rows["subset"]} - {"all"}
    notes = [f"Condition: {conditions.pop()}."] if len(conditions) == 1 else []
    notes += [f"Images: {', '.join(sorted(subsets))}."] if subsets else []
    protocol = ", ".join(f"{key}={value}" for key, value in sorted(group.protocol.items()))
    return [*notes, f"Protocol: {protocol}."] if protocol else notes
