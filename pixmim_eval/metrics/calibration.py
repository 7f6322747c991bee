"""Whether a model's confidence is how often it is right."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from pixmim_eval.errors import InputError
from pixmim_eval.metrics.bootstrap import resample_sums
from pixmim_eval.metrics.intervals import CONFIDENCE, check_values, mean_interval
from pixmim_eval.types import Estimate

_RESAMPLES = 2000


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = 15, seed: int = 0) -> Estimate:
    """ECE: the distance between confidence and accuracy, averaged over equal bins of confidence by their images.

    The estimate is too high, the more so the fewer images: chance alone keeps a bin's accuracy from its confidence. A
    perfectly calibrated model scores about 0.02 on 2,000 images, 0.007 on 20,000. Compare on equally many images only.

    The interval is for the ECE, in these bins, that infinitely many images would give; it is made from the ECEs of
    2,000 resampled sets of images. A bin's share of a resampled set is drawn first (multinomial), then its images: the
    same distribution as of images drawn one by one. As those ECEs carry the bias twice, their percentiles would miss
    (always, for a calibrated model). The lower limit is the percentile reflected at the estimate, or 0 where it is no
    higher than 95 % of what chance would make of a calibrated model (the resampled bins about their own means); the
    upper limit is 1.96 standard deviations above the estimate, since the bias cannot take the truth there.

    Args:
        confidence: [N] in [0, 1], the probability that the model gives to its answer.
        correct: [N] bool, whether the answer is right; entry i of both belongs to image i.
        bins: equal-width bins ((k - 1) / bins, k / bins]; a confidence of 0 is in the first.
        seed: of the resampling.

    Raises:
        InputError: no images, unequal lengths, a NaN, values outside [0, 1], no bins.

    Source: Guo et al., ICML 2017, equation 3.
    """
    sure, right = check_values(confidence, "confidence", (0, 1)), check_values(correct, "correct", (0, 1))
    if len(sure) != len(right) or bins < 1:
        raise InputError(
            "calibration",
            expected="as many confidences as answers, and at least one bin",
            found=f"{len(sure)} and {len(right)}, {bins} bins",
            where="expected_calibration_error",
            fix="Pass the confidence and the correctness of the same images.",
        )
    gaps, n = right - sure, len(sure)
    if np.ptp(gaps) == 0:  # resampling would see no spread at all
        return mean_interval(np.abs(gaps))
    places = np.searchsorted(np.arange(1, bins) / bins, sure, side="left")
    sums = np.bincount(places, weights=gaps, minlength=bins)
    resampled = _resample_bins(gaps, places, bins, np.random.default_rng(seed))
    value = float(np.abs(sums).sum()) / n
    errors = np.abs(resampled).sum(axis=1) / n
    by_chance = float(np.quantile(np.abs(resampled - sums).sum(axis=1) / n, CONFIDENCE))
    reflected = 2 * value - float(np.quantile(errors, (1 + CONFIDENCE) / 2))
    low = 0.0 if value <= by_chance else min(max(reflected, 0.0), value)
    high = min(value + NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * float(errors.std()), 1.0)
    return Estimate(value, low, high, n)


def _resample_bins(gaps: np.ndarray, places: np.ndarray, bins: int, random: np.random.Generator) -> np.ndarray:
    """Sums of the gaps in each bin of each resampled set, float64 [2000, bins]."""
    draws = random.multinomial(len(gaps), np.bincount(places, minlength=bins) / len(gaps), size=_RESAMPLES)
    sums = np.zeros((_RESAMPLES, bins))
    for place in np.unique(places).tolist():
        sums[:, place] = resample_sums(gaps[places == place], draws[:, place], random)
    return sums
