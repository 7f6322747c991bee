"""How well pixels are classified: intersection over union and accuracy, with intervals over images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pixmim_eval.errors import InputError
from pixmim_eval.metrics.bootstrap import resample_totals
from pixmim_eval.metrics.intervals import CONFIDENCE
from pixmim_eval.types import Estimate

RESAMPLES = 1000
_DRAWS_AT_ONCE = 100  # resamples whose totals are in memory at a time


@dataclass(frozen=True)
class SegmentationScores:
    """What a set of segmented images says.

    Args:
        miou: mean intersection over union of the classes that occur, in the truth or in an answer.
        macc: mean accuracy of the classes that occur in the truth.
        aacc: share of all labelled pixels that are right.
        iou, accuracy: class -> the same of single classes, where they are defined; n counts images with the class in
            their truth.
    """

    miou: Estimate
    macc: Estimate
    aacc: Estimate
    iou: dict[int, Estimate]
    accuracy: dict[int, Estimate]


def count_confusion(truth: np.ndarray, answer: np.ndarray, classes: int) -> np.ndarray:
    """How many pixels of each true class were answered with each class.

    Args:
        truth: integers [H, W]; pixels outside 0…classes-1 (255 by convention) are not labelled, and do not count.
        answer: integers [H, W] in 0…classes-1.
        classes: K.

    Returns:
        int64 [K, K], rows are true classes and columns answers.

    Raises:
        InputError: different shapes, or an answer that is no class.
    """
    truth, answer = np.asarray(truth), np.asarray(answer)
    if truth.shape != answer.shape or answer.min(initial=0) < 0 or answer.max(initial=0) >= classes:
        raise InputError(
            "segmentation",
            expected=f"truth and answers of one shape, answers in 0…{classes - 1}",
            found=f"shapes {list(truth.shape)} and {list(answer.shape)}, answers in {answer.min(initial=0)}…"
            f"{answer.max(initial=0)}",
            where="count_confusion",
            fix="Bring answers to the size of the mask, and check the number of classes.",
        )
    labelled = (truth >= 0) & (truth < classes)
    cells = truth[labelled].astype(np.int64) * classes + answer[labelled]
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def tally(confusion: np.ndarray) -> np.ndarray:
    """What scores need of a confusion matrix: int64 [3, K], pixels right, pixels of the class, pixels answered so."""
    return np.stack((np.diagonal(confusion), confusion.sum(axis=1), confusion.sum(axis=0)))


def score_segmentation(tallies: np.ndarray, seed: int = 0, resamples: int = RESAMPLES) -> SegmentationScores:
    """The scores of N images, with percentile intervals over resampled images.

    Pixels of all images are counted together before any ratio is taken. Resampled sets are scored by the same
    definitions: a class that does not occur in one of them is left out of its mean.

    Args:
        tallies: int64 [N, 3, K] of the images, see `tally`.
        seed: of the resampling.
        resamples: sets of images, at least 1.

    Raises:
        InputError: no images, no labelled pixel, or no resamples.

    Source: mmsegmentation, mIoU, mAcc and aAcc of its evaluation: a class that is answered but never true has an
        intersection over union of 0, which counts; its accuracy is not defined.
    """
    _check(tallies, resamples)
    count, _, classes = tallies.shape
    means, parts = _score(tallies.sum(axis=0, dtype=np.float64)[None])
    random = np.random.default_rng(seed)
    drawn_means, drawn_parts = [], []
    for start in range(0, resamples, _DRAWS_AT_ONCE):
        draws = min(_DRAWS_AT_ONCE, resamples - start)
        totals = resample_totals(tallies.reshape(count, -1), draws, random).reshape(draws, 3, classes)
        some_means, some_parts = _score(totals)
        drawn_means.append(some_means)
        drawn_parts.append(some_parts)
    middle = np.concatenate(drawn_means)
    miou, macc, aacc = (_estimate(means[0, place], middle[:, place], count) for place in range(3))
    seen = (tallies[:, 1] > 0).sum(axis=0)
    every = np.concatenate(drawn_parts)
    iou, accuracy = (
        {
            label: _estimate(parts[0, kind, label], every[:, kind, label], int(seen[label]))
            for label in np.flatnonzero(np.isfinite(parts[0, kind])).tolist()
        }
        for kind in range(2)
    )
    return SegmentationScores(miou, macc, aacc, iou, accuracy)


def _score(totals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of totals float64 [R, 3, K]: (mIoU, mAcc, aAcc) [R, 3], and IoU and accuracy of each class [R, 2, K]."""
    right, true, answered = totals[:, 0], totals[:, 1], totals[:, 2]
    with np.errstate(invalid="ignore"):
        parts = np.stack((right / (true + answered - right), right / true), axis=1)  # NaN where a class is not there
        aacc = right.sum(axis=1) / true.sum(axis=1)
        counts = np.isfinite(parts).sum(axis=2)
        means = np.nansum(parts, axis=2) / counts
    return np.column_stack((means, aacc)), parts


def _estimate(value: float, drawn: np.ndarray, n: int) -> Estimate:
    """A percentile interval of the resamples in which the number is defined; one image tells nothing of others."""
    if n < 2:
        return Estimate(float(value), 0.0, 1.0, n)
    known = drawn[np.isfinite(drawn)]
    low, high = np.quantile(known, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]) if len(known) else (0.0, 1.0)
    return Estimate(float(value), min(float(low), float(value)), max(float(high), float(value)), n)


def _check(tallies: np.ndarray, resamples: int) -> None:
    found = ""
    if tallies.ndim != 3 or tallies.shape[1] != 3 or not tallies.size:
        found = f"shape {list(tallies.shape)}"
    elif not tallies[:, 1].any():
        found = "no labelled pixel"
    elif resamples < 1:
        found = f"{resamples} resamples"
    if found:
        raise InputError(
            "segmented images",
            expected="tallies [N, 3, K] of at least one image with a labelled pixel, and at least one resample",
            found=found,
            where="score_segmentation",
            fix="Check the masks: their values must be classes of the data set.",
        )
