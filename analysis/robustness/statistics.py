"""The numbers behind the robustness figures and tables: computed here, only drawn and printed elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from analysis.columns import (
    SEVERITIES,
    VARIANTS,
    Column,
    average,
    complement,
    group_corruptions,
    sort_corruptions,
)
from analysis.groups import SUMMARY, Group, is_corrupted, parse_protocol
from analysis.sources import read_estimate
from analysis.subjects import Subject
from pixmim_eval.errors import InputError
from pixmim_eval.types import Estimate

FEW = 6  # corruptions side by side

Lookup = dict[tuple[int, str, str], Estimate]


@dataclass(frozen=True)
class Robustness:
    """What the robustness figures and tables of one group show.

    Args:
        group: the rows it was computed from.
        clean: accuracy on clean images, None where no model has it.
        calibration: expected calibration error on clean images, None where no model has it.
        corruptions: mean accuracy over severities 1…5, one column a corruption.
        families: mean over the corruptions of noise, blur, weather, digital, extra, and of those not in ImageNet-C;
            with the summary's own image-level intervals where all models have them.
        errors: the summary's own numbers, mean_error_K, mce_15 and relative_mce_15, with the intervals of their rows;
            of the classes that the corruptions' metric is of.
        means: 1 − mean_error_K, the same as an accuracy.
        variants: accuracy on the other data sets.
        baselines: for each variant, accuracy on the clean images of the same classes; None where nothing tells it.
        curves: corruption -> six columns, accuracy at severity 0 (clean) … 5.
        family_curves: the same for the means over the corruptions of noise, blur, ….
    """

    group: Group
    clean: Column | None
    calibration: Column | None
    corruptions: tuple[Column, ...]
    families: tuple[Column, ...]
    errors: tuple[Column, ...]
    means: tuple[Column, ...]
    variants: tuple[Column, ...]
    baselines: tuple[Column | None, ...]
    curves: dict[str, tuple[Column, ...]]
    family_curves: dict[str, tuple[Column, ...]]

    @property
    def subjects(self) -> tuple[Subject, ...]:
        return self.group.subjects

    @property
    def plain_columns(self) -> tuple[Column, ...]:
        """Everything but corruptions, as accuracies: clean, the mean over all corruptions, the variants."""
        return (*((self.clean,) if self.clean else ()), *self.means, *self.variants)

    @property
    def has_many(self) -> bool:
        """Whether corruptions are too many to stand side by side, so that their groups stand for them."""
        return len(self.corruptions) > FEW

    @property
    def fair_baselines(self) -> dict[str, Column]:
        """Variant -> clean accuracy on its classes; empty where all variants have the classes of the clean images."""
        pairs = zip(self.variants, self.baselines, strict=True)
        found = {variant.name: baseline for variant, baseline in pairs if baseline}
        return found if any(column.metric.startswith("clean_") for column in found.values()) else {}


def summarise_robustness(group: Group) -> Robustness:
    """Computes all numbers of one group's robustness figures and tables.

    A corruption's mean over severities needs all five; its interval is the mean of the five intervals' bounds. That
    is conservative: the five share their images, so their errors are correlated at most perfectly, which is the case
    in which half-widths average. So it is for the means over a group of corruptions at one severity. The summary's mean
    errors carry their own, exact, image-level intervals.

    Raises:
        InputError: the rows hold no accuracy.
    """
    lookup: Lookup = {(row.subject, row.condition, row.metric): read_estimate(row) for row in _list_rows(group.rows)}
    read = _Reader(lookup, len(group.subjects), _find_spaces(group))
    if _choose_metric(metric for _, _, metric in lookup) is None:
        raise InputError(
            "metrics of the suite robustness",
            expected="top1, top1_maskedK or top1_fullK",
            found=", ".join(sorted({metric for _, _, metric in lookup})[:3]),
            where=f"data set {group.dataset}",
            fix="Evaluate the conditions too: python -m pixmim_eval.run --suite robustness.",
        )
    cells = {condition for condition in read.metrics if is_corrupted(condition)}
    metric = _choose_metric(name for cell in cells for name in read.metrics[cell])
    names = sort_corruptions({cell.rpartition("/")[0] for cell in cells}) if metric else []
    curves = {name: _read_curve(read, name, str(metric)) for name in names}
    grouped = group_corruptions(curves)
    corruptions = tuple(average("corruption", name, curve[1:]) for name, curve in curves.items())
    errors = _read_errors(read, metric or "top1")
    clean = read.accuracy("clean", "clean")
    variants = _read_variants(read, {*read.metrics} - cells - {"clean", SUMMARY})
    return Robustness(
        group=group,
        clean=clean,
        calibration=_read_calibration(read, clean),
        corruptions=corruptions,
        families=tuple(_average_family(read, name, members, corruptions) for name, members in grouped.items()),
        errors=errors,
        means=tuple(_turn_mean(column, corruptions) for column in errors if column.name.startswith("mean_error_")),
        variants=variants,
        baselines=tuple(_read_baseline(read, column, clean) for column in variants),
        curves=curves,
        family_curves={
            name: tuple(
                average(parts[0].kind, f"{name}/{severity}" if severity else "clean", parts)
                for severity, parts in enumerate(zip(*(curves[member] for member in members), strict=True))
            )
            for name, members in grouped.items()
        },
    )


@dataclass(frozen=True)
class _Reader:
    lookup: Lookup
    models: int
    spaces: dict[str, str]
    metrics: dict[str, set[str]] = field(init=False)

    def __post_init__(self) -> None:
        metrics: dict[str, set[str]] = {}
        for _, condition, metric in self.lookup:
            metrics.setdefault(condition, set()).add(metric)
        object.__setattr__(self, "metrics", metrics)

    def column(self, kind: str, condition: str, metric: str) -> Column:
        estimates = tuple(self.lookup.get((row, condition, metric)) for row in range(self.models))
        return Column(kind, condition, metric, estimates, _guess_accuracy(metric, self.spaces.get(condition, "")))

    def accuracy(self, kind: str, condition: str) -> Column | None:
        metric = _choose_metric(self.metrics.get(condition, ()))
        return self.column(kind, condition, metric) if metric else None


def _list_rows(rows: pd.DataFrame) -> list[Any]:
    return list(rows.itertuples(index=False))


def _find_spaces(group: Group) -> dict[str, str]:
    protocols = group.rows.drop_duplicates("condition").set_index("condition")["protocol"]
    return {str(name): parse_protocol(text).get("label_space", "") for name, text in protocols.items()}


def _read_curve(read: _Reader, name: str, metric: str) -> tuple[Column, ...]:
    parts = (read.column("severity", f"{name}/{severity}", metric) for severity in SEVERITIES)
    return (read.column("clean", "clean", metric), *parts)


def _choose_metric(metrics: Iterable[str]) -> str | None:
    """The accuracy to show: plain top-1, else on a masked class set, else among all classes."""
    found = set(metrics)
    for pattern in (r"top1", r"top1_masked\d+", r"top1_full\d+"):
        matches = sorted(metric for metric in found if re.fullmatch(pattern, metric))
        if matches:
            return matches[0]
    return None


def _guess_accuracy(metric: str, label_space: str) -> float | None:
    if not metric.startswith(("top1", "clean_top1")):
        return None
    if label_space == "imagenet-1k" and metric == "top1":
        return 1 / 1000
    counted = re.search(r"_(?:masked|full)(\d+)$", metric) or re.fullmatch(r"[a-z]+-?(\d+)", label_space)
    return 1 / int(counted.group(1)) if counted else None


def _read_calibration(read: _Reader, clean: Column | None) -> Column | None:
    """ECE on clean images, of the classes that their accuracy is of."""
    metric = f"ece{clean.metric.removeprefix('top1')}" if clean else "ece"
    if metric not in read.metrics.get("clean", ()):
        return None
    return replace(read.column("calibration", "clean", metric), name="ECE, clean", lower_is_better=True)


def _average_family(read: _Reader, name: str, members: tuple[str, ...], corruptions: tuple[Column, ...]) -> Column:
    mean = average("corruption group", name, tuple(column for column in corruptions if column.name in members))
    error = read.column("summary", SUMMARY, f"mean_error_{name}{mean.metric.removeprefix('top1')}")
    if all(exact for exact, rough in zip(error.estimates, mean.estimates, strict=True) if rough):
        known = zip(error.estimates, mean.estimates, strict=True)
        error = replace(error, estimates=tuple(exact if rough else None for exact, rough in known))
        return complement(error, "corruption group", name, mean.metric, mean.chance, mean.parts)
    return mean


def _read_errors(read: _Reader, metric: str) -> tuple[Column, ...]:
    # mCE has one meaning, the mean over the published fifteen: no other count is shown under its name. Where a model
    # knows more classes than the data, AlexNet's errors are those among all, so mce_15_fullK stands for it.
    own = metric.removeprefix("top1")
    pattern = rf"mean_error_(\d+){own}|(relative_)?mce_15(?:{own}|_full\d+)"
    found = {name: re.fullmatch(pattern, name) for name in read.metrics.get(SUMMARY, ())}
    order = {
        name: (match[1] is None, int(match[1] or 0), match[2] or "", name) for name, match in found.items() if match
    }
    columns = (read.column("summary", SUMMARY, name) for name in sorted(order, key=lambda name: order[name]))
    return tuple(replace(column, name=column.metric, lower_is_better=True) for column in columns)


def _turn_mean(error: Column, corruptions: tuple[Column, ...]) -> Column:
    metric, chance = (corruptions[0].metric, corruptions[0].chance) if corruptions else ("top1", None)
    return complement(error, "summary", error.name, metric, chance)


def _read_variants(read: _Reader, conditions: set[str]) -> tuple[Column, ...]:
    order = {name: place for place, name in enumerate(VARIANTS)}
    columns = (
        read.accuracy("variant", condition)
        for condition in sorted(conditions, key=lambda name: (order.get(name, len(order)), name))
    )
    return tuple(column for column in columns if column)


def _read_baseline(read: _Reader, variant: Column, clean: Column | None) -> Column | None:
    """Clean accuracy on a variant's classes: its own row, or that of all clean images where the classes are theirs."""
    own = f"clean_{variant.metric}"
    if own in read.metrics[variant.name]:
        return read.column("baseline", variant.name, own)
    same = clean and clean.metric == variant.metric and read.spaces["clean"] == read.spaces[variant.name]
    return replace(clean, kind="baseline", name=variant.name) if clean and same else None


