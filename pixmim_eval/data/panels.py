"""Observers who saw the same images: people and networks, trial by trial, from their files."""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pixmim_eval.data.categories import find_categories, list_some
from pixmim_eval.data.stimuli import CUE_CONFLICT, EXPERIMENTS, Stimuli, name_levels, read_textures, shorten_name
from pixmim_eval.data.trials import NO_ANSWER, TrialFile, file_error, read_trial_file
from pixmim_eval.errors import InputError
from pixmim_eval.results import hash_parts

_FILE_NAME = re.compile(r"(?P<experiment>.+)_[^_]+_session[-_]\d+")
_PERFORMANCES = "performances"  # a folder of model-vs-human beside those of trials, with another kind of table
_Key = tuple[str, str]  # level and image


@dataclass(frozen=True)
class Panel:
    """Observers who decided on the same images; see types.FileSet.

    Args:
        experiment: e.g. "cue-conflict".
        categories: names of C categories.
        observers: O names, in order; those of people begin with "subject-".
        images: [T] names (see stimuli.shorten_name).
        levels: [T] of distortion, "" where the experiment has none.
        shapes: int64 [T], the right answer.
        textures: int64 [T], the texture's category; -1 throughout but for cue-conflict images.
        answers: int64 [O, T], categories; -1 for none.
        digest: of all this.
    """

    experiment: str
    categories: tuple[str, ...]
    observers: tuple[str, ...]
    images: np.ndarray
    levels: np.ndarray
    shapes: np.ndarray
    textures: np.ndarray
    answers: np.ndarray
    digest: str

    @property
    def name(self) -> str:
        """For the data set of result rows."""
        return f"{self.experiment}-trials"

    @property
    def people(self) -> np.ndarray:
        """Places of the observers that are people."""
        return np.flatnonzero([is_person(name) for name in self.observers])

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class TrialSet:
    """The trials of one or more experiments, by name; see types.FileSet."""

    name: str
    digest: str
    panels: dict[str, Panel]

    def __len__(self) -> int:
        return sum(panel.answers.size for panel in self.panels.values())


@dataclass
class _Seen:
    """What one observer was shown: (level, image) -> the right answer and the given one."""

    trials: dict[_Key, tuple[int, int]] = field(default_factory=dict)


def is_person(observer: str) -> bool:
    """Whether an observer is a person, which model-vs-human tells by the name."""
    return observer.startswith("subject-")


def open_trials(path: str) -> TrialSet:
    """Files of trials, by experiment.

    Args:
        path: a CSV file, a folder of such at any depth, or a glob of these. A file belongs to the experiment that its
            folder is called like (model-vs-human's "raw-data"), or else to that in its name,
            "EXPERIMENT_OBSERVER_session_1.csv".

    Raises:
        InputError: no such files, or whatever reading and comparing them finds.
    """
    roots = [Path(found) for found in sorted(glob.glob(path))] if glob.has_magic(path) else [Path(path)]  # noqa: PTH207
    files = sorted({file for root in roots for file in ([root] if root.is_file() else root.rglob("*.csv"))})
    by_experiment: dict[str, list[Path]] = {}
    for file in files:
        if file.parent.name != _PERFORMANCES:
            by_experiment.setdefault(_name_experiment(file), []).append(file)
    if not by_experiment:
        raise InputError(
            "files of trials",
            expected="CSV files as model-vs-human writes them, EXPERIMENT_OBSERVER_session_1.csv",
            found="none",
            where=path,
            fix="Point at its folder raw-data, or at the files.",
        )
    panels = {
        name: make_panel(name, {file: read_trial_file(file) for file in found}) for name, found in by_experiment.items()
    }
    digest = hash_parts(tuple((name, panel.digest) for name, panel in sorted(panels.items())))
    return TrialSet(Path(path).name, digest, panels)


def _name_experiment(file: Path) -> str:
    if file.parent.name in EXPERIMENTS:
        return file.parent.name
    if match := _FILE_NAME.fullmatch(file.stem):
        return match["experiment"]
    raise InputError(
        "name of a file of trials",
        expected=f"EXPERIMENT_OBSERVER_session_1.csv, or a folder called {', '.join(EXPERIMENTS[:3])} …",
        found=file.name,
        where=str(file.parent),
        fix="Rename the file or its folder: otherwise nobody knows which images were shown.",
    )


