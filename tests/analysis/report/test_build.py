"""A report has all its sections whatever rows there are, and every number in it is that of the rows that it names."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.figures import write_figures
from analysis.formats import Cell, Table
from analysis.report.build import build_report, number_rows
from analysis.report.parts import Report, Section
from pixmim_eval.metrics.paired import paired_bootstrap
from tests.analysis.report.every_suite import (
    CORRUPTIONS,
    METHODS,
    build_every_suite,
    build_foreground,
    build_robustness,
    build_scores,
    frame_rows,
)

ORDER = [
    "overview",
    "main-results",
    "published-comparison",
    "robustness",
    "shape-bias",
    "foreground",
    "dense",
    "scores",
    "epochs",
    "ablations",
    "pictures",
    "published",
]
SEVERITIES = range(1, 6)


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    """Rows of every suite."""
    return frame_rows(build_every_suite(), build_robustness()[1])


@pytest.fixture(scope="module")
def report(rows: pd.DataFrame) -> Report:
    """Their report."""
    return build_report(rows)


def find_section(report: Report, name: str) -> Section:
    return next(section for section in report.sections if section.name == name)


def find_table(report: Report, name: str, start: str) -> Table:
    return next(table for table in find_section(report, name).tables if table.title.startswith(start))


def find_cell(table: Table, row: str, column: str) -> Cell:
    line = next(cells for cells in table.rows if cells[0].text == row)
    return line[table.head.index(column)]


def read_number(cell: Cell) -> float:
    """The first number of a cell."""
    match = re.match(r"[+−-]?[\d.]+", cell.text)
    assert match, cell.text
    return float(match[0].replace("−", "-"))


def choose(rows: pd.DataFrame, model: str, conditions: list[str], metric: str = "top1") -> pd.DataFrame:
    """Rows of a model's robustness, by a plain comparison."""
    return rows[
        (rows["suite"] == "robustness")
        & (rows["model"] == model)
        & rows["condition"].isin(conditions)
        & (rows["metric"] == metric)
    ]


def test_sections_are_all_there_in_their_order(report: Report) -> None:
    assert [section.name for section in report.sections] == ORDER
    texts = [text for section in report.sections for text in section.text]
    assert not [text for text in texts if "No rows of the suite" in text or "Not shown" in text]


def test_a_suite_without_rows_has_its_section_with_the_command_to_run(rows: pd.DataFrame) -> None:
    report = build_report(number_rows(rows[rows["suite"] == "knn"]))
    assert [section.name for section in report.sections] == ORDER
    missing = {
        "robustness": ["robustness"],
        "shape-bias": ["shape_bias", "observers", "model_vs_human"],
        "foreground": ["foreground"],
        "dense": ["segmentation", "detection"],
        "scores": ["linear_probe", "few_shot", "finetune"],
        "pictures": ["reconstruction"],
    }
    for name, suites in missing.items():
        told = [text for text in find_section(report, name).text if text.startswith("No rows of the suite")]
        assert [re.findall(r"--suite (\w+)", text) for text in told] == [[suite] for suite in suites]
    assert not find_section(report, "robustness").tables and not find_section(report, "robustness").plots


def test_rows_of_a_suite_that_is_not_known_stand_among_the_scores() -> None:
    report = build_report(frame_rows(build_scores("texture_bias", ("bias",))))
    assert find_table(report, "scores", "Suite texture_bias").head[1].startswith("bias")


@pytest.mark.parametrize("model", METHODS)
def test_robustness_cells_name_the_rows_that_give_their_number(report: Report, rows: pd.DataFrame, model: str) -> None:
    table = find_table(report, "robustness", "Robustness:")
    expected = {
        "clean": choose(rows, model, ["clean"]),
        "mean_error_7": choose(rows, model, ["summary"], "mean_error_7"),
    }
    for column, found in expected.items():
        cell = find_cell(table, model, column)
        assert cell.sources == tuple(found["source"])
        assert read_number(cell) == pytest.approx(100 * found["value"].mean(), abs=0.051)
    variants = find_table(report, "robustness", "Variants beside clean images")
    for column in ("imagenet-sketch", "imagenet-a (masked200)"):
        metric = "top1_masked200" if "(" in column else "top1"
        (row,) = choose(rows, model, [column.partition(" ")[0]], metric).to_dict("records")
        cell = find_cell(variants, model, column)
        assert cell.sources == (row["source"],)
        assert read_number(cell) == pytest.approx(100 * row["value"], abs=0.051)
    cell = find_cell(table, model, "weather (1)")  # of a group in part, there is no row: the mean over its severities
    parts = choose(rows, model, [f"fog/{severity}" for severity in SEVERITIES])
    assert cell.sources == tuple(parts["source"]) and len(cell.sources) == 5
    assert read_number(cell) == pytest.approx(100 * parts["value"].mean(), abs=0.051)
    summary = find_cell(table, model, "noise (3)")  # of a whole group, there is
    error = choose(rows, model, ["summary"], "mean_error_noise")
    assert summary.sources == tuple(error["source"])
    assert read_number(summary) == pytest.approx(100 * (1 - error["value"].item()), abs=0.051)


