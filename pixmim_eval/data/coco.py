"""Sets of images with objects in them, for detection: COCO's instances, and shapes16."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from pixmim_eval.data.boxes.coco import CocoFile, image_folders, is_crowd, read_box, read_coco
from pixmim_eval.data.boxes.images import read_size
from pixmim_eval.data.boxes.outlines import check_outline, decode_outline, encode_outline
from pixmim_eval.data.entries import Entries
from pixmim_eval.data.problems import Problem, summarise_problems
from pixmim_eval.data.shapes16 import SHAPES, Shapes16Source, render
from pixmim_eval.data.sources import open_manifest
from pixmim_eval.data.sources.assemble import assemble
from pixmim_eval.data.sources.folder import FolderSource
from pixmim_eval.data.sources.patterns import find_files
from pixmim_eval.errors import InputError
from pixmim_eval.progress import progress
from pixmim_eval.types import Manifest

_BLOCK = 256


@dataclass(frozen=True)
class Objects:
    """The objects of one image, in the order of the file.

    Args:
        boxes: float64 [n, 4], left, top, right, bottom in pixels with continuous edges, inside the image.
        labels: int64 [n], index into the classes of the set.
        crowd: bool [n], areas of many objects: neither wanted nor counted against a detector.
    """

    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray


@dataclass(frozen=True)
class DetectionSet:
    """N images and their M objects.

    Args:
        name, digest: as of a Manifest; the digest is of the images and of what is known of them.
        manifest: the images.
        classes: K names; label k means classes[k].
        categories: int64 [K], COCO's number of each class.
        sizes: int64 [N, 2], height and width.
        image: int64 [M], row of the manifest, sorted.
        boxes, labels, crowd: as in Objects, of all images.
        entries: M annotations as the file has them (bbox, area, iscrowd, segmentation), for evaluation.
        with_masks: whether every object has a mask.
        problems: what was dropped, repaired or missing.
    """

    name: str
    digest: str
    manifest: Manifest
    classes: tuple[str, ...]
    categories: np.ndarray
    sizes: np.ndarray
    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    entries: Entries
    with_masks: bool
    problems: tuple[Problem, ...] = ()

    def __len__(self) -> int:
        return len(self.manifest)

    def objects(self, row: int) -> Objects:
        """The objects of an image."""
        found = self._find(row)
        return Objects(self.boxes[found], self.labels[found], self.crowd[found])

    def masks(self, row: int) -> np.ndarray:
        """The pixels of each object of an image, bool [n, H, W]; of a set with masks."""
        height, width = self.sizes[row].tolist()
        masks = [decode_outline(entry["segmentation"], height, width) for entry in self.entries[self._find(row)]]
        return np.stack(masks) if masks else np.zeros((0, height, width), dtype=bool)

    def to_coco(self, rows: Sequence[int] | None = None) -> dict[str, list[dict[str, Any]]]:
        """The truth about these images (all of them by default) as COCO's JSON has it, for pycocotools.

        The number of an image is its row plus one. Annotations are numbered from 1: pycocotools takes a match with
        number 0 for none.
        """
        chosen = range(len(self)) if rows is None else rows
        images = [
            {
                "id": int(row) + 1,
                "file_name": str(self.manifest.keys[row]),
                "height": int(self.sizes[row, 0]),
                "width": int(self.sizes[row, 1]),
            }
            for row in chosen
        ]
        annotations: list[dict[str, Any]] = []
        for row in chosen:
            found = self._find(row)
            for category, entry in zip(self.categories[self.labels[found]].tolist(), self.entries[found], strict=True):
                numbers = {"id": len(annotations) + 1, "image_id": int(row) + 1, "category_id": category}
                annotations.append(numbers | entry)
        categories = [
            {"id": number, "name": name} for number, name in zip(self.categories.tolist(), self.classes, strict=True)
        ]
        return {"images": images, "annotations": annotations, "categories": categories}

    def _find(self, row: int) -> slice:
        return slice(*np.searchsorted(self.image, [row, row + 1]).tolist())


def open_detection(path: str) -> DetectionSet:
    """Open images with objects.

    Args:
        path: COCO's instances (annotations/instances_val2017.json, the images in images/val2017 or val2017 beside
            annotations/), or builtin:shapes16[:VARIANT][@SIZE].

    Counted and listed: images that are not there or of another size than stated, annotations of such images or of
    classes that are not listed, boxes without area, not finite or outside their image, damaged masks (all dropped),
    boxes beyond their image (clipped for training; evaluation takes them as they are), and classes without an object.

    Raises:
        InputError: a damaged file, no classes, two of one name, no images, or no object left that is not a crowd.
    """
    if path.startswith("builtin:"):
        return _open_builtin(path)
    file = find_files(path)[0]
    content = read_coco(file)
    problems = list(content.problems)
    numbers, manifest = _open_images(content, file, problems)
    rows = {number: row for row, number in enumerate(numbers)}
    categories = sorted(content.categories)
    sizes = [(content.images[number].height, content.images[number].width) for number in numbers]
    with_masks = any("segmentation" in entry for entry in content.annotations)
    kept: list[tuple[int, int, dict[str, Any], tuple[float, ...]]] = []
    for entry in content.annotations:
        row = rows.get(entry["image_id"])
        key = content.images[entry["image_id"]].key
        kind, detail = ("no entry", "") if row is None else _check_entry(entry, sizes[row], categories, with_masks)
        if kind:
            problems.append(Problem(kind, key, f"annotation {entry.get('id')}{detail and ': '}{detail}"))
        if row is not None and kind in ("", "clipped"):
            height, width = sizes[row]
            left, top, wide, high = read_box(entry)
            box = (max(left, 0.0), max(top, 0.0), min(left + wide, width), min(top + high, height))
            kept.append((row, categories.index(entry["category_id"]), entry, box))
    kept.sort(key=lambda item: item[0])
    digest = hashlib.blake2b((manifest.digest + content.digest).encode(), digest_size=8).hexdigest()
    return _check_classes(
        DetectionSet(
            name=file.stem,
            digest=digest,
            manifest=manifest,
            classes=tuple(content.categories[number] for number in categories),
            categories=np.array(categories, dtype=np.int64),
            sizes=np.array(sizes, dtype=np.int64).reshape(-1, 2),
            image=np.array([row for row, *_ in kept], dtype=np.int64),
            boxes=np.array([box for *_, box in kept], dtype=np.float64).reshape(-1, 4),
            labels=np.array([label for _, label, *_ in kept], dtype=np.int64),
            crowd=np.array([is_crowd(entry) for _, _, entry, _ in kept], dtype=bool),
            entries=Entries(_complete_entry(entry, sizes[row], with_masks) for row, _, entry, _ in kept),
            with_masks=with_masks,
            problems=tuple(problems),
        ),
        str(file),
    )


def _open_images(content: CocoFile, file: Path, problems: list[Problem]) -> tuple[list[int], Manifest]:
    """Numbers of the images that are there in the size that is stated, and their manifest."""
    keys = [about.key for about in content.images.values()]
    folders = [folder for folder in image_folders(file) if any((folder / key).is_file() for key in keys[:3])]
    if not folders or not content.categories:
        raise InputError(
            "COCO annotations",
            expected="a list of categories, and the images in images/ or a folder named as the split",
            found="no categories" if folders else f"no {keys[0] if keys else 'images'} in {image_folders(file)[0]}",
            where=str(file),
            fix="Lay the data set out as COCO does: annotations/instances_val2017.json beside images/val2017/.",
        )
    root, numbers = folders[0], []
    bar = progress(content.images.items(), description=f"reading image sizes of {file.stem}", quiet=len(keys) < 10_000)
    for number, about in bar:
        size = read_size(root / about.key)
        if size == (0, 0):
            problems.append(Problem("no image", about.key, str(root)))
        elif size != (about.height, about.width):
            stated, found = f"{about.width} x {about.height}", f"{size[1]} x {size[0]}"
            problems.append(Problem("image size", about.key, f"stated {stated}, the image is {found}"))
        else:
            numbers.append(number)
    files = [content.images[number].key for number in numbers]
    lengths = np.array([(root / name).stat().st_size for name in files], dtype=np.int64)
    return numbers, assemble(file.stem, str(root), FolderSource(root, np.array(files, dtype=str)), None, lengths)


def _check_entry(
    entry: dict[str, Any], size: tuple[int, int], categories: list[int], with_masks: bool
) -> tuple[str, str]:
    """Kind and detail of what is wrong with an annotation; ("", "") for nothing."""
    left, top, width, height = read_box(entry)
    if entry.get("category_id") not in categories:
        return "no class", f"category {entry.get('category_id')}"
    if not np.isfinite((left, top, width, height)).all():
        return "not finite", f"box {entry.get('bbox')}"
    if width <= 0 or height <= 0:
        return "empty", f"box {entry['bbox']}"
    if left >= size[1] or top >= size[0] or left + width <= 0 or top + height <= 0:
        return "outside", f"box {entry['bbox']} in {size[1]} x {size[0]}"
    if with_masks and (wrong := check_outline(entry.get("segmentation"), *size)):
        return "mask", wrong
    if left < 0 or top < 0 or left + width > size[1] or top + height > size[0]:
        return "clipped", f"box {entry['bbox']} in {size[1]} x {size[0]}"
    return "", ""


def _complete_entry(entry: dict[str, Any], size: tuple[int, int], with_masks: bool) -> dict[str, Any]:
    """What evaluation needs of an annotation. The area, which decides what is small, is the mask's where not stated."""
    area: Any = entry.get("area")
    if type(area) not in (int, float) or not 0 <= area < np.inf:
        outline = encode_outline(entry["segmentation"], *size) if with_masks else None
        area = entry["bbox"][2] * entry["bbox"][3] if outline is None else float(coco_mask.area(outline))
    kept = {"bbox": entry["bbox"], "area": area, "iscrowd": int(is_crowd(entry))}
    return kept | ({"segmentation": entry["segmentation"]} if with_masks else {})


