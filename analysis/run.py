"""Turns result rows into figures and tables: python -m analysis.run figures|tables --runs DIR …"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd

from analysis.differences import attach_hits
from analysis.figures import write_figures
from analysis.tables import write_tables
from pixmim_eval.errors import InputError
from pixmim_eval.results import read_hits, read_rows


def main(argv: list[str] | None = None) -> int:
    """Runs one command and prints the files it wrote.

    Args:
        argv: arguments without the program's name; those of the process where None.

    Returns:
        Exit code: 0 done, 2 bad input (its message, one line, is on stderr).
    """
    arguments = _parse(argv)
    try:
        rows = pd.concat([read_run(folder) for folder in arguments.runs], ignore_index=True)
        if arguments.command == "figures":
            written = write_figures(rows, arguments.out, columns=arguments.columns)
        else:
            written = write_tables(rows, arguments.out)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for path in written:
        print(path)
    return 0


def read_run(folder: Path) -> pd.DataFrame:
    """The result rows of a run folder, each with how every image fared where that is known."""
    return attach_hits(read_rows(folder), read_hits(folder))


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m analysis.run", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    figures = commands.add_parser("figures", help="robustness bars, curves and heat maps, as PNG and PDF")
    figures.add_argument("--columns", type=int, choices=(1, 2), default=2, help="width on the page (default 2)")
    tables = commands.add_parser(
        "tables", help="robustness, paired differences, published numbers, as Markdown, CSV and LaTeX"
    )
    for command in (figures, tables):
        command.add_argument(
            "--runs",
            type=Path,
            nargs="+",
            default=[Path("runs/evaluation")],
            metavar="DIR",
            help="run folders of pixmim_eval.run (default runs/evaluation)",
        )
        command.add_argument("--out", type=Path, default=Path("reports"), metavar="DIR", help="default reports")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
