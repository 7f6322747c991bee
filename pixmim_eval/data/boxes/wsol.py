"""Boxes in the lists of weakly supervised localisation: localization.txt and image_sizes.txt in one folder."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from pixmim_eval.data.boxes.box_set import BoxSet, RawBoxes, check_boxes
from pixmim_eval.data.problems import Problem, leads_out
from pixmim_eval.errors import InputError


def open_wsol(folder: Path) -> BoxSet:
    """The boxes of a metadata folder of the WSOL evaluation.

    image_sizes.txt: `path,width,height`, one line an image. localization.txt: `path,x0,y0,x1,y1`, one line a box; x1
    and y1 are the last column and row of pixels: the box covers [x0, x1 + 1).

    Raises:
        InputError: a list missing or unreadable, localization.txt that names mask files (OpenImages), or no box left.

    Source: Choe et al., "Evaluating weakly supervised object localization methods right", CVPR 2020, and its public
        code, which takes a box's width as x1 - x0 + 1 (evaluation.py, calculate_multiple_iou).
    """
    problems: list[Problem] = []
    sizes: dict[str, tuple[int, int]] = {}
    for line, key, numbers in _read_list(folder / "image_sizes.txt", 2, problems):
        size = (_to_side(numbers[1]), _to_side(numbers[0]))
        if sizes.setdefault(key, size) != size:
            problems.append(Problem("no size", key, f"line {line} states another size"))
            sizes[key] = (0, 0)
    rows = {key: row for row, key in enumerate(sizes)}
    image, corners = [], []
    for line, key, numbers in _read_list(folder / "localization.txt", 4, problems):
        if key in rows:
            image.append(rows[key])
            corners.append(numbers)
        else:
            problems.append(Problem("no entry", key, f"line {line} of localization.txt"))
    name = "-".join(folder.resolve().parts[-2:]).lower()
    edges = np.array(corners, dtype=np.float64).reshape(-1, 4) + np.array([0.0, 0.0, 1.0, 1.0])
    stated = np.array(list(sizes.values()), dtype=np.int64).reshape(-1, 2)
    return check_boxes(
        RawBoxes(name, str(folder), list(sizes), stated, np.array(image, dtype=np.int64), edges, problems)
    )


def _read_list(file: Path, count: int, problems: list[Problem]) -> list[tuple[int, str, list[float]]]:
    """Line number, key and numbers of each line that has as many; the others are listed."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            "lists of boxes",
            expected="localization.txt and image_sizes.txt",
            found=str(error),
            where=str(file),
            fix="Point at one split's folder of the metadata, e.g. metadata/ILSVRC/val.",
        ) from error
    entries = []
    for line, text in enumerate(lines, start=1):
        key, *fields = text.rsplit(",", count)
        if count == 4 and text.count(",") == 2 and text.split(",")[1].endswith(".png"):
            raise InputError(
                "lists of boxes",
                expected="path,x0,y0,x1,y1",
                found=f"names of mask files: {text}",
                where=str(file),
                fix="Give the masks as COCO JSON; lists of mask files (OpenImages) are not read.",
            )
        if not key.strip() or len(fields) != count:
            if text.strip():
                problems.append(Problem("broken", f"line {line} of {file.name}", text[:80]))
        elif leads_out(key):
            problems.append(Problem("path", key, f"line {line} of {file.name}"))
        else:
            entries.append((line, key, [_to_number(field) for field in fields]))
    return entries


def _to_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _to_side(number: float) -> int:
    return int(number) if number.is_integer() and abs(number) < 2**31 else 0
