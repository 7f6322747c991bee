"""Which result rows are of the arms of an ablation: by how their models were pretrained, never by their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.groups import parse_protocol, split_protocol
from analysis.report.suites import DENSE, MAIN_METRICS, SCORED

NAMES = ("bandwidth", "crop", "components")
CROPS = ("rrc", "src", "cc")
METHODS = {"mae": "MAE", "lsmae": "LSMAE", "convmae": "ConvMAE", "deit3": "DeiT III"}
# Apart from the method: what is the same in all arms of one family.
_FIXED = {
    "bandwidth": ("image_size", "crop", "trained_seed", "others"),
    "crop": ("image_size", "target", "radius", "trained_seed", "others"),
    "components": ("image_size", "trained_seed", "others"),
}
_LEAST = {"bandwidth": 2, "crop": 2, "components": 3}  # arms of a family, without the plain target in "bandwidth"


def find_arms(rows: pd.DataFrame, name: str) -> tuple[pd.DataFrame, int]:
    """The rows of an ablation's arms; see ablations.read_ablation.

    Args:
        rows: ResultRow columns.
        name: one of NAMES.

    Returns:
        Those of each suite's main metric with the columns crop, data_side, image_size, target, others, trained_seed
        (text, "" where unknown; `seed` is the evaluation's), radius (NaN where there is none), family_method (the
        method without its parts), family (a key of what all its arms share), family_order (of families beside each
        other), procedure (see split_protocol). And how many models that say how they were pretrained are in none.
    """
    found = _read_pretraining(_select_metrics(rows))
    models = found["weights_digest"].nunique()
    if name == "components":
        found = found[found["crop"].isin(("rrc", "src")) & found["target"].isin(("normalised", "lowfreq"))]
        found = _keep_most(found, ["family_method", *_FIXED["components"]], "radius")
    found = found.assign(family=_join(found, ("family_method", *_FIXED[name])))
    found = _keep_families(_keep_last(_keep_most(found, ["family"], "epoch")), name)
    if name == "bandwidth" and not found.empty:
        found = _keep_most(found, [], "image_size")
    return found, int(models - found["weights_digest"].nunique())


def _select_metrics(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of each suite's main metric: for robustness the mean over corruptions, else the clean images."""
    parts = []
    for suite in sorted(MAIN_METRICS, key=lambda suite: suite not in (*SCORED, *DENSE)):
        patterns = MAIN_METRICS[suite]
        own = rows[rows["suite"] == suite]
        metrics = sorted(own["metric"].unique())
        known = [metric for pattern in patterns for metric in metrics if re.fullmatch(pattern, metric)]
        if known:
            own = own[own["metric"] == known[0]]
            parts.append(own[own["condition"] == "clean"] if "clean" in set(own["condition"]) else own)
    return pd.concat(parts, ignore_index=True) if parts else rows.iloc[:0]


def _read_pretraining(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of models that say how they were pretrained, and what they say."""
    told = {text: parse_protocol(text) for text in rows["pretraining"].unique()}
    known = [text for text, values in told.items() if values.get("crop") in CROPS and _has_numbers(values)]
    rows = rows[rows["pretraining"].isin(known)]
    columns: dict[str, Any] = {
        key: rows["pretraining"].map(lambda text, key=key: told[text].get(key, ""))
        for key in ("crop", "data_side", "image_size", "target", "others")
    }
    protocols = {text: split_protocol(text)[0] for text in rows["protocol"].unique()}
    return rows.assign(
        **columns,
        trained_seed=rows["pretraining"].map(lambda text: told[text].get("seed", "")),
        radius=rows["pretraining"].map(lambda text: float(told[text].get("radius", "nan"))),
        family_method=rows["method"].map(lambda method: method.removeprefix("pixmim-").split("+")[0]),
        procedure=rows["protocol"].map(protocols),
    )


def _has_numbers(values: dict[str, str]) -> bool:
    """Whether an image size is there, and every number is one."""
    whole = re.fullmatch(r"[1-9]\d{0,5}", values.get("image_size", ""))
    side = re.fullmatch(r"[1-9]\d{0,5}", values.get("data_side", "1"))
    radius = re.fullmatch(r"\d+(\.\d+)?", values.get("radius", "0"))
    return bool(whole and side and radius)


def _keep_most(rows: pd.DataFrame, within: list[str], column: str) -> pd.DataFrame:
    """Of each set of rows those with the value of a column that most models have, the greatest where several do; rows
    without a value stay."""
    kept = []
    parts: Any = rows.groupby(within, sort=False, dropna=False) if within else [((), rows)]
    for _, part in parts:
        counts = part.groupby(column)["weights_digest"].nunique()
        if counts.empty:
            kept.append(part)
            continue
        best = max(counts[counts == counts.max()].index, key=float)
        kept.append(part[(part[column] == best) | part[column].isna()])
    return pd.concat(kept) if kept else rows


def _keep_last(rows: pd.DataFrame) -> pd.DataFrame:
    """Of models that were trained alike the one with the last row: the same training again, on another device."""
    arms = pd.Series(_join(rows, ("family", "crop", "target", "radius")), index=rows.index)
    order = rows["time"].argsort(kind="stable")
    last = dict(zip(arms.iloc[order], rows["weights_digest"].iloc[order], strict=True))
    return rows[rows["weights_digest"] == arms.map(last)]


def _join(rows: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """One key a row, of several columns."""
    return [repr(values) for values in zip(*(rows[column].astype(str) for column in columns), strict=True)]


def _keep_families(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """The families that have enough arms, numbered by method in their usual order."""
    kept = []
    for _, part in rows.groupby("family", sort=False):
        filtered = part[part["target"] == "lowfreq"]
        arms = filtered["radius"] if name == "bandwidth" else part["crop"]
        if name == "components":
            arms = part["crop"] + part["target"]
        if arms.nunique() >= _LEAST[name]:
            method = str(part["family_method"].iloc[0])
            order = [*METHODS].index(method) if method in METHODS else len(METHODS)
            used = part if name != "bandwidth" else part[part["target"].isin(("lowfreq", "normalised"))]
            kept.append(used.assign(family_order=order))
    return pd.concat(kept) if kept else rows.iloc[:0]
