"""Turns result rows into a report, figures and tables: python -m analysis.run report|figures|… --runs DIR …"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis.ablation.arguments import add_ablation
from analysis.ablation.command import run_ablation
from analysis.comparison.command import add_compare, compare
from analysis.differences import attach_hits
from analysis.epochs.lines import EpochCurves, read_curves
from analysis.epochs.sheets import list_curve_sheets, plot_curves
from analysis.figures import save_figure, write_figures
from analysis.report.build import build_report, number_rows
from analysis.report.pictures import find_pictures
from analysis.report.write import write_report
from analysis.tables import write_table, write_tables
from pixmim_eval.errors import InputError
from pixmim_eval.results import read_hits, read_rows


def main(argv: list[str] | None = None) -> int:
    """Runs one command and prints the files it wrote.

    Args:
        argv: arguments without the program's name; those of the process where None.

    Returns:
        Exit code: 0 done, 2 bad input (its message, one line, is on stderr).
    """
    words = sys.argv[1:] if argv is None else argv
    arguments = _parse(words)
    try:
        if arguments.command == "ablation":
            return run_ablation(arguments, words)
        rows = read_runs(arguments.runs)
        if arguments.command == "report":
            pictures = find_pictures(rows, arguments.pictures)
            written = write_report(build_report(number_rows(rows), pictures), arguments.out)
        elif arguments.command == "figures":
            written = write_figures(rows, arguments.out, columns=arguments.columns)
            if not written and rows["epoch"].nunique() > 1:
                example = f"{rows['suite'].iloc[0]}/{rows['metric'].iloc[0]}"
                print(f"over epochs: python -m analysis.run curves --metric {example} --runs …", file=sys.stderr)
        elif arguments.command == "curves":
            curves = read_curves(rows, arguments.metric, arguments.condition, arguments.over)
            written = write_curves(curves, arguments.out, arguments.condition, columns=arguments.columns)
        elif arguments.command == "compare":
            written = compare(rows, arguments.a, arguments.b, arguments.out, columns=arguments.columns)
        else:
            written = write_tables(rows, arguments.out)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for path in written:
        print(path)
    return 0


def write_curves(curves: EpochCurves, out: Path, condition: str | None = None, *, columns: int = 2) -> list[Path]:
    """Writes the figure of a metric over epochs, in pages where it has many panels, its values, and its differences.

    Args:
        curves: see read_curves.
        out: the reports folder; files go to out/figures and out/tables.
        condition: the one that was asked for, which ends the files' names; None for none.
        columns: width of the figure, one or two columns of a page.

    Returns:
        The files written.
    """
    written = []
    for plot in plot_curves(curves, condition, columns):
        written += save_figure(plot.figure, out / "figures" / plot.stem)
    for sheet in list_curve_sheets(curves, condition):
        written += write_table(out / "tables" / sheet.stem, sheet.tables, sheet.numbers)
    return written


def read_runs(folders: Sequence[Path]) -> pd.DataFrame:
    """The result rows of some run folders, each once, with the `folder` that a row stands in; see read_run."""
    distinct = {folder.resolve(): folder for folder in reversed(folders)}
    return pd.concat(
        [read_run(folder).assign(folder=str(folder)) for folder in reversed(distinct.values())], ignore_index=True
    )


def read_run(folder: Path) -> pd.DataFrame:
    """The result rows of a run folder, each with how every image fared where that is known."""
    return attach_hits(read_rows(folder), read_hits(folder))


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m analysis.run", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    report = commands.add_parser("report", help="one page, and the same as PDF, with all tables and figures as files")
    report.add_argument(
        "--pictures",
        type=Path,
        nargs="+",
        default=[],
        metavar="PNG",
        help="to be shown besides those that suites drew into the run folders, such as a pretraining run's",
    )
    figures = commands.add_parser("figures", help="robustness bars, curves and heat maps, as PNG and PDF")
    curves = commands.add_parser(
        "curves", help="one metric over pretraining epochs, PixMIM against its base, with a table of differences"
    )
    curves.add_argument(
        "--metric", required=True, metavar="SUITE/METRIC", help="e.g. linear_probe/top1, robustness/mean_error_15"
    )
    curves.add_argument(
        "--condition", metavar="NAME", help="default: clean where the metric has it, else a panel for each condition"
    )
    curves.add_argument(
        "--over",
        choices=("epoch", "radius"),
        default="epoch",
        help="radius: of the low-pass filter, by what rows say of pretraining (else r40 in a model's name)",
    )
    comparison = add_compare(commands)
    for command in (figures, curves, comparison):
        command.add_argument("--columns", type=int, choices=(1, 2), default=2, help="width on the page (default 2)")
    tables = commands.add_parser(
        "tables", help="robustness, paired differences, scores, published numbers, as Markdown, CSV and LaTeX"
    )
    for command in (report, figures, tables, curves, comparison):
        command.add_argument(
            "--runs",
            type=Path,
            nargs="+",
            default=[Path("runs/evaluation")],
            metavar="DIR",
            help="run folders of pixmim_eval.run (default runs/evaluation)",
        )
        command.add_argument("--out", type=Path, default=Path("reports"), metavar="DIR", help="default reports")
    add_ablation(commands)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
