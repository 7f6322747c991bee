"""Counter-based random numbers: the published generator, and independence of the batch."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from pixmim_eval.seeds import _bits, _mix, derive_seed, generators, uniform

WORD = (1 << 64) - 1


def splitmix(state: int) -> int:
    """SplitMix64's output function in plain integers."""
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & WORD
    return state ^ (state >> 31)


def test_the_mixer_gives_the_published_first_number() -> None:
    # seed 1234567: 6457827717110365317 is the first output of the reference implementation
    assert splitmix((1234567 + 0x9E3779B97F4A7C15) & WORD) == 6457827717110365317
    state = torch.tensor([1234567], dtype=torch.int64) - 0x61C8864680B583EB
    assert int(_mix(state)) & WORD == 6457827717110365317


@pytest.mark.parametrize("index", [0, 5, 2**40, -3])
def test_words_equal_plain_integers(index: int) -> None:
    words = _bits(42, torch.tensor([index]), 5)[0]
    key = splitmix(splitmix(index & WORD) ^ 42)
    for step, word in enumerate(words.tolist(), start=1):
        assert word & WORD == splitmix((key + step * 0x9E3779B97F4A7C15) & WORD)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_items_do_not_depend_on_their_neighbours_and_counts_extend(dtype: torch.dtype) -> None:
    together = uniform(7, torch.arange(100), 33, dtype=dtype)
    assert torch.equal(together[[50]], uniform(7, torch.tensor([50]), 33, dtype=dtype))
    assert torch.equal(together[:, :10], uniform(7, torch.arange(100), 10, dtype=dtype))
    assert not torch.equal(together, uniform(8, torch.arange(100), 33, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_are_uniform_and_uncorrelated(dtype: torch.dtype) -> None:
    draws = uniform(3, torch.arange(500), 200, dtype=dtype).double()
    assert draws.min() >= 0
    assert draws.max() < 1
    assert stats.kstest(draws.flatten().numpy(), "uniform").pvalue > 1e-3
    correlation = torch.corrcoef(draws[:20])[~torch.eye(20, dtype=torch.bool)]
    assert correlation.abs().max() < 5 / 200**0.5


def test_generators_depend_on_the_item_alone() -> None:
    alone = [torch.rand(3, generator=generator) for generator in generators(1, torch.tensor([4]))]
    batch = [torch.rand(3, generator=generator) for generator in generators(1, torch.tensor([2, 4]))]
    assert torch.equal(alone[0], batch[1])
    assert not torch.equal(batch[0], batch[1])


def test_seeds_differ_by_every_part() -> None:
    seeds = [derive_seed(0, "crop", 1), derive_seed(0, "crop", 2), derive_seed(1, "crop", 1), derive_seed(0, "mask", 1)]
    assert len(set(seeds)) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)
