"""How fast shapes16 renders at 64 px on one core: `python benchmarks/shapes16.py` prints one line."""

from __future__ import annotations

import time

import torch

from pixmim_eval.data.shapes16 import Shapes16Source

_IMAGES, _REPEATS = 512, 8


def measure_rate(size: int = 64) -> float:
    """Images of train a second of processor time (others may use the machine), the best of several runs of new rows."""
    torch.set_num_threads(1)
    source = Shapes16Source("train", size, seed=0)
    source.read(range(_IMAGES))  # makes grids, noise and distractors
    best = 0.0
    for repeat in range(_REPEATS):
        start = time.process_time()
        source.read(range(repeat * _IMAGES, (repeat + 1) * _IMAGES))
        best = max(best, _IMAGES / (time.process_time() - start))
    return best


if __name__ == "__main__":
    print(f"shapes16: {measure_rate():.0f} images/s at 64 px on one core (best of {_REPEATS} runs of {_IMAGES} images)")
