"""Figures inside a page: text is text, ink follows the page, methods are marked, and nothing leaks or collides."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest
from matplotlib import patheffects, rc_context
from matplotlib.figure import Figure

from analysis.layout import CAPTION, GRID, HUES, INK, ON_DARK, ON_LIGHT, STYLE, Canvas, darken
from analysis.report.parts import mark_method
from analysis.report.svg import PAPER, to_svg
from pixmim_eval.errors import InputError

SPACE = "{http://www.w3.org/2000/svg}"
HOSTILE = ("<script>alert(1)</script>", "$x_1$ & </svg>", "_hidden", "x" * 300, "שלום", "a\"b'c", "]]>", "\x07bell\x0b")


@pytest.fixture
def build_figure() -> Callable[..., Figure]:
    """Axes with a hatched bar, a clipped line with markers and a legend; labels of one's choice."""

    def build(*labels: str) -> Figure:
        with rc_context(STYLE):
            figure = Figure(figsize=(3, 2))
            axes = figure.add_axes((0.2, 0.2, 0.7, 0.7))
            for number, label in enumerate(labels or ("one", "two")):
                mark = mark_method(label, number)
                axes.bar([number], [2], color=darken(HUES[number % 8]), hatch="////", edgecolor="white", gid=mark)
                axes.plot([0, 1], [number, 1], marker="o", color=HUES[number % 8], gid=mark)
                axes.text(0.5, number, label, gid=mark, color=INK)
            axes.grid(color=GRID)
            axes.set_title("first\nand second line", color=INK)
        return figure

    return build


def parse(text: str) -> Element:
    return ElementTree.fromstring(text)


def list_texts(text: str) -> list[str]:
    return [element.text or "" for element in parse(text).iter(f"{SPACE}text")]


def find_text(text: str, content: str) -> Element:
    return next(element for element in parse(text).iter(f"{SPACE}text") if element.text == content)


def test_it_is_one_element_without_header_or_metadata(build_figure: Callable[..., Figure]) -> None:
    text = to_svg(build_figure(), prefix="a")
    assert text.startswith("<svg ") and text.endswith("</svg>")
    for unwanted in (
        "<?xml",
        "<!DOCTYPE",
        "metadata",
        "rdf:",
        "xlink",
        "atplotlib",
        "<style",
        "<!--",
        "DejaVu",
        "<script",
    ):
        assert unwanted not in text
    root = parse(text)
    assert root.get("viewBox") == "0 0 216 144" and root.get("width") is None and root.get("height") is None
    assert "max-width:402px" in root.get("style", "")


def test_every_reference_is_to_an_id_of_its_own(build_figure: Callable[..., Figure]) -> None:
    first, second = (to_svg(build_figure(), prefix=prefix) for prefix in ("first-1", "second_2"))
    found = []
    for text, prefix in ((first, "first-1-"), (second, "second_2-")):
        ids = re.findall(r' id="([^"]*)"', text)
        links = re.findall(r"url\(#([^)]*)\)", text) + re.findall(r'href="#([^"]*)"', text)
        assert len(set(ids)) == len(ids) > 2 and all(name.startswith(prefix) for name in ids)
        assert set(links) == set(ids)
        found += ids
    assert len(set(found)) == len(found)


def test_the_same_figure_gives_the_same_bytes_and_stays_as_it_was(build_figure: Callable[..., Figure]) -> None:
    figure = build_figure()
    before = draw_png(figure)
    once, again = (to_svg(figure, prefix="a") for _ in range(2))
    assert once == again == to_svg(build_figure(), prefix="a")
    assert draw_png(figure) == before
    assert [text.get_gid() for text in figure.axes[0].texts] == ["method-0-one", "method-1-two"]


def draw_png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    with rc_context(STYLE):
        figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore:Glyph")
def test_hostile_labels_are_text(build_figure: Callable[..., Figure]) -> None:
    texts = list_texts(to_svg(build_figure(*HOSTILE), prefix="a"))
    for label in HOSTILE:
        assert re.sub(r"[\x00-\x1f]", "", label) in texts


