"""Models, people and networks from files side by side: what each decides, and how alike they err."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Literal

import numpy as np
import torch

from pixmim_eval.data.categories import CategoryMap, map_categories
from pixmim_eval.data.panels import Panel, TrialSet, is_person, match_images
from pixmim_eval.data.stimuli import LEFT_OUT, Stimuli, StimulusSets
from pixmim_eval.data.transforms import name_transform
from pixmim_eval.data.trials import make_trial_file, name_trial_file, write_trial_file
from pixmim_eval.errors import InputError
from pixmim_eval.extract import predict, prepare_classifier, process_rank, require_train, select_rows
from pixmim_eval.metrics.consistency import Resampled, average, compare_observers
from pixmim_eval.metrics.shape_bias import decide
from pixmim_eval.results import hash_parts
from pixmim_eval.seeds import derive_seed
from pixmim_eval.suites.scoring import label_space_of
from pixmim_eval.types import Estimate, Manifest, Model, Preprocessing, SuiteConfig

PEOPLE = "people"
NATIVE_SIZE = 224  # of model-vs-human's images
UNITS = {"error_consistency": "kappa", "observed_consistency": "fraction", "accuracy_difference": "squared"}


@dataclass(frozen=True)
class GeometryOptions:
    """Options of the suites on model-vs-human's images.

    Args:
        geometry: how images of 224 px become inputs: as they are (model-vs-human), or resized and cropped anew.
    """

    geometry: Literal["native224", "resize256"] = field(
        default="native224",
        metadata={"help": "images as they are (default), or resized to 8/7 of the input and cropped: 256 for 224"},
    )


@dataclass(frozen=True)
class Decisions:
    """What a model decided on the images of an experiment.

    Args:
        stimuli: the images.
        asked: int64 [N], rows that were to be shown.
        answered: int64 [n], those that could be read, and whose shape and texture the model has classes of.
        answers: int64 [n], categories.
        protocol: how, for the rows.
        skipped: rows that could not be read.
    """

    stimuli: Stimuli
    asked: np.ndarray
    answered: np.ndarray
    answers: np.ndarray
    protocol: Mapping[str, str]
    skipped: int

    @property
    def correct(self) -> np.ndarray:
        """bool [n], whether each answer is the shape's category."""
        return self.answers == self.stimuli.shapes[self.answered]

    def mark(self, hits: np.ndarray, counts: np.ndarray | bool = True) -> np.ndarray:
        """int8 [N] for types.Outcome: hits bool [n] as 1 and 0, and -1 for what was not answered or does not count."""
        marks = np.full(len(self.asked), -1, dtype=np.int8)
        marks[np.searchsorted(self.asked, self.answered)] = np.where(counts, hits, -1)
        return marks


def trials_of(config: SuiteConfig) -> TrialSet:
    """What the role trials holds."""
    found = config.files["trials"]
    if not isinstance(found, TrialSet):
        raise TypeError(f"role trials holds {type(found).__name__}")
    return found


def stimuli_of(config: SuiteConfig) -> StimulusSets:
    """What the role stimuli holds."""
    found = config.files["stimuli"]
    if not isinstance(found, StimulusSets):
        raise TypeError(f"role stimuli holds {type(found).__name__}")
    return found


def observers_model(panel_digest: str) -> Model:
    """What stands for all observers from files among the models of a run; their rows bear their own names."""
    return Model("observers", panel_digest, None, Preprocessing(0, 0), method="trials")


def name_observer(name: str, panel: Panel) -> Model:
    """An observer from files, or all people together, as a row has it."""
    method = PEOPLE if name == PEOPLE or is_person(name) else "trials"
    return Model(name, hash_parts(panel.digest, name), None, Preprocessing(0, 0), method=method)


def list_observers(panel: Panel) -> tuple[str, ...]:
    """Everybody who gets rows: people together where there are any, then each observer."""
    return ((PEOPLE,) if len(panel.people) else ()) + panel.observers


