"""Training by a number of steps: an endless sequence of places, pass after pass over the rows of a data set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from pixmim_eval.errors import InputError
from pixmim_eval.seeds import derive_seed
from pixmim_eval.training import ImageTask
from pixmim_eval.transfer.running import IterationRecipe
from pixmim_eval.types import Manifest, Model, SuiteConfig


class EndlessTask(ImageTask):
    """A training by a number of steps, whose one epoch is all of them.

    Args:
        network: what is trained.
        model: whose normalisation it takes over.
        manifest: the training images.
        crops: gives what stands at places of the sequence, see read_places.
        config: seed and workers.
        recipe: steps, and sizes of batches.
        fabric: device and processes.
    """

    def __init__(
        self,
        network: nn.Module,
        model: Model,
        manifest: Manifest,
        crops: Dataset[Any],
        config: SuiteConfig,
        recipe: IterationRecipe,
        fabric: Any,
    ) -> None:
        self.module, self.manifest, self.preprocessing = network, manifest, model.preprocessing
        self.seed, self.device = config.seed, fabric.device
        self._crops, self._recipe, self._workers = crops, recipe, config.workers
        self._world_size, self._rank = fabric.world_size, fabric.global_rank

    @property
    def steps_per_epoch(self) -> int:
        """All of them: the data set has no epochs here."""
        return self._recipe.iterations

    def read_crops(self, first_step: int) -> Iterator[Any]:
        """What the crops give for each micro-batch from a step on."""
        chunks = deal_places(
            range(first_step, self._recipe.iterations),
            batch=self._recipe.train_batch_size,
            accumulate=self._recipe.accumulate,
            world_size=self._world_size,
            rank=self._rank,
        )
        yield from read_places(self._crops, chunks, self._workers, pin=self.device.type == "cuda")

    def build_optimizer(self, groups: list[dict[str, Any]], learning_rate: float) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.999), eps=1e-8, fused=True)


def check_batch(recipe: IterationRecipe, processes: int, *, least: int = 1) -> None:
    """Raise InputError where a batch cannot be dealt out evenly, or a step's micro-batches have fewer than `least`
    images over all processes."""
    shares, batch = processes * recipe.accumulate, recipe.train_batch_size
    wanted = max(least * recipe.accumulate, batch)
    wanted += -wanted % shares
    if batch != wanted:
        several = f", and at least {least} images a micro-batch" if least > 1 else ""
        raise InputError(
            "batch size",
            expected=f"a multiple of processes x accumulation, {shares}{several}",
            found=str(batch),
            where="--train-batch-size",
            fix=f"Take {wanted}.",
        )


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


def deal_places(steps: range, *, batch: int, accumulate: int, world_size: int, rank: int) -> Iterator[np.ndarray]:
    """The places of each micro-batch of a process, as TrainingLoader deals rows out: int64 [share] each.

    Args:
        steps: optimizer steps.
        batch: places a step, over all processes; a multiple of accumulate x world_size.
        accumulate: micro-batches a step on each process.
        world_size, rank: of this process.
    """
    share = batch // (world_size * accumulate)
    starts = (step * batch + (part * world_size + rank) * share for step in steps for part in range(accumulate))
    return (np.arange(start, start + share) for start in starts)


def read_places(dataset: Dataset[Any], chunks: Iterable[np.ndarray], workers: int, *, pin: bool) -> Iterator[Any]:
    """What a data set's __getitems__ gives for each chunk of places, in order.

    Raises:
        InputError: where it gives one: DataLoader would turn one that is raised into a RuntimeError.
    """
    loader = DataLoader(
        dataset,
        batch_sampler=chunks,  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=_pass_on,
        pin_memory=pin,
    )
    for found in loader:
        if isinstance(found, InputError):
            raise found
        yield found


def _pass_on(found: Any) -> Any:
    return found
