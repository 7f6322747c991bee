"""Figures and table of foreground overlap show what the rows hold, and published numbers only beside ImageNet's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.foreground.figures import draw_against_probe, draw_overlap
from analysis.foreground.numbers import find_crop, has_low_frequency_target, list_foreground
from analysis.foreground.tables import build_choices, tabulate_overlaps
from analysis.run import main
from pixmim_eval.types import ResultRow

Row = Callable[..., ResultRow]
PROTOCOL = "border=nothing;draws=4;expectation=exact;masked=0.75-of-14x14;patches=14x14"
KEPT = {"src": 0.86, "rrc-0.2": 0.64, "cc-224": 0.88}


@pytest.fixture
def rows(make_row: Row) -> list[ResultRow]:
    """Three crops on two data sets; the smaller first."""
    made = []
    for dataset, count, shift in (("shapes16-val", 700, 0.1), ("imagenet_val_boxes", 50_000, 0.0)):
        for crop, value in KEPT.items():
            fields = {"suite": "foreground", "protocol": PROTOCOL, "model": "no-model", "method": "none", "epoch": None}
            fields |= {"dataset": dataset, "dataset_digest": dataset, "n": count, "weights_digest": ""}
            metrics = {"overlap_union": value + shift, "overlap_largest": value + shift + 0.01}
            metrics |= {"overlap_union_masked75": (value + shift) / 4, "lost": 0.01}
            metrics |= {f"overlap_union_size/{low}-{high}": value for low, high in (("0", "0.1"), ("0.1", "0.2"))}
            metrics |= {f"overlap_union_quantile/{level / 100:g}": level / 100 for level in (1, 50, 99)}
            metrics |= {f"overlap_union_patches75_quantile/{level / 100:g}": level / 400 for level in (1, 50, 99)}
            made += [make_row(crop, value, metric=metric, **fields) for metric, value in metrics.items()]
    return made


def test_data_sets_stand_apart_and_the_largest_first(rows: list[ResultRow], as_frame: Callable) -> None:
    sets = list_foreground(as_frame(rows))
    assert [found.dataset for found in sets] == ["imagenet_val_boxes", "shapes16-val"]
    assert sets[0].crops == ["rrc-0.2", "src", "cc-224"]
    assert sets[0].mask == "75"
    assert [found.is_imagenet for found in sets] == [True, False]
    transformed = [row for row in rows if row.dataset == "shapes16-val"]
    drawn = PROTOCOL.replace("exact", "drawn")
    transformed += [ResultRow(**{**vars(row), "condition": "my:crop", "protocol": drawn}) for row in transformed[:8]]
    (joined,) = list_foreground(pd.DataFrame(map(vars, transformed)))
    assert joined.crops == ["rrc-0.2", "src", "cc-224", "my:crop"]


@pytest.mark.parametrize("columns", [1, 2])
def test_bars_and_curves_are_the_rows_and_published_lines_are_of_imagenet(
    rows: list[ResultRow], as_frame: Callable, columns: int
) -> None:
    for found, lines in zip(list_foreground(as_frame(rows)), (4, 0), strict=True):
        bars, distribution, sizes, definitions = draw_overlap(found, columns=columns).axes
        expected = [number for crop in found.crops for number in (_kept(found, crop), _kept(found, crop) / 4)]
        np.testing.assert_allclose([bar.get_height() for bar in bars.patches], np.multiply(expected, 100))
        dotted = [part for part in bars.collections if part.get_linestyle()[0][1] is not None]
        assert len(dotted) == lines
        assert [len(line.get_xdata()) for line in distribution.lines] == [3] * 6
        np.testing.assert_allclose(distribution.lines[0].get_ydata(), [1, 50, 99])
        np.testing.assert_allclose(sizes.lines[0].get_xdata(), [5, 15])
        assert [text.get_text().replace("\n", " ") for text in definitions.get_xticklabels()] == [
            "union of boxes",
            "largest box",
        ]


def _kept(found, crop: str) -> float:
    return found.found[crop, "overlap_union"].value


def test_the_table_says_how_far_each_choice_moves_the_number(rows: list[ResultRow], as_frame: Callable) -> None:
    sets = list_foreground(as_frame(rows))
    table = build_choices(sets)
    texts = [[cell.text for cell in row] for row in table.rows]
    assert table.head == ("boxes", "definition", "rrc-0.2", "src", "cc-224", "n")
    assert texts[0] == ["imagenet_val_boxes", "union of boxes", "64.0", "86.0", "88.0", "50,000"]
    assert texts[1][2:5] == ["65.0 (+1.0)", "87.0 (+1.0)", "89.0 (+1.0)"]
    same = ["64.0 (+0.0)", "86.0 (+0.0)", "88.0 (+0.0)"]
    assert texts[3] == ["imagenet_val_boxes", "union, 10–20 % of the image", *same, "50,000"]
    assert texts[4] == ["imagenet_val_boxes", "union, 75 % masked", "16.0", "21.5", "22.0", "50,000"]
    assert texts[5] == ["shapes16-val", "union of boxes", "74.0 (+10.0)", "96.0 (+10.0)", "98.0 (+10.0)", "700"]
    assert texts[-2] == ["not known", "published", "68.3", "88.4", "–", "–"]
    assert texts[-1] == ["not known", "published, 75 % masked", "17.1", "22.1", "–", "–"]
    assert "Not of the same box set" in table.notes[-1] and "nothing here was tuned" in table.notes[-1]
    assert len(tabulate_overlaps(sets)) == len(rows)
    other = build_choices(sets[1:])
    assert "published" not in str(other.rows) + str(other.notes)


def test_a_crop_is_known_from_the_name_of_a_method() -> None:
    crops = {"mae": "rrc-0.2", "pixmim-mae": "src", "mae+src": "src", "lsmae+low-frequency": "rrc-0.2"}
    crops |= {"mae+cc": "cc-224", "deit3": "rrc-0.08", "deit3+src": "src", "supervised": None, "unknown": None}
    assert {method: find_crop(method) for method in crops} == crops
    assert [has_low_frequency_target(method) for method in ("mae+src", "mae+low-frequency", "pixmim-mae")] == [
        False,
        True,
        True,
    ]


def test_models_stand_where_their_crop_and_their_probe_put_them(
    rows: list[ResultRow], make_row: Row, as_frame: Callable
) -> None:
    probes = [
        make_row("clean", top1, suite="linear_probe", method=method, model=method, weights_digest=method)
        for method, top1 in (("mae", 0.3), ("mae+src", 0.33), ("pixmim-mae", 0.36), ("supervised", 0.5))
    ]
    frame = as_frame([*rows, *probes])
    found = list_foreground(frame)[0]
    figure = draw_against_probe(found, frame)
    assert figure is not None
    points = [line.get_xydata()[0].tolist() for line in figure.axes[0].lines if line.get_marker() == "o"]
    np.testing.assert_allclose(points, [[64, 30], [86, 33], [86, 36]])
    faces = [line.get_markerfacecolor() for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [face == "white" for face in faces] == [True, True, False]
    assert draw_against_probe(found, as_frame(rows)) is None


def test_a_run_of_this_suite_has_its_figures_and_table(
    rows: list[ResultRow], write_run: Callable, tmp_path: Path
) -> None:
    run = write_run(rows)
    for command in ("figures", "tables"):
        assert main([command, "--runs", str(run), "--out", str(tmp_path / "out")]) == 0
    assert {path.stem for path in (tmp_path / "out" / "figures").iterdir()} == {
        "foreground-overlap-imagenet_val_boxes",
        "foreground-overlap-shapes16-val",
    }
    tables = {path.stem for path in (tmp_path / "out" / "tables").iterdir()}
    assert tables == {"published", "published-comparison", "foreground"}
