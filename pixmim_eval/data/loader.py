"""From a manifest to batches: decoding in worker processes, or once into memory.

Every random choice comes from (seed, epoch, row), and a batch is a function of (epoch, step): not of workers, of the
number of processes, or of where the images are kept.
"""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pixmim_eval.data.crops import Crop, sample_flips
from pixmim_eval.data.transforms import apply_evaluation
from pixmim_eval.errors import BadImageError, InputError
from pixmim_eval.progress import progress
from pixmim_eval.seeds import derive_seed
from pixmim_eval.types import Batch, Manifest, Preprocessing

logger = logging.getLogger("pixmim_eval")

_WINDOW_BLOCKS = 8  # storage blocks that are shuffled together
_PROBED_IMAGES = 16
_DECODED_AT_ONCE = 256


def evaluation_batches(
    manifest: Manifest,
    preprocessing: Preprocessing,
    *,
    rows: np.ndarray,
    batch_size: int,
    workers: int,
    on_bad_image: str = "stop",
) -> Iterator[Batch]:
    """Images with evaluation geometry, in the order of `rows`, on the CPU.

    Args:
        manifest: the data set.
        preprocessing: of the model.
        rows: int64 [n], which rows, in which order.
        batch_size: images a batch; the last may be smaller, and so is one with skipped images.
        workers: processes that decode; 0 decodes in this one.
        on_bad_image: "stop" raises on the first; "skip" logs each and leaves it out: what is missing from the batches'
            index was skipped.

    Raises:
        BadImageError: an image cannot be decoded, and on_bad_image is "stop".
        InputError: images declared ready have another size, or on_bad_image is neither.
    """
    _check_choice("what to do with a bad image", on_bad_image, ("stop", "skip"), "--on-bad-image")
    reader = _EvaluationReader(manifest, preprocessing, skip=on_bad_image == "skip")
    yield from _read_in_order(reader, rows, batch_size, workers)


def view_batches(
    manifest: Manifest,
    crop: Crop,
    *,
    view: int,
    seed: int,
    rows: np.ndarray,
    batch_size: int,
    workers: int,
    on_bad_image: str = "stop",
) -> Iterator[Batch]:
    """Augmented images in the order of `rows`, on the CPU: each cropped and perhaps mirrored as training with this seed
    shows it in epoch `view`. Arguments and errors as evaluation_batches."""
    _check_choice("what to do with a bad image", on_bad_image, ("stop", "skip"), "--on-bad-image")
    reader = _CropReader(manifest, crop, *_derive_view_seeds(seed, view), skip=on_bad_image == "skip")
    yield from _read_in_order(reader, rows, batch_size, workers)


def _derive_view_seeds(seed: int, epoch: int) -> tuple[int, int]:
    """Of the crops and of the flips of an epoch."""
    return derive_seed(seed, "crop", epoch), derive_seed(seed, "flip", epoch)


class Change(Protocol):
    """What is done to a crop after the flip, in the process that decodes it; picklable."""

    def __call__(self, image: np.ndarray, seed: int) -> np.ndarray:
        """uint8 [S, S, 3] -> the same shape, a function of image and seed alone."""
        ...


