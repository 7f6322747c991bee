"""Curves over epochs: what is one line and one panel, what PixMIM adds, and that the figure shows just that."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from analysis.epochs.differences import compare_epochs
from analysis.epochs.figures import draw_epochs, plan_panels
from analysis.epochs.lines import read_curves, strip_epoch
from analysis.epochs.tables import build_differences, build_values
from analysis.layout import STYLE
from analysis.run import main
from analysis.separability import FROM_INTERVALS, PAIRED, adjust_holm, subtract
from pixmim_eval.errors import InputError
from pixmim_eval.metrics.intervals import wilson
from pixmim_eval.metrics.paired import mcnemar
from pixmim_eval.types import ResultRow
from tests.analysis.rows import Hits, build_row, frame_outcomes, write_run
from tests.analysis.test_figures import list_clipped, list_overlaps, measure_texts

PROBE = "label_space=wordnet-100;precision=float32;transform=ready-64"
BOTH = {"mae": 0.4, "pixmim-mae": 0.45}
LONG = "a_method_of_somebody_else_with_masked_tokens_and_a_name_without_end"

Model = tuple[list[ResultRow], Hits]


def build(method: str, epoch: int | None, rate: float, images: int = 200, **changes: object) -> Model:
    """One model's row of the suite linear_probe, and how each image fared."""
    right = np.random.default_rng([len(method), epoch or 0]).random(images) < rate
    name = method if epoch is None else f"{method}-{epoch}"
    fields = {"model": name, "weights_digest": f"{name}-weights", "method": method, "epoch": epoch, "n": images}
    fields |= {"suite": "linear_probe", "protocol": PROBE, "dataset": "tiny-val"}
    condition = str(changes.pop("condition", "clean"))
    row = build_row(condition, float(right.mean()), **{**fields, **changes})
    return [row], {(condition, "top1"): right.astype(np.int8)}


@pytest.fixture
def two_methods() -> list[Model]:
    """MAE and PixMIM-MAE at three epochs, the last first."""
    return [build(method, epoch, rate + epoch / 100) for epoch in (20, 10, 5) for method, rate in BOTH.items()]


def read_lines(figure: Figure) -> list[tuple[list[float], list[float]]]:
    return [
        (list(map(float, line.get_xdata())), list(map(float, line.get_ydata())))  # type: ignore[arg-type]
        for axes in figure.axes
        for line in axes.lines
        if line.get_marker() != "None"
    ]


@pytest.mark.parametrize(
    ("model", "epoch", "stem"),
    [
        ("mae-20", 20, "mae"),
        ("mae-20:first/epoch-0020", 20, "mae:first"),
        ("mae-200:mae-20/epoch-0200@0a1b2c", 200, "mae:mae-20"),
        ("vit_small:epoch-0005", 5, "vit_small"),
        ("deit3-16", 20, "deit3-16"),
        ("mae", None, "mae"),
    ],
)
def test_a_lines_name_is_the_models_less_its_epoch(model: str, epoch: int | None, stem: str) -> None:
    assert strip_epoch(model, epoch) == stem


def test_a_line_holds_its_methods_points_by_epoch(two_methods: list[Model]) -> None:
    curves = read_curves(frame_outcomes(*two_methods), "linear_probe/top1")
    (panel,) = curves.panels
    assert [subject.label for subject in curves.subjects] == ["mae", "pixmim-mae"]
    for position, (method, line) in enumerate(zip(BOTH, panel.lines.values(), strict=True)):
        wanted = {row.epoch: row.value for (row,), _ in two_methods if row.method == method}
        assert {point.place: point.estimate.value for point in panel.lines[position].points} == wanted
        assert [point.place for point in line.points] == [5, 10, 20]
    assert curves.common["data"] == "tiny-val" and panel.title == ""


