"""Figures of ablations show every arm where it belongs, with its interval, and say what images cannot hold."""

from __future__ import annotations

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from analysis.ablation.figures import draw_ablation, plot_ablation
from analysis.ablation.numbers import Ablation, read_ablation
from analysis.layout import PAGE_WIDTHS
from analysis.report.parts import read_mark
from tests.analysis.arms import (
    FRACTIONS,
    PROBE,
    ROBUST,
    Outcome,
    build_bandwidth,
    build_components,
    build_crops,
    frame_arms,
)

KNN = ("knn", "top1", "clean", "head=knn")


def read(outcomes: list[Outcome], name: str) -> Ablation:
    found = read_ablation(frame_arms(outcomes), name)
    assert found is not None
    return found


def draw(outcomes: list[Outcome], name: str, columns: int = 2) -> Figure:
    found = read(outcomes, name)
    return draw_ablation(found, found.panels, columns=columns)


def list_series(axes: Axes) -> list[tuple[list[float], list[float]]]:
    """Places and heights of each line with markers."""
    drawn = [line for line in axes.lines if line.get_linestyle() != "None"]
    marked = [line for line in drawn if line.get_marker() not in ("None", "", None)]
    return [([*map(float, line.get_xdata())], [*map(float, line.get_ydata())]) for line in marked]  # type: ignore[arg-type]


def list_levels(axes: Axes) -> list[float]:
    """Places of vertical lines."""
    lines = [list(line.get_xdata()) for line in axes.lines]  # type: ignore[arg-type]
    return [float(places[0]) for places in lines if len(places) == 2 and places[0] == places[1]]


def find_shade(axes: Axes) -> float | None:
    """Where the shade over what images do not hold begins."""
    hatched = [patch for patch in axes.patches if isinstance(patch, Rectangle) and patch.get_hatch()]
    return float(hatched[0].get_x()) if hatched else None


def test_every_radius_has_its_value_and_interval() -> None:
    rows = [row for row, _ in build_bandwidth()]
    axes = draw(build_bandwidth(), "bandwidth").axes[0]
    ((places, heights),) = list_series(axes)
    assert places == [round(32 * fraction, 2) for fraction in FRACTIONS]
    assert heights == pytest.approx([100 * row.value for row in rows[1:]])
    segments = [segment for found in axes.collections for segment in found.get_segments()]  # type: ignore[attr-defined]
    bounds = {tuple(round(float(height), 6) for height in segment[:, 1]) for segment in segments if len(segment)}
    assert {(round(100 * row.low, 6), round(100 * row.high, 6)) for row in rows[1:]} <= bounds


def test_the_arm_without_a_filter_is_a_level_with_a_band() -> None:
    row = build_bandwidth()[0][0]
    axes = draw(build_bandwidth(), "bandwidth").axes[0]
    levels = [list(line.get_ydata()) for line in axes.lines if line.get_linestyle() == "-."]  # type: ignore[arg-type]
    assert levels == [[100 * row.value] * 2]
    band = next(patch for patch in axes.patches if isinstance(patch, Rectangle) and not patch.get_hatch())
    assert (band.get_y(), band.get_y() + band.get_height()) == pytest.approx((100 * row.low, 100 * row.high))


@pytest.mark.parametrize("size", [64, 224])
def test_the_radius_stands_in_cycles_and_as_a_share_of_nyquist(size: int) -> None:
    figure = draw(build_bandwidth(size), "bandwidth")
    axes = figure.axes[0]
    (upper,) = axes.child_axes
    cycles = [float(label.get_text()) for label in axes.get_xticklabels()]
    shares = [float(label.get_text()) for label in upper.get_xticklabels()]
    assert len(cycles) == len(shares) >= 5 and (cycles[-1], shares[-1]) == (size / 2, 1.0)
    assert [cycle / (size / 2) for cycle in cycles] == pytest.approx(shares, rel=0.05)
    assert list(axes.get_xticks()) == list(upper.get_xticks())
    assert list_levels(axes) == [pytest.approx(40 / 224 * size)]  # published: 40 of 112


