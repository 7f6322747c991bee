"""The numbers of an ablation: which result rows are its arms, and which of them may stand in one panel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.ablation.arms import CROPS, METHODS, find_arms
from analysis.groups import describe_settings, parse_protocol
from analysis.sources import read_estimate
from analysis.subjects import Subject
from pixmim_eval.errors import InputError
from pixmim_eval.types import Estimate

_TARGETS = {"normalised": "all frequencies", "pixels": "plain pixels", "lowfreq": "low frequencies", "": ""}
_SETTING = ["suite", "metric", "procedure", "subset", "dataset", "dataset_digest", "condition", "seed"]


@dataclass(frozen=True)
class Arm:
    """One pretraining by what an ablation varies.

    Args:
        target: "normalised", "pixels" or "lowfreq"; "" of a method that learns from labels.
        radius: of a low-frequency target, in cycles per image; None of others.
        crop: "rrc", "src" or "cc".
    """

    target: str
    radius: float | None
    crop: str


@dataclass(frozen=True)
class ArmPoint:
    """One number of an arm.

    Args:
        arm: what was varied.
        family: position among Ablation.families.
        estimate: the number.
        hits: int8 [N], how every image fared (see attach_hits); None where unknown.
        subject: the model.
    """

    arm: Arm
    family: int
    estimate: Estimate
    hits: np.ndarray | None
    subject: Subject


@dataclass(frozen=True)
class ArmPanel:
    """What may be compared: one metric of one data set under one protocol.

    Args:
        title: what it shows.
        setting: its suite, metric, procedure (the protocol less what heads chose), subset, dataset, dataset_digest,
            condition and seed of the evaluation.
        unit: of the numbers; "fraction" is shown in per cent.
        points: family by family; radii ascend, crops go from RRC to CC, and the base of a family stands first.
    """

    title: str
    setting: dict[str, str]
    unit: str
    points: tuple[ArmPoint, ...]


@dataclass(frozen=True)
class Ablation:
    """What the figure and the tables of one ablation show.

    Args:
        name: "bandwidth", "crop" or "components".
        families: what each set of arms has in common that differ in nothing but what is varied, e.g. "MAE, SRC".
        image_sizes: of their training, in pixels; in "bandwidth" all are the same.
        ceilings: cycles per image up to which their training images hold anything: half their short side, where that
            is known to be less than what was trained on, else Nyquist.
        panels: at least one.
        left_out: how many models are arms of such an ablation, but at another epoch, size or radius than the most.
    """

    name: str
    families: tuple[str, ...]
    image_sizes: tuple[int, ...]
    ceilings: tuple[float, ...]
    panels: tuple[ArmPanel, ...]
    left_out: int


def read_ablation(rows: pd.DataFrame, name: str) -> Ablation | None:
    """Finds the arms of an ablation in rows of any number of runs, by what each row says of its model's pretraining.

    Arms of one family differ in what the ablation varies and in nothing else: not in method, image size, seed, or any
    other setting. Of several epochs the one with the most arms counts, the latest of them; of models that were trained
    alike, the one that was measured last.

    Args:
        rows: ResultRow columns; `hits` for paired differences (attach_hits).
        name: "bandwidth" (two radii or more at one crop), "crop" (two crops or more with one target) or "components"
            (three or all of the four: with and without the low-frequency target, RRC and SRC).

    Returns:
        None where there are no such arms.

    Raises:
        InputError: different values of one number of one model.
    """
    found, left_out = find_arms(rows, name)
    if found.empty or (
        name == "crop" and "cc" not in set(found["crop"]) and not find_arms(rows, "components")[0].empty
    ):
        return None  # the components tell RRC and SRC apart already
    keys = list(dict.fromkeys(found.sort_values(["family_order"], kind="stable")["family"]))
    panels = _cut_panels(found.assign(family=found["family"].map({key: place for place, key in enumerate(keys)})), name)
    firsts = [found[found["family"] == key].iloc[0] for key in keys]
    return Ablation(
        name,
        _label_families(firsts, name),
        tuple(int(first["image_size"]) for first in firsts),
        tuple(_find_ceiling(found[found["family"] == key]) for key in keys),
        tuple(panels),
        left_out,
    )


def find_base(points: Sequence[ArmPoint], name: str, family: int) -> ArmPoint | None:
    """What the other arms of a family are compared with: no filter in "bandwidth", RRC in "crop", neither part in
    "components"; None where that arm is missing."""
    own = [point for point in points if point.family == family]
    wanted = [point for point in own if (point.arm.crop == "rrc" if name != "bandwidth" else True)]
    plain = [point for point in wanted if name == "crop" or point.arm.target == "normalised"]
    return plain[0] if plain else None


def label_arm(arm: Arm, name: str) -> str:
    """An arm's name in its family."""
    low = "" if arm.radius is None else f"r = {arm.radius:g}"
    if name == "bandwidth":
        return low or _TARGETS[arm.target]
    if name == "crop":
        return arm.crop.upper()
    return f"{low or _TARGETS[arm.target]}, {arm.crop.upper()}"


