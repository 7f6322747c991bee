"""Result rows of ablations that were never run: every arm's rows say how it was pretrained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd

from pixmim_eval.results import hash_parts
from pixmim_eval.types import ResultRow
from tests.analysis.rows import build_row

IMAGES = 400
PROBE = ("linear_probe", "top1", "clean", "head=cached(sgd);pooling=mean")
ROBUST = ("robustness", "mean_error_15", "summary", "source=generated")
FRACTIONS = (5 / 112, 10 / 112, 20 / 112, 40 / 112, 80 / 112, 1.0)
Suite = tuple[str, str, str, str]
Outcome = tuple[ResultRow, np.ndarray | None]


def describe(crop: str, target: str = "", radius: float | None = None, **changes: object) -> str:
    """What a row says of its model's pretraining."""
    told: dict[str, object] = {"crop": crop, "image_size": 64, "others": "ab12cd34", "seed": 0, **changes}
    told |= {"target": target} if target else {}
    told |= {"radius": f"{radius:g}"} if radius else {}
    return ";".join(f"{key}={told[key]}" for key in sorted(told))


def build_arm(
    rate: float, method: str, pretraining: str, suites: Sequence[Suite] = (PROBE,), **changes: object
) -> list[Outcome]:
    """One model's rows; of an accuracy also how each image fared, with a share of `rate` right."""
    digest = hash_parts(method, pretraining, str(changes))
    found: list[Outcome] = []
    for suite, metric, condition, protocol in suites:
        right = (np.arange(IMAGES) * 7 % IMAGES < round(rate * IMAGES)).astype(np.int8)
        fields: dict[str, object] = {"suite": suite, "metric": metric, "protocol": protocol, "pretraining": pretraining}
        fields |= {"model": f"{method}-40", "method": method, "weights_digest": digest, "epoch": 40, "n": IMAGES}
        row = build_row(condition, float(right.mean()), **{**fields, "dataset": "photos", **changes})
        found.append((row, right if metric == "top1" else None))
    return found


def build_bandwidth(size: int = 64, suites: Sequence[Suite] = (PROBE,), **changes: object) -> list[Outcome]:
    """Six radii and no filter, all with SRC."""
    rows = build_arm(0.5, "mae+src", describe("src", "normalised", image_size=size, **changes), suites)
    for place, fraction in enumerate(FRACTIONS):
        told = describe("src", "lowfreq", round(fraction * size / 2, 2), image_size=size, **changes)
        rows += build_arm(0.46 + 0.04 * (3 - abs(3 - place)), "pixmim-mae", told, suites)
    return rows


def build_crops(suites: Sequence[Suite] = (PROBE,)) -> list[Outcome]:
    """RRC, SRC and CC for MAE and DeiT III."""
    rows: list[Outcome] = []
    for method, target, rates in (("mae", "normalised", (0.5, 0.55, 0.45)), ("deit3", "", (0.8, 0.7, 0.6))):
        for crop, rate in zip(("rrc", "src", "cc"), rates, strict=True):
            name = method if crop == "rrc" else f"{method}+{crop}"
            rows += build_arm(rate, name, describe(crop, target, others=method), suites)
    return rows


def build_components(suites: Sequence[Suite] = (PROBE,)) -> list[Outcome]:
    """With and without the low-frequency target, RRC and SRC."""
    rows = build_arm(0.5, "mae", describe("rrc", "normalised"), suites)
    rows += build_arm(0.55, "mae+src", describe("src", "normalised"), suites)
    rows += build_arm(0.52, "mae+low-frequency", describe("rrc", "lowfreq", 11.43), suites)
    return rows + build_arm(0.6, "pixmim-mae", describe("src", "lowfreq", 11.43), suites)


def frame_arms(outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """Rows as analysis reads them, numbered."""
    table = pd.DataFrame([asdict(row) for row, _ in outcomes]).astype({"epoch": "Int64"})
    hits = pd.Series([found for _, found in outcomes], dtype=object)
    return table.assign(hits=hits, source=range(len(table)))
