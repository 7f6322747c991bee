"""How large a sum over images is beside another: a mean, or a power relative to that of the images."""

from __future__ import annotations

import math

import numpy as np

from pixmim_eval.errors import InputError
from pixmim_eval.metrics.intervals import CONFIDENCE, t_quantile
from pixmim_eval.types import Estimate


def ratio_interval(numerators: np.ndarray, denominators: np.ndarray | None = None, *, unit: str = "ratio") -> Estimate:
    """The ratio of two sums over images, or the mean of values that have no upper bound.

    A ratio of sums, unlike a mean of ratios, gives images with almost nothing to divide by almost no weight. Its
    interval is Student's, of the residuals numerator - ratio x denominator of the images; for a mean, that of its
    values. Not below 0.

    Args:
        numerators: [N] of at least 0, one for each independent image.
        denominators: [N] of at least 0, their sum above 0; None for ones, which makes the ratio a mean.
        unit: of the estimate.

    Raises:
        InputError: fewer than two images, unequal lengths, a value that is negative or not finite, or denominators
            that are all 0.

    Source: Cochran, Sampling Techniques, 1977, equations 6.4 and 6.9 (ratio estimate, infinite population).
    """
    above = np.asarray(numerators, dtype=np.float64)
    below = np.ones_like(above) if denominators is None else np.asarray(denominators, dtype=np.float64)
    _check(above, below)
    n, total = len(above), float(below.sum())
    value = float(above.sum()) / total
    spread = float((above - value * below).std(ddof=1)) * n / total
    half = t_quantile(CONFIDENCE, n - 1) * spread / math.sqrt(n)
    return Estimate(value, max(0.0, value - half), value + half, n, unit)


def _check(above: np.ndarray, below: np.ndarray) -> None:
    values = np.concatenate((above.ravel(), below.ravel()))
    if above.ndim != 1 or above.shape != below.shape or len(above) < 2:
        found = f"shapes {list(above.shape)} and {list(below.shape)}"
    elif not (np.isfinite(values) & (values >= 0)).all():
        found = f"values from {values.min():g} to {values.max():g}"
    elif below.sum() == 0:
        found = "nothing but zeros to divide by"
    else:
        return
    raise InputError(
        "a ratio over images",
        expected="one finite number of at least 0 from each of at least two images",
        found=found,
        where="ratio_interval",
        fix="Measure more images: --limit 2 or more.",
    )
