"""What a detector finds in images: computed once, kept on disk by content, and as COCO's results."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from pixmim_eval.data.coco import DetectionSet
from pixmim_eval.data.transforms import normalize
from pixmim_eval.errors import BadImageError, InputError
from pixmim_eval.extract.store import Shape
from pixmim_eval.transfer.detection.heads import DETECTIONS, MASK_SIDE
from pixmim_eval.transfer.detection.jitter import fit_image
from pixmim_eval.transfer.detection.network import MaskRCNN
from pixmim_eval.types import Batch, Preprocessing, SuiteConfig

logger = logging.getLogger("pixmim_eval")


@dataclass(frozen=True)
class Detections:
    """What was found in one image, best first.

    Args:
        boxes: float32 [n, 4], left, top, right, bottom in pixels of the image.
        scores: float32 [n] in [0, 1].
        labels: int64 [n], classes of the data set.
        masks: float16 [n, 28, 28] in [0, 1], of what is inside the box; None of a set without masks.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None


class _Images(Dataset[Any]):
    """Errors are returned, not raised: DataLoader would turn them into RuntimeErrors."""

    def __init__(self, data: DetectionSet, size: int) -> None:
        self.data, self.size = data, size

    def __getitem__(self, row: int) -> tuple[int, Tensor] | InputError:
        try:
            (image,) = self.data.manifest.source.read([row])
        except InputError as error:
            return error
        return row, torch.from_numpy(fit_image(image, self.size)).permute(2, 0, 1).contiguous()


@dataclass(frozen=True)
class DetectionPass:
    """One pass of a detector over images, one at a time; see extract.store.Pass.

    Args:
        data, rows: which images; rows int64, sorted.
        network: in eval mode.
        size: pixels a side of the square that images are fitted into.
        preprocessing: how they are normalised.
        config: device, workers, and what to do about bad images.
        key: 16 hex digits of all that the detections depend on.
        description: for the progress bar.
    """

    data: DetectionSet
    rows: np.ndarray
    network: MaskRCNN
    size: int
    preprocessing: Preprocessing
    config: SuiteConfig
    key: str
    description: str
    kind = "detections"

    def shapes(self) -> dict[str, Shape]:
        """See Pass; label -1 stands for no detection."""
        shapes: dict[str, Shape] = {
            "boxes": ((DETECTIONS, 4), np.dtype(np.float32)),
            "scores": ((DETECTIONS,), np.dtype(np.float32)),
            "labels": ((DETECTIONS,), np.dtype(np.int64)),
        }
        if self.data.with_masks:
            shapes["masks"] = ((DETECTIONS, MASK_SIDE, MASK_SIDE), np.dtype(np.float16))
        return shapes

    def prepare(self) -> None:
        """Nothing: the data set is there."""

    def run(self, rows: np.ndarray) -> Iterator[tuple[Batch, dict[str, np.ndarray]]]:
        """See Pass.

        Raises:
            BadImageError: an image cannot be decoded, and config.on_bad_image is "stop".
            FloatingPointError: features are not finite.
        """
        for row, image in self._read(rows):
            found = self._detect(row, image)
            outputs = {}
            for name, (shape, dtype) in self.shapes().items():
                values = np.full((1, *shape), -1 if name == "labels" else 0, dtype=dtype)
                values[0, : len(found.labels)] = getattr(found, name)
                outputs[name] = values
            yield Batch(torch.empty(0), torch.tensor([row]), torch.tensor([-1])), outputs

    def _read(self, rows: np.ndarray) -> Iterator[tuple[int, Tensor]]:
        images = _Images(self.data, self.size)
        workers = min(self.config.workers, len(rows))
        loader = DataLoader(
            images, batch_size=None, sampler=rows.tolist(), num_workers=workers, collate_fn=lambda read: read
        )
        for read in loader:
            if not isinstance(read, InputError):
                yield read
            elif self.config.on_bad_image != "skip" or not isinstance(read, BadImageError):
                raise read
            else:
                logger.warning("skipped: %s", read)

    def _detect(self, row: int, image: Tensor) -> Detections:
        kind = torch.device(self.config.device).type
        size = (image.shape[1], image.shape[2])
        with torch.inference_mode(), torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda"):
            batch = normalize(image[None].to(self.config.device), self.preprocessing.mean, self.preprocessing.std)
            batch = F.pad(batch, (0, self.size - size[1], 0, self.size - size[0]))
            (found,) = self.network.detect(batch, [size])
        height, width = self.data.sizes[row].tolist()
        scale = np.tile(np.array([width / size[1], height / size[0]]), 2)
        boxes = (found["boxes"].cpu().numpy() * scale).clip(0, [width, height, width, height]).astype(np.float32)
        kept = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        masks = found["masks"].cpu().numpy().astype(np.float16)[kept] if "masks" in found else None
        scores, labels = found["scores"].cpu().numpy()[kept], found["labels"].cpu().numpy()[kept] - 1
        return Detections(boxes[kept], scores, labels, masks)


