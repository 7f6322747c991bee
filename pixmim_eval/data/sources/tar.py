"""Tar shards (WebDataset): an index of offsets is built once, then images are read by seeking."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from pixmim_eval.data.imagenet import resolve_names
from pixmim_eval.data.sources.assemble import (
    IMAGE_SUFFIXES,
    CodedLabels,
    assemble,
    find_wordnet_id,
    make_unique,
    read_class_file,
)
from pixmim_eval.data.sources.decode import EncodedSource
from pixmim_eval.errors import InputError
from pixmim_eval.files import cache_dir, write_atomic
from pixmim_eval.progress import progress
from pixmim_eval.types import Manifest

_INDEX_VERSION = 1
_OPEN_SHARDS = 32


class TarSource(EncodedSource):
    """Reads images at known places of uncompressed tar files.

    Args:
        keys: see EncodedSource.
        shards: the tar files.
        places: int64 [N, 3], shard, offset and size in bytes of each image.
    """

    def __init__(self, keys: np.ndarray, shards: list[Path], places: np.ndarray) -> None:
        super().__init__(keys)
        self.shards, self.places = shards, places
        self._open: OrderedDict[int, io.BufferedReader] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}

    def locate(self, row: int) -> str:
        return f"{self.shards[self.places[row, 0]]}: {self.keys[row]}"

    def read_bytes(self, rows: Sequence[int]) -> list[bytes]:
        places = (self.places[row].tolist() for row in rows)
        # pread keeps no position, which forked workers would share.
        return [os.pread(self._descriptor(shard), size, offset) for shard, offset, size in places]

    def _descriptor(self, shard: int) -> int:
        if shard not in self._open:
            if len(self._open) >= _OPEN_SHARDS:
                self._open.popitem(last=False)[1].close()
            self._open[shard] = self.shards[shard].open("rb")
        self._open.move_to_end(shard)
        return self._open[shard].fileno()


@dataclass(frozen=True)
class ShardIndex:
    """What one tar file holds, image by image.

    Args:
        keys: [n] str, member names without the ending.
        offsets, sizes: int64 [n], bytes.
        labels: [n] str; "" where the shard gives none.
    """

    keys: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray
    labels: np.ndarray


def open_tar(shards: list[Path], name: str, labelled: bool) -> Manifest:
    """Tar shards as a manifest.

    The label of key.jpg is key.cls (number or name), else `wnid`, `class_name`, `label` or `cls` of key.json, else the
    WordNet id at the head of the file's name, else its folder. Numbers get their names from classes.csv or classes.txt
    beside the shards.

    Args:
        shards: uncompressed tar files, in order.
        name: of the manifest.
        labelled: False leaves out the labels.

    Raises:
        InputError: compressed or damaged shards, images without a label, numbers without names.
    """
    indices = [
        _load_index(shard)
        for shard in progress(shards, description="reading tar shards", unit="shard", quiet=len(shards) < 2)
    ]
    where = str(shards[0]) if len(shards) == 1 else str(shards[0].parent)
    counts = [len(index.keys) for index in indices]
    keys = np.concatenate([index.keys for index in indices]).tolist()
    stems = np.repeat([shard.stem for shard in shards], counts).tolist()
    offsets, sizes, labels = (
        np.concatenate([getattr(index, field) for index in indices]) for field in ("offsets", "sizes", "labels")
    )
    places = np.stack((np.repeat(np.arange(len(shards)), counts), offsets, sizes), axis=1)
    source = TarSource(make_unique(keys, stems, where), shards, places)
    coded = _code_labels(labels, source, shards[0].parent, where) if labelled and keys else None
    return assemble(name, where, source, coded, sizes)


def _code_labels(labels: np.ndarray, source: TarSource, folder: Path, where: str) -> CodedLabels:
    missing = np.flatnonzero(labels == "")
    if len(missing):
        raise InputError(
            "labels in tar shards",
            expected="key.cls or key.json beside each image, a class folder or a WordNet id in its name",
            found=f"{len(missing)} of {len(labels)} images without, e.g. {', '.join(source.keys[missing[:3]])}",
            where=where,
            fix="Write the shards with labels; unlabelled images serve pretraining only.",
        )
    declared, codes = np.unique(labels, return_inverse=True)
    numeric = [label for label in declared.tolist() if label.isdecimal()]
    if not numeric:
        return CodedLabels(codes.astype(np.int64), declared.tolist())
    names = read_class_file(folder)
    if len(numeric) < len(declared) or names is None:
        raise InputError(
            "labels in tar shards",
            expected="class names, or numbers with classes.txt or classes.csv beside the shards",
            found="numbers and names" if len(numeric) < len(declared) else f"numbers only, e.g. {numeric[0]}",
            where=where,
            fix="Write classes.txt, one WordNet id or name a line, line 1 for label 0, into the same folder.",
        )
    return CodedLabels(declared.astype(np.int64)[codes], resolve_names(names))


def _load_index(shard: Path) -> ShardIndex:
    """The index of a shard, from the cache where the shard has the same size and time as then."""
    state = shard.stat()
    identity = repr((_INDEX_VERSION, str(shard.resolve()), state.st_size, state.st_mtime_ns))
    file = cache_dir() / "tar" / f"{hashlib.blake2b(identity.encode(), digest_size=16).hexdigest()}.npz"
    if file.is_file():
        with np.load(file) as stored:
            return ShardIndex(**stored)
    index = _scan_shard(shard)
    buffer = io.BytesIO()
    np.savez(buffer, **vars(index))
    try:
        write_atomic(file, buffer.getvalue())
    except OSError as error:
        warnings.warn(f"the index of {shard} is not kept for the next time: {error}", stacklevel=2)
    return index


def _scan_shard(shard: Path) -> ShardIndex:
    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, str] = {}
    try:
        with tarfile.open(shard, "r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # or it keeps every header it has read
                if member.isfile():
                    _note_member(archive, member, images, labels)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise InputError(
            "tar shard",
            expected="a complete, uncompressed tar file with text in .cls and .json",
            found=str(error),
            where=str(shard),
            fix="Download it again, or unpack a compressed one (gunzip): compressed files cannot be read by seeking.",
        ) from error
    places = np.array(list(images.values()), dtype=np.int64).reshape(-1, 2)
    found = [labels.get(key) or _label_by_name(key) for key in images]
    return ShardIndex(np.array(list(images), dtype=str), places[:, 0], places[:, 1], np.array(found, dtype=str))


def _note_member(
    archive: tarfile.TarFile, member: tarfile.TarInfo, images: dict[str, tuple[int, int]], labels: dict[str, str]
) -> None:
    """Enter one member as an image or as a label. As in WebDataset, the key ends at the first dot of the file name."""
    path = PurePosixPath(member.name)
    stem, _, ending = path.name.partition(".")
    key = str(path.with_name(stem)) if stem else ""
    if not key:
        return
    if f".{ending.lower()}".endswith(IMAGE_SUFFIXES):
        if key in images:
            raise tarfile.ReadError(f"two images with the key {key}")
        images[key] = (member.offset_data, member.size)
    elif ending in ("cls", "json"):
        content = archive.extractfile(member)
        text = content.read().decode().strip() if content else ""
        label = text if ending == "cls" else _label_in_json(text)
        if label and (ending == "cls" or key not in labels):
            labels[key] = label


def _label_in_json(text: str) -> str:
    record = json.loads(text)
    for field in ("wnid", "class_name", "label", "cls"):
        if isinstance(record.get(field), str | int):
            return str(record[field])
    return ""


def _label_by_name(key: str) -> str:
    path = PurePosixPath(key)
    return find_wordnet_id(path.name) or path.parent.name