def test_data_sets_protocols_and_conditions_never_share_a_panel(two_methods: list[Model]) -> None:
    other_data = build("mae", 5, 0.3, dataset="shapes16-val", dataset_digest="ff")
    other_size = build("mae", 5, 0.3, protocol=PROBE.replace("ready-64", "ready-32"))
    frame = frame_outcomes(*two_methods, other_data, other_size)
    curves = read_curves(frame, "linear_probe/top1")
    titles = [panel.title for panel in curves.panels]
    assert [title.split(", ")[0] for title in titles] == ["tiny-val", "shapes16-val", "tiny-val"]
    assert "transform=ready-32" in titles[2] and "transform=ready-64" in titles[0]
    assert [sum(len(line.points) for line in panel.lines.values()) for panel in curves.panels] == [6, 1, 1]
    hard = frame_outcomes(*two_methods, build("mae", 5, 0.3, condition="sketch"))
    assert len(read_curves(hard, "linear_probe/top1").panels) == 1  # clean is the default
    (panel,) = read_curves(hard, "linear_probe/top1", "sketch").panels
    assert len(panel.lines[0].points) == 1


def test_what_a_head_chose_for_each_epoch_does_not_break_the_line() -> None:
    models = [build("mae", e, 0.4, protocol=f"head=probe(l2={e},pool=cls,train=9);{PROBE}") for e in (5, 10)]
    curves = read_curves(frame_outcomes(*models), "linear_probe/top1")
    assert [len(line.points) for panel in curves.panels for line in panel.lines.values()] == [2]


@pytest.mark.parametrize(
    ("change", "labels"),
    [
        ({"seed": 1}, ["mae (seed 0)", "mae (seed 1)"]),
        ({"run": "again"}, ["mae (run demo)", "mae (run again)"]),
        ({"model": "mae-5:second/epoch-0005"}, ["mae (mae)", "mae (second)"]),
    ],
)
def test_several_runs_of_a_method_are_lines_of_their_own(change: dict, labels: list[str]) -> None:
    models = [build("mae", 5, 0.4), build("mae", 5, 0.6, weights_digest="other", **change)]
    curves = read_curves(frame_outcomes(*models), "linear_probe/top1")
    assert [subject.label for subject in curves.subjects] == labels
    figure = draw_epochs(curves, curves.panels)
    assert [values for _, values in read_lines(figure)] == [[pytest.approx(100 * m[0][0].value)] for m in models]
    assert "mae (2 runs)" in [text for text, *_ in measure_texts(figure)]


def test_two_weights_at_one_place_of_a_line_are_refused() -> None:
    models = [build("mae", 5, 0.4), build("mae", 5, 0.6, weights_digest="other")]
    with pytest.raises(InputError, match=r"one value at each place, found mae-5 \(weights .*\), mae-5 \(weights other"):
        read_curves(frame_outcomes(*models), "linear_probe/top1")


def test_models_without_an_epoch_are_left_out_and_counted(two_methods: list[Model]) -> None:
    frame = frame_outcomes(*two_methods, build("supervised", None, 0.7))
    curves = read_curves(frame, "linear_probe/top1")
    assert curves.left_out == 1
    assert "Left out: 1 of unknown epoch." in " ".join(draw_epochs(curves, curves.panels).texts[0].get_text().split())
    with pytest.raises(InputError, match="at least one with an epoch"):
        read_curves(frame_outcomes(build("supervised", None, 0.7)), "linear_probe/top1")


def test_an_unknown_metric_or_condition_lists_those_there_are(two_methods: list[Model]) -> None:
    frame = frame_outcomes(*two_methods, build("mae", 5, 0.4, suite="knn", metric="top1_k20"))
    with pytest.raises(InputError, match=re.escape("There are: knn/top1_k20, linear_probe/top1.")):
        read_curves(frame, "linear_probe/top5")
    with pytest.raises(InputError, match=r"There are: clean\."):
        read_curves(frame, "linear_probe/top1", "fog/3")


