"""Files by name: a path, a glob or a brace range."""

from __future__ import annotations

import difflib
import re
from itertools import product
from pathlib import Path

from pixmim_eval.errors import InputError

SPLITS = {"train": "train", "val": "val", "validation": "val", "test": "test"}  # words in names -> the part meant


def find_files(text: str) -> list[Path]:
    """The files (or the folder) of a path, of a glob, sorted, or of a brace range x-{0000..0099}.tar, in order.

    Raises:
        InputError: a path, or a pattern of a range, for which there is nothing; it names what resembles it.
    """
    if Path(text).exists():
        return [Path(text)]
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


def name_files(files: list[Path]) -> str:
    """The first file's name without its shard number; with the folder's in front where that is only a split."""
    stem = (
        re.sub(r"-?\d+(-of-\d+)?$", "", files[0].stem) if len(files) > 1 or "-of-" in files[0].stem else files[0].stem
    )
    return f"{files[0].resolve().parent.name}-{stem}" if stem in SPLITS or not stem else stem


def find_split(file: Path) -> str:
    """The split that a file's name holds as a word (train-00000-of-00004.parquet), "" for none."""
    return next((SPLITS[word] for word in re.split(r"[-_.]", file.stem) if word in SPLITS), "")


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
