"""One way to open images: whatever the format, a Manifest with the authority on labels, and a digest."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pixmim_eval.data.sources.assemble import IMAGE_SUFFIXES, NO_LABELS, name_numbers
from pixmim_eval.data.sources.folder import open_folder
from pixmim_eval.data.sources.hub import open_hub
from pixmim_eval.data.sources.parquet import open_parquet
from pixmim_eval.data.sources.patterns import SPLITS, find_files, find_split, name_files
from pixmim_eval.data.sources.tar import open_tar
from pixmim_eval.errors import InputError
from pixmim_eval.types import Manifest

_OPENERS = {".parquet": open_parquet, ".tar": open_tar}


def open_manifest(
    path_or_name: str | os.PathLike[str],
    *,
    role: str = "val",
    labelled: bool = True,
    seed: int = 0,
    numbered: Sequence[str] | None = None,
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
        role: which part to take where the folder holds several: "train", "val" (also "validation"), "test"; for any
            other role val, or else the only part; the variant of shapes16 where none is named.
        labelled: False for pretraining: labels are -1 throughout, and images need none.
        seed: of data that is generated.
        numbered: what classes called 0, 1, 2 … are, in a data set that is published so; None refuses them.

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
        return name_numbers(manifest, numbered, text)
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
    files = find_files(text)
    suffixes = sorted({file.suffix for file in files})
    if len(suffixes) != 1 or suffixes[0] not in _OPENERS:
        raise InputError(
            "format of the data set",
            expected="a folder, .parquet files or uncompressed .tar files",
            found=", ".join(suffixes) or "a file without an ending",
            where=text,
            fix="Point at the folder, or unpack the file: compressed tar files cannot be read by seeking.",
        )
    return _OPENERS[suffixes[0]](files, name_files(files), labelled)


def _open_directory(path: Path, role: str, labelled: bool) -> Manifest:
    parts = {part: [path / name] for name, part in SPLITS.items() if (path / name).is_dir()}
    if parts:
        (path,) = parts[_pick_part(parts, role, path)]
    name = f"{path.resolve().parent.name}-{path.name}" if path.name in SPLITS else path.resolve().name
    found = _find_formats(path)
    if len(found) > 1:
        raise InputError(
            "layout of the data set",
            expected="images, Parquet files or tar shards",
            found=f"several of them: {', '.join(files[0].name for files in found.values())}",
            where=str(path),
            fix="Give each format its own folder, or name the files: 'folder/*.parquet'.",
        )
    for ending, opener in _OPENERS.items():
        if files := found.get(ending):
            by_split: dict[str, list[Path]] = {}
            for file in files:
                by_split.setdefault(find_split(file), []).append(file)
            part = "" if list(by_split) == [""] else _pick_part(by_split, role, path)
            suffix = part or (role if role in SPLITS else "")
            full_name = name if not suffix or name.endswith(f"-{suffix}") else f"{name}-{suffix}"
            return opener(by_split[part], full_name, labelled)
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


def _pick_part(parts: Mapping[str, list[Path]], role: str, where: Path) -> str:
    """The part that goes with the role: for one that no data set calls a split, such as "sketch", val or the only part.

    Raises:
        InputError: no part goes with it.
    """
    if role in parts:
        return role
    if role not in SPLITS:
        if "val" in parts:
            return "val"
        if len(parts) == 1:
            return next(iter(parts))
    raise InputError(
        "part of the data set",
        expected=role if role in SPLITS else "val, or one part only",
        found=", ".join(sorted(path.name for paths in parts.values() for path in paths)[:3]),
        where=str(where),
        fix="Name the folder or the files that hold it.",
    )
