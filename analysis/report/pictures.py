"""The PNG files that suites drew of images into run folders."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis.report.parts import Picture
from pixmim_eval.errors import InputError

DRAWN = re.compile(r"(reconstruction|segmentation|detection|foreground)(?:-part-(\d+))?")
TITLES = {
    "reconstruction": "Reconstructions of masked images",
    "segmentation": "Segmentation: images, masks and answers",
    "detection": "Detection: objects in the truth and as found",
    "foreground": "Crops, boxes and masks",
}


def find_pictures(rows: pd.DataFrame, others: Sequence[Path] = ()) -> list[Picture]:
    """The pictures in DIR/reports/figures of run folders, by suite, and others after them.

    Args:
        rows: ResultRow columns, which say what the pictures are of, and `folder`, where to look for them.
        others: PNG files, such as those that pretraining draws.

    Raises:
        InputError: one of `others` is not there.
    """
    for path in others:
        if not path.is_file():
            raise InputError(
                "a picture of a report",
                expected="a PNG file",
                found="none",
                where=f"--pictures {path}",
                fix="Name a file that is there, e.g. reconstruction-0020.png of a pretraining run's folder.",
            )
    found = []
    for folder in map(Path, dict.fromkeys(rows["folder"])):
        for path in sorted((folder / "reports" / "figures").glob("*.png")):
            if match := DRAWN.fullmatch(path.stem):
                own = rows[(rows["folder"] == str(folder)) & (rows["suite"] == match[1])]
                found.append((match[1], path, _describe(match[1], own, folder)))
    titles = [*TITLES]
    found.sort(key=lambda one: titles.index(one[0]))
    found += [("", path, f"Given by hand: {path}. No row says what it shows.") for path in others]
    stems = _name_stems([path for _, path, _ in found])
    return [
        Picture(stem, _name_title(suite, path), path, caption)
        for stem, (suite, path, caption) in zip(stems, found, strict=True)
    ]


def _name_title(suite: str, path: Path) -> str:
    match = DRAWN.fullmatch(path.stem)
    part = f" (part {match[2]})" if match and match[2] else ""
    return f"{TITLES[suite]}{part}" if suite else path.stem


def _describe(suite: str, rows: pd.DataFrame, folder: Path) -> str:
    """What a picture shows, as far as the rows of its run folder tell."""
    examples = "Examples, chosen evenly from the data set and not for how they look; nothing is measured on them."
    if rows.empty:
        return f"Drawn by the suite {suite} into {folder}, which holds no rows of it. {examples}"
    models, sets = (", ".join(dict.fromkeys(rows[name])) for name in ("model", "dataset"))
    protocols = [text.replace(";", ", ") for text in dict.fromkeys(rows["protocol"])]
    protocol = f" Protocol: {protocols[0]}." if len(protocols) == 1 else ""
    return f"Drawn by the suite {suite} into {folder}. Models: {models}. Data: {sets}.{protocol} {examples}"


def _name_stems(paths: Sequence[Path]) -> list[str]:
    """Unique names: a picture's own, with a number where several run folders drew one of that name."""
    names = ["picture-" + re.sub(r"[^A-Za-z0-9_.]+", "-", path.stem)[:80] for path in paths]
    return [
        f"{name}-run-{names[: place + 1].count(name)}" if names.count(name) > 1 else name
        for place, name in enumerate(names)
    ]
