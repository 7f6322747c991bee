from __future__ import annotations

import time

import numpy as np
import pytest

from pixmim_eval.errors import InputError
from pixmim_eval.metrics.calibration import expected_calibration_error
from pixmim_eval.metrics.intervals import wilson


def ece_by_loop(confidence: np.ndarray, correct: np.ndarray, bins: int) -> float:
    """Guo et al., equation 3, bin by bin."""
    total = 0.0
    for k in range(1, bins + 1):
        members = [i for i, c in enumerate(confidence) if (k - 1) / bins < c <= k / bins or (k == 1 and c == 0)]
        if members:
            accuracy = sum(bool(correct[i]) for i in members) / len(members)
            mean = sum(float(confidence[i]) for i in members) / len(members)
            total += len(members) / len(confidence) * abs(accuracy - mean)
    return total


def draw(n: int, random: np.random.Generator, power: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Confidences, and answers that are right with probability confidence ** power."""
    confidence = random.beta(5, 1.5, n)
    return confidence, random.uniform(size=n) < confidence**power


@pytest.mark.parametrize("bins", [1, 10, 15, 20])
def test_ece_equals_its_definition(bins: int) -> None:
    random = np.random.default_rng(bins)
    confidence, correct = draw(700, random, 1.7)
    edges = np.arange(bins + 1) / bins  # an edge belongs to the bin below it
    confidence, correct = np.concatenate((confidence, edges)), np.concatenate((correct, edges < 0.4))
    estimate = expected_calibration_error(confidence, correct, bins)
    assert estimate.value == pytest.approx(ece_by_loop(confidence, correct, bins), abs=1e-13)
    assert (estimate.n, estimate.unit) == (700 + bins + 1, "fraction")


def test_ece_of_known_answers() -> None:
    sure_and_half_right = expected_calibration_error(np.ones(1000), np.arange(1000) % 2 == 0)
    assert sure_and_half_right.value == pytest.approx(0.5)
    assert 0.46 < sure_and_half_right.low < 0.48 < 0.52 < sure_and_half_right.high < 0.54  # 1.96 * 0.5 / sqrt(1000)


def test_the_interval_is_that_of_images_drawn_one_by_one() -> None:
    confidence, correct = draw(400, np.random.default_rng(2), 2.5)
    estimate, random = expected_calibration_error(confidence, correct), np.random.default_rng(7)
    errors = []
    for _ in range(1500):
        rows = random.integers(0, 400, 400)
        errors.append(ece_by_loop_fast(confidence[rows], correct[rows]))
    assert estimate.low == pytest.approx(2 * estimate.value - np.quantile(errors, 0.975), abs=0.004)
    assert estimate.high == pytest.approx(estimate.value + 1.96 * np.std(errors), abs=0.003)


def ece_by_loop_fast(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    places = np.ceil(confidence * bins)
    gaps = [(correct[places == k] - confidence[places == k]).sum() for k in range(1, bins + 1)]
    return float(np.abs(gaps).sum() / len(confidence))


@pytest.mark.parametrize("power", [1.0, 1.5])
def test_about_95_per_cent_of_intervals_hold_the_true_ece(power: float) -> None:
    many = np.random.default_rng(0).beta(5, 1.5, 1_000_000)
    truth = 0.0 if power == 1 else ece_by_loop_fast(many, many**power)
    random = np.random.default_rng(1)
    held, means = [], []
    for _ in range(100):
        estimate = expected_calibration_error(*draw(400, random, power))
        held.append(estimate.low <= truth <= estimate.high)
        means.append(estimate.value)
    assert np.mean(held) >= 0.89
    assert np.mean(means) > truth + 0.001  # the estimate is too high, as the docstring says


def test_equal_answers_get_wilsons_doubt() -> None:
    estimate = expected_calibration_error(np.ones(50), np.ones(50, bool))
    assert (estimate.value, estimate.low) == (0, 0)
    assert estimate.high == pytest.approx(wilson(0, 50).high)


def test_the_seed_alone_decides_the_interval() -> None:
    data = draw(300, np.random.default_rng(0), 2)
    assert expected_calibration_error(*data, seed=3) == expected_calibration_error(*data, seed=3)
    assert expected_calibration_error(*data, seed=3) != expected_calibration_error(*data, seed=4)


def test_50_000_images_take_less_than_two_seconds() -> None:
    data = draw(50_000, np.random.default_rng(0))
    start = time.process_time()
    expected_calibration_error(*data)
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("confidence", "correct", "bins", "found"),
    [
        (np.zeros(0), np.zeros(0), 15, r"shape \[0\]"),
        (np.array([0.5, 1.01]), np.zeros(2), 15, "1.01 in row 1"),
        (np.array([0.5, np.nan]), np.zeros(2), 15, "nan in row 1"),
        (np.zeros(3), np.zeros(2), 15, "3 and 2"),
        (np.zeros(2), np.zeros(2), 0, "0 bins"),
    ],
)
def test_bad_confidences_are_named(confidence: np.ndarray, correct: np.ndarray, bins: int, found: str) -> None:
    with pytest.raises(InputError, match=found):
        expected_calibration_error(confidence, correct, bins)
