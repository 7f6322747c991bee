"""One way to open images: whatever the format, a Manifest with the authority on labels, and a digest."""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
from itertools import product
from pathlib import Path

import numpy as np

from pixmim_eval.data.sources.assemble import IMAGE_SUFFIXES, NO_LABELS
from pixmim_eval.data.sources.folder import open_folder
from pixmim_eval.data.sources.hub import open_hub
from pixmim_eval.data.sources.parquet import open_parquet
from pixmim_eval.data.sources.tar import open_tar
from pixmim_eval.errors import InputError
from pixmim_eval.types import Manifest

_SPLITS = {"train": "train", "val": "val", "validation": "val", "test": "test"}
_OPENERS = {".parquet": open_parquet, ".tar": open_tar}


def open_manifest(
    path_or_name: str | os.PathLike[str], *, role: str = "val", labelled: bool = True, seed: int = 0
) -> Manifest:
    """Open a data set.

    Args:
        path_or_name: one of
            - a folder of class folders (WordNet ids or names), or of images whose names begin with a WordNet id;
            - a Parquet file in Hugging Face image layout, a glob, or a folder of them;
            - a tar shard (WebDataset), a glob, a brace range x-{0000..0099}.tar, or a folder of them;
            - hub:NAME[:SPLIT];
            - builtin:shapes16[:VARIANT][@SIZE].
            A path ending in @SIZE declares that the images already have evaluation geometry at SIZE pixels.
        role: which part to take where the folder holds several: "train", "val" (also "validation"), "test"; the
            variant of shapes16 where none is named.
        labelled: False for pretraining: labels are -1 throughout, and images need none.
        seed: of data that is generated.

    Raises:
        InputError: nothing there, nothing in it, or labels without a clear meaning.
    """
    text = os.fspath(path_or_name)
    try:
        manifest = _open(text, role, labelled, seed)
    except OSError as error:
        raise InputError(
            "data set",
            expected="files that can be read",
            found=f"{error.strerror or error}: {error.filename or ''}",
            where=text,
            fix="Check that the file or link is whole and may be read.",
        ) from error
    if labelled:
        return manifest
    return dataclasses.replace(manifest, labels=np.full(len(manifest), -1, dtype=np.int64), label_space=NO_LABELS)


def _open(text: str, role: str, labelled: bool, seed: int) -> Manifest:
    if text.startswith("builtin:"):
        return _open_builtin(text, role, seed)
    ready_size = None
    if not Path(text).exists() and (match := re.fullmatch(r"(.+)@(\d+)", text)):
        text, ready_size = match[1], int(match[2])
    if text.startswith("hub:"):
        name, _, split = text.removeprefix("hub:").partition(":")
        manifest = open_hub(name, split or None, role, labelled)
    else:
        manifest = _open_path(text, role, labelled)
    return dataclasses.replace(manifest, ready_size=ready_size)


def _open_builtin(text: str, role: str, seed: int) -> Manifest:
    from pixmim_eval.data import shapes16

    match = re.fullmatch(r"builtin:shapes16(?::([\w-]+))?(?:@(\d+))?", text)
    if match is None:
        raise InputError(
            "built-in data set",
            expected="builtin:shapes16[:VARIANT][@SIZE]",
            found=text,
            where="data set",
            fix="For example builtin:shapes16:val@64.",
        )
    size = {"size": int(match[2])} if match[2] else {}
    return shapes16.manifest(variant=match[1] or role, seed=seed, **size)


def _open_path(text: str, role: str, labelled: bool) -> Manifest:
    path = Path(text)
    if path.is_dir():
        return _open_directory(path, role, labelled)
    files = [path] if path.exists() else _expand(text)
    suffixes = sorted({file.suffix for file in files})
    if len(suffixes) != 1 or suffixes[0] not in _OPENERS:
        raise InputError(
            "format of the data set",
            expected="a folder, .parquet files or uncompressed .tar files",
            found=", ".join(suffixes) or "a file without an ending",
            where=text,
            fix="Point at the folder, or unpack the file: compressed tar files cannot be read by seeking.",
        )
    return _OPENERS[suffixes[0]](files, _name_files(files), labelled)