def make_panel(experiment: str, files: Mapping[Path, TrialFile]) -> Panel:
    """Observers side by side, trial by trial.

    Args:
        experiment: its name.
        files: of one or more observers; an observer's sessions are put together.

    Raises:
        InputError: an unknown category, an observer with two trials of an image at the same level, or observers who did
            not see the same images or had other right answers.
    """
    where = ", ".join(sorted({str(file.parent) for file in files}))
    shown = {file: set(trials.column("category")) for file, trials in files.items()}
    for file, names in shown.items():
        find_categories(names, str(file))
    categories = find_categories(set().union(*shown.values()), where)
    observers: dict[str, _Seen] = {}
    for file, trials in files.items():
        _add_trials(observers, categories, experiment, file, trials)
    _check_same_trials({name: seen.trials for name, seen in observers.items()}, where)
    known = next(iter(observers.values())).trials
    keys = sorted(known)
    shapes = np.array([known[key][0] for key in keys], dtype=np.int64)
    images = np.array([image for _, image in keys])
    cues = read_textures(images, shapes, categories, where) if experiment == CUE_CONFLICT else np.full(len(keys), -1)
    answers = {name: [observers[name].trials[key][1] for key in keys] for name in sorted(observers)}
    return Panel(
        experiment=experiment,
        categories=categories,
        observers=tuple(answers),
        images=images,
        levels=np.array([level for level, _ in keys]),
        shapes=shapes,
        textures=cues,
        answers=np.array(list(answers.values()), dtype=np.int64),
        digest=hash_parts(experiment, categories, tuple(keys), tuple(shapes.tolist()), answers),
    )


def _add_trials(
    observers: dict[str, _Seen], categories: Sequence[str], experiment: str, file: Path, trials: TrialFile
) -> None:
    """Put the trials of a file to those of its observers. Raises InputError as make_panel."""
    places = {name: place for place, name in enumerate(categories)} | {NO_ANSWER: -1}
    responses = trials.column("object_response")
    if strange := {text for text in responses if text not in places}:
        raise file_error(file, f"responses {', '.join(places)}", list_some(strange))
    levels = name_levels(trials.column("condition"), experiment).tolist()
    images = [shorten_name(name) for name in trials.column("imagename")]
    answers = zip(trials.column("category"), responses, strict=True)
    twice = []
    for name, level, image, (right, given) in zip(trials.column("subj"), levels, images, answers, strict=True):
        seen = observers.setdefault(name, _Seen()).trials
        if (level, image) in seen:
            twice.append(f"{image} by {name}")
        seen[level, image] = (places[right], places[given])
    if twice:
        raise file_error(file, "one trial an image, level and observer", f"duplicate trials, {list_some(twice)}")


def _check_same_trials(observers: Mapping[str, Mapping[_Key, tuple[int, int]]], where: str) -> None:
    (first, known), *others = observers.items()
    for name, seen in others:
        differences = {
            f"images that {first} alone saw": known.keys() - seen.keys(),
            f"images that {name} alone saw": seen.keys() - known.keys(),
            "images with another right answer": {key for key in known.keys() & seen if known[key][0] != seen[key][0]},
        }
        if any(differences.values()):
            found = [f"{text}, {_list_keys(keys)}" for text, keys in differences.items() if keys]
            raise InputError(
                f"trials of {first} and {name}",
                expected=f"the same {len(known)} images with the same right answers",
                found="; ".join(found),
                where=where,
                fix="Take both whole, or leave one out: nothing is compared on what images are left.",
            )


def _list_keys(keys: set[_Key]) -> str:
    return list_some([" ".join(key).strip() for key in keys])


def match_images(panel: Panel, stimuli: Stimuli, rows: np.ndarray) -> np.ndarray:
    """Where among the trials of observers each image is.

    Args:
        panel: the observers.
        stimuli: the images of a data set.
        rows: int64 [n], which of them.

    Returns:
        int64 [n], trials of the panel.

    Raises:
        InputError: images that the observers never saw, or that had another right answer.
    """
    places = {key: place for place, key in enumerate(zip(panel.levels.tolist(), panel.images.tolist(), strict=True))}
    images = [shorten_name(name) for name in stimuli.images[rows].tolist()]
    keys = list(zip(stimuli.levels[rows].tolist(), images, strict=True))
    found = np.array([places.get(key, -1) for key in keys], dtype=np.int64)
    right = np.array([panel.categories.index(stimuli.categories[shape]) for shape in stimuli.shapes[rows].tolist()])
    unseen = {key for key, place in zip(keys, found.tolist(), strict=True) if place < 0}
    differ = {keys[i] for i in np.flatnonzero((found >= 0) & (panel.shapes[found] != right)).tolist()}
    if unseen or differ:
        raise InputError(
            f"images of data set {stimuli.manifest.name} and trials of {panel.experiment}",
            expected=f"all {len(keys)} images among the trials, with the same right answers",
            found=f"never shown, {_list_keys(unseen)}" if unseen else f"another right answer, {_list_keys(differ)}",
            where=f"observers {', '.join(panel.observers[:3])} …",
            fix="Give the trials of these very images, or leave the trials out: --data without trials=.",
        )
    return found
