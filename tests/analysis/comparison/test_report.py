"""The comparison on the terminal, as a page, as tables and as a figure."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from analysis.comparison.checkpoints import compare_checkpoints
from analysis.comparison.figures import LONGEST, draw_differences
from analysis.comparison.lines import describe_verdict, list_lines
from analysis.comparison.report import build_comparison, name_files
from analysis.comparison.terminal import print_comparison
from analysis.run import main
from tests.analysis.rows import build_outcomes, build_row, frame_outcomes

A = {"model": "mae-20", "weights_digest": "aaaa000011112222", "method": "mae", "epoch": 20}
B = {"model": "pixmim-mae-20", "weights_digest": "bbbb000011112222", "method": "pixmim-mae", "epoch": 20}
HOSTILE = "<script>alert(1)</script>[red]$x_1$\\|`" + "\u202e" + "m" * 300


def frame_pair(values: dict[str, tuple[float, float]], metric: str = "top1", **changes: object) -> pd.DataFrame:
    rows = [
        build_row(condition, value, **{"metric": metric, "n": 5000, **who, **changes})
        for condition, pair in values.items()
        for value, who in zip(pair, (A, B), strict=True)
    ]
    return frame_outcomes((rows, {})).assign(source=range(len(rows)))


def render(rows: pd.DataFrame, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    print_comparison(compare_checkpoints(rows, "aaaa", "bbbb"), console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_verdict_counts_better_worse_and_not_separable() -> None:
    rows = frame_pair({"clean": (0.3, 0.5), "hard": (0.5, 0.3), "sketch": (0.5, 0.501), "cue": (0.2, 0.4)})
    sentence = describe_verdict(compare_checkpoints(rows, "aaaa", "bbbb"))
    assert sentence == "pixmim-mae-20 is better than mae-20 on 2, worse on 1, not separable on 1 of 4."


def test_marks_tell_without_colour_what_is_better(capsys: pytest.CaptureFixture) -> None:
    text = render(frame_pair({"clean": (0.3, 0.5), "hard": (0.5, 0.3), "sketch": (0.5, 0.501)}))
    lines = {word: line for line in text.splitlines() for word in ("clean", "hard", "sketch") if word in line}
    assert lines["clean"].lstrip().startswith("+ better") and "+20.0 [+18.1, +21.9]" in lines["clean"]
    assert lines["hard"].lstrip().startswith("− worse") and "−20.0" in lines["hard"]
    assert lines["sketch"].lstrip().startswith("= not separable")


@pytest.mark.parametrize("width", [80, 120, 200])
def test_no_terminal_is_too_narrow_for_a_difference_and_its_p(width: int) -> None:
    lines = render(frame_pair({"imagenet-sketch": (0.3, 0.5)}), width=width).splitlines()
    (line,) = [line for line in lines if "imagenet-sketch" in line]
    assert line.lstrip().startswith("+") and "+20.0 [+18.1, +21.9]   < 0.001    < 0.001" in line
    table = lines[2 : lines.index("+ B is better")]
    assert max(map(len, table)) <= width


def test_shape_bias_is_higher_or_lower_but_never_better() -> None:
    rows = frame_pair({"cue-conflict": (0.3, 0.5)}, "shape_bias", suite="shape_bias")
    text = render(rows)
    assert "▲ higher" in text and "higher on 1 and lower on 0 where neither is better" in text


def test_a_long_terminal_line_is_never_cut_in_a_command() -> None:
    command = "python -m pixmim_eval.run --suite knn --checkpoint a.pth --data " + "x" * 300
    rows = [build_row("clean", 0.5, suite="knn", command=command, **A)]
    rows += [build_row("clean", 0.5, **who) for who in (A, B)]
    assert command.replace("a.pth", "CHECKPOINT") in render(frame_outcomes((rows, {})), width=100)


def test_names_are_text_on_the_terminal_in_the_page_and_in_files(tmp_path: Path) -> None:
    rows = frame_pair({f"{HOSTILE}/x": (0.3, 0.5), "[bold]clean[/bold]": (0.3, 0.5)})
    rows["model"] = rows["model"].map({"mae-20": HOSTILE, "pixmim-mae-20": "../../etc"})
    comparison = compare_checkpoints(rows, "aaaa", "bbbb")
    assert "<script>alert(1)</script>[red]" in render(rows) and "[bold]clean[/bold]" in render(rows)
    stem = name_files(comparison)
    assert "/" not in stem and "<" not in stem and len(stem) < 140
    report = build_comparison(comparison, rows)
    assert report.sections[0].sheets[0].stem == stem
    for figure in draw_differences(comparison):
        figure.savefig(io.BytesIO(), format="png")


def test_names_that_look_the_same_in_a_file_name_get_their_digest() -> None:
    rows = frame_pair({"clean": (0.3, 0.5)})
    rows["model"] = rows["model"].map({"mae-20": "a/b", "pixmim-mae-20": "a:b"})
    assert name_files(compare_checkpoints(rows, "aaaa", "bbbb")) == "compare-a-b-aaaa00-a-b-bbbb00"


def test_conditions_that_only_a_protocol_tells_apart_say_which_is_which() -> None:
    protocols = ("head=own;precision=float32", "head=own;precision=bfloat16")
    rows = [build_row("clean", 0.5, protocol=protocol, **who) for protocol in protocols for who in (A, B)]
    names = [line.name for line in list_lines(compare_checkpoints(frame_outcomes((rows, {})), "aaaa", "bbbb"))]
    assert names == ["top-1 accuracy (precision=float32)", "top-1 accuracy (precision=bfloat16)"]


def test_cells_of_the_page_name_their_rows() -> None:
    rows = frame_pair({"clean": (0.3, 0.5)})
    report = build_comparison(compare_checkpoints(rows, "aaaa", "bbbb"), rows)
    (row,) = next(section for section in report.sections if section.name == "suite-robustness").tables[0].rows
    assert [cell.sources for cell in row[2:5]] == [(0,), (1,), (0, 1)]
    assert row[0].text == "+ better" and row[0].bold


def test_what_could_not_be_compared_stands_in_the_page_with_what_to_run() -> None:
    rows = [build_row("clean", value, **who) for value, who in ((0.3, A), (0.5, B))]
    rows += [build_row("hard", value, run=str(value), **B) for value in (0.3, 0.4)]
    rows += [build_row("hard", 0.3, **A), build_row("clean", 0.3, suite="knn", **A)]
    rows += [build_row("sketch", 0.3, protocol="head=own", **A), build_row("sketch", 0.3, protocol="head=knn", **B)]
    frame = frame_outcomes((rows, {})).assign(source=range(len(rows)))
    report = build_comparison(compare_checkpoints(frame, "aaaa", "bbbb"), frame)
    missing, mismatches, doubles = report.sections[-1].tables
    assert [cell.text for cell in missing.rows[0]][:2] == ["pixmim-mae-20", "knn"]
    assert missing.rows[0][-1].text.startswith("python -m pixmim_eval.run ") and missing.rows[0][4].sources == (5,)
    assert [cell.text for cell in mismatches.rows[0]][3:5] == ["head=own", "head=knn"]
    assert [row[-1].sources for row in doubles.rows] == [(2,), (3,)]
    assert any("Several values" in problem for problem in report.problems)


@pytest.mark.parametrize("columns", [1, 2])
def test_the_figure_shows_every_difference_in_bs_favour_to_the_right(columns: int) -> None:
    rows = pd.concat(
        [frame_pair({"clean": (0.3, 0.5), "hard": (0.5, 0.503)}), frame_pair({"summary": (0.5, 0.4)}, "mce_15")]
    )
    comparison = compare_checkpoints(rows.assign(source=range(len(rows))), "aaaa", "bbbb")
    (figure,) = draw_differences(comparison, columns=columns)
    (axes,) = figure.axes
    drawn = sorted((float(line.get_xdata()[0]), line) for line in axes.lines if line.get_marker() not in ("None", None))
    expected = sorted(100 * line.favour.value for line in list_lines(comparison))
    assert [value for value, _ in drawn] == pytest.approx(expected) and max(expected) == pytest.approx(20)
    filled = [line.get_markerfacecolor() != "white" for _, line in drawn]
    assert filled == [False, True, True]
    assert _overlaps(figure) == 0
    label = axes.xaxis.label.get_window_extent()
    assert label.x0 > 0 and label.x1 < figure.bbox.x1


def _overlaps(figure: Figure) -> int:
    """How many pairs of texts of the page cover each other."""
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.texts if text.get_text()]
    return sum(one.overlaps(other) for place, one in enumerate(boxes) for other in boxes[:place])


def test_many_differences_take_several_pages() -> None:
    rows = frame_pair({f"set-{place}": (0.3, 0.4) for place in range(LONGEST + 1)})
    assert len(draw_differences(compare_checkpoints(rows, "aaaa", "bbbb"))) == 2


@pytest.fixture
def folders(write_run: Callable[..., Path]) -> list[str]:
    models = [
        build_outcomes(rate, ("fog",), 60, stream, **who) for stream, (rate, who) in enumerate([(0.5, A), (0.7, B)])
    ]
    return [str(write_run(rows, who["model"], hits)) for (rows, hits), who in zip(models, (A, B), strict=True)]


def test_the_command_writes_page_tables_and_figure(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "reports"
    assert main(["compare", "mae@20", "pixmim", "--runs", *folders, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("pixmim-mae-20 is better than mae-20 on ") and "McNemar" in printed
    stem = "compare-mae-20-pixmim-mae-20"
    files = [out / f"{stem}.html", *(out / "tables" / f"{stem}.{ending}" for ending in ("md", "csv", "tex"))]
    files += [out / "figures" / f"{stem}.{ending}" for ending in ("png", "pdf")]
    assert all(file.stat().st_size > 500 for file in files)
    assert printed.splitlines()[-len(files) :] == [str(file) for file in files]
    table = pd.read_csv(files[2])
    assert set(table["family"]) == {"page", "single"}
    assert set(table.loc[table["family"] == "single", "condition"]) == {f"fog/{level}" for level in range(1, 6)}
    tested = table[table["holm_p"].notna()]
    assert (tested["holm_p"] >= tested["p"]).all()


@pytest.mark.parametrize("names", [("mae-20", "nothing"), ("mae-20", "mae-20")])
def test_bad_names_end_with_exit_code_2_and_one_line(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture, names: tuple[str, str]
) -> None:
    assert main(["compare", *names, "--runs", *folders, "--out", str(tmp_path / "reports")]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1 and not printed.out
    assert not (tmp_path / "reports").exists()
