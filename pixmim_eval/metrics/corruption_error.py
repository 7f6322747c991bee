"""Errors on corrupted images: their mean, and mCE (the mean relative to AlexNet's errors)."""

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


def name_mean_error(corruptions: Collection[str]) -> str:
    """The metric's name: "mean_error_15" for the published fifteen only, else "mean_error_K" for K corruptions.

    Raises:
        InputError: fifteen corruptions that are not the published fifteen.
    """
    names = set(corruptions)
    if len(names) == len(ALEXNET_ERRORS) and names != set(ALEXNET_ERRORS):
        raise _input_error(
            "the published fifteen", f"fifteen with {', '.join(sorted(names - set(ALEXNET_ERRORS))[:3])}"
        )
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
    if set(errors_by_corruption) != set(ALEXNET_ERRORS):
        wrong = sorted(set(errors_by_corruption) ^ set(ALEXNET_ERRORS))
        raise _input_error("the published fifteen", f"no or needless {', '.join(wrong[:3])}")
    errors = {name: check_values(values, name, (0, 1)) for name, values in errors_by_corruption.items()}
    _check_lengths(errors)
    multiples = np.mean([errors[name] / alexnet for name, alexnet in ALEXNET_ERRORS.items()], axis=0)
    greatest = float(np.mean([1 / alexnet for alexnet in ALEXNET_ERRORS.values()]))  # every image wrong
    estimate = mean_interval(np.minimum(multiples, greatest), bounds=(0.0, greatest))
    return replace(estimate, unit="ratio")


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