def unpack(arrays: dict[str, np.ndarray], place: int) -> Detections:
    """The detections of one row of a stored entry."""
    kept = np.asarray(arrays["labels"][place]) >= 0
    boxes, scores, labels = (np.asarray(arrays[name][place])[kept] for name in ("boxes", "scores", "labels"))
    return Detections(boxes, scores, labels, np.asarray(arrays["masks"][place])[kept] if "masks" in arrays else None)


def to_results(data: DetectionSet, row: int, found: Detections) -> list[dict[str, Any]]:
    """Detections as COCO's JSON has them: box [left, top, width, height], and the mask as compressed run lengths.

    The number of an image is its row plus one, as DetectionSet.to_coco has it.
    """
    height, width = data.sizes[row].tolist()
    results = []
    for place, (box, score, label) in enumerate(
        zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
    ):
        left, top, right, bottom = box
        result: dict[str, Any] = {
            "image_id": row + 1,
            "category_id": int(data.categories[label]),
            "bbox": [left, top, right - left, bottom - top],
            "score": score,
        }
        if found.masks is not None:
            result["segmentation"] = encode_mask(found.masks[place], found.boxes[place], height, width)
        results.append(result)
    return results


def drop_boxes(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Results without their boxes: pycocotools takes the area of a detection, which decides whether it counts for a
    size, from its box where there is one, and it is the mask's."""
    return [{name: value for name, value in result.items() if name != "bbox"} for result in results]


def paste_mask(mask: np.ndarray, box: np.ndarray, height: int, width: int) -> tuple[np.ndarray, int, int]:
    """Where a mask is at least one half in an image: the pixels around its box, and where they lie.

    Args:
        mask: float [m, m] in [0, 1], of what is inside the box; zero outside.
        box: float [4], left, top, right, bottom in pixels.
        height, width: of the image.

    Returns:
        bool [h, w], and its top and left.

    Source: He et al. (2017) section 3; detectron2's paste_masks_in_image: bilinear at the middle of pixels.
    """
    left, top, right, bottom = box.astype(np.float64).tolist()
    y = np.arange(max(int(top) - 1, 0), min(int(np.ceil(bottom)) + 1, height))
    x = np.arange(max(int(left) - 1, 0), min(int(np.ceil(right)) + 1, width))
    rows = _interpolate((y + 0.5 - top) / (bottom - top) * len(mask) - 0.5, len(mask))
    columns = _interpolate((x + 0.5 - left) / (right - left) * len(mask) - 0.5, len(mask))
    return rows @ mask.astype(np.float64) @ columns.T >= 0.5, int(y[0]) if len(y) else 0, int(x[0]) if len(x) else 0


def _interpolate(positions: np.ndarray, length: int) -> np.ndarray:
    """Weights [n, length] of values at 0 … length - 1, and zeros around them, at positions between them."""
    return np.maximum(0, 1 - np.abs(positions[:, None] - np.arange(length)))


def encode_mask(mask: np.ndarray, box: np.ndarray, height: int, width: int) -> dict[str, Any]:
    """A pasted mask as compressed run lengths of the whole image, of which no pixel is made."""
    pixels, top, left = paste_mask(mask, box, height, width)
    edges = np.diff(np.pad(pixels.T.astype(np.int8), ((0, 0), (1, 1))), axis=1)  # column by column, as COCO has it
    column, row = np.nonzero(edges)
    places = (left + column) * height + top + row
    again = np.flatnonzero(places[1:] == places[:-1])  # a run that goes on from the foot of a column to the next's head
    places = np.delete(places, np.concatenate((again, again + 1)))
    counts = np.diff(np.concatenate(([0], places, [height * width]))).tolist()
    counts = counts if counts[-1] else counts[:-1]
    encoded = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return {"size": [height, width], "counts": encoded["counts"].decode("ascii")}
