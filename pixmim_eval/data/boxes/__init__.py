"""One way to open boxes of objects: whatever the format, a BoxSet with every problem on its list."""

from __future__ import annotations

from pathlib import Path

from pixmim_eval.data.boxes.box_set import KINDS, BoxSet, MaskSet, Problem, summarise_problems
from pixmim_eval.data.boxes.table import open_csv, open_parquet_boxes
from pixmim_eval.data.sources.patterns import find_files
from pixmim_eval.errors import InputError

__all__ = ["KINDS", "BoxSet", "MaskSet", "Problem", "open_boxes", "summarise_problems"]


def open_boxes(path: str) -> BoxSet:
    """Open boxes of objects, and their masks and images where they are there.

    Args:
        path: one of
            - a table of boxes (.csv, .csv.gz, .parquet), see boxes/table.py;
            - Parquet files of images with a column `box`, a glob or a folder of them.

    Fatal, so that the command stops: a file that is not there, damaged as a whole (truncated, not of its format),
    without the columns or lists that the format needs, coordinates that are no pixels, and a set without a single
    valid box. All else is counted and listed in `problems`, and KINDS says what is done about it.

    Raises:
        InputError: as above, or no format that is known.
    """
    files = find_files(path)
    name = files[0].name.lower()
    if name.endswith((".csv", ".csv.gz")):
        return open_csv(files[0])
    if name.endswith(".parquet") or (files[0].is_dir() and any(files[0].glob("*.parquet"))):
        return open_parquet_boxes(path, next(iter(sorted(files[0].glob("*.parquet"))), files[0]))
    raise _unknown_format(path, files[0])


def _unknown_format(path: str, file: Path) -> InputError:
    return InputError(
        "format of the boxes",
        expected="CSV, Parquet, COCO JSON, ILSVRC XML, or a folder with localization.txt",
        found=f"a folder of {', '.join(sorted(entry.name for entry in file.iterdir())[:3]) or 'nothing'}"
        if file.is_dir()
        else file.name,
        where=path,
        fix="Point at the file or folder that holds the boxes.",
    )
