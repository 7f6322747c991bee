"""Parquet files in Hugging Face image layout: a struct column image{bytes, path} and an integer column label."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet

from pixmim_eval.data.imagenet import resolve_names
from pixmim_eval.data.sources.assemble import CodedLabels, assemble, make_unique, read_class_file
from pixmim_eval.data.sources.decode import EncodedSource
from pixmim_eval.errors import InputError
from pixmim_eval.types import Manifest

_CACHED_GROUPS = 10  # of encoded images a process; a training window is 8


class ParquetSource(EncodedSource):
    """Reads images by row from row groups; the last few row groups stay in memory, encoded.

    Args:
        keys: see EncodedSource.
        files: the Parquet files.
        groups: int64 [G, 2], file and row group inside it, of each storage block.
        starts: int64 [G + 1], first row of each block, and the number of rows.
    """

    def __init__(self, keys: np.ndarray, files: list[Path], groups: np.ndarray, starts: np.ndarray) -> None:
        super().__init__(keys)
        self.files, self.groups, self.starts = files, groups, starts
        self._cache: OrderedDict[int, pyarrow.ChunkedArray] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": OrderedDict()}

    def locate(self, row: int) -> str:
        file, group = self.groups[self._find_block(row)]
        return f"{self.files[file]}, row group {group}: {self.keys[row]}"

    def read_bytes(self, rows: Sequence[int]) -> list[bytes]:
        result = [b""] * len(rows)
        blocks = [self._find_block(row) for row in rows]
        for place in sorted(range(len(rows)), key=blocks.__getitem__):  # each row group once, however rows are mixed
            block = blocks[place]
            result[place] = self._load(block)[int(rows[place] - self.starts[block])].as_py() or b""
        return result

    def _find_block(self, row: int) -> int:
        return int(np.searchsorted(self.starts, row, side="right")) - 1

    def _load(self, block: int) -> pyarrow.ChunkedArray:
        if block in self._cache:
            self._cache.move_to_end(block)
            return self._cache[block]
        file, group = self.groups[block].tolist()
        # Without threads: Arrow's pool does not survive the fork into a worker process.
        with pyarrow.parquet.ParquetFile(self.files[file]) as reader:
            table = reader.read_row_group(group, columns=["image.bytes"], use_threads=False)
        self._cache[block] = table.flatten()["image.bytes"]
        if len(self._cache) > _CACHED_GROUPS:
            self._cache.popitem(last=False)
        return self._cache[block]


def open_parquet(files: list[Path], name: str, labelled: bool) -> Manifest:
    """Parquet files as a manifest.

    Class names come from the string column `wnid`, else from the ClassLabel that the file's "huggingface" metadata
    declares, else from classes.csv or classes.txt beside the files.

    Args:
        files: in order.
        name: of the manifest.
        labelled: False leaves out the labels.

    Raises:
        InputError: another layout, or labels without names.
    """
    groups: list[tuple[int, int]] = []
    counts: list[int] = []
    sizes: list[int] = []
    tables: list[pyarrow.Table] = []
    for number, file in enumerate(files):
        with _open_file(file) as reader:
            tables.append(_read_columns(reader, file, labelled))
            for group in range(reader.metadata.num_row_groups):
                groups.append((number, group))
                counts.append(reader.metadata.row_group(group).num_rows)
                sizes.append(_image_size(reader.metadata.row_group(group)))
    where = str(files[0]) if len(files) == 1 else str(files[0].parent)
    keys = _make_keys(tables, files, where)
    labels = _find_labels(tables, files[0].parent, where) if labelled and len(keys) else None
    starts = np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))
    blocks = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
    source = ParquetSource(keys, files, np.array(groups, dtype=np.int64).reshape(-1, 2), starts)
    return assemble(name, where, source, labels, np.array(sizes, dtype=np.int64), blocks)


def _open_file(file: Path) -> pyarrow.parquet.ParquetFile:
    try:
        return pyarrow.parquet.ParquetFile(file)
    except pyarrow.ArrowInvalid as error:
        raise InputError(
            "Parquet file",
            expected="a complete Parquet file",
            found=str(error),
            where=str(file),
            fix="Download or write it again.",
        ) from error


def _read_columns(reader: pyarrow.parquet.ParquetFile, file: Path, labelled: bool) -> pyarrow.Table:
    """Everything but the images: columns image.path (may be null), label and wnid (where present)."""
    schema = reader.schema_arrow
    image = schema.field("image").type if "image" in schema.names else None
    if image is None or not pyarrow.types.is_struct(image) or image.get_field_index("bytes") < 0:
        raise _layout_error("a struct column image{bytes, path}", schema, file)
    labels = [column for column in ("label", "wnid") if labelled and column in schema.names]
    if labelled and not labels:
        raise _layout_error("a column label or wnid", schema, file)
    if "label" in labels and not pyarrow.types.is_integer(schema.field("label").type):
        raise _layout_error("integers in column label", schema, file)
    columns = {"image.path": pyarrow.nulls(reader.metadata.num_rows, "string")}
    wanted = [*labels, *(["image.path"] if image.get_field_index("path") >= 0 else [])]
    if wanted:
        table = reader.read(columns=wanted).flatten()
        columns |= {column: table[column] for column in wanted}
    if any(columns[column].null_count for column in labels):
        raise _layout_error("a label in every row", schema, file)
    return pyarrow.table(columns).replace_schema_metadata(schema.metadata)


def _layout_error(expected: str, schema: pyarrow.Schema, file: Path) -> InputError:
    return InputError(
        "columns of the Parquet file",
        expected=expected,
        found=", ".join(f"{field.name}: {field.type}" for field in schema),
        where=str(file),
        fix="Write it in Hugging Face image layout (datasets' Image and ClassLabel features), or use an image folder.",
    )


def _image_size(group: Any) -> int:
    columns = [group.column(index) for index in range(group.num_columns)]
    return sum(column.total_uncompressed_size for column in columns if column.path_in_schema == "image.bytes")


def _make_keys(tables: list[pyarrow.Table], files: list[Path], where: str) -> np.ndarray:
    """The paths where they are complete and unique, else "FILE/ROW"."""
    paths = [path for table in tables for path in table["image.path"].to_pylist()]
    if None in paths or len(set(paths)) < len(paths):
        paths = [f"{file.stem}/{row}" for file, table in zip(files, tables, strict=True) for row in range(len(table))]
    parents = [file.parent.name for file, table in zip(files, tables, strict=True) for _ in range(len(table))]
    return make_unique(paths, parents, where)


def _find_labels(tables: list[pyarrow.Table], folder: Path, where: str) -> CodedLabels:
    numbers = None
    if all("label" in table.column_names for table in tables):
        numbers = np.concatenate([table["label"].to_numpy() for table in tables]).astype(np.int64)
    if all("wnid" in table.column_names for table in tables):
        wordnet_ids = pyarrow.chunked_array([chunk for table in tables for chunk in table["wnid"].chunks])
        coded = wordnet_ids.combine_chunks().dictionary_encode()
        labels = CodedLabels(coded.indices.to_numpy().astype(np.int64), coded.dictionary.to_pylist())
        if numbers is not None:
            _check_agreement(numbers, labels, where)
        return labels
    names = _declared_names(tables[0].schema) or read_class_file(folder)
    if numbers is None or names is None:
        raise InputError(
            "class names of the Parquet files",
            expected="a column wnid, a ClassLabel feature in the metadata, or classes.csv beside the files",
            found="integer labels only",
            where=where,
            fix="Write classes.csv with columns label,wnid (e.g. `0,n01440764`) into the same folder.",
        )
    return CodedLabels(numbers, resolve_names(names))


def _check_agreement(numbers: np.ndarray, labels: CodedLabels, where: str) -> None:
    """Every label must go with one WordNet id, and the other way round."""
    pairs = np.unique(np.stack((numbers, labels.codes)), axis=1)
    for side, other in ((0, 1), (1, 0)):
        values, counts = np.unique(pairs[side], return_counts=True)
        if counts.max() > 1:
            clash = pairs[other][pairs[side] == values[counts.argmax()]][:3]
            labels_found = ", ".join(labels.names[code] if other else f"label {code}" for code in clash)
            owner = labels.names[values[counts.argmax()]] if side else f"label {values[counts.argmax()]}"
            raise InputError(
                "columns label and wnid",
                expected="one WordNet id a label",
                found=f"{owner} with {labels_found}",
                where=where,
                fix="Correct the columns, or drop label: wnid alone is enough.",
            )


def _declared_names(schema: pyarrow.Schema) -> list[str] | None:
    """The names of the ClassLabel `label` in the metadata that Hugging Face's datasets write."""
    metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    feature = metadata.get("info", {}).get("features", {}).get("label", {})
    return feature.get("names")
