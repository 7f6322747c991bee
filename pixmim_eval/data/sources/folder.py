"""Image folders: class folders, or flat with the WordNet id at the head of the file name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pixmim_eval.data.sources.assemble import IMAGE_SUFFIXES, CodedLabels, assemble, find_wordnet_id
from pixmim_eval.data.sources.decode import EncodedSource, bad_image
from pixmim_eval.errors import InputError
from pixmim_eval.types import Manifest


class FolderSource(EncodedSource):
    """Reads files below a root; the key is the path from there, with forward slashes."""

    def __init__(self, root: Path, keys: np.ndarray) -> None:
        super().__init__(keys)
        self.root = root

    def locate(self, row: int) -> str:
        return f"{self.root}/{self.keys[row]}"

    def read_bytes(self, rows: Sequence[int]) -> list[bytes]:
        return [self._read_file(self.locate(row)) for row in rows]

    @staticmethod
    def _read_file(path: str) -> bytes:
        try:
            return Path(path).read_bytes()
        except OSError as error:
            raise bad_image(error.strerror or type(error).__name__, path) from error


def open_folder(root: Path, name: str, labelled: bool) -> Manifest:
    """A folder of images as a manifest.

    Args:
        root: holds class folders (any depth inside one), or images whose names begin with a WordNet id.
        name: of the manifest.
        labelled: False takes every image below root, without labels.

    Raises:
        InputError: images that no label can be given to, or a mixture of the two layouts.
    """
    folders, files, sizes = _scan(str(root), "")
    if labelled and folders and files:
        raise InputError(
            "layout of the image folder",
            expected="class folders, or images named by WordNet id",
            found=f"both: folders such as {folders[0]}, images such as {files[0]}",
            where=str(root),
            fix="Move the loose images into class folders, or point at the folder that holds the data set.",
        )
    labels = _label_by_name(root, files) if labelled and files else None
    codes: list[int] = []
    for code, folder in enumerate(folders):
        inner_files, inner_sizes = _scan_deep(str(root), f"{folder}/")
        if labelled and not inner_files:
            raise InputError(
                "class folders",
                expected=f"images ({', '.join(IMAGE_SUFFIXES)}) in each",
                found=f"none in {folder}",
                where=str(root),
                fix="Remove the folder, or point at the folder that holds the class folders.",
            )
        files += inner_files
        sizes += inner_sizes
        codes += [code] * len(inner_files)
    if labelled and folders:
        labels = CodedLabels(np.array(codes, dtype=np.int64), folders)
    source = FolderSource(root, np.array(files, dtype=str))
    return assemble(name, str(root), source, labels, np.array(sizes, dtype=np.int64))


def _scan(root: str, prefix: str) -> tuple[list[str], list[str], list[int]]:
    """Names of the folders, and keys and byte sizes of the images, directly in root/prefix, sorted. One pass."""
    folders: list[str] = []
    images: list[tuple[str, int]] = []
    with os.scandir(f"{root}/{prefix}") as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                folders.append(entry.name)
            elif entry.name.lower().endswith(IMAGE_SUFFIXES):
                images.append((prefix + entry.name, entry.stat().st_size))
    images.sort()
    return sorted(folders), [key for key, _ in images], [size for _, size in images]


def _scan_deep(root: str, prefix: str) -> tuple[list[str], list[int]]:
    folders, files, sizes = _scan(root, prefix)
    for folder in folders:
        inner_files, inner_sizes = _scan_deep(root, f"{prefix}{folder}/")
        files += inner_files
        sizes += inner_sizes
    return files, sizes


def _label_by_name(root: Path, files: list[str]) -> CodedLabels:
    ids = [find_wordnet_id(file) for file in files]
    nameless = [file for file, wordnet_id in zip(files, ids, strict=True) if wordnet_id is None]
    if nameless:
        raise InputError(
            "file names in a folder without class folders",
            expected="a WordNet id at the head of each, e.g. n01440764_tench.JPEG",
            found=f"{len(nameless)} of {len(files)} without, e.g. {', '.join(nameless[:3])}",
            where=str(root),
            fix="Sort the images into class folders; unlabelled images serve pretraining only.",
        )
    names, codes = np.unique(np.array(ids, dtype=str), return_inverse=True)
    return CodedLabels(codes.astype(np.int64), names.tolist())
