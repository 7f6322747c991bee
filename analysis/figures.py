"""Every figure of every group of comparable rows, in pages where there is too much for one."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from fontTools import subset
from matplotlib.figure import Figure

from analysis.differences import compare_cells
from analysis.foreground.figures import draw_against_probe, draw_overlap
from analysis.foreground.numbers import list_foreground
from analysis.groups import Group, split_groups
from analysis.layout import STYLE, wrap_items
from analysis.report.parts import Plot
from analysis.robustness.bars import MAX_MODELS, draw_robustness
from analysis.robustness.cells import build_maps, choose_scales
from analysis.robustness.curves import draw_curves, plan_curves
from analysis.robustness.heatmap import MODELS, PAIRS, ROWS, draw_heatmaps
from analysis.robustness.statistics import Robustness, summarise_robustness
from analysis.shape_bias.figures import draw_against_accuracy, draw_bias
from analysis.shape_bias.matrix import draw_consistency
from analysis.shape_bias.numbers import ShapeBias, list_shape_bias
from analysis.spectrum import draw_spectrum
from analysis.subjects import Subject
from pixmim_eval.results import write_atomic

TITLES = {
    "robustness": "Accuracy on clean, corrupted and shifted images",
    "robustness-curves": "Accuracy by severity of the corruption",
    "robustness-heatmap": "Accuracy in every cell of corruption and severity",
    "reconstruction-spectrum": "Error of reconstructions by spatial frequency",
    "shape-bias": "Shape or texture, by category",
    "shape-bias-accuracy": "Shape bias against accuracy",
    "error-consistency": "How alike errors are",
    "foreground-overlap": "What crops keep of the object",
    "foreground-accuracy": "Accuracy against what the crop of pretraining kept",
}
"""First words of a figure's stem -> its title."""


def write_figures(rows: pd.DataFrame, out: Path, *, columns: int = 2) -> list[Path]:
    """Writes the figures of each group of comparable rows as PNG and PDF.

    Of the suite robustness these are `robustness`, bars and curves; `robustness-curves`, a panel for each corruption,
    where there are more than six of them; and `robustness-heatmap`. Of reconstruction it is `reconstruction-spectrum`.
    Of shape_bias: `shape-bias`, `shape-bias-accuracy` where the runs hold accuracies too, and `error-consistency`.
    Of foreground: `foreground-overlap`, and `foreground-accuracy` where the runs hold linear probes.
    Other suites have none: their numbers stand in tables, and over epochs in the figures of the command `curves`.

    Args:
        rows: result rows of any number of runs; `hits` too where differences of models shall be shown (attach_hits).
        out: the reports folder; files go to out/figures.
        columns: width of the figure, one or two columns of a page.

    Returns:
        The files written.
    """
    plots = [plot for suite in ("robustness", "reconstruction") for plot in plot_groups(rows, suite, columns)]
    plots += [*plot_shape_bias(rows, columns), *plot_foreground(rows, columns)]
    return [path for plot in plots for path in save_figure(plot.figure, out / "figures" / plot.stem)]


def plot_groups(rows: pd.DataFrame, suite: str, columns: int) -> list[Plot]:
    """The figures of each group of the suite robustness or reconstruction; none where it has no rows."""
    groups = split_groups(rows, suite) if suite in set(rows["suite"]) else []
    return [plot for group in groups for plot in _make_plots(draw_group(group, columns), group.suffix, columns)]


def plot_shape_bias(rows: pd.DataFrame, columns: int) -> list[Plot]:
    """The figures of each set of cue-conflict images, and of how alike observers are."""
    sets = list_shape_bias(rows)
    return [plot for bias in sets for plot in _make_plots(draw_shape_bias(bias, columns), bias.suffix, columns)]


def plot_foreground(rows: pd.DataFrame, columns: int) -> list[Plot]:
    """The figures of each data set of which overlaps were measured."""
    plots: list[Plot] = []
    for kept in list_foreground(rows):
        probed = draw_against_probe(kept, rows, columns=columns)
        named = {"foreground-overlap": [draw_overlap(kept, columns=columns)]}
        plots += _make_plots(named | ({"foreground-accuracy": [probed]} if probed else {}), kept.suffix, columns)
    return plots


def _make_plots(named: dict[str, list[Figure]], suffix: str, columns: int) -> Iterator[Plot]:
    """The pages of each figure, with the names of their files; `suffix` tells their group from others."""
    for name, figures in named.items():
        for number, figure in enumerate(figures, start=1):
            part = f"part-{number}" if len(figures) > 1 else ""
            stem = "-".join(word for word in (name, suffix, part, "one-column" * (columns == 1)) if word)
            told = ", ".join(word for word in (suffix, part.replace("-", " ")) if word)
            title = f"{TITLES[name]} ({told})" if told else TITLES[name]
            yield Plot(stem, title, figure, str(figure.get_label()))


