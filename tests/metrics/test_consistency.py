from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from pixmim_eval.data.panels import open_trials
from pixmim_eval.errors import InputError
from pixmim_eval.metrics.consistency import Resampled, average, compare_observers, resample_mean


def compare_plainly(one: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """The published definitions, written out."""
    n = len(one)
    first, second = sum(one.tolist()) / n, sum(other.tolist()) / n
    observed = sum(a == b for a, b in zip(one.tolist(), other.tolist(), strict=True)) / n
    expected = first * second + (1 - first) * (1 - second)
    kappa = 1.0 if observed == 1 else (observed - expected) / (1 - expected)
    return {
        "observed_consistency": observed, "error_consistency": kappa, "accuracy_difference": (first - second) ** 2
    }  # fmt: skip


def test_every_number_is_that_of_the_definition_and_kappa_that_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    correct = random.random((5, 300)) < np.array([0.2, 0.5, 0.5, 0.9, 0.97])[:, None]
    pairs = np.array(list(combinations(range(5), 2)))
    found = compare_observers(correct, pairs)
    for place, (one, other) in enumerate(pairs.tolist()):
        expected = compare_plainly(correct[one], correct[other])
        assert set(found) == set(expected)
        for name, value in expected.items():
            assert found[name].values[place] == pytest.approx(value, abs=1e-14)
        kappa = cohen_kappa_score(correct[one], correct[other])
        assert found["error_consistency"].values[place] == pytest.approx(kappa, abs=1e-12)


def test_between_people_kappa_is_the_published_one(shared_data: Path) -> None:
    panel = open_trials(str(shared_data / "human_responses")).panels["cue-conflict"]
    pairs = np.array(list(combinations(panel.people, 2)))
    found = compare_observers(panel.answers == panel.shapes, pairs)["error_consistency"].mean(np.arange(len(pairs)))
    estimate = found.estimate("kappa")
    assert f"{estimate.value:.3f}" == "0.331"
    assert estimate.n == 1280 and estimate.low < 0.331 < estimate.high


def test_observers_who_agree_everywhere_are_consistent_even_where_nothing_else_was_possible() -> None:
    always, never = np.ones(20, bool), np.zeros(20, bool)
    found = compare_observers(np.stack([always, always, never, never]), np.array([[0, 1], [2, 3], [0, 2]]))
    assert found["error_consistency"].values.tolist() == [1.0, 1.0, 0.0]
    assert np.isfinite(found["error_consistency"].draws).all()


def test_independent_observers_are_consistent_by_chance_alone() -> None:
    random = np.random.default_rng(3)
    correct = random.random((2, 100_000)) < np.array([[0.7], [0.4]])
    found = compare_observers(correct, np.array([[0, 1]]))
    assert found["error_consistency"].values[0] == pytest.approx(0, abs=0.01)
    assert found["observed_consistency"].values[0] == pytest.approx(0.7 * 0.4 + 0.3 * 0.6, abs=0.005)


def test_resampled_kappas_are_those_of_images_drawn_one_by_one() -> None:
    random = np.random.default_rng(4)
    correct = random.random((2, 60)) < 0.6
    correct[1, :40] = correct[0, :40]
    ours = compare_observers(correct, np.array([[0, 1]]))["error_consistency"].draws[:, 0]
    plain = []
    for _ in range(2000):
        rows = random.integers(0, 60, 60)
        plain.append(compare_plainly(correct[0, rows], correct[1, rows])["error_consistency"])
    assert stats.ks_2samp(ours, plain).pvalue > 0.001


def test_pairs_are_resampled_together() -> None:
    """The mean over pairs of the same two observers varies as one pair does."""
    correct = np.random.default_rng(5).random((2, 100)) < 0.5
    once = compare_observers(correct, np.array([[0, 1]]))["error_consistency"]
    twice = compare_observers(correct, np.array([[0, 1], [1, 0]]))["error_consistency"].mean(np.array([0, 1]))
    np.testing.assert_allclose(twice.draws, once.draws, atol=1e-14)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Both copy a fair coin with probability q = 0.6, and toss their own else: agreement 0.5 + q²/2, kappa q²."""
    random, held = np.random.default_rng(6), 0
    for trial in range(200):
        shared, own = random.random(400) < 0.5, random.random((2, 400)) < 0.5
        correct = np.where(random.random((2, 400)) < 0.6, shared, own)
        found = compare_observers(correct, np.array([[0, 1]]), seed=trial)["error_consistency"].estimate("kappa")
        held += found.low <= 0.36 <= found.high
    assert stats.binomtest(held, 200, 0.95).pvalue > 0.001


def test_a_mean_over_levels_is_the_mean_of_numbers_and_of_draws() -> None:
    random = np.random.default_rng(7)
    parts = [
        compare_observers(random.random((3, n)) < 0.5, np.array([[0, 1], [0, 2]]), seed=n)["error_consistency"]
        for n in (40, 60)
    ]
    found = average(parts)
    np.testing.assert_allclose(found.values, (parts[0].values + parts[1].values) / 2)
    np.testing.assert_allclose(found.draws, (parts[0].draws + parts[1].draws) / 2)
    assert found.n == 100
    independent = np.sqrt(sum(np.var(part.draws[:, 0]) for part in parts)) / 2
    assert np.std(found.draws[:, 0]) == pytest.approx(independent, rel=0.1)


def test_an_interval_holds_its_number() -> None:
    found = Resampled(np.array([0.0]), np.random.default_rng(0).random((100, 1)) + 0.5, 9).estimate("squared")
    assert found.low == found.value == 0 < found.high


def test_a_resampled_mean_has_the_standard_error_of_the_mean() -> None:
    values = np.random.default_rng(8).random(500)
    found = resample_mean(values, seed=1)
    assert found.values[0] == values.mean() and found.n == 500
    assert found.draws.std() == pytest.approx(values.std() / np.sqrt(500), rel=0.08)


def test_nobody_to_compare_is_an_error() -> None:
    for correct, pairs in ((np.zeros((2, 0), bool), [[0, 1]]), (np.zeros((2, 3), bool), [])):
        with pytest.raises(InputError, match="at least one pair"):
            compare_observers(correct, np.array(pairs, dtype=np.int64))
