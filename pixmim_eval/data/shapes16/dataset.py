"""shapes16 as a data set: renderings with labels, boxes and masks; the manifest; a contact sheet."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pixmim_eval.data.shapes16.composition import compose
from pixmim_eval.data.shapes16.drawing import canvas
from pixmim_eval.data.shapes16.labels import VARIANTS, VERSION, check_variant, shapes, textures
from pixmim_eval.data.shapes16.shapes import SHAPES
from pixmim_eval.errors import InputError
from pixmim_eval.types import LabelSpace, Manifest

COUNTS = {"train": 16384}
"""Default number of images of a variant; 768 where not listed."""

SIZES = (16, 224)
"""Smallest and largest side in pixels."""

SHEET_ROWS = {"train": 2, "val": 1, "cue-conflict": 2, "sketch": 2, "rendition": 4, "hard": 2}
"""Rows of the contact sheet, from the top."""

_GAP = 2  # white pixels between the images of the contact sheet


@dataclass(frozen=True)
class Rendering:
    """Rendered rows.

    Args:
        images: uint8 [n, S, S, 3], RGB.
        shapes: int64 [n], labels.
        textures: int64 [n], -1 where the object has none.
        boxes: int64 [n, 4], (x0, y0, x1, y1) in pixels, x1 and y1 exclusive: tight around the mask.
        masks: bool [n, S, S], the pixels of which the object covers at least half. In `hard`, what other things hide
            or the border cuts off does not count, in the mask and in the box; in `sketch` the inside counts.
    """

    images: np.ndarray
    shapes: np.ndarray
    textures: np.ndarray
    boxes: np.ndarray
    masks: np.ndarray


@dataclass(frozen=True)
class Shapes16Source:
    """Reads images of shapes16 by rendering them. Args as in `manifest`."""

    variant: str
    size: int
    seed: int

    def read(self, rows: Sequence[int]) -> list[np.ndarray]:
        """Images of rows, each uint8 [S, S, 3] RGB."""
        found = compose(np.asarray(rows, dtype=np.int64), self.variant, self.seed)
        return [canvas(self.size).draw(scene)[0] for scene in found]


def _check_size(size: int) -> None:
    low, high = SIZES
    if not low <= size <= high:
        raise InputError(
            "size of shapes16",
            expected=f"{low} to {high} pixels",
            found=str(size),
            where="builtin:shapes16@SIZE",
            fix=f"Choose a size from {low} to {high}, e.g. builtin:shapes16@64.",
        )


def render(rows: Sequence[int] | np.ndarray, variant: str = "val", size: int = 64, seed: int = 0) -> Rendering:
    """Renders rows with all that is known about them; a row is the same alone, in any batch and in any order.

    Args:
        rows: n row numbers, from 0, in any order.
        variant: one of VARIANTS.
        size: pixels of a side, 16 to 224; the scene is the same at every size.
        seed: of the data set.

    Raises:
        InputError: no such variant, or a size out of range.
    """
    _check_size(size)
    rows = np.asarray(rows, dtype=np.int64)
    images = np.empty((len(rows), size, size, 3), dtype=np.uint8)
    masks = np.empty((len(rows), size, size), dtype=bool)
    boxes = np.empty((len(rows), 4), dtype=np.int64)
    for i, scene in enumerate(compose(rows, variant, seed)):
        images[i], masks[i] = canvas(size).draw(scene)
        across, down = np.flatnonzero(masks[i].any(axis=0)), np.flatnonzero(masks[i].any(axis=1))
        boxes[i] = across[0], down[0], across[-1] + 1, down[-1] + 1
    return Rendering(images, shapes(rows, variant, seed), textures(rows, variant, seed), boxes, masks)


def manifest(variant: str = "train", size: int = 64, count: int | None = None, seed: int = 0) -> Manifest:
    """shapes16 as a manifest; nothing is rendered before it is read.

    Args:
        variant: one of VARIANTS; train and val come from different random streams.
        size: pixels of a side, 16 to 224.
        count: number of images; by default 16384 in train and 768 in any other variant. Fewer are the first ones.
        seed: of the data set.

    Raises:
        InputError: no such variant, or a size or count out of range.
    """
    check_variant(variant)
    _check_size(size)
    count = COUNTS.get(variant, 768) if count is None else count
    if count < 1:
        raise InputError(
            "count of shapes16", expected="at least 1", found=str(count), where="shapes16.manifest", fix="Raise count."
        )
    rows = np.arange(count)
    return Manifest(
        name=f"shapes16-{variant}",
        keys=np.array([f"{variant}/{row:06d}" for row in rows]),
        labels=shapes(rows, variant, seed),
        label_space=LabelSpace("shapes16", tuple(SHAPES)),
        digest=hashlib.blake2b(repr((VERSION, variant, size, count, seed)).encode(), digest_size=8).hexdigest(),
        source=Shapes16Source(variant, size, seed),
        ready_size=size,
    )


def contact_sheet(size: int = 64, seed: int = 0) -> np.ndarray:
    """All shapes in all variants: one column a shape, the rows of each variant as in SHEET_ROWS.

    Returns:
        uint8 [H, W, 3] mosaic with white gaps of 2 pixels.
    """
    _check_size(size)
    cell = size + _GAP
    sheet = np.full((sum(SHEET_ROWS.values()) * cell - _GAP, len(SHAPES) * cell - _GAP, 3), 255, dtype=np.uint8)
    top = 0
    for variant in VARIANTS:
        rows = np.arange(SHEET_ROWS[variant] * len(SHAPES))  # every 16 rows hold each shape once
        labels, images = shapes(rows, variant, seed), Shapes16Source(variant, size, seed).read(rows.tolist())
        for row, label, image in zip(rows.tolist(), labels.tolist(), images, strict=True):
            y, x = (top + row // len(SHAPES)) * cell, label * cell
            sheet[y : y + size, x : x + size] = image
        top += SHEET_ROWS[variant]
    return sheet