def _check_classes(found: DetectionSet, where: str) -> DetectionSet:
    """The set with its empty classes on the list.

    Raises:
        InputError: two classes of one name, or no object left that a detector can be scored on.
    """
    twice = sorted({name for name in found.classes if found.classes.count(name) > 1})
    if twice:
        raise InputError(
            "classes",
            expected="a name of its own for each",
            found=f"{', '.join(twice[:3])} more than once",
            where=where,
            fix="Name the categories of the file apart: rows tell them by name.",
        )
    counts = np.bincount(found.labels[~found.crowd], minlength=len(found.classes))
    if not counts.any():
        raise InputError(
            "objects",
            expected="at least one that is not a crowd",
            found=summarise_problems(found.problems) or "none",
            where=where,
            fix="Check that the annotations belong to these images.",
        )
    empty = [Problem("empty class", found.classes[k], "") for k in np.flatnonzero(counts == 0).tolist()]
    return replace(found, problems=(*found.problems, *empty))


def _open_builtin(path: str) -> DetectionSet:
    manifest = open_manifest(path)
    source = manifest.source
    assert isinstance(source, Shapes16Source)  # the only built-in data set
    boxes, entries = [], []
    starts = range(0, len(manifest), _BLOCK)
    for start in progress(starts, description=f"drawing {manifest.name}", quiet=len(starts) < 8):
        rows = np.arange(start, min(start + _BLOCK, len(manifest)))
        drawn = render(rows, source.variant, source.size, source.seed)
        boxes.append(drawn.boxes)
        for (left, top, right, bottom), mask in zip(drawn.boxes.tolist(), drawn.masks, strict=True):
            outline = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
            outline = {"size": [source.size, source.size], "counts": outline["counts"].decode("ascii")}
            box = [left, top, right - left, bottom - top]
            entries.append({"bbox": box, "area": int(mask.sum()), "iscrowd": 0, "segmentation": outline})
    count = len(manifest)
    return DetectionSet(
        name=manifest.name,
        digest=manifest.digest,
        manifest=manifest,
        classes=tuple(SHAPES),
        categories=np.arange(1, len(SHAPES) + 1),
        sizes=np.full((count, 2), source.size),
        image=np.arange(count),
        boxes=np.concatenate(boxes).astype(np.float64),
        labels=manifest.labels,
        crowd=np.zeros(count, dtype=bool),
        entries=Entries(entries),
        with_masks=True,
    )