def test_the_axis_may_be_the_radius_of_the_pretraining_the_protocol_or_the_name() -> None:
    models = [build("pixmim-mae", 20, 0.4 + r / 100, model=f"pixmim-mae-20:mae-r{r}/epoch-0020") for r in (10, 5)]
    models.append(build("pixmim-mae", 20, 0.6, protocol=f"radius=2.5;{PROBE}", model="third"))
    models.append(build("mae", 20, 0.5))
    models.append(build("pixmim-mae", 20, 0.7, model="r99", pretraining="crop=src;radius=7.5;target=lowfreq"))
    curves = read_curves(frame_outcomes(*models), "linear_probe/top1", over="radius")
    (panel,) = curves.panels
    assert [point.place for point in panel.lines[0].points] == [2.5, 5, 7.5, 10]
    assert curves.left_out == 1


def test_holms_correction_is_its_definition() -> None:
    assert adjust_holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert adjust_holm([]) == []
    values = np.random.default_rng(0).random(9) ** 3
    for value, adjusted in zip(values, adjust_holm(values), strict=True):
        smaller = sorted(values)[: sorted(values).index(value) + 1]
        assert adjusted == pytest.approx(min(1, max((9 - place) * one for place, one in enumerate(smaller))))


def test_a_difference_of_two_rates_has_newcombes_interval() -> None:
    found = subtract(wilson(56, 70), wilson(48, 80))  # his example: 0.2, 0.0524 to 0.3339
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def test_differences_are_paired_image_by_image_and_corrected_together(two_methods: list[Model]) -> None:
    found = compare_epochs(read_curves(frame_outcomes(*two_methods), "linear_probe/top1"))
    hits = {(row.method, row.epoch): hits["clean", "top1"] for (row,), hits in two_methods}
    assert [difference.base.place for difference in found] == [5, 10, 20]
    raw = []
    for difference, epoch in zip(found, (5, 10, 20), strict=True):
        base, other = hits["mae", epoch], hits["pixmim-mae", epoch]
        assert difference.estimate.value == pytest.approx(other.mean() - base.mean())
        assert difference.interval == PAIRED
        raw.append(mcnemar(other, base))
    assert [difference.probability for difference in found] == raw
    assert [difference.adjusted for difference in found] == pytest.approx(adjust_holm(raw))


def test_numbers_without_outcomes_are_compared_by_their_intervals(two_methods: list[Model]) -> None:
    frame = frame_outcomes(*((rows, {}) for rows, _ in two_methods))
    curves = read_curves(frame, "linear_probe/top1")
    found = compare_epochs(curves)
    assert {difference.interval for difference in found} == {FROM_INTERVALS}
    assert {difference.probability for difference in found} == {None}
    assert any(note.startswith("–: no outcomes") for note in build_differences(curves, found).notes)


def test_a_pixmim_run_is_compared_with_the_baseline_of_its_own_seed() -> None:
    models = [build(m, 5, 0.4 + s / 10, seed=s, weights_digest=f"{m}{s}") for m in BOTH for s in (0, 1)]
    found = compare_epochs(read_curves(frame_outcomes(*models), "linear_probe/top1"))
    assert [difference.labels for difference in found] == [
        (f"mae (seed {s})", f"pixmim-mae (seed {s})") for s in (0, 1)
    ]


def test_the_table_says_the_values_and_marks_what_survives_correction() -> None:
    models = [build(m, e, rate, 2000) for e in (5, 10) for m, rate in (("mae", 0.3), ("pixmim-mae", 0.3 + e / 50))]
    curves = read_curves(frame_outcomes(*models), "linear_probe/top1")
    (values,) = build_values(curves)
    assert [row[0].text for row in values.rows] == ["5", "10"] and values.head == ("epoch", "mae", "pixmim-mae")
    assert values.rows[0][1].text.startswith(f"{100 * models[0][0][0].value:.1f} [")
    table = build_differences(curves, compare_epochs(curves))
    assert [row[-1].text for row in table.rows] == ["yes", "yes"]
    assert all(row[4].bold for row in table.rows)


