"""Runs of suites without tables of their own have one that holds every number, and their commands end well."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from analysis.figures import write_figures
from analysis.run import main
from analysis.scores import build_scores, list_scores
from analysis.tables import write_tables
from pixmim_eval.types import ResultRow

Row = Callable[..., ResultRow]
SUITES = ("linear_probe", "knn", "few_shot", "finetune", "segmentation")


@pytest.mark.parametrize("suite", SUITES)
def test_a_run_of_one_suite_alone_has_scores_and_no_robustness(
    suite: str, make_row: Row, write_run: Callable, tmp_path: Path
) -> None:
    run = write_run([make_row("clean", 0.5, suite=suite), make_row("clean", 0.4, suite=suite, metric="top5")])
    for command in ("figures", "tables"):
        assert main([command, "--runs", str(run), "--out", str(tmp_path / "out")]) == 0
    assert not (tmp_path / "out" / "figures").exists()
    tables = sorted(path.name for path in (tmp_path / "out" / "tables").glob("s*"))
    assert tables == ["scores.csv", "scores.md", "scores.tex"]
    assert pd.read_csv(tmp_path / "out" / "tables" / "scores.csv")["value"].tolist() == [0.5, 0.4]


def test_other_suites_rows_change_no_robustness_figure_and_no_robustness_table(
    make_row: Row,
    make_model: Callable,
    as_frame: Callable[..., pd.DataFrame],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[list[str]] = []
    monkeypatch.setattr("analysis.figures.save_figure", lambda figure, stem: drawn[-1].append(stem.name) or [])
    plain = make_model(0.9, ["fog"], {})
    mixed = [*plain, *(make_row("clean", 0.2, suite=suite) for suite in SUITES)]
    tables = []
    for name, rows in (("plain", plain), ("mixed", mixed)):
        drawn.append([])
        frame = as_frame(rows)
        write_figures(frame, tmp_path / name)
        written = {path.name: path.read_bytes() for path in write_tables(frame, tmp_path / name)}
        tables.append({name: text for name, text in written.items() if name.startswith("robustness")})
    assert drawn[0] == drawn[1] == ["robustness", "robustness-heatmap"]
    assert tables[0] == tables[1]


def test_cells_say_value_interval_and_count(make_row: Row, as_frame: Callable[..., pd.DataFrame]) -> None:
    other = {"model": "other", "weights_digest": "b", "suite": "knn"}
    rows = [
        make_row("clean", 0.5, low=0.4, high=0.6, n=100, suite="knn"),
        make_row("clean", 0.3, low=0.25, high=0.375, n=90, metric="kappa", unit="kappa", suite="knn"),
        make_row("clean", 0.25, low=0.2, high=0.3, n=100, **other),
        make_row("clean", 0.25, metric="top1/cat", **other),
    ]
    ((suite, group),) = list_scores(as_frame(rows))
    (table,) = build_scores(suite, group)
    assert table.head == ("model", "top-1 accuracy (%)", "kappa", "n")
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["mae-small", "50.0 [40.0, 60.0]", "0.300 [0.250, 0.375]", "90–100"],
        ["other", "25.0 [20.0, 30.0]", "–", "100"],
    ]
    assert "1 more metrics, of single parts, stand in the CSV." in table.notes


def test_protocols_are_never_in_one_table(make_row: Row, as_frame: Callable[..., pd.DataFrame]) -> None:
    rows = [make_row("clean", 0.5, suite="linear_probe", protocol=f"probe={name}") for name in ("cached", "mae-90e")]
    scores = list_scores(as_frame(rows))
    assert len(scores) == 2
    assert [build_scores(*score)[0].notes[-1] for score in scores] == [
        "Protocol: probe=cached.",
        "Protocol: probe=mae-90e.",
    ]


def test_a_methods_epochs_stand_in_order_its_baseline_first(make_row: Row, as_frame: Callable) -> None:
    models = [("mae", 10), ("pixmim-mae", 10), ("mae", 5), ("pixmim-mae", 20), ("x", None), ("mae", 20)]
    rows = [
        make_row("clean", 0.5, suite="knn", model=f"{method}-{epoch}", method=method, epoch=epoch)
        for method, epoch in models
    ]
    ((suite, group),) = list_scores(as_frame(rows))
    (table,) = build_scores(suite, group)
    names = ["mae-5", "mae-10", "pixmim-mae-10", "mae-20", "pixmim-mae-20", "x-None"]
    assert [row[0].text for row in table.rows] == names


def test_models_of_several_epochs_are_pointed_to_curves(
    make_row: Row, write_run: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run = write_run([make_row("clean", 0.5, suite="knn", epoch=epoch, model=f"mae-{epoch}") for epoch in (5, 10)])
    assert main(["figures", "--runs", str(run), "--out", str(tmp_path)]) == 0
    assert "analysis.run curves --metric knn/top1" in capsys.readouterr().err
