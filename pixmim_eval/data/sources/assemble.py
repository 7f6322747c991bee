"""What every format shares: labels, keys and digest of a manifest, and the errors about them."""

from __future__ import annotations

import csv
import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pixmim_eval.data.imagenet import imagenet_space
from pixmim_eval.data.sources.decode import EncodedSource
from pixmim_eval.errors import InputError
from pixmim_eval.types import LabelSpace, Manifest

NO_LABELS = LabelSpace("none", ())
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
_WORDNET_ID = re.compile(r"n\d{8}(?!\d)")
_SAMPLED_IMAGES, _SAMPLED_BLOCKS = 256, 16


@dataclass(frozen=True)
class CodedLabels:
    """Labels as a data set declares them: row i is of class names[codes[i]] (codes int64 [N], names in any order)."""

    codes: np.ndarray
    names: Sequence[str]


def find_wordnet_id(name: str) -> str | None:
    """The WordNet id at the head of a file or folder name, None where there is none."""
    match = _WORDNET_ID.match(name)
    return match.group() if match else None


def assemble(
    name: str,
    where: str,
    source: EncodedSource,
    labels: CodedLabels | None,
    sizes: np.ndarray,
    blocks: np.ndarray | None = None,
) -> Manifest:
    """A manifest from what a format found.

    Args:
        name, blocks: see Manifest.
        where: path or name of the data set, for error messages.
        source: holds the keys.
        labels: None for unlabelled data.
        sizes: int64, byte size of every image, or of every storage block where the format does not say more.

    Raises:
        InputError: no images, keys that are not unique, or labels without a clear meaning.
    """
    if not len(source.keys):
        raise InputError(
            "data set",
            expected=f"images ({', '.join(IMAGE_SUFFIXES)}), Parquet files or tar shards",
            found="no images",
            where=where,
            fix="Check the path, and whether the download was unpacked.",
        )
    if labels is None:
        space, rows = NO_LABELS, np.full(len(source.keys), -1, dtype=np.int64)
    else:
        space, rows = sort_labels(labels, where)
    digest = digest_content(space, rows, sizes, source, blocks)
    return Manifest(name, source.keys, rows, space, digest, source, blocks=blocks)


def sort_labels(labels: CodedLabels, where: str) -> tuple[LabelSpace, np.ndarray]:
    """The label space with its classes in sorted order, and int64 [N] labels that index it.

    Raises:
        InputError: a class declared twice, or a code without a name.
    """
    names, codes = labels.names, labels.codes
    classes = tuple(sorted(set(names)))
    if len(classes) < len(names):
        twice = [name for name in classes if list(names).count(name) > 1]
        raise InputError(
            "class names",
            expected="each class once",
            found=f"declared more than once: {', '.join(twice[:3])}",
            where=where,
            fix="Give each class a name of its own, e.g. its WordNet id.",
        )
    if codes.min() < 0 or codes.max() >= len(names):
        strange = np.unique(codes[(codes < 0) | (codes >= len(names))])
        raise InputError(
            "labels",
            expected=f"0 to {len(names) - 1}, the declared classes",
            found=", ".join(str(code) for code in strange[:3]),
            where=where,
            fix="Correct the labels, or open the data without labels (pretraining).",
        )
    place = {name: index for index, name in enumerate(classes)}
    return _name_space(classes), np.array([place[name] for name in names], dtype=np.int64)[codes]


def name_numbers(manifest: Manifest, numbered: Sequence[str] | None, where: str) -> Manifest:
    """The manifest with class numbered[k] in place of a class called k; as it is where classes have names.

    The number counts, not the place: "10" comes before "2" in the order of names.

    Raises:
        InputError: numbers where `numbered` is None, or that it does not reach.
    """
    names = manifest.label_space.classes
    if not all(name.isdecimal() for name in names):
        return manifest
    strange = [name for name in names if numbered is None or int(name) >= len(numbered)]
    if numbered is None or strange:
        raise InputError(
            "class names",
            expected=f"numbers from 0 to {len(numbered) - 1}" if numbered else "WordNet ids (n01440764) or words",
            found=f"integers: {', '.join(strange[:3])}",
            where=where,
            fix="Rename them to WordNet ids or class names: which class number 0 is differs between code bases.",
        )
    labels = CodedLabels(manifest.labels, [numbered[int(name)] for name in names])
    space, rows = sort_labels(labels, where)
    return replace(manifest, labels=rows, label_space=space)


