"""The main table has six methods in the paper's order, and no column with numbers that were measured differently."""

from __future__ import annotations

import re
from collections.abc import Callable

import pandas as pd
import pytest

from analysis.formats import Table, to_latex, to_markdown
from analysis.main_results import (
    METHODS,
    build_main_results,
    list_main_sheets,
    summarise_main_results,
    tabulate_main_results,
)
from pixmim_eval.types import ResultRow

Row = Callable[..., ResultRow]
Frame = Callable[[list[ResultRow]], pd.DataFrame]
SIX = ["MAE", "PixMIM-MAE", "ConvMAE", "PixMIM-ConvMAE", "LSMAE", "PixMIM-LSMAE"]
PROBE = "head=cached(sgd,lr={lr},wd=0,batch=64,epochs=30,pool={pool},train=99);pooling={pool};probe=cached"
PUBLISHED_PROBE = "head=mae-90e(lars,base_lr=0.1,epochs=90,pool=cls,train=99);pooling=cls;probe=mae-90e"
COMMAND = "python -m pixmim_eval.run --suite {suite} --checkpoint {file} --data train=/d/train val=/d/val"


@pytest.fixture
def make_number(make_row: Row) -> Row:
    """make_number(suite, method, value, **fields): the row of a model that is called as its method."""

    def make(suite: str, method: str, value: float, **changes: object) -> ResultRow:
        condition = {"detection": "mask-rcnn", "segmentation": "knn"}.get(suite, "clean")
        metric = {"detection": "box_ap", "segmentation": "miou"}.get(suite, "top1")
        fields = {"suite": suite, "method": method, "model": method, "weights_digest": method, "metric": metric}
        fields |= {"low": value - 0.01, "high": value + 0.01, "protocol": f"head={suite}", "command": ""}
        return make_row(str(changes.pop("condition", condition)), value, **{**fields, **changes})

    return make


def _read(table: Table, column: str) -> dict[str, str]:
    """Model (method where there is none) -> text of a column."""
    place = table.head.index(column)
    return {row[1].text if row[1].text != "–" else row[0].text: row[place].text for row in table.rows}


def test_six_methods_stand_in_the_papers_order_with_or_without_rows(make_number: Row, as_frame: Frame) -> None:
    rows = [
        make_number("finetune", "pixmim-lsmae", 0.7),
        make_number("knn", "mae", 0.5, model="mae-20", weights_digest="b", epoch=20),
        make_number("finetune", "mae", 0.6, model="mae-5", weights_digest="a", epoch=5),
        make_number("finetune", "supervised", 0.8),
        make_number("finetune", "mae+src", 0.8),
    ]
    (table,) = build_main_results(summarise_main_results(as_frame(rows)))
    assert list(METHODS.values()) == SIX
    assert [(row[0].text, row[1].text, row[2].text) for row in table.rows] == [
        ("MAE", "mae-5", "5"),
        ("MAE", "mae-20", "20"),
        *((name, "–", "–") for name in SIX[1:-1]),
        ("PixMIM-LSMAE", "pixmim-lsmae", "200"),
    ]
    head = ("fine-tune top-1 (%)", "linear top-1 (%)", "box AP (%)", "mask AP (%)", "mIoU (%)")
    assert table.head == ("method", "model", "epochs", *head)
    assert _read(table, "fine-tune top-1 (%)")["mae-5"] == "60.0 [59.0, 61.0]"
    assert "Models of other methods are left to the tables of their suites: mae+src, supervised." in table.notes


def test_two_protocols_never_share_a_column(make_number: Row, as_frame: Frame) -> None:
    rows = [
        make_number("linear_probe", "mae", 0.30, protocol=PROBE.format(lr=1, pool="cls")),
        make_number("linear_probe", "pixmim-mae", 0.31, protocol=PROBE.format(lr=2.2, pool="mean")),
        make_number("linear_probe", "mae", 0.40, protocol=PUBLISHED_PROBE),
        make_number("segmentation", "mae", 0.11),
        make_number("segmentation", "mae", 0.12, condition="linear"),
        make_number("segmentation", "pixmim-mae", 0.13, dataset_digest="other images"),
        make_number("segmentation", "mae", 0.14, subset="spread-10"),
    ]
    first, second = build_main_results(summarise_main_results(as_frame(rows)))
    # what a head chose for itself is no protocol of its own
    assert _read(first, "linear top-1, cached (%)") == {
        "mae": "30.0 [29.0, 31.0]",
        "pixmim-mae": "31.0 [30.0, 32.0]",
        **dict.fromkeys(SIX[2:], "–"),
    }
    assert second.head[3:] == (
        "linear top-1, mae-90e (%)",
        *("mIoU, linear (%)", "mIoU, knn [2] (%)", "mIoU, knn [3] (%)"),
    )
    texts = {text for table in (first, second) for row in table.rows for text in (cell.text for cell in row[3:])}
    assert {f"{value}.0 [{value - 1}.0, {value + 1}.0]" for value in (11, 12, 13, 14, 30, 31, 40)} | {"–"} == texts
    assert [row[1].text for row in second.rows] == ["mae", "pixmim-mae"]
    assert any(note.startswith("mIoU, knn [3]: suite segmentation, knn, miou") for note in second.notes)


def test_the_published_protocol_stands_in_the_first_table_where_as_many_models_have_it(
    make_number: Row, as_frame: Frame
) -> None:
    rows = [
        make_number("segmentation", "mae", 0.11, n=2000),
        make_number("segmentation", "mae", 0.20, condition="upernet", n=100),
    ]
    first, second = build_main_results(summarise_main_results(as_frame(rows)))
    assert (first.head[-1], second.head[-1]) == ("mIoU, upernet (%)", "mIoU, knn (%)")


