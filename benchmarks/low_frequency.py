"""The low-frequency target at 224 px on the CPU: ours beside the published code's transforms.

python -m benchmarks.low_frequency [--rounds 9] [--threads 2]
"""

from __future__ import annotations

import argparse
from functools import partial

import torch

from benchmarks.timing import print_table, time_interleaved
from benchmarks.training_step import build_step, build_task, enter_ours, make_inputs
from pretrain.targets import LowFrequency
from tests.references.low_frequency import published

RADIUS = 40
BATCH = 8  # of the training step


def compare(batch: int, rounds: int, step_milliseconds: float) -> list[list[str]]:
    """Table rows of one batch size; the last column is the share of a training step."""
    images = torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(batch))
    ours = LowFrequency(RADIUS, centre="published")
    difference = (ours(images) - published(images, RADIUS)).abs().max().item()
    calls = {"ours": partial(ours, images), "published": partial(published, images, RADIUS)}
    milliseconds = {name: 1000 * value / batch for name, value in time_interleaved(calls, rounds).items()}
    return [
        [
            name,
            str(batch),
            f"{value:.2f}",
            f"{value / milliseconds['ours']:.2f}",
            f"{100 * value / step_milliseconds:.2f} %",
            f"{difference:.0e}",
        ]
        for name, value in milliseconds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="timed calls of each, after one to warm up")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    task = build_task("mae", BATCH, torch.device("cpu"))
    step = time_interleaved({"step": build_step(enter_ours(task), *make_inputs(task), autocast=False)}, 3)["step"]
    step_milliseconds = 1000 * step / BATCH
    print(
        f"Radius {RADIUS} at 224 px, {arguments.threads} threads, torch {torch.__version__}, medians; a training step "
        f"of ViT-B/16 (batch {BATCH}, fp32) takes {step_milliseconds:.0f} ms an image"
    )
    rows = [row for batch in (8, 16, 32) for row in compare(batch, arguments.rounds, step_milliseconds)]
    header = ("target", "batch", "ms / image", "time / ours", "of a training step", "largest difference")
    print_table(header, rows)


if __name__ == "__main__":
    main()