def _name_space(classes: tuple[str, ...]) -> LabelSpace:
    if not all(_WORDNET_ID.fullmatch(name) for name in classes):
        return LabelSpace(f"names-{len(classes)}", classes)
    if len(classes) == 1000 and classes == imagenet_space().classes:
        return imagenet_space()
    return LabelSpace(f"wordnet-{len(classes)}", classes)


def read_class_file(folder: Path) -> list[str] | None:
    """Class names by number, from classes.csv (columns label, wnid) or classes.txt (a name a line) in a folder.

    Returns:
        names, label k's at place k; None where the folder has neither file.
    """
    table, lines = folder / "classes.csv", folder / "classes.txt"
    if table.is_file():
        with table.open(newline="", encoding="utf-8") as file:
            records = list(csv.DictReader(file))
        if records and {"label", "wnid"} <= records[0].keys():
            names = {record["label"]: record["wnid"] for record in records}
            if names.keys() == {str(number) for number in range(len(records))}:
                return [names[str(number)] for number in range(len(records))]
        raise InputError(
            "class file",
            expected="columns label and wnid, with each label 0, 1, 2 … once",
            found=", ".join(records[0]) if records else "no rows",
            where=str(table),
            fix="Write one row a class, e.g. `label,wnid` and `0,n01440764`.",
        )
    if lines.is_file():
        return lines.read_text(encoding="utf-8").splitlines()
    return None


def make_unique(keys: Sequence[str], prefixes: Sequence[str], where: str) -> np.ndarray:
    """Keys as an array, with the name of the file that holds them in front where they are not unique without.

    Raises:
        InputError: keys that are not unique even so.
    """
    if len(set(keys)) < len(keys):
        keys = [f"{prefix}/{key}" for prefix, key in zip(prefixes, keys, strict=True)]
    if len(set(keys)) < len(keys):
        twice = [key for key, count in Counter(keys).items() if count > 1]
        raise InputError(
            "keys of the images",
            expected="each key once",
            found=f"more than once: {', '.join(twice[:3])}",
            where=where,
            fix="Rename the images, or leave out the file that was given twice.",
        )
    return np.array(keys, dtype=str)


def digest_content(
    space: LabelSpace, labels: np.ndarray, sizes: np.ndarray, source: EncodedSource, blocks: np.ndarray | None
) -> str:
    """16 hex digits that change when the data set does: blake2b over classes, keys, labels, byte sizes, and the bytes
    of up to 256 evenly spaced images.

    Not over every byte: ImageNet's 140 GB would take minutes to open. An edit that keeps all names, labels and sizes,
    and misses the 256, is not seen. Parquet does not store the size of an image, so the size of each row group stands
    in, and the 256 images come from up to 16 of them. Absolute paths and file times do not count.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in (space.classes, source.keys.tolist()):
        digest.update("\n".join(part).encode(errors="surrogateescape") + b"\0")
    for numbers in (labels, sizes):
        digest.update(numbers.astype("<i8").tobytes() + b"\0")
    for data in source.read_bytes(_sample_rows(len(source.keys), blocks)):
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def _sample_rows(count: int, blocks: np.ndarray | None) -> list[int]:
    """Up to 256 evenly spaced rows; of stored blocks, evenly spaced in up to 16 evenly spaced ones."""
    if blocks is None:
        return _space_evenly(count, _SAMPLED_IMAGES).tolist()
    present = np.unique(blocks)
    chosen = present[_space_evenly(len(present), _SAMPLED_BLOCKS)]
    members = [np.flatnonzero(blocks == block) for block in chosen]
    rows = [rows[_space_evenly(len(rows), _SAMPLED_IMAGES // len(chosen))] for rows in members]
    return np.concatenate(rows).tolist()


def _space_evenly(count: int, most: int) -> np.ndarray:
    return np.linspace(0, count - 1, min(count, most)).round().astype(np.int64)