def draw_group(group: Group, columns: int) -> dict[str, list[Figure]]:
    """The pages of each figure of one group."""
    if set(group.rows["suite"]) == {"reconstruction"}:
        spectra = [draw_spectrum(part, columns=columns) for part in split_pages(group, MAX_MODELS)]
        return {"reconstruction-spectrum": spectra}
    whole = summarise_robustness(group)
    parts = split_pages(group, MAX_MODELS)
    pages = [whole] if len(parts) == 1 else [summarise_robustness(part) for part in parts]
    figures = {"robustness": [draw_robustness(page, columns=columns) for page in pages]}
    if whole.has_many:
        figures["robustness-curves"] = [
            draw_curves(page, lines, columns=columns) for page in pages for lines in plan_curves(page)
        ]
    if whole.curves:
        figures["robustness-heatmap"] = [*_draw_heatmaps(whole, columns)]
    return figures


def draw_shape_bias(bias: ShapeBias, columns: int) -> dict[str, list[Figure]]:
    """The pages of each figure of one set of cue-conflict images."""
    pages = split_subjects(bias.subjects, MAX_MODELS) or [range(0)]
    scattered = [draw_against_accuracy(bias, page, columns=columns) for page in pages]
    return {
        "shape-bias": [draw_bias(bias, page, columns=columns) for page in pages] if bias.categories else [],
        "shape-bias-accuracy": [figure for figure in scattered if figure],
        "error-consistency": draw_consistency(bias, columns=columns),
    }


def split_pages(group: Group, longest: int) -> list[Group]:
    """The group in parts of at most `longest` models; itself where it is small."""
    spans = split_subjects(group.subjects, longest)
    if len(spans) == 1:
        return [group]
    pages = []
    for span in spans:
        rows = group.rows[group.rows["subject"].isin(span)]
        rows = rows.assign(subject=rows["subject"] - span.start)
        pages.append(replace(group, subjects=group.subjects[span.start : span.stop], rows=rows))
    return pages


def split_subjects(
    subjects: tuple[Subject, ...], longest: int, seconds: Collection[int] = (), most: int = 0
) -> list[range]:
    """Positions of the models of each page: as many as fit, and no baseline apart from its PixMIM version.

    Args:
        subjects: the models.
        longest: models of a page.
        seconds: positions of those that are compared with another.
        most: of these on a page.
    """
    spans, start = [], 0
    while start < len(subjects):
        stop = start + 1
        while stop < min(start + longest, len(subjects)) and sum(start <= s <= stop for s in seconds) <= most:
            stop += 1
        if stop - start > 1 and stop < len(subjects) and subjects[stop - 1].family == subjects[stop].family:
            stop -= 1
        spans.append(range(start, stop))
        start = stop
    return spans


def _draw_heatmaps(robustness: Robustness, columns: int) -> Iterator[Figure]:
    comparisons = compare_cells(robustness)
    maps, pairs = build_maps(robustness, comparisons)
    scales = choose_scales(maps, pairs)
    seconds = [compared.second for compared in comparisons]
    spans = split_subjects(robustness.subjects, MODELS[columns], seconds, PAIRS[columns])
    for names in wrap_items([*robustness.curves], ROWS):
        for span in spans:
            there = [pair for pair, compared in zip(pairs, comparisons, strict=True) if compared.second in span]
            yield draw_heatmaps(robustness, maps[span.start : span.stop], there, scales, names, columns=columns)


def save_figure(figure: Figure, stem: Path) -> list[Path]:
    """Writes a figure as STEM.png and STEM.pdf."""
    written = []
    # Without dates and versions the same rows give the same bytes.
    for ending, metadata in (("png", {"Software": None}), ("pdf", {"CreationDate": None})):
        buffer = io.BytesIO()
        with matplotlib.rc_context(STYLE), _embed_glyphs_alone():
            figure.savefig(buffer, format=ending, dpi=200, metadata=metadata)
        path = stem.with_name(f"{stem.name}.{ending}")
        write_atomic(path, buffer.getvalue())
        written.append(path)
    return written


class _GlyphsAlone(subset.Options):
    """A part of a font without rules of layout: a PDF names and places each of its glyphs."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.drop_tables += ["GSUB", "GPOS", "GDEF", "kern"]


@contextmanager
def _embed_glyphs_alone() -> Iterator[None]:
    """Rules of layout take half of the time of a PDF to cut down, and nothing reads them."""
    usual = subset.Options
    subset.Options = _GlyphsAlone
    try:
        yield
    finally:
        subset.Options = usual
