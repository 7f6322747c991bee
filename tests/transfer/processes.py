"""Two processes that train together, forked so that nothing is imported twice."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable

import torch


def run_in_two_processes(work: Callable[[int], None]) -> None:
    """Call work(rank) in two processes that torchrun could have started, with gloo between them."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=_join, args=(rank, port, work)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        process.kill()
    assert [process.exitcode for process in processes] == [0, 0]


def _join(rank: int, port: int, work: Callable[[int], None]) -> None:
    torch.set_num_threads(1)  # OpenMP does not survive a fork
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "test"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.distributed.init_process_group("gloo")
    work(rank)
    torch.distributed.destroy_process_group()
