"""Numbers that others have published, each with where it was read and how sure that is.

`confidence` is "exact" (read in the named file of a code release, or computed from it), "secondary" (quoted by somebody
else, or inferred) or "approximate". Values are per cent, AP or mIoU points as printed. They come from code releases,
not from the papers' tables; a paper's digits may differ by tenths.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

NAMES = ("robustness", "main_results")


def read_published(name: str) -> pd.DataFrame:
    """One of the published tables, "robustness" or "main_results".

    Returns:
        Columns method, backbone, epochs (Int64, empty where not stated), dataset, metric, value (float64), printed
        (the value with the digits of its source), source, confidence, note.
    """
    path = Path(__file__).with_name(f"{name}.csv")
    rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    rows.insert(list(rows.columns).index("value") + 1, "printed", rows["value"])
    epochs = pd.to_numeric(rows["epochs"], errors="raise")
    return rows.assign(value=rows["value"].astype(float), epochs=epochs.astype("Int64"))
