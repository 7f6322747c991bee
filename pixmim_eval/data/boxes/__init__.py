"""One way to open boxes of objects: whatever the format, a BoxSet with every problem on its list."""

from __future__ import annotations

from pathlib import Path

from pixmim_eval.data.boxes.box_set import BoxSet, MaskSet
from pixmim_eval.data.boxes.builtin import open_builtin
from pixmim_eval.data.boxes.coco import open_coco
from pixmim_eval.data.boxes.ilsvrc_xml import open_xml
from pixmim_eval.data.boxes.table import open_csv, open_parquet_boxes
from pixmim_eval.data.boxes.wsol import open_wsol
from pixmim_eval.data.problems import KINDS, Problem, summarise_problems
from pixmim_eval.data.sources.patterns import find_files
from pixmim_eval.errors import InputError

__all__ = ["KINDS", "BoxSet", "MaskSet", "Problem", "open_boxes", "summarise_problems"]


def open_boxes(path: str) -> BoxSet:
    """Open boxes of objects, and their masks and images where they are there.

    Args:
        path: one of
            - a table of boxes (.csv, .csv.gz, .parquet), see boxes/table.py;
            - Parquet files of images with a column `box`, a glob or a folder of them;
            - a folder of ILSVRC's XML files (flat, or class folders), one such file, or a tar of them (.tar, .tar.gz);
            - COCO's instances (.json), with masks;
            - a folder with localization.txt and image_sizes.txt (WSOL lists);
            - builtin:shapes16[:VARIANT][@SIZE], with masks.

    Fatal, so that the command stops: a file that is not there, damaged as a whole (truncated, not of its format),
    without the columns or lists that the format needs, coordinates that are no pixels, and a set without a single
    valid box. All else is counted and listed in `problems`, and KINDS says what is done about it.

    Raises:
        InputError: as above, or no format that is known.
    """
    if path.startswith("builtin:"):
        return open_builtin(path)
    file = find_files(path)[0]
    try:
        return _open_folder(path, file) if file.is_dir() else _open_file(path, file)
    except OSError as error:
        raise InputError(
            "boxes",
            expected="files that can be read",
            found=f"{error.strerror or error}: {error.filename or ''}",
            where=path,
            fix="Check that the file or link is whole and may be read.",
        ) from error


def _open_file(path: str, file: Path) -> BoxSet:
    name = file.name.lower()
    if name.endswith((".csv", ".csv.gz")):
        return open_csv(file)
    if name.endswith(".parquet"):
        return open_parquet_boxes(path, file)
    if name.endswith(".json"):
        return open_coco(file)
    if name.endswith((".xml", ".tar", ".tar.gz", ".tgz")):
        return open_xml(file)
    if name == "localization.txt":
        return open_wsol(file.parent)
    raise _unknown_format(path, file)


def _open_folder(path: str, folder: Path) -> BoxSet:
    if (folder / "localization.txt").is_file():
        return open_wsol(folder)
    for place in (folder, folder / "data"):
        if files := sorted(place.glob("*.parquet")):
            return open_parquet_boxes(path, files[0])
    if any(next(folder.glob(pattern), None) for pattern in ("*.xml", "*/*.xml")):
        return open_xml(folder)
    raise _unknown_format(path, folder)


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
