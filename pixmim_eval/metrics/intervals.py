"""Intervals that hold the true value of a mean with 95 % confidence."""

from __future__ import annotations

import math
from functools import cache
from statistics import NormalDist

import numpy as np

from pixmim_eval.errors import InputError
from pixmim_eval.types import Estimate

CONFIDENCE = 0.95


def wilson(successes: int, n: int, confidence: float = CONFIDENCE) -> Estimate:
    """A proportion with Wilson's score interval.

    Args:
        successes: 0…n.
        n: independent trials, at least 1.
        confidence: in (0, 1).

    Raises:
        InputError: n below 1, successes outside 0…n, confidence outside (0, 1).

    Source: Wilson, JASA 1927; Brown, Cai and DasGupta, Statistical Science 2001, equation 4.
    """
    if n < 1 or not 0 <= successes <= n or not 0 < confidence < 1:
        raise InputError(
            "proportion",
            expected="n of at least 1, successes in 0…n, confidence in (0, 1)",
            found=f"{successes} of {n} at confidence {confidence}",
            where="wilson",
            fix="Count at least one image.",
        )
    z = _normal_quantile(confidence)
    rate = successes / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return Estimate(rate, low, high, int(n))


def mean_interval(values: np.ndarray, *, bounds: tuple[float, float] = (0.0, 1.0)) -> Estimate:
    """The mean of one value an image, with Student's t interval, clipped to the bounds.

    Where all values are equal they say nothing about their spread. The interval then allows for other values, as often
    as Wilson's interval does for none in n: for 0 and 1 it is Wilson's.

    Args:
        values: [N] numbers or booleans within the bounds, one for each independent image.
        bounds: the least and the greatest value possible.

    Raises:
        InputError: no values, another number of dimensions than one, a NaN, a value outside the bounds.
    """
    array = check_values(values, "values", bounds)
    n, mean = len(array), float(array.mean())
    low, high = bounds
    spread = float(np.ptp(array))
    if spread == 0:
        mean = float(array[0])
        unseen = _normal_quantile(CONFIDENCE) ** 2 / (n + _normal_quantile(CONFIDENCE) ** 2)
        return Estimate(mean, mean - unseen * (mean - low), mean + unseen * (high - mean), n)
    half = t_quantile(CONFIDENCE, n - 1) * float(array.std(ddof=1)) / math.sqrt(n)
    return Estimate(mean, max(low, mean - half), min(high, mean + half), n)


def jackknife_interval(value: float, without: np.ndarray, n: int) -> Estimate:
    """A share that is not a mean over images, with the interval of what it would be on average over sets as large.

    Student's interval on the log-odds, with the standard error of the jackknife: how much the number changes when one
    image, and with it perhaps the last of a class, is left out. One image tells nothing of others; where none changes
    anything, see mean_interval.

    Args:
        value: in [0, 1], of all images.
        without: [G] what it is without each image, or without each of G equal groups of them; NaN where it is not
            defined.
        n: images that the number is about.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, equation 11.5; for groups, Wolter,
        Introduction to Variance Estimation, 2007, section 4.2.
    """
    if n < 2 or len(without) < 2 or not np.isfinite(without).all():
        return Estimate(float(value), 0.0, 1.0, n)
    error = math.sqrt((len(without) - 1) * without.var())
    if error < 1e-12:
        return mean_interval(np.full(n, value))
    quantile = t_quantile(CONFIDENCE, min(n, len(without)) - 1)
    centre, half = math.log(value / (1 - value)), quantile * error / (value * (1 - value))
    low, high = (0.5 + 0.5 * math.tanh((centre + side) / 2) for side in (-half, half))
    return Estimate(float(value), low, high, n)


def paired_difference(first: np.ndarray, second: np.ndarray) -> Estimate:
    """By how much the mean of `first` exceeds that of `second`, both measured on the same images.

    Args:
        first, second: [N] numbers or booleans in [0, 1]; entry i of both belongs to image i.

    Returns:
        The mean of first - second with the interval of paired values, in [-1, 1].

    Raises:
        InputError: as mean_interval, and arrays of unequal length.
    """
    a, b = check_pairs(first, second, "paired_difference")
    return mean_interval(a - b, bounds=(-1.0, 1.0))


def check_pairs(first: np.ndarray, second: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 [N], if they are in [0, 1] and equally many; else InputError."""
    a, b = check_values(first, "first", (0, 1)), check_values(second, "second", (0, 1))
    if len(a) != len(b):
        raise InputError(
            "paired values",
            expected="as many of both, image by image",
            found=f"{len(a)} and {len(b)}",
            where=where,
            fix="Compare results on the same images.",
        )
    return a, b


def check_values(values: np.ndarray, name: str, bounds: tuple[float, float]) -> np.ndarray:
    """The values as float64 [N], if there are any and all of them are numbers within the bounds; else InputError."""
    array = np.asarray(values, dtype=np.float64)
    expected = f"[N] numbers in [{bounds[0]:g}, {bounds[1]:g}], N of at least 1"
    if array.ndim != 1 or array.size == 0:
        found = f"shape {list(array.shape)}"
    elif not (bad := ~((array >= bounds[0]) & (array <= bounds[1]))).any():  # NaN fails both comparisons
        return array
    else:
        rows = np.flatnonzero(bad)[:3]
        found = ", ".join(f"{array[row]:g} in row {row}" for row in rows)
    raise InputError(
        "values to average", expected=expected, found=found, where=name, fix="Check the rows that made them."
    )


@cache
def t_quantile(confidence: float, freedom: int) -> float:
    """The t for which a Student variable of `freedom` degrees lies in [-t, t] with probability `confidence`.

    Source: t = sqrt(freedom) tan(angle), where the angle's density is proportional to cos(angle)^(freedom - 1); the
        integral by Gauss-Legendre quadrature, its inverse by Newton's method (from below, so it cannot overshoot).
    """
    nodes, weights = np.polynomial.legendre.leggauss(40)
    log_density = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) + math.log(2 / math.sqrt(math.pi))
    density = math.exp(log_density)
    angle = math.atan(_normal_quantile(confidence) / math.sqrt(freedom))
    for _ in range(50):
        covered = angle / 2 * float(weights @ np.cos(angle / 2 * (nodes + 1)) ** (freedom - 1)) * density
        step = (confidence - covered) / (density * math.cos(angle) ** (freedom - 1))
        angle += step
        if abs(step) < 1e-14:
            break
    return math.sqrt(freedom) * math.tan(angle)


def _normal_quantile(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)
