"""Rows of every suite there is, as a report meets them: two methods, two epochs, people, boxes."""

from __future__ import annotations

from dataclasses import asdict

import pandas as pd

from analysis.report.build import number_rows
from pixmim_eval.types import ResultRow
from tests.analysis.rows import Hits, build_outcomes, build_row

METHODS = ("mae", "pixmim-mae")
COMMAND = "python -m pixmim_eval.run --suite {} --data PATH"
CORRUPTIONS = ("gaussian_noise", "shot_noise", "impulse_noise", "fog", "contrast", "pixelate", "jpeg_compression")
CATEGORIES = ("cat", "dog", "truck")
KEPT = {"src": 0.86, "rrc-0.2": 0.64}


def build_robustness() -> tuple[list[ResultRow], Hits]:
    """Two models, seven corruptions at five severities, and variants; how 40 images fared under the first."""
    rows, hits = [], {}
    for place, method in enumerate(METHODS):
        fields = {"model": method, "method": method, "weights_digest": f"{method}-20", "epoch": 20}
        fields["command"] = COMMAND.format("robustness")
        found, known = build_outcomes(0.6 + place / 5, CORRUPTIONS, 40, place, **fields)
        rows += found
        hits |= {(method, *key): value for key, value in known.items()}
    return rows, hits


def build_scores(suite: str, metrics: tuple[str, ...], condition: str = "clean", **changes: object) -> list[ResultRow]:
    """Two methods at two epochs."""
    rows = []
    for number, (method, epoch) in enumerate((method, epoch) for method in METHODS for epoch in (10, 20)):
        fields = {"model": f"{method}-{epoch}", "method": method, "weights_digest": f"{method}-{epoch}", "epoch": epoch}
        fields |= {"suite": suite, "command": COMMAND.format(suite), "dataset": f"{suite}-val", **changes}
        rows += [
            build_row(condition, 0.2 + 0.1 * number + place / 50, metric=metric, **fields)
            for place, metric in enumerate(metrics)
        ]
    return rows


def build_people(suite: str = "shape_bias") -> list[ResultRow]:
    """One person and all people, from files of answers."""
    fields = {"suite": suite, "method": "people", "epoch": None, "dataset": "trials", "protocol": "source=trials"}
    metrics = ("shape_bias", *(f"shape_bias/{name}" for name in CATEGORIES))
    return [
        build_row(
            "cue-conflict", 0.95 - place / 100, model=name, weights_digest=f"{name}-answers", metric=metric, **fields
        )
        for name in ("ann", "people")
        for place, metric in enumerate(metrics)
    ]


def build_foreground() -> list[ResultRow]:
    """Two crops of boxes, which no model sees."""
    fields = {"suite": "foreground", "model": "no-model", "method": "none", "weights_digest": "", "epoch": None}
    fields |= {"protocol": "expectation=exact;masked=0.75-of-14x14;patches=14x14", "dataset": "boxes", "n": 700}
    fields["command"] = COMMAND.format("foreground")
    rows = []
    for crop, value in KEPT.items():
        metrics = {"overlap_union": value, "overlap_largest": value + 0.01, "overlap_union_masked75": value / 4}
        metrics |= {"overlap_union_size/0-0.1": value, "overlap_union_size/0.1-0.2": value + 0.02}
        rows += [build_row(crop, number, metric=metric, **fields) for metric, number in metrics.items()]
    return rows


def build_every_suite() -> list[ResultRow]:
    """All of it; nothing here contradicts itself."""
    rows = build_robustness()[0]
    shapes = ("shape_bias", "correct_fraction", *(f"shape_bias/{name}" for name in CATEGORIES))
    rows += [*build_scores("shape_bias", shapes, "cue-conflict"), *build_people()]
    rows += build_people("observers")
    rows += build_scores("model_vs_human", ("category_accuracy", "error_consistency_people"), "sketch")
    rows += build_foreground()
    rows += build_scores("segmentation", ("miou", "iou/cat"), "linear")
    rows += build_scores("detection", ("box_ap", "mask_ap"), "frozen")
    for suite in ("linear_probe", "knn", "few_shot", "finetune"):
        rows += build_scores(suite, ("top1", "top5"))
    bands = ("error_power/0-2.5", "error_power/2.5-5", "mse_pixels")
    return rows + build_scores("reconstruction", bands, "masked", unit="ratio", protocol="lowpass_radius=5")


def frame_rows(rows: list[ResultRow], hits: Hits | None = None, folder: str = "runs/evaluation") -> pd.DataFrame:
    """Rows as the command reads them, numbered; `hits` by model, condition and metric."""
    table = pd.DataFrame([asdict(row) for row in rows]).astype({"epoch": "Int64"})
    found = [(hits or {}).get((row.model, row.condition, row.metric)) for row in rows]  # type: ignore[call-overload]
    return number_rows(table.assign(hits=pd.Series(found, dtype=object), folder=folder))
