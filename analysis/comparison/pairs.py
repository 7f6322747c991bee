"""The same number of two checkpoints: which ones there are, their difference, and how probable it is by chance."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.columns import CORRUPTION_GROUPS, SEVERITIES, find_direction, group_corruptions, sort_corruptions
from analysis.differences import STANDARD, compare_hits, compare_means
from analysis.groups import SUMMARY, is_corrupted, parse_protocol, split_protocol
from analysis.separability import subtract
from analysis.sources import make_estimate, read_estimate
from pixmim_eval.types import Estimate

PAIRED, PAIRED_MEAN, FROM_INTERVALS, UNKNOWN = "McNemar", "sign flip", "from intervals", "none"
TESTS = {
    PAIRED: "McNemar’s exact test on the same images",
    PAIRED_MEAN: "the sign-flip test on the same images, each counted with how often it was right",
    FROM_INTERVALS: "from the two intervals, not paired",
    UNKNOWN: "not tested, as an interval has no width",
}


class Setting(NamedTuple):
    """Under what a number was measured; equal for two that may be compared."""

    suite: str
    dataset_digest: str
    subset: str
    procedure: str
    seed: int
    unit: str
    condition: str
    metric: str


@dataclass(frozen=True)
class Measured:
    """One number of one checkpoint.

    Args:
        estimate: with the rows that it is of.
        dataset: its name.
        hits: int8 [N], how every image fared (see attach_hits); None where unknown.
        command: that made it.
    """

    estimate: Estimate
    dataset: str
    hits: np.ndarray | None
    command: str


@dataclass(frozen=True)
class Difference:
    """By how much B's number exceeds A's.

    Args:
        setting: of both; of a mean over corruptions, `condition` says of which.
        dataset: its name.
        first, second: the two numbers.
        estimate: B − A.
        direction: 1 where more is better, -1 where less is, 0 where neither is.
        test: one of TESTS.
        probability: two-sided p; None where there is no test.
        adjusted: the same corrected for the number of tests (Holm).
        parts: how many conditions a mean is over.
    """

    setting: Setting
    dataset: str
    first: Estimate
    second: Estimate
    estimate: Estimate
    direction: int
    test: str
    probability: float | None
    adjusted: float | None = None
    parts: int = 1

    @property
    def separable(self) -> bool:
        """Whether the corrected test excludes chance."""
        return self.adjusted is not None and self.adjusted < 0.05


Side = Mapping[Setting, Measured]


def read_side(rows: pd.DataFrame) -> dict[Setting, list[Measured]]:
    """The numbers of one checkpoint's rows; several of one setting where they are not the same."""
    procedures = {protocol: split_protocol(protocol)[0] for protocol in rows["protocol"].unique()}
    found: dict[Setting, list[Measured]] = {}
    for row in rows.itertuples(index=False):
        one: Any = row
        setting = Setting(
            one.suite,
            one.dataset_digest,
            one.subset,
            procedures[one.protocol] + _name_target(one),
            int(one.seed),
            one.unit,
            one.condition,
            one.metric,
        )
        measured = Measured(read_estimate(one), one.dataset, getattr(one, "hits", None), one.command)
        known = found.setdefault(setting, [])
        same = next((place for place, other in enumerate(known) if other.estimate == measured.estimate), None)
        if same is None:
            known.append(measured)
        elif known[same].hits is None:  # the same number again, from a run that may know more
            known[same] = measured
    return found


def _name_target(row: Any) -> str:
    """What a model's own loss is a loss of, as a setting more; "" of other metrics.

    Losses of other targets are other quantities. Where a checkpoint does not tell its target, its method stands for it.
    """
    if row.metric != "loss":
        return ""
    told = parse_protocol(row.pretraining)
    target = "-".join(told[key] for key in ("target", "radius") if key in told)
    return f";target={target or f'of {row.method}'}"


def list_differences(first: Side, second: Side, *, swapped: bool = False) -> tuple[list[Difference], list[Difference]]:
    """Every difference of what both have: those of a page, and the single ones.

    Single are corruptions at one severity, parts of a metric (a class, a band of frequencies) and settings of k-NN
    beside the one that stands for them, where a suite has anything else. Means over the corruptions of a group stand
    for their cells, where no summary of the suite's own does.

    Args:
        first, second: A's and B's numbers.
        swapped: resample as if A were B, so that comparing B with A gives the exact negative.
    """
    shared = [setting for setting in first if setting in second]
    families = _find_families(shared)
    page: list[Difference] = []
    singles: list[Difference] = []
    for setting in shared:
        cells = families.get(_strip(setting), {}).get(_find_metric(setting.metric), {})
        parts = _find_cells(setting, cells) if setting.condition == SUMMARY else ()
        found = _compare(setting, parts, first, second, swapped)
        (singles if _is_single(setting) else page).append(found)
    page += _average_cells(families, first, second, swapped)
    suites = {found.setting.suite for found in page}
    promoted = [found for found in singles if found.setting.suite not in suites]
    return page + promoted, [found for found in singles if found.setting.suite in suites]


def _is_single(setting: Setting) -> bool:
    return (
        is_corrupted(setting.condition)
        or "/" in setting.metric
        or re.fullmatch(r"top1_k\d+_\w+", setting.metric) is not None
    )


def _strip(setting: Setting) -> Setting:
    return setting._replace(condition="", metric="")


def _find_metric(error: str) -> str:
    """The accuracy that a mean error is one less of: "mean_error_noise_masked200" is of "top1_masked200"."""
    match = re.fullmatch(r"mean_error_[a-z0-9]+((?:_masked|_full)\d+)?", error)
    return f"top1{match[1] or ''}" if match else ""


