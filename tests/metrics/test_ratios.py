"""Ratios of sums over images: means are the usual ones, and intervals hold the truth as often as they say."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pixmim_eval.errors import InputError
from pixmim_eval.metrics.intervals import mean_interval
from pixmim_eval.metrics.ratios import ratio_interval


def test_a_ratio_to_ones_is_the_mean_with_students_interval() -> None:
    values = np.random.default_rng(0).random(40)
    found, expected = ratio_interval(values), mean_interval(values)
    assert (found.value, found.low, found.high) == pytest.approx((expected.value, expected.low, expected.high))
    assert found.n == 40


def test_three_images_by_hand() -> None:
    """6 / 12; residuals 0, -1, 1, so a deviation of 1, of the mean 4 a quarter; t for two degrees is 4.3027."""
    found = ratio_interval(np.array([1.0, 1.0, 4.0]), np.array([2.0, 4.0, 6.0]), unit="power")
    assert (found.value, found.unit) == (0.5, "power")
    assert found.high - found.value == pytest.approx(4.30265273 / 4 / math.sqrt(3))
    assert found.low == 0.0  # not below


def test_an_exact_share_of_every_image_has_no_spread() -> None:
    below = np.random.default_rng(1).random(20)
    found = ratio_interval(0.25 * below, below)
    assert (found.low, found.value, found.high) == pytest.approx((0.25, 0.25, 0.25))


def test_the_interval_holds_the_truth_in_95_of_100_samples() -> None:
    random = np.random.default_rng(2)
    held = 0
    for _ in range(2000):
        below = random.gamma(4, size=100)
        found = ratio_interval(below * random.uniform(0.2, 0.8, size=100), below)
        held += found.low <= 0.5 <= found.high
    assert 0.935 < held / 2000 < 0.965


@pytest.mark.parametrize(
    ("above", "below", "found"),
    [
        ([1.0], [1.0], r"shapes \[1\]"),
        ([1.0, 2.0], [1.0], r"shapes \[2\] and \[1\]"),
        ([1.0, -1.0], [1.0, 1.0], "from -1 to 1"),
        ([1.0, math.nan], [1.0, 1.0], "nan"),
        ([1.0, 2.0], [0.0, 0.0], "nothing but zeros"),
    ],
)
def test_what_has_no_ratio_is_bad_input(above: list[float], below: list[float], found: str) -> None:
    with pytest.raises(InputError, match=found):
        ratio_interval(np.array(above), np.array(below))