def answers_of(panel: Panel, name: str) -> np.ndarray:
    """int64 [O, T], the answers of an observer, or of all people."""
    return panel.answers[panel.people if name == PEOPLE else [panel.observers.index(name)]]


def map_outputs(model: Model, stimuli: Stimuli, config: SuiteConfig) -> CategoryMap:
    """Which outputs of a model belong to each category, known before any head is fitted. Raises InputError where none
    does, or where a head is needed and there is no role train."""
    space = label_space_of(model) if model.classify else require_train(model, config).label_space
    return map_categories(space, stimuli.categories)


def decide_images(model: Model, stimuli: Stimuli, config: SuiteConfig) -> Decisions:
    """Show a model the images of an experiment, and write its answers as model-vs-human does.

    The file is OUT/raw-data/EXPERIMENT/EXPERIMENT_MODEL_session_1.csv, with an answer to every image. Where the model
    has no class of an image's shape or texture, its answer is decided beforehand, and does not count.

    Raises:
        InputError: as map_outputs, or an image that cannot be read or has another size.
        FloatingPointError: the model's outputs are not finite.
    """
    mapped = map_outputs(model, stimuli, config)
    classifier, head = prepare_classifier(model, config)
    manifest, preprocessing, geometry = _place_images(stimuli.manifest, model.preprocessing, config.options.geometry)
    shown = replace(classifier, preprocessing=preprocessing)
    found = predict(shown, manifest, config=config)
    protocol = {
        **head,
        **mapped.description,
        "average": "mean",
        "geometry": geometry,
        "precision": "bfloat16" if torch.device(config.device).type == "cuda" else "float32",
        "transform": name_transform(preprocessing, manifest),
    }
    answers = decide(found.logits, mapped.members)
    if process_rank()[0] == 0:
        file = config.out / "raw-data" / stimuli.experiment / name_trial_file(stimuli.experiment, model.name)
        write_trial_file(file, make_trial_file(model.name, stimuli, found.index, answers))
    fair = _find_answerable(stimuli, mapped)[found.index]
    asked = select_rows(stimuli.manifest, config.limit)
    return Decisions(stimuli, asked, found.index[fair], answers[fair], protocol, found.skipped)


def _find_answerable(stimuli: Stimuli, mapped: CategoryMap) -> np.ndarray:
    """bool [N], whether a model has classes of both the shape and, where there is one, the texture of each image."""
    covered = np.array([len(found) > 0 for found in mapped.members])
    return covered[stimuli.shapes] & ((stimuli.textures < 0) | covered[stimuli.textures])


def _place_images(
    manifest: Manifest, preprocessing: Preprocessing, geometry: str
) -> tuple[Manifest, Preprocessing, str]:
    """The data set and the model's geometry under a protocol, and the protocol's name with the sizes there are."""
    if geometry == "native224":
        ready = manifest.ready_size or NATIVE_SIZE
        return replace(manifest, ready_size=ready), preprocessing, f"native{ready}"
    resize = preprocessing.size * 8 // 7
    return replace(manifest, ready_size=None), replace(preprocessing, resize=resize), f"resize{resize}"


def check_names(model: Model, panel: Panel) -> None:
    """Raises InputError where a model is called like an observer: nobody could tell their rows apart."""
    if model.name in (*panel.observers, PEOPLE):
        raise InputError(
            "names of models and observers",
            expected="names that differ",
            found=f"{model.name} twice",
            where="--model, --checkpoint and --data trials=",
            fix="Take its file out of the trials, or rename the checkpoint.",
        )


