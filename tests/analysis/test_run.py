"""The command line: what it writes, and how it fails."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from analysis.run import main
from pixmim_eval.types import ResultRow
from tests.analysis.rows import build_outcomes

Rows = Callable[..., list[ResultRow]]


def test_figures_of_several_runs_stand_in_one_file(
    make_model: Rows, write_run: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    first = write_run(make_model(0.9, ["fog"], {}), "first")
    second = write_run(make_model(0.8, ["fog"], {}, model="other", weights_digest="b", run="second"), "second")
    out = tmp_path / "reports"
    assert main(["figures", "--runs", str(first), str(second), "--out", str(out)]) == 0
    written = [f"robustness{name}.{ending}" for name in ("", "-heatmap") for ending in ("png", "pdf")]
    assert sorted(path.name for path in (out / "figures").iterdir()) == sorted(written)
    assert capsys.readouterr().out.splitlines() == [str(out / "figures" / name) for name in written]


def test_tables_are_written_in_three_formats(make_model: Rows, write_run: Callable, tmp_path: Path) -> None:
    assert main(["tables", "--runs", str(write_run(make_model(0.9))), "--out", str(tmp_path)]) == 0
    assert sorted(path.suffix for path in (tmp_path / "tables").glob("robustness.*")) == [".csv", ".md", ".tex"]


def test_outcomes_in_run_folders_become_differences(write_run: Callable, tmp_path: Path) -> None:
    models = [build_outcomes(0.5 + k / 5, ("fog",), 40, k, model=f"m{k}", weights_digest=f"{k}") for k in range(2)]
    folders = [str(write_run(rows, f"run-{place}", hits)) for place, (rows, hits) in enumerate(models)]
    assert main(["tables", "--runs", *folders, "--out", str(tmp_path)]) == 0
    table = pd.read_csv(tmp_path / "tables" / "robustness-differences.csv").set_index("condition")
    clean = [hits["clean", "top1"].mean() for _, hits in models]
    assert table.loc["clean", "value"] == pytest.approx(clean[1] - clean[0])
    assert table["value"].notna().all()


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
