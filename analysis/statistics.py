"""The numbers behind the robustness figure and table: computed here, only drawn and printed elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.groups import SUMMARY, Group, is_corrupted, parse_protocol
from analysis.subjects import Subject
from pixmim_eval.errors import InputError
from pixmim_eval.types import Estimate

SEVERITIES = (1, 2, 3, 4, 5)
CORRUPTION_GROUPS = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    "extra": ("speckle_noise", "gaussian_blur", "spatter", "saturate"),
}
VARIANTS = ("cue-conflict", "sketch", "rendition", "hard", "imagenet-a", "imagenet-r", "imagenet-sketch")

ROW_INTERVAL = "of the row"
MEAN_INTERVAL = "mean of the parts' bounds"

Lookup = dict[tuple[int, str, str], Estimate]


@dataclass(frozen=True)
class Column:
    """One thing measured, for every model of a group.

    Args:
        kind: "clean", "severity", "corruption" (mean over its severities), "corruption group" (mean over its
            corruptions), "summary" or "variant".
        name: e.g. "clean", "fog", "fog/3", "noise", "mean_error_6", "sketch".
        metric: e.g. "top1", "top1_masked200", "mean_error_6".
        estimates: one a model, None where it was not measured (or not all parts of a mean were).
        chance: accuracy of guessing, a fraction; None where the label space does not say.
        interval: where the bounds come from, ROW_INTERVAL or MEAN_INTERVAL.
        lower_is_better: an error, not an accuracy.
        parts: how many numbers a mean is of.
    """

    kind: str
    name: str
    metric: str
    estimates: tuple[Estimate | None, ...]
    chance: float | None = None
    interval: str = ROW_INTERVAL
    lower_is_better: bool = False
    parts: int = 1

    def best(self) -> int | None:
        """Position of the model that is best beyond doubt: its interval is disjoint from all others; else None."""
        sign = -1 if self.lower_is_better else 1
        bounds = [
            (min(sign * found.low, sign * found.high), max(sign * found.low, sign * found.high), position)
            for position, found in enumerate(self.estimates)
            if found is not None
        ]
        if len(bounds) < 2:
            return None
        low, _, best = max(bounds)
        return best if all(high < low for _, high, position in bounds if position != best) else None


@dataclass(frozen=True)
class Robustness:
    """What the robustness figure and table of one group show.

    Args:
        group: the rows it was computed from.
        clean: accuracy on clean images, None where no model has it.
        corruptions: mean accuracy over severities 1…5, one column a corruption.
        families: mean over the corruptions of noise, blur, weather, digital, extra, and of those not in ImageNet-C.
        errors: the summary's own numbers, mean_error_K and mce_K, with the intervals of their rows; of the classes
            that the corruptions' metric is of.
        means: 1 − mean_error_K, the same as an accuracy.
        variants: accuracy on the other data sets.
        curves: corruption -> six columns, accuracy at severity 0 (clean) … 5.
    """

    group: Group
    clean: Column | None
    corruptions: tuple[Column, ...]
    families: tuple[Column, ...]
    errors: tuple[Column, ...]
    means: tuple[Column, ...]
    variants: tuple[Column, ...]
    curves: dict[str, tuple[Column, ...]]

    @property
    def subjects(self) -> tuple[Subject, ...]:
        return self.group.subjects

    @property
    def plain_columns(self) -> tuple[Column, ...]:
        """Everything but single corruptions, as accuracies: clean, the mean over all, the variants."""
        return (*((self.clean,) if self.clean else ()), *self.means, *self.variants)


def summarise_robustness(group: Group) -> Robustness:
    """Computes all numbers of one group's robustness figure and table.

    A corruption's mean over severities needs all five; its interval is the mean of the five intervals' bounds. That
    is conservative: the five share their images, so their errors are correlated at most perfectly, which is the case
    in which half-widths average. The summary's mean_error_K carries its own, exact, image-level interval.

    Raises:
        InputError: the rows hold no accuracy.
    """
    rows: Any = group.rows.itertuples()
    lookup: Lookup = {}
    for row in rows:
        lookup[row.subject, row.condition, row.metric] = Estimate(row.value, row.low, row.high, row.n, row.unit)
    conditions = set(group.rows["condition"])
    cells = {condition for condition in conditions if is_corrupted(condition)}
    if _choose_metric(metric for _, _, metric in lookup) is None:
        raise InputError(
            "metrics of the suite robustness",
            expected="top1, top1_maskedK or top1_fullK",
            found=", ".join(sorted({metric for _, _, metric in lookup})[:3]),
            where=f"data set {group.dataset}",
            fix="Evaluate the conditions too: python -m pixmim_eval.run --suite robustness.",
        )
    metric = _choose_metric(metric for _, condition, metric in lookup if condition in cells)
    names = sort_corruptions({cell.rpartition("/")[0] for cell in cells}) if metric else []
    protocols = group.rows.drop_duplicates("condition").set_index("condition")["protocol"]
    spaces = {str(name): parse_protocol(text).get("label_space", "") for name, text in protocols.items()}
    read = _Reader(group, lookup, spaces)
    clean_metric = _choose_metric(metric for _, condition, metric in lookup if condition == "clean")
    curves = {}
    for name in names:
        parts = [read.column("severity", f"{name}/{severity}", str(metric)) for severity in SEVERITIES]
        curves[name] = (read.column("clean", "clean", str(metric)), *parts)
    corruptions = tuple(average("corruption", name, curve[1:]) for name, curve in curves.items())
    errors = _read_errors(read, lookup, metric or "top1")
    return Robustness(
        group=group,
        clean=read.column("clean", "clean", clean_metric) if clean_metric else None,
        corruptions=corruptions,
        families=_average_families(corruptions),
        errors=errors,
        means=tuple(_complement(column, corruptions) for column in errors if column.name.startswith("mean_error_")),
        variants=_read_variants(read, lookup, conditions - cells - {"clean", SUMMARY}),
        curves=curves,
    )


def average(kind: str, name: str, parts: tuple[Column, ...]) -> Column:
    """The mean of some columns; a model that lacks one of the parts has no mean."""
    means: list[Estimate | None] = []
    for estimates in zip(*(part.estimates for part in parts), strict=True):
        known = [estimate for estimate in estimates if estimate is not None]
        if len(known) < len(estimates):
            means.append(None)
            continue
        value, low, high = (
            sum(getattr(estimate, bound) for estimate in known) / len(known) for bound in ("value", "low", "high")
        )
        means.append(Estimate(value, low, high, min(estimate.n for estimate in known), known[0].unit))
    interval = MEAN_INTERVAL if len(parts) > 1 else parts[0].interval
    return Column(
        kind, name, parts[0].metric, tuple(means), parts[0].chance, interval, parts[0].lower_is_better, len(parts)
    )


def sort_corruptions(names: Iterable[str]) -> list[str]:
    """ImageNet-C's order, others after it by name."""
    known = [name for members in CORRUPTION_GROUPS.values() for name in members]
    return sorted(names, key=lambda name: (known.index(name) if name in known else len(known), name))


