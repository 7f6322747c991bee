"""Decoded images and outputs of models on disk: a folder of arrays an entry, named by content.

An entry is written under a temporary name and renamed when it is complete and on the disk; a reader sees all of it or
nothing. Whatever a killed process leaves has a temporary name and is never read.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Protocol

import numpy as np

from pixmim_eval.errors import InputError
from pixmim_eval.extract.processes import process_rank, share, wait_for_all
from pixmim_eval.files import cache_dir
from pixmim_eval.progress import progress
from pixmim_eval.types import Batch

Shape = tuple[tuple[int, ...], np.dtype]  # of one row, and its dtype

_RESIDENT_BYTES = 2**28  # of a part of an array, which is copied into memory up to here
_COPIED_ROWS = 8192  # at a time
_KEPT_BYTES = 2**36  # of each kind of entry; those used longest ago go first
_STALE_SECONDS = 24 * 3600
_SHOW_FROM = 10_000  # images; shorter passes show no bar of their own
_ROW = np.dtype([("row", np.int64), ("label", np.int64), ("present", np.bool_)])


class Pass(Protocol):
    """What makes an entry: `run` gives arrays for some of its rows, in batches."""

    @property
    def kind(self) -> str:
        """The folder that such entries are in."""
        ...

    @property
    def rows(self) -> np.ndarray:
        """int64, sorted rows of a manifest."""
        ...

    @property
    def key(self) -> str:
        """16 hex digits of all that the arrays depend on."""
        ...

    @property
    def description(self) -> str:
        """For the progress bar."""
        ...

    def shapes(self) -> dict[str, Shape]:
        """Shape of a row and dtype of each array."""
        ...

    def prepare(self) -> None:
        """Make the entries that this one is made from; in every process, before any runs."""
        ...

    def run(self, rows: np.ndarray) -> Iterator[tuple[Batch, dict[str, np.ndarray]]]:
        """Each batch of these rows with its arrays; bad images are in none."""
        ...


@dataclass(frozen=True)
class Entry:
    """A stored entry, memory-mapped, one line a row asked for.

    Args:
        table: [N] of row, label, and whether the row is present; the others were left out.
        arrays: by name, [N, …].
    """

    table: np.ndarray
    arrays: dict[str, np.ndarray]


def load_entry(work: Pass) -> Entry:
    """The arrays of a pass: read where they are stored, computed and stored first where not.

    Raises:
        InputError: an image cannot be read, the disk is too full, or the entry on it is not what was written.
        FloatingPointError: outputs are not finite.
    """
    if not share(is_stored(work)):
        _compute_entry(work, _place(work))
    return _read_entry(_place(work), work.rows)


def is_stored(work: Pass) -> bool:
    """Whether the arrays of a pass need not be computed any more."""
    return _place(work).exists()


def _place(work: Pass) -> Path:
    return cache_dir() / work.kind / work.key


def _read_entry(folder: Path, rows: np.ndarray) -> Entry:
    """A stored entry whose index is sorted, unique and complete. Raises InputError otherwise."""
    table = _read_array(folder / "rows.npy")
    arrays = {file.stem: _read_array(file) for file in sorted(folder.glob("*.npy")) if file.stem != "rows"}
    if table.dtype != _ROW or not np.array_equal(table["row"], rows) or (np.diff(rows) <= 0).any():
        raise _report_damage(folder, "other rows than those asked for")
    if not arrays or any(len(array) != len(rows) for array in arrays.values()):
        raise _report_damage(folder, f"{len(rows)} rows with arrays of {[len(array) for array in arrays.values()]}")
    with suppress(OSError):  # a cache that may only be read
        os.utime(folder)
    return Entry(table, arrays)


def _read_array(file: Path) -> np.ndarray:
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise _report_damage(file.parent, f"{file.name}: {error}") from error


def copy_rows(array: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The rows of a stored array that are kept, read-only: in memory where they are few, else in a file that goes when
    nobody holds them any more.

    Args:
        array: [N, …], memory-mapped.
        kept: bool [N].
    """
    shape = (int(kept.sum()), *array.shape[1:])
    if prod(shape) * array.itemsize <= _RESIDENT_BYTES:
        return array[kept]
    with tempfile.TemporaryFile(dir=cache_dir()) as file:
        part = np.memmap(file, array.dtype, "w+", shape=shape)
    place = 0
    for start in range(0, len(array), _COPIED_ROWS):
        rows = array[start : start + _COPIED_ROWS][kept[start : start + _COPIED_ROWS]]
        part[place : place + len(rows)] = rows
        place += len(rows)
    part.flags.writeable = False
    return part


