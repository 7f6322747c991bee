"""Data sets on the Hugging Face hub, through `datasets` (optional extra `hub`)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pixmim_eval.data.imagenet import resolve_names
from pixmim_eval.data.sources.assemble import CodedLabels, assemble
from pixmim_eval.data.sources.decode import EncodedSource
from pixmim_eval.data.sources.patterns import SPLITS
from pixmim_eval.errors import InputError
from pixmim_eval.types import Manifest


class HubSource(EncodedSource):
    """Reads images by row from a `datasets.Dataset` whose column `image` is not decoded."""

    def __init__(self, keys: np.ndarray, dataset: Any) -> None:
        super().__init__(keys)
        self.dataset = dataset

    def read_bytes(self, rows: Sequence[int]) -> list[bytes]:
        images = self.dataset[[int(row) for row in rows]]["image"]
        return [image["bytes"] or (Path(image["path"]).read_bytes() if image["path"] else b"") for image in images]


def open_hub(name: str, split: str | None, role: str, labelled: bool) -> Manifest:
    """A hub data set with an Image column `image` and a ClassLabel column `label`, as a manifest.

    Args:
        name: hub id, e.g. "ILSVRC/imagenet-1k".
        split: None for the one that goes with `role`.
        role: "train", "val", "test"; for any other val, or else the only split.
        labelled: False leaves out the labels.

    Raises:
        InputError: `datasets` is not installed, the split does not exist, or the columns are others.
    """
    datasets, splits = _import_datasets(name), list_splits(name)
    if split is not None and split not in ("all", *splits) and re.fullmatch(r"[\w.-]+", split):  # no slice, no sum
        raise _missing_split(split, splits, name)
    split = split or _choose_split(splits, name, role)
    dataset = datasets.load_dataset(name, split=split)
    features = dataset.features
    expected = {"image": datasets.Image, **({"label": datasets.ClassLabel} if labelled else {})}
    if any(not isinstance(features.get(column), kind) for column, kind in expected.items()):
        raise InputError(
            "columns of the hub data set",
            expected=" and ".join(f"{column} ({kind.__name__})" for column, kind in expected.items()),
            found=", ".join(f"{column} ({type(kind).__name__})" for column, kind in features.items()),
            where=f"hub:{name}:{split}",
            fix="Use another data set, or write it as Parquet in this layout.",
        )
    labels = None
    if labelled:
        numbers = dataset.select_columns(["label"]).with_format("arrow")[:]["label"].to_numpy()
        labels = CodedLabels(numbers.astype(np.int64), resolve_names(features["label"].names))
    count = len(dataset)
    keys = np.array([str(row) for row in range(count)], dtype=str)
    source = HubSource(keys, dataset.cast_column("image", datasets.Image(decode=False)))
    return assemble(f"{name.split('/')[-1]}-{split}", f"hub:{name}:{split}", source, labels, np.array([count]))


def list_splits(name: str) -> list[str]:
    """The splits of a hub data set. Raises InputError where `datasets` is not installed."""
    return list(_import_datasets(name).get_dataset_split_names(name))


def _import_datasets(name: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise InputError(
            "package for hub data sets",
            expected="datasets, an optional extra",
            found="not installed",
            where=f"hub:{name}",
            fix="Install it: pip install 'pixmim-eval[hub]'",
        ) from error
    return datasets


def _choose_split(splits: Sequence[str], name: str, role: str) -> str:
    candidates = (role,) if role in ("train", "test") else ("val", "validation")
    for candidate in candidates:
        if candidate in splits:
            return candidate
    if role not in SPLITS and len(splits) == 1:
        return splits[0]
    raise _missing_split(candidates[-1], splits, name)


def _missing_split(expected: str, splits: Sequence[str], name: str) -> InputError:
    return InputError(
        "splits of the hub data set",
        expected=expected,
        found=", ".join(splits),
        where=f"hub:{name}",
        fix=f"Name the split: hub:{name}:{next(iter(splits), 'SPLIT')}",
    )
