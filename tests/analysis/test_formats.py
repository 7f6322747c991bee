"""Tables as LaTeX: whatever a name holds is printed, and never run."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from pylatexenc.latex2text import LatexNodes2Text
from pylatexenc.latexwalker import LatexWalker

from analysis.formats import Cell, Table, escape_latex, to_latex

REPORTS = Path(__file__).parents[2] / "reports" / "tables"
HOSTILE = (
    "<script>alert(1)</script>",
    r"\input{/etc/passwd} \end{tabular} \write18{ls}",
    "50% & $x_1^2$ #1 {~} | \" ' `",
    "x" * 300,
    "שלום مرحبا 模型 é ß ± − κ ≤ → …",
    "-1 -- --- ?` !` ,, << >>",
)
TABLES = [
    Table(
        "Hostile names, 5 % & more_",
        ("model", r"top-1 (%)"),
        tuple((Cell(name, bold=place % 2 == 0), Cell("81.2 ± 0.7")) for place, name in enumerate(HOSTILE)),
        "lr",
        ("n = 5.", r"\undefined"),
        long=long,
    )
    for long in (False, True)
]
TALKATIVE = Table(  # TeX measures captions as one line, of 16,383 pt at most
    "Long texts",
    ("where", "value", "why"),
    ((Cell("a/path_of/many/parts" * 5), Cell("1.0"), Cell("a reason " * 40)),) * 3,
    "lrl",
    ("a long note " * 1000,),
    long=True,
)


@pytest.mark.parametrize("name", HOSTILE)
def test_an_escaped_name_reads_as_it_stood(name: str) -> None:
    """Read back by a parser of LaTeX, but for letters that are named."""
    read = LatexNodes2Text(keep_comments=True).latex_to_text(escape_latex(name))
    expected = "".join(
        letter if ord(letter) < 256 or letter in "−κ≤→…" else f"[U+{ord(letter):04X}]" for letter in name
    )
    for typed, printed in (("−", "-"), ("…", "..."), ("^", "ˆ"), (" ", "")):
        read, expected = read.replace(typed, printed), expected.replace(typed, printed)
    assert read == expected


@pytest.mark.parametrize("table", [*TABLES, TALKATIVE], ids=["table", "longtable", "talkative"])
def test_a_parser_finds_only_what_tables_are_made_of(table: Table) -> None:
    nodes, _, length = LatexWalker(to_latex(table), tolerant_parsing=False).get_latex_nodes()
    assert length == len(to_latex(table))
    environments = [node.environmentname for node in nodes if hasattr(node, "environmentname")]
    assert environments == ["longtable" if table.long else "table"]


def test_texts_too_long_for_a_line_stand_in_columns_of_paragraphs_and_numbers_in_one_line() -> None:
    latex = to_latex(TALKATIVE)
    widths = re.fullmatch(r"p\{(0\.\d+)\\linewidth\}rp\{(0\.\d+)\\linewidth\}", _read_columns(latex))
    assert widths is not None
    path, reason = map(float, widths.groups())
    assert 0.1 < path < reason and path + reason < 1
    assert r"a/\allowbreak{}path\_\allowbreak{}of/" in latex
    assert _read_columns(to_latex(replace(TALKATIVE, rows=((Cell("a"), Cell("1.0"), Cell("b")),)))) == "lrl"


def _read_columns(latex: str) -> str:
    return latex.split(r"\begin{longtable}{")[1].splitlines()[0][:-1]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_pdflatex_compiles_every_table(tmp_path: Path) -> None:
    committed = [path.read_text(encoding="utf-8") for path in sorted(REPORTS.glob("*.tex"))]
    assert committed
    packages = "".join(rf"\usepackage{{{name}}}" for name in ("booktabs", "longtable", "graphicx"))
    body = "\n\\clearpage\n".join([*(to_latex(table) for table in (*TABLES, TALKATIVE)), *committed])
    source = rf"\documentclass{{article}}{packages}\begin{{document}}{body}\end{{document}}"
    (tmp_path / "tables.tex").write_text(source, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "tables.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Missing character" not in (tmp_path / "tables.log").read_text(errors="replace")
