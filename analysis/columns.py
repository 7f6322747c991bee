"""A column of numbers: one thing measured, for every model of a group; and how columns make others."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from analysis.sources import make_estimate
from pixmim_eval.types import Estimate

SEVERITIES = (1, 2, 3, 4, 5)
CORRUPTION_GROUPS = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    "extra": ("speckle_noise", "gaussian_blur", "spatter", "saturate"),
}
VARIANTS = ("cue-conflict", "sketch", "rendition", "hard", "imagenet-a", "imagenet-r", "imagenet-sketch", "imagenet-v2")

ROW_INTERVAL = "of the row"
MEAN_INTERVAL = "mean of the parts' bounds"

_HIGHER = r"(clean_)?top[15](_.+)?|(category_)?accuracy|accuracy_shape|correct_fraction|ood_accuracy|m?iou|[am]?acc"
_HIGHER += r"|(box_|mask_)?ap(50|75|_small|_medium|_large)?|(observed|error)_consistency_people"
_LOWER = r"(relative_)?mce_\w+|mean_error_\w+|ece(_\w+)?|loss|mse_\w+|error_power|accuracy_difference_people"


def find_direction(metric: str) -> int:
    """1 where more of a metric is better, -1 where less is, 0 where neither is (shape bias) or nothing is known.

    Args:
        metric: as in ResultRow; of a part, "iou/cat", the direction is the whole's.
    """
    whole = metric.partition("/")[0]
    return 1 if re.fullmatch(_HIGHER, whole) else -1 if re.fullmatch(_LOWER, whole) else 0


@dataclass(frozen=True)
class Column:
    """One thing measured, for every model of a group.

    Args:
        kind: "clean", "calibration" (of clean images), "severity", "corruption" (mean over its severities),
            "corruption group" (mean over its corruptions), "summary", "variant", or "baseline" (clean images of a
            variant's classes).
        name: e.g. "clean", "fog", "fog/3", "noise", "mean_error_6", "sketch".
        metric: e.g. "top1", "top1_masked200", "mean_error_6", "ece".
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
        fewest = min(estimate.n for estimate in known)
        means.append(make_estimate(value, low, high, fewest, known[0].unit, known))
    interval = MEAN_INTERVAL if len(parts) > 1 else parts[0].interval
    return Column(
        kind, name, parts[0].metric, tuple(means), parts[0].chance, interval, parts[0].lower_is_better, len(parts)
    )


def sort_corruptions(names: Iterable[str]) -> list[str]:
    """ImageNet-C's order, others after it by name."""
    known = [name for members in CORRUPTION_GROUPS.values() for name in members]
    return sorted(names, key=lambda name: (known.index(name) if name in known else len(known), name))


def group_corruptions(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The corruptions among `names` of each group of ImageNet-C's in its order, and those of none as "other"."""
    present = list(names)
    known = {name for members in CORRUPTION_GROUPS.values() for name in members}
    groups = {**CORRUPTION_GROUPS, "other": tuple(sorted({*present} - known))}
    found = {group: tuple(name for name in members if name in present) for group, members in groups.items()}
    return {group: members for group, members in found.items() if members}


def complement(column: Column, kind: str, name: str, metric: str, chance: float | None, parts: int = 1) -> Column:
    """A mean error as the accuracy that it is one less of."""
    flipped = tuple(
        make_estimate(1 - found.value, 1 - found.high, 1 - found.low, found.n, found.unit, [found]) if found else None
        for found in column.estimates
    )
    return Column(kind, name, metric, flipped, chance, column.interval, parts=parts)