def tabulate(robustness: Robustness) -> pd.DataFrame:
    """Every number in long form, one a row, raw fractions; a number that was not measured has an empty value."""
    severities = tuple(column for curve in robustness.curves.values() for column in curve[1:])
    baselines = robustness.fair_baselines
    variants = (column for variant in robustness.variants for column in (variant, baselines.get(variant.name)))
    columns = (robustness.clean, robustness.calibration, *severities, *robustness.corruptions)
    group = robustness.group
    records = [
        {
            **describe_subject(subject),
            "dataset": group.dataset,
            "kind": column.kind,
            "condition": column.name,
            "metric": column.metric,
            **describe_estimate(estimate),
            "interval": column.interval,
            "protocol": ";".join(f"{key}={value}" for key, value in sorted(group.protocol.items())),
        }
        for column in (*columns, *robustness.families, *robustness.errors, *variants)
        if column
        for subject, estimate in zip(robustness.subjects, column.estimates, strict=True)
    ]
    return pd.DataFrame(records).astype({"epoch": "Int64", "n": "Int64"})


def describe_subject(subject: Subject) -> dict[str, Any]:
    """The columns of a long table that say which model."""
    names = ("label", "model", "weights_digest", "method", "epoch", "seed", "run")
    return {name: getattr(subject, name) for name in names}


def describe_estimate(estimate: Estimate | None) -> dict[str, Any]:
    """The columns of a long table that say what was found."""
    return {name: getattr(estimate, name) if estimate else None for name in ("value", "low", "high", "n", "unit")}
