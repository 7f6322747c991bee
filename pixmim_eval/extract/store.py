"""Outputs of image passes on disk: a folder of arrays an entry, named by content.

An entry is written under a temporary name and renamed when it is complete and on the disk; a reader sees all of it or
nothing. Whatever a killed process leaves has a temporary name and is never read.
"""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pixmim_eval.errors import InputError
from pixmim_eval.extract.passes import ImagePass
from pixmim_eval.extract.processes import process_rank, share, wait_for_all
from pixmim_eval.files import cache_dir
from pixmim_eval.progress import progress

_HALF_ABOVE_BYTES = 2**30
_STALE_SECONDS = 24 * 3600
_SHOW_FROM = 10_000  # images; shorter passes show no bar of their own
_ROW = np.dtype([("row", np.int64), ("label", np.int64), ("present", np.bool_)])


@dataclass(frozen=True)
class StoredOutputs:
    """Outputs of a pass: named arrays [N, width] aligned with index and labels, int64 [N]; images left out."""

    index: np.ndarray
    labels: np.ndarray
    arrays: dict[str, np.ndarray]
    skipped: int


def load_outputs(images: ImagePass) -> StoredOutputs:
    """Outputs of a pass: read where they are stored, computed and stored first where not.

    Raises:
        InputError: an image cannot be read, or the entry on disk is not what was written.
        FloatingPointError: outputs are not finite.
    """
    folder = cache_dir() / "outputs" / images.key
    if not share(folder.exists()):
        _compute_outputs(images, folder)
    return _read_entry(folder, images.rows)


def _read_entry(folder: Path, rows: np.ndarray) -> StoredOutputs:
    """A stored entry whose index is sorted, unique and complete. Raises InputError otherwise."""
    table = _read_array(folder / "rows.npy")
    arrays = {file.stem: _read_array(file) for file in sorted(folder.glob("*.npy")) if file.stem != "rows"}
    if table.dtype != _ROW or not np.array_equal(table["row"], rows) or (np.diff(rows) <= 0).any():
        raise _report_damage(folder, "other rows than those asked for")
    if not arrays or any(len(array) != len(rows) for array in arrays.values()):
        raise _report_damage(folder, f"{len(rows)} rows with arrays of {[len(array) for array in arrays.values()]}")
    kept = table["present"]
    if not kept.all():
        table, arrays = table[kept], {name: array[kept] for name, array in arrays.items()}
    return StoredOutputs(table["row"], table["label"], arrays, len(rows) - len(table))


def _read_array(file: Path) -> np.ndarray:
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise _report_damage(file.parent, f"{file.name}: {error}") from error


def _report_damage(folder: Path, found: str) -> InputError:
    return InputError(
        "cache entry",
        expected="arrays of the rows asked for",
        found=found,
        where=str(folder),
        fix="Something changed it after it was written: delete this folder and run again.",
    )


def _compute_outputs(images: ImagePass, folder: Path) -> None:
    """Run this process's share of a pass into the common entry, which the first process creates and publishes."""
    first = process_rank()[0] == 0
    temporary = Path(share(str(folder.with_name(f".{folder.name}-{os.getpid()}.tmp"))))
    try:
        if first:
            _create_entry(images, temporary)
        wait_for_all()
        _fill_entry(images, temporary)
        wait_for_all()
        if first:
            _publish_entry(temporary, folder)
        wait_for_all()
    finally:
        if first:
            shutil.rmtree(temporary, ignore_errors=True)


def _create_entry(images: ImagePass, temporary: Path) -> None:
    """Arrays of the final shapes, without content."""
    count, widths = len(images.rows), images.measure_widths()
    dtype = np.float16 if 4 * count * max(widths.values()) > _HALF_ABOVE_BYTES else np.float32
    temporary.mkdir(parents=True)
    for name, width in widths.items():
        np.lib.format.open_memmap(temporary / f"{name}.npy", "w+", dtype, (count, width)).flush()
    table = np.lib.format.open_memmap(temporary / "rows.npy", "w+", _ROW, (count,))
    table["row"] = images.rows
    table.flush()


def _fill_entry(images: ImagePass, temporary: Path) -> None:
    """Compute and write this process's share: every world_size-th row."""
    rank, world_size = process_rank()
    part = replace(images, rows=images.rows[rank::world_size])
    arrays = {file.stem: np.lib.format.open_memmap(file, "r+") for file in temporary.glob("*.npy")}
    table = arrays.pop("rows")
    description = f"{images.manifest.name} through {images.model.name}"
    quiet = rank > 0 or len(part.rows) < _SHOW_FROM
    with progress(description=description, total=len(part.rows), unit="image", quiet=quiet) as bar:
        for batch, outputs in part.run():
            places = np.searchsorted(images.rows, batch.index.numpy())
            for name, values in outputs.items():
                arrays[name][places] = values
            table["label"][places] = batch.labels.numpy()
            table["present"][places] = True
            bar.update(len(places))
    for array in (table, *arrays.values()):
        array.flush()


def _publish_entry(temporary: Path, folder: Path) -> None:
    """Put a complete entry on the disk, then give it its name; what runs killed days ago left goes."""
    for file in temporary.iterdir():
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
    try:
        temporary.rename(folder)
    except OSError:
        if not folder.exists():  # else another run published the same numbers first
            raise
    for left in folder.parent.glob(".*.tmp"):
        with suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(left)
