"""Training by a number of steps: an endless sequence of places, pass after pass over the rows of a data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from pixmim_eval.errors import InputError
from pixmim_eval.seeds import derive_seed


def pick_row(rows: np.ndarray, place: int, seed: int) -> int:
    """The row at a place of the sequence: every pass goes through all rows in an order of its own.

    Args:
        rows: int64 [N].
        place: from 0.
        seed: of the orders.
    """
    number, within = divmod(place, len(rows))
    return int(rows[_permute(len(rows), derive_seed(seed, "order", number))[within]])


@lru_cache(maxsize=2)
def _permute(count: int, seed: int) -> np.ndarray:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed)).numpy()


def deal_places(steps: range, *, batch: int, accumulate: int, world_size: int, rank: int) -> list[np.ndarray]:
    """The places of each micro-batch of a process, as TrainingLoader deals rows out: int64 [share] each.

    Args:
        steps: optimizer steps.
        batch: places a step, over all processes; a multiple of accumulate x world_size.
        accumulate: micro-batches a step on each process.
        world_size, rank: of this process.
    """
    share = batch // (world_size * accumulate)
    starts = (step * batch + (part * world_size + rank) * share for step in steps for part in range(accumulate))
    return [np.arange(start, start + share) for start in starts]


def read_places(dataset: Dataset[Any], chunks: list[np.ndarray], workers: int, *, pin: bool) -> Iterator[Any]:
    """What a data set's __getitems__ gives for each chunk of places, in order.

    Raises:
        InputError: where it gives one: DataLoader would turn one that is raised into a RuntimeError.
    """
    loader = DataLoader(
        dataset,
        batch_sampler=_Chunks(chunks),  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=_pass_on,
        pin_memory=pin,
    )
    for found in loader:
        if isinstance(found, InputError):
            raise found
        yield found


class _Chunks:
    """A sampler of batches."""

    def __init__(self, chunks: Sequence[np.ndarray]) -> None:
        self.chunks = chunks

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.chunks)

    def __len__(self) -> int:
        return len(self.chunks)


def _pass_on(found: Any) -> Any:
    return found
