"""Result rows as fixtures; see rows.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from analysis.run import read_run
from pixmim_eval.types import ResultRow
from tests.analysis import rows as builders


@pytest.fixture
def make_row() -> Callable[..., ResultRow]:
    """make_row(condition, value, **fields)."""
    return builders.build_row


@pytest.fixture
def make_model() -> Callable[..., list[ResultRow]]:
    """make_model(clean, corruptions, variants, **fields)."""
    return builders.build_model


@pytest.fixture
def write_run(tmp_path: Path) -> Callable[..., Path]:
    """Writes rows as a run folder: write_run(rows, "name", hits) -> its path."""
    return lambda rows, name="evaluation", hits=None: builders.write_run(tmp_path / name, rows, hits)


@pytest.fixture
def as_frame(write_run: Callable[..., Path]) -> Callable[[list[ResultRow]], pd.DataFrame]:
    """Rows as analysis reads them, through a run folder."""
    return lambda rows: read_run(write_run(rows))
