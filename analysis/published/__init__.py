"""Numbers that others have published, each with where it was read and how sure that is.

`confidence` is "exact" (read in the named file of a code release, or computed from it), "secondary" (quoted by somebody
else, or inferred) or "approximate". Values are per cent, AP or mIoU points as printed. They come from code releases,
not from the papers' tables; a paper's digits may differ by tenths. Of foreground overlap, some are no published ones
but independent measurements, whose source says so.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

import pandas as pd

NAMES = ("main_results", "robustness", "shape_bias", "foreground_overlap", "ablations")


@dataclass(frozen=True)
class PublishedNumber:
    """A row of a published table that is a number; see read_published."""

    table: str
    method: str
    backbone: str
    epochs: int | None
    dataset: str
    metric: str
    value: float
    printed: str
    source: str
    confidence: str
    note: str
    recipe: str


@cache
def read_published(name: str) -> pd.DataFrame:
    """One of the published tables, by its name in NAMES. Callers leave it as it is.

    Returns:
        Columns method, backbone, epochs (Int64, empty where not stated), dataset, metric, value (float64, NaN of what
        is no number, such as a direction or a range), printed (what its source says, with all digits), source,
        confidence, note. Of foreground_overlap, `method` is the crop. main_results and shape_bias have `recipe` too,
        what a number was made with (a name in read_recipes, or one that analysis.published.protocol explains; "" where
        it is not known); ablations has `ablation` and `setting`.
    """
    rows = _read(name)
    rows.insert(list(rows.columns).index("value") + 1, "printed", rows["value"])
    values = pd.to_numeric(rows["value"], errors="coerce").astype(float)
    epochs = pd.to_numeric(rows["epochs"], errors="raise").astype("Int64")
    return rows.assign(value=values, epochs=epochs)


@cache
def list_numbers(name: str) -> tuple[PublishedNumber, ...]:
    """The numbers of a published table, in its order; `recipe` is "" where the table has none."""
    rows = read_published(name)
    rows = rows[rows["value"].notna()].assign(table=name)
    rows = rows.assign(epochs=rows["epochs"].astype(object).where(rows["epochs"].notna(), None))
    columns = [field.name for field in fields(PublishedNumber)]
    return tuple(PublishedNumber(*record) for record in rows.reindex(columns=columns, fill_value="").to_numpy())


@cache
def read_recipes() -> dict[str, dict[str, str]]:
    """Recipe -> setting -> its published value, "a|b" where both are the same; settings are called as on our rows."""
    rows = _read("recipes")
    parts = rows.groupby("recipe", sort=False)
    return {str(name): dict(zip(part["setting"], part["value"], strict=True)) for name, part in parts}


@dataclass(frozen=True)
class PublicWeights:
    """Whose weights a public file holds, as the published tables name it; epochs None where that is not stated."""

    method: str
    backbone: str
    epochs: int | None


@cache
def read_checkpoints() -> dict[str, PublicWeights]:
    """Public weights, whose files often tell neither backbone nor epochs: by their file's name less its ending, or by
    timm's name."""
    columns = ["name", "method", "backbone", "epochs"]
    return {
        name: PublicWeights(method, backbone, int(epochs) if epochs else None)
        for name, method, backbone, epochs in _read("checkpoints")[columns].to_numpy()
    }


def _read(name: str) -> pd.DataFrame:
    return pd.read_csv(Path(__file__).with_name(f"{name}.csv"), dtype=str, keep_default_na=False)
