"""A comparison on the terminal: a verdict, a table whose marks need no colour, and what could not be compared."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.captions import format_interval, format_probability, format_value
from analysis.comparison.checkpoints import BETTER, WORSE, CheckpointComparison
from analysis.comparison.gaps import list_examples
from analysis.comparison.lines import MARKS, Line, describe_singles, describe_tests, describe_verdict, list_lines
from analysis.subjects import clean_name

_STYLES = {BETTER: "green", WORSE: "red"}
_MOST = 8  # gaps that are listed
_WIDE, _NAME = 120, 24  # letters: of a terminal that has room for every column; of a name before it is parted


def print_comparison(comparison: CheckpointComparison, console: Console) -> None:
    """Prints the verdict, every difference of the page, and what to run for what is missing."""

    def say(text: str, style: str = "") -> None:
        console.print(Text(clean_name(text), style=style), soft_wrap=True)

    say(describe_verdict(comparison), "bold")
    say(f"A: {comparison.first.describe()}; B: {comparison.second.describe()}")
    for note in comparison.notes:
        say(f"note: {note}")
    console.print(_build_table(comparison, console.width))
    say(", ".join(f"{mark} B is {verdict}" for verdict, mark in MARKS.items() if comparison.count()[verdict]))
    for sentence in (*describe_tests(comparison.differences), *describe_singles(comparison)):
        say(sentence)
    for found in comparison.contradictions[:_MOST]:
        values = ", ".join(text for text, _ in found.values)
        say(f"several values, not compared: {found.checkpoint.label}, {found.name}: {values}")
    for other in comparison.mismatches[:_MOST]:
        say(f"not the same protocol, not compared: {other.suite} (numbers: {other.numbers}): {other.describe()}")
    for lacking in comparison.missing[:_MOST]:
        numbers = f"{list_examples(lacking.conditions)}; numbers: {lacking.numbers}"
        say(f"{lacking.checkpoint.label} lacks {lacking.suite} ({numbers}){'; run' if lacking.command else ''}:")
        say(lacking.advise())
    lists = (comparison.contradictions, comparison.mismatches, comparison.missing)
    if more := sum(max(len(found) - _MOST, 0) for found in lists):
        say(f"{more} more of these stand in the page.")


def _build_table(comparison: CheckpointComparison, width: int) -> Table:
    """A line each difference under its suite; on a narrow terminal without words, sides, n and test."""
    wide = width >= _WIDE
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("number", overflow="fold", min_width=_NAME)
    for name in (*(("A", "B") if wide else ()), "B − A [95 %]", "p", "p (Holm)", *(("n",) if wide else ())):
        table.add_column(name, justify="right", no_wrap=True)
    if wide:
        table.add_column("test", no_wrap=True)
    lines = list_lines(comparison)
    for suite in dict.fromkeys(line.suite for line in lines):
        table.add_section()
        table.add_row("", Text(clean_name(suite), style="bold"))
        for line in lines:
            if line.suite == suite:
                table.add_row(*_write_line(line, wide))
    return table


def _write_line(line: Line, wide: bool) -> list[Text]:
    found = line.found
    sides = [format_value(side.value, line.unit) for side in (found.first, found.second)]
    texts = [
        line.name + (" (%)" if line.unit == "fraction" else ""),
        *(sides if wide else ()),
        format_interval(found.estimate, "+"),
        *(format_probability(value) for value in (found.probability, found.adjusted)),
        *((f"{found.estimate.n:,}", found.test) if wide else ()),
    ]
    mark = f"{line.mark} {line.verdict}" if wide else line.mark
    return [Text(mark, style=_STYLES.get(line.verdict, "")), *(Text(text) for text in texts)]
