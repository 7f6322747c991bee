"""The numbers of curves over pretraining epochs (or over PixMIM's radius): which rows form a line, and what a panel."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.groups import describe_settings, parse_protocol, split_protocol
from analysis.sources import read_estimate
from analysis.subjects import Subject
from pixmim_eval.errors import InputError
from pixmim_eval.types import Estimate

Over = str  # "epoch" or "radius"
_SETTING = ["procedure", "subset", "dataset", "dataset_digest", "condition"]
_LINE = ["method", "stem", "run", "seed", "other"]


@dataclass(frozen=True)
class Point:
    """One model on a line.

    Args:
        place: its epoch, or its radius.
        estimate: the number.
        hits: int8 [N], how every image fared (see attach_hits); None where unknown.
        subject: the model.
    """

    place: float
    estimate: Estimate
    hits: np.ndarray | None
    subject: Subject


@dataclass(frozen=True)
class Line:
    """One pretraining run at its epochs, ascending; `subject` stands for all of them, without epoch and digest."""

    subject: Subject
    points: tuple[Point, ...]


@dataclass(frozen=True)
class EpochPanel:
    """What may be compared: one data set, one protocol, one condition.

    Args:
        title: what tells it from the other panels; "" where it is alone.
        setting: its procedure (the protocol less what heads chose), subset, dataset, dataset_digest and condition.
        lines: position among EpochCurves.subjects -> line.
    """

    title: str
    setting: dict[str, str]
    lines: dict[int, Line]


@dataclass(frozen=True)
class EpochCurves:
    """What the figure and the tables of one metric show.

    Args:
        suite, metric: of the rows.
        over: "epoch" or "radius".
        unit: of the numbers; "fraction" is shown in per cent.
        subjects: one a line, a baseline before its PixMIM version.
        panels: at least one.
        common: what all panels' settings agree on: "data", "subset", "condition" and the protocol.
        left_out: how many models have rows of this metric, but no place on the axis.
    """

    suite: str
    metric: str
    over: Over
    unit: str
    subjects: tuple[Subject, ...]
    panels: tuple[EpochPanel, ...]
    common: dict[str, str]
    left_out: int


def read_curves(rows: pd.DataFrame, name: str, condition: str | None = None, over: Over = "epoch") -> EpochCurves:
    """Sorts the rows of one metric into panels and lines.

    A line is one pretraining run: one method, seed, evaluation run and name (less the epoch in it). Nothing is averaged
    over seeds or runs. What a head chose on held-out images (penalty, pooling) may differ from epoch to epoch.

    Args:
        rows: as attach_hits gives.
        name: "SUITE/METRIC", e.g. "linear_probe/top1".
        condition: e.g. "clean"; None for "clean" where the metric has it, else for all conditions, a panel each.
        over: what the horizontal axis is: "epoch", or "radius" of PixMIM's low-pass filter (what the row says of the
            pretraining, else the protocol's `radius`, else "r40" as a word of the model's name).

    Raises:
        InputError: no such metric or condition; no row has a place on the axis; two values for one place of a line.
    """
    found = _select(rows, name, condition)
    placed = found.assign(place=_find_places(found, over))
    models = placed[["run", "model", "weights_digest", "method", "seed", "place"]].drop_duplicates()
    kept = placed[placed["place"].notna()]
    if kept.empty:
        examples = ", ".join(sorted({*found["model"]})[:3])
        where = "an epoch" if over == "epoch" else "a radius (in its checkpoint, the protocol, or r40 in its name)"
        raise InputError(
            "models",
            expected=f"at least one with {where}",
            found=examples,
            where=f"rows of {name}",
            fix="Evaluate checkpoints that pretrain.run wrote: --checkpoint 'runs/*/epoch-*.safetensors'.",
        )
    kept = _name_lines(kept, over)
    subjects, positions = _list_subjects(kept)
    kept = kept.assign(line=positions)
    parts: Any = kept.groupby(_SETTING, sort=False)
    settings = [dict(zip(_SETTING, key, strict=True)) for key, _ in parts]
    common, titles = describe_settings([_describe_setting(setting) for setting in settings])
    panels = [
        EpochPanel(title, setting, _cut_lines(part, subjects))
        for title, setting, (_, part) in zip(titles, settings, parts, strict=True)
    ]
    left_out = int(models["place"].isna().sum())
    unit = str(kept["unit"].iloc[0])
    suite, _, metric = name.partition("/")
    return EpochCurves(suite, metric, over, unit, subjects, tuple(panels), common, left_out)


def _select(rows: pd.DataFrame, name: str, condition: str | None) -> pd.DataFrame:
    """The rows of a metric, under one condition or all."""
    suite, _, metric = name.partition("/")
    found = rows[(rows["suite"] == suite) & (rows["metric"] == metric)]
    if found.empty:
        known = sorted({f"{row.suite}/{row.metric}" for row in rows[["suite", "metric"]].itertuples()})
        _refuse("metric", "SUITE/METRIC, one of those there are", repr(name), "--metric", ", ".join(known))
    conditions = list(dict.fromkeys(found["condition"]))
    if condition is None:
        condition = "clean" if "clean" in conditions else None
    elif condition not in conditions:
        _refuse("condition", f"one that {name} has", repr(condition), "--condition", ", ".join(sorted(conditions)))
    return found if condition is None else found[found["condition"] == condition]


def _refuse(checked: str, expected: str, found: str, where: str, known: str) -> None:
    raise InputError(checked, expected=expected, found=found, where=where, fix=f"There are: {known}.")


def _find_places(rows: pd.DataFrame, over: Over) -> pd.Series:
    """The epoch or the radius of every row, NaN where it has none."""
    if over == "epoch":
        return rows["epoch"].astype("Float64").astype(float)
    places = []
    for pretraining, protocol, model in zip(rows["pretraining"], rows["protocol"], rows["model"], strict=True):
        word = re.search(r"(?<![A-Za-z0-9.])r(\d+(?:\.\d+)?)(?![A-Za-z0-9])", model)
        told = parse_protocol(pretraining).get("radius") or parse_protocol(protocol).get("radius")
        places.append(float(told or (word[1] if word else "nan")))
    return pd.Series(places, index=rows.index)


def _name_lines(rows: pd.DataFrame, over: Over) -> pd.DataFrame:
    """The rows with what tells lines apart (`stem`, `other`), and the protocol as panels are told apart by it."""
    procedures, stems, others = [], [], []
    for model, epoch, protocol in zip(rows["model"], rows["epoch"], rows["protocol"], strict=True):
        number = None if pd.isna(epoch) else int(epoch)
        procedure, stem, other = split_protocol(protocol)[0], strip_epoch(model, number), ""
        if over == "radius":
            procedure = ";".join(piece for piece in procedure.split(";") if not piece.startswith("radius="))
            stem, other = "", "epoch unknown" if number is None else f"epoch {number}"
        procedures.append(procedure)
        stems.append(stem)
        others.append(other)
    return rows.assign(procedure=procedures, stem=stems, other=others)


def strip_epoch(model: str, epoch: int | None) -> str:
    """A model's name less the epoch in it: "mae-20:first/epoch-0020" and "mae-20" become "mae:first" and "mae"."""
    name = re.sub(r"@[0-9a-f]{6}$", "", model)
    if epoch is None:
        return name
    name = re.sub(rf"[:/]epoch-0*{epoch}$", "", name)
    return re.sub(rf"-0*{epoch}(?=:|$)", "", name, count=1)


