"""Robustness: accuracy on clean images, on corrupted ones, and on adversarial, rendition and sketch variants."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import torch

from pixmim_eval.corruptions import CORRUPTIONS, SEVERITIES, STANDARD, describe_storage, resolve_parameters
from pixmim_eval.corruptions.frost import frost_source
from pixmim_eval.data.imagenet import map_labels
from pixmim_eval.data.transforms import name_transform
from pixmim_eval.extract import prepare_classifier, require_train, select_head_rows, select_rows
from pixmim_eval.metrics.corruption_error import (
    image_errors,
    mce_15,
    mean_error,
    mean_error_by_group,
    name_mean_error,
    relative_mce_15,
)
from pixmim_eval.results import format_protocol, make_rows
from pixmim_eval.suites import EvaluationSuite
from pixmim_eval.suites.scoring import (
    collect_answers,
    collect_cell,
    label_space_of,
    list_readings,
    mark_hits,
    measure_calibration,
    rate,
)
from pixmim_eval.types import Estimate, Manifest, Model, Outcome, SuiteConfig

VARIANTS = ("cue-conflict", "sketch", "rendition", "hard", "imagenet-a", "imagenet-r", "imagenet-sketch", "imagenet-v2")
FILES = "imagenet-c"
Cell = tuple[str, int]


@dataclass(frozen=True)
class _Measured:
    """What a condition gives before it is put on rows."""

    estimates: dict[str, Estimate]
    hits: dict[str, np.ndarray]
    skipped: int


class Robustness(EvaluationSuite):
    """The suite `robustness`.

    Conditions: "clean"; "NAME/SEVERITY", read from files where the role imagenet-c is there, else generated on the
    clean images between geometry and normalisation, as ImageNet-C was; each variant whose data set is there; and
    "summary", the means over corrupted cells.

    Metrics: "top1" where the model knows just the data set's classes. Where it knows K and the data set has k of them,
    "top1_fullK" (the answer may be any class) and "top1_maskedk" (one of the data set's); all other metrics likewise.
    "ece" is the expected calibration error. A variant that has a part of the clean data set's classes also has
    "clean_top1…", the accuracy on the clean images of those classes. The summary has "mean_error_15" over the published
    fifteen corruptions, or "mean_error_K" over other K; over those of a group, "mean_error_noise" and so on; and, of
    models with the classes of ImageNet-1k, "mce_15" and "relative_mce_15", relative to AlexNet.
    """

    name = "robustness"
    version = 2
    needs = ("val",)
    accepts = ("train", *VARIANTS, FILES)

    def conditions(self, config: SuiteConfig) -> list[str]:
        """Names of the conditions, the summary last."""
        return ["clean", *list_cells(config), *(role for role in VARIANTS if role in config.data), "summary"]

    def roles(self, model: Model, condition: str, config: SuiteConfig) -> tuple[str, ...]:
        """The scored data sets, and train where the model needs a head.

        Raises:
            InputError: train is absent, or the classifier lacks a class of a scored data set.
        """
        scored = _list_scored(condition, config)
        space = model.label_space if model.classify else require_train(model, config).label_space
        if space is not None:
            for role in scored:
                map_labels(config.data[role].label_space, space)  # now, not after all images went through the model
        return scored if model.classify else (*scored, "train")

    def settings(self, model: Model, condition: str, config: SuiteConfig) -> tuple[object, ...]:
        """What else the rows of a condition depend on."""
        cells = list_cells(config)
        if condition not in (*cells, "summary"):
            return ()
        chosen = list(cells.values()) if condition == "summary" else [cells[condition]]
        if reads_files(config):
            return (FILES, *chosen)
        frost = frost_source() if any(name == "frost" for name, _ in chosen) else ""
        return (config.jpeg_step, frost, *chosen)

    def count_images(self, model: Model, condition: str, config: SuiteConfig) -> dict[str, int]:
        """Forward passes where nothing is cached; see EvaluationSuite."""
        scored = [role for role in self.roles(model, condition, config) if role != "train"]
        images = {role: len(select_rows(config.data[role], config.limit)) for role in scored}
        if condition == "summary":
            passes = {cell: images.get(f"{FILES}/{cell}", images["val"]) for cell in list_cells(config)}
            passes["clean"] = images["val"]
        else:
            passes = {condition: images[scored[0]]}
            if condition in VARIANTS:
                passes["clean"] = images["val"]
        if model.classify is None:
            passes["train"] = len(select_head_rows(config.data["train"], config.limit))
        return passes

    def measure_images(self, model: Model, config: SuiteConfig) -> tuple[str, int]:
        """Decoded images on disk; see EvaluationSuite."""
        clean, preprocessing = config.data["val"], model.preprocessing
        images = 0 if reads_files(config) else len(select_rows(clean, config.limit))
        return name_transform(preprocessing, clean), 3 * preprocessing.size**2 * images

    def run(self, model: Model, condition: str, config: SuiteConfig) -> Outcome:
        """The rows of one condition, and how each image fared.

        Raises:
            InputError: an encoder without classifier and no role train, classes that the model does not know, or an
                image that cannot be read.
            FloatingPointError: the model's outputs are not finite.
        """
        classifier, protocol = prepare_classifier(model, config)
        manifest = config.data[_list_scored(condition, config)[0]]
        corrupted = condition == "summary" or condition in list_cells(config)
        measured = _summarise(classifier, config) if condition == "summary" else _score(classifier, condition, config)
        text = format_protocol(**protocol, **_describe_images(classifier, manifest, config, corrupted=corrupted))
        shared = {"suite": self.name, "condition": condition}
        rows = make_rows(
            model, manifest, measured.estimates, **shared, protocol=text, config=config, skipped=measured.skipped
        )
        return Outcome(rows, measured.hits)


def list_cells(config: SuiteConfig) -> dict[str, Cell]:
    """The corrupted conditions of a run: "NAME/SEVERITY" -> (name, severity)."""
    names = config.corruptions or STANDARD
    return {f"{name}/{severity}": (name, severity) for name in names for severity in SEVERITIES}


def reads_files(config: SuiteConfig) -> bool:
    """Whether corrupted images come from files; else they are generated."""
    return any(role.startswith(f"{FILES}/") for role in config.data)


def _list_scored(condition: str, config: SuiteConfig) -> tuple[str, ...]:
    """Roles of the data sets that a condition scores; the one that its rows name comes first."""
    if condition == "clean":
        return ("val",)
    if condition in VARIANTS:
        return (condition, "val")
    if not reads_files(config):
        return ("val",)
    if condition == "summary":
        return (*(f"{FILES}/{cell}" for cell in list_cells(config)), "val")
    return (f"{FILES}/{condition}",)


def _score(classifier: Model, condition: str, config: SuiteConfig) -> _Measured:
    """Accuracy and calibration of one condition."""
    manifest, cell = config.data[_list_scored(condition, config)[0]], list_cells(config).get(condition)
    if cell is None:
        keep = condition == "clean" and not reads_files(config)
        answers = collect_answers(classifier, manifest, config, list_readings(classifier, manifest), keep_images=keep)
    else:
        answers = collect_cell(classifier, manifest, config, None if reads_files(config) else cell)
    hits = {suffix: mark_hits(found, classifier, manifest, config) for suffix, found in answers.items()}
    estimates = {f"top1{suffix}": rate(found) for suffix, found in hits.items()}
    estimates |= {f"ece{suffix}": measure_calibration(answers[suffix], found, config) for suffix, found in hits.items()}
    if condition in VARIANTS:
        estimates |= _score_clean_classes(classifier, manifest, config)
    skipped = next(iter(answers.values())).skipped
    return _Measured(estimates, {f"top1{suffix}": found for suffix, found in hits.items()}, skipped)


def _score_clean_classes(classifier: Model, variant: Manifest, config: SuiteConfig) -> dict[str, Estimate]:
    """Accuracy on the clean images of a variant's classes, where these are a part of the clean data set's."""
    clean = config.data["val"]
    if not set(variant.label_space.classes) < set(clean.label_space.classes):
        return {}
    answers = collect_answers(classifier, clean, config, list_readings(classifier, variant))
    shared = np.isin(clean.labels[select_rows(clean, config.limit)], map_labels(variant.label_space, clean.label_space))
    hits = {suffix: mark_hits(found, classifier, clean, config)[shared] for suffix, found in answers.items()}
    return {f"clean_top1{suffix}": rate(found) for suffix, found in hits.items() if (found >= 0).any()}


def _summarise(classifier: Model, config: SuiteConfig) -> _Measured:
    """Means over corrupted cells, with intervals over images."""
    by_suffix: dict[str, dict[Cell, np.ndarray]] = {}
    skipped = 0
    for condition, cell in list_cells(config).items():
        manifest = config.data[_list_scored(condition, config)[0]]
        answers = collect_cell(classifier, manifest, config, None if reads_files(config) else cell)
        for suffix, found in answers.items():
            by_suffix.setdefault(suffix, {})[cell] = mark_hits(found, classifier, manifest, config)
            skipped = max(skipped, found.skipped)
    clean = config.data["val"]
    answers = collect_answers(classifier, clean, config, list_readings(classifier, clean))
    order = _match_images(clean, manifest, config)
    estimates: dict[str, Estimate] = {}
    for suffix, cells in by_suffix.items():
        kept = np.all([found >= 0 for found in cells.values()], axis=0)
        correct = {cell: found[kept] == 1 for cell, found in cells.items()}
        estimates |= {name + suffix: estimate for name, estimate in _average_errors(correct).items()}
        relative = suffix in ("", "_full1000") and label_space_of(classifier).name == "imagenet-1k"
        if relative and {name for name, _ in correct} >= set(STANDARD):
            errors = {name: error for name, error in image_errors(correct).items() if name in STANDARD}
            estimates[f"mce_15{suffix}"] = mce_15(errors)
            if order is not None and suffix in answers:
                clean_hits = mark_hits(answers[suffix], classifier, clean, config)[order][kept]
                if (clean_hits >= 0).all():
                    estimates[f"relative_mce_15{suffix}"] = relative_mce_15(errors, 1.0 - clean_hits)
    return _Measured(estimates, {}, skipped)


def _average_errors(correct: dict[Cell, np.ndarray]) -> dict[str, Estimate]:
    """mean_error_15 where the fifteen are there, mean_error_K of all where they are others, and those of groups."""
    names = list(dict.fromkeys(name for name, _ in correct))
    estimates = {}
    for chosen in (STANDARD, tuple(names)):
        if set(chosen) <= set(names):
            part = {cell: hits for cell, hits in correct.items() if cell[0] in chosen}
            estimates[name_mean_error(chosen)] = mean_error(part)
    groups = {name: corruption.group for name, corruption in CORRUPTIONS.items()}
    return estimates | mean_error_by_group(correct, groups)


def _match_images(clean: Manifest, corrupted: Manifest, config: SuiteConfig) -> np.ndarray | None:
    """Where among the clean images each corrupted one is, int64 [N]; None where they are not the same images."""
    rows = select_rows(clean, config.limit)
    if corrupted is clean:
        return np.arange(len(rows))
    stems = [PurePosixPath(key).stem for key in clean.keys[rows]]
    places = {stem: place for place, stem in enumerate(stems)}
    wanted = [PurePosixPath(key).stem for key in corrupted.keys[select_rows(corrupted, config.limit)]]
    if len(places) < len(stems) or not set(wanted) <= set(places):
        return None
    return np.array([places[stem] for stem in wanted])


def _describe_images(classifier: Model, manifest: Manifest, config: SuiteConfig, *, corrupted: bool) -> dict[str, str]:
    """What the protocol says of images, classes and precision."""
    preprocessing, space = classifier.preprocessing, label_space_of(classifier)
    described = {
        "label_space": manifest.label_space.name,
        "precision": "bfloat16" if torch.device(config.device).type == "cuda" else "float32",
        "source": "files",
        "transform": name_transform(preprocessing, manifest),
    }
    if len(space.classes) > len(manifest.label_space.classes):
        described["label_space"] += f"-of-{space.name}"
    if corrupted and not reads_files(config):
        parameters = resolve_parameters("auto", preprocessing.size)
        described |= {"source": "generated", "parameters": parameters}
        described["stored"] = describe_storage(parameters, config.jpeg_step)
        if any(name == "frost" for name, _ in list_cells(config).values()):
            described["frost"] = frost_source()
    return described
