"""Result rows of models that were never trained, but whose numbers look it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.columns import CORRUPTION_GROUPS
from pixmim_eval.results import RunFolder
from pixmim_eval.types import Outcome, ResultRow

SIX = ("gaussian_noise", "impulse_noise", "defocus_blur", "fog", "contrast", "jpeg_compression")
GROUPS = CORRUPTION_GROUPS
FIFTEEN = tuple(name for family in ("noise", "blur", "weather", "digital") for name in GROUPS[family])
NINETEEN = FIFTEEN + GROUPS["extra"]
SHAPES = {"cue-conflict": 0.31, "sketch": 0.62, "rendition": 0.55, "hard": 0.44}
IMAGENET = {"imagenet-a": 0.12, "imagenet-r": 0.33, "imagenet-sketch": 0.24, "imagenet-v2": 0.71}

Hits = dict[tuple[str, str], np.ndarray]


def build_row(condition: str, value: float, **changes: object) -> ResultRow:
    """One row; the interval is the normal approximation unless low and high are given."""
    number = int(changes.get("n", 1024))  # type: ignore[call-overload]
    half = 1.96 * math.sqrt(max(value * (1 - value), 0.0) / number)
    corrupted = "/" in condition or condition == "summary"
    source = "parameters=tiny-imagenet-c;pooling=own;precision=float32;source=generated"
    source = source if corrupted else "pooling=own;precision=float32;source=files"
    fields: dict[str, object] = {
        "run": "demo",
        "model": "mae-small",
        "weights_digest": "aa11bb22cc33dd44",
        "method": "mae",
        "epoch": 200,
        "suite": "robustness",
        "dataset": "shapes16-val" if corrupted or condition == "clean" else f"shapes16-{condition}",
        "dataset_digest": "0123456789abcdef",
        "subset": "all",
        "condition": condition,
        "protocol": f"head=own;label_space=shapes16;{source};transform=ready-64",
        "metric": "top1",
        "value": value,
        "low": max(value - half, 0.0),
        "high": min(value + half, 1.0),
        "n": number,
        "unit": "fraction",
        "skipped": 0,
        "seed": 0,
        "versions": "pixmim-eval=0.1.0",
        "time": "2025-01-01T00:00:00",
        "command": "python -m pixmim_eval.run --suite robustness --model first",
        "backbone": "",
        "pretraining": "",
    }
    return ResultRow(**{**fields, **changes})  # type: ignore[arg-type]


def build_model(
    clean: float,
    corruptions: tuple[str, ...] | list[str] = SIX,
    variants: dict[str, float] | None = None,
    **changes: object,
) -> list[ResultRow]:
    """All rows of one model's robustness run: falling with severity, each corruption a little differently."""
    rows = [build_row("clean", clean, **changes)]
    errors = []
    for place, name in enumerate(corruptions):
        for severity in range(1, 6):
            value = clean * (1 - severity * (0.05 + 0.02 * (place * 7 % 5)))
            errors.append(1 - value)
            rows.append(build_row(f"{name}/{severity}", value, **changes))
    error = sum(errors) / len(errors)
    metric = f"mean_error_{len(corruptions)}"
    summary = {**changes, "metric": metric, "low": error - 0.008, "high": error + 0.008}
    rows.append(build_row("summary", error, **summary))
    variants = SHAPES if variants is None else variants
    return rows + [build_row(name, value * clean / 0.9, **changes) for name, value in variants.items()]