def test_means_over_severities_name_all_five(report: Report, rows: pd.DataFrame) -> None:
    table = find_table(report, "robustness", "Each corruption")
    for corruption in CORRUPTIONS:
        for model in METHODS:
            cell = find_cell(table, corruption.replace("_", " "), model)
            parts = choose(rows, model, [f"{corruption}/{severity}" for severity in SEVERITIES])
            assert cell.sources == tuple(parts["source"])
            assert read_number(cell) == pytest.approx(100 * parts["value"].mean(), abs=0.051)


def test_paired_differences_name_the_rows_of_both_models(report: Report, rows: pd.DataFrame) -> None:
    table = find_table(report, "robustness", "Paired differences")
    names = {"clean": ["clean"], "all 7 corruptions (100 − mean_error_7)": None, "imagenet-sketch": ["imagenet-sketch"]}
    cells = [f"{corruption}/{severity}" for corruption in CORRUPTIONS for severity in SEVERITIES]
    for name, conditions in names.items():
        line = next(line for line in table.rows if line[1].text == name)
        both = [choose(rows, model, conditions or cells) for model in METHODS]
        assert line[2].sources == tuple(sorted(source for found in both for source in found["source"]))
        sides = [np.mean(np.stack(found["hits"].tolist()), axis=0) for found in both]
        expected = paired_bootstrap(sides[1], sides[0]).value
        assert read_number(line[2]) == pytest.approx(100 * expected, abs=0.051)


def test_scores_name_one_row_each(report: Report, rows: pd.DataFrame) -> None:
    tables = [table for name in ("scores", "dense", "shape-bias") for table in find_section(report, name).tables]
    count = 0
    for table in tables:
        for line in table.rows:
            for cell, head in zip(line[1:-1], table.head[1:-1], strict=True):
                assert len(cell.sources) == 1, (table.title, head)
                row = rows.loc[rows["source"] == cell.sources[0]].iloc[0]
                scale = 100 if row["unit"] == "fraction" else 1
                assert read_number(cell) == pytest.approx(scale * row["value"], abs=0.051)
                assert line[0].text == row["model"] and table.title.startswith(f"Suite {row['suite']},")
                count += 1
    models, people, metrics = 4, 2, {"scores": 4 * 2, "dense": 1 + 2, "model_vs_human": 2, "shape_bias": 2}
    assert count == models * sum(metrics.values()) + 2 * people


def test_overlaps_name_their_row_and_the_row_that_they_differ_from(rows: pd.DataFrame, report: Report) -> None:
    table = find_table(report, "foreground", "Kept of the object")
    for line in table.rows:
        for crop in ("src", "rrc-0.2"):
            cell = line[table.head.index(crop)]
            found = rows.loc[list(cell.sources)]
            assert set(found["condition"]) == {crop}
            metrics = {"union of boxes": ["overlap_union"], "largest box": ["overlap_largest", "overlap_union"]}
            if line[1].text in metrics:
                assert sorted(found["metric"]) == metrics[line[1].text]
                own = found[found["metric"] == metrics[line[1].text][0]]
                assert read_number(cell) == pytest.approx(100 * own["value"].item(), abs=0.051)


def test_points_over_epochs_name_their_row_and_differences_both(rows: pd.DataFrame, report: Report) -> None:
    knn = rows[(rows["suite"] == "knn") & (rows["metric"] == "top1")]
    section = find_section(report, "epochs")
    (sheet,) = (sheet for sheet in section.sheets if sheet.stem == "curves-knn-top1")
    for line in sheet.tables[0].rows:
        for cell, method in zip(line[1:], METHODS, strict=True):
            (row,) = knn[(knn["method"] == method) & (knn["epoch"] == int(line[0].text))].to_dict("records")
            assert cell.sources == (row["source"],)
            assert read_number(cell) == pytest.approx(100 * row["value"], abs=0.051)
    (differences,) = (sheet for sheet in section.sheets if sheet.stem == "curves-knn-top1-differences")
    for line in differences.tables[0].rows:
        pair = knn[knn["epoch"] == int(line[1].text)]
        assert line[4].sources == tuple(sorted(pair["source"]))
        base, other = (pair.loc[pair["method"] == method, "value"].item() for method in METHODS)
        assert read_number(line[4]) == pytest.approx(100 * (other - base), abs=0.051)


