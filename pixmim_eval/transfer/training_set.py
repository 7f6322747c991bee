"""The images that a transfer is trained on, and how a batch of them is dealt out."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pixmim_eval.errors import InputError
from pixmim_eval.extract import process_rank, select_rows
from pixmim_eval.results import hash_parts
from pixmim_eval.types import ImageSource, Manifest

logger = logging.getLogger("pixmim_eval")


@dataclass(frozen=True)
class _Part:
    """Some rows of a source."""

    source: ImageSource
    rows: np.ndarray

    def read(self, rows: Sequence[int]) -> list[np.ndarray]:
        return self.source.read(self.rows[np.asarray(rows)].tolist())


def take_rows(manifest: Manifest, rows: np.ndarray) -> Manifest:
    """The part of a data set that holds these rows, with a digest of its own; all of them give the same data set.

    Args:
        manifest: the data set.
        rows: int64, sorted.
    """
    if len(rows) == len(manifest):
        return manifest
    return replace(
        manifest,
        keys=manifest.keys[rows],
        labels=manifest.labels[rows],
        digest=hash_parts(manifest.digest, rows.tobytes()),
        source=_Part(manifest.source, rows),
        blocks=None if manifest.blocks is None else manifest.blocks[rows],
    )


def select_training_set(train: Manifest, limit: int | None) -> Manifest:
    """At most `limit` images of the training set (see extract.select_rows), every one of them with a label.

    Raises:
        InputError: images without labels, or fewer than two.
    """
    chosen = take_rows(train, select_rows(train, limit))
    if len(chosen) < 2 or (chosen.labels < 0).any():
        raise InputError(
            "training set",
            expected="at least two images, all with labels",
            found=f"{len(chosen)} images, {int((chosen.labels < 0).sum())} without a label",
            where=f"{train.name}, role train",
            fix="Give a labelled data set: --data train=PATH, or raise --limit.",
        )
    return chosen


@dataclass(frozen=True)
class Division:
    """How the images of an optimizer step are dealt out.

    Args:
        batch: images a step, over all processes.
        group: images that are treated together (normalised with their own statistics, mixed in one way).
        accumulate: micro-batches a step on each process.
        split: a micro-batch is one group that the processes share; otherwise each process has whole groups.
    """

    batch: int
    group: int
    accumulate: int
    split: bool = False


def divide_batch(
    asked: int, images: int, *, group: int, processes: int, at_once: int, may_split: bool = False
) -> Division:
    """The batch that comes nearest to the one asked for, in whole groups. Where it is another, stderr says so.

    Args:
        asked: images a step.
        images: of the training set.
        group: images that are treated together; fewer where the batch is smaller.
        processes: that train together.
        at_once: images that a process takes at a time, at most (but one group at least).
        may_split: groups may be shared by processes.

    Raises:
        InputError: there are too few images for a group on each process.
    """
    size = min(asked, images)
    shares = 1 if may_split else processes
    if size < group * shares:
        even = math.lcm(2, processes) if may_split else 2
        group = size // shares // even * even
    batch = size // (group * shares) * (group * shares) if group else 0
    if not batch:
        raise InputError(
            "batch size",
            expected=f"at least two images for each of {processes} processes",
            found=f"a batch of {asked}, {images} images",
            where="training data",
            fix="Choose a larger batch or a larger data set, or fewer processes.",
        )
    groups = batch // group
    if batch != asked and process_rank()[0] == 0:
        logger.warning(
            "a batch of %d was asked for; train has %d images, dealt out %d at a time: the effective batch is %d, and "
            "the learning rate follows it",
            asked,
            images,
            group * shares,
            batch,
        )
    if groups % processes:
        return Division(batch, group, groups, split=True)
    mine = groups // processes
    parts = next(
        part for part in range(1, mine + 1) if mine % part == 0 and mine // part * group <= max(at_once, group)
    )
    return Division(batch, group, parts)
