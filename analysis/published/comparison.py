"""Our numbers beside published ones: how far apart they are where both were made alike, and else what differs."""

from __future__ import annotations

import string
from dataclasses import dataclass
from itertools import count, product
from typing import Any

import pandas as pd

from analysis.captions import format_interval, format_value, name_metric
from analysis.formats import Cell, Table
from analysis.published import PublishedNumber, list_numbers
from analysis.published.identity import Identity, identify
from analysis.published.protocol import TARGETS, Target, list_deviations
from analysis.report.parts import Sheet
from analysis.sources import list_sources, read_estimate
from analysis.subjects import name_subjects
from pixmim_eval.types import Estimate

MISSING = "–"
OTHER = "not the same protocol"
FINE_TUNED = ", fine-tuned"  # ends the method of published classifiers
_NUMBER = [
    "suite",
    "condition",
    "metric",
    "dataset",
    "dataset_digest",
    "subset",
    "protocol",
    "value",
    "low",
    "high",
    "n",
]


@dataclass(frozen=True)
class PublishedComparison:
    """A number of ours and a published one.

    Args:
        label: whose number it is, unique where two models share a name.
        suite, condition, metric, dataset: of ours.
        ours: a fraction, or a ratio as mCE is.
        published: in per cent or points.
        deviations: what keeps the published number from applying; () where both were made alike.
    """

    label: str
    suite: str
    condition: str
    metric: str
    dataset: str
    ours: Estimate
    published: PublishedNumber
    deviations: tuple[str, ...]

    @property
    def difference(self) -> float | None:
        """Ours less the published one, in points; None where they were not made alike."""
        return None if self.deviations else 100 * self.ours.value - self.published.value

    @property
    def judgement(self) -> str:
        """In words: what differs, or where the published number lies."""
        if self.deviations:
            return f"{OTHER}: {'; '.join(self.deviations)}"
        digits = len(self.published.printed.partition(".")[2])
        slack = 0.5 * 10**-digits  # the published number is rounded
        if self.published.value + slack < 100 * self.ours.low:
            return "same protocol; the published number lies below our interval"
        if self.published.value - slack > 100 * self.ours.high:
            return "same protocol; the published number lies above our interval"
        return "same protocol; the published number lies in our interval"


def list_comparison_sheets(rows: pd.DataFrame) -> list[Sheet]:
    """The table with its numbers; none where no number of ours has a published counterpart."""
    found = list_comparisons(rows)
    return [Sheet("published-comparison", (build_comparison(found),), tabulate_comparisons(found))] if found else []


def list_comparisons(rows: pd.DataFrame) -> tuple[PublishedComparison, ...]:
    """Each number of ours that has a published counterpart, with the nearest of them.

    Published numbers of the same method and measure are its counterparts; those stand beside it that fewest things set
    apart; of these those of the nearest number of epochs, of the first backbone, and of a known recipe. Several where
    they are from several sources.

    Args:
        rows: ResultRow columns, any number of runs and suites; `source` where numbers shall name their rows.
    """
    rows = rows.drop_duplicates(["model", "weights_digest", "epoch", *_NUMBER])
    answers = rows[rows["method"].isin(["people", "trials"])]  # one number, whichever suite and run read it
    rows = rows.drop(answers.index[answers.duplicated(["model", "condition", "metric", "value", "n"])])
    found: list[tuple[Any, PublishedNumber, tuple[str, ...]]] = []
    suites = set(rows["suite"])
    for target in (target for target in TARGETS if target.rows[0] in suites):
        for row in _select(rows, target).itertuples():
            identity = identify(row)
            found += [(row, *pair) for pair in _find_nearest(row, identity, target)]
    labels = _label_rows(rows.loc[sorted({row.Index for row, _, _ in found})]) if found else {}
    return tuple(
        PublishedComparison(
            labels[row.Index],
            *(row.suite, row.condition, row.metric, row.dataset),
            read_estimate(row),
            published,
            deviations,
        )
        for row, published, deviations in found
    )


def _select(rows: pd.DataFrame, target: Target) -> pd.DataFrame:
    """The rows that a published number may stand beside."""
    suite, condition, metrics = target.rows
    rows = rows[rows["suite"] == suite]
    right = rows["condition"].str.fullmatch(condition) & rows["metric"].str.fullmatch(metrics)
    return rows[right & rows["method"].str.fullmatch(target.methods)]


def _find_nearest(row: Any, identity: Identity, target: Target) -> list[tuple[PublishedNumber, tuple[str, ...]]]:
    """The nearest counterparts of a row, each with what sets it apart."""
    table, dataset, metric = target.published
    known = [one for one in list_numbers(table) if (one.dataset, one.metric) == (dataset, metric)]
    known = [one for one in known if one.method.removesuffix(FINE_TUNED) == identity.method]
    if identity.method.startswith("supervised"):  # of many architectures, which have nothing in common
        known = [one for one in known if one.backbone == identity.backbone]
    judged = [(one, list_deviations(row, identity, target, one)) for one in known]
    order = list(dict.fromkeys(one.backbone for one in known))
    ranks = [
        (
            *(len(deviations), abs((one.epochs or 0) - (identity.epochs or 0)), one.epochs or 0),
            *(order.index(one.backbone), not one.recipe),
        )
        for one, deviations in judged
    ]
    return [pair for pair, rank in zip(judged, ranks, strict=True) if rank == min(ranks)]


