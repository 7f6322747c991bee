"""Every figure can hide one method: its bars, lines, bands, whiskers and legend entry go, and nobody else's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from analysis.epochs.figures import draw_epochs
from analysis.epochs.lines import read_curves
from analysis.foreground.figures import draw_against_probe, draw_overlap
from analysis.foreground.numbers import list_foreground
from analysis.groups import split_groups
from analysis.layout import STYLE
from analysis.report.parts import read_mark
from analysis.robustness.bars import draw_robustness
from analysis.robustness.curves import draw_curves, plan_curves
from analysis.robustness.statistics import summarise_robustness
from analysis.shape_bias.figures import draw_against_accuracy, draw_bias
from analysis.shape_bias.numbers import list_shape_bias
from analysis.spectrum import draw_spectrum
from pixmim_eval.types import ResultRow
from tests.analysis.rows import build_model, build_row

METHODS = ("mae", "pixmim-mae", "deit3")
NAMES = ("_first $x$", "second_one", "<b>third</b>")
MODELS = [
    {"model": name, "method": method, "weights_digest": str(number) * 16}
    for number, (name, method) in enumerate(zip(NAMES, METHODS, strict=True))
]


def frame(rows: list[ResultRow]) -> pd.DataFrame:
    table = pd.DataFrame([asdict(row) for row in rows]).astype({"epoch": "Int64"})
    return table.assign(hits=None)


def draw_robust() -> Iterator[tuple[str, Figure]]:
    rows = [row for number, model in enumerate(MODELS) for row in build_model(0.9 - 0.1 * number, **model)]
    rows = [row for row in rows if (row.model, row.condition) != (NAMES[2], "sketch")]  # drawn as missing
    robustness = summarise_robustness(split_groups(frame(rows), "robustness")[0])
    yield "bars", draw_robustness(robustness)
    yield "curves", draw_curves(robustness, plan_curves(robustness)[0])


def draw_over_epochs() -> Iterator[tuple[str, Figure]]:
    shared = {"suite": "linear_probe", "protocol": "head=cached;pooling=mean"}
    rows = [
        build_row("clean", 0.3 + 0.1 * number + epoch / 1000, **{**model, **shared, "epoch": epoch, "model": name})
        for number, model in enumerate(MODELS)
        for epoch in ((100, 200) if number else (200,))
        for name in [f"{model['method']}-{epoch}"]
    ]
    yield "epochs", draw_epochs(*(lambda found: (found, found.panels))(read_curves(frame(rows), "linear_probe/top1")))


def draw_spectra() -> Iterator[tuple[str, Figure]]:
    shared = {"suite": "reconstruction", "protocol": "lowpass_radius=11.43", "unit": "ratio"}
    rows = [
        build_row("clean", 0.2 + 0.1 * number, **{**model, **shared, "metric": f"error_power/{low}-{low + 4}"})
        for number, model in enumerate(MODELS)
        for low in (0, 4, 8)
    ]
    yield "spectrum", draw_spectrum(split_groups(frame(rows), "reconstruction")[0])


def draw_biases() -> Iterator[tuple[str, Figure]]:
    shared = {"suite": "shape_bias", "dataset": "cue-conflict", "protocol": "geometry=native64"}
    rows = [
        build_row("cue-conflict", 0.2 + 0.1 * number, **{**model, **shared, "metric": metric})
        for number, model in enumerate(MODELS)
        for metric in ("shape_bias", "shape_bias/cat", "shape_bias/dog")
    ]
    rows += [build_row("clean", 0.6 + 0.1 * number, **model) for number, model in enumerate(MODELS)]
    (bias,) = list_shape_bias(frame(rows))
    yield "shape bias", draw_bias(bias, range(3))
    against = draw_against_accuracy(bias, range(3))
    assert against is not None
    yield "shape bias and accuracy", against


def draw_foregrounds() -> Iterator[tuple[str, Figure]]:
    shared = {"suite": "foreground", "method": "none", "dataset": "boxes", "protocol": "masked=0.75-random"}
    metrics = ("overlap_union", "overlap_union_masked75", "overlap_largest", "overlap_union_size/0-0.5")
    metrics += ("overlap_union_size/0.5-1", "overlap_union_quantile/0.5", "overlap_union_quantile/0.9")
    rows = [
        build_row(crop, 0.3 + 0.1 * number, **{**shared, "metric": metric})
        for number, crop in enumerate(("rrc-0.2", "src", "_mine"))
        for metric in metrics
    ]
    probes = {"suite": "linear_probe", "protocol": "head=cached"}
    rows += [build_row("clean", 0.3, **{**model, **probes}) for model in MODELS[:2]]
    (found,) = list_foreground(frame(rows))
    yield "foreground", draw_overlap(found)
    against = draw_against_probe(found, frame(rows))
    assert against is not None
    yield "foreground and probe", against


@pytest.fixture(scope="module", params=[draw_robust, draw_over_epochs, draw_spectra, draw_biases, draw_foregrounds])
def figures(request: pytest.FixtureRequest) -> list[tuple[str, Figure]]:
    draw: Callable[[], Iterator[tuple[str, Figure]]] = request.param
    return list(draw())


def render(figure: Figure) -> np.ndarray:
    figure.set_dpi(50)
    with rc_context(STYLE):
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    return np.asarray(canvas.buffer_rgba()).copy()


def test_hiding_a_method_removes_its_ink_and_no_other(figures: list[tuple[str, Figure]]) -> None:
    """Seen in pixels: with all methods hidden but one, what is left of colour is that one's alone."""
    for name, figure in figures:
        marked = [artist for artist in figure.findobj() if read_mark(artist.get_gid()) is not None]
        numbers = sorted({read_mark(artist.get_gid()) for artist in marked})  # type: ignore[type-var]
        assert len(numbers) == (2 if name == "foreground and probe" else 3), name
        set_visible(marked, {*numbers})
        whole = render(figure)
        set_visible(marked, set())
        bare = render(figure)
        alone = {}
        for number in numbers:
            set_visible(marked, {number})
            alone[number] = np.any(render(figure) != bare, axis=2)
            assert alone[number].sum() > 100, (name, number)
        assert np.array_equal(np.any(whole != bare, axis=2), np.any([*alone.values()], axis=0)), name


