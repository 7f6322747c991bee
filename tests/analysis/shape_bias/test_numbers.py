"""Shape-bias figures: who stands beside whom, and that every marker, line and cell is the number of its row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from analysis.figures import draw_shape_bias
from analysis.run import main
from analysis.shape_bias.figures import draw_against_accuracy, draw_bias
from analysis.shape_bias.matrix import draw_consistency
from analysis.shape_bias.numbers import ShapeBias, list_shape_bias
from pixmim_eval.types import ResultRow
from tests.analysis.rows import build_row
from tests.analysis.test_figures import list_clipped, list_overlaps, measure_texts

Frame = Callable[[list[ResultRow]], pd.DataFrame]
SIXTEEN = (
    *("airplane", "bear", "bicycle", "bird", "boat", "bottle", "car", "cat"),
    *("chair", "clock", "dog", "elephant", "keyboard", "knife", "oven", "truck"),
)
FEW = SIXTEEN[:3]
ASKED = "average=mean;categories=16;geometry=native224;head=own;transform=ready-224"
LONG = "a_vision_transformer_base_patch16_224.fine_tuned_on_everything_there_is"


def observe(
    name: str,
    bias: float,
    method: str = "mae",
    categories: tuple[str, ...] = FEW,
    kappas: Mapping[str, float] | None = None,
    **changes: object,
) -> list[ResultRow]:
    """The rows of a model, or of an observer from files: each category a little less shape than the one before."""
    from_files = method in ("people", "trials")
    protocol = f"observers={10 if name == 'people' else 1};source=trials" if from_files else ASKED
    fields: dict[str, object] = {"model": name, "method": method, "weights_digest": f"{name}-weights", "n": 1200}
    fields |= {"suite": "shape_bias", "dataset": "trials" if from_files else "cue-conflict", "protocol": protocol}
    fields |= {"epoch": None if from_files else 800, **changes}
    rows = [build_row("cue-conflict", bias, **fields, metric="shape_bias")]
    for place, category in enumerate(categories):
        rows.append(build_row("cue-conflict", bias - place / 200, **fields, metric=f"shape_bias/{category}"))
    for other, kappa in (kappas or {}).items():
        metric = "error_consistency_people" if other == "people" else f"error_consistency/{other}"
        bounds = {"low": kappa - 0.05, "high": kappa + 0.05, "unit": "kappa"}
        rows.append(build_row("cue-conflict", kappa, **{**fields, **bounds}, metric=metric))
    return rows


def people(categories: tuple[str, ...] = FEW) -> list[ResultRow]:
    """Two persons, and both together."""
    found = {"ann": (0.9, {"bob": 0.4, "people": 0.4}), "bob": (0.98, {"ann": 0.4, "people": 0.4})}
    rows = [row for name, (bias, kappas) in found.items() for row in observe(name, bias, "people", categories, kappas)]
    return rows + observe("people", 0.95, "people", categories, {"people": 0.4})


def measure_accuracy(name: str, value: float, **changes: object) -> ResultRow:
    fields = {"model": name, "weights_digest": f"{name}-weights", "suite": "linear_probe", "dataset": "tiny-val"}
    return build_row("clean", value, **{**fields, "protocol": "probe=cached", "epoch": 800, **changes})


@pytest.fixture
def summarise(as_frame: Frame) -> Callable[[list[ResultRow]], ShapeBias]:
    def read(rows: list[ResultRow]) -> ShapeBias:
        (bias,) = list_shape_bias(as_frame(rows))
        return bias

    return read


@pytest.fixture
def everybody(summarise: Callable) -> ShapeBias:
    """Two models, a network, two persons."""
    kappas = {"net": 0.3, "ann": 0.1, "bob": 0.05, "people": 0.075}
    rows = observe("mae-800", 0.25, kappas=kappas) + observe("pixmim-mae-800", 0.35, "pixmim-mae", kappas=kappas)
    rows += observe("net", 0.2, "trials", kappas={"ann": 0.12, "bob": 0.02, "people": 0.07})
    return summarise([*rows, *people(), measure_accuracy("mae-800", 0.5), measure_accuracy("pixmim-mae-800", 0.6)])


def read_markers(figure: Figure, marker: str) -> list[tuple[float, float]]:
    """Places of a marker in the panel, by height."""
    found = [
        (float(x), float(y))
        for axes in figure.axes
        for line in axes.lines
        if line.get_marker() == marker and line.get_linestyle() == "None"
        for x, y in zip(np.asarray(line.get_xdata()), np.asarray(line.get_ydata()), strict=True)
    ]
    return sorted(found, key=lambda place: place[1])


def test_observers_from_files_stand_beside_the_models_of_the_same_categories(everybody: ShapeBias) -> None:
    assert [subject.label for subject in everybody.subjects] == ["mae-800", "pixmim-mae-800", "net"]
    assert [person.name for person in everybody.persons] == ["ann", "bob"]
    assert everybody.people is not None and everybody.people.overall is not None
    assert everybody.people.overall.value == 0.95
    assert everybody.categories == FEW
    assert everybody.observers[1].categories["bicycle"].value == pytest.approx(0.34)


def test_people_of_other_categories_stand_by_themselves(as_frame: Frame) -> None:
    shapes = observe("mae-20", 0.5, categories=("circle", "star"))
    sets = list_shape_bias(as_frame([*shapes, *people()]))
    assert [(len(bias.subjects), len(bias.persons)) for bias in sets] == [(1, 0), (0, 2)]
    assert len({bias.suffix for bias in sets}) == 2


def test_models_asked_in_different_ways_are_in_different_figures(as_frame: Frame) -> None:
    other = ASKED.replace("native224", "resize256")
    rows = observe("a", 0.3) + observe("b", 0.4, protocol=other) + people()
    sets = list_shape_bias(as_frame(rows))
    assert [[subject.label for subject in bias.subjects] for bias in sets] == [["a"], ["b"]]
    assert all(len(bias.persons) == 2 for bias in sets)


def test_the_same_files_in_two_runs_are_the_same_people(summarise: Callable) -> None:
    again = [replace(row, run="again", seed=3) for row in [*people(), *observe("net", 0.2, "trials")]]
    bias = summarise([*observe("a", 0.3), *people(), *observe("net", 0.2, "trials"), *again])
    assert [person.name for person in bias.persons] == ["ann", "bob"]
    assert [subject.label for subject in bias.subjects] == ["a", "net"]


def test_every_marker_is_its_rows_number_and_lines_are_of_all_images(everybody: ShapeBias) -> None:
    figure = draw_bias(everybody, range(3))
    for observer, marker in zip(everybody.observers, ("o", "s", "^"), strict=True):
        assert observer.overall is not None
        found = [x for x, y in read_markers(figure, marker)]
        values = [*(observer.categories[name].value for name in FEW), observer.overall.value]
        assert found == pytest.approx([100 * value for value in values])
    panel = next(axes for axes in figure.axes if axes.get_xlabel().startswith("shape"))
    assert panel.get_xlim()[0] > panel.get_xlim()[1]  # shape on the left, as everybody draws it
    uprights = {
        round(float(line.get_xdata()[0]), 9)  # type: ignore[index]
        for line in panel.lines
        if list(np.asarray(line.get_ydata())) == [0, 1]
    }
    assert uprights == {25.0, 35.0, 20.0, 95.0}
    ends = {
        tuple(np.round(segment[:, 0], 9))
        for lines in panel.collections
        if isinstance(lines, LineCollection)
        for segment in lines.get_segments()
    }
    for observer in everybody.observers:
        for found in [*observer.categories.values(), observer.overall]:
            assert found is not None
            assert (round(100 * found.low, 9), round(100 * found.high, 9)) in ends


def test_people_are_a_line_with_the_spread_of_persons(everybody: ShapeBias) -> None:
    panel = next(axes for axes in draw_bias(everybody, range(3)).axes if axes.get_xlabel().startswith("shape"))
    (line,) = [found for found in panel.lines if len(np.asarray(found.get_xdata())) == 3]
    assert np.asarray(line.get_xdata()) == pytest.approx([95, 94.5, 94])
    (band,) = [found for found in panel.collections if not isinstance(found, LineCollection)]
    edges = np.asarray(band.get_paths()[0].vertices)
    for row, bounds in enumerate(((90, 98), (89.5, 97.5), (89, 97))):
        at_row = edges[edges[:, 1] == row, 0]
        assert (at_row.min(), at_row.max()) == pytest.approx(bounds)


def test_the_legend_and_the_caption_say_overall_bias_people_and_images(everybody: ShapeBias) -> None:
    figure = draw_bias(everybody, range(3))
    texts = [text for text, *_ in measure_texts(figure)]
    assert {"mae-800: 25.0 %", "pixmim-mae-800: 35.0 %", "net: 20.0 %", "people (2): 95.0 %"} <= set(texts)
    caption = " ".join(figure.texts[0].get_text().split())
    assert "n = 1,200 images" in caption and "geometry=native224" in caption
    assert "from the least to the greatest" in caption


def test_a_category_without_decisions_has_no_marker_and_is_told(summarise: Callable) -> None:
    rows = [row for row in observe("a", 0.3) if row.metric != "shape_bias/bear"]
    bias = summarise([*rows, *people()])
    figure = draw_bias(bias, range(1))
    assert [height for _, height in read_markers(figure, "o")] == [0, 2, 3]  # two categories, and all images
    assert "no decision for shape or texture (a)" in " ".join(figure.texts[0].get_text().split())


def test_bias_against_accuracy_shows_the_models_that_have_both(everybody: ShapeBias) -> None:
    figure = draw_against_accuracy(everybody, range(3))
    assert figure is not None
    (axes,) = figure.axes
    places = [(bars[0].get_xdata()[0], bars[0].get_ydata()[0]) for bars in axes.containers]  # type: ignore[union-attr]
    assert np.ravel(places) == pytest.approx([50, 25, 60, 35])
    caption = " ".join(figure.texts[0].get_text().split())
    assert "linear_probe/top1 on tiny-val (probe=cached)" in caption
    assert "Left out, their accuracy not being measured: 1 of 3." in caption


def test_accuracies_of_one_figure_are_of_one_setting(summarise: Callable) -> None:
    robust = {"suite": "robustness", "dataset": "photos", "protocol": "head=own"}
    rows = observe("a", 0.3) + observe("b", 0.4, "x")
    chosen = [{"protocol": f"head=cached(sgd,lr={rate},wd=0,train=9);probe=cached"} for rate in (0.1, 0.2)]
    rows += [measure_accuracy("a", 0.9, **robust)]
    rows += [measure_accuracy("a", 0.5, **chosen[0]), measure_accuracy("b", 0.6, **chosen[1])]
    bias = summarise(rows)
    assert [found.accuracy.value for found in bias.observers if found.accuracy] == [0.5, 0.6]
    assert draw_against_accuracy(summarise(observe("a", 0.3)), range(1)) is None


def test_the_matrix_holds_every_kappa_on_both_sides(everybody: ShapeBias) -> None:
    (figure,) = draw_consistency(everybody)
    texts = [text.get_text() for text in figure.axes[0].texts]
    rows = {"1  mae-800": 0.3, "2  pixmim-mae-800": 0.3, "4  ann": 0.4, "6  people, among each other": 0.4}
    assert set(rows) <= set(texts)
    wanted = [*([".30", ".10", ".05", ".07"] * 2), ".30", ".30", ".12", ".02", ".07"]  # the models, the network
    wanted += [".10", ".10", ".12", ".40", ".40", ".05", ".05", ".02", ".40", ".40", ".40"]  # people, their mean
    found = [text.replace(".08", ".07") for text in texts if text.startswith(".")]  # 0.075 may round either way
    assert sorted(found) == sorted(wanted)


def test_a_network_and_people_alone_are_a_figure(summarise: Callable) -> None:
    bias = summarise([*people(), *observe("net", 0.2, "trials")])
    figures = draw_shape_bias(bias, 2)
    assert [len(figures[name]) for name in ("shape-bias", "shape-bias-accuracy", "error-consistency")] == [1, 0, 1]
    assert len(draw_shape_bias(summarise(people()), 2)["shape-bias"]) == 1


@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize(("models", "persons", "name"), [(1, 0, "mae"), (6, 10, LONG)])
def test_no_text_is_clipped_small_or_in_anothers_way(
    models: int, persons: int, name: str, columns: int, summarise: Callable
) -> None:
    names = [f"{name}_{model}" for model in range(models)]
    others = [f"subject-{person:02d}" for person in range(1, persons + 1)]
    rows = [measure_accuracy(one, 0.3 + place / 20) for place, one in enumerate(names)]
    for place, one in enumerate(names):
        rows += observe(one, 0.3 + place / 20, f"x{place}", SIXTEEN, dict.fromkeys([*others, "people"], 0.1))
    for one in others:
        rows += observe(one, 0.95, "people", SIXTEEN, dict.fromkeys({*others} - {one}, 0.33))
    figures = [figure for found in draw_shape_bias(summarise(rows), columns).values() for figure in found]
    assert len(figures) == 3
    for figure in figures:
        texts = measure_texts(figure)
        assert list_clipped(figure, texts) == []
        assert min(size for *_, size in texts) >= 7
        assert list_overlaps(texts) == []
        assert figure.get_size_inches()[1] < 9.8  # a page


def test_a_run_of_this_suite_alone_has_its_figures_and_scores(
    write_run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []
    monkeypatch.setattr("analysis.figures.save_figure", lambda figure, stem: names.append(stem.name) or [])
    run = write_run([*observe("a", 0.3, kappas={"ann": 0.1}), *people(), *observe("net", 0.2, "trials")])
    for command in ("figures", "tables"):
        assert main([command, "--runs", str(run), "--out", str(tmp_path)]) == 0
    assert names == ["shape-bias", "error-consistency"]
    scores = pd.read_csv(tmp_path / "tables" / "scores.csv")
    assert set(scores["model"]) == {"a", "net", "ann", "bob", "people"}
    text = (tmp_path / "tables" / "scores.md").read_text()
    assert text.count("### ") == 2  # the model by its protocol; people and network, all by theirs


def test_bias_over_epochs_is_a_curve_without_people(as_frame: Frame, write_run: Callable, tmp_path: Path) -> None:
    rows = [row for e in (10, 20) for row in observe(f"mae-{e}", 0.2 + e / 100, epoch=e)] + people()
    assert (
        main(["curves", "--runs", str(write_run(rows)), "--metric", "shape_bias/shape_bias", "--out", str(tmp_path)])
        == 0
    )
    numbers = pd.read_csv(tmp_path / "tables" / "curves-shape_bias-shape_bias.csv")
    assert numbers["epoch"].tolist() == [10, 20] and numbers["value"].tolist() == pytest.approx([0.3, 0.4])
    assert "Left out: 3 of unknown epoch" in (tmp_path / "tables" / "curves-shape_bias-shape_bias.md").read_text()


def test_bias_over_the_radius_of_the_target_is_a_curve(write_run: Callable, tmp_path: Path) -> None:
    rows = [row for r in (10, 20, 40) for row in observe(f"pixmim-mae-r{r}-800", 0.4 - r / 200, "pixmim-mae")]
    words = ["curves", "--runs", str(write_run(rows)), "--metric", "shape_bias/shape_bias", "--over", "radius"]
    assert main([*words, "--out", str(tmp_path)]) == 0
    numbers = pd.read_csv(tmp_path / "tables" / "curves-shape_bias-shape_bias-by-radius.csv")
    assert numbers["radius"].tolist() == [10, 20, 40]
    assert numbers["value"].tolist() == pytest.approx([0.35, 0.3, 0.2])
