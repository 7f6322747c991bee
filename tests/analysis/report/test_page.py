"""The page as text: whole, self-contained, and safe whatever names a report holds."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections import Counter
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.formats import Table
from analysis.layout import HUES, darken, lighten
from analysis.report.methods import find_shared, list_methods
from analysis.report.page import encode_rows, mark_commands, render_page, soften, write_page
from analysis.report.parts import Picture, Report, Section, mark_method
from pixmim_eval.errors import InputError
from pixmim_eval.results import COLUMNS
from tests.analysis.report.samples import HOSTILE, MODELS, build_hostile, build_many, build_report, draw_lines

VOID = {"meta", "link", "img", "input", "br", "hr", "wbr"}
LOADING = ("src", "href", "srcset", "action", "formaction", "data", "poster", "background", "cite", "ping", "manifest")


class Reader(HTMLParser):
    """Elements, their attributes and texts of a page; elements must close in the order in which they opened."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.in_word = False  # behind a place where a word may break
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self.in_word = tag == "wbr"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.in_word = False

    def handle_data(self, data: str) -> None:
        if {"script", "style"} & {*self.open}:
            return
        if self.in_word:
            self.texts[-1] += data
        else:
            self.texts.append(data)

    def values(self, name: str) -> list[str]:
        return [attributes[name] for _, attributes in self.elements if name in attributes]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> str:
    return render_page(build_report(tmp_path_factory.mktemp("plain")))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    return render_page(build_hostile(tmp_path_factory.mktemp("hostile")))


