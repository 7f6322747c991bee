"""Models beside people on distorted images: model-vs-human's experiments and its benchmark, from its own files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from pixmim_eval.data.panels import Panel, match_images, open_trials
from pixmim_eval.data.stimuli import CUE_CONFLICT, EXPERIMENTS, open_stimuli
from pixmim_eval.errors import InputError
from pixmim_eval.extract import select_head_rows, select_rows
from pixmim_eval.files import write_atomic
from pixmim_eval.results import RunFolder, format_protocol, make_rows
from pixmim_eval.suites import EvaluationSuite
from pixmim_eval.suites.decisions import (
    UNITS,
    Comparison,
    GeometryOptions,
    answers_of,
    check_names,
    compare_model,
    compare_panel,
    decide_images,
    kept_levels,
    list_observers,
    map_outputs,
    name_observer,
    observers_model,
    stimuli_of,
    trials_of,
)
from pixmim_eval.suites.human_benchmark import (
    BENCHMARK,
    benchmark_model,
    benchmark_observers,
    format_table,
    rank_models,
)
from pixmim_eval.suites.shape_bias import measure_answers, rate_answers
from pixmim_eval.types import Estimate, FileSet, Model, Outcome, ResultRow, SuiteConfig


class ModelVsHuman(EvaluationSuite):
    """The suite `model_vs_human`.

    Conditions: each experiment whose images are there (edge, silhouette, cue-conflict, sketch, stylized, and those with
    levels of distortion: contrast, low-pass, eidolonI …), and "benchmark", the mean over them.

    Metrics of an experiment: "category_accuracy"; "error_consistency_people" (Cohen's kappa of right and wrong),
    "observed_consistency_people" (how often both are right or both wrong) and "accuracy_difference_people" (squared),
    each the mean over levels and people; "error_consistency/OBSERVER". Levels without distortion, and those at which
    people fail, are left out of these, as in the benchmark (stimuli.LEFT_OUT); "category_accuracy/LEVEL" and
    "error_consistency_people/LEVEL" are of every level. Cue-conflict has the metrics of `shape_bias` besides.

    Metrics of the benchmark: "ood_accuracy" and the three means, of the models and of networks with trials of all its
    experiments. Model "people" has the means over pairs of people, the ceiling; single people have rows of experiments
    only, as they are not the same in each.

    The answers are also written to OUT/raw-data, as model-vs-human would, and the table of the benchmark, with ranks.

    Source: Geirhos et al., NeurIPS 2021, section 2; bethgelab/model-vs-human, plotting/plot.py.
    """

    name = "model_vs_human"
    version = 1
    needs: ClassVar[tuple[str, ...]] = ("trials", "stimuli")
    accepts: ClassVar[tuple[str, ...]] = ("train",)
    openers: ClassVar[Mapping[str, Callable[[str], FileSet]]] = {"trials": open_trials, "stimuli": open_stimuli}
    options: ClassVar[type[GeometryOptions] | None] = GeometryOptions

    def conditions(self, config: SuiteConfig) -> list[str]:
        """Experiments in the order of the benchmark, which comes last."""
        return [*_list_panels(self, config), BENCHMARK]

    def roles(self, model: Model, condition: str, config: SuiteConfig) -> tuple[str, ...]:
        """The files that are used.

        Raises:
            InputError: what would fail later: label spaces, names, images that no observer saw.
        """
        if model.encoder is None:
            return ("trials",)
        for name, panel in _list_panels(self, config).items():
            if condition in (name, BENCHMARK):
                stimuli = stimuli_of(config).sets[name]
                map_outputs(model, stimuli, config)
                check_names(model, panel)
                match_images(panel, stimuli, select_rows(stimuli.manifest, config.limit))
        return ("trials", "stimuli", *(() if model.classify else ("train",)))

    def subjects(self, config: SuiteConfig) -> list[Model]:
        """All observers from files, as one."""
        return [observers_model(trials_of(config).digest)]

    def count_images(self, model: Model, condition: str, config: SuiteConfig) -> dict[str, int]:
        """Forward passes where nothing is cached; see EvaluationSuite."""
        if model.encoder is None:
            return {}
        names = _list_panels(self, config) if condition == BENCHMARK else [condition]
        sets = stimuli_of(config).sets
        images = {name: len(select_rows(sets[name].manifest, config.limit)) for name in names}
        if model.classify is None:
            images["train"] = len(select_head_rows(config.data["train"], config.limit))
        return images

    def run(self, model: Model, condition: str, config: SuiteConfig) -> Outcome:
        """The rows of a model, or of all observers from files.

        Raises:
            InputError: as roles, or an image that cannot be read or has another size.
            FloatingPointError: the model's outputs are not finite.
        """
        panels = _list_panels(self, config)
        if model.encoder is not None:
            if condition == BENCHMARK:
                return Outcome(benchmark_model(self.name, model, panels, config), {})
            return _measure_model(model, panels[condition], config)
        if condition == BENCHMARK:
            return Outcome(benchmark_observers(self.name, panels, config), {})
        return Outcome(_measure_observers(self.name, panels[condition], config), {})

    def draw(self, models: Sequence[Model], config: SuiteConfig, folder: Path) -> list[Path]:
        """The table of the benchmark, as CSV and Markdown; nothing where its condition failed."""
        rows = [row for row in RunFolder(config.out).read() if (row.suite, row.condition) == (self.name, BENCHMARK)]
        if not rows:
            return []
        table = rank_models(rows)
        files = {"csv": table.to_csv(index=False), "md": format_table(table)}
        paths = [folder.parent / "tables" / f"{self.name.replace('_', '-')}-benchmark.{ending}" for ending in files]
        for path, text in zip(paths, files.values(), strict=True):
            write_atomic(path, text.encode())
        return paths


def _list_panels(suite: EvaluationSuite, config: SuiteConfig) -> dict[str, Panel]:
    """The observers of each experiment that the suite measures. Raises InputError for images without trials."""
    panels = trials_of(config).panels
    names = stimuli_of(config).sets if "stimuli" in suite.needs else panels
    if missing := [name for name in names if name not in panels]:
        raise InputError(
            "files of trials",
            expected=f"some of each experiment whose images are there: {', '.join(names)}",
            found=f"none of {', '.join(missing)}",
            where="--data trials= and stimuli=",
            fix="Add their folders to the trials, or point stimuli at the folder of one experiment.",
        )
    return {name: panels[name] for name in sorted(names, key=_order)}


def _order(name: str) -> tuple[int, str]:
    """The benchmark's experiments in its order, others behind."""
    return (EXPERIMENTS.index(name) if name in EXPERIMENTS else len(EXPERIMENTS)), name


def _list_comparisons(comparison: Comparison | None) -> dict[str, Estimate]:
    if comparison is None:
        return {}
    return comparison.list_estimates(tuple(UNITS)) | comparison.list_pairs("error_consistency")


def _measure_model(model: Model, panel: Panel, config: SuiteConfig) -> Outcome:
    """The rows of a model in one experiment."""
    decisions = decide_images(model, stimuli_of(config).sets[panel.experiment], config)
    kept = kept_levels(panel)
    levels, correct = decisions.stimuli.levels[decisions.answered], decisions.correct
    scored = np.isin(levels, kept)
    if not scored.any():
        raise InputError(
            f"images of {panel.experiment}",
            expected=f"some of levels {', '.join(kept)}",
            found="none",
            where=decisions.stimuli.manifest.name,
            fix="Give the images of all levels, or raise --limit.",
        )
    estimates = {"category_accuracy": _rate(correct[scored][None])}
    estimates |= _list_comparisons(compare_model(decisions, panel, config, kept))
    for level in np.unique(levels[levels != ""]).tolist():
        estimates[f"category_accuracy/{level}"] = _rate(correct[levels == level][None])
        estimates |= _of_level(compare_model(decisions, panel, config, [level]), level)
    if panel.experiment == CUE_CONFLICT:
        stimuli, shown = decisions.stimuli, decisions.answered
        shapes, textures = stimuli.shapes[shown], stimuli.textures[shown]
        estimates |= measure_answers(decisions.answers, shapes, textures, stimuli.categories, config)
    protocol = format_protocol(
        **decisions.protocol, levels=_describe_levels(kept), trials=f"{len(decisions.answered)}-of-{len(panel)}"
    )
    rows = make_rows(
        model,
        decisions.stimuli.manifest,
        estimates,
        suite=ModelVsHuman.name,
        condition=panel.experiment,
        protocol=protocol,
        config=config,
        skipped=decisions.skipped,
    )
    return Outcome(rows, {"category_accuracy": decisions.mark(correct, scored)})


def _measure_observers(suite: str, panel: Panel, config: SuiteConfig) -> list[ResultRow]:
    """The rows of all people together and of each observer in one experiment, whatever the limit."""
    kept = kept_levels(panel)
    scored = np.isin(panel.levels, kept)
    levels = np.unique(panel.levels[panel.levels != ""]).tolist()
    comparisons = compare_panel(panel, config, kept)
    by_level = {level: compare_panel(panel, config, [level]) for level in levels}
    whole = replace(config, limit=None)
    rows: list[ResultRow] = []
    for name in list_observers(panel):
        answers = answers_of(panel, name)
        estimates = {"category_accuracy": rate_answers(answers[:, scored], panel.shapes[scored])}
        estimates |= _list_comparisons(comparisons.get(name))
        for level in levels:
            shown = panel.levels == level
            estimates[f"category_accuracy/{level}"] = rate_answers(answers[:, shown], panel.shapes[shown])
            estimates |= _of_level(by_level[level].get(name), level)
        if panel.experiment == CUE_CONFLICT:
            estimates |= measure_answers(answers, panel.shapes, panel.textures, panel.categories, config)
        protocol = format_protocol(
            categories=len(panel.categories), levels=_describe_levels(kept), observers=len(answers), source="trials"
        )
        rows += make_rows(
            name_observer(name, panel),
            panel,
            estimates,
            suite=suite,
            condition=panel.experiment,
            protocol=protocol,
            config=whole,
        )
    return rows


def _rate(correct: np.ndarray) -> Estimate:
    return rate_answers(correct.astype(np.int64), np.ones(correct.shape[1], dtype=np.int64))


def _of_level(comparison: Comparison | None, level: str) -> dict[str, Estimate]:
    found = comparison.list_estimates(["error_consistency"]) if comparison else {}
    return {f"{metric}/{level}": estimate for metric, estimate in found.items()}


def _describe_levels(kept: list[str]) -> str:
    return ",".join(kept) if kept != [""] else "none"
