"""Numbers that others have published, each with where it was read and how sure that is.

`confidence` is "exact" (read in the named file of a code release, or computed from it), "secondary" (quoted by somebody
else, or inferred) or "approximate". Values are per cent, AP or mIoU points as printed. They come from code releases,
not from the papers' tables; a paper's digits may differ by tenths. Of foreground overlap, some are no published ones
but independent measurements, whose source says so.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pandas as pd

NAMES = ("main_results", "robustness", "shape_bias", "foreground_overlap", "ablations")


@cache
def read_published(name: str) -> pd.DataFrame:
    """One of the published tables, by its name in NAMES. Callers leave it as it is.

    Returns:
        Columns method, backbone, epochs (Int64, empty where not stated), dataset, metric, value (float64, NaN of what
        is no number, such as a direction or a range), printed (what its source says, with all digits), source,
        confidence, note. Of foreground_overlap, `method` is the crop. main_results and shape_bias have `recipe` too,
        what a number was made with (a name in read_recipes, or one that analysis.published_protocol explains; "" where
        it is not known); ablations has `ablation` and `setting`.
    """
    rows = _read(name)
    rows.insert(list(rows.columns).index("value") + 1, "printed", rows["value"])
    values = pd.to_numeric(rows["value"], errors="coerce").astype(float)
    return rows.assign(value=values, epochs=_read_epochs(rows))


@cache
def read_recipes() -> dict[str, dict[str, str]]:
    """Recipe -> setting -> its published value, "a|b" where both are the same; settings are called as on our rows."""
    rows = _read("recipes")
    parts = rows.groupby("recipe", sort=False)
    return {str(name): dict(zip(part["setting"], part["value"], strict=True)) for name, part in parts}


@cache
def read_checkpoints() -> pd.DataFrame:
    """Public weights, whose files tell neither backbone nor epochs: name (of the file, without its ending, or timm's),
    method and backbone as in the published tables, epochs (Int64), source."""
    rows = _read("checkpoints")
    return rows.assign(epochs=_read_epochs(rows)).set_index("name")


def _read(name: str) -> pd.DataFrame:
    return pd.read_csv(Path(__file__).with_name(f"{name}.csv"), dtype=str, keep_default_na=False)


def _read_epochs(rows: pd.DataFrame) -> pd.Series:
    return pd.to_numeric(rows["epochs"], errors="raise").astype("Int64")
