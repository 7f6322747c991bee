"""The words of the command `ablation`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from analysis.ablation.arms import NAMES


def add_ablation(commands: Any) -> None:
    """Adds the parser of `ablation` to the commands of analysis.run."""
    parser = commands.add_parser(
        "ablation",
        help="pretrain and evaluate the arms of an ablation, what is missing of it, and draw it",
        description="bandwidth: the target's low-pass radius, and the plain target; crop: RRC, SRC and CC on the "
        "recipe and on DeiT III; components: target and crop, each alone and both. "
        "The same command goes on where it stopped.",
    )
    parser.add_argument("ablation", choices=NAMES)
    parser.add_argument(
        "--recipe",
        required=True,
        metavar="'NAME --FLAG …'",
        help="of pretrain.run, with its flags in quotation marks: 'mae-64px --epochs 8'",
    )
    parser.add_argument("--data", required=True, metavar="PATH", help="images, as pretrain.run takes them")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default runs/ablation-NAME")
    parser.add_argument(
        "--radii", type=float, nargs="+", default=[], metavar="R", help="bandwidth: cycles per image (default: by size)"
    )
    parser.add_argument(
        "--supervised",
        metavar="'NAME --FLAG …'",
        help="crop: the recipe that learns from labels; none for none (default: DeiT III of the same size)",
    )
    parser.add_argument(
        "--suites",
        nargs="+",
        default=["linear_probe", "knn"],
        metavar="'SUITE --FLAG …'",
        help="evaluations, each with its flags in quotation marks (default linear_probe knn)",
    )
    parser.add_argument(
        "--eval-data", nargs="+", default=[], metavar="[ROLE=]PATH", help="as pixmim_eval.run takes it (default --data)"
    )
    parser.add_argument("--dry-run", action="store_true", help="print arms, commands and an estimate of time, and stop")
    parser.add_argument(
        "--measure", action="store_true", help="with --dry-run: time some steps of recipes that never ran here"
    )
    here = parser.add_argument_group("on this machine")
    here.add_argument(
        "--jobs", type=_positive, metavar="N", help="arms side by side (default 1, with GPUs all of them)"
    )
    here.add_argument("--gpus", type=_natural, default=1, metavar="N", help="of each arm (default 1; 0: none)")
    slurm = parser.add_argument_group("on a cluster (pip install 'pixmim-eval[slurm]')")
    slurm.add_argument("--slurm", action="store_true", help="an array of jobs, one an arm")
    slurm.add_argument("--partition", metavar="NAME")
    slurm.add_argument("--account", metavar="NAME")
    slurm.add_argument("--hours", type=_hours, default=24.0, metavar="H", help="of a job, which is then requeued (24)")
    slurm.add_argument("--cpus", type=_positive, default=10, metavar="N", help="of a job (default 10)")
    slurm.add_argument(
        "--at-once", type=_positive, metavar="N", help="jobs of the array at the same time (default all)"
    )


def _hours(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, found {text}")
    return value


def _natural(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 on, found {text}")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, found {text}")
    return value
