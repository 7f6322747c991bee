from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pixmim_eval.errors import InputError
from pixmim_eval.metrics.intervals import mean_interval, paired_difference, t_quantile, wilson


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
@pytest.mark.parametrize("n", [1, 2, 10, 1000, 50_000])
def test_wilson_equals_scipys(n: int, confidence: float) -> None:
    for successes in sorted({0, 1, n // 3, n - 1, n}):
        estimate = wilson(successes, n, confidence)
        expected = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
        assert estimate.value == successes / n and estimate.n == n
        assert estimate.low == pytest.approx(expected.low, abs=1e-12)
        assert estimate.high == pytest.approx(expected.high, abs=1e-12)


@pytest.mark.parametrize(("successes", "n", "confidence"), [(0, 0, 0.95), (3, 2, 0.95), (-1, 2, 0.95), (1, 2, 1.0)])
def test_wilson_refuses_what_is_no_proportion(successes: int, n: int, confidence: float) -> None:
    with pytest.raises(InputError, match="proportion"):
        wilson(successes, n, confidence)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.99])
def test_t_quantile_equals_scipys(confidence: float) -> None:
    for freedom in (1, 2, 3, 4, 7, 10, 29, 100, 999, 50_000, 10**7):
        expected = stats.t.ppf((1 + confidence) / 2, freedom)
        assert t_quantile(confidence, freedom) == pytest.approx(expected, rel=1e-7), freedom


@pytest.mark.parametrize("n", [2, 3, 20, 500])
def test_mean_interval_equals_scipys_t_interval(n: int) -> None:
    values = np.random.default_rng(n).uniform(0.4, 0.5, n)
    estimate = mean_interval(values)
    low, high = stats.t.interval(0.95, n - 1, loc=values.mean(), scale=stats.sem(values))
    assert (estimate.value, estimate.n) == (pytest.approx(values.mean()), n)
    assert estimate.low == pytest.approx(max(low, 0)) and estimate.high == pytest.approx(min(high, 1))


def test_mean_interval_stays_within_its_bounds() -> None:
    estimate = mean_interval(np.array([0.0, 0.0, 1.0]))
    assert (estimate.low, estimate.high) == (0.0, 1.0)


@pytest.mark.parametrize("n", [1, 5, 2000])
@pytest.mark.parametrize("value", [0, 1])
def test_equal_values_get_wilsons_interval_rather_than_none(value: int, n: int) -> None:
    estimate, expected = mean_interval(np.full(n, value)), wilson(value * n, n)
    assert estimate.value == value
    assert estimate.low == pytest.approx(expected.low) and estimate.high == pytest.approx(expected.high)


def test_95_per_cent_of_mean_intervals_hold_the_mean() -> None:
    random = np.random.default_rng(3)
    samples = random.binomial(15, random.beta(2, 3, (4000, 60))) / 15  # a mean of 15 cells, uneven between images
    covered = [e.low <= 0.4 <= e.high for e in map(mean_interval, samples)]
    assert 0.94 < np.mean(covered) < 0.96


def test_paired_difference_equals_scipys_paired_interval() -> None:
    random = np.random.default_rng(0)
    first, second = random.uniform(size=300), random.uniform(size=300)
    estimate = paired_difference(first, second)
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert estimate.value == pytest.approx((first - second).mean()) and estimate.n == 300
    assert estimate.low == pytest.approx(expected.low) and estimate.high == pytest.approx(expected.high)


def test_pairing_narrows_the_interval_and_keeps_its_promise() -> None:
    random = np.random.default_rng(5)
    difficulty = random.uniform(size=(3000, 200))
    first = difficulty < 0.7
    second = np.where(random.uniform(size=first.shape) < 0.1, ~first, first)  # differs on one image in ten
    truth = 0.7 - (0.7 * 0.9 + 0.3 * 0.1)
    estimates = [paired_difference(a, b) for a, b in zip(first, second, strict=True)]
    assert 0.935 < np.mean([e.low <= truth <= e.high for e in estimates]) < 0.965
    unpaired = 1.96 * np.sqrt(2 * 0.7 * 0.3 / 200)
    assert np.mean([e.high - e.low for e in estimates]) < unpaired  # half as wide


def test_equal_models_differ_by_zero_with_some_doubt() -> None:
    estimate = paired_difference(np.ones(100, bool), np.ones(100, bool))
    bound = wilson(0, 100).high
    assert (estimate.value, estimate.low, estimate.high) == (0, pytest.approx(-bound), pytest.approx(bound))


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (np.zeros(0), r"shape \[0\]"),
        (np.zeros((2, 2)), r"shape \[2, 2\]"),
        (np.array([0, np.nan]), "nan in row 1"),
        (np.array([0, 2.0]), "2 in row 1"),
    ],
)
def test_bad_values_are_named(values: np.ndarray, found: str) -> None:
    with pytest.raises(InputError, match=found):
        mean_interval(values)


def test_pairs_are_of_equal_length() -> None:
    with pytest.raises(InputError, match="found 3 and 2"):
        paired_difference(np.zeros(3), np.zeros(2))