def test_a_number_names_its_row_and_runs_are_taken_together(make_number: Row, as_frame: Frame) -> None:
    rows = [
        make_number("finetune", "mae", 0.6, run="one"),
        make_number("linear_probe", "mae", 0.5, run="two", model="renamed"),
        make_number("detection", "mae", 0.3, run="three", seed=5),
        make_number("detection", "mae", 0.2, run="three", metric="mask_ap"),
    ]
    frame = as_frame(rows)
    (table,) = build_main_results(summarise_main_results(frame.assign(source=range(10, 10 + len(frame)))))
    line = table.rows[0]
    place = {(row.suite, row.metric): place for place, row in enumerate(frame.itertuples(), start=10)}
    measured = (("finetune", "top1"), ("linear_probe", "top1"), ("detection", "box_ap"), ("detection", "mask_ap"))
    expected = [(place[key],) for key in measured]
    assert [cell.sources for cell in line[3:]] == [*expected, ()]
    assert build_main_results(summarise_main_results(frame))[0].rows[0][3].sources == ()


def test_numbers_that_contradict_each_other_are_shown_and_not_averaged(make_number: Row, as_frame: Frame) -> None:
    rows = [
        make_number("finetune", "mae", 0.60, run="one"),
        make_number("finetune", "mae", 0.64, run="two"),
        make_number("finetune", "mae", 0.64, run="three"),
        make_number("finetune", "pixmim-mae", 0.63),
    ]
    frame = as_frame(rows)
    (table,) = build_main_results(summarise_main_results(frame.assign(source=range(4))))
    cell = table.rows[0][3]
    assert cell.text == "60.0 [59.0, 61.0]; 64.0 [63.0, 65.0]" and len(cell.sources) == 2
    assert "Several numbers in one cell: evaluations of one model that differ." in table.notes
    assert not any(one.bold for row in table.rows for one in row)  # 63 is within what MAE's numbers span


def test_only_a_lead_beyond_all_intervals_is_bold(make_number: Row, as_frame: Frame) -> None:
    for value, bold in ((0.64, True), (0.61, False)):
        rows = [make_number("finetune", "mae", 0.60), make_number("finetune", "pixmim-mae", value)]
        (table,) = build_main_results(summarise_main_results(as_frame(rows)))
        assert [row[3].bold for row in table.rows] == [False, bold, *[False] * 4]


def test_an_empty_cell_says_what_to_run(make_number: Row, as_frame: Frame) -> None:
    rows = [
        make_number("linear_probe", "mae", 0.3, command=COMMAND.format(suite="linear_probe", file="runs/mae.pt")),
        make_number("knn", "pixmim-mae", 0.3, command=COMMAND.format(suite="knn", file="'runs/pix mim.pt'")),
        make_number("knn", "lsmae", 0.3, command=COMMAND.format(suite="knn", file="'runs/*.pt'")),
    ]
    (table,) = build_main_results(summarise_main_results(as_frame(rows)))
    hints = {row[0].text: [cell.hint for cell in row[3:]] for row in table.rows}
    command = "python -m pixmim_eval.run --suite {} --checkpoint {} --data train={} val={}"
    assert hints["MAE"] == [
        command.format("finetune", "runs/mae.pt", "PATH", "PATH"),
        "",  # it has this number
        *[command.format("detection", "runs/mae.pt", "INSTANCES.json", "INSTANCES.json")] * 2,
        command.format("segmentation", "runs/mae.pt", "IMAGES", "IMAGES") + " --protocol upernet",
    ]
    # as others of the column were measured, and so with their data
    assert hints["PixMIM-MAE"][1] == command.format("linear_probe", "'runs/pix mim.pt'", "/d/train", "/d/val")
    # of several files nothing says which is this one
    for name in ("LSMAE", "ConvMAE"):
        assert hints[name][1] == command.format("linear_probe", "CHECKPOINT", "/d/train", "/d/val")


def test_hostile_names_are_text_in_every_format(make_number: Row, as_frame: Frame) -> None:
    names = ["<script>alert(1)</script>", "a|b_$x$ \\input{x}", "\u202eright\nto left", "x" * 300]
    rows = [
        make_number("finetune", "mae", 0.5 + place / 100, model=name, weights_digest=str(place), command="' --")
        for place, name in enumerate(names)
    ]
    (table,) = build_main_results(summarise_main_results(as_frame(rows)))
    labels = [row[1].text for row in table.rows][:4]
    assert set(names[:2]) | {"x" * 300} < set(labels)
    assert all("\n" not in label and "\u202e" not in label for label in labels)
    markdown, latex = to_markdown(table), to_latex(table)
    assert not re.search(r"(?<!\\)<script", markdown)
    assert r"\input{" not in latex and r"b\_\$x\$ \textbackslash{}input\{x\}" in latex
    assert len({line.count("|") - line.count("\\|") for line in markdown.splitlines() if line.startswith("|")}) == 1


def test_the_csv_has_every_number_raw(make_number: Row, as_frame: Frame) -> None:
    rows = [make_number("finetune", "mae", 0.123456789), make_number("segmentation", "mae", 0.2, condition="linear")]
    frame = as_frame([*rows, make_number("finetune", "supervised", 0.5)])
    numbers = tabulate_main_results(summarise_main_results(frame))
    assert numbers[["method", "column", "value", "n"]].to_numpy().tolist() == [
        ["MAE", "fine-tune top-1", 0.123456789, 1024],
        ["MAE", "mIoU, linear", 0.2, 1024],
    ]
    (sheet,) = list_main_sheets(frame)
    assert sheet.stem == "main-results" and len(sheet.numbers) == 2
    assert list_main_sheets(frame[frame["method"] == "supervised"]) == []