def test_the_figure_shows_every_point_and_bound(two_methods: list[Model]) -> None:
    curves = read_curves(frame_outcomes(*two_methods), "linear_probe/top1")
    figure = draw_epochs(curves, curves.panels)
    rows = {(row.method, row.epoch): row for (row,), _ in two_methods}
    drawn = read_lines(figure)
    assert [places for places, _ in drawn] == [[5, 10, 20]] * 2
    for (_, values), method in zip(drawn, BOTH, strict=True):
        assert values == pytest.approx([100 * rows[method, epoch].value for epoch in (5, 10, 20)])
    for band, method in zip(figure.axes[0].collections, BOTH, strict=False):
        heights = np.asarray(band.get_paths()[0].vertices)[:, 1]
        wanted = [100 * bound for epoch in (5, 10, 20) for bound in (rows[method, epoch].low, rows[method, epoch].high)]
        assert {round(float(height), 9) for height in heights} == {round(bound, 9) for bound in wanted}
    ends = [text.get_text() for text in figure.axes[0].texts if text.get_text()]
    assert sorted(ends) == sorted(f"{100 * rows[method, 20].value:.1f}" for method in BOTH)
    base, own = (line for line in figure.axes[0].lines if line.get_marker() != "None")
    assert base.get_linestyle() == "-" and own.get_linestyle() == "--"
    hues = [matplotlib.colors.rgb_to_hsv(matplotlib.colors.to_rgb(line.get_color()))[0] for line in (base, own)]
    assert hues[0] == pytest.approx(hues[1], abs=2e-3)


@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize(
    ("methods", "epochs", "panels"),
    [(("mae",), (20,), 1), ((LONG, f"pixmim-{LONG}"), range(1, 13), 2), ([*"abcdefgh"], (100, 200, 300, 1600), 3)],
)
def test_no_text_is_clipped_small_or_in_anothers_way(methods: tuple, epochs: range, panels: int, columns: int) -> None:
    names = [f"a_long_data_set_name_that_wraps_{panel}" for panel in range(panels)]
    models = [
        build(method, epoch, 0.5 + epoch / 4000 - place / 50, dataset=name, dataset_digest=name)
        for name in names
        for place, method in enumerate(methods)
        for epoch in epochs
    ]
    curves = read_curves(frame_outcomes(*models), "linear_probe/top1")
    for page in plan_panels(curves, columns):
        figure = draw_epochs(curves, page, columns=columns)
        texts = measure_texts(figure)
        assert list_clipped(figure, texts) == []
        assert min(size for *_, size in texts) >= STYLE["font.size"]
        assert list_overlaps(texts) == []


def test_more_methods_than_colours_are_refused() -> None:
    curves = read_curves(frame_outcomes(*(build(name, 5, 0.5) for name in "abcdefghi")), "linear_probe/top1")
    with pytest.raises(InputError, match="at most 8"):
        draw_epochs(curves, curves.panels)


def test_the_command_writes_figure_values_and_differences(two_methods: list[Model], tmp_path: Path) -> None:
    runs = [str(write_run(tmp_path / f"run-{n}", rows, hits)) for n, (rows, hits) in enumerate(two_methods)]
    out = tmp_path / "out"
    assert main(["curves", "--runs", *runs, "--metric", "linear_probe/top1", "--out", str(out)]) == 0
    stem = "curves-linear_probe-top1"
    assert sorted(path.name for path in (out / "figures").iterdir()) == [f"{stem}.pdf", f"{stem}.png"]
    endings = ("csv", "md", "tex")
    names = [f"{stem}{part}.{ending}" for part in ("", "-differences") for ending in endings]
    assert sorted(path.name for path in (out / "tables").iterdir()) == sorted(names)
    numbers = pd.read_csv(out / "tables" / f"{stem}.csv").set_index(["method", "epoch"])["value"]
    for (row,), _ in two_methods:
        assert numbers[row.method, row.epoch] == row.value
    assert pd.read_csv(out / "tables" / f"{stem}-differences.csv")["holm_p"].notna().all()


def test_an_unknown_metric_is_bad_input(
    two_methods: list[Model], write_run: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run = write_run(two_methods[0][0])
    assert main(["curves", "--runs", str(run), "--metric", "knn/top1", "--out", str(tmp_path / "out")]) == 2
    assert "linear_probe/top1" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
