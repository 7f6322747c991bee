"""Several processes as one: under torchrun each takes a share and the first publishes. Threads likewise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as group
from torch import Tensor

PART = 16  # images that a thread of the CPU takes at a time, at most
# Values of images that go through a model at a time: two of 224 px, whose activations stay in a core's cache and in the
# allocator's pools. Larger parts spend a third of the time on fresh pages.
MODEL_VALUES = 2 * 3 * 224**2

Value = TypeVar("Value")


def process_rank() -> tuple[int, int]:
    """(rank, number of processes); (0, 1) where there is one."""
    if group.is_available() and group.is_initialized():
        return group.get_rank(), group.get_world_size()
    return 0, 1


def share(value: Value) -> Value:
    """The first process's value, in every process."""
    if process_rank()[1] == 1:
        return value
    box = [value]
    group.broadcast_object_list(box)
    return box[0]


def gather(value: Value) -> list[Value]:
    """The values of all processes, by rank, in every process."""
    values = [value] * process_rank()[1]
    if len(values) > 1:
        group.all_gather_object(values, value)
    return values


def wait_for_all() -> None:
    """Return when every process has come here."""
    if process_rank()[1] > 1:
        group.barrier()


@contextmanager
def one_thread() -> Iterator[int]:
    """Torch's operations use one thread inside; gives how many they used before."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def split_over_threads(
    function: Callable[[Tensor, Tensor], Value],
    images: Tensor,
    index: Tensor,
    *,
    device: torch.device,
    values: int | None = None,
) -> list[Value]:
    """What a function gives for each part of a batch, in order.

    Args:
        function: (images, index) of a part -> anything.
        images, index: the batch, [B, …] and [B].
        device: where the function works.
        values: at most so many numbers of images a part, but at least one image; None for PART images.

    On the CPU torch's threads take parts of a few images, whose activations fit a core's cache, through the whole
    function. Threads that share every operation, as torch has it by default, wait for each other a thousand times a
    batch: small models gain nothing, and where other programs use the cores they become ten times slower.
    """
    if device.type != "cpu":
        return [function(images, index)]
    part = PART if values is None else min(PART, max(1, values // images[0].numel()))
    with one_thread() as threads, ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(pool.map(function, images.split(part), index.split(part)))
