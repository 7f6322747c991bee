"""Result rows on disk: one JSON file a condition, written whole or not at all; everything else is a view of them.

After a crash a reader sees the files of finished conditions and nothing else: a file gets its name only once its bytes
are on the disk. This module never imports torch.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Collection, Mapping
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pixmim_eval.errors import InputError
from pixmim_eval.files import write_atomic
from pixmim_eval.pretraining import describe_pretraining
from pixmim_eval.types import Estimate, FileSet, Manifest, Model, Outcome, ResultRow, SuiteConfig

COLUMNS = tuple(field.name for field in fields(ResultRow))
_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (float, int),
    "int | None": (int, type(None)),
}
_TYPES = {field.name: _KINDS[str(field.type)] for field in fields(ResultRow)}
_COLUMN_TYPES = {"str": "str", "int": "int64", "float": "float64", "int | None": "Int64"}
_DTYPES = {field.name: _COLUMN_TYPES[str(field.type)] for field in fields(ResultRow)}
SCHEMA = 2  # of a file of rows; 1 had none of its own, and rows without those of _ADDED
_ADDED = {"command": "", "pretraining": "", "backbone": ""}
_PACKAGES = ("pixmim-eval", "torch", "torchvision", "timm", "numpy", "pillow")


def hash_parts(*parts: object) -> str:
    """16 hex digits of strings, numbers and nested tuples of them; equal exactly where their reprs are."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()


def format_protocol(**settings: str | int | float) -> str:
    """ "key=value;key=value", sorted by key, as ResultRow.protocol wants it; a ";" in a value becomes a ","."""
    return ";".join(f"{key}={str(settings[key]).replace(';', ',')}" for key in sorted(settings))


def name_subset(data: Manifest | FileSet, limit: int | None) -> str:
    """Which rows of a data set a limited run uses: "all", or e.g. "spread-1000" (see extract.select_rows)."""
    return "all" if limit is None or limit >= len(data) else f"spread-{limit}"


@cache
def list_versions() -> str:
    """Versions of the packages that numbers may depend on, "package=version;…", found without importing them."""
    return ";".join(f"{package}={_find_version(package)}" for package in _PACKAGES)


def _find_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # a source tree that was never installed
        return "not-installed"


