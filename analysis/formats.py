"""A table as Markdown and as LaTeX (booktabs); whatever stands in a cell is shown as text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_LATEX = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\0": "{}",
    "`": r"\textasciigrave{}",
    "'": r"\textquotesingle{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": "$|$",
    "±": r"$\pm$",
    "−": r"$-$",
    "<": r"$<$",
    ">": r"$>$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "→": r"$\rightarrow$",
    "κ": r"$\kappa$",
    "χ": r"$\chi$",
    "…": r"\ldots{}",
    "–": "--",
    "—": "---",
    "“": "``",
    "”": "''",
    "‘": "`",
    "’": "'",
}
MARKDOWN = str.maketrans({character: f"\\{character}" for character in "\\|*_`<[]$&~#"})


@dataclass(frozen=True)
class Cell:
    """One place of a table.

    Args:
        text: plain.
        bold: it leads its column beyond doubt.
        sources: the rows that the number is of, by their `source` (see report.build.number_rows).
        hint: of a number that is missing, what would make it; "" for nothing to say.
    """

    text: str
    bold: bool = False
    sources: tuple[int, ...] = ()
    hint: str = ""


@dataclass(frozen=True)
class Table:
    """A table in no format yet.

    Args:
        title: one line over it.
        head: names of the columns.
        rows: cells, row by row.
        sides: "l" or "r" for each column: text stands left, numbers right.
        notes: sentences below it.
        long: may run over pages.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    sides: str
    notes: tuple[str, ...]
    long: bool = False


def to_markdown(table: Table) -> str:
    """GitHub's Markdown: title, table, notes as a list."""
    lines = [f"### {_escape_markdown(table.title)}", "", _join_markdown(_escape_markdown(name) for name in table.head)]
    lines.append(_join_markdown("--:" if side == "r" else ":--" for side in table.sides))
    for row in table.rows:
        texts = [_escape_markdown(cell.text) for cell in row]
        lines.append(
            _join_markdown(f"**{text}**" if cell.bold else text for cell, text in zip(row, texts, strict=True))
        )
    return "\n".join([*lines, "", *(f"- {_escape_markdown(note)}" for note in table.notes), ""])


def to_latex(table: Table) -> str:
    """A booktabs table, shrunk to the line (a longtable where it may run over pages), notes in its caption."""
    caption = escape_latex(" ".join([f"{table.title}.", *(note for note in table.notes)]))
    head = [r"\toprule", " & ".join(escape_latex(name) for name in table.head) + r" \\", r"\midrule"]
    body = []
    for row in table.rows:
        texts = [escape_latex(cell.text) for cell in row]
        marked = (rf"\textbf{{{text}}}" if cell.bold else text for cell, text in zip(row, texts, strict=True))
        body.append(" & ".join(marked) + r" \\")
    if table.long:
        top = [
            rf"\begin{{longtable}}{{{table.sides}}}",
            rf"\caption{{{caption}}} \\",
            *head,
            r"\endhead",
            r"\bottomrule",
        ]
        return "\n".join([*top, r"\endlastfoot", *body, r"\end{longtable}", ""])
    fit = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
    top = [r"\begin{table}", r"\centering", rf"\caption{{{caption}}}", fit, rf"\begin{{tabular}}{{{table.sides}}}"]
    return "\n".join([*top, *head, *body, r"\bottomrule", r"\end{tabular}}", r"\end{table}", ""])


def escape_latex(text: str) -> str:
    """Text that pdfLaTeX prints as it stands; a letter that its fonts lack is named by its number, [U+05D0]."""
    apart = re.sub(r"(?<=-)(?=-)|(?<=,)(?=,)", "\0", " ".join(text.split()).replace("\0", ""))  # TeX would join them
    return "".join(_LATEX.get(letter) or _name_letter(letter) for letter in apart)


def _name_letter(letter: str) -> str:
    has_glyph = " " <= letter <= "~" or ("À" <= letter <= "ÿ" and letter not in "ÐÞðþ÷")
    return letter if has_glyph else f"[U+{ord(letter):04X}]"


def _escape_markdown(text: str) -> str:
    return " ".join(text.split()).translate(MARKDOWN)


def _join_markdown(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
