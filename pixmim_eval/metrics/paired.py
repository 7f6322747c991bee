"""Two models on the same images: by how much they differ, and whether chance explains it."""

from __future__ import annotations

import numpy as np

from pixmim_eval.errors import InputError
from pixmim_eval.metrics.bootstrap import resample_sums
from pixmim_eval.metrics.intervals import CONFIDENCE, check_pairs, paired_difference
from pixmim_eval.types import Estimate

_LEAST = 1e-12  # smaller p are lost in the rounding of a Fourier transform


def paired_bootstrap(first: np.ndarray, second: np.ndarray, seed: int = 0, resamples: int = 10_000) -> Estimate:
    """By how much the mean of `first` exceeds that of `second`, with a percentile interval over resampled images.

    Images are drawn with replacement, each with its values under both models. Answers right or wrong have differences
    of -1, 0 and 1 only, whose numbers in a resampled set are one multinomial draw: exact, at any number of images.
    Where all differences are equal, resampling knows nothing of their spread, and the interval is paired_difference's.

    Args:
        first, second: [N] numbers or booleans in [0, 1]; entry i of both belongs to image i.
        seed: of the resampling.
        resamples: sets of images, at least 1.

    Returns:
        The mean of first - second, in [-1, 1].

    Raises:
        InputError: as paired_difference, and no resamples.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3 (percentile interval).
    """
    a, b = check_pairs(first, second, "paired_bootstrap")
    if resamples < 1:
        raise InputError(
            "resamples", expected="at least 1", found=str(resamples), where="paired_bootstrap", fix="Pass 10,000."
        )
    differences = a - b
    if np.ptp(differences) == 0:
        return paired_difference(a, b)
    n = len(differences)
    sums = resample_sums(differences, np.full(resamples, n), np.random.default_rng(seed))
    low, high = np.quantile(sums / n, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    value = float(differences.mean())
    return Estimate(value, min(float(low), value), max(float(high), value), n)


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """How probable it is that two equally good models differ at least so much: McNemar's exact two-sided p.

    Only images that one model alone gets right say anything; under the hypothesis each of those is as likely the one's
    as the other's. p is twice the binomial tail, at most 1, and 1 where there are no such images. It is the exact test,
    not the mid-p variant, so it rejects a true hypothesis less often than it says, if anything.

    Args:
        first, second: [N] bool, whether each model is right; entry i of both belongs to image i.

    Raises:
        InputError: no images, unequal lengths, values other than 0 and 1.

    Source: McNemar, Psychometrika 1947; the exact form as in Fagerland et al., BMC Medical Research Methodology 2013.
    """
    a, b = check_pairs(first, second, "mcnemar")
    for name, values in (("first", a), ("second", b)):
        if (other := values[(values != 0) & (values != 1)]).size:
            raise InputError(
                "answers",
                expected="right or wrong, 1 or 0",
                found=", ".join(f"{value:g}" for value in other[:3]),
                where=f"mcnemar, {name}",
                fix="Compare numbers between 0 and 1 by paired_bootstrap.",
            )
    return _double_tail(int((a > b).sum()), int((a < b).sum()))


def sign_flip(differences: np.ndarray) -> float:
    """How probable so large a sum of differences is where two models are equally good: the exact sign-flip test's p.

    Under the hypothesis each image's difference is as likely to have the other sign, whatever its size. Of differences
    of -1, 0 and 1 it is McNemar's exact test; it serves means over several answers to an image, too.

    Args:
        differences: int64 [N], each image's second - first, N of at least 1; in counts, so that it is exact.

    Returns:
        Two-sided p. Below 1e-12 it is given as 1e-12, which is above it.

    Raises:
        InputError: no images, or numbers that are not whole.

    Source: Fisher, The Design of Experiments, 1935, section 21. The distribution of the sum is the Fourier transform of
        its characteristic function, the product of cos(difference × t).
    """
    array = np.asarray(differences)
    if array.ndim != 1 or array.size == 0 or not np.issubdtype(array.dtype, np.integer):
        raise InputError(
            "differences",
            expected="[N] whole numbers, N of at least 1",
            found=f"{array.dtype} {list(array.shape)}",
            where="sign_flip",
            fix="Count answers instead of averaging them.",
        )
    sizes, counts = np.unique(np.abs(array.astype(np.int64)), return_counts=True)
    deviation, most = float(np.sqrt(sizes**2 @ counts)), int(sizes @ counts)
    if most == 0:
        return 1.0
    # 8 deviations away p is below 3e-14 (Hoeffding), and 9 further out nothing is left that could fold back.
    total = min(abs(int(array.sum())), int(8 * deviation))
    length = 1 << int(2 * min(most, total + 9 * deviation) + 1).bit_length()
    angles = 2 * np.pi / length * np.arange(length // 2 + 1)
    characteristic = np.ones_like(angles)
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        characteristic *= np.cos(size * angles) ** count
    mass = np.fft.irfft(characteristic, length)
    return float(np.clip(2 * mass[total : length // 2].sum() if total else 1.0, _LEAST, 1.0))


def _double_tail(wins: int, losses: int) -> float:
    """min(1, 2 P(X <= min(wins, losses))), X binomial(wins + losses, 1/2)."""
    n, fewer = wins + losses, min(wins, losses)
    below = np.arange(n // 2, 0, -1)
    # Logarithms of C(n, k) / C(n, n // 2) for k = n // 2 … 0: near 0 where the mass is, so nothing is lost at large n.
    terms = np.concatenate(([0.0], np.cumsum(np.log(below / (n - below + 1)))))
    total = 2 * np.exp(terms).sum() - (n % 2 == 0)
    tail = terms[n // 2 - fewer :]
    log_tail = tail[0] + np.log(np.exp(tail - tail[0]).sum())
    return float(min(1.0, 2 * np.exp(log_tail - np.log(total))))
