"""Two checkpoints: every number of the comparison against a plain loop or a published definition."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.columns import find_direction
from analysis.comparison.checkpoints import (
    BETTER,
    HIGHER,
    SAME,
    UNTESTED,
    WORSE,
    CheckpointComparison,
    compare_checkpoints,
    judge,
)
from analysis.comparison.pairs import FROM_INTERVALS, PAIRED, PAIRED_MEAN, UNKNOWN, Difference, judge_intervals
from analysis.separability import adjust_holm, subtract
from pixmim_eval.errors import InputError
from pixmim_eval.metrics.intervals import wilson
from pixmim_eval.types import Estimate, ResultRow
from tests.analysis.rows import FIFTEEN, GROUPS, Hits, build_outcomes, build_row, frame_outcomes

Model = tuple[list[ResultRow], Hits]
A = {"model": "mae-20", "weights_digest": "aaaa000011112222", "method": "mae", "epoch": 20}
B = {"model": "pixmim-mae-20", "weights_digest": "bbbb000011112222", "method": "pixmim-mae", "epoch": 20}


@pytest.fixture(scope="module")
def models() -> tuple[Model, Model]:
    return build_outcomes(0.70, FIFTEEN, 400, 1, **A), build_outcomes(0.74, FIFTEEN, 400, 2, **B)


@pytest.fixture(scope="module")
def frame(models: tuple[Model, Model]) -> pd.DataFrame:
    rows = frame_outcomes(*models)
    return rows.assign(source=range(len(rows)))


@pytest.fixture(scope="module")
def comparison(frame: pd.DataFrame) -> CheckpointComparison:
    return compare_checkpoints(frame, "mae-20", "pixmim-mae-20")


def find(comparison: CheckpointComparison, condition: str, metric: str) -> Difference:
    everything = (*comparison.differences, *comparison.singles)
    (found,) = [one for one in everything if (one.setting.condition, one.setting.metric) == (condition, metric)]
    return found


def frame_rows(*rows: ResultRow) -> pd.DataFrame:
    return frame_outcomes((list(rows), {}))


@pytest.mark.parametrize("condition", ["clean", "imagenet-sketch", "fog/3"])
def test_single_answers_are_tested_by_mcnemar_on_the_same_images(
    comparison: CheckpointComparison, models: tuple[Model, Model], condition: str
) -> None:
    one, other = (hits[condition, "top1"] for _, hits in models)
    found = find(comparison, condition, "top1")
    wins, losses = int(((other == 1) & (one == 0)).sum()), int(((other == 0) & (one == 1)).sum())
    assert found.test == PAIRED and found.estimate.n == 400
    assert found.estimate.value == pytest.approx((wins - losses) / 400)
    assert found.probability == pytest.approx(stats.binomtest(wins, wins + losses).pvalue)
    random = np.random.default_rng(5)
    draws = (other.astype(int) - one)[random.integers(0, 400, (4000, 400))].mean(axis=1)
    assert found.estimate.low == pytest.approx(np.quantile(draws, 0.025), abs=0.006)
    assert found.estimate.high == pytest.approx(np.quantile(draws, 0.975), abs=0.006)


@pytest.mark.parametrize(("metric", "names"), [("mean_error_15", FIFTEEN), ("mean_error_blur", GROUPS["blur"])])
def test_mean_errors_are_tested_on_how_often_each_image_is_right(
    comparison: CheckpointComparison, models: tuple[Model, Model], metric: str, names: tuple[str, ...]
) -> None:
    differences = np.zeros(400)
    for name in names:
        for severity in range(1, 6):
            one, other = (hits[f"{name}/{severity}", "top1"] for _, hits in models)
            differences += other.astype(int) - one.astype(int)
    found = find(comparison, "summary", metric)
    assert found.test == PAIRED_MEAN and found.parts == 5 * len(names)
    assert found.estimate.value == pytest.approx(-differences.mean() / (5 * len(names)))
    assert found.estimate.value == pytest.approx(found.second.value - found.first.value)
    flips = np.random.default_rng(0).choice([-1, 1], (8000, 400)) @ differences
    expected = np.mean(np.abs(flips) >= abs(differences.sum()) - 1e-9)
    assert found.probability == pytest.approx(expected, abs=0.02)
    assert found.direction == -1


def test_corruptions_at_one_severity_stand_apart(comparison: CheckpointComparison) -> None:
    conditions = [found.setting.condition for found in comparison.singles]
    assert len(conditions) == 75 and all("/" in condition for condition in conditions)
    shown = {found.setting.metric for found in comparison.differences if found.setting.condition == "summary"}
    assert {"mean_error_15", "mean_error_noise", "mce_15"} <= shown


def test_cells_without_a_summary_become_means_of_their_groups(frame: pd.DataFrame, models: tuple[Model, Model]) -> None:
    there = frame[(frame["condition"] != "summary") & ~frame["condition"].str.startswith("snow")]
    found = compare_checkpoints(there, "mae-20", "pixmim-mae-20")
    noise = find(found, "noise", "top1")
    cells = [f"{name}/{severity}" for name in GROUPS["noise"] for severity in range(1, 6)]
    means = [np.mean([hits[cell, "top1"] for cell in cells]) for _, hits in models]
    assert noise.estimate.value == pytest.approx(means[1] - means[0])
    assert (noise.first.value, noise.second.value) == pytest.approx(means)
    assert noise.test == PAIRED_MEAN and noise.direction == 1
    conditions = {one.setting.condition for one in found.differences}
    assert {"frost, fog, brightness", "all 14 corruptions"} <= conditions and "weather" not in conditions


def test_all_tests_of_the_page_are_corrected_together(comparison: CheckpointComparison) -> None:
    for family in (comparison.differences, comparison.singles):
        raw = [found.probability for found in family if found.probability is not None]
        expected, running = {}, 0.0
        for rank, place in enumerate(sorted(range(len(raw)), key=lambda place: raw[place])):
            running = max(running, min(1.0, (len(raw) - rank) * raw[place]))
            expected[place] = running
        assert [found.adjusted for found in family] == pytest.approx([expected[place] for place in range(len(raw))])


def test_holms_correction_of_a_worked_example() -> None:
    # statsmodels.stats.multitest.multipletests([0.01, 0.04, 0.03, 0.005], method="holm")
    assert adjust_holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_a_raw_p_below_a_twentieth_is_not_enough() -> None:
    rows = [build_row(f"set-{place}", 0.50, n=1000, **A) for place in range(10)]
    rows += [build_row(f"set-{place}", 0.555, n=1000, **B) for place in range(10)]
    found = compare_checkpoints(frame_rows(*rows), "mae-20", "pixmim-mae-20")
    assert all(0.005 < (one.probability or 0) < 0.05 for one in found.differences)
    assert {judge(one) for one in found.differences} == {SAME}


def test_comparing_the_other_way_round_gives_the_exact_negative(frame: pd.DataFrame) -> None:
    few = frame[~frame["condition"].str.contains("/") | frame["condition"].str.contains("noise")]
    one, other = (compare_checkpoints(few, *pair) for pair in (("aaaa", "bbbb"), ("bbbb", "aaaa")))
    assert {found.test for found in one.differences} == {PAIRED, PAIRED_MEAN, FROM_INTERVALS}
    for forth, back in zip((*one.differences, *one.singles), (*other.differences, *other.singles), strict=True):
        assert forth.setting == back.setting and forth.probability == back.probability
        numbers = (back.estimate.value, back.estimate.low, back.estimate.high)
        assert numbers == (-forth.estimate.value, -forth.estimate.high, -forth.estimate.low)
    opposite = {BETTER: WORSE, WORSE: BETTER}
    assert [opposite.get(judge(found), judge(found)) for found in one.differences] == [
        judge(found) for found in other.differences
    ]


def test_without_outcomes_interval_and_p_follow_from_the_two_intervals() -> None:
    rows = frame_rows(build_row("clean", 0.40, n=900, **A), build_row("clean", 0.47, n=900, **B))
    (found,) = compare_checkpoints(rows, "mae-20", "pixmim-mae-20").differences
    spread = math.sqrt(0.4 * 0.6 / 900 + 0.47 * 0.53 / 900)
    assert found.test == FROM_INTERVALS
    assert found.estimate.low == pytest.approx(0.07 - 1.96 * spread)
    assert found.estimate.high == pytest.approx(0.07 + 1.96 * spread)
    assert found.probability == pytest.approx(2 * stats.norm.sf(0.07 / spread), rel=1e-3)


def test_independent_equal_models_are_told_apart_by_chance_in_five_per_cent() -> None:
    random = np.random.default_rng(0)
    found = []
    for _ in range(3000):
        first, second = (wilson(int(random.binomial(300, 0.3)), 300) for _ in range(2))
        found.append(judge_intervals(subtract(second, first)) or 1.0)
    assert np.mean(np.array(found) < 0.05) == pytest.approx(0.05, abs=0.012)


def test_models_that_share_their_images_are_told_apart_by_intervals_less_often_than_that() -> None:
    random = np.random.default_rng(1)
    found = []
    for _ in range(1000):
        hard = random.normal(size=300)
        right = [int((0.8 * hard + 0.6 * random.normal(size=300) < -0.5).sum()) for _ in range(2)]
        found.append(judge_intervals(subtract(wilson(right[1], 300), wilson(right[0], 300))) or 1.0)
    assert np.mean(np.array(found) < 0.05) < 0.02


@pytest.mark.parametrize("value", [0.3, -0.02, 0.1])
def test_p_from_intervals_is_below_a_twentieth_exactly_where_the_interval_excludes_zero(value: float) -> None:
    for low, high in ((0.001, 0.2), (-0.001, 0.2), (-0.2, -0.001), (-0.2, 0.001)):
        if low < value < high:
            p = judge_intervals(Estimate(value, low, high, 10))
            assert p is not None and (p < 0.05) == (low > 0 or high < 0)


def test_a_number_without_an_interval_is_not_tested() -> None:
    rows = [
        build_row("clean", value, low=value, high=value, metric="mse_pixels", unit="x", **who)
        for value, who in ((0.1, A), (0.3, B))
    ]
    (found,) = compare_checkpoints(frame_rows(*rows), "mae-20", "pixmim-mae-20").differences
    assert found.test == UNKNOWN and found.probability is None and judge(found) == UNTESTED


@pytest.mark.parametrize(
    ("metric", "verdict"),
    [("top1", BETTER), ("mce_15", WORSE), ("ece", WORSE), ("box_ap", BETTER), ("shape_bias", HIGHER)],
)
def test_more_is_better_of_accuracies_and_worse_of_errors(metric: str, verdict: str) -> None:
    rows = frame_rows(build_row("clean", 0.3, metric=metric, **A), build_row("clean", 0.5, metric=metric, **B))
    found = compare_checkpoints(rows, "mae-20", "pixmim-mae-20")
    assert [judge(one) for one in found.differences] == [verdict]
    assert found.count()[verdict] == 1


def test_a_part_of_a_metric_goes_the_way_of_the_whole_and_unknown_metrics_nowhere() -> None:
    directions = {"iou/cat": 1, "accuracy/cat": 1, "mask_ap_small": 1, "error_power/0-4": -1}
    directions |= {"accuracy_texture": 0, "overlap_union": 0}
    assert {metric: find_direction(metric) for metric in directions} == directions


def test_what_a_head_chose_may_differ_and_nothing_else() -> None:
    protocol = "head=logistic-lbfgs(l2={},pool=mean,train={});pooling=mean;precision=float32"
    rows = [build_row("clean", 0.3, protocol=protocol.format(0.1, 99), **A)]
    alike = [*rows, build_row("clean", 0.5, protocol=protocol.format(0.01, 99), **B)]
    assert len(compare_checkpoints(frame_rows(*alike), "mae-20", "pixmim-mae-20").differences) == 1
    other = [
        *alike,
        build_row("fog", 0.3, protocol=protocol.format(0.1, 99), **A),
        build_row("fog", 0.3, protocol=protocol.format(0.1, 50), **B),
    ]
    found = compare_checkpoints(frame_rows(*other), "mae-20", "pixmim-mae-20")
    assert [one.setting.condition for one in found.differences] == ["clean"]
    (mismatch,) = found.mismatches
    assert "train=99" in mismatch.first and "train=50" in mismatch.second and not found.missing


@pytest.mark.parametrize("changes", [{"seed": 1}, {"dataset_digest": "f" * 16}, {"subset": "spread-9"}])
def test_other_data_images_and_seeds_are_named_and_not_compared(changes: dict[str, object]) -> None:
    rows = [build_row("clean", 0.3, **A), build_row("clean", 0.5, **{**B, **changes}), build_row("hard", 0.3, **A)]
    found = compare_checkpoints(frame_rows(*rows, build_row("hard", 0.3, **B)), "mae-20", "pixmim-mae-20")
    (mismatch,) = found.mismatches
    assert mismatch.conditions == ("clean",) and mismatch.first != mismatch.second
    assert len(found.differences) == 1


def test_losses_of_other_targets_are_never_compared() -> None:
    common = {"suite": "reconstruction", "unit": "loss", "metric": "loss"}
    rows = [build_row("masked", 0.3, **common, **A), build_row("masked", 0.1, **common, **B)]
    rows += [
        build_row("masked", value, suite="reconstruction", metric="mse_pixels", **who)
        for value, who in ((0.3, A), (0.2, B))
    ]
    found = compare_checkpoints(frame_rows(*rows), "mae-20", "pixmim-mae-20")
    assert [one.setting.metric for one in found.differences] == ["mse_pixels"]
    assert found.mismatches[0].command == "" and "target=of mae" in found.mismatches[0].first
    told = [replace(row, pretraining="target=normalised") for row in rows]
    assert len(compare_checkpoints(frame_rows(*told), "mae-20", "pixmim-mae-20").differences) == 2


def test_what_only_one_has_is_listed_with_the_others_command_for_it() -> None:
    run = "python -m pixmim_eval.run --suite {} --checkpoint {} --data 'val=my data' --limit 500"
    rows = [
        build_row("clean", 0.3, command=run.format("robustness", "a.pth"), **A),
        build_row("clean", 0.5, command=run.format("robustness", "'runs/b b/last.pth'"), **B),
        build_row("clean", 0.3, suite="knn", command=run.format("knn", "a.pth"), **A),
    ]
    (missing,) = compare_checkpoints(frame_rows(*rows), "mae-20", "pixmim-mae-20").missing
    assert (missing.checkpoint.label, missing.suite, missing.numbers) == ("pixmim-mae-20", "knn", 1)
    assert missing.command == run.format("knn", "'runs/b b/last.pth'")


def test_a_class_that_one_never_answers_is_no_reason_to_run_anything() -> None:
    rows = [build_row("linear", 0.3, suite="segmentation", metric=metric, **A) for metric in ("miou", "iou/cat")]
    rows += [build_row("linear", 0.3, suite="segmentation", metric="miou", **B)]
    (missing,) = compare_checkpoints(frame_rows(*rows), "mae-20", "pixmim-mae-20").missing
    assert missing.command == "" and "iou/cat" in missing.advise()


def test_two_checkpoints_that_share_nothing_are_an_error_that_says_what_to_run() -> None:
    run = "python -m pixmim_eval.run --suite {} --checkpoint {} --data val=images"
    rows = [
        build_row("clean", 0.3, suite="knn", command=run.format("knn", "a.pth"), **A),
        build_row("clean", 0.5, command=run.format("robustness", "b.pth"), **B),
    ]
    with pytest.raises(InputError) as error:
        compare_checkpoints(frame_rows(*rows), "mae-20", "pixmim-mae-20")
    assert run.format("knn", "b.pth") in error.value.fix or run.format("robustness", "a.pth") in error.value.fix


def test_several_values_of_one_number_are_shown_and_not_compared() -> None:
    rows = [build_row("clean", value, run=run, **A) for value, run in ((0.3, "one"), (0.4, "two"))]
    rows += [build_row("clean", 0.5, **B), build_row("hard", 0.3, **A), build_row("hard", 0.5, **B)]
    frame = frame_rows(*rows).assign(source=range(5))
    found = compare_checkpoints(frame, "mae-20", "pixmim-mae-20")
    assert [one.setting.condition for one in found.differences] == ["hard"]
    (double,) = found.contradictions
    assert double.checkpoint.label == "mae-20" and [sources for _, sources in double.values] == [(0,), (1,)]


def test_the_same_number_from_two_runs_is_one_number() -> None:
    rows = [build_row("clean", 0.3, run=run, **A) for run in ("one", "two")]
    found = compare_checkpoints(frame_rows(*rows, build_row("clean", 0.5, **B)), "mae-20", "pixmim-mae-20")
    assert not found.contradictions and len(found.differences) == 1


def test_the_same_weights_twice_are_said_to_be_that() -> None:
    rows = [build_row("clean", 0.3, **{**A, "model": name}) for name in ("copy", "original")]
    found = compare_checkpoints(frame_rows(*rows), "copy", "original")
    assert "the same weights" in found.notes[0] and found.differences[0].estimate.value == 0
    with pytest.raises(InputError, match="two of them"):
        compare_checkpoints(frame_rows(*rows), "copy", "copy")


def test_other_versions_are_named() -> None:
    rows = [build_row("clean", 0.3, versions="torch=2.6;numpy=2", **A), build_row("clean", 0.3, **B)]
    rows[1] = replace(rows[1], versions="torch=2.11;numpy=2")
    (note,) = compare_checkpoints(frame_rows(*rows), "mae-20", "pixmim-mae-20").notes
    assert "mae-20 torch=2.6" in note and "torch=2.11" in note and "numpy" not in note


def test_every_number_says_which_rows_it_is_of(comparison: CheckpointComparison, frame: pd.DataFrame) -> None:
    clean = find(comparison, "clean", "top1").estimate
    rows = frame[(frame["condition"] == "clean") & (frame["metric"] == "top1")]
    assert clean.sources == tuple(rows["source"])  # type: ignore[attr-defined]
    mean = find(comparison, "summary", "mean_error_15").estimate
    assert len(mean.sources) == 2 * 75 + 2  # type: ignore[attr-defined]
