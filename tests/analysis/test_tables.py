"""Tables print the statistics, mark leads only beyond the noise, and are valid Markdown and LaTeX."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from analysis.columns import CORRUPTION_GROUPS
from analysis.formats import Cell, Table, escape_latex, to_latex, to_markdown
from analysis.groups import split_groups
from analysis.robustness.statistics import summarise_robustness
from analysis.tables import build_robustness, write_tables
from pixmim_eval.types import ResultRow
from tests.analysis.rows import build_outcomes, frame_outcomes

Rows = Callable[..., list[ResultRow]]
Frame = Callable[[list[ResultRow]], pd.DataFrame]
FIFTEEN = tuple(name for family in ("noise", "blur", "weather", "digital") for name in CORRUPTION_GROUPS[family])


@pytest.fixture
def build(as_frame: Frame) -> Callable[[list[ResultRow]], list[Table]]:
    return lambda rows: build_robustness(summarise_robustness(*split_groups(as_frame(rows), "robustness")))


@pytest.fixture
def example(make_row: Callable) -> list[ResultRow]:
    """Two models with hand-made numbers; the second lacks severity 5 of fog and the sketches."""
    severities = [(0.80, 0.78, 0.82), (0.70, 0.67, 0.73), (0.60, 0.57, 0.63), (0.50, 0.46, 0.54), (0.40, 0.36, 0.44)]
    rows = [make_row("clean", 0.901, low=0.89, high=0.91), make_row("sketch", 0.25, low=0.2, high=0.3)]
    rows += [make_row(f"fog/{s}", v, low=low, high=high) for s, (v, low, high) in enumerate(severities, start=1)]
    rows += [make_row("summary", 0.4, metric="mean_error_1", low=0.38, high=0.42)]
    other = [replace(row, model="other_model", weights_digest="b") for row in rows]
    other = [row for row in other if row.condition not in ("fog/5", "sketch")]
    changed = {"clean": (0.95, 0.93, 0.97), "summary": (0.39, 0.37, 0.41)}
    for place, row in enumerate(other):
        if row.condition in changed:
            value, low, high = changed[row.condition]
            other[place] = replace(row, value=value, low=low, high=high)
    return rows + other


def test_cells_are_the_hand_computed_numbers(example: list[ResultRow], build: Callable) -> None:
    (table,) = build(example)
    assert table.head == ("model", "clean", "fog", "mean_error_1", "sketch")
    # fog: mean of 80 70 60 50 40; half-width: mean of 2 3 3 4 4.
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["mae-small", "90.1 ± 1.0", "60.0 ± 3.2", "40.0 ± 2.0", "25.0 ± 5.0"],
        ["other_model", "95.0 ± 2.0", "–", "39.0 ± 2.0", "–"],
    ]


def test_only_a_lead_beyond_the_intervals_is_bold(example: list[ResultRow], build: Callable) -> None:
    (table,) = build(example)
    assert [[cell.bold for cell in row] for row in table.rows] == [5 * [False], [False, True, False, False, False]]
    assert any(note.startswith("Bold:") for note in table.notes)
    assert "**95.0 ± 2.0**" in to_markdown(table)
    assert r"\textbf{95.0 $\pm$ 2.0}" in to_latex(table)


def test_equal_models_are_said_to_be_equal(make_model: Rows, build: Callable) -> None:
    (table,) = build(make_model(0.9) + make_model(0.905, model="other", weights_digest="b"))
    assert not any(cell.bold for row in table.rows for cell in row)
    assert "No model leads beyond its interval." in table.notes


def test_many_corruptions_are_averaged_by_family_and_listed_below(make_model: Rows, build: Callable) -> None:
    rows = make_model(0.9, FIFTEEN) + make_model(0.7, FIFTEEN, model="other", weights_digest="b")
    main, corruptions = build(rows)
    assert main.head[1:6] == ("clean", "noise (3)", "blur (4)", "weather (4)", "digital (4)")
    assert [row[0].text for row in corruptions.rows] == [name.replace("_", " ") for name in FIFTEEN]
    noise = [float(row[1].text.split()[0]) for row in corruptions.rows[:3]]
    assert float(main.rows[0][2].text.split()[0]) == pytest.approx(sum(noise) / 3, abs=0.1)


def test_latex_escapes_what_latex_would_read() -> None:
    assert escape_latex("a_b & 5 % #1 $x {y} ~z ^w \\") == (
        r"a\_b \& 5 \% \#1 \$x \{y\} \textasciitilde{}z \textasciicircum{}w \textbackslash{}"
    )


def test_the_latex_table_is_booktabs_with_as_many_cells_as_columns(example: list[ResultRow], build: Callable) -> None:
    text = to_latex(build(example)[0])
    assert re.search(r"(?<!\\)_", text.replace(r"\_", "")) is None
    assert all(rule in text for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\begin{tabular}{lrrrr}"))
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert [line.count(" & ") for line in body] == [4, 4]
    assert all(line.endswith(r" \\") for line in body)
    assert text.count("{") == text.count("}")


def test_the_markdown_table_is_rectangular(example: list[ResultRow], build: Callable) -> None:
    lines = [line for line in to_markdown(build(example)[0]).splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {6}
    assert r"other\_model" in lines[3]


def test_what_a_head_chose_is_noted_for_each_model(make_model: Rows, build: Callable) -> None:
    protocol = "head=logistic-lbfgs(l2=0.01,pool=mean,train=99);pooling=mean;source=generated"
    (table,) = build(make_model(0.9, protocol=protocol))
    assert "mae-small: l2=0.01,pool=mean." in table.notes


def test_csv_reads_back_as_the_raw_numbers(example: list[ResultRow], as_frame: Frame, tmp_path: Path) -> None:
    written = write_tables(as_frame(example), tmp_path)
    assert {path.relative_to(tmp_path).as_posix() for path in written} == {
        f"tables/{name}.{ending}" for name in ("robustness", "published") for ending in ("md", "csv", "tex")
    }
    table = pd.read_csv(tmp_path / "tables" / "robustness.csv")
    cell = table[(table["model"] == "mae-small") & (table["kind"] == "clean")].iloc[0]
    assert (cell["value"], cell["low"], cell["high"], cell["n"]) == (0.901, 0.89, 0.91, 1024)
    assert table[(table["model"] == "other_model") & (table["condition"] == "fog")]["value"].isna().all()


def test_mixed_sources_become_two_tables(make_row: Callable, as_frame: Frame, tmp_path: Path) -> None:
    rows = [make_row("fog/1", 0.5, protocol=f"head=own;source={source}") for source in ("generated", "files")]
    names = {path.name for path in write_tables(as_frame(rows), tmp_path)}
    assert {"robustness-source-files.md", "robustness-source-generated.md"} <= names
    assert "robustness.md" not in names


def test_published_tables_name_source_and_confidence(example: list[ResultRow], as_frame: Frame, tmp_path: Path) -> None:
    write_tables(as_frame(example), tmp_path)
    text = (tmp_path / "tables" / "published.md").read_text()
    assert (
        "| MAE, fine-tuned | ViT-B/16 | 1600 | imagenet-a | top1 | 35.9 | exact | facebookresearch/mae:README.md |"
        in text
    )
    assert "| 68.0 |" in text  # with the digits of the source
    table = pd.read_csv(io.StringIO((tmp_path / "tables" / "published.csv").read_text()))
    assert table[["source", "confidence"]].notna().all().all()


@pytest.fixture(scope="module")
def two_runs() -> pd.DataFrame:
    own = {"model": "pixmim-mae-b", "method": "pixmim-mae", "weights_digest": "b"}
    models = (build_outcomes(0.78, stream=1, model="mae-b"), build_outcomes(0.84, stream=2, **own))
    return frame_outcomes(*models)


def test_a_whole_run_has_three_tables(two_runs: pd.DataFrame) -> None:
    main, corruptions, variants = build_robustness(summarise_robustness(*split_groups(two_runs, "robustness")))
    groups = tuple(f"{name} ({len(members)})" for name, members in CORRUPTION_GROUPS.items())
    errors = ("mean_error_15", "mean_error_19", "mce_15", "relative_mce_15")
    assert main.head == ("model", "clean", "ECE, clean", *groups, *errors)
    row = two_runs[(two_runs["metric"] == "mce_15") & (two_runs["model"] == "mae-b")].iloc[0]
    assert main.rows[0][10].text == f"{100 * row['value']:.1f} ± {50 * (row['high'] - row['low']):.1f}"
    assert any(note.startswith("mce_15 and relative_mce_15: in per cent of AlexNet’s") for note in main.notes)
    assert len(corruptions.rows) == 19
    assert variants.head[1:3] == ("imagenet-a (masked200)", "clean, classes of imagenet-a (masked200)")
    row = two_runs[(two_runs["metric"] == "clean_top1_masked200") & (two_runs["condition"] == "imagenet-a")].iloc[0]
    assert variants.rows[0][2].text.startswith(f"{100 * row['value']:.1f} ± ")


def test_differences_are_printed_with_interval_p_and_verdict(two_runs: pd.DataFrame, tmp_path: Path) -> None:
    names = {path.name for path in write_tables(two_runs, tmp_path)}
    assert {f"robustness-differences.{ending}" for ending in ("md", "csv", "tex")} <= names
    table = pd.read_csv(tmp_path / "tables" / "robustness-differences.csv").set_index("condition")
    assert len(table) == 1 + 5 + 2 + 4
    assert set(table["first_label"]) == {"mae-b"} and set(table["second_label"]) == {"pixmim-mae-b"}
    assert table["mcnemar_p"].notna().sum() == 1 + 4
    separable = (table["low"] > 0) | (table["high"] < 0)
    assert (table["separable"] == "yes").tolist() == separable.tolist() and 0 < separable.sum() < len(table)
    text = (tmp_path / "tables" / "robustness-differences.md").read_text()
    found = table.loc["mean_error_15"]
    value, low, high = (f"{100 * found[name]:+.1f}".replace("-", "−") for name in ("value", "low", "high"))
    line = next(line for line in text.splitlines() if "all 15 corruptions" in line)
    assert f"{value} \\[{low}, {high}\\]" in line and line.endswith("| 1,000 | yes |")
    assert any("imagenet-a (masked200)" in line for line in text.splitlines())


def test_rows_without_outcomes_have_no_differences(make_model: Rows, as_frame: Frame, tmp_path: Path) -> None:
    rows = make_model(0.9) + make_model(0.8, model="other", weights_digest="b")
    assert not [path for path in write_tables(as_frame(rows), tmp_path) if "differences" in path.name]


def test_a_hostile_name_stays_in_its_cell() -> None:
    name = "_$x$ | <b> & `y`\n# \\frac"
    table = Table("t", ("model",), ((Cell(name),),), "l", ())
    row = next(line for line in to_markdown(table).splitlines() if "frac" in line)
    assert row == r"| \_\$x\$ \| \<b> \& \`y\` \# \\frac |"
    printed = r"\_\$x\$ $|$ $<$b$>$ \& \textasciigrave{}y\textasciigrave{} \# \textbackslash{}frac \\"
    assert printed in to_latex(table).splitlines()
