"""Paired differences, against ones worked out image by image."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from analysis.differences import (
    MAX_PAIRS,
    Comparison,
    Difference,
    attach_hits,
    compare_cells,
    compare_models,
    list_pairs,
    tabulate_differences,
)
from analysis.groups import split_groups
from analysis.robustness.statistics import Robustness, summarise_robustness
from analysis.tables import build_differences
from pixmim_eval.types import ResultRow
from tests.analysis.rows import FIFTEEN, GROUPS, NINETEEN, Hits, build_outcomes, build_row, frame_outcomes

Model = tuple[list[ResultRow], Hits]
OWN = {"model": "pixmim-mae", "method": "pixmim-mae", "weights_digest": "b"}


def summarise(*models: Model) -> Robustness:
    return summarise_robustness(*split_groups(frame_outcomes(*models), "robustness"))


def find(comparison: Comparison, name: str) -> Difference:
    return next(found for found in comparison.differences if found.name == name)


@pytest.fixture(scope="module")
def models() -> tuple[Model, Model]:
    return build_outcomes(0.78, stream=1), build_outcomes(0.84, stream=2, **OWN)


@pytest.fixture(scope="module")
def pair(models: tuple[Model, Model]) -> Comparison:
    (comparison,) = compare_models(summarise(*models))
    return comparison


def test_a_condition_is_compared_image_by_image(models: tuple[Model, Model], pair: Comparison) -> None:
    for name, metric in (("clean", "top1"), ("imagenet-a", "top1_masked200"), ("imagenet-v2", "top1")):
        first, second = (hits[name, metric].astype(int) for _, hits in models)
        found = find(pair, name)
        assert found.estimate is not None and found.metric == metric
        assert found.estimate.value == pytest.approx((second - first).mean(), abs=1e-12)
        half = 1.96 * (second - first).std(ddof=1) / np.sqrt(1000)  # the normal interval, for comparison
        assert (found.estimate.low, found.estimate.high) == pytest.approx(
            (found.estimate.value - half, found.estimate.value + half), abs=0.003
        )
        alone = int((second > first).sum()), int((first > second).sum())
        assert found.probability == pytest.approx(binomtest(alone[0], sum(alone)).pvalue, rel=1e-9)
        assert found.estimate.n == 1000
        assert found.separable == (found.estimate.low > 0)


@pytest.mark.parametrize(
    ("name", "corruptions"), [("noise", GROUPS["noise"]), ("mean_error_15", FIFTEEN), ("mean_error_19", NINETEEN)]
)
def test_a_mean_is_compared_by_each_images_own_mean(
    name: str, corruptions: tuple[str, ...], models: tuple[Model, Model], pair: Comparison
) -> None:
    cells = [(f"{corruption}/{severity}", "top1") for corruption in corruptions for severity in range(1, 6)]
    first, second = (np.mean([hits[cell] for cell in cells], axis=0) for _, hits in models)
    found = find(pair, name)
    assert found.estimate is not None and found.probability is None
    assert found.estimate.value == pytest.approx(second.mean() - first.mean(), abs=1e-12)
    half = 1.96 * (second - first).std(ddof=1) / np.sqrt(1000)
    assert found.estimate.high - found.estimate.low == pytest.approx(2 * half, rel=0.05)
    assert found.parts == len(corruptions)


def test_what_is_compared_is_what_the_figures_show(pair: Comparison) -> None:
    means = ["mean_error_15", "mean_error_19"]
    variants = ["imagenet-a", "imagenet-r", "imagenet-sketch", "imagenet-v2"]
    assert [found.name for found in pair.differences] == ["clean", *GROUPS, *means, *variants]


def test_images_left_out_by_either_model_count_for_neither() -> None:
    first, second = build_outcomes(0.7, FIFTEEN[:1], 200, 1), build_outcomes(0.8, FIFTEEN[:1], 200, 2, **OWN)
    clean, cell = ("clean", "top1"), (f"{FIFTEEN[0]}/3", "top1")
    first[1][clean][:30] = -1
    second[1][clean][20:50] = -1
    first[1][cell][7] = -1
    robustness = summarise(first, second)
    (pair,) = compare_models(robustness)
    found = find(pair, "clean").estimate
    assert found is not None
    assert found.n == 150
    kept = [hits[clean][50:].astype(int) for _, hits in (first, second)]
    assert found.value == pytest.approx((kept[1] - kept[0]).mean(), abs=1e-12)
    noise = find(pair, "noise").estimate
    assert noise is not None and noise.n == 199
    (cells,) = compare_cells(robustness)
    assert {d.name: d.estimate.n for d in cells.differences if d.estimate}[cell[0]] == 199


def test_other_numbers_of_images_or_missing_cells_are_not_compared() -> None:
    first, second = build_outcomes(0.7, ("fog", "snow"), 200, 1), build_outcomes(0.8, ("fog", "snow"), 200, 2, **OWN)
    second[1]["clean", "top1"] = second[1]["clean", "top1"][:199]
    del second[1]["snow/2", "top1"]
    (pair,) = compare_models(summarise(first, second))
    assert [find(pair, name).estimate for name in ("clean", "weather", "mean_error_2")] == [None] * 3
    assert find(pair, "imagenet-v2").estimate is not None
    assert not find(pair, "clean").separable


def test_the_same_model_twice_is_not_separable_from_itself() -> None:
    rows, hits = build_outcomes(0.7, ("fog",), 200, 1)
    again, _ = build_outcomes(0.7, ("fog",), 200, 1, **OWN)
    (pair,) = compare_models(summarise((rows, hits), (again, hits)))
    assert not any(found.separable for found in pair.differences)
    assert all(found.estimate and found.estimate.value == 0 for found in pair.differences)


def test_pairs_are_families_else_every_model_against_the_first() -> None:
    def name(*methods: str) -> list[tuple[str, str]]:
        rows = [build_row("clean", 0.5, model=m, method=m, weights_digest=m) for m in methods]
        (group,) = split_groups(pd.DataFrame([vars(row) for row in rows]), "robustness")
        labels = [subject.label for subject in group.subjects]
        return [(labels[first], labels[second]) for first, second in list_pairs(group.subjects)]

    assert name("a", "mae", "b", "pixmim-mae") == [("mae", "pixmim-mae")]
    assert name("a", "b", "c") == [("a", "b"), ("a", "c")]
    assert name("a") == []


def test_pairs_beyond_the_twelfth_are_named() -> None:
    models = [
        build_outcomes(0.7, (), 50, place, model=f"m{place:02d}", method=f"x{place}", weights_digest=f"{place}")
        for place in range(15)
    ]
    robustness = summarise(*models)
    pairs = compare_models(robustness)
    assert [(pair.first, pair.second) for pair in pairs] == [(0, second) for second in range(1, MAX_PAIRS + 1)]
    (note,) = [note for note in build_differences(robustness, pairs).notes if note.startswith("Not compared")]
    assert note.endswith("m13 − m00; m14 − m00.")


def test_equal_rows_give_equal_differences(models: tuple[Model, Model]) -> None:
    tables = []
    for _ in range(2):
        robustness = summarise(*models)
        tables.append(tabulate_differences(robustness, compare_models(robustness)))
    pd.testing.assert_frame_equal(*tables)


def test_hits_go_to_their_own_rows_only() -> None:
    rows = pd.DataFrame([vars(build_row("clean", 0.5, epoch=None)), vars(build_row("fog/1", 0.5))])
    rows = rows.astype({"epoch": "Int64"})
    outcome = np.array([1, 0], dtype=np.int8)
    found = attach_hits(rows, rows.iloc[:1].assign(hits=pd.Series([outcome], dtype=object)))["hits"].tolist()
    assert found[0] is outcome and found[1] is None