def _list_subjects(rows: pd.DataFrame) -> tuple[tuple[Subject, ...], list[int]]:
    """The lines, named by method and, where a method has several, by what tells these apart; and each row's line."""
    identities = list(zip(*(rows[column].astype(str) for column in _LINE), strict=True))
    lines = list(dict.fromkeys(identities))
    families = list(dict.fromkeys(method.removeprefix("pixmim-") for method, *_ in lines))
    order = sorted(
        lines, key=lambda line: (families.index(line[0].removeprefix("pixmim-")), line[0].startswith("pixmim-"))
    )
    subjects = []
    for line in order:
        method, stem, run, seed, other = line
        same = [one for one in order if one[0] == method]
        details = (stem.partition(":")[2] or stem, f"run {run}", f"seed {seed}", other)
        told = [
            detail for place, detail in enumerate(details, start=1) if len({one[place] for one in same}) > 1 and detail
        ]
        name = stem or method if method == "unknown" else method
        label = f"{name} ({', '.join(told)})" if told else name
        family = families.index(method.removeprefix("pixmim-"))
        subjects.append(Subject(label, run, stem, "", method, None, int(seed), family, ""))
    return tuple(subjects), [order.index(identity) for identity in identities]


def _describe_setting(setting: dict[str, str]) -> dict[str, str]:
    protocol = parse_protocol(setting["procedure"])
    return {
        "data": setting["dataset"],
        "condition": setting["condition"],
        "subset": setting["subset"],
        **protocol,
        "digest": setting["dataset_digest"],
    }


def _cut_lines(rows: pd.DataFrame, subjects: tuple[Subject, ...]) -> dict[int, Line]:
    lines: dict[int, Line] = {}
    by_line: Any = rows.groupby("line")
    for position, part in by_line:
        part = part.drop_duplicates(["place", "weights_digest", "value", "low", "high", "n"])
        doubles = part[part["place"].duplicated(keep=False)].sort_values("place")
        subject = subjects[position]
        if not doubles.empty:
            first = doubles[doubles["place"] == doubles["place"].iloc[0]]
            raise InputError(
                "models of one line",
                expected="one value at each place",
                found=", ".join(f"{row.model} (weights {row.weights_digest[:6]})" for row in first.itertuples()),
                where=f"{subject.label}, {doubles['place'].iloc[0]:g}",
                fix="Evaluate all checkpoints in one command, which names them apart, or each pretraining run into an "
                "--out of its own.",
            )
        points = [
            Point(
                float(row.place),
                read_estimate(row),
                getattr(row, "hits", None),
                replace(
                    subject,
                    model=row.model,
                    weights_digest=row.weights_digest,
                    epoch=None if pd.isna(row.epoch) else int(row.epoch),
                ),
            )
            for row in part.sort_values("place").itertuples()
        ]
        lines[int(position)] = Line(subject, tuple(points))
    return lines
