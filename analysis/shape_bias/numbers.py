"""The numbers of the shape-bias figures: models, networks and people on the same cue-conflict images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from typing import Any

import pandas as pd

from analysis.groups import Group, split_groups, split_protocol
from analysis.sources import read_estimate
from analysis.subjects import Subject, name_subjects
from pixmim_eval.types import Estimate

SUITE, CONDITION = "shape_bias", "cue-conflict"
SUITES = (SUITE, "observers", "model_vs_human")  # that measure how alike observers are
PEOPLE, TRIALS = "people", "trials"  # methods of observers whose answers are in files: persons, and networks
POOLED = "people"  # the persons taken together, as a model's name
KAPPA = "error_consistency/"
_SETTING = ["suite", "metric", "procedure", "subset", "dataset", "dataset_digest"]
# Of the numbers called "clean" of one model, the first suite's whose accuracy most models have.
_ACCURACIES = ("robustness", "linear_probe", "finetune", "few_shot", "knn")


@dataclass(frozen=True)
class Observer:
    """How one of them decides.

    Args:
        name: unique in its figure.
        overall: fraction of shape decisions among those for shape or texture; None where there is no such decision.
        categories: the same for the images of each shape; absent where there is no such decision.
        accuracy: on ordinary images; None where it was not measured.
    """

    name: str
    overall: Estimate | None
    categories: dict[str, Estimate]
    accuracy: Estimate | None = None


@dataclass(frozen=True)
class ShapeBias:
    """What the figures of one set of cue-conflict images show.

    Args:
        suffix: ends the names of its files; "" where there is one set.
        dataset: its name.
        protocol: of the models, of the observers where there is no model.
        subjects: models, and networks whose answers are in files; a baseline before its PixMIM version.
        observers: of the subjects, in their order.
        persons: people, each by itself, by name.
        people: all persons' trials taken together; None where no row says so.
        categories: of the images, by name.
        accuracy: what Observer.accuracy is: suite, metric, data set and protocol; "" where no model has it.
        kappas: error consistency of pairs of names, of every pair that a row is of.
        kappas_people: mean error consistency with people by name.
    """

    suffix: str
    dataset: str
    protocol: dict[str, str]
    subjects: tuple[Subject, ...]
    observers: tuple[Observer, ...]
    persons: tuple[Observer, ...]
    people: Observer | None
    categories: tuple[str, ...]
    accuracy: str
    kappas: dict[tuple[str, str], Estimate]
    kappas_people: dict[str, Estimate]


def list_shape_bias(rows: pd.DataFrame) -> list[ShapeBias]:
    """The sets of models that are comparable, each with those observers in files that saw its images' categories.

    Args:
        rows: ResultRow columns, any number of runs and suites.
    """
    found = []
    for suite in SUITES:
        telling = rows["metric"].str.startswith(("shape_bias", KAPPA)) & (rows["suite"] == suite)
        for condition in dict.fromkeys(rows.loc[telling, "condition"]):
            own = rows[(rows["suite"] == suite) & (rows["condition"] == condition)]
            words = [suite] * (suite != SUITE) + [condition] * (condition != CONDITION)
            found += _list_sets(own, "-".join(words).replace("_", "-"), rows)
    return found


def _list_sets(own: pd.DataFrame, name: str, rows: pd.DataFrame) -> list[ShapeBias]:
    """The sets of one suite and condition; `name` begins their suffixes."""
    suite, from_files = own["suite"].iloc[0], own["method"].isin([PEOPLE, TRIALS])
    # The same files in two runs are the same observers.
    observers = own[from_files].drop_duplicates(["model", "weights_digest", "metric"])
    models, files = (split_groups(part, suite) if len(part) else [] for part in (own[~from_files], observers))
    pairs = [(one, other) for one, other in product(models, files) if _find_categories(one) <= _find_categories(other)]
    alone = [group for group in [*models, *files] if all(group is not one for pair in pairs for one in pair)]
    sets: list[tuple[Group, ...]] = [*pairs, *((group,) for group in alone)]
    ends = ["-".join(filter(None, (group.suffix for group in groups))) for groups in sets]
    if len(sets) > 1:
        ends = [end if end and ends.count(end) == 1 else f"{end}-set-{number}" for number, end in enumerate(ends, 1)]
    names = ["-".join(filter(None, (name, end.strip("-")))) for end in ends]
    return [_summarise(groups, suffix, rows) for groups, suffix in zip(sets, names, strict=True)]


def _find_categories(group: Group) -> set[str]:
    return {metric.partition("/")[2] for metric in group.rows["metric"] if metric.startswith("shape_bias/")}


def _summarise(groups: tuple[Group, ...], suffix: str, rows: pd.DataFrame) -> ShapeBias:
    members = pd.concat([group.rows for group in groups], ignore_index=True)
    is_person = members["method"] == PEOPLE
    subjects, positions = name_subjects(members[~is_person]) if (~is_person).any() else ((), pd.Series(dtype=int))
    names = pd.Series([subjects[position].label for position in positions], index=positions.index, dtype=object)
    members = members.assign(name=names.reindex(members.index).fillna(members["model"]))
    estimates = {(row.name, row.metric): read_estimate(row) for row in _list(members)}
    accuracies, accuracy = _find_accuracies(rows, subjects)
    persons = sorted({*members.loc[is_person, "name"]} - {POOLED})
    categories = tuple(sorted(set().union(*(_find_categories(group) for group in groups))))

    def observe(name: str) -> Observer:
        found = {category: estimates.get((name, f"shape_bias/{category}")) for category in categories}
        known = {category: estimate for category, estimate in found.items() if estimate}
        return Observer(name, estimates.get((name, "shape_bias")), known, accuracies.get(name))

    labels = dict(zip(members["model"], members["name"], strict=True))
    return ShapeBias(
        suffix=suffix,
        dataset=groups[0].dataset,
        protocol=groups[0].protocol,
        subjects=subjects,
        observers=tuple(observe(subject.label) for subject in subjects),
        persons=tuple(observe(name) for name in persons),
        people=observe(POOLED) if POOLED in set(members.loc[is_person, "name"]) else None,
        categories=categories,
        accuracy=accuracy,
        kappas={
            (name, labels.get(metric.removeprefix(KAPPA), metric.removeprefix(KAPPA))): estimate
            for (name, metric), estimate in estimates.items()
            if metric.startswith(KAPPA)
        },
        kappas_people={
            name: estimate for (name, metric), estimate in estimates.items() if metric == "error_consistency_people"
        },
    )


def _find_accuracies(rows: pd.DataFrame, subjects: tuple[Subject, ...]) -> tuple[dict[str, Estimate], str]:
    """Accuracy on ordinary images, all under the one setting that most subjects have; by label, and what it is."""
    clean = rows[(rows["condition"] == "clean") & rows["metric"].str.startswith("top1") & (rows["suite"] != SUITE)]
    clean = clean.assign(procedure=[split_protocol(protocol)[0] for protocol in clean["protocol"]])
    best: tuple[dict[str, Estimate], str] = ({}, "")
    by_setting: Any = clean.groupby(_SETTING, sort=False)
    settings = [(dict(zip(_SETTING, key, strict=True)), part) for key, part in by_setting]
    order = {suite: place for place, suite in enumerate(_ACCURACIES)}
    settings.sort(key=lambda pair: order.get(pair[0]["suite"], len(order)))
    for setting, part in settings:
        found: dict[str, Estimate] = {}
        for subject in subjects:
            same = part[part["weights_digest"] == subject.weights_digest]
            own = same[(same["run"] == subject.run) & (same["seed"] == subject.seed)]
            known = {read_estimate(row) for row in _list(own if len(own) else same)}
            if len(known) == 1:  # of several runs with different numbers none is the model's
                found[subject.label] = known.pop()
        if len(found) > len(best[0]):
            protocol = setting["procedure"].replace(";", ", ")
            best = (found, f"{setting['suite']}/{setting['metric']} on {setting['dataset']} ({protocol})")
    return best


def _list(rows: pd.DataFrame) -> Iterable[Any]:
    names = ["name", "metric", "value", "low", "high", "n", "unit", "source"]
    return rows[[name for name in names if name in rows]].itertuples(index=False)
