"""Which data set plays which role in a suite: from --data to manifests."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from pixmim_eval.data import open_manifest
from pixmim_eval.data.shapes16 import VARIANTS
from pixmim_eval.data.sources.corrupted import open_corrupted
from pixmim_eval.data.sources.published import PUBLISHED, open_published
from pixmim_eval.errors import InputError
from pixmim_eval.metrics.corruption_error import ALEXNET_ERRORS
from pixmim_eval.suites import EvaluationSuite
from pixmim_eval.types import FileSet, Manifest

DEFAULT_DATA = "builtin:shapes16"
CORRUPTED = "imagenet-c"


def open_data(
    texts: Sequence[str], suite: EvaluationSuite, *, with_train: bool, corruptions: Sequence[str] = ()
) -> dict[str, Manifest]:
    """The data sets that --data names, by role; each cell of ImageNet-C under "imagenet-c/CORRUPTION/SEVERITY".

    Args:
        texts: "ROLE=PATH" or "PATH"; a PATH is the first role that the suite needs, and also train where it has such a
            part; the built-in data set without a variant is all the roles that it has. A named role goes before one so
            implied.
        suite: knows which roles there are.
        with_train: a model needs training images for its head.
        corruptions: those to open in ImageNet-C; () for the published fifteen.

    Raises:
        InputError: unknown role, a role named twice, a missing role, or whatever opening finds.
    """
    data: dict[str, Manifest] = {}
    for role, path in _assign_roles(texts, suite, with_train).items():
        if role == CORRUPTED:
            cells = open_corrupted(path, corruptions or tuple(ALEXNET_ERRORS))
            data |= {f"{CORRUPTED}/{name}/{severity}": manifest for (name, severity), manifest in cells.items()}
        elif role not in suite.openers:
            data[role] = open_published(path, role) if role in PUBLISHED else open_manifest(path, role=role)
    _check_train_is_apart(data)
    return data


def open_files(texts: Sequence[str], suite: EvaluationSuite) -> dict[str, FileSet]:
    """What --data names besides sets of images, by role. Raises as open_data."""
    paths = _assign_roles(texts, suite, with_train="train" in suite.needs)
    return {role: suite.openers[role](path) for role, path in paths.items() if role in suite.openers}


def _assign_roles(texts: Sequence[str], suite: EvaluationSuite, with_train: bool) -> dict[str, str]:
    """Role -> path. Raises InputError for roles that are unknown, named twice or missing."""
    known = (*suite.needs, *suite.accepts)
    split = [_split_role(text, known) for text in texts or [DEFAULT_DATA]]
    named = _collect((role, path) for role, path in split if role)
    bare = [path for role, path in split if not role]
    paths = _collect((role, path) for path in bare for role in _imply_roles(path, suite, with_train)) | named
    missing = [role for role in suite.needs if role not in paths]
    if missing:
        raise InputError(
            "data",
            expected="roles " + ", ".join(suite.needs),
            found="roles " + ", ".join(paths),
            where="--data",
            fix=f"Add --data {missing[0]}=PATH.",
        )
    return paths


def _collect(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """One path a role. Raises InputError where there are two."""
    paths: dict[str, str] = {}
    for role, path in pairs:
        if role in paths:
            raise InputError(
                "data sets",
                expected=f"one PATH of role {role}",
                found=f"{paths[role]} and {path}",
                where="--data",
                fix="Drop one of them, or name its role: --data ROLE=PATH.",
            )
        paths[role] = path
    return paths


def _split_role(text: str, known: Collection[str]) -> tuple[str | None, str]:
    """("sketch", "PATH") of "sketch=PATH", (None, "PATH") of "PATH". A path may hold a "=" behind a separator."""
    role, equals, path = text.partition("=")
    if not equals or not role.replace("-", "").isalnum():
        return None, text
    if role not in known:
        raise InputError(
            "role of a data set",
            expected="one of " + ", ".join(known),
            found=repr(role),
            where=f"--data {text}",
            fix="Write ROLE=PATH with one of these roles, or ./PATH for a path that holds a '='.",
        )
    return role, path


def _imply_roles(path: str, suite: EvaluationSuite, with_train: bool) -> list[str]:
    """The roles that a path without one stands for."""
    first, base = suite.needs[0], re.sub(r"@\d+$", "", path)
    if base == DEFAULT_DATA:
        known = (*suite.needs, *suite.accepts)
        return [role for role in known if role in VARIANTS or (role in suite.needs and role in suite.openers)]
    return [first, "train"] if with_train and first != "train" and _has_train_part(Path(base)) else [first]


def _has_train_part(folder: Path) -> bool:
    patterns = ("train*.parquet", "train*.tar", "data/train*.parquet", "data/train*.tar")
    return (folder / "train").is_dir() or any(True for pattern in patterns for _ in folder.glob(pattern))


def _check_train_is_apart(data: dict[str, Manifest]) -> None:
    for role, manifest in data.items():
        if role != "train" and "train" in data and manifest.digest == data["train"].digest:
            raise InputError(
                "data",
                expected="training images apart from the scored ones",
                found=f"the same data set {manifest.name} for both",
                where=f"--data train= and {role}=",
                fix="Name another one for train: a head scored on its own training images measures memory.",
            )
