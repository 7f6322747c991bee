"""What a reader must know of the rows before trusting what is made of them; nothing of it stops a report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.captions import format_interval
from analysis.formats import Cell, Table
from analysis.groups import split_protocol
from analysis.report.overview import format_time
from analysis.report.parts import Sheet
from analysis.shape_bias.numbers import PEOPLE, TRIALS
from analysis.sources import list_sources, read_estimate
from pixmim_eval.errors import InputError
from pixmim_eval.types import Estimate

MEASUREMENT = ["weights_digest", "suite", "dataset_digest", "subset", "condition", "procedure", "metric", "seed"]
"""What makes two rows the same measurement; `procedure` is the protocol less what a fitted head chose."""

_PLACE = [*MEASUREMENT, "model", "method", "epoch", "dataset"]  # with the run: what stands in one place of a table
_NUMBERS = ["value", "low", "high", "n"]
_LONGEST = 100  # contradictions of the table; the CSV has them all
NOWHERE, BESIDE = "nowhere", "side by side"


@dataclass(frozen=True)
class Problems:
    """What is wrong with rows, or may be.

    Args:
        kept: the rows that tables and figures may be made of: those that contradict each other in one run are left out;
            runs of one name that contradict each other have their folder in their name.
        sentences: one a problem.
        sheets: the rows that contradict each other, if there are any.
    """

    kept: pd.DataFrame
    sentences: tuple[str, ...]
    sheets: tuple[Sheet, ...]


def find_problems(rows: pd.DataFrame) -> Problems:
    """Looks for contradictions, mixed versions and data, and rows that nobody can make again.

    Two rows contradict each other where the same weights were measured in the same way on the same data and the numbers
    differ. None of them is right by itself, so that none is taken and nothing is averaged: of one run, neither stands
    in a table or figure; of several runs, or under several names of a model, both do, each as a model of its own.

    Args:
        rows: ResultRow columns and `source`; `folder` too where the run folders are known.
    """
    unreadable = _list_unreadable(rows)
    rows = _prepare(rows[~rows["protocol"].isin(unreadable)])
    contradictory = _differ(rows, MEASUREMENT)
    clashing = _differ(rows, _PLACE)
    kept = rows[~clashing]
    kept = kept.assign(run=_tell_runs(kept, rows[contradictory & ~clashing]))
    found = rows[contradictory].assign(shown=np.where(clashing[contradictory], NOWHERE, BESIDE))
    sentences = (
        *(f"Rows whose protocol cannot be read stand in no table or figure: {protocol}" for protocol in unreadable),
        *_describe_contradictions(found),
        *_describe_data(rows),
        *_describe_versions(rows),
        *_describe_unknown(rows),
    )
    sheets = (Sheet("contradictions", (_build_table(found),), _tabulate(found)),) if len(found) else ()
    return Problems(kept.drop(columns=["procedure", "place"]), sentences, sheets)


def _list_unreadable(rows: pd.DataFrame) -> list[str]:
    """Protocols that are not "key=value;key=value"."""
    found = []
    for protocol in rows["protocol"].unique():
        try:
            split_protocol(protocol)
        except InputError:
            found.append(protocol)
    return found


def _prepare(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with `folder`, `procedure`, and `place`: the run as tables tell them apart."""
    procedures = {protocol: split_protocol(protocol)[0] for protocol in rows["protocol"].unique()}
    folder = rows["folder"] if "folder" in rows else pd.Series("", index=rows.index)
    # Boxes have no model, and answers in files are the same in every run: their tables have one place for all runs.
    alike = (rows["suite"] == "foreground") | rows["method"].isin([PEOPLE, TRIALS])
    place = (rows["run"].astype(str) + "\0" + folder.astype(str)).where(~alike, "")
    return rows.assign(folder=folder, procedure=rows["protocol"].map(procedures), place=place)


def _differ(rows: pd.DataFrame, keys: list[str]) -> pd.Series:
    """Whether a row has the same keys as another, and another number."""
    columns = [*keys, "place"] if keys is _PLACE else keys
    distinct = rows[[*columns, *_NUMBERS]].drop_duplicates()
    several = distinct[distinct.duplicated(columns, keep=False)][columns].drop_duplicates()
    if several.empty:
        return pd.Series(False, index=rows.index)
    return (
        rows[columns]
        .merge(several.assign(several=True), how="left", on=columns)["several"]
        .notna()
        .set_axis(rows.index)
    )


def _tell_runs(kept: pd.DataFrame, contradictory: pd.DataFrame) -> pd.Series:
    """The names of runs, with the folder behind those that one name is given to and whose models contradict."""
    pairs = contradictory[["weights_digest", "run", "folder"]].drop_duplicates()
    pairs = pairs[pairs.duplicated(["weights_digest", "run"], keep=False)]
    unclear = set(zip(pairs["weights_digest"], pairs["run"], strict=True))
    keys = zip(kept["weights_digest"], kept["run"], strict=True)
    told = pd.Series([key in unclear for key in keys], index=kept.index, dtype=bool)
    return kept["run"].where(~told, kept["run"] + " in " + kept["folder"])