Cells = dict[str, list[Setting]]


def _find_families(shared: list[Setting]) -> dict[Setting, dict[str, Cells]]:
    """Settings less condition and metric -> accuracy -> corruption -> its five cells, of those that are complete."""
    found: dict[Setting, dict[str, Cells]] = {}
    for setting in shared:
        if is_corrupted(setting.condition) and setting.metric.startswith("top1"):
            metrics = found.setdefault(_strip(setting), {})
            corruption = setting.condition.rpartition("/")[0]
            metrics.setdefault(setting.metric, {}).setdefault(corruption, []).append(setting)
    return {
        family: {
            metric: {name: cells[name] for name in sort_corruptions(cells) if len(cells[name]) == len(SEVERITIES)}
            for metric, cells in metrics.items()
        }
        for family, metrics in found.items()
    }


def _find_cells(summary: Setting, cells: Cells) -> tuple[Setting, ...]:
    """The cells that a mean error of a summary is over; none where they are not all there, or it is another metric."""
    match = re.match(r"mean_error_([a-z]+|\d+)", summary.metric)
    if match is None:
        return ()
    name = match[1]
    groups = {**CORRUPTION_GROUPS, str(len(cells)): tuple(cells), str(len(STANDARD)): STANDARD}
    members = groups.get(name, ())
    return tuple(cell for member in members for cell in cells[member]) if {*members} <= {*cells} else ()


def _average_cells(
    families: Mapping[Setting, Mapping[str, Cells]], first: Side, second: Side, swapped: bool
) -> Iterator[Difference]:
    """Differences of mean accuracies over groups of corruptions that no mean error of the suite's own stands for."""
    for family, metrics in families.items():
        for metric, cells in metrics.items():
            groups = {
                name if {*members} == {*CORRUPTION_GROUPS.get(name, ())} else ", ".join(members): members
                for name, members in group_corruptions(cells).items()
            }
            if len(groups) > 1:
                groups[f"all {len(cells)} corruptions"] = tuple(cells)
            suffix = metric.removeprefix("top1")
            for name, members in groups.items():
                own = name if name in CORRUPTION_GROUPS else str(len(members))
                stands = family._replace(condition=SUMMARY, metric=f"mean_error_{own}{suffix}")
                if stands not in first or stands not in second:
                    parts = tuple(cell for member in members for cell in cells[member])
                    yield _compare(family._replace(condition=name, metric=metric), parts, first, second, swapped)


def _compare(setting: Setting, parts: tuple[Setting, ...], first: Side, second: Side, swapped: bool) -> Difference:
    """One difference; of a mean over some cells where there are parts."""
    sides = [side.get(setting) or _average(side, parts) for side in (first, second)]
    one, other = sides
    hits = [
        [side[part].hits for part in parts] if parts else [found.hits]
        for side, found in ((first, one), (second, other))
    ]
    order = (1, 0) if swapped else (0, 1)
    compare = compare_means if parts else lambda a, b: compare_hits(a[0], b[0])
    paired = compare(*(hits[place] for place in order))
    traced = [one.estimate, other.estimate]
    probability: float | None
    if paired:
        test, probability = PAIRED_MEAN if parts else PAIRED, paired[1]
        # A mean error's parts are accuracies: it falls where they rise.
        turned = bool(parts) and setting.condition == SUMMARY
        estimate = _negate(paired[0]) if swapped != turned else paired[0]
        traced += [side[part].estimate for side in (first, second) for part in parts]
    else:
        estimate = subtract(other.estimate, one.estimate)
        probability = judge_intervals(estimate)
        test = UNKNOWN if probability is None else FROM_INTERVALS
    estimate = make_estimate(estimate.value, estimate.low, estimate.high, estimate.n, one.estimate.unit, traced)
    direction = find_direction(setting.metric)
    count = max(len(parts), 1)
    return Difference(
        setting, one.dataset, one.estimate, other.estimate, estimate, direction, test, probability, parts=count
    )


def _average(side: Side, parts: tuple[Setting, ...]) -> Measured:
    """The mean of some cells; its bounds are the means of theirs, which is conservative as they share their images."""
    found = [side[part] for part in parts]
    known = [one.estimate for one in found]
    value, low, high = (sum(getattr(one, name) for one in known) / len(known) for name in ("value", "low", "high"))
    estimate = make_estimate(value, low, high, min(one.n for one in known), known[0].unit, known)
    return replace(found[0], estimate=estimate, hits=None)


def _negate(estimate: Estimate) -> Estimate:
    return replace(estimate, value=-estimate.value, low=-estimate.high, high=-estimate.low)


def judge_intervals(difference: Estimate) -> float | None:
    """A two-sided p of a difference whose interval follows from those of two numbers (separability.subtract).

    With d = b − a, the bounds are d − √((b − b_low)² + (a_high − a)²) and d + √((b_high − b)² + (a − a_low)²). That
    assumes two independent numbers; on the same images they rise and fall together, so that the interval is too wide,
    if anything, and p too large. It is the normal's, p = 2 Φ(−1.96 |d| / w) with w the distance from d to the bound on
    the side of 0: below 0.05 exactly where the interval excludes 0.

    Args:
        difference: d with its bounds.

    Returns:
        None where the interval has no width on the side of 0.

    Source: Zou and Donner, Statistics in Medicine 2008, equation 3, for the bounds.
    """
    width = difference.value - difference.low if difference.value > 0 else difference.high - difference.value
    if width <= 0:
        return None
    normal = NormalDist()
    return min(1.0, 2 * normal.cdf(-normal.inv_cdf(0.975) * abs(difference.value) / width))
