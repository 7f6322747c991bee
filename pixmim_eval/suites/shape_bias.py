"""Shape bias: whether models go by shape or by texture where the two are in conflict, beside people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np

from pixmim_eval.data.panels import Panel, TrialSet, match_images, open_trials
from pixmim_eval.data.stimuli import CUE_CONFLICT, read_stimuli
from pixmim_eval.errors import InputError
from pixmim_eval.extract import select_head_rows, select_rows
from pixmim_eval.metrics.intervals import mean_interval, wilson
from pixmim_eval.metrics.shape_bias import find_conflicts, measure_shape_bias
from pixmim_eval.results import format_protocol, make_rows
from pixmim_eval.seeds import derive_seed
from pixmim_eval.suites import EvaluationSuite
from pixmim_eval.suites.decisions import (
    Decisions,
    GeometryOptions,
    answers_of,
    check_names,
    compare_model,
    compare_panel,
    decide_images,
    list_observers,
    map_outputs,
    name_observer,
    observers_model,
)
from pixmim_eval.types import Estimate, FileSet, Model, Outcome, ResultRow, SuiteConfig

_LEVELS = ("",)  # none: all images are of one kind


class ShapeBias(EvaluationSuite):
    """The suite `shape_bias`.

    The images show a shape with the texture of something else: Geirhos et al.'s 1,280, whose names tell both, or
    shapes16:cue-conflict. A model's probabilities are averaged over each category's classes (ImageNet's 207 of the 16
    categories, or those that its label space has; classes of the same name for other sets), and the highest mean is its
    answer. A category without a class cannot be answered: the protocol names it, and images of its shape or with its
    texture do not count.

    Condition: "cue-conflict". Metrics: "shape_bias" and "shape_bias/CATEGORY" (of the shape), "accuracy_shape",
    "accuracy_texture" and "correct_fraction" (either), of the images whose texture is of another category;
    "category_accuracy", of all images, right where the answer is the shape. With role trials, files of people's and
    networks' answers: "error_consistency/OBSERVER", Cohen's kappa of right and wrong on all images that both saw, and
    "error_consistency_people", its mean over people. The same rows for each observer, and for all people together as
    model "people", whose "error_consistency_people" is the mean over pairs of people: the ceiling.

    The answers are also written to OUT/raw-data, as model-vs-human would.
    """

    name = "shape_bias"
    version = 1
    needs = (CUE_CONFLICT,)
    accepts = ("train", "trials")
    openers: ClassVar[Mapping[str, Callable[[str], FileSet]]] = {"trials": open_trials}
    options = GeometryOptions

    def conditions(self, config: SuiteConfig) -> list[str]:
        """The only one."""
        return [CUE_CONFLICT]

    def roles(self, model: Model, condition: str, config: SuiteConfig) -> tuple[str, ...]:
        """The images, and where they are used train and trials.

        Raises:
            InputError: what would fail later: names of images, label spaces, images that no observer saw.
        """
        panel = find_panel(config)
        trials = () if panel is None else ("trials",)
        if model.encoder is None:
            return trials
        stimuli = read_stimuli(config.data[CUE_CONFLICT], CUE_CONFLICT)
        map_outputs(model, stimuli, config)
        if panel is not None:
            check_names(model, panel)
            match_images(panel, stimuli, select_rows(stimuli.manifest, config.limit))
        return (CUE_CONFLICT, *trials, *(() if model.classify else ("train",)))

    def subjects(self, config: SuiteConfig) -> list[Model]:
        """All observers from files, as one."""
        panel = find_panel(config)
        return [] if panel is None else [observers_model(panel.digest)]

    def count_images(self, model: Model, condition: str, config: SuiteConfig) -> dict[str, int]:
        """Forward passes where nothing is cached; see EvaluationSuite."""
        roles = self.roles(model, condition, config)
        images = {CUE_CONFLICT: len(select_rows(config.data[CUE_CONFLICT], config.limit))}
        if "train" in roles:
            images["train"] = len(select_head_rows(config.data["train"], config.limit))
        return images if CUE_CONFLICT in roles else {}

    def run(self, model: Model, condition: str, config: SuiteConfig) -> Outcome:
        """The rows of a model, or of all observers from files.

        Raises:
            InputError: as roles, or an image that cannot be read or has another size.
            FloatingPointError: the model's outputs are not finite.
        """
        panel = find_panel(config)
        if model.encoder is not None:
            return _measure_model(model, panel, config)
        if panel is None:
            raise ValueError("there are observers only where there are trials")
        return Outcome(_measure_observers(panel, config), {})


def find_panel(config: SuiteConfig) -> Panel | None:
    """The observers of cue-conflict images; None without the role trials.

    Raises:
        InputError: trials of other experiments only.
    """
    trials = config.files.get("trials")
    if not isinstance(trials, TrialSet):
        return None
    if CUE_CONFLICT not in trials.panels:
        raise InputError(
            "files of trials",
            expected=f"some of experiment {CUE_CONFLICT}",
            found=", ".join(trials.panels),
            where=f"--data trials={trials.name}",
            fix=f"Put the files into a folder called {CUE_CONFLICT}.",
        )
    return trials.panels[CUE_CONFLICT]


def _measure_model(model: Model, panel: Panel | None, config: SuiteConfig) -> Outcome:
    stimuli = read_stimuli(config.data[CUE_CONFLICT], CUE_CONFLICT)
    decisions = decide_images(model, stimuli, config)
    rows, answers = decisions.answered, decisions.answers
    shapes, textures = stimuli.shapes[rows], stimuli.textures[rows]
    estimates = measure_answers(answers, shapes, textures, stimuli.categories, config)
    estimates["category_accuracy"] = wilson(int(decisions.correct.sum()), len(answers))
    skipped, read = decisions.skipped, len(decisions.asked) - decisions.skipped
    protocol = {**decisions.protocol, "conflicts": f"{int(find_conflicts(shapes, textures).sum())}-of-{read}"}
    shared = {"suite": ShapeBias.name, "condition": CUE_CONFLICT}
    found = make_rows(
        model, stimuli.manifest, estimates, **shared, protocol=format_protocol(**protocol), config=config,
        skipped=skipped,
    )  # fmt: skip
    if panel is not None and (comparison := compare_model(decisions, panel, config, _LEVELS)):
        consistency = comparison.list_estimates(["error_consistency"]) | comparison.list_pairs("error_consistency")
        text = format_protocol(**protocol, trials=f"{len(rows)}-of-{len(panel)}")
        found += make_rows(
            model, stimuli.manifest, consistency, **shared, protocol=text, config=config, skipped=skipped
        )
    return Outcome(found, _mark_hits(decisions))


def _mark_hits(decisions: Decisions) -> dict[str, np.ndarray]:
    """How each image fared, for paired comparisons of models."""
    rows, answers = decisions.answered, decisions.answers
    shapes, textures = decisions.stimuli.shapes[rows], decisions.stimuli.textures[rows]
    conflicts = find_conflicts(shapes, textures)
    hits = {"accuracy_shape": answers == shapes, "accuracy_texture": answers == textures}
    hits["correct_fraction"] = hits["accuracy_shape"] | hits["accuracy_texture"]
    marked = {metric: decisions.mark(found, conflicts) for metric, found in hits.items()}
    return marked | {"category_accuracy": decisions.mark(decisions.correct)}


def _measure_observers(panel: Panel, config: SuiteConfig) -> list[ResultRow]:
    """The rows of all people together and of each observer, on every trial there is, whatever the limit."""
    comparisons = compare_panel(panel, config, _LEVELS)
    whole = replace(config, limit=None)
    rows: list[ResultRow] = []
    for name in list_observers(panel):
        answers = answers_of(panel, name)
        estimates = measure_answers(answers, panel.shapes, panel.textures, panel.categories, config)
        estimates["category_accuracy"] = rate_answers(answers, panel.shapes)
        if comparison := comparisons.get(name):
            estimates |= comparison.list_estimates(["error_consistency"])
            estimates |= comparison.list_pairs("error_consistency")
        protocol = format_protocol(
            categories=len(panel.categories),
            conflicts=f"{int(find_conflicts(panel.shapes, panel.textures).sum())}-of-{len(panel)}",
            observers=len(answers),
            source="trials",
        )
        rows += make_rows(
            name_observer(name, panel),
            panel,
            estimates,
            suite=ShapeBias.name,
            condition=CUE_CONFLICT,
            protocol=protocol,
            config=whole,
        )
    return rows


def measure_answers(
    answers: np.ndarray, shapes: np.ndarray, textures: np.ndarray, categories: Sequence[str], config: SuiteConfig
) -> dict[str, Estimate]:
    """See metrics.measure_shape_bias; with the seed that both suites use, so that their intervals are equal."""
    return measure_shape_bias(answers, shapes, textures, categories, seed=derive_seed(config.seed, ShapeBias.name))


def rate_answers(answers: np.ndarray, shapes: np.ndarray) -> Estimate:
    """Accuracy of answers int64 [O, T], the interval over images: Wilson's of one observer, Student's of several."""
    correct = answers == shapes
    return wilson(int(correct.sum()), len(shapes)) if len(correct) == 1 else mean_interval(correct.mean(axis=0))
