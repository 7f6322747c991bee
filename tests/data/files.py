"""Small data sets of every format, written to disk."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image

from pixmim_eval.types import Manifest

TENCH, GOLDFISH, SHARK = "n01440764", "n01443537", "n01484850"


def pixels(seed: int, height: int = 9, width: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encode(image: Image.Image | np.ndarray, kind: str = "png", **options: Any) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def write_classes(root: Path, names: tuple[str, ...] = (GOLDFISH, TENCH), count: int = 3) -> None:
    for number, name in enumerate(names):
        for image in range(count):
            write(root / name / f"{image}.png", encode(pixels(10 * number + image)))


def write_parquet(
    path: Path,
    labels: list[int],
    metadata: dict[str, str] | None = None,
    seed: int = 0,
    paths: list[str] | None = None,
    **columns: list[str],
) -> None:
    paths = paths or [f"{path.stem}-{row}.png" for row in range(len(labels))]
    images = [{"bytes": encode(pixels(10 * seed + row)), "path": name} for row, name in enumerate(paths)]
    struct = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    table = pyarrow.table({"image": pyarrow.array(images, struct), "label": pyarrow.array(labels, "int64"), **columns})
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), path, row_group_size=4)


def write_tar(path: Path, members: dict[str, bytes], mode: str = "w:") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def class_names(manifest: Manifest) -> list[str]:
    return [manifest.label_space.classes[label] for label in manifest.labels]