def find_data(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="page-data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1], parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def decode_number(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return int(value) if value.isdigit() else float(value)


def decode_rows(data: dict[str, Any]) -> pd.DataFrame:
    """What the page's script does, in pandas."""
    columns = {}
    for name, column in data["columns"].items():
        values = column["values"]
        if "codes" in column:
            values = [None if code < 0 else values[code] for code in column["codes"]]
        if column["kind"] == "number":
            values = [decode_number(value) for value in values]
        assert len(values) == data["length"]
        columns[name] = values
    return pd.DataFrame(columns)


@pytest.mark.parametrize("name", ["plain", "hostile"])
def test_page_is_whole_and_refers_to_nothing_outside(name: str, request: pytest.FixtureRequest) -> None:
    text = request.getfixturevalue(name)
    reader = Reader(text)
    assert reader.open == []
    found = [(tag, key, value) for tag, attributes in reader.elements for key, value in attributes.items()]
    references = [value for _, key, value in found if key in LOADING or key.endswith(":href")]
    references += re.findall(r"url\(\s*['\"]?([^)]*)", text)
    assert references
    assert [value for value in references if not value.startswith(("data:", "#"))] == []
    assert "@import" not in text
    ids = Counter(reader.values("id"))
    assert [one for one, number in ids.items() if number > 1] == []
    targets = [value[1:] for value in references if value.startswith("#")]
    for key in ("aria-labelledby", "aria-describedby", "data-figure", "for"):
        targets += [one for value in reader.values(key) for one in value.split()]
    assert [target for target in targets if target not in ids] == []


def test_policy_lets_only_the_pages_own_script_run(plain: str) -> None:
    script = re.search(r"<script>(.*?)</script>", plain, re.DOTALL)
    policy = next(value for value in Reader(plain).values("content") if "default-src" in value)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert {"default-src 'none'", f"script-src 'sha256-{digest}'", "img-src data:"} <= {*policy.split("; ")}
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|fetch\(|XMLHttp", script[1])


def test_hostile_names_bring_no_element_and_no_attribute(plain: str, hostile: str) -> None:
    def list_kinds(reader: Reader) -> set[tuple[str, str]]:
        return {(tag, key) for tag, attributes in reader.elements for key in ("", *attributes)}

    expected, found = list_kinds(Reader(plain)), list_kinds(Reader(hostile))
    assert {(tag, key) for tag, key in found - expected if tag not in ("text", "tspan", "g")} == set()
    assert not any(key.startswith("on") for _, key in found)
    assert sum(tag == "script" for tag, _ in Reader(hostile).elements) == 2
    assert not any("javascript:" in value for key in LOADING for value in Reader(hostile).values(key))


def test_hostile_names_are_read_as_they_are(hostile: str) -> None:
    texts = Counter(text.strip() for text in Reader(hostile).texts)
    for name in HOSTILE:
        assert texts[name] >= 10, name  # title, section, contents, paragraphs, cells, notes, captions …
    data = find_data(hostile)
    assert data["columns"]["model"]["values"] == list(HOSTILE)
    assert hostile.count("<!--") == 0


def test_embedded_rows_are_the_frame(tmp_path: Path) -> None:
    for report in (build_report(tmp_path), build_hostile(tmp_path)):
        shuffled = report.rows.sample(frac=1, random_state=0)
        decoded = decode_rows(find_data(render_page(replace(report, rows=shuffled))))
        assert list(decoded) == list(COLUMNS)
        expected = report.rows[list(COLUMNS)]
        for name in COLUMNS:
            kind = expected[name].dtype
            pd.testing.assert_series_equal(decoded[name].astype(kind), expected[name], check_exact=True)


def test_json_cannot_leave_its_element(tmp_path: Path) -> None:
    text = encode_rows(build_hostile(tmp_path).rows)
    assert not re.search('[<>&\u2028\u2029]|NaN|Infinity(?!")', text)


def test_rows_that_are_not_numbered_are_refused(tmp_path: Path) -> None:
    report = build_report(tmp_path)
    with pytest.raises(ValueError, match="numbered"):
        render_page(replace(report, rows=report.rows.assign(source=1)))


def test_ten_thousand_rows_take_seconds_and_some_bytes_each(tmp_path: Path) -> None:
    report = build_many(10_000, shown=10_000)
    start = time.perf_counter()
    path = write_page(report, tmp_path / "reports" / "index.html")
    assert time.perf_counter() - start < 5
    assert len(encode_rows(report.rows)) / 10_000 < 130
    assert path.stat().st_size / 10_000 < 250


def test_the_same_report_gives_the_same_page(tmp_path: Path) -> None:
    assert render_page(build_report(tmp_path)) == render_page(build_report(tmp_path))


def test_names_that_are_not_unicode_are_written(tmp_path: Path) -> None:
    page = write_page(Report("a \udcff b", (), (), build_report(tmp_path).rows), tmp_path / "index.html")
    assert "a \ufffd b" in Reader(page.read_text("utf-8")).texts


def test_every_cell_is_there_without_a_script(plain: str, tmp_path: Path) -> None:
    shown = [section.tables[0] for section in build_report(tmp_path).sections]
    tables = re.findall(r"<table.*?</table>", plain, re.DOTALL)
    assert len(tables) == len(shown)
    for html, table in zip(tables, shown, strict=True):
        lines = [re.findall(r"<bdi>(.*?)</bdi>", line) for line in re.findall(r"<tr>.*?</tr>", html, re.DOTALL)]
        texts = [[unescape(re.sub("<.*?>", "", text)) for text in line] for line in lines]
        expected = [[cell.text or ("–" if cell.hint else "") for cell in row] for row in table.rows]
        assert texts == [list(table.head), *expected]
        assert html.count('<th scope="col"') == len(table.head)
        assert html.count('<th scope="row"') == len(table.rows)
        assert "<caption>" in html
    assert plain.count("<svg xmlns") == 3


def test_headings_step_down_one_at_a_time(plain: str) -> None:
    levels = [int(tag[1]) for tag, _ in Reader(plain).elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_sections_of_one_name_have_anchors_of_their_own(tmp_path: Path) -> None:
    sections = tuple(Section(name, "Title") for name in ("page-rows", "probes", "probes", "<>", "Probes"))
    page = render_page(replace(build_report(tmp_path), sections=sections))
    anchors = [
        value
        for key, value in ((tag, attributes.get("id")) for tag, attributes in Reader(page).elements)
        if key == "section"
    ]
    expected = ["section-page-rows-1", "probes", "section-probes-1", "section", "section-probes-2"]
    assert anchors == ["page-problems", *expected, "page-rows"]


def test_a_report_without_rows_or_sections_is_a_page(tmp_path: Path) -> None:
    rows = build_report(tmp_path).rows.iloc[:0]
    empty = Table("Nothing", ("model", "top1"), (), "lr", ())
    page = render_page(Report("Empty", (), (Section("nothing", "Nothing", tables=(empty,)),), rows))
    assert decode_rows(find_data(page)).empty
    assert "page-problems" not in Reader(page).values("id")


@pytest.mark.parametrize("content", [None, b"", b"GIF89a", b"\x89PNG\r\n\x1a\n"])
def test_pictures_that_are_no_png_are_named(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    if content is not None:
        path.write_bytes(content)
    section = Section("one", "One", pictures=(Picture("one", "One", path, ""),))
    with pytest.raises(InputError, match=re.escape(str(path))):
        render_page(replace(build_report(tmp_path), sections=(section,)))


def test_methods_are_found_by_marks_with_names_and_colours() -> None:
    long = "a-name-" * 12 + "that is cut"
    figure = draw_lines()
    for number, label in ((2, "con\nvmae"), (3, long), (4, "شبكة")):
        figure.add_artist(Line2D([0, 1], [0, 1], color="black", gid=mark_method(label, number)))
        figure.text(0, 0, label, gid=mark_method(label, number))
    figure.add_artist(Line2D([0, 1], [0, 1], color="red", label="LSMAE (v2)", gid=mark_method("lsmae v2", 5)))
    figure.add_artist(Line2D([0, 1], [0, 1], color="red", gid="grid"))
    found = list_methods(figure)
    assert [method.number for method in found] == [0, 1, 2, 3, 4, 5]
    assert [method.label for method in found] == [*MODELS, "con vmae", long, "شبكة", "LSMAE (v2)"]
    assert (found[1].colour, found[1].dark) == (darken(HUES[0]), lighten(HUES[0]))
    assert (found[5].colour, found[5].dark) == ("#ff0000", "#ff0000")
    assert list_methods(Figure()) == ()


def test_methods_of_several_figures_are_shared() -> None:
    figures = [list_methods(draw_lines(labels)) for labels in (("a", "b"), ("c", "b"), ("b", "c", "d"))]
    assert [method.label for method in find_shared(figures)] == ["b", "c"]


@pytest.mark.parametrize("name", [*HOSTILE, "a/b:c,d=e" * 9, " python -m a.run --data x.csv. Then more; python -m"])
def test_places_to_break_leave_the_text_as_it_is(name: str) -> None:
    for marked in (soften(name), mark_commands(name)):
        assert "".join(Reader(f"<p>{marked}</p>").texts) == name


def test_paths_may_break_and_short_words_may_not() -> None:
    assert soften("in data/imagenet-1k/validation") == "in data/<wbr>imagenet-1k/<wbr>validation"
    assert (
        soften("top-1 of a --b-c - d") == '<span class="whole">top-1</span> of a <span class="whole">--b-c</span> - d'
    )
    found = mark_commands("To make <it>: python -m a.run --data x.csv. Then look.")
    assert found == (
        'To make &lt;it&gt;: <code>python -m a.run <span class="whole">--data</span> x.csv</code>. Then look.'
    )


# Colours, by the definition of contrast in WCAG 2.


def find_colours() -> dict[str, tuple[str, str]]:
    style = (files("analysis.report") / "page" / "style.css").read_text("utf-8")
    found = re.findall(r"--([a-z]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)", style)
    return {name: (light, dark) for name, light, dark in found}


def find_luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("ground", ["paper", "tint", "alarm"])
@pytest.mark.parametrize("letters", ["ink", "quiet", "accent"])
@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_stands_out_from_its_ground(letters: str, ground: str, scheme: int) -> None:
    colours = find_colours()
    low, high = sorted(find_luminance(colours[name][scheme]) for name in (letters, ground))
    assert (high + 0.05) / (low + 0.05) >= 4.5
