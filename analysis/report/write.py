"""A report on the disk: the page, the PDF, and every table and figure as files of their own."""

from __future__ import annotations

import shutil
from pathlib import Path

from analysis.figures import save_figure
from analysis.report.document import write_document
from analysis.report.page import write_page
from analysis.report.parts import Picture, Report
from analysis.tables import write_table
from pixmim_eval.progress import progress


def write_report(report: Report, out: Path) -> list[Path]:
    """Writes index.html, report.pdf, tables/ (CSV, Markdown, LaTeX) and figures/ (PNG, PDF).

    Args:
        report: see build_report.
        out: the reports folder.

    Returns:
        The files written, the page first.
    """
    plots = [plot for section in report.sections for plot in section.plots]
    pictures = [picture for section in report.sections for picture in section.pictures]
    sheets = [sheet for section in report.sections for sheet in section.sheets]
    written = []
    with progress(description="writing the report", total=len(plots) + 2, unit="figure") as bar:
        for sheet in sheets:
            written += write_table(out / "tables" / sheet.stem, sheet.tables, sheet.numbers)
        figures = {}
        for plot in plots:
            image, document = save_figure(plot.figure, out / "figures" / plot.stem)
            figures[plot.stem] = document
            written += [image, document]
            bar.update()
        for picture in pictures:
            written += _copy_picture(picture, out / "figures")
        page = write_page(report, out / "index.html")
        bar.update()
        printed = write_document(report, out / "report.pdf", figures)
        bar.update()
    return [page, printed, *written]


def _copy_picture(picture: Picture, folder: Path) -> list[Path]:
    """The picture, and its PDF where there is one beside it, under its stem."""
    copies = []
    for path in (picture.path, picture.path.with_suffix(".pdf")):
        if path.exists():
            copy = folder / f"{picture.stem}{path.suffix}"
            copy.parent.mkdir(parents=True, exist_ok=True)
            if path.resolve() != copy.resolve():
                shutil.copyfile(path, copy)
            copies.append(copy)
    return copies
