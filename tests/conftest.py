"""What every test can use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_DEFAULT = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of data sets that are not part of the project; the test is skipped where it is absent."""
    folder = Path(os.environ.get("PIXMIM_TEST_DATA", _DEFAULT))
    if not folder.is_dir():
        pytest.skip(f"no test data at {folder}: set PIXMIM_TEST_DATA to the folder that holds tiny_imagenet_100/ …")
    return folder
