"""The command `compare A B`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from analysis.comparison.checkpoints import compare_checkpoints
from analysis.comparison.names import find_checkpoint
from analysis.comparison.report import write_comparison
from analysis.comparison.terminal import print_comparison
from analysis.report.build import number_rows

_WIDTH = 160  # of what is not a terminal


def add_compare(commands: Any) -> argparse.ArgumentParser:
    """Adds the command to the parsers of analysis.run, without the options that others have too."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "compare", help="two checkpoints over everything that both were measured on: what is separable and what is not"
    )
    for name in ("A", "B"):
        parser.add_argument(
            name.lower(),
            metavar=name,
            help="a model's name or its beginning, METHOD@EPOCH, digits of the weights' digest, or a checkpoint file",
        )
    return parser


def compare(rows: pd.DataFrame, a: str, b: str, out: Path, *, columns: int = 2) -> list[Path]:
    """Prints the comparison of two checkpoints and writes its page, tables and figures; see compare_checkpoints.

    Args:
        rows: of any number of runs, as read_runs gives.
        a, b: see find_checkpoint.
        out, columns: see write_comparison.

    Returns:
        The files written.

    Raises:
        InputError: as compare_checkpoints.
    """
    first, second = find_checkpoint(rows, a, where="A"), find_checkpoint(rows, b, where="B")
    kept = first.select(rows).index.union(second.select(rows).index)
    shown = number_rows(rows[rows.index.isin(kept)])
    comparison = compare_checkpoints(shown, first, second)
    console = Console()
    print_comparison(comparison, console if console.is_terminal else Console(width=_WIDTH))
    return write_comparison(comparison, shown, out, columns=columns)