def make_rows(
    model: Model,
    data: Manifest | FileSet,
    estimates: Mapping[str, Estimate],
    *,
    suite: str,
    condition: str,
    protocol: str,
    config: SuiteConfig,
    skipped: int = 0,
) -> list[ResultRow]:
    """The result rows of a condition, one a metric: who was measured on what, how, and when.

    Args:
        model: the model as loaded (not the one with a fitted head: rows carry the digest of the checkpoint's weights).
        data: what was scored.
        estimates: metric -> number.
        suite, condition: their names.
        protocol: see format_protocol.
        config: of the run.
        skipped: unreadable images left out.
    """
    shared: dict[str, Any] = {
        "run": config.run,
        "model": model.name,
        "weights_digest": model.digest,
        "method": model.method,
        "epoch": model.epoch,
        "suite": suite,
        "dataset": data.name,
        "dataset_digest": data.digest,
        "subset": name_subset(data, config.limit),
        "condition": condition,
        "protocol": protocol,
        "skipped": skipped,
        "seed": config.seed,
        "versions": list_versions(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": config.command,
        "pretraining": describe_pretraining(getattr(model.checkpoint, "settings", {})),
        "backbone": model.backbone,
    }
    return [
        ResultRow(
            **shared,
            metric=metric,
            value=float(estimate.value),
            low=float(estimate.low),
            high=float(estimate.high),
            n=int(estimate.n),
            unit=estimate.unit,
        )
        for metric, estimate in estimates.items()
    ]


class RunFolder:
    """The results of a run: DIR/rows/SUITE-MODEL-CONDITION-KEY.json, one file a finished condition.

    A file is JSON {"schema": 2, "key": …, "rows": [fields of ResultRow], "hits": {metric: base64 of zlib of int8 [N]}}.

    Args:
        path: the run's folder DIR; nothing is made before the first write.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = path / "rows"
        self._files = {_key_of(file): file for file in self.files()}

    def files(self) -> list[Path]:
        """The files of finished conditions, by name."""
        return sorted(file for file in self.rows.glob("*.json") if not file.name.startswith("."))

    def has(self, key: str) -> bool:
        """Whether the condition with this key (see hash_parts) is done."""
        return key in self._files

    def write(self, key: str, outcome: Outcome) -> Path:
        """Store the outcome of one condition, all of it or nothing, and return its file."""
        first = outcome.rows[0]
        words = "-".join((first.suite, first.model, first.condition))
        slug = re.sub(r"[^A-Za-z0-9_.]+", "-", words).strip("-.")[:120]
        file = self.rows / f"{slug}-{key}.json"
        content = {
            "schema": SCHEMA,
            "key": key,
            "rows": [asdict(row) for row in outcome.rows],
            "hits": {metric: _encode_hits(hits) for metric, hits in outcome.hits.items()},
        }
        write_atomic(file, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())
        self._files[key] = file
        self._remove_superseded(slug, file, first)
        return file

    def _remove_superseded(self, slug: str, kept: Path, row: ResultRow) -> None:
        """Drop rows of the same measurement by former code, now that the new ones are on the disk."""
        for file in self.rows.glob(f"{slug}-*.json"):
            if file != kept and _same_measurement(_read_file(file)[0], row):
                file.unlink()
                self._files.pop(_key_of(file), None)

    def rename_model(self, key: str, name: str) -> None:
        """Let the rows of a finished condition carry this name of their model."""
        file = self._files[key]
        outcome = _read_outcome(file)
        if all(row.model == name for row in outcome.rows):
            return
        written = self.write(key, Outcome([replace(row, model=name) for row in outcome.rows], outcome.hits))
        if written != file:  # until now both are there, so that no crash loses the rows
            file.unlink(missing_ok=True)

    def read(self, keys: Collection[str] | None = None) -> list[ResultRow]:
        """Stored rows, file by file in order of name: all, or those of some conditions, in the order of their keys.

        Raises:
            InputError: naming a file that is not one of ours.
        """
        files = self.files()
        if keys is not None:
            by_key = {_key_of(file): file for file in files}
            files = [by_key[key] for key in keys if key in by_key]
        return [row for file in files for row in _read_file(file)]


def _encode_hits(hits: np.ndarray) -> str:
    """Text of int8 [N]: compressed, so that 50,000 images take some 10 kB."""
    return base64.b64encode(zlib.compress(hits.astype(np.int8).tobytes(), 9)).decode()


def _decode_hits(text: str) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(text, validate=True)), dtype=np.int8)


def _same_measurement(one: ResultRow, other: ResultRow) -> bool:
    named = ("weights_digest", "suite", "dataset_digest", "subset", "condition", "protocol", "metric", "seed")
    return all(getattr(one, name) == getattr(other, name) for name in named)


def _key_of(file: Path) -> str:
    return file.stem.rpartition("-")[2]


def _read_file(file: Path) -> list[ResultRow]:
    return _read_outcome(file).rows


def _read_outcome(file: Path) -> Outcome:
    try:
        content = _migrate(json.loads(file.read_bytes()), file)
        hits = {metric: _decode_hits(text) for metric, text in content.get("hits", {}).items()}
        return Outcome([_check_row(row) for row in content["rows"]], hits)
    except (ValueError, KeyError, TypeError, AttributeError, zlib.error) as error:
        raise InputError(
            "a file of result rows",
            expected='JSON {"key": …, "rows": [{…}]} with every field of ResultRow',
            found=f"{type(error).__name__}: {error}",
            where=str(file),
            fix="Delete the file and run the same command again: only its condition is computed anew.",
        ) from error


def _migrate(content: dict[str, Any], file: Path) -> dict[str, Any]:
    """The content of a file of rows in today's schema. Raises InputError of a later one."""
    found = content.get("schema", 1)
    if found not in range(1, SCHEMA + 1):
        raise InputError(
            "schema of a file of result rows",
            expected=f"at most {SCHEMA}, which this version of pixmim-eval writes",
            found=repr(found),
            where=str(file),
            fix="Read it with the version that wrote it, or a later one: pip install --upgrade pixmim-eval.",
        )
    return {**content, "rows": [{**_ADDED, **row} for row in content["rows"]]}


def _check_row(row: dict[str, Any]) -> ResultRow:
    """A row whose numbers are numbers. Raises ValueError, TypeError or KeyError otherwise."""
    wrong = [name for name in COLUMNS if type(row[name]) not in _TYPES[name]]
    if wrong:
        raise ValueError(f"field {wrong[0]} is {row[wrong[0]]!r}")
    return ResultRow(**row)


def read_hits(directory: Path) -> pd.DataFrame:
    """How each image fared, for the rows of a run folder that say so.

    Args:
        directory: what `--out` named.

    Returns:
        The columns of read_rows, and `hits`: int8 [N], for every image of the row's data set and subset in order, 1
        right, 0 wrong, -1 left out.

    Raises:
        InputError: a file in the folder is not one of ours.
    """
    outcomes = [_read_outcome(file) for file in RunFolder(directory).files()]
    pairs = [(row, found.hits[row.metric]) for found in outcomes for row in found.rows if row.metric in found.hits]
    table = pd.DataFrame([asdict(row) for row, _ in pairs], columns=list(COLUMNS)).astype(_DTYPES)
    return table.assign(hits=pd.Series([hits for _, hits in pairs], dtype=object))


def read_rows(directory: Path) -> pd.DataFrame:
    """Every stored row of a run folder, as a data frame.

    Args:
        directory: what `--out` named.

    Returns:
        Columns are the fields of ResultRow in order: text as str, epoch as Int64, value, low and high as float64, n,
        skipped and seed as int64.

    Raises:
        InputError: the folder has no rows, or a file in it is not one of ours.
    """
    rows = RunFolder(directory).read()
    if not rows:
        raise InputError(
            "result rows",
            expected="at least one file rows/*.json",
            found="none",
            where=str(directory),
            fix=f"Make some: python -m pixmim_eval.run --suite robustness --out {directory}",
        )
    return pd.DataFrame([asdict(row) for row in rows], columns=list(COLUMNS)).astype(_DTYPES)
