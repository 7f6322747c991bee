"""Figures show the statistics, all of them, and nothing runs into anything else."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from fontTools import subset
from fontTools.ttLib import TTFont
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection, PolyCollection
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image
from pypdf import PdfReader

from analysis.columns import CORRUPTION_GROUPS
from analysis.differences import Comparison, compare_cells
from analysis.figures import save_figure, split_pages, split_subjects, write_figures
from analysis.groups import split_groups
from analysis.layout import STYLE, choose_looks, wrap_items, wrap_label
from analysis.robustness.bars import draw_robustness
from analysis.robustness.cells import build_maps, choose_scales
from analysis.robustness.curves import draw_curves, plan_curves
from analysis.robustness.heatmap import draw_heatmaps
from analysis.robustness.statistics import Robustness, summarise_robustness
from pixmim_eval.errors import InputError
from pixmim_eval.types import ResultRow
from tests.analysis.rows import build_outcomes, frame_outcomes

Rows = Callable[..., list[ResultRow]]
Frame = Callable[[list[ResultRow]], pd.DataFrame]
FIFTEEN = tuple(name for family in ("noise", "blur", "weather", "digital") for name in CORRUPTION_GROUPS[family])
EXTRA = CORRUPTION_GROUPS["extra"]
IMAGENET = {"cue-conflict": 0.3, "imagenet-a": 0.2, "imagenet-r": 0.4, "imagenet-sketch": 0.3}
HOSTILE = "_$x_1$ \\frac{a} <b>|&% `y`\n# new"


def list_bars(figure: Figure) -> list[float]:
    return [patch.get_height() for axes in figure.axes for patch in axes.patches if isinstance(patch, Rectangle)]


def read_curves(figure: Figure) -> dict[str, list[np.ndarray]]:
    """Title of each panel -> the heights at severities 0…5 of each model."""
    panels: dict[str, list[np.ndarray]] = {}
    for axes in figure.axes:
        curves = [line for line in axes.lines if "None" not in (line.get_marker(), line.get_linestyle())]
        titles = [text.get_text().replace("\n", " ") for text in axes.texts if text.get_text() != "severity"]
        for curve in curves:
            heights = np.asarray(curve.get_ydata(), dtype=float).reshape(-1, 7)  # a gap after each panel
            assert np.isnan(heights[:, 6]).all()
            for title, found in zip(titles, heights[:, :6], strict=True):
                panels.setdefault(title, []).append(found)
    return panels


def list_overlaps(texts: list[tuple[str, Bbox, float]]) -> list[tuple[str, str]]:
    return [
        (first[0], second[0])
        for first, second in combinations(texts, 2)
        if min(first[1].x1, second[1].x1) - max(first[1].x0, second[1].x0) > 1
        and min(first[1].y1, second[1].y1) - max(first[1].y0, second[1].y0) > 1
    ]


def list_clipped(figure: Figure, texts: list[tuple[str, Bbox, float]]) -> list[str]:
    page = figure.bbox
    return [text for text, box, _ in texts if box.x0 < 0 or box.y0 < 0 or box.x1 > page.x1 or box.y1 > page.y1]


def measure_texts(figure: Figure) -> list[tuple[str, Bbox, float]]:
    with matplotlib.rc_context(STYLE):
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw(renderer)
        texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]  # type: ignore[attr-defined]
        return [(text.get_text(), text.get_window_extent(renderer), text.get_fontsize()) for text in texts]  # type: ignore[attr-defined]


@pytest.fixture
def two_models(make_model: Rows) -> list[ResultRow]:
    own = {"model": "pixmim-mae-small", "method": "pixmim-mae", "weights_digest": "b"}
    return make_model(0.85) + make_model(0.9, **own)


@pytest.fixture
def summarise(as_frame: Frame) -> Callable[[list[ResultRow]], Robustness]:
    return lambda rows: summarise_robustness(*split_groups(as_frame(rows), "robustness"))


def test_bars_are_as_high_as_the_statistics(two_models: list[ResultRow], summarise: Callable) -> None:
    robustness = summarise(two_models)
    lines = (robustness.plain_columns, robustness.corruptions)
    shown = [column.estimates[model] for line in lines for model in range(2) for column in line]
    expected = [100 * found.value for found in shown if found]
    assert len(expected) == 2 * (1 + 1 + 4 + 6)
    assert list_bars(draw_robustness(robustness)) == pytest.approx(expected)
    assert expected[0] == pytest.approx(100 * two_models[0].value)


def test_whiskers_reach_the_bounds_of_the_interval(make_row: Callable, summarise: Callable) -> None:
    figure = draw_robustness(summarise([make_row("clean", 0.6, low=0.5, high=0.65)]))
    (axes,) = figure.axes
    whiskers = [
        bars for container in axes.containers if isinstance(container, ErrorbarContainer) for bars in container[2]
    ]
    ends = {tuple(np.round(segment[:, 1], 9)) for bars in whiskers for segment in bars.get_segments()}
    assert ends == {(50.0, 65.0)}


def test_curves_start_at_clean_and_have_gaps_where_a_severity_is_missing(make_model: Rows, summarise: Callable) -> None:
    rows = [row for row in make_model(0.8, ["fog"], {}) if row.condition != "fog/4"]
    figure = draw_robustness(summarise(rows))
    expected = [100 * next(r.value for r in rows if r.condition == c) for c in ("clean", "fog/1", "fog/2", "fog/3")]
    (heights,) = read_curves(figure)["fog"]
    assert heights[:4] == pytest.approx(expected)
    assert np.isnan(heights[4]) and np.isfinite(heights[5])


def test_what_is_missing_is_named_not_drawn_as_zero(make_model: Rows, summarise: Callable) -> None:
    rows = make_model(0.9) + make_model(0.8, variants={}, model="other", weights_digest="b")
    figure = draw_robustness(summarise(rows))
    assert [text for text, *_ in measure_texts(figure)].count("missing") == 4
    assert len(list_bars(figure)) == 2 * (1 + 1 + 6) + 4
    assert min(list_bars(figure)) > 0


def test_a_pixmim_model_has_its_baselines_hue_darker_and_hatched(two_models: list, summarise: Callable) -> None:
    base, own = choose_looks(summarise(two_models).subjects)
    assert (base.hatch, bool(own.hatch)) == ("", True)
    colours = [np.array(matplotlib.colors.rgb_to_hsv(matplotlib.colors.to_rgb(look.colour))) for look in (base, own)]
    assert colours[0][0] == pytest.approx(colours[1][0], abs=2e-3)  # a byte of each channel
    assert colours[1][2] < colours[0][2]


def test_eight_models_have_eight_colours_and_nine_are_refused(make_model: Rows, summarise: Callable) -> None:
    def make(count: int) -> Robustness:
        models = ({"model": f"m{m}", "weights_digest": f"{m}", "method": f"x{m}"} for m in range(count))
        return summarise([row for model in models for row in make_model(0.5, ["fog"], {}, **model)])

    assert len({look.colour for look in choose_looks(make(8).subjects)}) == 8
    with pytest.raises(InputError, match="at most 8, found 9"):
        draw_robustness(make(9))


def test_more_models_than_colours_go_into_several_figures(
    make_model: Rows, as_frame: Frame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = [{"model": f"m{m:02d}", "weights_digest": f"{m}", "method": f"x{m}"} for m in range(9)]
    rows = [row for place, model in enumerate(models) for row in make_model(0.5 + place / 50, ["fog"], {}, **model)]
    (group,) = split_groups(as_frame(rows), "robustness")
    pages = split_pages(group, 8)
    assert [len(page.subjects) for page in pages] == [8, 1]
    assert [subject.label for page in pages for subject in page.subjects] == [s.label for s in group.subjects]
    last = summarise_robustness(pages[1])
    whole = summarise_robustness(group)
    assert last.corruptions[0].estimates == whole.corruptions[0].estimates[8:]
    monkeypatch.setattr("analysis.figures.save_figure", lambda figure, stem: [stem])
    names = [path.name for path in write_figures(as_frame(rows), tmp_path)]
    assert names == [
        f"robustness{kind}-part-{part}" for kind, parts in (("", 2), ("-heatmap", 3)) for part in range(1, parts + 1)
    ]


@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize(
    ("models", "corruptions", "variants"),
    [(1, ("fog",), {}), (2, FIFTEEN[::3], None), (8, FIFTEEN, IMAGENET), (3, FIFTEEN + EXTRA, IMAGENET)],
)
def test_no_text_is_clipped_small_or_in_anothers_way(
    models: int, corruptions: tuple, variants: dict | None, columns: int, make_model: Rows, summarise: Callable
) -> None:
    rows = []
    for model in range(models):
        name = f"a_vision_transformer_base_patch16_224.fine_tuned_in1k_number_{model}"
        made = make_model(1 - 0.1 * model, corruptions, variants, model=name, weights_digest=f"{model}", n=5000)
        masked = ("imagenet-a", "imagenet-r")
        rows += [replace(row, metric="top1_masked200") if row.condition in masked else row for row in made]
    robustness = summarise(rows)
    figures = [draw_robustness(robustness, columns=columns)]
    figures += [draw_curves(robustness, lines, columns=columns) for lines in plan_curves(robustness)]
    for figure in figures:
        texts = measure_texts(figure)
        assert list_clipped(figure, texts) == []
        assert min(size for *_, size in texts) >= 7
        assert list_overlaps(texts) == []


def test_the_caption_says_what_was_measured_and_how(two_models: list[ResultRow], summarise: Callable) -> None:
    rows = [replace(row, n=300) if row.condition == "sketch" else row for row in two_models]
    figure = draw_robustness(summarise(rows))
    caption = " ".join(figure.texts[0].get_text().split())
    assert "shapes16-val" in caption
    assert "n = 1,024 (clean, corruptions, cue-conflict, rendition, hard), 300 (sketch)" in caption
    assert "source=generated" in caption and "parameters=tiny-imagenet-c" in caption
    assert "100 − mean_error_6" in caption


def test_a_metric_that_is_not_the_axiss_stands_under_its_bars(make_row: Callable, summarise: Callable) -> None:
    rows = [make_row("clean", 0.9), make_row("imagenet-a", 0.2, metric="top1_masked200")]
    (axes,) = draw_robustness(summarise(rows)).axes
    assert axes.get_ylabel() == "top-1 accuracy (%)"
    labels = [label.get_text().replace("\n", "") for label in axes.get_xticklabels()]
    assert labels == ["clean", "imagenet-a(masked200)"]


def test_equal_rows_give_equal_bytes(make_model: Rows, as_frame: Frame, tmp_path: Path) -> None:
    rows = as_frame(make_model(0.8, ["fog"], {}))
    first, second = (write_figures(rows, tmp_path / name) for name in "ab")
    assert [path.relative_to(tmp_path / "a").as_posix() for path in first] == [
        f"figures/robustness{name}.{ending}" for name in ("", "-heatmap") for ending in ("png", "pdf")
    ]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    with Image.open(first[0]) as image:
        assert image.width == 1400  # 7 inches at 200 dots
    assert first[1].read_bytes().startswith(b"%PDF")


def test_a_pdf_holds_the_shapes_of_its_letters_and_no_rules_of_layout(tmp_path: Path) -> None:
    figure = Figure(figsize=(2, 1))
    figure.text(0.1, 0.5, "first office")  # ligatures are glyphs of their own
    usual = subset.Options
    _, document = save_figure(figure, tmp_path / "letters")
    assert subset.Options is usual
    (page,) = PdfReader(document).pages
    assert page.extract_text().strip() == "first office"
    for found in page["/Resources"]["/Font"].values():
        descriptor = found.get_object()["/DescendantFonts"][0].get_object()["/FontDescriptor"]
        tables = {*TTFont(io.BytesIO(descriptor["/FontFile2"].get_data())).keys()}
        assert "glyf" in tables and not tables & {"GSUB", "GPOS", "GDEF", "kern"}


def test_mixed_sources_become_two_figures(
    make_row: Callable, as_frame: Frame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analysis.figures.save_figure", lambda figure, stem: [stem])
    rows = [
        make_row(f"fog/{severity}", 0.5, protocol=f"head=own;source={source}")
        for source in ("generated", "files")
        for severity in range(1, 6)
    ]
    written = write_figures(as_frame(rows), tmp_path, columns=1)
    assert {path.name for path in written} == {
        f"robustness{name}-source-{source}-one-column" for name in ("", "-heatmap") for source in ("files", "generated")
    }


def test_lines_and_labels_break_evenly() -> None:
    assert [len(line) for line in wrap_items(range(15), 8)] == [8, 7]
    assert [len(line) for line in wrap_items(range(9), 8)] == [5, 4]
    assert wrap_items([], 8) == []
    assert wrap_label("jpeg compression", 0.8) == ["jpeg", "compression"]
    assert wrap_label("mae_vit_base_patch16_224", 0.8) == ["mae_vit_base_", "patch16_224"]
    assert "".join(wrap_label("x" * 50, 0.8)) == "x" * 50


@pytest.fixture(scope="module")
def two_runs() -> Robustness:
    """A baseline and its PixMIM version with nineteen corruptions, four variants, and outcomes image by image."""
    own = {"model": "pixmim-mae-b", "method": "pixmim-mae", "weights_digest": "b"}
    models = (build_outcomes(0.78, stream=1, model="mae-b"), build_outcomes(0.84, stream=2, **own))
    return summarise_robustness(*split_groups(frame_outcomes(*models), "robustness"))


@pytest.fixture(scope="module")
def cells(two_runs: Robustness) -> list[Comparison]:
    return compare_cells(two_runs)


def draw_maps(robustness: Robustness, cells: list[Comparison], columns: int = 2) -> Figure:
    maps, pairs = build_maps(robustness, cells)
    return draw_heatmaps(robustness, maps, pairs, choose_scales(maps, pairs), list(robustness.curves), columns=columns)


def test_many_corruptions_are_shown_by_group_and_one_by_one_in_a_figure_of_their_own(two_runs: Robustness) -> None:
    shown = read_curves(draw_robustness(two_runs))
    assert list(shown) == ["noise (3)", "blur (4)", "weather (4)", "digital (4)", "extra (4)"]
    levels = [
        [100 * two_runs.curves[name][severity].estimates[1].value for name in CORRUPTION_GROUPS["noise"]]  # type: ignore[union-attr]
        for severity in range(6)
    ]
    assert shown["noise (3)"][1] == pytest.approx(np.mean(levels, axis=1))
    (page,) = plan_curves(two_runs)
    assert [group for group, _ in page] == ["noise", "blur", "weather", "digital", "extra"]
    each = read_curves(draw_curves(two_runs, page))
    assert list(each) == [name.replace("_", " ") for name in (*FIFTEEN, *EXTRA)]
    assert each["shot noise"][0] == pytest.approx(
        [100 * column.estimates[0].value for column in two_runs.curves["shot_noise"]]  # type: ignore[union-attr]
    )


def test_the_clean_accuracy_of_the_same_classes_stands_beside_the_four_sets(two_runs: Robustness) -> None:
    figure = draw_robustness(two_runs)
    drawn = sorted(
        float(height)
        for axes in figure.axes
        for line in axes.lines
        if line.get_marker() == "D" and line.get_markerfacecolor() == "white"
        for height in np.asarray(line.get_ydata())
    )
    expected = [100 * found.value for column in two_runs.baselines if column for found in column.estimates if found]
    assert len(expected) == 8
    assert drawn == pytest.approx(sorted(expected))
    assert "clean, same classes" in [text for text, *_ in measure_texts(figure)]


def test_every_cell_of_the_heat_map_has_its_number_and_its_colour(
    two_runs: Robustness, cells: list[Comparison]
) -> None:
    figure = draw_maps(two_runs, cells)
    texts = [text.get_text() for text in figure.axes[0].texts]
    numbers = [columns[severity].estimates for columns in two_runs.curves.values() for severity in range(1, 6)]
    for position in range(2):
        wanted = [f"{100 * found[position].value:.1f}" for found in numbers]  # type: ignore[union-attr]
        assert not [number for number in wanted if texts.count(number) < wanted.count(number)]
    assert texts.count("clean") == 3  # two models and their difference
    boxes = [found for found in figure.axes[0].collections if isinstance(found, PolyCollection)]
    assert [len(np.asarray(box.get_facecolor())) for box in boxes] == [5 + 95] * 3  # clean: one a group
    scale = choose_scales(*build_maps(two_runs, cells))
    middle = matplotlib.colormaps["RdBu"](0.5)
    assert scale.difference is not None and float(scale.difference(0.0)) == 0.5
    assert matplotlib.colors.rgb_to_hsv(middle[:3])[1] < 0.05  # no difference is no colour


def test_dots_mark_the_cells_whose_paired_interval_excludes_zero(two_runs: Robustness, cells: list[Comparison]) -> None:
    (pair,) = cells
    separable = [found for found in pair.differences if found.separable]
    clean = sum(found.kind == "clean" for found in separable)
    (dots,) = [found for found in draw_maps(two_runs, cells).axes[0].collections if isinstance(found, PathCollection)]
    assert 0 < len(separable) < len(pair.differences)
    assert len(np.asarray(dots.get_offsets())) == len(separable) + 4 * clean  # clean images stand there once a group


@pytest.mark.parametrize("columns", [1, 2])
def test_heat_maps_are_legible_at_either_width(two_runs: Robustness, cells: list[Comparison], columns: int) -> None:
    figure = draw_maps(two_runs, cells, columns)
    texts = measure_texts(figure)
    assert list_clipped(figure, texts) == []
    assert list_overlaps(texts) == []
    assert min(size for *_, size in texts) >= 7
    assert figure.get_size_inches()[1] < 9.2  # a page


def test_a_missing_cell_is_a_dash(make_model: Rows, summarise: Callable) -> None:
    figure = draw_maps(summarise([row for row in make_model(0.8, ["fog"], {}) if row.condition != "fog/4"]), [])
    assert [text.get_text() for text in figure.axes[0].texts].count("–") == 1


def test_pages_keep_a_baseline_and_its_pixmim_version_together(make_row: Callable, as_frame: Frame) -> None:
    models = [("a", "x"), ("b", "mae"), ("c", "pixmim-mae"), ("d", "y"), ("e", "z")]
    rows = [make_row("clean", 0.5, model=name, method=method, weights_digest=name) for name, method in models]
    (group,) = split_groups(as_frame(rows), "robustness")
    labels = [subject.label for subject in group.subjects]
    assert labels == ["a", "b", "c", "d", "e"]
    assert split_subjects(group.subjects, 2) == [range(0, 1), range(1, 3), range(3, 5)]
    assert split_subjects(group.subjects, 4) == [range(0, 4), range(4, 5)]
    assert split_subjects(group.subjects[3:], 4, seconds=[0, 1], most=1) == [range(0, 1), range(1, 2)]


def test_a_hostile_name_is_shown_as_text(make_model: Rows, as_frame: Frame) -> None:
    rows = as_frame(make_model(0.8, FIFTEEN, model=HOSTILE))
    robustness = summarise_robustness(*split_groups(rows, "robustness"))
    name = " ".join(HOSTILE.split())
    for figure in (draw_robustness(robustness), draw_curves(robustness, plan_curves(robustness)[0])):
        assert name in [text for text, *_ in measure_texts(figure)]
    assert name in [text.get_text().replace("\n", " ") for text in draw_maps(robustness, []).axes[0].texts]