def _describe_contradictions(found: pd.DataFrame) -> list[str]:
    if found.empty:
        return []
    sentences = []
    for shown, ending in (
        (NOWHERE, "of one run and stand in no table or figure"),
        (BESIDE, "of several runs, or names of a model, and stand side by side, each as a model of its own"),
    ):
        rows = found[found["shown"] == shown]
        count = len(rows[MEASUREMENT].drop_duplicates())
        if count:
            sentences.append(
                f"Of {count:,} measurement{'s' * (count > 1)} there are {len(rows):,} rows that contradict each other:"
                f" they are {ending}. The table of contradictory rows lists them with time and command."
            )
    return sentences


def _describe_data(rows: pd.DataFrame) -> list[str]:
    """Within a suite, as one set has several where one suite reads its images and another its boxes."""
    digests: Any = rows.groupby(["suite", "dataset"], sort=False)["dataset_digest"]
    return [
        f"In the suite {suite}, the name {dataset} stands for {len(found)} sets with different content"
        f" (digests {', '.join(sorted(digest[:6] for digest in found))}): tables keep them apart."
        for (suite, dataset), found in ((key, {*part}) for key, part in digests)
        if len(found) > 1
    ]


def _describe_versions(rows: pd.DataFrame) -> list[str]:
    """A sentence for each package of which rows name several versions."""
    counts: dict[str, dict[str, int]] = {}
    for versions, count in rows["versions"].value_counts(sort=False).items():
        for piece in str(versions).split(";"):
            package, _, version = piece.partition("=")
            found = counts.setdefault(package, {})
            found[version] = found.get(version, 0) + int(count)
    return [
        f"Rows were made with several versions of {package}: "
        + ", ".join(f"{version or 'unknown'} ({count:,} rows)" for version, count in sorted(found.items()))
        + "."
        for package, found in counts.items()
        if len(found) > 1
    ]


def _describe_unknown(rows: pd.DataFrame) -> list[str]:
    unknown, skipped = int((rows["command"] == "").sum()), int((rows["skipped"] > 0).sum())
    sentences = []
    if unknown:
        sentences.append(
            f"{unknown:,} of {len(rows):,} rows do not say which command made them: they were written before rows did."
        )
    if skipped:
        sentences.append(f"{skipped:,} rows leave out images that could not be read; each says how many (skipped).")
    return sentences


def _build_table(found: pd.DataFrame) -> Table:
    """The contradictory rows, those of one number below each other, the largest differences first."""
    spread: Any = found.groupby(MEASUREMENT, sort=False)["value"]
    order = (spread.transform("max") - spread.transform("min")).sort_values(ascending=False, kind="stable").index
    ordered = found.loc[order]
    body: list[tuple[Cell, ...]] = []
    parts: Any = ordered.groupby(MEASUREMENT, sort=False)
    for _, part in parts:
        if len(body) + len(part) > _LONGEST and body:
            break
        body += [_list_cells(row) for row in part.itertuples()]
    notes = [
        "Rows below each other with one model, suite, data, condition and metric are of the same weights, data (by"
        " content), images, protocol and seed, and yet differ in value, interval or n.",
        f"Shown {NOWHERE}: they are of one run, so that no table can tell them apart. Shown {BESIDE}: of several"
        " runs, or names of a model.",
    ]
    if len(body) < len(found):
        notes.append(f"{len(found) - len(body):,} more rows, which differ less, stand in the CSV.")
    head = (
        "model",
        "suite",
        "data",
        "condition",
        "metric",
        "value [95 % interval]",
        "n",
        "shown",
        "time (UTC)",
        "run",
        "command",
    )
    return Table("Contradictory rows", head, tuple(body), "lllllrrllll", tuple(notes), long=True)


def _list_cells(row: Any) -> tuple[Cell, ...]:
    estimate: Estimate = read_estimate(row)
    sources = list_sources(estimate)
    number = Cell(format_interval(estimate), sources=sources)
    texts = (row.shown, format_time(row.time), row.folder or row.run, row.command or "unknown")
    named = (row.model, row.suite, row.dataset, row.condition, row.metric)
    return (*map(Cell, named), number, Cell(f"{row.n:,}", sources=sources), *map(Cell, texts))


def _tabulate(found: pd.DataFrame) -> pd.DataFrame:
    names = ["model", *MEASUREMENT, *_NUMBERS, "unit", "shown", "time", "run", "folder", "command", "source"]
    return found[names].sort_values([*MEASUREMENT, "source"], kind="stable")
