from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from pixmim_eval.errors import InputError
from pixmim_eval.metrics.intervals import paired_difference
from pixmim_eval.metrics.paired import mcnemar, paired_bootstrap, sign_flip


def answers(both: int, first: int, second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Two models' answers by how many images both, one or neither gets right."""
    counts = [both, first, second, neither]
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


@pytest.mark.parametrize("counts", [(50, 12, 5, 33), (1, 3, 0, 1), (180, 30, 30, 60)])
def test_the_interval_of_answers_has_the_exact_quantiles_of_resampled_images(counts: tuple[int, int, int, int]) -> None:
    n = sum(counts)
    wins, losses = counts[1:3]
    estimate = paired_bootstrap(*answers(*counts), resamples=200_000)
    probabilities = np.zeros(2 * n + 1)  # of the resampled difference k / n at place n + k
    for more in range(n + 1):
        first = stats.binom.pmf(more, n, wins / n)
        rest = stats.binom.pmf(np.arange(n - more + 1), n - more, losses / max(n - wins, 1))
        probabilities[n + more - np.arange(n - more + 1)] += first * rest
    assert probabilities.sum() == pytest.approx(1)
    exact = (np.searchsorted(np.cumsum(probabilities), [0.025, 0.975]) - n) / n
    assert estimate.value == pytest.approx((wins - losses) / n) and estimate.n == n
    assert (estimate.low, estimate.high) == (
        pytest.approx(exact[0], abs=1.01 / n),
        pytest.approx(exact[1], abs=1.01 / n),
    )


def test_the_interval_of_any_values_is_that_of_images_drawn_one_by_one() -> None:
    random = np.random.default_rng(0)
    first, second = random.uniform(size=(2, 900)) ** 3
    estimate = paired_bootstrap(first, second)
    means = [float((first - second)[random.integers(0, 900, 900)].mean()) for _ in range(10_000)]
    assert estimate.value == pytest.approx((first - second).mean())
    assert estimate.low == pytest.approx(np.quantile(means, 0.025), abs=0.001)
    assert estimate.high == pytest.approx(np.quantile(means, 0.975), abs=0.001)


def test_many_images_give_the_interval_of_the_normal_approximation() -> None:
    random = np.random.default_rng(1)
    first, second = random.uniform(size=50_000) < 0.7, random.uniform(size=50_000) < 0.69
    estimate, expected = paired_bootstrap(first, second), paired_difference(first, second)
    assert estimate.low == pytest.approx(expected.low, abs=3e-4)
    assert estimate.high == pytest.approx(expected.high, abs=3e-4)


def test_equal_differences_are_not_taken_for_certainty() -> None:
    same = np.ones(100, bool)
    assert paired_bootstrap(same, same) == paired_difference(same, same)


def test_exchanging_the_models_changes_the_sign() -> None:
    first, second = answers(50, 12, 5, 33)
    assert paired_bootstrap(first, second).value == -paired_bootstrap(second, first).value
    assert paired_bootstrap(first, second, seed=1) == paired_bootstrap(first, second, seed=1)


@pytest.mark.parametrize(
    ("wins", "losses"),
    [(0, 0), (1, 0), (0, 5), (3, 3), (4, 3), (5, 9), (40, 12), (700, 300), (10_100, 9_900), (502_000, 498_000),
     (500_000, 500_000), (499_999, 500_000)],
)  # fmt: skip
def test_mcnemar_equals_scipys_binomial_test(wins: int, losses: int) -> None:
    expected = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert mcnemar(*answers(7, wins, losses, 3)) == pytest.approx(expected, rel=1e-10)
    assert mcnemar(*answers(0, losses, wins, 1)) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("wins", "losses"), [(2, 9), (30, 14), (60, 0)])
def test_mcnemar_equals_the_sum_of_binomial_coefficients(wins: int, losses: int) -> None:
    n, fewer = wins + losses, min(wins, losses)
    exact = 2 * sum(math.comb(n, k) for k in range(fewer + 1)) / 2**n
    assert mcnemar(*answers(1, wins, losses, 1)) == pytest.approx(exact, rel=1e-13)


def test_mcnemar_rejects_equal_models_at_most_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    p = [mcnemar(*(random.uniform(size=(2, 120)) < 0.6)) for _ in range(2000)]
    assert 0.02 < np.mean(np.array(p) <= 0.05) < 0.055


def test_answers_that_cannot_be_compared_are_named() -> None:
    with pytest.raises(InputError, match=r"found 3 and 2 \(in mcnemar\)"):
        mcnemar(np.zeros(3), np.zeros(2))
    with pytest.raises(InputError, match=r"0\.25, 0\.5 .*second"):
        mcnemar(np.zeros(3), np.array([0.25, 0.5, 1]))
    with pytest.raises(InputError, match=r"found 3 and 2 \(in paired_bootstrap\)"):
        paired_bootstrap(np.zeros(3), np.zeros(2))
    with pytest.raises(InputError, match="found 0"):
        paired_bootstrap(np.zeros(3), np.zeros(3), resamples=0)


@pytest.mark.parametrize("seed", range(6))
def test_flipped_signs_are_all_tried(seed: int) -> None:
    differences = np.random.default_rng(seed).integers(-75, 76, size=(3, 7, 12)[seed % 3])
    sums = [abs(int(np.dot(signs, differences))) for signs in itertools.product((-1, 1), repeat=len(differences))]
    expected = np.mean(np.array(sums) >= abs(int(differences.sum())))
    assert sign_flip(differences) == pytest.approx(expected)
    assert sign_flip(-differences) == sign_flip(differences)


@pytest.mark.parametrize("counts", [(50, 12, 5, 33), (1, 3, 0, 1), (900, 2600, 2500, 0), (400, 520, 430, 650)])
def test_flipping_signs_of_single_answers_is_mcnemars_test(counts: tuple[int, int, int, int]) -> None:
    first, second = answers(*counts)
    assert sign_flip(first.astype(int) - second) == pytest.approx(mcnemar(first, second))


def test_flipping_signs_of_many_images_agrees_with_the_normal_approximation() -> None:
    differences = np.random.default_rng(3).integers(-75, 77, 20_000)
    z = differences.sum() / math.sqrt(float((differences**2).sum()))
    assert sign_flip(differences) == pytest.approx(2 * stats.norm.sf(abs(z)), rel=0.01)


def test_flipped_signs_know_nothing_of_no_difference_and_no_p_below_their_precision() -> None:
    assert sign_flip(np.zeros(9, int)) == 1
    assert sign_flip(np.ones(5000, int)) == 1e-12
    with pytest.raises(InputError, match="whole numbers"):
        sign_flip(np.array([0.5, 0.25]))
