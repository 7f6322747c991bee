"""A comparison on the terminal: a verdict, a table whose marks need no colour, and what could not be compared."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.captions import format_interval, format_probability, format_value
from analysis.compare import BETTER, WORSE, CheckpointComparison
from analysis.compare_gaps import list_examples
from analysis.compare_lines import MARKS, describe_singles, describe_tests, describe_verdict, list_lines
from analysis.subjects import clean_name

_STYLES = {BETTER: "green", WORSE: "red"}
_MOST = 8  # gaps that are listed


def print_comparison(comparison: CheckpointComparison, console: Console) -> None:
    """Prints the verdict, every difference of the page, and what to run for what is missing."""

    def say(text: str, style: str = "") -> None:
        console.print(Text(clean_name(text), style=style), soft_wrap=True)

    say(describe_verdict(comparison), "bold")
    say(f"A: {comparison.first.describe()}; B: {comparison.second.describe()}")
    for note in comparison.notes:
        say(f"note: {note}")
    console.print(_build_table(comparison))
    say(", ".join(f"{mark} B is {verdict}" for verdict, mark in MARKS.items() if comparison.count()[verdict]))
    for sentence in (*describe_tests(comparison.differences), *describe_singles(comparison)):
        say(sentence)
    for found in comparison.contradictions[:_MOST]:
        values = ", ".join(text for text, _ in found.values)
        say(f"several values, not compared: {found.checkpoint.label}, {found.name}: {values}")
    for other in comparison.mismatches[:_MOST]:
        say(f"not the same protocol, not compared: {other.suite} (numbers: {other.numbers}): {other.describe()}")
    for lacking in comparison.missing[:_MOST]:
        conditions = list_examples(lacking.conditions)
        say(f"{lacking.checkpoint.label} lacks {lacking.suite} ({conditions}; numbers: {lacking.numbers}); run:")
        say(lacking.advise())
    lists = (comparison.contradictions, comparison.mismatches, comparison.missing)
    if more := sum(max(len(found) - _MOST, 0) for found in lists):
        say(f"{more} more of these stand in the page.")


def _build_table(comparison: CheckpointComparison) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("", "suite", "number"):
        table.add_column(name, overflow="fold")
    for name in ("A", "B", "B − A [95 %]", "p", "p (Holm)", "n"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("test")
    previous = ""
    for line in list_lines(comparison):
        if previous not in ("", line.suite):
            table.add_section()
        found = line.found
        values = [format_value(side.value, line.unit) for side in (found.first, found.second)]
        texts = [
            f"{line.mark} {line.verdict}",
            "" if line.suite == previous else line.suite,
            line.name + (" (%)" if line.unit == "fraction" else ""),
            *values,
            format_interval(found.estimate, "+"),
            *(format_probability(value) for value in (found.probability, found.adjusted)),
            f"{found.estimate.n:,}",
            found.test,
        ]
        style = _STYLES.get(line.verdict, "")
        table.add_row(Text(texts[0], style=style), *(Text(text) for text in texts[1:]))
        previous = line.suite
    return table
