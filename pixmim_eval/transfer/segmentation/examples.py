"""Images with the classes of their pixels, one after another, and what a model makes of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pixmim_eval.data.crops import resize, resize_short_side
from pixmim_eval.data.segmentation import SegmentationSet
from pixmim_eval.data.transforms import normalize
from pixmim_eval.errors import BadImageError, InputError
from pixmim_eval.extract.processes import one_thread
from pixmim_eval.extract.store import Shape
from pixmim_eval.metrics.segmentation import count_confusion, tally
from pixmim_eval.transfer.segmentation.windows import Geometry, Scorer, choose_classes, score_image
from pixmim_eval.types import Batch, Preprocessing, SuiteConfig

logger = logging.getLogger("pixmim_eval")

_AT_ONCE = 32  # images that threads work on
_READ_AT_ONCE = 16
Value = TypeVar("Value")


class Example(NamedTuple):
    """An image and its mask.

    Args:
        row: of the data set.
        image: uint8 [3, h, w], resized.
        labels: uint8 [H, W], at the size of the mask; data.segmentation.IGNORED where there is no class.
    """

    row: int
    image: Tensor
    labels: np.ndarray


class _Reader(Dataset[Any]):
    """Errors are returned, not raised: DataLoader would turn them into RuntimeErrors."""

    def __init__(self, data: SegmentationSet, geometry: Geometry) -> None:
        self.data, self.geometry = data, geometry

    def __getitems__(self, rows: np.ndarray) -> list[Example | InputError]:
        found: list[Example | InputError] = []
        for row, pair in zip(rows.tolist(), read_pairs(self.data, rows), strict=True):
            if isinstance(pair, InputError):
                found.append(pair)
            else:
                resized = resize_image(pair[0], self.geometry)
                found.append(Example(row, torch.from_numpy(resized).permute(2, 0, 1).contiguous(), pair[1]))
        return found


def read_pairs(data: SegmentationSet, rows: np.ndarray) -> list[tuple[np.ndarray, np.ndarray] | InputError]:
    """Image uint8 [H, W, 3] and labels uint8 [H, W] of each row, or what is wrong with it; read together where all are
    sound, as that is faster."""
    try:
        wanted = rows.tolist()
        return list(zip(data.manifest.source.read(wanted), data.labels.read(wanted), strict=True))
    except InputError as error:
        return [error] if len(rows) == 1 else [pair for row in rows for pair in read_pairs(data, np.array([row]))]


def resize_image(image: np.ndarray, geometry: Geometry) -> np.ndarray:
    """uint8 [H, W, 3] -> [h, w, 3] with the geometry's short side, and sides that the encoder can cut into patches."""
    resized = resize_short_side(image, geometry.short_side, geometry.interpolation)
    if geometry.crop is not None:
        return resized
    sides = [max(1, round(side / geometry.patch)) * geometry.patch for side in resized.shape[:2]]
    return resize(image, (sides[0], sides[1]), geometry.interpolation)


def read_examples(
    data: SegmentationSet, rows: np.ndarray, geometry: Geometry, config: SuiteConfig
) -> Iterator[Example]:
    """The images of these rows, in order; bad ones are left out where config.on_bad_image is "skip", with a warning.

    Raises:
        BadImageError: one cannot be decoded, and config.on_bad_image is "stop".
    """
    chunks = [rows[start : start + _READ_AT_ONCE] for start in range(0, len(rows), _READ_AT_ONCE)]
    workers = min(config.workers, len(chunks))
    # A list of arrays serves as the sampler: each goes to a worker whole.
    loader = DataLoader(
        _Reader(data, geometry),
        batch_sampler=chunks,  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=_pass_on,
    )
    for example in (example for part in loader for example in part):
        if isinstance(example, InputError):
            if config.on_bad_image != "skip" or not isinstance(example, BadImageError):
                raise example
            logger.warning("skipped: %s", example)
            continue
        yield example


def _pass_on(found: Any) -> Any:
    return found


def map_examples(
    work: Callable[[Example], Value], examples: Iterator[Example], device: torch.device
) -> Iterator[tuple[Example, Value]]:
    """Every example with what a function makes of it, in order. On the CPU each of torch's threads takes an image for
    itself: nothing that an image gives depends on which others there are."""
    if device.type != "cpu":
        yield from ((example, work(example)) for example in examples)
        return
    with one_thread() as threads, ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        while part := list(islice(examples, _AT_ONCE)):
            yield from zip(part, pool.map(work, part), strict=True)


def segment(
    example: Example, score: Scorer, geometry: Geometry, preprocessing: Preprocessing, device: str
) -> np.ndarray:
    """The class of every pixel of an example, uint8 [H, W] as its mask."""
    kind = torch.device(device).type
    with torch.inference_mode(), torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda"):
        image = normalize(example.image[None].to(device), preprocessing.mean, preprocessing.std)[0]
        scores = score_image(score, image, geometry)
    height, width = example.labels.shape
    return choose_classes(scores, (height, width))


def shrink_labels(labels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Labels at another size: uint8 [H, W] -> uint8 [h, w], of the nearest pixel."""
    if labels.shape == shape:
        return labels
    return np.array(Image.fromarray(labels).resize((shape[1], shape[0]), Image.Resampling.NEAREST))


@dataclass(frozen=True)
class TallyPass:
    """One pass of a segmenter over images: what scores need of each, kept on disk by content (see extract.store).

    Args:
        data, rows: which images; rows int64, sorted.
        score: the segmenter.
        geometry, preprocessing: how images go in.
        config: device, workers, and what to do about bad images.
        key: 16 hex digits of all that the tallies depend on.
        description: for the progress bar.
    """

    data: SegmentationSet
    rows: np.ndarray
    score: Scorer
    geometry: Geometry
    preprocessing: Preprocessing
    config: SuiteConfig
    key: str
    description: str
    kind = "segmentation"

    def shapes(self) -> dict[str, Shape]:
        """See Pass."""
        return {"tally": ((3, len(self.data.classes)), np.dtype(np.int64))}

    def prepare(self) -> None:
        """Nothing: the data set is there."""

    def run(self, rows: np.ndarray) -> Iterator[tuple[Batch, dict[str, np.ndarray]]]:
        """One image at a time, so that no number depends on the others."""
        classes, device = len(self.data.classes), self.config.device

        def work(example: Example) -> np.ndarray:
            try:
                answer = segment(example, self.score, self.geometry, self.preprocessing, device)
            except FloatingPointError as error:
                raise FloatingPointError(f"{error} in {self.data.manifest.keys[example.row]}") from error
            return tally(count_confusion(example.labels, answer, classes))

        examples = read_examples(self.data, rows, self.geometry, self.config)
        for example, found in map_examples(work, examples, torch.device(device)):
            yield mark_row(example.row), {"tally": found[None]}


def mark_row(row: int) -> Batch:
    """A batch that says of which row something is."""
    return Batch(torch.empty(0), torch.tensor([row]), torch.tensor([-1]))
