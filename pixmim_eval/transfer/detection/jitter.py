"""What training sees of an image and its objects: large-scale jitter, and the whole image for tests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from pixmim_eval.data.coco import Objects
from pixmim_eval.data.crops import resize
from pixmim_eval.seeds import uniform


@dataclass(frozen=True)
class Crop:
    """A crop in the upper left corner of a square of S pixels.

    Args:
        image: uint8 [h, w, 3], h and w at most S.
        boxes: float32 [n, 4].
        labels: int64 [n], classes of the data set.
        masks: uint8 [n, S, S]; [n, 0, 0] of a set without masks.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    masks: np.ndarray


@dataclass(frozen=True)
class ScaleJitter:
    """Mirror an image half the time, bring its long side to a random multiple of a crop, and cut one crop out.

    Crowds are left out, and so are objects of which no pixel is left. A box is cut to the crop, and to within a pixel
    of what is left of its mask.

    Args:
        size: S, pixels a side of the crop; smaller images stay smaller.
        least, most: range of the long side, in crops.

    Source: Ghiasi et al., arXiv 2012.07177, as detectron2 has it for ViTDet: RandomFlip, ResizeScale, FixedSizeCrop
        (one random number for both axes) with recomputed boxes. Differs: masks are read at the nearest pixel, where
        detectron2 moves polygons; and boxes are the annotated ones, where it takes those of the polygons.
    """

    size: int
    least: float
    most: float

    def __call__(self, image: np.ndarray, objects: Objects, masks: np.ndarray | None, *, seed: int, index: int) -> Crop:
        """A crop that depends on (seed, index), the image and its objects alone.

        Args:
            image: uint8 [H, W, 3].
            objects: of the image.
            masks: bool [n, H, W], where there are masks.
            seed: see seeds.derive_seed.
            index: which crop.
        """
        flip, scale, place = uniform(seed, torch.tensor([index]), 3, dtype=torch.float64)[0].tolist()
        height, width = image.shape[:2]
        long_side = self.size * (self.least + scale * (self.most - self.least))
        factor = long_side / max(height, width)
        shape = (max(1, round(height * factor)), max(1, round(width * factor)))
        top, left = (round(place * max(side - self.size, 0)) for side in shape)
        high, wide = min(shape[0] - top, self.size), min(shape[1] - left, self.size)
        resized = resize(np.ascontiguousarray(image[:, ::-1]) if flip < 0.5 else image, shape, "bilinear")
        boxes = objects.boxes.copy()
        if flip < 0.5:
            boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
        boxes = boxes * np.tile([shape[1] / width, shape[0] / height], 2) - np.tile([left, top], 2)
        boxes = boxes.clip(0, np.tile([wide, high], 2))
        kept = ~objects.crowd & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        cut = np.zeros((len(boxes), 0, 0), dtype=np.uint8)
        if masks is not None:
            rows = _find_nearest(top, high, shape[0], height)
            columns = _find_nearest(left, wide, shape[1], width)
            cut = np.zeros((len(boxes), self.size, self.size), dtype=np.uint8)
            cut[:, :high, :wide] = masks[:, rows[:, None], width - 1 - columns if flip < 0.5 else columns]
            boxes, seen = _tighten(boxes, cut)
            kept &= seen
        found = resized[top : top + high, left : left + wide]
        return Crop(found, boxes[kept].astype(np.float32), objects.labels[kept], cut[kept])


def _find_nearest(start: int, count: int, resized: int, length: int) -> np.ndarray:
    """The pixels of a side of `length` that are nearest to `count` pixels from `start` on of it resized, int64."""
    middle = (start + np.arange(count) + 0.5) * (length / resized)
    return np.minimum(middle.astype(np.int64), length - 1)


def _tighten(boxes: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes cut to one pixel around the pixels of their masks, and which have any: float64 [n, 4], bool [n]."""
    bounds = np.zeros_like(boxes)
    for axis, (low, high) in ((2, (0, 2)), (1, (1, 3))):  # columns that any row has, and rows
        marked: np.ndarray = np.any(masks, axis=3 - axis)
        bounds[:, low] = marked.argmax(axis=1) - 1
        bounds[:, high] = marked.shape[1] - marked[:, ::-1].argmax(axis=1) + 1
    tight = np.concatenate((np.maximum(boxes[:, :2], bounds[:, :2]), np.minimum(boxes[:, 2:], bounds[:, 2:])), axis=1)
    seen: np.ndarray = np.any(masks, axis=(1, 2)) & np.all(tight[:, 2:] > tight[:, :2], axis=1)
    return tight, seen


def fit_image(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 [H, W, 3] with its long side at `size`. Source: ViTDet's test images, ResizeShortestEdge to 1024, 1024."""
    height, width = image.shape[:2]
    factor = size / max(height, width)
    return resize(image, (max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))), "bilinear")
