"""What a report knows of suites: which section is whose, its main metric, and what to run where rows are missing."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd

from analysis.sources import suggest_command

MAIN = ("finetune", "linear_probe", "detection", "segmentation")
SCORED = ("linear_probe", "knn", "few_shot", "finetune")
DENSE = ("segmentation", "detection")
SHAPE = ("shape_bias", "observers", "model_vs_human")
FIGURED = ("robustness", "foreground", "reconstruction")
MAIN_METRICS = {
    "robustness": ("mean_error_15", r"mean_error_\d+", "top1"),
    "linear_probe": ("top1",),
    "knn": ("top1",),
    "few_shot": ("top1",),
    "finetune": ("top1",),
    "segmentation": ("miou",),
    "detection": ("box_ap",),
    "shape_bias": ("shape_bias",),
    "reconstruction": ("mse_pixels",),
}
"""Suite -> patterns of its main metric, the best first."""

_LISTED = 6  # commands of a section; the overview has them all


def choose_metrics(rows: pd.DataFrame) -> dict[str, str]:
    """The main metric of each suite whose rows are of several epochs."""
    found = {}
    for suite, patterns in MAIN_METRICS.items():
        placed = rows[(rows["suite"] == suite) & rows["epoch"].notna()]
        metrics = sorted({*placed["metric"]})
        known = [metric for pattern in patterns for metric in metrics if re.fullmatch(pattern, metric)]
        if known and placed["epoch"].nunique() > 1:
            found[suite] = known[0]
    return found


def describe_missing(rows: pd.DataFrame, suites: Sequence[str]) -> list[str]:
    """A sentence for each suite without rows: what makes them."""
    missing = [suite for suite in suites if suite not in set(rows["suite"])]
    return [f"No rows of the suite {suite}. To make them: {suggest_command(suite)}." for suite in missing]


def describe_commands(rows: pd.DataFrame) -> tuple[str, ...]:
    """The commands that made some rows; none of none."""
    if rows.empty:
        return ()
    counts = rows.loc[rows["command"] != "", "command"].value_counts(sort=False)
    sentences = [f"Made by: {command} ({count:,} rows)." for command, count in list(counts.items())[:_LISTED]]
    if len(counts) > _LISTED:
        sentences.append(f"And by {len(counts) - _LISTED} more commands: see the overview, or a number’s own row.")
    if unknown := int((rows["command"] == "").sum()):
        sentences.append(f"{unknown:,} of these {len(rows):,} rows do not say which command made them.")
    return tuple(sentences)
