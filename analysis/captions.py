"""Words for numbers: what captions, axes, column heads and notes say about a group's results."""

from __future__ import annotations

from analysis.statistics import Column, Robustness


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
    sentences = []
    if robustness.corruptions:
        sentences.append(
            "A corruption’s value and bounds are means over severities 1–5 (conservative: they share images)."
        )
    if robustness.errors:
        names = " and ".join(column.name for column in robustness.errors)
        sentences.append(
            f"{names} {'has its' if len(robustness.errors) == 1 else 'have their'} own image-level interval."
        )
    return sentences


def describe_metric(metric: str) -> str:
    """An accuracy's name for an axis: "top-1 accuracy", "top-1, masked200"."""
    _, _, detail = metric.partition("_")
    return f"top-1, {detail}" if detail else "top-1 accuracy"


def describe_chance(columns: list[Column]) -> str:
    """What the chance line is, "" where there is none."""
    levels = {column.chance for column in columns if column.chance is not None}
    return f"chance ({100 * levels.pop():.3g} %)" if len(levels) == 1 else "chance" if levels else ""


def name_column(column: Column, usual_metric: str) -> tuple[str, str]:
    """A column's name for readers, and its metric in brackets where that is not the usual one, else ""."""
    name = column.name.replace("_", " ")
    if column.kind == "corruption group":
        name = f"{column.name} ({column.parts})"
    if column.kind == "summary":
        name = column.name if column.lower_is_better else f"all {column.name.split('_')[2]} corruptions"
    unusual = column.metric != usual_metric and not column.lower_is_better
    return name, f"({column.metric.removeprefix('top1_').replace('_', ' ')})" if unusual else ""


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
