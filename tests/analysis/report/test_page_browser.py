"""The page as people use it: in a browser, with a mouse, a keyboard, on paper and in the dark."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.report.page import write_page
from analysis.report.parts import Report
from tests.analysis.report.samples import HOSTILE, SORTED, build_hostile, build_many, build_report

ROBUSTNESS, SCORES = "#page-table-1", "#page-table-2"
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return build_report(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def plain(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(report, tmp_path_factory.mktemp("plain") / "index.html")


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    report = build_many(10_000, shown=100)
    return report, write_page(report, tmp_path_factory.mktemp("many") / "index.html")


def read_column(page: Any, table: str, column: int) -> list[str]:
    found = page.locator(f"{table} tbody tr:visible > :nth-child({column})").all_inner_texts()
    return [text.strip() for text in found]


def read_number(text: str) -> float | None:
    found = re.match(r"(<?) ?([-+]?[\d,.]+(e[-+]?\d+)?)", text.replace("−", "-"))
    return float(found[2].replace(",", "")) - (1e-12 if found[1] else 0) if found else None


def sort_texts(texts: tuple[str, ...], sign: int) -> list[str]:
    """Python's own: by number, what has none last, ties as they came."""
    return sorted(texts, key=lambda text: (read_number(text) is None, sign * (read_number(text) or 0)))