def _find_ceiling(rows: pd.DataFrame) -> float:
    """Half the short side of a family's training images, and no more than half of what was trained on."""
    sides = [int(side) for side in rows["data_side"].unique() if side]
    return min(max(sides, default=int(rows["image_size"].iloc[0])), int(rows["image_size"].iloc[0])) / 2


def _label_families(firsts: Sequence[pd.Series], name: str) -> tuple[str, ...]:
    """Methods, and what else tells families apart."""
    details = []
    for first in firsts:
        target = _TARGETS[first["target"]] if name == "crop" else ""
        crop = first["crop"].upper() if name == "bandwidth" else ""
        told = (
            crop,
            target,
            f"{first['image_size']} px",
            f"seed {first['trained_seed']}",
            f"settings {first['others'][:4]}",
        )
        details.append((METHODS.get(first["family_method"], first["family_method"]), *told))
    labels = []
    for detail in details:
        same = [other for other in details if other[0] == detail[0]]
        parts = [part for place, part in enumerate(detail[1:], 1) if len({other[place] for other in same}) > 1 and part]
        labels.append(", ".join([detail[0], *parts]))
    return tuple(labels)


def _cut_panels(rows: pd.DataFrame, name: str) -> list[ArmPanel]:
    parts: Any = rows.groupby(_SETTING, sort=False)
    found = []
    for key, part in parts:
        points = _list_points(part, name)
        if max(sum(point.family == family for point in points) for family in part["family"].unique()) > 1:
            found.append((dict(zip(_SETTING, map(str, key), strict=True)), str(part["unit"].iloc[0]), points))
    titles = _name_panels([setting for setting, _, _ in found])
    return [ArmPanel(title, *rest) for title, rest in zip(titles, found, strict=True)]


def _name_panels(settings: Sequence[dict[str, str]]) -> list[str]:
    """Suites; where several panels are of one, also what tells their settings apart."""
    heads = [setting["suite"].replace("_", " ") for setting in settings]
    titles = []
    for head, setting in zip(heads, settings, strict=True):
        same = [other for other, title in zip(settings, heads, strict=True) if title == head]
        own = describe_settings([_describe_setting(one) for one in same])[1][same.index(setting)]
        titles.append(", ".join(filter(None, (head, own))))
    return titles


def _describe_setting(setting: dict[str, str]) -> dict[str, str]:
    plain = {
        "data": setting["dataset"],
        "condition": setting["condition"],
        "subset": setting["subset"],
        "seed": setting["seed"],
    }
    return {**plain, **parse_protocol(setting["procedure"]), "digest": setting["dataset_digest"]}


def _list_points(rows: pd.DataFrame, name: str) -> tuple[ArmPoint, ...]:
    records: Any = rows.drop_duplicates(["family", "weights_digest", "value", "low", "high", "n"]).itertuples()
    points: dict[tuple[int, Arm], ArmPoint] = {}
    for row in records:
        arm = Arm(str(row.target), None if pd.isna(row.radius) else float(row.radius), str(row.crop))
        model, epoch = str(row.model), None if pd.isna(row.epoch) else int(row.epoch)
        named = (model, str(row.run), model, str(row.weights_digest), str(row.method))
        subject = Subject(*named, epoch, int(row.seed), int(row.family), "")
        known = points.get((subject.family, arm))
        if known:
            raise InputError(
                "result rows of one arm of an ablation",
                expected="one value of each number",
                found=f"{known.estimate.value:.4f} and {row.value:.4f}",
                where=f"{name}, {row.suite}, {row.metric}: {label_arm(arm, name)} ({row.model})",
                fix="Name one run folder of each arm with --runs.",
            )
        hits = getattr(row, "hits", None)
        points[subject.family, arm] = ArmPoint(arm, subject.family, read_estimate(row), hits, subject)
    return tuple(sorted(points.values(), key=_order))


def _order(point: ArmPoint) -> tuple[int, bool, int, float]:
    arm = point.arm
    return point.family, arm.target == "lowfreq", CROPS.index(arm.crop), arm.radius or 0.0