def _open_directory(path: Path, role: str, labelled: bool) -> Manifest:
    parts = {part: [path / name] for name, part in _SPLITS.items() if (path / name).is_dir()}
    if parts:
        (path,) = _pick_role(parts, role, path)
    name = f"{path.resolve().parent.name}-{path.name}" if path.name in _SPLITS else path.resolve().name
    found = _find_formats(path)
    if len(found) > 1:
        raise InputError(
            "layout of the data set",
            expected="images, Parquet files or tar shards",
            found=f"several of them: {', '.join(files[0].name for files in found.values())}",
            where=str(path),
            fix="Give each format its own folder, or name the files: 'folder/*.parquet'.",
        )
    for suffix, opener in _OPENERS.items():
        if files := found.get(suffix):
            by_split: dict[str, list[Path]] = {}
            for file in files:
                by_split.setdefault(_find_split(file), []).append(file)
            picked = by_split[""] if list(by_split) == [""] else _pick_role(by_split, role, path)
            return opener(picked, name if name.endswith(f"-{role}") else f"{name}-{role}", labelled)
    return open_folder(path, name, labelled)


def _find_formats(path: Path) -> dict[str, list[Path]]:
    """Parquet files and tar shards in a folder by ending, sorted, and its first loose image under "image"."""
    found: dict[str, list[Path]] = {}
    for folder in filter(Path.is_dir, (path, path / "data")):
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                if suffix := next((suffix for suffix in _OPENERS if name.endswith(suffix)), None):
                    found.setdefault(suffix, []).append(folder / name)
                elif folder == path and "image" not in found and name.lower().endswith(IMAGE_SUFFIXES):
                    found["image"] = [folder / name]
    return {ending: sorted(files) for ending, files in found.items()}


def _find_split(file: Path) -> str:
    """The split that a file's name holds as a word (train-00000-of-00004.parquet), "" for none."""
    return next((_SPLITS[word] for word in re.split(r"[-_.]", file.stem) if word in _SPLITS), "")


def _pick_role(parts: dict[str, list[Path]], role: str, where: Path) -> list[Path]:
    """The part that goes with the role; the only one for roles such as "sketch", which no data set calls a split."""
    if role in parts:
        return parts[role]
    if len(parts) == 1 and role not in _SPLITS:
        return next(iter(parts.values()))
    raise InputError(
        "part of the data set",
        expected=role,
        found=", ".join(sorted(path.name for paths in parts.values() for path in paths)[:3]),
        where=str(where),
        fix="Name the folder or the files that hold it.",
    )


def _name_files(files: list[Path]) -> str:
    """The first file's name without its shard number; with the folder's in front where that is only a split."""
    stem = (
        re.sub(r"-?\d+(-of-\d+)?$", "", files[0].stem) if len(files) > 1 or "-of-" in files[0].stem else files[0].stem
    )
    return f"{files[0].resolve().parent.name}-{stem}" if stem in _SPLITS or not stem else stem


def _expand(text: str) -> list[Path]:
    """The files of a brace range or a glob."""
    pieces = re.split(r"\{(\d+)\.\.(\d+)\}", text)
    ranges = [
        [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
        for first, last in zip(pieces[1::3], pieces[2::3], strict=True)
    ]
    patterns = [
        "".join(part for pair in zip(pieces[::3], [*numbers, ""], strict=True) for part in pair)
        for numbers in product(*ranges)
    ]
    files: list[Path] = []
    for pattern in patterns:
        path = Path(pattern)
        found = [path] if path.exists() else sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
        if not found:
            raise _missing_path(pattern)
        files += found
    return files


def _missing_path(text: str) -> InputError:
    """Names what resembles the first part of the path that does not exist."""
    path = Path(text)
    while not path.parent.exists():
        path = path.parent
    similar = difflib.get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()], n=3)
    return InputError(
        "path of the data set",
        expected="an existing file or folder",
        found=f"no {path.name} in {path.parent.resolve()}",
        where=text,
        fix=f"Did you mean {' or '.join(similar)}?" if similar else "Check the path.",
    )
