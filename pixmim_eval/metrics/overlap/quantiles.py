"""Quantiles of a distribution over images and draws, with intervals over images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pixmim_eval.metrics.intervals import mean_interval
from pixmim_eval.types import Estimate


def quantile_intervals(values: np.ndarray, levels: Sequence[float]) -> list[Estimate]:
    """Quantiles of all values, which are several for each independent image.

    The interval holds the quantiles at the ends of an interval for the share of values that do not exceed the estimate;
    that is one of a mean over images.

    Args:
        values: [N, D], D draws for each of N images, in [0, 1].
        levels: in (0, 1).

    Source: Woodruff, "Confidence intervals for medians and other position measures", JASA 1952.
    """
    ordered = np.sort(values, axis=None)
    found = []
    for level in levels:
        value = _pick(ordered, level)
        below = mean_interval((values <= value).mean(axis=1))
        low, high = (_pick(ordered, level + bound - below.value) for bound in (below.low, below.high))
        found.append(Estimate(value, min(low, value), max(high, value), len(values)))
    return found


def _pick(ordered: np.ndarray, level: float) -> float:
    """The least value that a share `level` of all does not exceed."""
    place = int(np.ceil(min(max(level, 0.0), 1.0) * len(ordered))) - 1
    return float(ordered[max(place, 0)])
