"""Result rows become a report: its sections in their order, each with what the rows allow and what would add to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import pandas as pd

from analysis.ablation.arms import NAMES as ABLATIONS
from analysis.ablation.figures import plot_ablation
from analysis.ablation.numbers import Ablation, read_ablation
from analysis.ablation.tables import list_ablation_sheets
from analysis.epochs.lines import EpochCurves, read_curves
from analysis.epochs.sheets import list_curve_sheets, plot_curves
from analysis.figures import plot_foreground, plot_groups, plot_shape_bias
from analysis.main_results import list_main_sheets
from analysis.published.comparison import list_comparison_sheets
from analysis.report.overview import describe_rows, list_overview
from analysis.report.parts import Picture, Plot, Report, Section, Sheet
from analysis.report.pictures import read_picture
from analysis.report.problems import Problems, find_problems
from analysis.report.suites import (
    DENSE,
    FIGURED,
    MAIN,
    SCORED,
    SHAPE,
    choose_metrics,
    describe_commands,
    describe_missing,
)
from analysis.scores import list_scores
from analysis.sources import list_sources
from analysis.tables import list_foreground_sheets, list_published_sheets, list_robustness_sheets, list_score_sheets
from pixmim_eval.errors import InputError
from pixmim_eval.progress import progress

SUGGESTED = "python -m analysis.run ablation {} --recipe RECIPE --data PATH"
TITLE = "What masked image modeling learns, with and without PixMIM"

Item = TypeVar("Item")


def number_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of any number of runs, numbered: `source` is 0…N-1, which every number of a report names."""
    # Texts become plain objects, which are walked row by row several times as fast as pandas' own strings.
    texts = [name for name in frame if isinstance(frame[name].dtype, pd.StringDtype)]
    frame = frame.astype(dict.fromkeys(texts, object)).reset_index(drop=True)
    return frame.assign(source=range(len(frame)))


def build_report(rows: pd.DataFrame, pictures: Sequence[Picture] = (), *, columns: int = 1) -> Report:
    """Everything that rows say, as a report.

    Nothing of the rows stops it: what contradicts itself is shown apart, and a part that cannot be made says why.

    Args:
        rows: see number_rows; `hits` for paired differences (attach_hits), and `folder`, the run folder, where known.
        pictures: PNG files that suites drew of images.
        columns: width of the figures, one or two columns of a page.
    """
    problems = find_problems(rows)
    material = Material(problems.kept, columns)
    makers: list[Callable[[], Section]] = [
        lambda: _build_overview(rows, problems),
        lambda: _build_main_results(material),
        lambda: _build_comparison(material),
        lambda: _build_robustness(material),
        lambda: _build_shape_bias(material),
        lambda: _build_foreground(material),
        lambda: _build_scores(material, "dense", "Dense transfer: segmentation and detection", DENSE),
        lambda: _build_scores(material, "scores", "Probes, k-NN, few labels, fine-tuning", list_scored(rows)),
        lambda: _build_epochs(material),
        lambda: _build_ablations(material),
        lambda: _build_pictures(material, pictures),
        lambda: _make_section("published", "Published numbers, as printed", (), sheets=list_published_sheets()),
    ]
    sections = tuple(make() for make in progress(makers, description="computing the report", unit="section"))
    return Report(TITLE, describe_rows(rows), sections, rows, problems.sentences)


@dataclass
class Material:
    """What sections are made of, and what could not be made.

    Args:
        rows: those that tables and figures may show.
        columns: width of figures.
        failures: sentences on the parts of the present section that could not be made.
    """

    rows: pd.DataFrame
    columns: int
    failures: list[str] = field(default_factory=list)

    def attempt(self, make: Callable[[], list[Item]]) -> list[Item]:
        """What `make` returns; nothing, and a sentence in its place, where the rows do not allow it."""
        try:
            return make()
        except InputError as error:
            self.failures.append(f"Not shown: {error}")
            return []

    def explain(self, suites: Sequence[str]) -> tuple[str, ...]:
        """The end of a section's text: what failed, and which suites are missing."""
        failures, self.failures = self.failures, []
        return (*failures, *describe_missing(self.rows, suites))

    def describe_making(self, suites: Sequence[str]) -> tuple[str, ...]:
        """Which commands made the rows of some suites."""
        return describe_commands(self.rows[self.rows["suite"].isin(suites)])


def _make_section(
    name: str,
    title: str,
    text: Sequence[str],
    *,
    made: tuple[str, ...] = (),
    sheets: Sequence[Sheet] = (),
    plots: Sequence[Plot] = (),
    pictures: Sequence[Picture] = (),
) -> Section:
    tables = tuple(table for sheet in sheets for table in sheet.tables)
    return Section(name, title, tuple(text), tables, tuple(plots), tuple(pictures), tuple(sheets), made)


def _build_overview(rows: pd.DataFrame, problems: Problems) -> Section:
    return _make_section("overview", "What this is of", (), sheets=[*problems.sheets, *list_overview(rows)])


def _build_main_results(material: Material) -> Section:
    sheets = material.attempt(lambda: list_main_sheets(material.rows))
    text = material.explain(MAIN)
    if not sheets:
        text = ("No row is of MAE, ConvMAE or LSMAE, with or without PixMIM.", *text)
    return _make_section("main-results", "Main results", text, made=material.describe_making(MAIN), sheets=sheets)