class TrainingLoader:
    """Crops and flips for pretraining and fine-tuning, epoch by epoch.

    Step t of an epoch takes rows order[t·G : (t+1)·G] of a permutation drawn from (seed, epoch), G being the global
    batch. They are dealt out in accumulate x world_size chunks: micro-batch m of rank r is chunk m·world_size + r. Rows
    beyond the last full batch are left out of the epoch.

    Where all images have one size and fit, they are decoded once into a tensor on `device`, and cropped there in
    batches. Else worker processes decode and crop; a manifest with storage blocks is then shuffled inside windows of 8
    random blocks, so that a batch reads few of them. Otherwise both ways give the same batches, up to one grey level.

    Args:
        manifest: the data set.
        crop: what to cut out of each image.
        batch_size: global, over all ranks and micro-batches.
        world_size, rank: of this process.
        accumulate: micro-batches a step.
        seed: of the order, the crops, the flips and the changes.
        device: where batches are wanted.
        workers: processes that decode; 0 decodes in this one.
        in_memory: "auto" where possible; "yes" raises where not; "no".
        memory_budget_bytes: of the decoded images on one machine; on a GPU it is a quarter of its memory instead.
        on_bad_image: "stop" raises on the first; "skip" logs each and leaves it out of its batch.
        change: what to do to each crop besides; images are then decoded in every epoch. None for nothing.

    Raises:
        InputError: a batch larger than the data set, or that cannot be dealt out evenly; in_memory is "yes" and the
            images differ in size or do not fit.
        BadImageError: an image cannot be decoded, and on_bad_image is "stop".

    With "skip", `batches` raises InputError where no image of a micro-batch can be decoded.
    """

    def __init__(
        self,
        manifest: Manifest,
        crop: Crop,
        *,
        batch_size: int,
        world_size: int = 1,
        rank: int = 0,
        accumulate: int = 1,
        seed: int,
        device: torch.device | str = "cpu",
        workers: int = 2,
        in_memory: str = "auto",
        memory_budget_bytes: int = 8 * 2**30,
        on_bad_image: str = "stop",
        change: Change | None = None,
    ) -> None:
        _check_batch(batch_size, world_size * accumulate, len(manifest))
        _check_choice("where to keep images", in_memory, ("auto", "yes", "no"), "in_memory")
        _check_choice("what to do with a bad image", on_bad_image, ("stop", "skip"), "--on-bad-image")
        self.skip = on_bad_image == "skip"
        self.manifest, self.crop, self.seed, self.workers = manifest, crop, seed, workers
        self.change = change
        self.batch_size, self.world_size, self.rank, self.accumulate = batch_size, world_size, rank, accumulate
        self.device = torch.device(device)
        self.steps_per_epoch = len(manifest) // batch_size
        self._labels = torch.from_numpy(manifest.labels).to(self.device)
        self._decoded = np.zeros(len(manifest), dtype=bool)  # rows that are in memory
        if self.device.type == "cuda":  # not what is free: all processes must decide alike
            memory_budget_bytes = torch.cuda.get_device_properties(self.device).total_memory // 4
        else:  # every process of this machine keeps its own copy
            memory_budget_bytes //= int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        from_storage = in_memory == "no" or change is not None
        self._images = None if from_storage else self._decode_all(in_memory == "yes", memory_budget_bytes)

    def batches(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """The micro-batches of this rank, `accumulate` a step, on the device.

        Args:
            epoch: from 0.
            first_step: where to begin, for a run that goes on in the middle of an epoch.
        """
        order = self._draw_order(epoch)
        share = self.batch_size // (self.world_size * self.accumulate)
        chunks = []
        for step in range(first_step, self.steps_per_epoch):
            for micro in range(self.accumulate):
                start = step * self.batch_size + (micro * self.world_size + self.rank) * share
                chunks.append(order[start : start + share])
        seeds = _derive_view_seeds(self.seed, epoch)
        if self._images is not None:
            for chunk in chunks:
                rows = chunk[self._decoded[chunk]]
                _check_some(self.manifest, rows, chunk)
                yield self._crop_in_memory(self._images, rows, *seeds)
            return
        reader = _CropReader(self.manifest, self.crop, *seeds, skip=self.skip)
        if self.change is not None:
            reader.change, reader.change_seed = self.change, derive_seed(self.seed, "change", epoch)
        read = _read_chunks(reader, chunks, self.workers, pin=self.device.type == "cuda")
        for (images, index), chunk in zip(read, chunks, strict=True):
            _check_some(self.manifest, index, chunk)
            images, index = (tensor.to(self.device, non_blocking=True) for tensor in (images, index))
            yield Batch(images, index, self._labels[index])

    def _draw_order(self, epoch: int) -> np.ndarray:
        """The epoch's permutation, int64 [N]; by windows of storage blocks where images are read from storage."""
        permutation = _permute(len(self.manifest), derive_seed(self.seed, "order", epoch))
        if self.manifest.blocks is None or self._images is not None:
            return permutation
        blocks, codes = np.unique(self.manifest.blocks, return_inverse=True)
        places = _permute(len(blocks), derive_seed(self.seed, "blocks", epoch))
        return np.lexsort((permutation, places[codes] // _WINDOW_BLOCKS))

    def _crop_in_memory(self, images: Tensor, rows: np.ndarray, crop_seed: int, flip_seed: int) -> Batch:
        index = torch.from_numpy(rows).to(self.device)
        height, width = (torch.full_like(index, side) for side in images.shape[2:])
        boxes = self.crop.sample(height, width, seed=crop_seed, index=index)
        crops = self.crop.apply_batch(images[index], boxes, sample_flips(flip_seed, index))
        return Batch(crops, index, self._labels[index])

    def _decode_all(self, required: bool, budget: int) -> Tensor | None:
        """All images, uint8 [N, 3, H, W] on the device; None where that is neither possible nor required."""
        rows = np.arange(len(self.manifest))
        try:
            reader = _WholeReader(self.manifest, _probe_shape(self.manifest, budget, self.skip), self.skip)
            images = torch.empty((len(rows), 3, *reader.shape), dtype=torch.uint8, device=self.device)
            chunks = [rows[start : start + _DECODED_AT_ONCE] for start in range(0, len(rows), _DECODED_AT_ONCE)]
            what, quiet = f"decoding {self.manifest.name}", self.rank != 0
            with progress(description=what, total=len(rows), unit="image", quiet=quiet) as bar:
                for decoded, index in _read_chunks(reader, chunks, self.workers):
                    images[index.to(self.device)] = decoded.to(self.device)
                    self._decoded[index.numpy()] = True
                    bar.update(len(index))
        except BadImageError:
            raise
        except InputError as error:
            if required:
                raise
            logger.info("images are read from storage in every epoch: %s", error)
            return None
        return images


class _Reader(Dataset[Any], ABC):
    """Reads and prepares a chunk of rows, in a worker process or here.

    Errors are returned, not raised: DataLoader would turn them into RuntimeErrors.
    """

    def __init__(self, manifest: Manifest, skip: bool) -> None:
        self.manifest, self.skip = manifest, skip

    @abstractmethod
    def prepare(self, images: list[np.ndarray], rows: np.ndarray) -> list[np.ndarray]:
        """Images of one size, uint8 [S, S, 3] each."""

    def __getitems__(self, rows: np.ndarray) -> tuple[Tensor, Tensor, list[InputError]]:
        try:
            images, rows, bad = _read_rows(self.manifest, rows, self.skip)
            prepared = self.prepare(images, rows) if images else []
        except InputError as error:
            return torch.empty(0), torch.empty(0), [error]
        stacked = np.stack(prepared) if prepared else np.empty((0, 1, 1, 3), np.uint8)
        return torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(rows), bad


def _read_rows(
    manifest: Manifest, rows: np.ndarray, skip: bool
) -> tuple[list[np.ndarray], np.ndarray, list[InputError]]:
    """The images of these rows; where bad ones are skipped, of the good ones, and what was wrong with the others."""
    try:
        return manifest.source.read(rows.tolist()), rows, []
    except BadImageError:
        if not skip:
            raise
    images, good, bad = [], [], []
    for row in rows.tolist():
        try:
            images += manifest.source.read([row])
            good.append(row)
        except BadImageError as error:
            bad.append(error)
    return images, np.array(good, dtype=np.int64), list[InputError](bad)


class _EvaluationReader(_Reader):
    def __init__(self, manifest: Manifest, preprocessing: Preprocessing, skip: bool) -> None:
        super().__init__(manifest, skip)
        self.preprocessing = preprocessing

    def prepare(self, images: list[np.ndarray], rows: np.ndarray) -> list[np.ndarray]:
        manifest = self.manifest
        places = [f"{manifest.name}, {key}" for key in manifest.keys[rows]]
        return [
            apply_evaluation(image, self.preprocessing, manifest.ready_size, place)
            for image, place in zip(images, places, strict=True)
        ]


class _CropReader(_Reader):
    change: Change | None = None
    change_seed = 0

    def __init__(self, manifest: Manifest, crop: Crop, crop_seed: int, flip_seed: int, skip: bool) -> None:
        super().__init__(manifest, skip)
        self.crop, self.crop_seed, self.flip_seed = crop, crop_seed, flip_seed

    def prepare(self, images: list[np.ndarray], rows: np.ndarray) -> list[np.ndarray]:
        index = torch.from_numpy(rows)
        heights, widths = torch.tensor([image.shape[:2] for image in images]).unbind(1)
        boxes = self.crop.sample(heights, widths, seed=self.crop_seed, index=index).numpy()
        crops = [self.crop.apply(image, box) for image, box in zip(images, boxes, strict=True)]
        flips = sample_flips(self.flip_seed, index).tolist()
        crops = [crop[:, ::-1] if flip else crop for crop, flip in zip(crops, flips, strict=True)]
        if self.change is None:
            return crops
        seeds = [derive_seed(self.change_seed, row) for row in rows.tolist()]
        return [self.change(crop, seed) for crop, seed in zip(crops, seeds, strict=True)]


class _WholeReader(_Reader):
    def __init__(self, manifest: Manifest, shape: tuple[int, int], skip: bool) -> None:
        super().__init__(manifest, skip)
        self.shape = shape

    def prepare(self, images: list[np.ndarray], rows: np.ndarray) -> list[np.ndarray]:
        _check_sizes(self.manifest, images, rows, self.shape)
        return images


def _read_in_order(reader: _Reader, rows: np.ndarray, batch_size: int, workers: int) -> Iterator[Batch]:
    """Batches of these rows, without those whose images were all skipped."""
    chunks = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    for images, index in _read_chunks(reader, chunks, workers):
        if len(index):
            yield Batch(images, index, torch.from_numpy(reader.manifest.labels[index.numpy()]))


def _read_chunks(
    reader: _Reader, chunks: Sequence[np.ndarray], workers: int, pin: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images uint8 [b, 3, S, S] and index int64 [b] of each chunk, in order."""
    # A list of arrays serves as the sampler: each goes to a worker whole.
    loader = DataLoader(reader, batch_sampler=chunks, num_workers=workers, collate_fn=_pass_on, pin_memory=pin)  # type: ignore[arg-type]
    for images, index, bad in loader:
        for error in bad:
            if not reader.skip or not isinstance(error, BadImageError):
                raise error
            logger.warning("skipped: %s", error)
        yield images, index


def _pass_on(batch: Any) -> Any:
    return batch


def _permute(count: int, seed: int) -> np.ndarray:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed)).numpy()


def _probe_shape(manifest: Manifest, budget: int, skip: bool) -> tuple[int, int]:
    """Height and width of the images, from a few of them.

    Raises:
        InputError: they differ, or all of them together exceed the budget.
    """
    rows = np.unique(np.linspace(0, len(manifest) - 1, _PROBED_IMAGES).astype(np.int64))
    images, rows, bad = _read_rows(manifest, rows, skip)
    if not images:
        raise bad[0]
    height, width = images[0].shape[:2]
    _check_sizes(manifest, images, rows, (height, width))
    if len(manifest) * height * width * 3 > budget:
        raise InputError(
            "decoded images to be kept in memory",
            expected=f"at most {budget / 2**30:.1f} GiB",
            found=f"{len(manifest)} of {height} x {width} pixels, {len(manifest) * height * width * 3 / 2**30:.1f} GiB",
            where=manifest.name,
            fix="Read them from storage: --in-memory no.",
        )
    return height, width


def _check_sizes(manifest: Manifest, images: list[np.ndarray], rows: np.ndarray, shape: tuple[int, int]) -> None:
    for image, row in zip(images, rows, strict=True):
        if image.shape[:2] != shape:
            raise InputError(
                "size of images to be kept in memory",
                expected=f"{shape[0]} x {shape[1]} pixels",
                found=f"{image.shape[0]} x {image.shape[1]}",
                where=f"{manifest.name}, {manifest.keys[row]}",
                fix="Resize the images, or leave out the wish to keep them in memory.",
            )


def _check_some(manifest: Manifest, rows: np.ndarray | Tensor, chunk: np.ndarray) -> None:
    """Raises InputError where all images of a micro-batch were skipped: nothing can be learnt from it."""
    if not len(rows):
        raise InputError(
            "micro-batch",
            expected="an image that can be read",
            found=f"none: all {len(chunk)} were skipped",
            where=f"{manifest.name}, such as {manifest.keys[chunk[0]]}",
            fix="Take the bad images out of the data set, or train with larger micro-batches.",
        )


def _check_choice(checked: str, value: str, choices: tuple[str, ...], where: str) -> None:
    if value not in choices:
        expected = " or ".join(choices)
        raise InputError(checked, expected=expected, found=value, where=where, fix=f"Pass {expected}.")


def _check_batch(batch_size: int, shares: int, count: int) -> None:
    if batch_size < 1 or shares < 1 or batch_size % shares:
        raise InputError(
            "batch size",
            expected=f"a multiple of processes x accumulation, {shares}",
            found=str(batch_size),
            where="training data",
            fix="Choose a batch size that can be dealt out evenly.",
        )
    if batch_size > count:
        raise InputError(
            "batch size",
            expected=f"at most the number of images, {count}",
            found=str(batch_size),
            where="training data",
            fix="Choose a smaller batch size, or a larger data set.",
        )
