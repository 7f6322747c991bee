"""How well pixels are classified: intersection over union and accuracy, with intervals over images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pixmim_eval.errors import InputError
from pixmim_eval.metrics.intervals import jackknife_interval
from pixmim_eval.types import Estimate


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


def score_segmentation(tallies: np.ndarray) -> SegmentationScores:
    """The scores of N images, with intervals over images.

    Pixels of all images are counted together before any ratio is taken. An interval is for what the number would be on
    average over sets of as many images. It is Student's on the log-odds, with the standard error of the jackknife: how
    much the number changes when one image, and with it perhaps the last of a class, is left out. For a single class,
    the degrees of freedom are those of the images that have it; one image tells nothing of others. Where no image
    changes anything, see intervals.mean_interval.

    Args:
        tallies: int64 [N, 3, K] of the images, see `tally`.

    Raises:
        InputError: no images, or no labelled pixel.

    Source: mmsegmentation, mIoU, mAcc and aAcc of its evaluation: a class that is answered but never true has an
        intersection over union of 0, which counts; its accuracy is not defined. Efron and Tibshirani, An Introduction
        to the Bootstrap, 1993, equation 11.5 (jackknife).
    Differs: not the percentiles of resampled sets of images, which lack a third of the classes that one image has, and
        hold the number in 85 % to 91 % of cases where there are many such classes (a test measures it).
    """
    _check(tallies)
    totals, count = tallies.sum(axis=0, dtype=np.float64), len(tallies)
    means, parts = _score(totals[None])
    means_without, parts_without = _score(totals - tallies)
    miou, macc, aacc = (jackknife_interval(means[0, place], means_without[:, place], count) for place in range(3))
    seen = (tallies[:, 1] > 0).sum(axis=0)
    iou, accuracy = (
        {
            label: jackknife_interval(parts[0, kind, label], parts_without[:, kind, label], int(seen[label]))
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


def _check(tallies: np.ndarray) -> None:
    found = ""
    if tallies.ndim != 3 or tallies.shape[1] != 3 or not tallies.size:
        found = f"shape {list(tallies.shape)}"
    elif not tallies[:, 1].any():
        found = "no labelled pixel"
    if found:
        raise InputError(
            "segmented images",
            expected="tallies [N, 3, K] of at least one image with a labelled pixel",
            found=found,
            where="score_segmentation",
            fix="Check the masks: their values must be classes of the data set.",
        )