def test_what_belongs_to_a_method_is_marked_and_nothing_else(build_figure: Callable[..., Figure]) -> None:
    root = parse(to_svg(build_figure("mae", "mae"), prefix="a"))
    marked = [element for element in root.iter() if element.get("data-method")]
    assert sorted({element.get("data-method") for element in marked}) == ["0", "1"]
    for number in ("0", "1"):
        own = [element for element in marked if element.get("data-method") == number]
        inside = [child.tag.removeprefix(SPACE) for element in own for child in element.iter()]
        assert inside.count("text") == 1 and inside.count("path") >= 2 and inside.count("use") == 2
    assert all(element.get("id") is None for element in marked)


def test_ink_follows_the_page_and_data_keep_their_colours(build_figure: Callable[..., Figure]) -> None:
    figure = build_figure()
    for colour in (CAPTION, ON_LIGHT, ON_DARK):
        figure.text(0.5, 0.5, colour, color=colour)
    text = to_svg(figure, prefix="a")
    for gone in ("#000000", "#ffffff", INK, GRID):
        assert gone not in text
    assert "fill:currentColor" in find_text(text, CAPTION).get("style", "")
    assert f"fill:{ON_LIGHT}" in find_text(text, ON_LIGHT).get("style", "")
    assert f"fill:{ON_DARK}" in find_text(text, ON_DARK).get("style", "")
    assert f"stroke:{HUES[1].lower()}" in text and f"stroke:{PAPER}" in text  # a line, and a hatch
    assert f"fill:{darken(HUES[0])};fill:light-dark({darken(HUES[0])}," in text  # behind the hatch
    assert "stroke:currentColor;stroke-width:0.8;stroke-linecap:square;stroke-opacity:0.14" in text  # the grid


def test_the_background_is_the_pages(build_figure: Callable[..., Figure]) -> None:
    whole = [e for e in parse(to_svg(build_figure(), prefix="a")).iter(f"{SPACE}path") if "L 216 144" in e.get("d", "")]
    assert whole == []


def test_lines_below_each_other_are_aligned_whatever_the_font(build_figure: Callable[..., Figure]) -> None:
    text = to_svg(build_figure(), prefix="a")
    lines = [find_text(text, line) for line in ("first", "and second line")]
    middle = 216 * (0.2 + 0.7 / 2)
    for line in lines:
        assert "text-anchor:middle" in line.get("style", "")
        assert float(line.get("x", "nan")) == pytest.approx(middle, abs=0.3)
    assert float(lines[1].get("y", "nan")) > float(lines[0].get("y", "nan")) + 7


def test_text_with_an_outline_stays_text() -> None:
    with rc_context(STYLE):
        figure = Figure(figsize=(2, 2))
        drawn = figure.text(0.5, 0.5, "76.3", color=HUES[0], weight="bold", ha="right")
        drawn.set_path_effects([patheffects.withStroke(linewidth=1.6, foreground="white")])
    style = find_text(to_svg(figure, prefix="a"), "76.3").get("style", "")
    assert f"paint-order:stroke;stroke:{PAPER};stroke-width:1.6" in style and "font-weight:700" in style
    assert len(drawn.get_path_effects()) == 1


def test_the_caption_is_left_to_the_page() -> None:
    with rc_context(STYLE):
        canvas = Canvas(3.4, 1.5, "n = 50 images of a <set>. Whiskers: 95 % intervals, which stand below the figure.")
        canvas.add_axes(0.4, 0.2, 2.8, 1.0)
    text = to_svg(canvas.figure, prefix="a")
    assert "images" not in text
    assert parse(text).get("viewBox") == "0 0 244.8 108"
    assert canvas.figure.get_label().startswith("n = 50 images of a <set>. Whiskers")


@pytest.mark.parametrize("prefix", ["", "1a", 'a"b', "a b", "<a>"])
def test_a_prefix_that_is_no_id_is_refused(prefix: str) -> None:
    with pytest.raises(InputError, match="prefix of the ids"):
        to_svg(Figure(), prefix=prefix)


def test_it_takes_little_longer_than_drawing(build_figure: Callable[..., Figure]) -> None:
    figure = build_figure(*(f"model {number}" for number in range(8)))
    to_svg(figure, prefix="a")
    spent = []
    for _ in range(5):
        start = time.process_time()
        to_svg(figure, prefix="a")
        spent.append(time.process_time() - start)
    assert min(spent) < 0.15
