"""From answers to right and wrong: which outputs of a model may be the answer, and what label it is held against."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from pixmim_eval.data.imagenet import map_labels
from pixmim_eval.extract import answer, predict, select_rows
from pixmim_eval.metrics.accuracy import answer_top1, rank_labels
from pixmim_eval.metrics.calibration import expected_calibration_error
from pixmim_eval.metrics.intervals import wilson
from pixmim_eval.types import AnswerSet, Estimate, LabelSpace, Manifest, Model, SuiteConfig

Readings = Mapping[str, np.ndarray | None]
_CHUNK = 8192  # images at a time, as logits may be mapped from disk


def list_readings(classifier: Model, manifest: Manifest) -> dict[str, np.ndarray | None]:
    """The ways to read a model's outputs for a data set.

    Returns:
        Suffix of the metric -> which outputs may be the answer, None for all. Where model and data set have the same
        classes just "". Where the model knows K and the data set has k of them, "_fullK" and "_maskedk".

    Raises:
        InputError: the model lacks a class of the data set.
    """
    return _name_readings(manifest.label_space, label_space_of(classifier))


def _name_readings(space: LabelSpace, known: LabelSpace) -> dict[str, np.ndarray | None]:
    places, count = map_labels(space, known), len(known.classes)
    return {"": None} if len(places) == count else {f"_full{count}": None, f"_masked{len(places)}": places}


def label_space_of(classifier: Model) -> LabelSpace:
    """What the outputs of a classifier mean."""
    if classifier.label_space is None:
        raise ValueError(f"{classifier.name} has no label space: use the model that prepare_classifier returns")
    return classifier.label_space


def collect_answers(
    classifier: Model,
    manifest: Manifest,
    config: SuiteConfig,
    readings: Readings,
    *,
    keep_images: bool = False,
) -> dict[str, AnswerSet]:
    """Answers to images as they are, from logits that are computed once for all suites and readings."""
    found = predict(classifier, manifest, config=config, keep_images=keep_images)
    chosen = {name: answer_top1(found.logits, classes) for name, classes in readings.items()}
    return {name: AnswerSet(found.index, found.labels, *values, found.skipped) for name, values in chosen.items()}


def collect_cell(
    classifier: Model, manifest: Manifest, config: SuiteConfig, corruption: tuple[str, int] | None
) -> dict[str, AnswerSet]:
    """Answers to corrupted images: generated where `corruption` says how, else images of a file as they are."""
    readings = list_readings(classifier, manifest)
    return answer(classifier, manifest, config=config, readings=readings, corruption=corruption)


def mark_hits(answers: AnswerSet, classifier: Model, manifest: Manifest, config: SuiteConfig) -> np.ndarray:
    """int8 [N], for every image that was to be scored: 1 right, 0 wrong, -1 left out."""
    labels = map_labels(manifest.label_space, label_space_of(classifier))[answers.labels]
    rows = select_rows(manifest, config.limit)
    hits = np.full(len(rows), -1, dtype=np.int8)
    hits[np.searchsorted(rows, answers.index)] = answers.answers == labels
    return hits


def score_logits(
    read: Callable[[slice], np.ndarray],
    index: np.ndarray,
    labels: np.ndarray,
    *,
    known: LabelSpace,
    manifest: Manifest,
    config: SuiteConfig,
) -> dict[str, np.ndarray]:
    """Who was right, from logits that are read a part at a time.

    Args:
        read: some of the M scored images -> their logits [m, K].
        index, labels: int64 [M], rows of the manifest and their labels there.
        known: the K classes of the logits.
        manifest: the data set.
        config: of the run.

    Returns:
        "top1" and, of more than five answers, "top5" (each with the suffix of list_readings) -> int8 [N], for every
        image that was to be scored: 1 right, 0 wrong, -1 left out. Of equal logits the first counts.

    Raises:
        InputError: the data set has a class that is not known.
    """
    classes, readings = map_labels(manifest.label_space, known), _name_readings(manifest.label_space, known)
    ranks: dict[str, list[np.ndarray]] = {suffix: [] for suffix in readings}
    for start in range(0, len(index), _CHUNK):
        part = slice(start, start + _CHUNK)
        logits, asked = read(part), labels[part]
        for suffix, answers in readings.items():
            found = rank_labels(logits, classes[asked]) if answers is None else rank_labels(logits[:, answers], asked)
            ranks[suffix].append(found)
    rows, hits = select_rows(manifest, config.limit), {}
    for count in (1, 5):
        for suffix, answers in readings.items():
            if count == 1 or count < len(known.classes if answers is None else answers):
                hits[f"top{count}{suffix}"] = np.full(len(rows), -1, dtype=np.int8)
                hits[f"top{count}{suffix}"][np.searchsorted(rows, index)] = np.concatenate(ranks[suffix]) < count
    return hits


def rate(hits: np.ndarray) -> Estimate:
    """Accuracy with Wilson's interval; images left out do not count."""
    known = hits[hits >= 0]
    return wilson(int(known.sum()), len(known))


def measure_calibration(answers: AnswerSet, hits: np.ndarray, config: SuiteConfig) -> Estimate:
    """Expected calibration error of the answers' probabilities."""
    return expected_calibration_error(answers.confidence, hits[hits >= 0] == 1, seed=config.seed)
