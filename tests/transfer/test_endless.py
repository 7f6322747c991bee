"""Trainings by steps: who reads which places, and which batches can be dealt out."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from pixmim_eval.errors import InputError
from pixmim_eval.transfer.detection.recipes import RECIPES
from pixmim_eval.transfer.endless import check_batch, deal_places, pick_row


@pytest.mark.parametrize(("world_size", "accumulate"), [(1, 1), (2, 1), (1, 3), (2, 3)])
def test_every_place_of_a_step_is_read_once(world_size: int, accumulate: int) -> None:
    dealt = [
        list(deal_places(range(4, 7), batch=12, accumulate=accumulate, world_size=world_size, rank=rank))
        for rank in range(world_size)
    ]
    assert {len(chunks) for chunks in dealt} == {3 * accumulate}
    for step in range(3):
        parts = [chunks[step * accumulate + part] for chunks in dealt for part in range(accumulate)]
        assert sorted(np.concatenate(parts).tolist()) == list(range((4 + step) * 12, (5 + step) * 12))


def test_places_are_dealt_as_they_are_read() -> None:
    chunks = deal_places(range(10**9), batch=64, accumulate=1, world_size=8, rank=1)
    assert [chunk.tolist() for chunk in islice(chunks, 2)] == [list(range(8, 16)), list(range(72, 80))]


def test_every_pass_goes_through_all_rows_in_an_order_of_its_own() -> None:
    rows = np.array([3, 5, 8, 13, 21])
    passes = [[pick_row(rows, place, seed=1) for place in range(start, start + 5)] for start in (0, 5, 10)]
    assert all(sorted(one) == rows.tolist() for one in passes) and len({tuple(one) for one in passes}) > 1


@pytest.mark.parametrize(
    ("batch", "accumulate", "processes", "least", "fix"),
    [(3, 2, 1, 1, 4), (64, 3, 2, 1, 66), (4, 4, 1, 2, 8), (2, 1, 4, 2, 4), (6, 4, 2, 2, 8)],
)
def test_a_batch_that_cannot_be_dealt_out_is_refused_with_the_next_that_can(
    batch: int, accumulate: int, processes: int, least: int, fix: int
) -> None:
    recipe = replace(RECIPES["short"], train_batch_size=batch, accumulate=accumulate)
    with pytest.raises(InputError, match=f"Take {fix}"):
        check_batch(recipe, processes, least=least)
    check_batch(replace(recipe, train_batch_size=fix), processes, least=least)
