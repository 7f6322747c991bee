"""Paired differences between models on the same images: what survives when both saw exactly the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.columns import SEVERITIES, group_corruptions
from analysis.robustness.statistics import Robustness, describe_estimate, describe_subject
from analysis.sources import make_estimate, read_estimate
from analysis.subjects import IDENTITY, Subject
from pixmim_eval.errors import InputError
from pixmim_eval.metrics.corruption_error import ALEXNET_ERRORS, name_mean_error
from pixmim_eval.metrics.paired import mcnemar, paired_bootstrap, sign_flip
from pixmim_eval.types import Estimate

MAX_PAIRS = 12
STANDARD = tuple(ALEXNET_ERRORS)
_KEYS = [*IDENTITY, "suite", "dataset", "dataset_digest", "subset", "condition", "protocol", "metric"]


@dataclass(frozen=True)
class Difference:
    """By how much the accuracy of a pair's second model exceeds that of its first, on the images that both have.

    Args:
        kind, name: as of a Column: "clean", a "severity", a "corruption group", a "summary" or a "variant".
        metric: the accuracy, e.g. "top1".
        estimate: the difference, in [-1, 1], its paired-bootstrap interval, and how many images both have; None where a
            condition is missing.
        probability: McNemar's exact two-sided p of a single condition; None of means.
        parts: how many corruptions a mean is over.
    """

    kind: str
    name: str
    metric: str
    estimate: Estimate | None
    probability: float | None = None
    parts: int = 1

    @property
    def separable(self) -> bool:
        """Whether the interval excludes 0."""
        return self.estimate is not None and not self.estimate.low <= 0 <= self.estimate.high


@dataclass(frozen=True)
class Comparison:
    """All differences of one pair of models: positions among the group's subjects, and second minus first."""

    first: int
    second: int
    differences: tuple[Difference, ...]


def attach_hits(rows: pd.DataFrame, hits: pd.DataFrame) -> pd.DataFrame:
    """The rows with a column `hits`: int8 [N], one entry an image (1 right, 0 wrong, -1 left out); None where unknown.

    Args:
        rows: as read_rows gives.
        hits: as read_hits gives for the same folder.
    """
    known = dict(zip(_name_rows(hits), hits["hits"], strict=True))
    return rows.assign(hits=pd.Series([known.get(key) for key in _name_rows(rows)], index=rows.index, dtype=object))


def _name_rows(rows: pd.DataFrame) -> list[tuple[Any, ...]]:
    columns = [rows[name].astype(object).where(rows[name].notna(), None) for name in _KEYS]
    return list(zip(*columns, strict=True))


def compare_hits(first: np.ndarray | None, second: np.ndarray | None) -> tuple[Estimate, float] | None:
    """second − first on the images that both have, with its paired-bootstrap interval, and McNemar's p.

    Args:
        first, second: int8 [N] as attach_hits gives, or None.

    Returns:
        None where the outcomes of one are unknown, are of other images, or share none.
    """
    if first is None or second is None or len(first) != len(second):
        return None
    both = (first >= 0) & (second >= 0)
    if not both.any():
        return None
    one, other = first[both], second[both]
    return paired_bootstrap(other, one), mcnemar(other, one)


def compare_means(
    first: Sequence[np.ndarray | None], second: Sequence[np.ndarray | None]
) -> tuple[Estimate, float] | None:
    """second − first of the mean over some conditions of the same images, paired as compare_hits, and a sign-flip p.

    Each image counts with how often each model was right on it.

    Args:
        first, second: of each condition, as compare_hits.

    Returns:
        None where the outcomes of a condition are unknown, are of other images, or share none.
    """
    known = [hits for hits in (*first, *second) if hits is not None]
    if not first or len(known) < len(first) + len(second) or len({len(hits) for hits in known}) > 1:
        return None
    kept = np.all([hits >= 0 for hits in known], axis=0)
    if not kept.any():
        return None
    sides = (known[: len(first)], known[len(first) :])
    one, other = (np.sum([hits[kept] for hits in side], axis=0, dtype=np.int64) for side in sides)
    # Only the difference counts. With the smaller count taken off both, equal differences are equal floats.
    lead = (other - np.minimum(one, other)) / len(first), (one - np.minimum(one, other)) / len(first)
    return paired_bootstrap(*lead), sign_flip(np.asarray(other - one))


def list_pairs(subjects: tuple[Subject, ...]) -> list[tuple[int, int]]:
    """A baseline and its PixMIM version each; where there are none, every model against the first."""
    count = len(subjects)
    families = [
        (first, second)
        for first in range(count)
        for second in range(first + 1, count)
        if subjects[first].family == subjects[second].family
    ]
    return families or [(0, second) for second in range(1, count)]


