"""Errors on corrupted images: their mean, mCE (the mean relative to AlexNet's errors) and relative mCE."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from pixmim_eval.errors import InputError
from pixmim_eval.metrics.intervals import check_values, mean_interval
from pixmim_eval.types import Estimate

SEVERITIES = (1, 2, 3, 4, 5)

# AlexNet's top-1 errors on the published ImageNet-C files, mean over the five severities.
# Source: google-research/augmix, imagenet.py, ALEXNET_ERR (the same in open-mmlab/mmpretrain, corruption_error.py).
ALEXNET_ERRORS = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
# The same network's top-1 error on the clean validation set, 43.5 % in the paper.
# Source: pytorch/vision, AlexNet_Weights.IMAGENET1K_V1, acc@1 of 56.522.
ALEXNET_CLEAN_ERROR = 0.43478
# Published with ImageNet-C for validation, and no part of mCE.
EXTRA_CORRUPTIONS = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
_PUBLISHED = {15: frozenset(ALEXNET_ERRORS), 19: frozenset((*ALEXNET_ERRORS, *EXTRA_CORRUPTIONS))}


def image_errors(correct: Mapping[tuple[str, int], np.ndarray]) -> dict[str, np.ndarray]:
    """For each corruption, how often each image was misclassified.

    Args:
        correct: (corruption, severity) -> bool [N], the same images in the same order in every cell.

    Returns:
        corruption -> float64 [N], the mean error of each image over the five severities, in [0, 1].

    Raises:
        InputError: no cells, a corruption without all of its five severities, cells of unequal length or no images.
    """
    corruptions = list(dict.fromkeys(name for name, _ in correct))
    grid = {(name, severity) for name in corruptions for severity in SEVERITIES}
    if not correct or grid != set(correct):
        wrong = [f"{name}/{severity}" for name, severity in sorted(grid ^ set(correct))]
        raise _input_error("every corruption at severities 1…5", f"no or needless {', '.join(wrong[:3]) or 'cells'}")
    hits = {key: check_values(values, f"{key[0]}/{key[1]}", (0, 1)) for key, values in correct.items()}
    _check_lengths({f"{name}/{severity}": values for (name, severity), values in hits.items()})
    return {name: 1 - np.mean([hits[name, severity] for severity in SEVERITIES], axis=0) for name in corruptions}


def mean_error(correct: Mapping[tuple[str, int], np.ndarray]) -> Estimate:
    """The mean error over corruptions and severities; its metric is name_mean_error's.

    The interval is over images: every image appears in all cells, so the statistic is the mean over images of each
    image's own mean error, and nothing is assumed of how cells depend on each other.

    Args:
        correct: as image_errors.

    Raises:
        InputError: as image_errors.
    """
    return mean_interval(np.mean(list(image_errors(correct).values()), axis=0))


def mean_error_by_group(
    correct: Mapping[tuple[str, int], np.ndarray], groups: Mapping[str, str]
) -> dict[str, Estimate]:
    """The mean error over each group of corruptions that is there in full; intervals are over images, as mean_error's.

    Args:
        correct: as image_errors. Corruptions without a group count nowhere.
        groups: corruption -> "noise", "blur", …, of every corruption that a group consists of.

    Returns:
        "mean_error_GROUP" -> Estimate, in the groups' order; none for a group of which a cell is missing.

    Raises:
        InputError: as image_errors, of the groups that are there.
    """
    estimates = {}
    for group in dict.fromkeys(groups.values()):
        cells = [(name, severity) for name in groups if groups[name] == group for severity in SEVERITIES]
        if all(cell in correct for cell in cells):
            estimates[f"mean_error_{group}"] = mean_error({cell: correct[cell] for cell in cells})
    return estimates


def name_mean_error(corruptions: Collection[str]) -> str:
    """The metric's name: "mean_error_K" for K corruptions; 15 and 19 are kept for the published fifteen and nineteen.

    Raises:
        InputError: fifteen or nineteen corruptions that are not the published ones.
    """
    names = set(corruptions)
    if names != _PUBLISHED.get(len(names), names):
        others = sorted(names - _PUBLISHED[len(names)])
        raise _input_error(f"the published {len(names)}", f"{len(names)} with {', '.join(others[:3])}")
    return f"mean_error_{len(names)}"


def mce_15(errors_by_corruption: Mapping[str, np.ndarray]) -> Estimate:
    """mCE: each corruption's error as a multiple of AlexNet's, averaged over the published fifteen.

    Comparable with published numbers on the published files only: AlexNet's errors are those on ImageNet-C.

    Args:
        errors_by_corruption: corruption -> [N], the mean error of each image over the five severities (image_errors).

    Returns:
        1 for AlexNet, less for better models; unit "ratio", interval over images as mean_error's.

    Raises:
        InputError: another set than the published fifteen, arrays of unequal length, no images, values outside [0, 1].

    Source: Hendrycks and Dietterich, ICLR 2019, section 4.2.
    """
    errors = _check_fifteen(errors_by_corruption)
    multiples = np.mean([errors[name] / alexnet for name, alexnet in ALEXNET_ERRORS.items()], axis=0)
    greatest = float(np.mean([1 / alexnet for alexnet in ALEXNET_ERRORS.values()]))  # every image wrong
    estimate = mean_interval(np.minimum(multiples, greatest), bounds=(0.0, greatest))
    return replace(estimate, unit="ratio")


def relative_mce_15(errors_by_corruption: Mapping[str, np.ndarray], clean_errors: np.ndarray) -> Estimate:
    """Relative mCE: by how much each corruption raises the error, as a multiple of AlexNet's rise, averaged.

    Comparable with published numbers on the published files only, as mce_15.

    Args:
        errors_by_corruption: as mce_15.
        clean_errors: [N], 1 where the same image is misclassified without corruption, else 0.

    Returns:
        1 for AlexNet, less for models that lose less, below 0 for one that gains; unit "ratio". The interval is over
        images, each with its own clean error.

    Raises:
        InputError: as mce_15, of the clean errors too.

    Source: Hendrycks and Dietterich, ICLR 2019, section 4.2.
    """
    errors = _check_fifteen(errors_by_corruption)
    clean = check_values(clean_errors, "clean", (0, 1))
    _check_lengths({**errors, "clean": clean})
    rises = {name: alexnet - ALEXNET_CLEAN_ERROR for name, alexnet in ALEXNET_ERRORS.items()}
    multiples = np.mean([(errors[name] - clean) / rise for name, rise in rises.items()], axis=0)
    greatest = float(np.mean([1 / rise for rise in rises.values()]))  # right without corruption, else always wrong
    estimate = mean_interval(np.clip(multiples, -greatest, greatest), bounds=(-greatest, greatest))
    return replace(estimate, unit="ratio")


def _check_fifteen(errors_by_corruption: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The errors as float64 [N] each, if they are those of the published fifteen on the same images."""
    if set(errors_by_corruption) != set(ALEXNET_ERRORS):
        wrong = sorted(set(errors_by_corruption) ^ set(ALEXNET_ERRORS))
        raise _input_error("the published fifteen", f"no or needless {', '.join(wrong[:3])}")
    errors = {name: check_values(values, name, (0, 1)) for name, values in errors_by_corruption.items()}
    _check_lengths(errors)
    return errors


def _check_lengths(cells: Mapping[str, np.ndarray]) -> None:
    examples = {len(values): f"{len(values)} in {name}" for name, values in cells.items()}
    if len(examples) > 1:
        raise _input_error("the same images everywhere", ", ".join(list(examples.values())[:3]))


def _input_error(expected: str, found: str) -> InputError:
    return InputError(
        "results on corrupted images",
        expected=expected,
        found=found,
        where="corruption_error",
        fix="Run the conditions that are missing.",
    )