def tabulate(robustness: Robustness) -> pd.DataFrame:
    """Every number in long form, one a row, raw fractions; a number that was not measured has an empty value."""
    clean = (robustness.clean,) if robustness.clean else ()
    severities = tuple(column for curve in robustness.curves.values() for column in curve[1:])
    columns = (*clean, *severities, *robustness.corruptions, *robustness.families, *robustness.errors)
    group = robustness.group
    records = [
        {
            "label": subject.label,
            "model": subject.model,
            "weights_digest": subject.weights_digest,
            "method": subject.method,
            "epoch": subject.epoch,
            "seed": subject.seed,
            "run": subject.run,
            "dataset": group.dataset,
            "kind": column.kind,
            "condition": column.name,
            "metric": column.metric,
            "value": estimate.value if estimate else None,
            "low": estimate.low if estimate else None,
            "high": estimate.high if estimate else None,
            "n": estimate.n if estimate else None,
            "unit": estimate.unit if estimate else None,
            "interval": column.interval,
            "protocol": ";".join(f"{key}={value}" for key, value in sorted(group.protocol.items())),
        }
        for column in (*columns, *robustness.variants)
        for subject, estimate in zip(robustness.subjects, column.estimates, strict=True)
    ]
    return pd.DataFrame(records).astype({"epoch": "Int64", "n": "Int64"})


