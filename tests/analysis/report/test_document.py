"""The report as PDF says what the report says, whatever is in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure
from pypdf import PdfReader

from analysis.formats import Cell, Table
from analysis.report.document import write_document
from analysis.report.parts import Picture, Plot, Report, Section

HOSTILE = ("<script>alert(1)</script>", '#panic("no")', r"$x$ *b* _i_ `c` @ref // \\ [a](b)", "x" * 300, "שלום")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("figures")


@pytest.fixture(scope="module")
def report(folder: Path) -> Report:
    figure = Figure(figsize=(3.4, 2))
    figure.subplots().set_axis_off()  # so that all text is the page's own
    figure.savefig(folder / "curve.pdf")
    figure.savefig(folder / "picture.png")
    rows = tuple((Cell(name), Cell(f"{place}.5 ± 0.7", bold=place == 1)) for place, name in enumerate(HOSTILE))
    long = tuple((Cell(f"model-{place}"), *(Cell(f"{place}.{column}") for column in range(14))) for place in range(80))
    tables = (
        Table("Names", ("model", "top-1 (%)"), rows, "lr", ("n = 5.", *HOSTILE)),
        Table("Many", ("model", *(f"column {place}" for place in range(14))), long, "l" + "r" * 14, (), long=True),
    )
    plot = Plot("curve", "A curve", figure, "Its caption.")
    picture = Picture("picture", "A picture", folder / "picture.png", "Of an image.")
    section = Section("first", HOSTILE[1], HOSTILE, tables, (plot,), (picture,))
    return Report("All results", HOSTILE, (section,), pd.DataFrame(), HOSTILE)


@pytest.fixture(scope="module")
def document(report: Report, folder: Path) -> Path:
    return write_document(report, folder / "report.pdf", {"curve": folder / "curve.pdf"})


def read_pages(path: Path) -> list[str]:
    """The text of each page without spaces, line ends and places where words may part."""
    texts = (page.extract_text() for page in PdfReader(path).pages)
    return ["".join(text.replace("\u200b", "").split()) for text in texts]


def test_every_text_stands_in_the_pdf_as_text(document: Path) -> None:
    text = "".join(read_pages(document))
    for name in HOSTILE[:3]:
        assert text.count("".join(name.split())) >= 5  # text, problem, section's text, cell, note
    assert text.count("x" * 300) == 5
    for said in ("Allresults", "Acurve", "Apicture", "Ofanimage.", "n=5.", "1.5±0.7", "model-79"):
        assert said in text
    for place in range(80):
        assert f"model-{place}{place}.0{place}.1" in text


def test_the_caption_of_a_plot_is_in_its_file_and_is_what_a_screen_reader_says(document: Path) -> None:
    assert "Itscaption." not in "".join(read_pages(document))
    alternatives: list[str] = []

    def walk(node: Any) -> None:
        node = node.get_object()
        if isinstance(node, list):
            for child in node:
                walk(child)
        elif isinstance(node, dict) and "/K" in node:
            alternatives.extend([str(node["/Alt"])] if "/Alt" in node else [])
            walk(node["/K"])

    walk(PdfReader(document).trailer["/Root"]["/StructTreeRoot"])
    assert alternatives == ["Its caption.", "Of an image."]


def test_the_head_of_a_long_table_stands_on_each_of_its_pages(document: Path) -> None:
    cut = [page for page in read_pages(document) if "model-0" in page or "model-79" in page]
    assert len(cut) == 2 and all("column0column1" in page for page in cut)


def test_nothing_runs_out_of_the_page(document: Path) -> None:
    """Every piece of text begins within the margins of A4."""
    places: list[float] = []

    def note(text: str, current: list[float], matrix: list[float], *_: object) -> None:
        if text.strip():
            places.append(matrix[4] * current[0] + matrix[5] * current[2] + current[4])

    for page in PdfReader(document).pages:
        assert [round(float(side)) for side in page.mediabox[2:]] == [595, 842]
        page.extract_text(visitor_text=note)
    assert len(places) > 100 and min(places) > 56 and max(places) < 595 - 56


def test_the_same_report_gives_the_same_bytes(report: Report, document: Path, folder: Path) -> None:
    again = write_document(report, folder / "again.pdf", {"curve": folder / "curve.pdf"})
    assert again.read_bytes() == document.read_bytes()
