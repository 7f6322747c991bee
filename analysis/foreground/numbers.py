"""What crops and masks leave of the object: the numbers of a data set, and what others have published."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.groups import parse_protocol
from analysis.published import read_published
from analysis.sources import read_estimate
from pixmim_eval.types import Estimate

SUITE = "foreground"
DEFINITIONS = {
    "overlap_union": "union of boxes",
    "overlap_mean_box": "mean over boxes",
    "overlap_largest": "largest box",
    "overlap_ratio_of_sums": "ratio of sums",
    "overlap_union_reflected": "union, border counted",
    "overlap_instances": "pixels of objects",
}
"""Metric -> what it counts, for readers."""


def _read_overlaps(metric: str) -> dict[str, float]:
    """Published fractions by crop."""
    published = read_published("foreground_overlap")
    published = published[published["metric"] == metric]
    return {crop: float(f"{text}e-2") for crop, text in zip(published["method"], published["printed"], strict=True)}


PUBLISHED, PUBLISHED_MASKED = _read_overlaps("overlap"), _read_overlaps("overlap_masked75")
"""Attributed to PixMIM (arXiv 2303.02416), second hand; SRC without a mask is derived, as 22.1 / 0.25."""

PUBLISHED_NOTE = (
    f"Published (attributed to arXiv 2303.02416, second hand): RRC {100 * PUBLISHED['rrc-0.2']:.1f}, with a 75 % mask "
    f"{100 * PUBLISHED_MASKED['rrc-0.2']:.1f}; SRC with the mask {100 * PUBLISHED_MASKED['src']:.1f}, from which "
    f"{100 * PUBLISHED['src']:.1f} follows. Not of the same box set (theirs is probably of the training images) or "
    "definition: neither is known, and nothing here was tuned to them."
)


@dataclass(frozen=True)
class Foreground:
    """Overlaps of one data set under one setting.

    Args:
        suffix: ends the names of its files; "" where there is one only.
        dataset: its name.
        protocol: what its rows say, but for how expectations were found.
        found: (crop, metric) -> number; in the order of the rows.
    """

    suffix: str
    dataset: str
    protocol: dict[str, str]
    found: dict[tuple[str, str], Estimate]

    @property
    def crops(self) -> list[str]:
        """RRC, SRC, CC, others."""
        kinds = ("rrc", "src", "cc")
        names = {crop: crop.partition("-")[0] for crop, _ in self.found}
        return sorted(names, key=lambda crop: (kinds.index(names[crop]) if names[crop] in kinds else 3, crop))

    @property
    def is_imagenet(self) -> bool:
        """Whether published numbers, which are of ImageNet, may stand beside these; by the data set's name."""
        return re.search(r"imagenet|ilsvrc", self.dataset, re.IGNORECASE) is not None

    @property
    def mask(self) -> str:
        """How metrics end that are of masked crops, "75" for "overlap_union_masked75"."""
        return f"{100 * float(self.protocol['masked'].partition('-')[0]):g}"

    def list_numbers(self, crop: str, start: str) -> list[tuple[str, Estimate]]:
        """What follows `start` in the names of a crop's metrics, and their numbers, in the order of the rows."""
        return [
            (metric.removeprefix(start), estimate)
            for (name, metric), estimate in self.found.items()
            if name == crop and metric.startswith(start)
        ]


def list_foreground(rows: pd.DataFrame) -> list[Foreground]:
    """The suite's rows by data set and setting; of a number that was measured twice, the last. Most images first.

    Args:
        rows: ResultRow columns, any number of runs and suites.
    """
    rows = rows[rows["suite"] == SUITE]
    fixed = {text: _fix(text) for text in rows["protocol"].unique()}
    setting = rows["protocol"].map(fixed).rename("setting")
    parts: Any = rows.groupby([rows["dataset"], rows["dataset_digest"], rows["subset"], setting], sort=False)
    names = [str(dataset) for (dataset, *_), _ in parts]
    found = []
    for place, ((_, _, _, protocol), part) in enumerate(parts):
        numbers = {(str(row.condition), str(row.metric)): read_estimate(row) for row in part.itertuples()}
        suffix = _name(names, place) if len(names) > 1 else ""
        found.append(Foreground(suffix, names[place], parse_protocol(protocol), numbers))
    return sorted(found, key=lambda one: -max(number.n for number in one.found.values()))


def find_crop(method: str) -> str | None:
    """The crop that a pretraining method saw, from its name: "pixmim-mae", "mae+src", "mae"; None for other methods."""
    base, *changes = method.removeprefix("pixmim-").split("+")
    if base not in ("mae", "lsmae", "convmae", "deit3"):
        return None
    if method.startswith("pixmim-") or "src" in changes:
        return "src"
    return "cc-224" if "cc" in changes else "rrc-0.08" if base == "deit3" else "rrc-0.2"


def has_low_frequency_target(method: str) -> bool:
    """Whether a method predicts low frequencies alone, from its name."""
    return method.startswith("pixmim-") or "low-frequency" in method.split("+")[1:]


def _fix(protocol: str) -> str:
    """A protocol less how expectations were found, which crops may differ in."""
    values = parse_protocol(protocol)
    return ";".join(f"{key}={value}" for key, value in sorted(values.items()) if key != "expectation")


def _name(names: list[str], place: int) -> str:
    """A data set's name, with a number where others have the same."""
    before = names[:place].count(names[place])
    return f"{names[place]}-{before + 1}" if names.count(names[place]) > 1 else names[place]