def _build_comparison(material: Material) -> Section:
    sheets = material.attempt(lambda: list_comparison_sheets(material.rows))
    failures, material.failures = tuple(material.failures), []
    none = "No number here has a published counterpart, of the same method and measure."
    text = failures if sheets else (*failures, none)
    return _make_section("published-comparison", "Ours beside the published numbers", text, sheets=sheets)


def _build_robustness(material: Material) -> Section:
    rows = material.rows
    sheets = material.attempt(lambda: list_robustness_sheets(rows))
    plots = material.attempt(lambda: plot_groups(rows, "robustness", material.columns))
    text = material.explain(["robustness"])
    made = material.describe_making(["robustness"])
    return _make_section("robustness", "Robustness", text, made=made, sheets=sheets, plots=plots)


def _build_shape_bias(material: Material) -> Section:
    plots = material.attempt(lambda: plot_shape_bias(material.rows, material.columns))
    section = _build_scores(material, "shape-bias", "Shape or texture", SHAPE)
    return replace(section, plots=tuple(plots))


def _build_foreground(material: Material) -> Section:
    rows = material.rows
    sheets = material.attempt(lambda: list_foreground_sheets(rows))
    plots = material.attempt(lambda: plot_foreground(rows, material.columns))
    text = material.explain(["foreground"])
    made = material.describe_making(["foreground"])
    return _make_section("foreground", "What crops keep of the object", text, made=made, sheets=sheets, plots=plots)


def _build_scores(material: Material, name: str, title: str, suites: Sequence[str]) -> Section:
    """Some suites' scores, every metric by model."""
    rows = material.rows[material.rows["suite"].isin(suites)]
    sheets = material.attempt(lambda: list_score_sheets(list_scores(rows), name))
    made = material.describe_making(suites)
    return _make_section(name, title, material.explain(suites), made=made, sheets=sheets)


def list_scored(rows: pd.DataFrame) -> tuple[str, ...]:
    """The suites of the section of scores: those known, and others that rows are of."""
    others = [suite for suite in dict.fromkeys(rows["suite"]) if suite not in (*SCORED, *DENSE, *SHAPE, *FIGURED)]
    return (*SCORED, *others)


def _build_epochs(material: Material) -> Section:
    """The main metric of each suite over pretraining epochs, where a line has several."""
    plots: list[Plot] = []
    sheets: list[Sheet] = []
    shown = []
    for suite, metric in choose_metrics(material.rows).items():
        for curves in material.attempt(partial(_read_epochs, material.rows, f"{suite}/{metric}")):
            plots += plot_curves(curves, None, material.columns)
            sheets += list_curve_sheets(curves, None)
            shown.append(suite)
    failures, material.failures = material.failures, []
    text = [*failures]
    if not shown:
        text.append(
            "No pretraining run was evaluated at several epochs. To do so: python -m pixmim_eval.run"
            " --suite linear_probe --checkpoint 'runs/pixmim/epoch-*.safetensors' --data PATH."
        )
    made = material.describe_making(shown)
    return _make_section("epochs", "Over pretraining epochs", text, made=made, sheets=sheets, plots=plots)


def _read_epochs(rows: pd.DataFrame, name: str) -> list[EpochCurves]:
    """The curves of a metric, where a line of them has several points."""
    curves = read_curves(rows, name)
    points = [len(line.points) for panel in curves.panels for line in panel.lines.values()]
    return [curves] if max(points) > 1 else []


def _build_ablations(material: Material) -> Section:
    """Each ablation whose arms are among the models; of the others, what makes them."""
    plots: list[Plot] = []
    sheets: list[Sheet] = []
    sources: set[int] = set()
    text = []
    for name in ABLATIONS:
        found = material.attempt(partial(_read_ablation, material.rows, name))
        for ablation in found:
            plots += plot_ablation(ablation, material.columns)
            sheets += list_ablation_sheets(ablation)
            points = [point.estimate for panel in ablation.panels for point in panel.points]
            sources.update(list_sources(*points))
        text += [] if found else [f"No models are arms of the ablation {name}. To make them: {SUGGESTED.format(name)}."]
    failures, material.failures = material.failures, []
    made = describe_commands(material.rows[material.rows["source"].isin(sources)])
    return _make_section("ablations", "Ablations", [*failures, *text], made=made, sheets=sheets, plots=plots)


def _read_ablation(rows: pd.DataFrame, name: str) -> list[Ablation]:
    ablation = read_ablation(rows, name)
    return [ablation] if ablation else []


def _build_pictures(material: Material, pictures: Sequence[Picture]) -> Section:
    plots = material.attempt(lambda: plot_groups(material.rows, "reconstruction", material.columns))
    readable = [one for picture in pictures for one in material.attempt(partial(_check_picture, picture))]
    text = material.explain(["reconstruction"])
    title = "Reconstructions, and answers laid over images"
    made = material.describe_making(["reconstruction"])
    return _make_section("pictures", title, text, made=made, plots=plots, pictures=readable)


def _check_picture(picture: Picture) -> list[Picture]:
    read_picture(picture.path)
    return [picture]
