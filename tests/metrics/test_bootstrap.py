from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from pixmim_eval.metrics import bootstrap
from pixmim_eval.metrics.bootstrap import resample_sums


def sums_of_all_samples(values: np.ndarray, size: int) -> np.ndarray:
    return np.array([sum(sample) for sample in product(values.tolist(), repeat=size)])


@pytest.mark.parametrize("draws_a_count", [10**6, 1], ids=["images are drawn", "counts are drawn"])
def test_sums_are_distributed_as_those_of_all_possible_samples(
    draws_a_count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "_DRAWS_A_COUNT", draws_a_count)
    monkeypatch.setattr(bootstrap, "_DRAWS_AT_ONCE", 1000)
    values = np.array([0.0, 1.0, 1.0, 2.5, -4.0])
    sums = resample_sums(values, np.full(40_000, 4), np.random.default_rng(0))
    possible, probabilities = np.unique(sums_of_all_samples(values, 4), return_counts=True)
    found = np.array([(sums == value).sum() for value in possible])
    assert found.sum() == 40_000
    assert stats.chisquare(found, probabilities / probabilities.sum() * 40_000).pvalue > 0.001


@pytest.mark.parametrize("draws_a_count", [10**6, 1], ids=["images are drawn", "counts are drawn"])
@pytest.mark.parametrize("at_once", [1, 7, 1 << 18])
def test_samples_have_the_sizes_asked_for(draws_a_count: int, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "_DRAWS_A_COUNT", draws_a_count)
    monkeypatch.setattr(bootstrap, "_DRAWS_AT_ONCE", at_once)
    for draws in ([0, 3, 0, 0, 5, 1, 12, 0], [0, 0], [4]):
        sizes = np.array(draws)
        assert resample_sums(np.ones(6), sizes, np.random.default_rng(0)).tolist() == draws


def test_blocks_of_draws_do_not_change_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    values, draws = np.random.default_rng(1).normal(size=700), np.array([700, 0, 650, 800, 1])
    whole = resample_sums(values, draws, np.random.default_rng(3))
    drawn = values[np.random.default_rng(3).integers(0, 700, draws.sum(), dtype=np.int32)]
    assert whole == pytest.approx([part.sum() for part in np.split(drawn, np.cumsum(draws)[:-1])])