def test_every_suite_with_several_epochs_has_curves_of_its_main_metric(report: Report) -> None:
    stems = {plot.stem for plot in find_section(report, "epochs").plots}
    named = ("linear_probe-top1", "knn-top1", "few_shot-top1", "finetune-top1", "segmentation-miou", "detection-box_ap")
    named += ("shape_bias-shape_bias", "reconstruction-mse_pixels")
    assert stems == {f"curves-{name}-one-column" for name in named}


def test_arms_of_an_ablation_have_a_figure_and_a_table_and_the_others_a_command() -> None:
    pretraining = {"mae": "crop={};image_size=64;seed=0;target=normalised", "pixmim-mae": "crop={};image_size=64;"}
    pretraining["pixmim-mae"] += "radius=11.43;seed=0;target=lowfreq"
    rows = [
        replace(row, model=f"{row.model}-{crop}", weights_digest=f"{row.method}-{crop}", pretraining=text.format(crop))
        for row in build_scores("linear_probe", ("top1",))
        for method, text in pretraining.items()
        for crop in ("rrc", "src", "cc")
        if row.epoch == 20 and row.method == method
    ]
    frame = frame_rows(rows)
    section = find_section(build_report(frame), "ablations")
    assert {plot.stem for plot in section.plots} == {"ablation-crop-one-column", "ablation-components-one-column"}
    assert {sheet.stem for sheet in section.sheets} == {"ablation-crop", "ablation-components"}
    commands = [text for text in section.text if "To make them" in text]
    assert len(commands) == 1 and "analysis.run ablation bandwidth" in commands[0]
    named = {source for table in section.tables for line in table.rows for cell in line for source in cell.sources}
    assert named == set(frame["source"])


def test_figures_are_those_of_the_commands_one_column_wide(
    report: Report, rows: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plots = [plot for section in report.sections for plot in section.plots]
    stems = [plot.stem for plot in plots]
    assert len({*stems}) == len(stems)
    assert {plot.figure.get_figwidth() for plot in plots} == {3.4}
    assert all(plot.caption.strip() and plot.title for plot in plots)
    saved: list[str] = []
    monkeypatch.setattr("analysis.figures.save_figure", lambda figure, stem: saved.append(stem.name) or [])
    write_figures(rows, tmp_path, columns=1)
    assert saved and {*saved} <= {*stems}
    assert {stem for stem in stems if not stem.startswith(("curves-", "ablation"))} == {*saved}


def test_commands_end_their_section(report: Report) -> None:
    made = "Made by: python -m pixmim_eval.run --suite {} --data PATH ({} rows)."
    assert made.format("foreground", 10) in find_section(report, "foreground").made
    dense = (made.format("segmentation", 8), made.format("detection", 8))
    assert find_section(report, "dense").made == dense


def test_sheets_hold_the_very_tables_of_their_section(report: Report) -> None:
    stems = [sheet.stem for section in report.sections for sheet in section.sheets]
    assert len({*stems}) == len(stems)
    for section in report.sections:
        assert [*section.tables] == [table for sheet in section.sheets for table in sheet.tables]


def test_what_cannot_be_shown_says_why_and_the_rest_goes_on(rows: pd.DataFrame) -> None:
    rows = rows[rows["suite"].isin(["knn", "linear_probe"])]
    early = (rows["suite"] == "knn") & (rows["epoch"] == 10)
    again = rows[early].assign(weights_digest="others", value=0.5)  # for one epoch of one run
    section = find_section(build_report(number_rows(pd.concat([rows, again.iloc[:1]]))), "epochs")
    assert any(text.startswith("Not shown: ") and "one value at each place" in text for text in section.text)
    assert any(plot.stem.startswith("curves-linear_probe") for plot in section.plots)


def test_a_missing_number_says_what_to_run() -> None:
    left_out = ("mae", "imagenet-sketch")
    rows = frame_rows([row for row in build_robustness()[0] if (row.model, row.condition) != left_out])
    cell = find_cell(find_table(build_report(rows), "robustness", "Variants"), *left_out)
    assert cell.text == "–" and not cell.sources and "--suite robustness" in cell.hint


def test_rows_of_boxes_alone_make_a_report() -> None:
    report = build_report(frame_rows(build_foreground()))
    assert find_section(report, "foreground").tables
    assert any("No pretraining run was evaluated" in text for text in find_section(report, "epochs").text)
