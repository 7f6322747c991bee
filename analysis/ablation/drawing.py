"""What an ablation comes to: its rows as figure and tables, and its numbers on the terminal."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from rich.table import Table as Grid

from analysis.ablation.display import open_console
from analysis.ablation.figures import plot_ablation
from analysis.ablation.numbers import read_ablation
from analysis.ablation.plan import Plan
from analysis.ablation.tables import list_ablation_sheets
from analysis.differences import attach_hits
from analysis.figures import save_figure
from analysis.formats import Table
from analysis.report.build import number_rows
from analysis.tables import write_table
from pixmim_eval.results import RunFolder, read_hits, read_rows


def draw_plan(plan: Plan) -> list[Path]:
    """Draws the arms that were evaluated, prints their tables, and returns the files written to OUT/reports.

    Nothing where there are too few arms for any figure yet.
    """
    rows = gather_rows(plan)
    ablation = None if rows is None else read_ablation(number_rows(rows), plan.name)
    if ablation is None:
        return []
    written: list[Path] = []
    for plot in plot_ablation(ablation, 2):
        written += save_figure(plot.figure, plan.out / "reports" / "figures" / plot.stem)
    for sheet in list_ablation_sheets(ablation):
        written += write_table(plan.out / "reports" / "tables" / sheet.stem, sheet.tables, sheet.numbers)
        for table in sheet.tables:
            print_table(table)
    return written


def gather_rows(plan: Plan) -> pd.DataFrame | None:
    """The rows of all arms that have some, each with how its images fared; None where none has.

    An arm that was pretrained again with other weights, on another device, keeps the rows of the last ones alone.
    """
    parts = []
    for arm in plan.arms:
        if RunFolder(arm.evaluation).files():
            rows = attach_hits(read_rows(arm.evaluation), read_hits(arm.evaluation))
            last = rows.sort_values("time", kind="stable")["weights_digest"].iloc[-1]
            parts.append(rows[rows["weights_digest"] == last])
    return pd.concat(parts, ignore_index=True) if parts else None


def print_table(table: Table) -> None:
    """A table of numbers with its notes, on the terminal."""
    console, grid = open_console(), Grid(title=table.title)
    for name, side in zip(table.head, table.sides, strict=True):
        grid.add_column(name, justify="right" if side == "r" else "left", overflow="fold")
    for row in table.rows:
        grid.add_row(*(cell.text for cell in row))
    console.print(grid)
    for note in table.notes:
        console.print(note)
