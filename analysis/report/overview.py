"""What a report is of: run folders, models, data, commands."""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis.captions import list_counts
from analysis.formats import Cell, Table
from analysis.report.parts import Sheet
from analysis.shape_bias.numbers import PEOPLE, TRIALS

UNKNOWN = "unknown"
NO_MODELS = (PEOPLE, TRIALS, "none")  # methods of rows that are of files with answers, or of boxes


def list_overview(rows: pd.DataFrame) -> list[Sheet]:
    """A table each of runs, models, data and commands; see number_rows for the rows."""
    found = (
        ("runs", "Run folders", list_runs(rows), "lrlrllr"),
        ("models", "Models", list_models(rows), "llllrlr"),
        ("data", "Data", list_data(rows), "lllllrrr"),
        ("commands", "Commands that made the rows", list_commands(rows), "lr"),
    )
    return [
        Sheet(f"overview-{name}", (_make_table(title, frame, sides),), frame) for name, title, frame, sides in found
    ]


def list_runs(rows: pd.DataFrame) -> pd.DataFrame:
    """A row a run folder: how much it holds, and from when to when."""
    folders = rows["folder"] if "folder" in rows else rows["run"]
    parts: Any = rows.groupby(folders.rename("name"), sort=False)
    records = [
        {
            "run": name,
            "rows": len(part),
            "suites": ", ".join(dict.fromkeys(part["suite"])),
            "models": part["weights_digest"].nunique(),
            "first (UTC)": format_time(part["time"].min()),
            "last (UTC)": format_time(part["time"].max()),
            "without a command": int((part["command"] == "").sum()),
        }
        for name, part in parts
    ]
    return pd.DataFrame(records)


def list_models(rows: pd.DataFrame) -> pd.DataFrame:
    """A row a model."""
    keys = ["model", "method", "weights_digest", "pretraining", "epoch"]
    parts: Any = rows.groupby(keys, sort=False, dropna=False)
    records = [
        {
            "model": model,
            "method": method,
            "weights digest": digest,
            "pretraining": pretraining.replace(";", ", ") or UNKNOWN,
            "epoch": UNKNOWN if pd.isna(epoch) else str(epoch),
            "suites": ", ".join(dict.fromkeys(part["suite"])),
            "rows": len(part),
        }
        for (model, method, digest, pretraining, epoch), part in parts
    ]
    return pd.DataFrame(records)


def list_data(rows: pd.DataFrame) -> pd.DataFrame:
    """A row each suite, data set (by content) and choice of its images."""
    keys = ["suite", "dataset", "dataset_digest", "subset"]
    parts: Any = rows.groupby(keys, sort=False)
    records = [
        {
            **dict(zip(("suite", "data set", "digest", "images"), key, strict=True)),
            "units": ", ".join(dict.fromkeys(part["unit"])),
            "n": list_counts(part["n"]),
            "conditions": part["condition"].nunique(),
            "models": part["weights_digest"].nunique(),
        }
        for key, part in parts
    ]
    return pd.DataFrame(records)


def list_commands(rows: pd.DataFrame) -> pd.DataFrame:
    """Every command, and how many rows it made."""
    counts = rows["command"].value_counts(sort=False)
    records = [{"command": command or UNKNOWN, "rows": int(count)} for command, count in counts.items()]
    return pd.DataFrame(records)


def describe_rows(rows: pd.DataFrame) -> tuple[str, ...]:
    """What to know before reading any number."""
    first, last = rows["time"].min()[:10], rows["time"].max()[:10]
    dates = f"on {first}" if first == last else f"from {first} to {last}"
    suites, sets = (rows[name].nunique() for name in ("suite", "dataset_digest"))
    models = rows.loc[~rows["method"].isin(NO_MODELS), "weights_digest"].nunique()
    versions = sorted(
        {
            piece.partition("=")[2]
            for text in rows["versions"].unique()
            for piece in text.split(";")
            if "pixmim" in piece
        }
    )
    return (
        f"{len(rows):,} result rows of {models:,} models on {sets:,} data sets in {suites:,} suites, measured {dates}"
        f" with pixmim-eval {', '.join(versions) or UNKNOWN}. Everything here is computed from these rows alone.",
        "Brackets and bands are 95 % intervals; n is what each is over, of images unless its table says otherwise."
        " They do not cover another pretraining run: one checkpoint is one draw of its method.",
        "Numbers may be compared within a table: it holds one data set (by content), one choice of images and one"
        " protocol, which its notes name. What protocols differ in is never averaged over.",
    )


def format_time(time: str) -> str:
    """A time to the minute, "2026-01-02 03:04"; times of rows are UTC."""
    return time[:16].replace("T", " ")


def _make_table(title: str, frame: pd.DataFrame, sides: str) -> Table:
    body = tuple(
        tuple(Cell(f"{value:,}" if isinstance(value, int) else str(value)) for value in row)
        for row in frame.itertuples(index=False)
    )
    return Table(title, tuple(frame.columns), body, sides, (), long=True)
