"""Objects' outlines as COCO stores them (polygons and run lengths): checked before pycocotools, in C, reads them."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask


def check_outline(outline: Any, height: int, width: int) -> str:
    """What is wrong with a COCO segmentation of an image of this size; "" where it can be decoded.

    Polygons need three corners, finite and within one image side of the image: pycocotools takes memory by their
    length. Run lengths must be of this size, and add up to it.
    """
    if isinstance(outline, list):
        if not outline:
            return "no polygon"
        return next((wrong for polygon in outline if (wrong := _check_polygon(polygon, height, width))), "")
    if not isinstance(outline, dict) or outline.get("size") != [height, width]:
        return f"neither polygons nor run lengths of {width} x {height}"
    counts = outline.get("counts")
    if isinstance(counts, str):
        counts = _read_counts(counts)
    if not isinstance(counts, list) or any(type(count) is not int or count < 0 for count in counts):
        return "run lengths that are no lengths"
    return "" if sum(counts) == height * width else f"run lengths over {sum(counts)} of {height * width} pixels"


def decode_outline(outline: Any, height: int, width: int) -> np.ndarray:
    """The pixels of a checked outline, bool [height, width]; several polygons are one object."""
    return coco_mask.decode(encode_outline(outline, height, width)).astype(bool)


def encode_outline(outline: Any, height: int, width: int) -> Any:
    """A checked outline as compressed run lengths, as pycocotools takes them."""
    if isinstance(outline, list):
        return coco_mask.merge(coco_mask.frPyObjects(outline, height, width))
    if isinstance(outline["counts"], list):
        return coco_mask.frPyObjects(outline, height, width)
    return outline


def _check_polygon(polygon: Any, height: int, width: int) -> str:
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        return "a polygon of fewer than three corners"
    if not {*map(type, polygon)} <= {int, float}:
        return "a polygon of other things than numbers"
    try:
        corners = np.array(polygon, dtype=np.float64).reshape(-1, 2)
    except OverflowError:  # JSON's integers have no limit
        return "a polygon with corners far from the image"
    middle = np.array((width / 2, height / 2))
    near = (np.abs(corners - middle) <= 3 * middle).all()
    return "" if near else "a polygon with corners far from the image"  # NaN is near nothing


def _read_counts(text: str) -> list[int] | None:
    """Run lengths from COCO's compressed string: five bits a character from 48 up, a sixth that says whether more
    follow, the last one's sign; from the third length on, less the length two before. None where it is no such string.
    """
    counts: list[int] = []
    value = shift = 0
    for code in text.encode("utf-8"):
        code -= 48
        if not 0 <= code < 64 or shift > 30:
            return None
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            if code & 16:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return None if shift else counts
