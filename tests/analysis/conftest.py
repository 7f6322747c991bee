"""Result rows of models that were never trained, but whose numbers look it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from pixmim_eval.results import RunFolder, read_rows
from pixmim_eval.types import ResultRow

SIX = ("gaussian_noise", "impulse_noise", "defocus_blur", "fog", "contrast", "jpeg_compression")


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
    if variants is None:
        variants = {"cue-conflict": 0.31, "sketch": 0.62, "rendition": 0.55, "hard": 0.44}
    return rows + [build_row(name, value * clean / 0.9, **changes) for name, value in variants.items()]


@pytest.fixture
def make_row() -> Callable[..., ResultRow]:
    """make_row(condition, value, **fields)."""
    return build_row


@pytest.fixture
def make_model() -> Callable[..., list[ResultRow]]:
    """make_model(clean, corruptions, variants, **fields)."""
    return build_model


@pytest.fixture
def write_run(tmp_path: Path) -> Callable[..., Path]:
    """Writes rows as a run folder: write_run(rows, "name") -> its path."""

    def write(rows: list[ResultRow], name: str = "evaluation") -> Path:
        RunFolder(tmp_path / name).write("0", rows)
        return tmp_path / name

    return write


@pytest.fixture
def as_frame(write_run: Callable[..., Path]) -> Callable[[list[ResultRow]], pd.DataFrame]:
    """Rows as analysis reads them, through a run folder."""
    return lambda rows: read_rows(write_run(rows))
