"""Boxes in tables: CSV (also .csv.gz) and Parquet, one row a box; and Parquet of images with a column of boxes."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet

from pixmim_eval.data.boxes.box_set import BoxSet, RawBoxes, check_boxes
from pixmim_eval.data.boxes.images import find_images, read_size
from pixmim_eval.data.problems import Problem, leads_out
from pixmim_eval.data.sources import open_manifest
from pixmim_eval.data.sources.parquet import ParquetSource
from pixmim_eval.errors import InputError
from pixmim_eval.progress import progress

_COORDINATES = ("x_min", "y_min", "x_max", "y_max")
_COLUMNS = ("image", "width", "height", *_COORDINATES)
_BLOCK = 1024  # images whose sizes are read at a time


def open_csv(file: Path) -> BoxSet:
    """A CSV file with the columns image, width, height, x_min, y_min, x_max, y_max, in any order; others are ignored.

    Pixels are counted from 0, and x_max and y_max are the last column and row of the box, as in ILSVRC: the box covers
    [x_min, x_max + 1). A row whose four coordinates are empty says that the image has no box. Where the images lie
    below the folder of the table, their own sizes count.

    Raises:
        InputError: columns missing, a damaged file, coordinates relative to the image, or no box left.
    """
    try:
        table = pd.read_csv(file, dtype=str, na_filter=False, index_col=False, encoding="utf-8")
    except (OSError, EOFError, zlib.error, ValueError) as error:  # ValueError: pandas' parser, and what is not UTF-8
        raise InputError(
            "box table",
            expected="a complete CSV file, as it is or gzipped",
            found=f"{type(error).__name__}: {error}",
            where=str(file),
            fix="Download or write it again.",
        ) from error
    return _open_rows(table, file)


def open_parquet_boxes(path: str, file: Path) -> BoxSet:
    """Parquet: either rows as in a CSV file, or images with a column `box` of (x_min, y_min, x_max, y_max), null for
    none. Images may state width and height in columns of that name; else their headers are read.

    Args:
        path: what was asked for: a file, a glob or a folder.
        file: the first file of it.

    Raises:
        InputError: another layout, a damaged file, or no box left.
    """
    try:
        schema = pyarrow.parquet.read_schema(file)
        if "image" in schema.names and pyarrow.types.is_struct(schema.field("image").type):
            return _open_images(path)
        columns = [name for name in _COLUMNS if name in schema.names]
        table = pyarrow.parquet.read_table(path if Path(path).is_dir() else file, columns=columns).to_pandas()
    except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError, OSError) as error:
        raise InputError(
            "box table",
            expected="a complete Parquet file",
            found=f"{type(error).__name__}: {error}",
            where=str(file),
            fix="Download or write it again.",
        ) from error
    return _open_rows(table, file)


def _open_rows(table: pd.DataFrame, file: Path) -> BoxSet:
    missing = [column for column in _COLUMNS if column not in table.columns]
    if missing:
        raise InputError(
            "columns of the box table",
            expected=", ".join(_COLUMNS),
            found=f"no {', '.join(missing)}",
            where=str(file),
            fix="Rename the columns; x_max and y_max are the last column and row of pixels that the box covers.",
        )
    problems: list[Problem] = []
    names = table["image"].fillna("").astype(str).tolist()
    wrong = {row: "path" if name else "broken" for row, name in enumerate(names) if not name or leads_out(name)}
    problems += [Problem(kind, names[row], f"row {row + 1} of {file.name}") for row, kind in wrong.items()]
    table = table.drop(index=table.index[list(wrong)])
    corners, sides = _read_numbers(table, _COORDINATES), _read_numbers(table, ("height", "width"))
    image, keys = pd.factorize(table["image"].astype(str))
    stated = table[list(_COORDINATES)]
    has_box = ~(stated.isna() | (stated == "")).all(axis=1).to_numpy()
    _refuse_relative(corners[has_box], file)
    sizes = _agree_sizes(image, len(keys), sides)
    edges = corners[has_box] + np.array([0.0, 0.0, 1.0, 1.0])
    name = file.name.split(".")[0]
    found, manifest = find_images(name, [file.parent], list(keys), problems)
    rows = image[has_box].astype(np.int64)
    return check_boxes(
        RawBoxes(name, str(file), list(keys), sizes, rows, edges, problems, found=found, manifest=manifest)
    )


def _read_numbers(table: pd.DataFrame, columns: tuple[str, ...]) -> np.ndarray:
    """float64 [rows, columns], NaN for what is no number."""
    numbers = [pd.to_numeric(table[column], errors="coerce").to_numpy(dtype=np.float64) for column in columns]
    return np.stack(numbers, axis=1)


def _agree_sizes(image: np.ndarray, count: int, sides: np.ndarray) -> np.ndarray:
    """int64 [count, 2], the size that every row of an image states; 0 where they differ or state no whole number."""
    sizes = np.zeros((count, 2))
    sizes[image] = sides
    whole = (np.abs(sides) < 2**31) & (sides == np.round(sides))
    sizes[image[~(whole & (sides == sizes[image])).all(axis=1)]] = 0
    return sizes.astype(np.int64)


def _refuse_relative(corners: np.ndarray, where: Path) -> None:
    """Fractions of the image's sides would pass for boxes of a pixel."""
    corners = corners[np.isfinite(corners).all(axis=1)]
    if len(corners) and (corners >= 0).all() and (corners <= 1).all() and (corners % 1 != 0).any():
        raise InputError(
            "coordinates of the boxes",
            expected="pixels",
            found="numbers from 0 to 1 only",
            where=str(where),
            fix="Multiply them by the width and height of each image.",
        )


