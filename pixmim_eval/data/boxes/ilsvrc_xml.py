"""Boxes in ILSVRC's XML (the layout of PASCAL VOC): class folders (train), a flat folder (val), or a tar of either.

Half a million small files: read once, by all cores, and kept as a table in the cache.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import tarfile
import warnings
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import pyarrow
import pyarrow.parquet

from pixmim_eval.data.boxes.annotation import LARGEST, Record, parse_annotation
from pixmim_eval.data.boxes.box_set import BoxSet, RawBoxes, check_boxes
from pixmim_eval.data.boxes.images import open_images, read_size
from pixmim_eval.data.problems import Problem, leads_out
from pixmim_eval.data.sources.patterns import SPLITS
from pixmim_eval.errors import InputError
from pixmim_eval.files import cache_dir, replace_atomically
from pixmim_eval.progress import progress

_VERSION = 1
_SUFFIXES = (".JPEG", ".jpg", ".jpeg", ".png")
_CHUNK, _MANY = 512, 65_536  # files a task; from how many on several processes repay their start (seconds)


class _Images(NamedTuple):
    root: str
    suffix: str


def open_xml(path: Path) -> BoxSet:
    """The boxes of every XML file below a folder or in a tar file.

    Key of an image: the path of its XML file below the folder, without the ending ("n01440764/n01440764_18").
    Pixels are counted from 0, and xmax and ymax are the last column and row of the box: it covers [xmin, xmax + 1).
    Where the images lie beside the XML files, or as in ILSVRC/Data for ILSVRC/Annotations, their own sizes count.

    Args:
        path: a folder, an XML file, or a tar file (compressed or not).

    Raises:
        InputError: no XML file, a damaged tar file, or no box left.

    Source: the public code of the WSOL evaluation (Choe et al., CVPR 2020; calculate_multiple_iou) and of ILSVRC2015's
        development kit (eval_vid_detection.m) take the sides of such boxes as xmax - xmin + 1. Among the 80,477 boxes
        of the validation images xmin is 0 in 9 %, xmax is width - 1 in 8 % and never more.
    """
    if path.is_dir() or path.suffix.lower() == ".xml":
        root = path if path.is_dir() else path.parent
        names, identity = _list_files(root) if path.is_dir() else ([path.name], path.name)
        images = _find_images(root, names)
        cached = _cache_file(root, f"{identity} {images}") if len(names) >= _CHUNK else None
        records = _load(cached) or _store(cached, list(_read_files(root, names, images)))
    else:
        images, state = None, path.stat()
        cached = _cache_file(path, f"{state.st_size} {state.st_mtime_ns}")
        records = _load(cached) or _store(cached, list(_read_tar(path)))
    return _check_records(path, records, images)


def _list_files(root: Path) -> tuple[list[str], str]:
    """Names of all XML files below a folder, sorted, and a digest of their names, sizes and times."""
    found: list[tuple[str, int, int]] = []
    folders = [""]
    while folders:
        prefix = folders.pop()
        with os.scandir(root / prefix) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(f"{prefix}{entry.name}/")
                elif entry.name.lower().endswith(".xml"):
                    state = entry.stat()
                    found.append((f"{prefix}{entry.name}", state.st_size, state.st_mtime_ns))
    if not found:
        raise InputError(
            "box annotations",
            expected="XML files, in class folders or flat",
            found="none",
            where=str(root),
            fix="Point at the folder that holds them, e.g. ILSVRC/Annotations/CLS-LOC/val.",
        )
    found.sort()
    return [name for name, _, _ in found], hashlib.blake2b(repr(found).encode(errors="replace")).hexdigest()


def _find_images(root: Path, names: list[str]) -> _Images | None:
    """Where the images are: beside the XML files, or in Data where these are in Annotations. By the first few."""
    roots = [root]
    parts = root.resolve().parts
    if "Annotations" in parts:
        place = len(parts) - 1 - parts[::-1].index("Annotations")
        roots.append(Path(*parts[:place], "Data", *parts[place + 1 :]))
    for folder in roots:
        for name in names[:3]:
            for suffix in _SUFFIXES:
                if (folder / name).with_suffix(suffix).is_file():
                    return _Images(str(folder), suffix)
    return None


def _read_files(root: Path, names: list[str], images: _Images | None) -> Iterator[Record]:
    read = partial(_read_chunk, str(root), images)
    chunks = [names[start : start + _CHUNK] for start in range(0, len(names), _CHUNK)]
    bar = progress(description=f"reading boxes of {root.name}", total=len(names), unit="file", quiet=len(names) < _MANY)
    with bar:
        if len(names) < _MANY:
            for chunk in chunks:
                yield from read(chunk)
            return
        # spawned, as the parent may have threads that a fork would leave half-way
        with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=get_context("spawn")) as pool:
            for records in pool.map(read, chunks):
                bar.update(len(records))
                yield from records


def _read_chunk(root: str, images: _Images | None, names: list[str]) -> list[Record]:
    return [_read_file(root, images, name) for name in names]


def _read_file(root: str, images: _Images | None, name: str) -> Record:
    key = name[: -len(".xml")]
    try:
        data = Path(root, name).read_bytes()
    except OSError as error:
        return Record(key, kind="broken", detail=error.strerror or type(error).__name__)
    record = parse_annotation(data, key)
    if images is None or record.kind:
        return record
    height, width = read_size(Path(images.root, key + images.suffix))
    return record._replace(found_height=height, found_width=width)


def _read_tar(path: Path) -> Iterator[Record]:
    bar = progress(description=f"reading boxes of {path.name}", unit="file", quiet=path.stat().st_size < LARGEST)
    try:
        with tarfile.open(path, "r:*") as archive, bar:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # or it keeps every header it has read
                if member.name.lower().endswith(".xml"):
                    bar.update()
                    yield _read_member(archive, member)
            while archive.fileobj is not None and archive.fileobj.read(LARGEST):
                pass  # to the checksum at the end of a compressed file
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise InputError(
            "tar file of box annotations",
            expected="a complete tar file",
            found=f"{type(error).__name__}: {error}",
            where=str(path),
            fix="Download it again.",
        ) from error


def _read_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Record:
    key = str(PurePosixPath(member.name).with_suffix(""))
    if leads_out(member.name):
        return Record(key, kind="path", detail=member.name)
    content = archive.extractfile(member) if member.isfile() else None  # a link could lead anywhere
    return (
        Record(key, kind="broken", detail="a link")
        if content is None
        else parse_annotation(content.read(LARGEST + 1), key)
    )


def _check_records(path: Path, records: list[Record], images: _Images | None) -> BoxSet:
    problems = [Problem(record.kind, record.key, record.detail) for record in records if record.kind]
    good = {record.key: record for record in records if not record.kind}
    if len(good) + len(problems) < len(records):  # only a tar file can hold a name twice; its last one counts
        twice = sorted({record.key for record in records if not record.kind and good[record.key] is not record})
        problems += [Problem("broken", key, "there twice: the last one counts") for key in twice]
    found = np.array([record[4:6] for record in good.values()], dtype=np.int64).reshape(-1, 2)
    name = path.resolve().name if path.is_dir() else path.name.split(".")[0]
    name = f"{path.resolve().parent.name}-{name}" if name in SPLITS else name
    manifest = None
    if images is not None:
        files = [key + images.suffix for key in good]
        manifest = open_images(name, Path(images.root), files, list(good), found, problems)
    corners = np.array([number for record in good.values() for number in record.corners], dtype=np.float64)
    counts = [len(record.corners) // 4 for record in good.values()]
    return check_boxes(
        RawBoxes(
            name,
            str(path),
            list(good),
            np.array([record[1:3] for record in good.values()], dtype=np.int64).reshape(-1, 2),
            np.repeat(np.arange(len(good)), counts),
            corners.reshape(-1, 4) + np.array([0.0, 0.0, 1.0, 1.0]),
            problems,
            found=None if images is None else found,
            manifest=manifest,
        )
    )


def _cache_file(path: Path, identity: str) -> Path:
    text = f"{_VERSION} {path.resolve()} {identity}".encode(errors="replace")
    return cache_dir() / "boxes" / f"{hashlib.blake2b(text, digest_size=16).hexdigest()}.parquet"


def _load(file: Path | None) -> list[Record] | None:
    if file is None or not file.is_file():
        return None
    columns = pyarrow.parquet.read_table(file).to_pydict()
    return [Record(*row) for row in zip(*(columns[field] for field in Record._fields), strict=True)]


def _store(file: Path | None, records: list[Record]) -> list[Record]:
    if file is not None:
        columns = zip(*records, strict=True)
        try:
            table = pyarrow.table(dict(zip(Record._fields, map(list, columns), strict=True)))
            with replace_atomically(file) as temporary:
                pyarrow.parquet.write_table(table, temporary)
        except (OSError, UnicodeEncodeError) as error:  # a full disk; names that are not UTF-8
            warnings.warn(f"the boxes are not kept for the next time: {error}", stacklevel=2)
    return records