def test_what_images_cannot_hold_is_shaded_and_said() -> None:
    figure = draw(build_bandwidth(64), "bandwidth")
    assert find_shade(figure.axes[0]) == 32
    assert "images of 64 px hold nothing above 32 cycles" in figure.get_label()
    enlarged = draw(build_bandwidth(128, data_side=64), "bandwidth")
    assert find_shade(enlarged.axes[0]) == 32
    assert "images of 64 px hold nothing above 32 cycles" in enlarged.get_label()
    low = [pair for pair in build_bandwidth(128, data_side=500) if "radius=64" not in pair[0].pretraining]
    detailed = draw(low, "bandwidth")
    assert find_shade(detailed.axes[0]) is None and "Shaded" not in detailed.get_label()


def test_crops_stand_in_their_order_a_line_a_method() -> None:
    figure = draw(build_crops(), "crop")
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["RRC", "SRC", "CC"]
    mae, deit = list_series(axes)
    assert [round(place) for place in mae[0]] == [round(place) for place in deit[0]] == [0, 1, 2]
    assert mae[1] == pytest.approx([50, 55, 45]) and deit[1] == pytest.approx([80, 70, 60])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["MAE", "DeiT III"]


def test_the_two_parts_are_a_line_a_target_over_both_crops() -> None:
    figure = draw(build_components(), "components")
    plain, low = list_series(figure.axes[0])
    assert plain[1] == pytest.approx([50, 55]) and low[1] == pytest.approx([52, 60])
    assert "r = 11.43 cycles per image, 0.36 of Nyquist" in figure.get_label()


@pytest.mark.parametrize("name", ["bandwidth", "crop", "components"])
@pytest.mark.parametrize("columns", [1, 2])
def test_nothing_leaves_the_page_or_overlaps(name: str, columns: int) -> None:
    build = {"bandwidth": build_bandwidth, "crop": build_crops, "components": build_components}[name]
    figure = draw(build(suites=[PROBE, KNN, ROBUST]), name, columns=columns)
    assert figure.get_figwidth() == PAGE_WIDTHS[columns]
    figure.draw_without_rendering()
    boxes = [
        (text.get_text(), text.get_window_extent())
        for text in figure.findobj(Text)
        if isinstance(text, Text) and text.get_text().strip() and text.get_visible()
    ]
    for text, box in boxes:
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0 and box.y1 <= figure.bbox.y1, text
    for place, (text, box) in enumerate(boxes):
        for other, second in boxes[:place]:
            inner = min(box.x1, second.x1) - max(box.x0, second.x0), min(box.y1, second.y1) - max(box.y0, second.y0)
            assert min(inner) < 1.5, (text, other)


def test_a_line_is_switched_off_with_its_level_and_legend_entry() -> None:
    figure = draw(build_bandwidth() + build_bandwidth(seed=1), "bandwidth")
    marked = [artist for artist in figure.findobj() if read_mark(artist.get_gid()) is not None]
    kinds = {number: {type(one).__name__ for one in marked if read_mark(one.get_gid()) == number} for number in (0, 1)}
    assert kinds[0] == kinds[1] >= {"Text", "Line2D", "Rectangle", "LineCollection"}


def test_pages_hold_what_has_room() -> None:
    suites = [("few_shot", "top1", f"{number}-shot", "head=logistic") for number in range(9)]
    plots = plot_ablation(read(build_crops(suites), "crop"), 2)
    assert [plot.stem for plot in plots] == ["ablation-crop-part-1", "ablation-crop-part-2"]
    assert [len(plot.figure.axes) for plot in plots] == [5, 4]
    assert plots[0].caption == plots[0].figure.get_label() != ""
    (one,) = plot_ablation(read(build_crops(), "crop"), 1)
    assert one.stem == "ablation-crop-one-column"