def _report_damage(folder: Path, found: str) -> InputError:
    return InputError(
        "cache entry",
        expected="arrays of the rows asked for",
        found=found,
        where=str(folder),
        fix="Something changed it after it was written: delete this folder and run again.",
    )


def _compute_entry(work: Pass, folder: Path) -> None:
    """Run this process's share of a pass into the common entry, which the first process creates and publishes."""
    work.prepare()
    first = process_rank()[0] == 0
    temporary = Path(share(str(folder.with_name(f".{folder.name}-{os.getpid()}.tmp"))))
    try:
        if first:
            _create_entry(work, temporary)
        wait_for_all()
        _fill_entry(work, temporary)
        wait_for_all()
        if first:
            _publish_entry(temporary, folder)
        wait_for_all()
    finally:
        if first:
            shutil.rmtree(temporary, ignore_errors=True)


def _create_entry(work: Pass, temporary: Path) -> None:
    """Arrays of the final shapes, without content. Raises InputError where the disk cannot hold them."""
    count, shapes = len(work.rows), work.shapes()
    temporary.mkdir(parents=True)
    needed = sum(count * prod(shape) * dtype.itemsize for shape, dtype in shapes.values())
    free = shutil.disk_usage(temporary).free
    if needed > free:
        raise InputError(
            "room for the cache",
            expected=f"{needed / 2**30:.1f} GiB for {work.description}",
            found=f"{free / 2**30:.1f} GiB",
            where=str(temporary.parent),
            fix="Let PIXMIM_CACHE name a folder on a larger disk; everything in the cache may be deleted.",
        )
    for name, (shape, dtype) in shapes.items():
        np.lib.format.open_memmap(temporary / f"{name}.npy", "w+", dtype, (count, *shape)).flush()
    table = np.lib.format.open_memmap(temporary / "rows.npy", "w+", _ROW, (count,))
    table["row"] = work.rows
    table.flush()


def _fill_entry(work: Pass, temporary: Path) -> None:
    """Compute and write this process's share: every world_size-th row."""
    rank, world_size = process_rank()
    rows = work.rows[rank::world_size]
    arrays = {file.stem: np.lib.format.open_memmap(file, "r+") for file in temporary.glob("*.npy")}
    table = arrays.pop("rows")
    quiet = rank > 0 or len(rows) < _SHOW_FROM
    with progress(description=work.description, total=len(rows), unit="image", quiet=quiet) as bar:
        for batch, outputs in work.run(rows):
            places = np.searchsorted(work.rows, batch.index.numpy())
            for name, values in outputs.items():
                arrays[name][places] = values
            table["label"][places] = batch.labels.numpy()
            table["present"][places] = True
            bar.update(len(places))
    for array in (table, *arrays.values()):
        array.flush()


def _publish_entry(temporary: Path, folder: Path) -> None:
    """Put a complete entry on the disk, then give it its name; what runs killed days ago left goes, and old entries."""
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
    _drop_old_entries(folder)


def _drop_old_entries(newest: Path) -> None:
    """Keep what was used last, up to _KEPT_BYTES; the newest entry stays however large it is."""
    entries = sorted(newest.parent.glob("[!.]*"), key=lambda entry: entry.stat().st_mtime, reverse=True)
    total = 0
    for entry in sorted(entries, key=lambda entry: entry != newest):  # stable: the newest, then by last use
        total += sum(file.stat().st_size for file in entry.iterdir())
        if total > _KEPT_BYTES and entry != newest:
            doomed = entry.with_name(f".{entry.name}-{os.getpid()}.tmp")
            with suppress(OSError):  # another run may be dropping it
                shutil.rmtree(entry.rename(doomed))
