"""Words for numbers: what captions, axes, column heads and notes say about a group's results."""

from __future__ import annotations

from collections.abc import Iterable

from analysis.columns import MEAN_INTERVAL, ROW_INTERVAL, Column
from analysis.differences import Difference
from analysis.robustness.statistics import Robustness
from pixmim_eval.types import Estimate

SEVERITY_MEANS = "A corruption’s value and bounds are means over severities 1–5 (conservative: they share images)."


def describe_data(robustness: Robustness) -> list[str]:
    """Sentences on the data set, the number of images and the protocol."""
    protocol = ", ".join(f"{key}={value}" for key, value in sorted(robustness.group.protocol.items()))
    sentences = [f"Data: {robustness.group.dataset}; {_describe_counts(robustness)}."]
    if protocol:
        sentences.append(f"Protocol: {protocol}.")
    if any(subject.chosen for subject in robustness.subjects):
        sentences.append("Each head chose its pooling and penalty on held-out training images.")
    return sentences


def describe_intervals(robustness: Robustness) -> list[str]:
    """Sentences on where the intervals of means come from."""
    sentences = [SEVERITY_MEANS] if robustness.corruptions and not robustness.has_many else []
    if robustness.errors:
        own = "has its own image-level interval" if len(robustness.errors) == 1 else "have image-level intervals"
        sentences.append(f"{_join([column.name for column in robustness.errors])} {own}.")
    return sentences


def describe_groups(robustness: Robustness) -> list[str]:
    """A sentence on the intervals of groups of corruptions."""
    exact = [column.name for column in robustness.families if column.interval == ROW_INTERVAL]
    rough = [column.name for column in robustness.families if column.interval == MEAN_INTERVAL]
    brackets = "(in brackets, of how many corruptions)"
    sentences = [f"{_join(exact)} {brackets}: means with image-level intervals."] if exact else []
    if rough:
        sentences.append(f"{_join(rough)} {brackets}: means, with the means of their bounds (conservative).")
    return [sentence[0].upper() + sentence[1:] for sentence in sentences]


def _join(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def describe_baselines(robustness: Robustness) -> list[str]:
    """A sentence on the clean accuracy beside variants with fewer classes."""
    if not robustness.fair_baselines:
        return []
    return ["Clean, same classes: accuracy on the clean images of the variant’s classes."]


def describe_metric(metric: str) -> str:
    """An accuracy's name for an axis: "top-1 accuracy", "top-1, masked200"."""
    _, _, detail = metric.partition("_")
    return f"top-1, {detail}" if detail else "top-1 accuracy"


def name_metric(metric: str) -> str:
    """Any metric's name for readers, without its unit: "top-1 accuracy", "shape bias", "shape bias: cat"."""
    name = describe_metric(metric) if metric.startswith("top1") else metric
    return name.replace("_", " ").replace("/", ": ")


def format_value(value: float, unit: str, sign: str = "") -> str:
    """A fraction as per cent, "81.2"; any other number with three digits, "0.331".

    Args:
        value: the number.
        unit: of its row.
        sign: "+" to give it a sign, which 0 has not.
    """
    text = f"{100 * value:{sign}.1f}" if unit == "fraction" else f"{value:{sign}.3f}"
    zero = float(text) == 0
    return (text.lstrip("+-") if zero else text).replace("-", "−")


def format_interval(estimate: Estimate, sign: str = "") -> str:
    """ "81.2 [78.0, 84.1]"; see format_value."""
    value, low, high = (
        format_value(number, estimate.unit, sign) for number in (estimate.value, estimate.low, estimate.high)
    )
    return f"{value} [{low}, {high}]"


def format_probability(probability: float | None) -> str:
    """A p-value with three digits, "< 0.001" below them; a dash where there is none."""
    return "–" if probability is None else "< 0.001" if probability < 0.0005 else f"{probability:.3f}"


def list_counts(counts: Iterable[int]) -> str:
    """ "1,024", or "100–1,280" where they differ."""
    known = {*counts}
    return f"{min(known):,}" if len(known) == 1 else f"{min(known):,}–{max(known):,}"


def describe_chance(columns: list[Column]) -> str:
    """What the chance line is, "" where there is none."""
    levels = {column.chance for column in columns if column.chance is not None}
    return f"chance ({100 * levels.pop():.3g} %)" if len(levels) == 1 else "chance" if levels else ""


def name_column(column: Column, usual_metric: str) -> tuple[str, str]:
    """A column's name for readers, and its metric in brackets where that is not the usual one, else ""."""
    name = column.name.replace("_", " ")
    if column.kind == "baseline":
        name = f"clean, classes of {column.name}"
    if column.kind == "corruption group":
        name = f"{column.name} ({column.parts})"
    if column.kind == "summary":
        name = column.name if column.lower_is_better else f"all {column.name.split('_')[2]} corruptions"
    unusual = column.metric != usual_metric and not column.lower_is_better
    return name, f"({_shorten(column.metric)})" if unusual else ""


def name_difference(difference: Difference, usual_metric: str) -> str:
    """A difference's name for readers: a mean error's is that of the accuracy which it is one less of."""
    name = difference.name.replace("_", " ")
    if difference.kind == "corruption group":
        name = f"{difference.name} ({difference.parts})"
    if difference.kind == "summary":
        name = f"all {difference.parts} corruptions (100 − {difference.name})"
    return name if difference.metric == usual_metric else f"{name} ({_shorten(difference.metric)})"


def describe_relative(robustness: Robustness) -> list[str]:
    """Sentences on numbers that are relative to AlexNet."""
    names = [column.name for column in robustness.errors if "mce_" in column.name]
    if not names:
        return []
    sentence = f"{_join(names)}: in per cent of AlexNet’s errors on the published files of ImageNet-C"
    generated = robustness.group.protocol.get("source") == "generated"
    return [f"{sentence}; the images here are generated." if generated else f"{sentence}."]


def _shorten(metric: str) -> str:
    return metric.removeprefix("clean_").removeprefix("top1_").replace("_", " ")


def _describe_counts(robustness: Robustness) -> str:
    """The number of images, once where it is the same everywhere, else "n = 1,000 (clean), 200 (sketch)"."""
    named: list[tuple[str, tuple[Column | None, ...]]] = [("clean", (robustness.clean,))]
    named += [("corruptions", robustness.corruptions), *((column.name, (column,)) for column in robustness.variants)]
    spans: dict[str, list[str]] = {}
    for name, columns in named:
        counts = {found.n for column in columns if column for found in column.estimates if found}
        if counts:
            span = f"{min(counts):,}" if len(counts) == 1 else f"{min(counts):,}–{max(counts):,}"
            spans.setdefault(span, []).append(name)
    if len(spans) == 1:
        return f"n = {next(iter(spans))} images a condition"
    return "n = " + ", ".join(f"{span} ({', '.join(names)})" for span, names in spans.items())