def build_outcomes(
    clean: float, corruptions: tuple[str, ...] = NINETEEN, images: int = 1000, stream: int = 0, **changes: object
) -> tuple[list[ResultRow], Hits]:
    """A model's whole run on ImageNet-like data, with how each image fared: images differ in how hard they are.

    Accuracies fall with severity; ImageNet-A and -R have 200 classes, so they are scored twice and have a clean
    accuracy of their own classes.
    """
    random, hardness = np.random.default_rng(stream), np.random.default_rng(99).normal(size=images)
    common = "head=own;label_space=imagenet-1k;pooling=own;precision=float32"
    plain = f"{common};source=files;transform=resize-256-crop-224"
    corrupted = f"{common};parameters=imagenet-c;source=generated;stored=jpeg-85;transform=resize-256-crop-224"
    masked = plain.replace("imagenet-1k", "wordnet-200-of-imagenet-1k")
    rows, hits = [], {}

    def add(condition: str, rate: float, metric: str = "top1", protocol: str = plain, **more: object) -> None:
        noise = random.normal(size=images)
        right = 0.8 * hardness + 0.6 * noise < math.sqrt(2) * _inverse_erf(2 * rate - 1)
        if metric.startswith("top1"):
            hits[condition, metric] = right.astype(np.int8)
        fields = {"metric": metric, "protocol": protocol, "n": images, "dataset": "imagenet-1k-val", **changes, **more}
        rows.append(build_row(condition, float(right.mean()), **fields))

    add("clean", clean)
    add("clean", 0.04 + 0.05 * (1 - clean), "ece")
    for place, name in enumerate(corruptions):
        for severity in range(1, 6):
            add(f"{name}/{severity}", clean * (1 - severity * (0.03 + 0.025 * (place * 7 % 6))), protocol=corrupted)
    rows += _summarise(hits, corruptions, corrupted, images, changes) if corruptions else []
    for name, rate in IMAGENET.items():
        if name in ("imagenet-a", "imagenet-r"):
            own = {"dataset": name, "protocol": masked}
            add(name, rate * clean / 0.8, "top1_masked200", **own)
            add(name, rate * clean / 0.9, "top1_full1000", **own)
            add(name, min(clean * 1.12, 0.99), "clean_top1_masked200", **own)
            add(name, min(clean * 1.06, 0.99), "clean_top1_full1000", **own)
        else:
            add(name, rate * clean / 0.8, dataset=name)
    return rows, hits


def _summarise(
    hits: Hits, corruptions: tuple[str, ...], protocol: str, images: int, changes: dict[str, object]
) -> list[ResultRow]:
    """Mean errors, of all and of the groups that are there in full, with an image-level normal interval."""
    sets = {f"mean_error_{len(corruptions)}": corruptions}
    sets |= {f"mean_error_{group}": names for group, names in GROUPS.items() if {*names} <= {*corruptions}}
    if {*FIFTEEN} <= {*corruptions}:
        sets |= {"mean_error_15": FIFTEEN, "mce_15": FIFTEEN, "relative_mce_15": FIFTEEN}
    rows = []
    for metric, names in sets.items():
        cells = np.array([hits[f"{name}/{severity}", "top1"] for name in names for severity in range(1, 6)])
        errors = (1 - cells).mean(axis=0) * (1.1 if metric == "mce_15" else 1.3 if metric == "relative_mce_15" else 1)
        half = 1.96 * float(errors.std(ddof=1)) / math.sqrt(images)
        value = float(errors.mean())
        fields = {"metric": metric, "protocol": protocol, "n": images, "dataset": "imagenet-1k-val", **changes}
        unit = "ratio" if "mce" in metric else "fraction"
        rows.append(build_row("summary", value, **{**fields, "low": value - half, "high": value + half, "unit": unit}))
    return rows


def _inverse_erf(value: float) -> float:
    low, high = -6.0, 6.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if math.erf(middle) < value else (low, middle)
    return (low + high) / 2


def write_run(folder: Path, rows: list[ResultRow], hits: Mapping[tuple[str, str], np.ndarray] | None = None) -> Path:
    """Writes rows, and the outcomes that there are of them, as a run folder."""
    parts: dict[str, list[ResultRow]] = {}
    for row in rows:
        parts.setdefault(row.condition if hits else "", []).append(row)
    for number, (condition, part) in enumerate(parts.items()):
        there = {metric: found for (other, metric), found in (hits or {}).items() if other == condition}
        RunFolder(folder).write(f"{number:04d}", Outcome(part, there))
    return folder


def frame_outcomes(*models: tuple[list[ResultRow], Hits]) -> pd.DataFrame:
    """Models' rows with their outcomes, as analysis reads them from run folders."""
    pairs = [(row, hits.get((row.condition, row.metric))) for rows, hits in models for row in rows]
    table = pd.DataFrame([asdict(row) for row, _ in pairs]).astype({"epoch": "Int64"})
    return table.assign(hits=pd.Series([found for _, found in pairs], dtype=object))