@dataclass(frozen=True)
class _Reader:
    group: Group
    lookup: Lookup
    spaces: dict[str, str]

    def column(self, kind: str, condition: str, metric: str) -> Column:
        estimates = tuple(self.lookup.get((row, condition, metric)) for row in range(len(self.group.subjects)))
        return Column(kind, condition, metric, estimates, _guess_accuracy(metric, self.spaces.get(condition, "")))


def _choose_metric(metrics: Iterable[str]) -> str | None:
    """The accuracy to show: plain top-1, else on a masked class set, else among all classes."""
    found = set(metrics)
    for pattern in (r"top1", r"top1_masked\d+", r"top1_full\d+"):
        matches = sorted(metric for metric in found if re.fullmatch(pattern, metric))
        if matches:
            return matches[0]
    return None


def _guess_accuracy(metric: str, label_space: str) -> float | None:
    if label_space == "imagenet-1k" and metric == "top1":
        return 1 / 1000
    counted = re.search(r"_(?:masked|full)(\d+)$", metric) or re.fullmatch(r"[a-z]+-?(\d+)", label_space)
    return 1 / int(counted.group(1)) if counted else None


def _average_families(corruptions: tuple[Column, ...]) -> tuple[Column, ...]:
    by_name = {column.name: column for column in corruptions}
    known = {name for members in CORRUPTION_GROUPS.values() for name in members}
    groups = {**CORRUPTION_GROUPS, "other": tuple(name for name in by_name if name not in known)}
    return tuple(
        average("corruption group", family, parts)
        for family, members in groups.items()
        if (parts := tuple(by_name[name] for name in members if name in by_name))
    )


def _read_errors(read: _Reader, lookup: Lookup, metric: str) -> tuple[Column, ...]:
    pattern = rf"(mean_error|mce)_(\d+){metric.removeprefix('top1')}"
    found = {name: re.fullmatch(pattern, name) for _, condition, name in lookup if condition == SUMMARY}
    known = {name: (match[1] == "mce", int(match[2])) for name, match in found.items() if match}
    columns = (read.column("summary", SUMMARY, name) for name in sorted(known, key=lambda name: known[name]))
    return tuple(
        Column("summary", column.metric, column.metric, column.estimates, lower_is_better=True) for column in columns
    )


def _complement(column: Column, corruptions: tuple[Column, ...]) -> Column:
    """A mean error as the accuracy that it is one less of."""
    flipped = tuple(
        Estimate(1 - found.value, 1 - found.high, 1 - found.low, found.n, found.unit) if found else None
        for found in column.estimates
    )
    metric, chance = (corruptions[0].metric, corruptions[0].chance) if corruptions else ("top1", None)
    return Column("summary", column.name, metric, flipped, chance)


def _read_variants(read: _Reader, lookup: Lookup, conditions: set[str]) -> tuple[Column, ...]:
    order = {name: place for place, name in enumerate(VARIANTS)}
    columns = []
    for condition in sorted(conditions, key=lambda name: (order.get(name, len(order)), name)):
        metric = _choose_metric(metric for _, other, metric in lookup if other == condition)
        if metric:
            columns.append(read.column("variant", condition, metric))
    return tuple(columns)