def _open_images(path: str) -> BoxSet:
    manifest = open_manifest(path, labelled=False)
    source = manifest.source
    assert isinstance(source, ParquetSource)  # the schema said so
    tables = []
    for file in source.files:
        names = [name for name in ("box", "width", "height") if name in pyarrow.parquet.read_schema(file).names]
        tables.append(pyarrow.parquet.read_table(file, columns=names))
    if not all("box" in table.column_names for table in tables):
        raise InputError(
            "columns of the Parquet file",
            expected="a column box of x_min, y_min, x_max, y_max beside the images",
            found="none",
            where=path,
            fix="Add it, or give the boxes as a table of their own (CSV).",
        )
    problems: list[Problem] = []
    image, corners = _read_lists([box for table in tables for box in table["box"].to_pylist()], manifest.keys, problems)
    if all({"width", "height"} <= set(table.column_names) for table in tables):
        frames = pd.concat([table.select(["height", "width"]).to_pandas() for table in tables])
        sizes = _agree_sizes(np.arange(len(frames)), len(frames), _read_numbers(frames, ("height", "width")))
    else:
        sizes = _read_sizes(source, manifest.name)
    edges = corners + np.array([0.0, 0.0, 1.0, 1.0])
    keys = manifest.keys.tolist()
    return check_boxes(RawBoxes(manifest.name, path, keys, sizes, image, edges, problems, manifest=manifest))


def _read_lists(
    lists: list[list[float] | None], keys: np.ndarray, problems: list[Problem]
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the images that have a box, int64 [M], and its numbers, float64 [M, 4]."""
    image, corners = [], []
    for row, numbers in enumerate(lists):
        if numbers is None or not numbers:
            continue
        if len(numbers) != 4:
            problems.append(Problem("broken", str(keys[row]), f"a box of {len(numbers)} numbers"))
            continue
        image.append(row)
        corners.append([np.nan if number is None else number for number in numbers])
    return np.array(image, dtype=np.int64), np.array(corners, dtype=np.float64).reshape(-1, 4)


def _read_sizes(source: ParquetSource, name: str) -> np.ndarray:
    """int64 [N, 2], height and width from the headers of the images; 0 where one cannot be read."""
    sizes = np.zeros((len(source.keys), 2), dtype=np.int64)
    starts = range(0, len(sizes), _BLOCK)
    for start in progress(starts, description=f"reading image sizes of {name}", quiet=len(starts) < 100):
        rows = range(start, min(start + _BLOCK, len(sizes)))
        sizes[rows] = [read_size(data) for data in source.read_bytes(rows)]
    return sizes
