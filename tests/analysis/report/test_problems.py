"""Rows that contradict each other are shown and never averaged; what else is mixed is named; nothing stops a report."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from analysis.formats import Table
from analysis.groups import split_groups
from analysis.report.build import build_report, number_rows
from analysis.report.parts import Report
from analysis.report.problems import BESIDE, NOWHERE, Problems, find_problems
from analysis.robustness.statistics import summarise_robustness
from pixmim_eval.types import ResultRow
from tests.analysis.report.every_suite import build_every_suite, build_foreground, build_people, frame_rows
from tests.analysis.rows import build_model, build_row


def join(*parts: tuple[list[ResultRow], str]) -> pd.DataFrame:
    """Rows of several folders, numbered together."""
    return number_rows(pd.concat([frame_rows(rows, folder=folder) for rows, folder in parts]))


def find_contradictions(report: Report) -> Table:
    return next(table for table in report.sections[0].tables if table.title == "Contradictory rows")


def list_sources(report: Report) -> set[int]:
    """The rows that any cell names outside the overview."""
    tables = [table for section in report.sections[1:] for table in section.tables]
    return {source for table in tables for line in table.rows for cell in line for source in cell.sources}


def test_rows_that_agree_are_no_problem() -> None:
    rows = frame_rows(build_every_suite())
    found = find_problems(rows)
    assert found.sentences == () and found.sheets == ()
    pd.testing.assert_frame_equal(found.kept[rows.columns], rows)


def test_the_same_rows_in_two_folders_are_no_problem() -> None:
    rows = build_model(0.8)
    assert find_problems(join((rows, "first"), (rows, "second"))).sentences == ()


def test_contradictions_of_one_run_stand_in_no_table_and_both_are_listed() -> None:
    rows = build_model(0.8, ["fog"], {})
    again = replace(rows[2], value=0.123, time="2026-02-03T04:05:06", command="python -m other")
    report = build_report(frame_rows([*rows, again]))
    table = find_contradictions(report)
    body = [[cell.text for cell in line] for line in table.rows]
    place = table.head.index("value [95 % interval]")
    assert [(line[3], line[place].partition(" ")[0]) for line in body] == [
        (rows[2].condition, f"{100 * rows[2].value:.1f}"),
        (rows[2].condition, "12.3"),
    ]
    assert [line[table.head.index("shown")] for line in body] == [NOWHERE] * 2
    assert [line[table.head.index("time (UTC)")] for line in body] == ["2025-01-01 00:00", "2026-02-03 04:05"]
    assert [line[table.head.index("command")] for line in body] == [rows[2].command, again.command]
    assert [line[place].sources for line in table.rows] == [(2,), (len(rows),)]
    assert not list_sources(report) & {2, len(rows)}
    assert "1 measurement" in report.problems[0] and "2 rows" in report.problems[0]


def test_a_mean_of_which_one_part_contradicts_itself_is_missing_and_not_of_one_of_the_two() -> None:
    rows = build_model(0.8, ["fog"], {})
    kept = find_problems(frame_rows([*rows, replace(rows[2], value=0.123)])).kept
    (group,) = split_groups(kept, "robustness")
    (fog,) = summarise_robustness(group).corruptions
    assert fog.estimates == (None,)


@pytest.mark.parametrize("change", [{"low": 0.01}, {"high": 0.99}, {"n": 7}])
def test_an_interval_or_a_count_may_contradict_too(change: dict[str, float]) -> None:
    row = build_row("clean", 0.5)
    assert len(find_problems(frame_rows([row, replace(row, **change)])).kept) == 0  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change", ["weights_digest", "dataset_digest", "subset", "condition", "metric", "suite", "protocol"]
)
def test_what_was_not_measured_alike_does_not_contradict(change: str) -> None:
    row = build_row("clean", 0.5)
    other = replace(row, value=0.6, **{change: "head=other" if change == "protocol" else "other"})  # type: ignore[arg-type]
    found = find_problems(frame_rows([row, other]))
    assert len(found.kept) == 2 and not found.sheets


def test_several_runs_that_contradict_each_other_stand_side_by_side() -> None:
    rows = build_model(0.8, ["fog"], {})
    others = [replace(row, run="gpu", value=row.value + 0.001) for row in rows]
    report = build_report(join((rows, "runs/demo"), (others, "runs/gpu")))
    table = next(table for table in report.sections[3].tables if table.title.startswith("Robustness"))
    clean = table.head.index("clean")
    assert {line[0].text: line[clean].sources for line in table.rows} == {
        "mae-small (run demo)": (0,),
        "mae-small (run gpu)": (len(rows),),
    }
    shown = find_contradictions(report)
    assert {line[shown.head.index("shown")].text for line in shown.rows} == {BESIDE}
    assert list_sources(report) == set(range(2 * len(rows)))


def test_runs_of_one_name_are_told_apart_by_their_folders() -> None:
    rows = build_model(0.8, ["fog"], {})
    others = [replace(row, value=row.value + 0.001) for row in rows]
    found = find_problems(join((rows, "here/demo"), (others, "there/demo")))
    (group,) = split_groups(found.kept, "robustness")
    assert [subject.label for subject in group.subjects] == [
        "mae-small (run demo in here/demo)",
        "mae-small (run demo in there/demo)",
    ]
    assert set(found.kept["run"]) == {"demo in here/demo", "demo in there/demo"}


def test_boxes_and_people_have_one_place_for_all_runs_so_that_neither_number_is_taken() -> None:
    for rows in (build_foreground(), build_people()):
        others = [replace(row, run="second", value=row.value / 2) for row in rows]
        found = find_problems(join((rows, "first"), (others, "second")))
        assert found.kept.empty
        assert NOWHERE in found.sheets[0].tables[0].notes[1]


def test_what_a_head_chose_makes_no_other_measurement() -> None:
    head = "head=logistic-lbfgs(l2={},pool=mean,train=9);pooling=mean"
    rows = [build_row("clean", value, protocol=head.format(value)) for value in (0.5, 0.6)]
    assert find_problems(frame_rows(rows)).kept.empty


def test_the_largest_contradictions_are_listed_first_and_all_stand_in_the_file() -> None:
    rows = [build_row(f"c{place}", 0.5) for place in range(80)]
    others = [replace(row, value=0.5 + place / 1000) for place, row in enumerate(rows[1:], start=1)]
    found = find_problems(frame_rows([*rows, *others]))
    (sheet,) = found.sheets
    table = sheet.tables[0]
    assert table.rows[0][3].text == table.rows[1][3].text == "c79"
    assert len(table.rows) == 100 and len(sheet.numbers) == 158
    assert any("58 more rows" in note for note in table.notes)


def test_mixed_versions_data_and_unknown_commands_are_named() -> None:
    rows = [
        build_row("clean", 0.5, versions="pixmim-eval=0.1.0;torch=2.6.0", command=""),
        build_row("fog/1", 0.5, versions="pixmim-eval=0.2.0;torch=2.6.0", skipped=3),
        build_row("fog/2", 0.5, versions="pixmim-eval=0.2.0;torch=2.6.0", dataset_digest="another-digest"),
        build_row("src", 0.5, suite="foreground", versions="", dataset="shapes16-val", dataset_digest="of-its-boxes"),
    ]
    found = find_problems(frame_rows(rows))
    text = "\n".join(found.sentences)
    assert "pixmim-eval: 0.1.0 (1 rows), 0.2.0 (2 rows)" in text and "torch" not in text
    assert "robustness, the name shapes16-val stands for 2 sets" in text and "anothe" in text
    assert "suite foreground" not in text and "1 of 4 rows do not say which command" in text
    assert "1 rows leave out images" in text


def test_a_report_of_rows_that_all_contradict_each_other_is_still_made() -> None:
    rows = build_every_suite()
    report = build_report(frame_rows([*rows, *(replace(row, value=row.value / 2) for row in rows)]))
    assert not list_sources(report)
    assert len(report.rows) == 2 * len(rows)


def test_a_protocol_that_cannot_be_read_is_named_and_left_out() -> None:
    rows = [build_row("clean", 0.5), build_row("clean", 0.6, protocol="head=own;<b>;c=d")]
    report = build_report(frame_rows(rows))
    assert any("head=own;<b>;c=d" in text for text in report.problems)
    assert list_sources(report) == {0}


def test_one_run_that_gives_the_same_weights_two_names_shows_both() -> None:
    row = build_row("clean", 0.5)
    report = build_report(frame_rows([row, replace(row, model="second", value=0.6)]))
    assert list_sources(report) == {0, 1}
    assert "side by side" in report.problems[0]


def test_problems_leave_the_rows_as_they_are() -> None:
    rows = frame_rows([build_row("clean", 0.5), build_row("clean", 0.6)])
    before = rows.copy()
    assert isinstance(find_problems(rows), Problems)
    pd.testing.assert_frame_equal(rows, before)
