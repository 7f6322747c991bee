"""The figure of the error's spectrum shows every band of every model, and stands for a run without other suites."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.groups import split_groups
from analysis.run import main
from analysis.spectrum import draw_spectrum, read_spectrum
from pixmim_eval.errors import InputError
from pixmim_eval.types import ResultRow

Row = Callable[..., ResultRow]
PROTOCOL = "denormalised=no;lowpass_radius=5.5;masked=0.75-of-4x4;precision=float32;transform=ready-32"
MODELS = {"mae": (0.2, 0.7, 0.9), "pixmim-mae": (0.1, 0.7, 1.2)}


@pytest.fixture
def rows(make_row: Row) -> list[ResultRow]:
    """Three bands of two models, the highest first."""
    made = []
    for name, values in MODELS.items():
        fields = {"suite": "reconstruction", "protocol": PROTOCOL, "model": name, "method": name, "epoch": 5}
        fields |= {"weights_digest": name, "unit": "ratio"}
        for edge, value in reversed([*enumerate(values)]):
            metric = f"error_power/{2.5 * edge:g}-{2.5 * (edge + 1):g}"
            made.append(make_row("masked", value, metric=metric, low=value - 0.02, high=value + 0.05, **fields))
        made.append(make_row("masked", 0.4, metric="loss", low=0.3, high=0.5, **fields))
    return made


def test_every_band_is_drawn_at_its_middle_with_its_interval(
    rows: list[ResultRow], as_frame: Callable[..., pd.DataFrame]
) -> None:
    (group,) = split_groups(as_frame(rows), "reconstruction")
    figure = draw_spectrum(group)
    (axes,) = figure.axes
    curves = [line for line in axes.lines if line.get_marker() not in ("None", None, "")]
    for line, (_, values) in zip(curves, MODELS.items(), strict=True):
        np.testing.assert_allclose(line.get_xdata(), [1.25, 3.75, 6.25])
        np.testing.assert_allclose(line.get_ydata(), values)
    verticals = [line.get_xdata()[0] for line in axes.lines if list(line.get_ydata()) == [0, 1]]
    assert verticals == [5.5]
    edges = np.concatenate([band.get_paths()[0].vertices[:, 1] for band in axes.collections])
    assert edges.min() == pytest.approx(0.08) and edges.max() == pytest.approx(1.25)
    assert axes.get_ylim()[1] > 1.25


def test_a_run_of_this_suite_alone_has_its_figure_and_no_robustness_table(
    rows: list[ResultRow], write_run: Callable, tmp_path: Path
) -> None:
    run = write_run(rows)
    for command in ("figures", "tables"):
        assert main([command, "--runs", str(run), "--out", str(tmp_path / "out")]) == 0
    figures = sorted(path.name for path in (tmp_path / "out" / "figures").iterdir())
    assert figures == ["reconstruction-spectrum.pdf", "reconstruction-spectrum.png"]
    assert {path.stem for path in (tmp_path / "out" / "tables").iterdir()} == {"published"}


def test_both_suites_in_one_folder_have_their_figures(
    rows: list[ResultRow], make_model: Callable, write_run: Callable, tmp_path: Path
) -> None:
    run = write_run([*rows, *make_model(0.9, ["fog"], {})])
    assert main(["figures", "--runs", str(run), "--out", str(tmp_path)]) == 0
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == {
        "reconstruction-spectrum",
        "robustness",
        "robustness-heatmap",
    }


def test_rows_without_a_spectrum_are_bad_input(rows: list[ResultRow], as_frame: Callable[..., pd.DataFrame]) -> None:
    (group,) = split_groups(as_frame([row for row in rows if row.metric == "loss"]), "reconstruction")
    with pytest.raises(InputError, match="expected error_power/LOW-HIGH, found loss"):
        read_spectrum(group)