@dataclass(frozen=True)
class Comparison:
    """One observer beside others, on the same images.

    Args:
        others: names, one a pair; "" where people are compared among themselves.
        of_people: int64, places of the pairs with people.
        found: metric -> one number a pair; see metrics.consistency.compare_observers.
    """

    others: tuple[str, ...]
    of_people: np.ndarray
    found: Mapping[str, Resampled]

    def list_estimates(self, metrics: Sequence[str]) -> dict[str, Estimate]:
        """ "METRIC_people", the mean over people (or pairs of people), where there are any."""
        kept = metrics if len(self.of_people) else ()
        return {
            f"{metric}_{PEOPLE}": self.found[metric].mean(self.of_people).estimate(UNITS[metric]) for metric in kept
        }

    def list_pairs(self, metric: str) -> dict[str, Estimate]:
        """ "METRIC/OBSERVER" for each other observer."""
        return {
            f"{metric}/{other}": self.found[metric].estimate(UNITS[metric], place)
            for place, other in enumerate(self.others)
            if other
        }


def compare_model(decisions: Decisions, panel: Panel, config: SuiteConfig, levels: Sequence[str]) -> Comparison | None:
    """A model beside everybody, on the images that it answered.

    Args:
        decisions: of the model.
        panel: the others.
        config: of the run.
        levels: of distortion, over which the mean is taken; ("",) where there are none.

    Returns:
        None where no image of these levels was answered.

    Raises:
        InputError: as match_images.
    """
    places = match_images(panel, decisions.stimuli, decisions.answered)
    correct = np.concatenate([panel.answers[:, places] == panel.shapes[places], decisions.correct[None]])
    pairs = [(len(panel.observers), other) for other in range(len(panel.observers))]
    found = _average_levels(panel, correct, panel.levels[places], pairs, config, levels)
    return Comparison(panel.observers, panel.people, found) if found else None


def compare_panel(panel: Panel, config: SuiteConfig, levels: Sequence[str]) -> dict[str, Comparison]:
    """Each observer beside all others, and people among themselves; whoever has nobody to be compared with is absent.

    Args: as compare_model.
    """
    pairs = list(combinations(range(len(panel.observers)), 2))
    found = _average_levels(panel, panel.answers == panel.shapes, panel.levels, pairs, config, levels)
    people, comparisons = set(panel.people.tolist()), {}
    for name in list_observers(panel):
        if name == PEOPLE:
            chosen = [place for place, pair in enumerate(pairs) if people.issuperset(pair)]
            others, of_people = [""] * len(chosen), np.arange(len(chosen))
        else:
            own = panel.observers.index(name)
            chosen = [place for place, pair in enumerate(pairs) if own in pair]
            seconds = [sum(pairs[place]) - own for place in chosen]
            others, of_people = [panel.observers[k] for k in seconds], np.flatnonzero(np.isin(seconds, panel.people))
        if chosen and found:
            part = {metric: numbers.pick(np.array(chosen)) for metric, numbers in found.items()}
            comparisons[name] = Comparison(tuple(others), of_people, part)
    return comparisons


def _average_levels(
    panel: Panel,
    correct: np.ndarray,
    levels: np.ndarray,
    pairs: list[tuple[int, int]],
    config: SuiteConfig,
    kept: Sequence[str],
) -> dict[str, Resampled]:
    """Metric -> one number a pair of rows of `correct` bool [O, n], the mean over levels, which are different images;
    nothing where there is no pair or no image."""
    shown = [level for level in kept if (levels == level).any()]
    if not pairs or not shown:
        return {}
    seeds = {level: derive_seed(config.seed, panel.experiment, level) for level in shown}
    parts = [compare_observers(correct[:, levels == level], np.array(pairs), seed=seeds[level]) for level in shown]
    return {metric: average([part[metric] for part in parts]) for metric in UNITS}


def kept_levels(panel: Panel) -> list[str]:
    """Levels of distortion that count: all but those that the benchmark leaves out (see stimuli.LEFT_OUT)."""
    left_out = LEFT_OUT.get(panel.experiment, ())
    return [level for level in np.unique(panel.levels).tolist() if level not in left_out]