def _label_rows(rows: pd.DataFrame) -> dict[Any, str]:
    """What the owner of each row is called, whatever run it is of; of crops, the crop."""
    subjects, positions = name_subjects(rows.assign(run="", seed=0, chosen=""))
    crops = rows["condition"].where(rows["suite"] == "foreground", "")
    pairs = zip(rows.index, crops, positions, strict=True)
    return {index: crop or subjects[position].label for index, crop, position in pairs}


def build_comparison(comparisons: tuple[PublishedComparison, ...]) -> Table:
    """A pair of numbers a row; a difference only where both were made alike.

    What sets pairs apart, and where published numbers are from, stands once below: rows name it by letter and number.
    """
    origins = list(dict.fromkeys(_describe_source(one.published) for one in comparisons))
    letters = _name_deviations(comparisons)
    body = []
    for same in _gather(comparisons):
        one = same[0]
        measured = f"{one.suite}, {one.condition}: {name_metric(one.metric)}, {one.dataset}"
        ours = Cell(_format_ours(one.ours), sources=list_sources(one.ours))
        printed = "; ".join(pair.published.printed for pair in same)
        sources = _list_origins([pair.published for pair in same], origins)
        difference = MISSING if one.difference is None else format_value(one.difference / 100, "fraction", "+")
        judgement = (
            f"{OTHER}: {', '.join(letters[said] for said in one.deviations)}" if one.deviations else one.judgement
        )
        rest = (f"{one.ours.n:,}", printed, _name_published(one.published), sources, difference, judgement)
        body.append((Cell(one.label), Cell(measured), ours, *map(Cell, rest)))
    head = ("whose", "number", "ours [95 % interval]", "n", "published", "of", "source", "difference", "judgement")
    notes = (
        "Per cent, AP, mIoU or mCE points; difference: ours less the published number, where both were made alike.",
        "Beside each number stand the published ones that fewest things set apart; numbers without a counterpart are "
        "left out. Backbones, and epochs of public weights, are read from the names of models and files.",
        *(f"({letter}) {said}" for said, letter in letters.items()),
        "exact: read in, or computed from, the named file; secondary: quoted by somebody else, or inferred.",
        *(f"({number}) {origin}" for number, origin in enumerate(origins, start=1)),
    )
    return Table("Ours beside published numbers", head, tuple(body), "llrrrllrl", notes, long=True)


def _name_deviations(comparisons: tuple[PublishedComparison, ...]) -> dict[str, str]:
    """What sets numbers apart -> a, b, …, z, aa, …, in the order of the rows."""
    said = dict.fromkeys(deviation for one in comparisons for deviation in one.deviations)
    names = ("".join(letters) for length in count(1) for letters in product(string.ascii_lowercase, repeat=length))
    return dict(zip(said, names, strict=False))


def _list_origins(published: list[PublishedNumber], origins: list[str]) -> str:
    """How sure their sources are, and the sources by their numbers: "exact (1, 2), secondary (3)"."""
    numbers: dict[str, list[str]] = {}
    for one in published:
        numbers.setdefault(one.confidence, []).append(str(origins.index(_describe_source(one)) + 1))
    return ", ".join(f"{confidence} ({', '.join(found)})" for confidence, found in numbers.items())


def _gather(comparisons: tuple[PublishedComparison, ...]) -> list[list[PublishedComparison]]:
    """Those of one number of ours together whose published numbers differ in their source alone and do not apply."""
    gathered: dict[tuple[object, ...], list[PublishedComparison]] = {}
    for place, one in enumerate(comparisons):
        place_of_ours = (one.label, one.suite, one.condition, one.metric, one.dataset, one.ours)
        alike = (*place_of_ours, _name_published(one.published), one.deviations)
        gathered.setdefault(alike if one.deviations else (place,), []).append(one)
    return list(gathered.values())


def _format_ours(estimate: Estimate) -> str:
    """In points, as published numbers are, of ratios too."""
    return format_interval(Estimate(estimate.value, estimate.low, estimate.high, estimate.n))


def _name_published(published: PublishedNumber) -> str:
    epochs = f"{published.epochs:,} epochs" if published.epochs else ""
    return ", ".join(filter(None, (published.method, published.backbone, epochs)))


def _describe_source(published: PublishedNumber) -> str:
    return "; ".join(filter(None, (published.source, published.note)))


def tabulate_comparisons(comparisons: tuple[PublishedComparison, ...]) -> pd.DataFrame:
    """Every pair in long form, raw: ours as fractions or ratios, published numbers and differences in points."""
    columns = ["label", "suite", "condition", "metric", "dataset", "value", "low", "high", "n", "unit"]
    columns += ["published", "published_method", "backbone", "epochs", "published_dataset", "published_metric"]
    columns += ["source", "confidence", "note", "difference", "judgement"]
    body = []
    for one in comparisons:
        ours, theirs = one.ours, one.published
        body.append(
            (
                *(one.label, one.suite, one.condition, one.metric, one.dataset),
                *(ours.value, ours.low, ours.high, ours.n, ours.unit),
                *(theirs.value, theirs.method, theirs.backbone, theirs.epochs, theirs.dataset, theirs.metric),
                *(theirs.source, theirs.confidence, theirs.note, one.difference, one.judgement),
            )
        )
    return pd.DataFrame(body, columns=columns).astype({"epochs": "Int64", "difference": "float64"})
