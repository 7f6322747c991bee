"""Average precision of detections by pycocotools, with intervals over images."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pixmim_eval.errors import InputError
from pixmim_eval.metrics.intervals import jackknife_interval
from pixmim_eval.types import Estimate

GROUPS = 200  # of images, that are left out in turn; one image each where there are no more
_VALUES_AT_ONCE = 1 << 20  # detections of all sets that are in memory at a time, about
_SIZES = ("small", "medium", "large")  # pycocotools' ranges of areas after that of all objects
_MOST = -1  # place of the greatest number of detections an image, 100
_STRICT = {"ap50": 0.5, "ap75": 0.75}  # thresholds of overlap that have a metric of their own


@dataclass(frozen=True)
class DetectionScores:
    """What a set of images with detections says.

    Args:
        summary: "ap", "ap50", "ap75", and "ap_small", "ap_medium", "ap_large" where there are objects of the size; n
            counts images.
        classes: category -> average precision, of those that occur; n counts images with such an object.
    """

    summary: dict[str, Estimate]
    classes: dict[int, Estimate]


def score_detections(
    truth: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    kind: Literal["bbox", "segm"],
    *,
    seed: int = 0,
    groups: int = GROUPS,
) -> DetectionScores:
    """Average precision as pycocotools measures it, with the jackknife's intervals over images.

    An interval is for what the number would be on average over sets of as many images, see
    intervals.jackknife_interval. Sets without a group of images are scored by the same definitions: matches of
    detections and objects are of one image and stay as they are, and only their order by score is gone through again.
    A category without an object does not count, nor does one that a smaller set lacks.

    Args:
        truth: as COCO's JSON; annotations are numbered from 1.
        results: COCO's detections, with "bbox", or with "segmentation" as run lengths where kind is "segm".
        kind: overlap of boxes or of masks.
        seed: of who is in which group, where there are more images than groups.
        groups: that are left out in turn, at least 2; as many as images where there are fewer.

    Raises:
        InputError: no object that is not a crowd, or too few groups.

    Source: COCO (arXiv 1405.0312): precision at 101 recalls, averaged over ten thresholds of overlap from 0.5 to 0.95
        and over categories; at most 100 detections an image; small is below 32^2 pixels, large above 96^2.
    Differs: not the percentiles of resampled sets of images, which held the number in 87 % to 91 % of cases where 30 or
        50 images had many rare categories.
    """
    if groups < 2 or all(entry["iscrowd"] for entry in truth["annotations"]):
        raise InputError(
            "detections to score",
            expected="at least one object that is not a crowd, and at least two groups",
            found=f"{len(truth['annotations'])} annotations, {groups} groups",
            where="score_detections",
            fix="Average precision is not defined without an object: raise --limit, or check the annotations.",
        )
    evaluation = run_pycocotools(truth, results, kind)
    images = len(evaluation.params.imgIds)
    without = _score_sets(evaluation, _leave_out(images, min(groups, images), seed))
    summary, classes = {}, {}
    for name, value in _read_measured(evaluation).items():
        if isinstance(name, str):
            summary[name] = jackknife_interval(value, without[name], images)
        else:
            classes[name] = jackknife_interval(value, without[name], _count_images(truth, name))
    return DetectionScores(summary, classes)


def run_pycocotools(truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]], kind: str) -> COCOeval:
    """pycocotools' evaluation, with what it found of each image; it prints nothing."""
    with redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = {
            **truth,
            "annotations": [dict(entry) for entry in truth["annotations"]],
            "info": {},  # newer versions ask for it
        }
        known.createIndex()
        if results:
            found = known.loadRes([dict(result) for result in results])
        else:
            found = COCO()
            found.dataset = {**known.dataset, "annotations": []}
            found.createIndex()
        evaluation = COCOeval(known, found, kind)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


Name = str | int
"""A metric of all categories, or a category."""


def _read_measured(evaluation: COCOeval) -> dict[Name, float]:
    """The numbers of pycocotools that are defined."""
    precision = evaluation.eval["precision"][..., _MOST]  # [threshold, recall, category, area]
    measured: dict[Name, float] = {}
    parts = {"ap": precision[..., 0]}
    parts |= {name: precision[_find_threshold(evaluation, least), :, :, 0] for name, least in _STRICT.items()}
    parts |= {f"ap_{size}": precision[..., area] for area, size in enumerate(_SIZES, 1)}
    for name, part in parts.items():
        if (part > -1).any():
            measured[name] = float(part[part > -1].mean())
    for place, category in enumerate(evaluation.params.catIds):
        part = precision[:, :, place, 0]
        if (part > -1).any():
            measured[int(category)] = float(part.mean())
    return measured


def _find_threshold(evaluation: COCOeval, threshold: float) -> int:
    return int(np.abs(evaluation.params.iouThrs - threshold).argmin())