def set_visible(marked: list[Artist], numbers: set[int | None]) -> None:
    for artist in marked:
        artist.set_visible(read_mark(artist.get_gid()) in numbers)


def test_no_colour_of_a_model_is_left_when_all_are_hidden(figures: list[tuple[str, Figure]]) -> None:
    for name, figure in figures:
        for artist in figure.findobj():
            if read_mark(artist.get_gid()) is not None:
                artist.set_visible(False)
        pixels = render(figure)[..., :3].astype(int)
        vivid = (pixels.max(axis=2) - pixels.min(axis=2)) > 12
        assert not vivid.any(), name


def test_an_entry_of_the_legend_goes_with_its_method(figures: list[tuple[str, Figure]]) -> None:
    for name, figure in figures:
        for legend in figure.legends:
            entries = [text for text in legend.get_texts() if read_mark(text.get_gid()) is not None]
            assert len(entries) == 3, name
            handles = {read_mark(artist.get_gid()) for artist in legend.findobj() if not isinstance(artist, Text)}
            assert {read_mark(text.get_gid()) for text in entries} == handles - {None} == {0, 1, 2}, name


def test_every_name_is_shown_as_it_is(figures: list[tuple[str, Figure]]) -> None:
    """Neither mathematics nor an underscore at the beginning changes a name."""
    for name, figure in figures:
        shown = "".join("".join(text.get_text().split()) for text in figure.findobj(Text))
        names = ("rrc-0.2", "src", "_mine") if name == "foreground" else METHODS if name == "epochs" else NAMES
        for word in names[:2] if name == "foreground and probe" else names:
            assert "".join(word.split()) in shown, (name, word)
        assert not any(text.get_parse_math() for text in figure.findobj(Text) if "$" in text.get_text()), name


def test_the_lines_of_one_legend_entry_share_a_mark() -> None:
    shared = {"suite": "linear_probe", "protocol": "head=cached;pooling=mean"}
    rows = [
        build_row("clean", 0.3 + 0.1 * number + epoch / 1000, **{**model, **shared, "epoch": epoch, "run": run})
        for run in ("one", "two")
        for number, model in enumerate(MODELS[:2])
        for epoch in (100, 200)
    ]
    curves = read_curves(
        frame([ResultRow(**{**asdict(row), "model": row.method}) for row in rows]), "linear_probe/top1"
    )
    figure = draw_epochs(curves, curves.panels)
    lines = [line.get_gid() for line in figure.axes[0].lines]
    assert len(lines) == 4 and len(set(lines)) == 2
    legend = {read_mark(text.get_gid()) for text in figure.legends[0].get_texts()}
    assert legend == {read_mark(line) for line in lines if isinstance(line, str)}
