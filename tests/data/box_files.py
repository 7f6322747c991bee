"""The same small set of boxes in every format, written to disk."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from tests.data.files import encode, pixels, write, write_tar

COLUMNS = ("image", "width", "height", "x_min", "y_min", "x_max", "y_max")
ROWS: tuple[tuple[Any, ...], ...] = (
    ("a/one", 500, 375, 111, 108, 441, 193),
    ("a/two", 500, 375, 0, 0, 499, 374),
    ("a/two", 500, 375, 2, 69, 437, 207),
    ("b/three", 40, 60, 39, 59, 39, 59),
    ("b/four", 64, 64, "", "", "", ""),
    ("b/five", 33, 21, 5, 6, 7, 8),
    ("b/five", 33, 21, 4, 6, 7, 8),
    ("b/five", 33, 21, 0, 20, 32, 20),
)
EDGES = [(*row[3:5], row[5] + 1, row[6] + 1) for row in ROWS if row[3] != ""]  # xmax is the last pixel


def write_csv(path: Path, rows: Sequence[Sequence[Any]] = ROWS, columns: Sequence[str] = COLUMNS) -> Path:
    text = io.StringIO()
    csv.writer(text).writerows([columns, *rows])
    data = text.getvalue().encode()
    write(path, gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def write_box_parquet(path: Path) -> Path:
    columns = {name: [row[place] for row in ROWS] for place, name in enumerate(COLUMNS)}
    numbers = {name: [None if value == "" else value for value in values] for name, values in columns.items()}
    pyarrow.parquet.write_table(pyarrow.table(numbers), path)
    return path


def make_xml(width: Any, height: Any, boxes: Sequence[Sequence[Any]], name: str = "%s") -> str:
    objects = "".join(
        "<object><name>n01440764</name><pose>Unspecified</pose><bndbox>"
        f"<xmin>{box[0]}</xmin><ymin>{box[1]}</ymin>\n<xmax>{box[2]}</xmax><ymax>{box[3]}</ymax>"
        "</bndbox><part><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part></object>"
        for box in boxes
    )
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation>\n<folder>x</folder><filename>{name}</filename>{size}{objects}</annotation>\n"


def xml_files() -> dict[str, bytes]:
    files = {}
    for key in dict.fromkeys(row[0] for row in ROWS):
        rows = [row for row in ROWS if row[0] == key]
        boxes = [row[3:] for row in rows if row[3] != ""]
        files[f"{key}.xml"] = make_xml(rows[0][1], rows[0][2], boxes).encode()
    return files


def write_xml_folder(root: Path) -> Path:
    for name, data in xml_files().items():
        write(root / name, data)
    return root


def write_xml_tar(path: Path) -> Path:
    write_tar(path, {f"./{name}": data for name, data in xml_files().items()}, "w:gz" if path.suffix == ".gz" else "w:")
    return path


def write_wsol(folder: Path) -> Path:
    sizes = dict.fromkeys(f"{row[0]},{row[1]},{row[2]}" for row in ROWS)
    boxes = [",".join(map(str, (row[0], *row[3:]))) for row in ROWS if row[3] != ""]
    write(folder / "image_sizes.txt", "\n".join(sizes).encode() + b"\n")
    write(folder / "localization.txt", "\n".join(boxes).encode() + b"\n")
    return folder


def make_coco(rows: Sequence[Sequence[Any]] = ROWS) -> dict[str, list[dict[str, Any]]]:
    sizes = {row[0]: row[1:3] for row in rows}
    numbers = {key: 70 + number for number, key in enumerate(sizes)}
    images = [
        {"id": numbers[key], "file_name": key, "width": width, "height": height}
        for key, (width, height) in sizes.items()
    ]
    annotations = [
        {
            "id": number,
            "image_id": numbers[row[0]],
            "category_id": 1 + number % 2,
            "iscrowd": 0,
            "bbox": [row[3], row[4], row[5] - row[3] + 1, row[6] - row[4] + 1],
        }
        for number, row in enumerate(rows)
        if row[3] != ""
    ]
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "x"}, {"id": 2, "name": "y"}],
    }


def write_json(path: Path, content: Any) -> Path:
    write(path, json.dumps(content).encode())
    return path


def write_image(path: Path, width: int, height: int) -> None:
    write(path, encode(pixels(0, height, width), {".JPEG": "jpeg", ".jpg": "jpeg"}.get(path.suffix, "png")))