@dataclass(frozen=True)
class _Cell:
    """What pycocotools found for one category and one range of areas, detections by falling score.

    Args:
        image: int64 [D], place of each detection's image.
        right: bool [T, D], it has found an object at each threshold of overlap.
        wrong: bool [T, D]; neither where it does not count.
        objects: int64 [I], that count, of each image.
    """

    image: np.ndarray
    right: np.ndarray
    wrong: np.ndarray
    objects: np.ndarray


def _list_cells(evaluation: COCOeval) -> Iterator[tuple[int, int, _Cell]]:
    """(category, area) and the cell of each that has an object."""
    settings = evaluation.params
    images, areas = len(settings.imgIds), len(settings.areaRng)
    for place, category in enumerate(settings.catIds):
        for area in range(areas):
            start = (place * areas + area) * images
            found = [(i, one) for i, one in enumerate(evaluation.evalImgs[start : start + images]) if one is not None]
            objects = np.zeros(images, dtype=np.int64)
            for i, one in found:
                objects[i] = np.count_nonzero(np.asarray(one["gtIgnore"]) == 0)
            if not objects.any():
                continue
            scores = np.concatenate([one["dtScores"] for _, one in found])
            order = np.argsort(-scores, kind="mergesort")
            image = np.repeat([i for i, _ in found], [len(one["dtScores"]) for _, one in found])[order]
            matched = np.concatenate([one["dtMatches"] for _, one in found], axis=1)[:, order] > 0
            counted = ~np.concatenate([one["dtIgnore"] for _, one in found], axis=1)[:, order].astype(bool)
            kept = counted.any(axis=0)
            right, wrong = (matched & counted)[:, kept], (~matched & counted)[:, kept]
            yield int(category), area, _Cell(image[kept].astype(np.int64), right, wrong, objects)


def _leave_out(images: int, groups: int, seed: int) -> np.ndarray:
    """Which images are in the set without each of as many groups of as equal sizes as can be, int64 [G, I]."""
    group = np.random.default_rng(seed).permutation(images) % groups
    return (group != np.arange(groups)[:, None]).astype(np.int64)


def _score_sets(evaluation: COCOeval, present: np.ndarray) -> dict[Name, np.ndarray]:
    """Each number in each set, float64 [R]; NaN where it is not defined.

    Args:
        present: int64 [R, I], 1 where an image is in a set, and 0.
    """
    values = []
    for category, area, cell in _list_cells(evaluation):
        step = max(1, _VALUES_AT_ONCE // max(len(cell.image), 1))
        starts = range(0, len(present), step)
        parts = [measure_precision(cell, present[start : start + step], evaluation.params.recThrs) for start in starts]
        values.append((category, area, np.concatenate(parts)))
    numbers: dict[Name, np.ndarray] = {category: each.mean(axis=1) for category, area, each in values if area == 0}
    for area, name in enumerate(("ap", *(f"ap_{size}" for size in _SIZES))):
        chosen = [each.mean(axis=1) for _, of_area, each in values if of_area == area]
        if chosen:
            numbers[name] = _average(chosen)
    for name, threshold in _STRICT.items():
        place = _find_threshold(evaluation, threshold)
        numbers[name] = _average([each[:, place] for _, area, each in values if area == 0])
    return numbers


def _average(values: list[np.ndarray]) -> np.ndarray:
    """The mean over categories of those that are defined."""
    stacked = np.stack(values)
    known = np.isfinite(stacked)
    with np.errstate(invalid="ignore"):
        return np.where(known, stacked, 0).sum(axis=0) / known.sum(axis=0)


def measure_precision(cell: _Cell, present: np.ndarray, recalls: np.ndarray) -> np.ndarray:
    """Average precision of one category in sets of images.

    Args:
        cell: what was found.
        present: int64 [R, I], 1 where an image is in a set, and 0; or how often it is.
        recalls: float64 [Q], at which precision is read.

    Returns:
        float64 [R, T]; NaN in sets without an object.
    """
    objects = present @ cell.objects
    counted = present[:, cell.image]
    result = np.empty((len(present), len(cell.right)))
    for threshold, (right, wrong) in enumerate(zip(cell.right, cell.wrong, strict=True)):
        before = threshold - 1
        if threshold and (right == cell.right[before]).all() and (wrong == cell.wrong[before]).all():
            result[:, threshold] = result[:, before]
            continue
        places = np.flatnonzero(right)  # precision is highest where an object is found
        hits = counted[:, places].cumsum(axis=1)
        misses = (counted * wrong).cumsum(axis=1)[:, places]
        precision = hits / (hits + misses + np.spacing(1))
        best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        reached = np.searchsorted(recalls, hits / np.maximum(objects, 1)[:, None], side="right")
        result[:, threshold] = (best * np.diff(reached, axis=1, prepend=0)).sum(axis=1) / len(recalls)
    result[objects == 0] = np.nan
    return result


def _count_images(truth: Mapping[str, Any], category: int) -> int:
    objects = (entry for entry in truth["annotations"] if entry["category_id"] == category and not entry["iscrowd"])
    return len({entry["image_id"] for entry in objects})
