"""The figures and tables of a metric over epochs, with the names of their files."""

from __future__ import annotations

import re

from analysis.captions import name_metric
from analysis.epochs.differences import compare_epochs
from analysis.epochs.figures import draw_epochs, plan_panels
from analysis.epochs.lines import EpochCurves
from analysis.epochs.tables import build_differences, build_values, tabulate_differences, tabulate_values
from analysis.report.parts import Plot, Sheet


def plot_curves(curves: EpochCurves, condition: str | None, columns: int) -> list[Plot]:
    """The figure, in pages where it has many panels.

    Args:
        curves: see read_curves.
        condition: the one that was asked for, which ends the files' names; None for none.
        columns: width, one or two columns of a page.
    """
    plots = []
    pages = plan_panels(curves, columns)
    for number, panels in enumerate(pages, start=1):
        part = f"-part-{number}" if len(pages) > 1 else ""
        stem = f"{_name_files(curves, condition)}{part}{'-one-column' * (columns == 1)}"
        title = f"{curves.suite}: {name_metric(curves.metric)} by {curves.over}{part.replace('-', ' ')}"
        figure = draw_epochs(curves, panels, columns=columns)
        plots.append(Plot(stem, title, figure, str(figure.get_label())))
    return plots


def list_curve_sheets(curves: EpochCurves, condition: str | None) -> list[Sheet]:
    """The values, and the differences of PixMIM and its base where both are there; see plot_curves."""
    stem = _name_files(curves, condition)
    sheets = [Sheet(stem, tuple(build_values(curves)), tabulate_values(curves))]
    if differences := compare_epochs(curves):
        table, numbers = build_differences(curves, differences), tabulate_differences(curves, differences)
        sheets.append(Sheet(f"{stem}-differences", (table,), numbers))
    return sheets


def _name_files(curves: EpochCurves, condition: str | None) -> str:
    words = ["curves", curves.suite, curves.metric, *(["by-radius"] if curves.over == "radius" else [])]
    words += [condition] if condition not in (None, "clean") else []
    return re.sub(r"[^A-Za-z0-9_.]+", "-", "-".join(words))
