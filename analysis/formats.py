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
LINE = 130  # characters of a page's line in the smallest type
LEAST, LONGEST = 10, 300  # characters: of a column of paragraphs, and of a text that makes it wider
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
    """A booktabs table with its notes below, shrunk to the line; where it may run over pages a longtable, whose longest
    texts stand in paragraphs. Notes are no part of the caption, which TeX measures as one line, of 5.7 m at most."""
    caption = rf"\caption{{{escape_latex(table.title + '.')}}}"
    columns = _size_columns(table) if table.long else list(table.sides)
    head = [r"\toprule", " & ".join(escape_latex(name) for name in table.head) + r" \\", r"\midrule"]
    body = [" & ".join(map(_to_latex_cell, row, columns)) + r" \\" for row in table.rows]
    notes = [rf"{escape_latex(note)}\par" for note in table.notes]
    if table.long:
        small = r"\scriptsize" if any(column[0] == "p" for column in columns) else r"\normalsize"
        top = [rf"\begingroup{small}", rf"\begin{{longtable}}{{{''.join(columns)}}}", rf"{caption} \\", *head]
        end = [r"\end{longtable}", r"\noindent", *notes, r"\endgroup", ""]
        return "\n".join([*top, r"\endhead", r"\bottomrule", r"\endlastfoot", *body, *end])
    fit = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
    top = [r"\begin{table}", r"\centering", caption, fit, rf"\begin{{tabular}}{{{table.sides}}}"]
    end = [r"\bottomrule", r"\end{tabular}}", r"\par\smallskip\raggedright\footnotesize", *notes, r"\end{table}", ""]
    return "\n".join([*top, *head, *body, *end])


def _to_latex_cell(cell: Cell, column: str) -> str:
    text = escape_latex(cell.text)
    text = rf"\textbf{{{text}}}" if cell.bold else text
    if column[0] != "p":
        return text
    text = re.sub(r"(/|:|\\_)", r"\1\\allowbreak{}", text)  # paths and names of settings are long words
    return rf"{{\raggedright {text}\par}}"


def _size_columns(table: Table) -> list[str]:
    """Columns of a table that may run over pages: where a line has no room for all of them, the longest texts stand in
    paragraphs, which share what the others leave."""
    lengths = [len(name) for name in table.head]
    for row in table.rows:
        lengths = [max(length, len(cell.text)) for length, cell in zip(lengths, row, strict=True)]
    room = LINE - 2 * len(lengths)
    texts = sorted((place for place, side in enumerate(table.sides) if side == "l"), key=lambda place: lengths[place])
    broken: list[int] = []
    while texts and sum(min(length, 2 * LEAST) if at in broken else length for at, length in enumerate(lengths)) > room:
        broken.append(texts.pop())
    left = max(room - sum(length for at, length in enumerate(lengths) if at not in broken), LEAST * len(broken))
    shares = {at: min(lengths[at], LONGEST) for at in broken}
    spare = left - LEAST * len(broken)
    widths = {at: (LEAST + spare * share / sum(shares.values())) / LINE for at, share in shares.items()}
    return [rf"p{{{widths[at]:.3f}\linewidth}}" if at in broken else side for at, side in enumerate(table.sides)]


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