def read_record(page: Any) -> dict[str, str]:
    """Fields of the row that the dialog shows."""
    return page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll("#page-record .row > dl > div")].map((entry) =>
            [entry.querySelector("dt").textContent, entry.querySelector("dd").textContent]))"""
    )


def test_columns_sort_by_number_up_down_and_back(open_page: Open, plain: Path) -> None:
    page = open_page(plain)
    head = page.locator(f"{SCORES} thead th").nth(1)
    button = head.get_by_role("button", name="score")
    seen = [(head.get_attribute("aria-sort"), read_column(page, SCORES, 2))]
    for _ in range(3):
        button.click()
        seen.append((head.get_attribute("aria-sort"), read_column(page, SCORES, 2)))
    assert seen == [
        ("none", list(SORTED)),
        ("ascending", sort_texts(SORTED, 1)),
        ("descending", sort_texts(SORTED, -1)),
        ("none", list(SORTED)),
    ]
    names = [f"model-{place}" for place in range(len(SORTED))]
    page.locator(f"{SCORES} thead th").nth(0).get_by_role("button").click()
    assert read_column(page, SCORES, 1) == names  # 10 after 9
    page.locator(f"{SCORES} thead th").nth(2).get_by_role("button").click()
    assert read_column(page, SCORES, 1) == names[1::2] + names[::2]
    sorts = [one.get_attribute("aria-sort") for one in page.locator(f"{SCORES} thead th").all()]
    assert sorts == ["none", "none", "ascending"]


def test_filter_counts_what_it_leaves(open_page: Open, plain: Path) -> None:
    page = open_page(plain)
    assert page.locator(f"{ROBUSTNESS} input").count() == 0  # two rows need none
    page.get_by_label("Filter").fill("ODD model-1")
    assert read_column(page, SCORES, 1) == ["model-10"]
    assert page.locator(f"{SCORES} [role=status]").inner_text() == "1 of 12 rows"
    page.get_by_label("Filter").fill("")
    assert len(read_column(page, SCORES, 1)) == 12
    assert page.locator(f"{SCORES} [role=status]").inner_text() == "12 rows"


def count_marks(page: Any, figure: int) -> list[list[bool]]:
    """Of all that is drawn for each method of a figure, and last for none, whether it is seen."""
    return page.evaluate(
        """(anchor) => {
            const plot = document.querySelector(`#${anchor} svg:not(.swatch)`);
            const seen = (one) => one === plot || (getComputedStyle(one).display !== "none" && seen(one.parentElement));
            const drawn = [...plot.querySelectorAll("path, text, use")];
            const method = (one) => one.closest("[data-method]")?.dataset.method;
            return ["0", "1", undefined].map((number) => drawn.filter((one) => method(one) === number).map(seen));
        }""",
        f"page-figure-{figure}",
    )


def test_a_switch_hides_exactly_the_artists_of_its_method(open_page: Open, plain: Path) -> None:
    page = open_page(plain)
    first, second, rest = count_marks(page, 1)
    assert len(first) == len(second) >= 3
    assert all(first + second + rest)
    page.locator("#page-figure-1").get_by_label("mae", exact=True).uncheck()
    assert count_marks(page, 1) == [[False] * len(first), second, rest]
    assert all(all(seen) for seen in count_marks(page, 2))  # other plots stay
    page.locator("#page-figure-1").get_by_label("mae", exact=True).check()
    assert count_marks(page, 1) == [first, second, rest]
    assert page.locator("#page-figure-3 input").count() == 0  # one method: nothing to choose


def test_a_method_is_switched_in_all_plots_at_once(open_page: Open, plain: Path) -> None:
    page = open_page(plain)
    everywhere = page.get_by_role("group", name="In all plots").get_by_label("pixmim-mae")
    everywhere.uncheck()
    for figure in (1, 2):
        first, second, rest = count_marks(page, figure)
        assert all(first + rest)
        assert not any(second)
    page.locator("#page-figure-2").get_by_label("pixmim-mae").check()
    assert everywhere.evaluate("box => [box.checked, box.indeterminate]") == [False, True]
    assert not any(count_marks(page, 1)[1])
    everywhere.check()
    assert all(count_marks(page, 1)[1])


def test_a_number_opens_its_row(open_page: Open, plain: Path, report: Report) -> None:
    page = open_page(plain)
    cell = report.sections[0].tables[0].rows[0][1]
    row = report.rows.iloc[cell.sources[0]]
    page.locator(ROBUSTNESS).get_by_role("button", name=cell.text).click()
    dialog = page.get_by_role("dialog", name="mae · clean")
    assert dialog.is_visible()
    found = read_record(page)
    for name in ("run", "model", "weights_digest", "dataset", "subset", "condition", "metric", "unit", "seed", "time"):
        assert found[name.replace("_", " ")] == str(row[name])
    assert {float(found[name]) - row[name] for name in ("value", "low", "high", "n", "epoch")} == {0}
    settings = " ".join(dialog.locator("dd > dl").first.inner_text().split())
    assert settings == "head finetune epochs 3 drop_path 0.1 ema pooling own source files"
    shown = f"{100 * row['value']:.2f} % [{100 * row['low']:.2f}, {100 * row['high']:.2f}], n = {row['n']:,}"
    assert dialog.locator(".estimate").inner_text() == shown
    assert dialog.locator("pre").inner_text() == row["command"]


def test_a_number_of_several_rows_lists_them(open_page: Open, plain: Path, report: Report) -> None:
    page = open_page(plain)
    cell = report.sections[0].tables[0].rows[1][2]
    rows = report.rows.iloc[list(cell.sources)]
    page.locator(ROBUSTNESS).get_by_role("button", name=cell.text).click()
    lines = page.get_by_role("dialog").locator("tbody tr")
    assert lines.locator("td:first-child").all_inner_texts() == list(rows["condition"])
    lines.nth(3).get_by_role("button").click()
    assert read_record(page)["value"] == repr(float(rows["value"].iloc[3]))


def test_an_empty_cell_says_what_to_run_and_it_can_be_copied(open_page: Open, plain: Path, report: Report) -> None:
    page = open_page(plain, permissions=["clipboard-read", "clipboard-write"])
    page.locator(ROBUSTNESS).get_by_role("button", name="missing").first.click()
    hint = report.sections[0].tables[0].rows[0][5].hint
    dialog = page.get_by_role("dialog", name="mae · detection")
    assert dialog.locator("pre").inner_text() == hint
    dialog.get_by_role("button", name="Copy").click()
    dialog.get_by_text("Copied.").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == hint
    page.evaluate("void (navigator.clipboard.writeText = () => Promise.reject())")
    dialog.get_by_role("button", name="Copy").click()
    dialog.get_by_text("Selected").wait_for()
    assert page.evaluate("getSelection().toString().trim()") == hint


def test_everything_can_be_done_with_keys(open_page: Open, plain: Path) -> None:
    page = open_page(plain)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the results"
    page.keyboard.press("Enter")
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        active = "const one = document.activeElement; [one.tagName, one.className, one.textContent.trim()]"
        reached.append(tuple(page.evaluate(f"(() => {{ {active.replace('; [', '; return [')} }})()")))
        if reached[-1][1] == "number":
            break
    kinds = [(tag, name) for tag, name, _ in reached]
    assert kinds.count(("BUTTON", "sort")) == 6
    assert kinds[-1] == ("BUTTON", "number")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Enter")
    assert page.get_by_role("dialog").is_visible()
    page.keyboard.press("Escape")
    assert page.get_by_role("dialog").count() == 0
    assert page.evaluate("document.activeElement.className") == "number"  # back where it came from
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    assert page.locator(f"{ROBUSTNESS} [aria-sort=ascending]").count() == 1


def test_controls_have_names_and_landmarks_exist(open_page: Open, plain: Path) -> None:
    page = open_page(plain)
    page.locator(ROBUSTNESS).get_by_role("button", name="71.0").click()
    unnamed = page.evaluate(
        """() => {
            const text = (one) => one.textContent.trim() || one.getAttribute("aria-label") || "";
            const named = (one) => [...(one.labels ?? [])].some(text) || text(one);
            const controls = [...document.querySelectorAll("button, input, select, a[href], summary")];
            return controls.filter((one) => !named(one)).map((one) => one.outerHTML);
        }"""
    )
    assert unnamed == []
    page.keyboard.press("Escape")
    for role in ("banner", "main", "complementary"):
        assert page.get_by_role(role).count() == 1
    assert page.get_by_role("navigation", name="Contents").count() == 1
    assert page.get_by_role("img", name="Accuracy over severities").count() == 1
    assert page.get_by_role("table", name="Scores").count() == 1
    assert page.get_by_role("list").filter(has_text="contradict").count() == 1


def test_all_rows_are_paged_filtered_and_sorted(open_page: Open, many: tuple[Report, Path]) -> None:
    report, path = many
    rows, page = report.rows, open_page(path)
    section = page.locator("#page-rows")
    status = section.locator("[role=status]")
    assert status.inner_text() == "Rows 1–50 of 10,000"
    assert section.locator("tbody tr").count() == 50
    section.get_by_label("Metric").select_option(label="miou")
    section.get_by_label("Search all fields").fill("MODEL-7")
    found = rows[(rows["metric"] == "miou") & rows["model"].str.contains("model-7")]
    assert status.inner_text() == f"Rows 1–50 of {len(found)} that match, of 10,000"
    section.get_by_role("button", name="value").click()
    section.get_by_role("button", name="value").click()
    section.get_by_role("button", name="Next").click()
    assert status.inner_text() == f"Rows 51–{len(found)} of {len(found)} that match, of 10,000"
    expected = found.sort_values("value", ascending=False, kind="stable").iloc[50:]
    values = section.locator("tbody td:nth-child(6)").all_inner_texts()
    assert values == [f"{100 * value:.2f} %" for value in expected["value"]]
    section.locator("tbody .number").first.click()
    assert read_record(page)["value"] == repr(float(expected["value"].iloc[0]))
    page.keyboard.press("Escape")
    section.get_by_label("Search all fields").fill("nowhere")
    assert status.inner_text() == "No row of 10,000 matches"


def find_paper(page: Any) -> str:
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def test_dark_follows_the_system_and_a_choice_is_remembered(open_page: Open, plain: Path) -> None:
    light, dark = open_page(plain, color_scheme="light"), open_page(plain, color_scheme="dark")
    papers = find_paper(light), find_paper(dark)
    assert len({*papers}) == 2
    light.get_by_role("button", name="Dark colours").click()
    assert find_paper(light) == papers[1]
    light.reload()
    assert find_paper(light) == papers[1]
    light.get_by_role("button", name="Light colours").click()
    assert find_paper(light) == papers[0]


def test_hostile_names_do_nothing_and_are_read_in_full(open_page: Open, tmp_path: Path) -> None:
    page = open_page(
        write_page(build_hostile(tmp_path), tmp_path / "index.html"), viewport={"width": 360, "height": 740}
    )
    shown = page.evaluate(
        """() => [...document.querySelectorAll("#page-table-1 [data-hint] .number")].map((button) => {
            button.click();
            const dialog = document.getElementById("page-record");
            const found = [dialog.querySelector("h2").textContent, dialog.querySelector("pre").textContent];
            dialog.close();
            return found;
        })"""
    )
    assert shown == [[f"{name} · {HOSTILE[0]}".strip(), name] for name in HOSTILE]
    for place, name in enumerate(HOSTILE[:3], start=1):
        page.locator(f"#page-table-{place} [data-rows] .number").first.click()
        assert read_record(page)["model"] == name
        page.keyboard.press("Escape")
    page.locator("#page-table-5 [data-rows] .number").nth(4).click()
    assert read_record(page)["seed"] == "9007199254740993"
    page.keyboard.press("Escape")
    page.locator("#page-rows .number").first.click()
    assert page.locator(".estimate").inner_text() == "– [–, –], n = 1,024"
    assert page.evaluate("window.harmed") is None
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_small_screens_show_all_without_scrolling_the_page_sideways(open_page: Open, plain: Path) -> None:
    page = open_page(plain, viewport={"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    wide = page.locator(".scroll").filter(has=page.locator(ROBUSTNESS))
    assert wide.evaluate("one => one.scrollWidth > one.clientWidth && one.tabIndex === 0")


def test_paper_has_no_controls_and_nothing_cut_off(open_page: Open, plain: Path) -> None:
    page = open_page(plain, color_scheme="dark", viewport={"width": 680, "height": 960})
    page.emulate_media(media="print")
    assert find_paper(page) == "rgb(255, 255, 255)"
    assert page.locator("input:visible, select:visible, .control:visible").count() == 0
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 680
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0


def test_without_javascript_tables_and_figures_are_there(open_page: Open, plain: Path) -> None:
    page = open_page(plain, java_script_enabled=False)
    assert page.locator("table:visible").count() == 2
    assert page.locator("[role=img]:visible, img:visible").count() == 4
    assert page.get_by_text("Listing them here takes JavaScript").is_visible()
    assert page.locator("input:visible, button:visible").count() == 0