def compare_models(robustness: Robustness) -> list[Comparison]:
    """Each pair's differences on clean images, groups of corruptions, all corruptions, and variants.

    A mean over corruptions is compared image by image: each image counts with how often each model was right on it.
    Empty where no pair has outcomes image by image. Of more than twelve pairs, the first twelve.
    """
    outcomes = _Outcomes(robustness)
    comparisons = []
    for pair in list_pairs(robustness.subjects)[:MAX_PAIRS]:
        clean = (robustness.clean,) if robustness.clean else ()
        found = [outcomes.compare(pair, column.kind, column.name, column.metric) for column in clean]
        found += [outcomes.compare_mean(pair, *mean) for mean in _list_means(robustness)]
        found += [outcomes.compare(pair, column.kind, column.name, column.metric) for column in robustness.variants]
        if any(difference.estimate for difference in found):
            comparisons.append(Comparison(*pair, tuple(found)))
    return comparisons


def compare_cells(robustness: Robustness) -> list[Comparison]:
    """Each pair's differences on clean images and on every corruption at every severity; else as compare_models."""
    outcomes = _Outcomes(robustness)
    comparisons = []
    columns = {column.name: column for curve in robustness.curves.values() for column in curve}
    for pair in list_pairs(robustness.subjects)[:MAX_PAIRS]:
        found = tuple(outcomes.compare(pair, column.kind, column.name, column.metric) for column in columns.values())
        if any(difference.estimate for difference in found):
            comparisons.append(Comparison(*pair, found))
    return comparisons


def _list_means(robustness: Robustness) -> list[tuple[str, str, str, tuple[str, ...]]]:
    """(kind, name, metric, corruptions) of the groups and of all; ImageNet-C's fifteen apart where there are more."""
    names = tuple(robustness.curves)
    if not names:
        return []
    metric = robustness.corruptions[0].metric
    found = [("corruption group", group, metric, members) for group, members in group_corruptions(names).items()]
    if set(STANDARD) < set(names):
        found.append(("summary", "mean_error_15", metric, STANDARD))
    try:
        return [*found, ("summary", name_mean_error(names), metric, names)]
    except InputError:  # fifteen others than the published ones: their mean has no name
        return found


class _Outcomes:
    """How each image fared under each model and condition of a group."""

    def __init__(self, robustness: Robustness) -> None:
        rows = robustness.group.rows
        self._hits: dict[tuple[int, str, str], np.ndarray] = {}
        self._rows: dict[tuple[int, str, str], Estimate] = {}
        if "hits" in rows:
            keys = list(zip(rows["subject"], rows["condition"], rows["metric"], strict=True))
            self._hits = {key: hits for key, hits in zip(keys, rows["hits"], strict=True) if hits is not None}
            self._rows = {key: read_estimate(row) for key, row in zip(keys, rows.itertuples(index=False), strict=True)}

    def compare(self, pair: tuple[int, int], kind: str, condition: str, metric: str) -> Difference:
        """One condition's difference, with McNemar's p."""
        first, second = (self._hits.get((position, condition, metric)) for position in pair)
        found = compare_hits(first, second)
        if found is None:
            return Difference(kind, condition, metric, None)
        return Difference(kind, condition, metric, self._trace(pair, found[0], [condition], metric), found[1])

    def compare_mean(
        self, pair: tuple[int, int], kind: str, name: str, metric: str, corruptions: tuple[str, ...]
    ) -> Difference:
        """The difference of means over corruptions, each at all five severities."""
        cells = [f"{corruption}/{severity}" for corruption in corruptions for severity in SEVERITIES]
        first, second = ([self._hits.get((position, cell, metric)) for cell in cells] for position in pair)
        found = compare_means(first, second)
        if found is None:
            return Difference(kind, name, metric, None, parts=len(corruptions))
        estimate = self._trace(pair, found[0], cells, metric)
        return Difference(kind, name, metric, estimate, parts=len(corruptions))

    def _trace(self, pair: tuple[int, int], found: Estimate, conditions: Iterable[str], metric: str) -> Estimate:
        """The same difference, of the rows of both models under these conditions."""
        rows = [self._rows[position, condition, metric] for position in pair for condition in conditions]
        return make_estimate(found.value, found.low, found.high, found.n, found.unit, rows)


def tabulate_differences(robustness: Robustness, comparisons: Iterable[Comparison]) -> pd.DataFrame:
    """Every difference in long form, one a row, raw fractions; what could not be compared has an empty value."""
    subjects = robustness.subjects
    records = [
        {
            **{f"first_{name}": value for name, value in describe_subject(subjects[pair.first]).items()},
            **{f"second_{name}": value for name, value in describe_subject(subjects[pair.second]).items()},
            "dataset": robustness.group.dataset,
            "kind": found.kind,
            "condition": found.name,
            "metric": found.metric,
            **describe_estimate(found.estimate),
            "mcnemar_p": found.probability,
            "separable": ("yes" if found.separable else "no") if found.estimate else None,
            "protocol": ";".join(f"{key}={value}" for key, value in sorted(robustness.group.protocol.items())),
        }
        for pair in comparisons
        for found in pair.differences
    ]
    return pd.DataFrame(records).astype({"first_epoch": "Int64", "second_epoch": "Int64", "n": "Int64"})
