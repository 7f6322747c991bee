"""Boxes and masks of objects in COCO's JSON (instances)."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pixmim_eval.data.boxes.box_set import BoxSet, MaskSet, RawBoxes, check_boxes
from pixmim_eval.data.boxes.images import find_images
from pixmim_eval.data.boxes.outlines import check_outline, decode_outline
from pixmim_eval.data.problems import Problem, leads_out
from pixmim_eval.errors import InputError


@dataclass(frozen=True)
class CocoImage:
    """An image that the file lists; height and width are 0 where it does not state them."""

    key: str
    height: int
    width: int


@dataclass(frozen=True)
class CocoFile:
    """What a file of instances holds.

    Args:
        images: by id, in the order of the file; names that lead out of the data set are left out.
        annotations: as they stand there, each of a listed image; crowds included.
        categories: name by id.
        digest: 32 hex digits of the file's bytes.
        problems: images and annotations that were dropped.
    """

    images: dict[int, CocoImage]
    annotations: list[dict[str, Any]]
    categories: dict[int, str]
    digest: str
    problems: list[Problem]


@dataclass(frozen=True)
class _Outlines:
    """Masks of the objects of each image, decoded when they are asked for."""

    outlines: list[list[Any]]
    sizes: np.ndarray

    def of(self, row: int) -> list[np.ndarray]:
        height, width = self.sizes[row].tolist()
        return [decode_outline(outline, height, width) for outline in self.outlines[row]]


def open_coco(file: Path) -> BoxSet:
    """The boxes of the objects of a COCO file, and their masks where the file has segmentations.

    A box is [left, top, width, height] with continuous edges, as COCO means them. Annotations of crowds (iscrowd 1)
    mark areas of many objects, and are left out and counted. Where one annotation has a segmentation, all need one:
    those without are dropped with the damaged. The images are looked for where COCO has them (images/val2017 or
    val2017 beside annotations/), and then their own sizes count.

    Raises:
        InputError: no such file, or no box left.
    """
    content = read_coco(file)
    problems = list(content.problems)
    rows = {number: row for row, number in enumerate(content.images)}
    images = list(content.images.values())
    with_masks = any("segmentation" in entry for entry in content.annotations)
    image, edges, outlines = [], [], []
    for entry in content.annotations:
        about = content.images[entry["image_id"]]
        if is_crowd(entry):
            problems.append(Problem("crowd", about.key, _name_annotation(entry)))
            continue
        wrong = check_outline(entry.get("segmentation"), about.height, about.width) if with_masks else ""
        if wrong:
            problems.append(Problem("mask", about.key, f"{_name_annotation(entry)}: {wrong}"))
            continue
        left, top, width, height = read_box(entry)
        image.append(rows[entry["image_id"]])
        edges.append((left, top, left + width, top + height))
        outlines.append(entry.get("segmentation"))
    keys = [about.key for about in images]
    sizes = np.array([(about.height, about.width) for about in images], dtype=np.int64).reshape(-1, 2)
    found, manifest = find_images(file.stem, image_folders(file), keys, problems)
    if found is not None:
        sizes = np.where(sizes > 0, sizes, found)

    def select(groups: list[np.ndarray]) -> tuple[MaskSet, str]:
        chosen = [[outlines[box] for box in group] for group in groups]
        return _Outlines(chosen, sizes[(sizes > 0).all(axis=1)]), content.digest

    return check_boxes(
        RawBoxes(
            file.stem,
            str(file),
            keys,
            sizes,
            np.array(image, dtype=np.int64),
            np.array(edges, dtype=np.float64).reshape(-1, 4),
            problems,
            found=found,
            masks=select if with_masks else None,
            manifest=manifest,
        )
    )


def read_coco(file: Path) -> CocoFile:
    """A COCO file of instances, checked so far that its entries can be read.

    Raises:
        InputError: no JSON, no lists of images and annotations, or an image or category twice.
    """
    data = file.read_bytes()
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _file_error(file, str(error)) from error
    if not isinstance(content, dict) or not all(isinstance(content.get(k), list) for k in ("images", "annotations")):
        raise _file_error(file, ", ".join(map(str, content))[:80] if isinstance(content, dict) else "no object")
    problems: list[Problem] = []
    images = _read_images(content["images"], file, problems)
    annotations = []
    for place, entry in enumerate(content["annotations"]):
        if not isinstance(entry, dict):
            problems.append(Problem("broken", f"annotation {place}", str(entry)[:80]))
        elif not isinstance(entry.get("image_id"), int) or entry["image_id"] not in images:
            problems.append(Problem("no entry", f"image {entry.get('image_id')}", _name_annotation(entry)))
        else:
            annotations.append(entry)
    categories = _read_categories(content.get("categories", []), file)
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    return CocoFile(images, annotations, categories, digest, problems)


def read_box(entry: dict[str, Any]) -> tuple[float, float, float, float]:
    """Left, top, width and height of an annotation; NaN throughout where it has no four numbers."""
    box = entry.get("bbox")
    if isinstance(box, list) and len(box) == 4 and all(type(number) in (int, float) for number in box):
        try:
            left, top, width, height = map(float, box)
            return left, top, width, height
        except OverflowError:  # JSON's integers have no limit
            pass
    return (math.nan,) * 4


def is_crowd(entry: dict[str, Any]) -> bool:
    """Whether an annotation marks an area of many objects: whatever iscrowd states but 0 and nothing."""
    return entry.get("iscrowd") not in (0, None)


def image_folders(file: Path) -> list[Path]:
    """Where the images of annotations/instances_val2017.json may be, likeliest first."""
    split, above = file.stem.rpartition("_")[2], file.resolve().parent.parent
    return [above / "images" / split, above / split, above / "images", file.parent / split, file.parent]


def _read_images(entries: list[Any], file: Path, problems: list[Problem]) -> dict[int, CocoImage]:
    images: dict[int, CocoImage] = {}
    names: set[str] = set()
    for place, entry in enumerate(entries):
        number, key = (entry.get("id"), entry.get("file_name")) if isinstance(entry, dict) else (None, None)
        if not isinstance(number, int) or not isinstance(key, str) or not key:
            problems.append(Problem("broken", f"image {place}", str(entry)[:80]))
        elif leads_out(key):
            problems.append(Problem("path", key, f"image {number}"))
        elif number in images or key in names:
            raise _file_error(file, f"image {number}, {key}, more than once")
        else:
            images[number] = CocoImage(key, _read_side(entry.get("height")), _read_side(entry.get("width")))
            names.add(key)
    return images


def _read_side(value: Any) -> int:
    return int(value) if type(value) in (int, float) and 0 < value < 2**31 and value == int(value) else 0


def _read_categories(entries: Any, file: Path) -> dict[int, str]:
    categories: dict[int, str] = {}
    for entry in entries if isinstance(entries, list) else []:
        number, name = (entry.get("id"), entry.get("name")) if isinstance(entry, dict) else (None, None)
        if not isinstance(number, int) or not isinstance(name, str) or number in categories:
            raise _file_error(file, f"category {str(entry)[:80]}, without id and name, or twice")
        categories[number] = name
    return categories


def _name_annotation(entry: dict[str, Any]) -> str:
    return f"annotation {entry.get('id')}"


def _file_error(file: Path, found: str) -> InputError:
    return InputError(
        "COCO annotations",
        expected="JSON with lists of images and annotations (instances), each image and category once",
        found=found,
        where=str(file),
        fix="Point at the file of instances, e.g. annotations/instances_val2017.json, or download it again.",
    )
