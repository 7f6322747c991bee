"""A table with a line a class: what a mean over classes hides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pixmim_eval.files import write_atomic
from pixmim_eval.types import ResultRow

KINDS = {"iou": "IoU", "accuracy": "accuracy"}


def write_class_table(rows: Sequence[ResultRow], path: Path) -> Path:
    """Write the rows "iou/CLASS" and "accuracy/CLASS" as a Markdown table, one line a class, in the order of images.

    Args:
        rows: of one data set; a column for each model, condition and kind of number.
        path: of the file.

    Returns:
        The path.
    """
    columns: dict[tuple[str, str, str], dict[str, ResultRow]] = {}
    images: dict[str, int] = {}
    for row in rows:
        kind, slash, name = row.metric.partition("/")
        if slash and kind in KINDS:
            columns.setdefault((row.model, row.condition, kind), {})[name] = row
            images[name] = max(images.get(name, 0), row.n)
    titles = [f"{model}, {condition}: {KINDS[kind]}" for model, condition, kind in columns]
    lines = [["class", "images", *titles], ["---", *["--:"] * (len(titles) + 1)]]
    for name in sorted(images, key=lambda name: (-images[name], name)):
        cells = [_format(column.get(name)) for column in columns.values()]
        lines.append([name.replace("|", "\\|"), str(images[name]), *cells])
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    notes = (
        "Per cent [95 % interval over images]; `images` have the class in their mask, and one alone tells "
        "nothing of others. A class that is answered and never true has an IoU of 0 and no accuracy."
    )
    write_atomic(path, f"# Classes of {rows[0].dataset}\n\n{text}\n\n{notes}\n".encode())
    return path


def _format(row: ResultRow | None) -> str:
    return "–" if row is None else f"{100 * row.value:.1f} [{100 * row.low:.1f}, {100 * row.high:.1f}]"
