"""The command line: what it writes, and how it fails."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.run import main
from pixmim_eval.types import ResultRow

Rows = Callable[..., list[ResultRow]]


def test_figures_of_several_runs_stand_in_one_file(
    make_model: Rows, write_run: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    first = write_run(make_model(0.9), "first")
    second = write_run(make_model(0.8, model="other", weights_digest="b", run="second"), "second")
    out = tmp_path / "reports"
    assert main(["figures", "--runs", str(first), str(second), "--out", str(out)]) == 0
    assert sorted(path.name for path in (out / "figures").iterdir()) == ["robustness.pdf", "robustness.png"]
    assert capsys.readouterr().out.splitlines() == [
        str(out / "figures" / f"robustness.{ending}") for ending in ("png", "pdf")
    ]


def test_tables_are_written_in_three_formats(make_model: Rows, write_run: Callable, tmp_path: Path) -> None:
    assert main(["tables", "--runs", str(write_run(make_model(0.9))), "--out", str(tmp_path)]) == 0
    assert sorted(path.suffix for path in (tmp_path / "tables").glob("robustness.*")) == [".csv", ".md", ".tex"]


@pytest.mark.parametrize("command", ["figures", "tables"])
def test_a_folder_without_rows_is_bad_input(command: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([command, "--runs", str(tmp_path / "nowhere"), "--out", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and "nowhere" in line
    assert not (tmp_path / command).exists()


def test_analysis_starts_without_torch() -> None:
    program = (
        "import analysis.run, sys; sys.exit(any(name in sys.modules for name in ('torch', 'timm', 'torchvision')))"
    )
    subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[2], check=True)
