"""Resampling images: the sums that a sample drawn with replacement would have."""

from __future__ import annotations

import numpy as np

# Counts of distinct values are drawn instead of images up to so many values, and where that is less work.
_MOST_COUNTS, _DRAWS_A_COUNT = 512, 16
_DRAWS_AT_ONCE = 1 << 18  # images of one block: 3 MB


def resample_sums(values: np.ndarray, draws: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Sums of samples that are drawn with replacement from the same values: exact, whatever the way.

    Where there are few distinct values, how often each occurs is one multinomial draw, whose cost does not depend on
    the number of images. Otherwise images are drawn, in blocks of bounded size.

    Args:
        values: float64 [N], N of at least 1.
        draws: int64 [R], the size of each sample; may be 0.
        random: its state after the call depends on the arguments alone.

    Returns:
        float64 [R].
    """
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) <= min(_MOST_COUNTS, len(values) // _DRAWS_A_COUNT):
        return random.multinomial(draws, counts / len(values)) @ distinct
    sums = np.zeros(len(draws))
    ends = np.cumsum(draws)
    first = 0
    while first < len(draws):
        before = int(ends[first] - draws[first])
        last = max(first + 1, int(np.searchsorted(ends, before + _DRAWS_AT_ONCE, side="right")))
        drawn = values[random.integers(0, len(values), int(ends[last - 1]) - before, dtype=np.int32)]
        filled = first + np.flatnonzero(draws[first:last])  # reduceat would give an empty sample its neighbour's value
        if len(filled):
            sums[filled] = np.add.reduceat(drawn, ends[filled] - draws[filled] - before)
        first = last
    return sums


def resample_totals(values: np.ndarray, draws: int, random: np.random.Generator) -> np.ndarray:
    """Sums over images of several values at once, in samples of as many images as there are, with replacement.

    How often each distinct image occurs is one multinomial draw: images that have all values in common are one.

    Args:
        values: [N, k], the values of each image.
        draws: number of samples.
        random: its state after the call depends on the arguments alone.

    Returns:
        float64 [draws, k].
    """
    distinct, counts = np.unique(values, axis=0, return_counts=True)
    return random.multinomial(len(values), counts / len(values), size=draws) @ distinct.astype(np.float64)
