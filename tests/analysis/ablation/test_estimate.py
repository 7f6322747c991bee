"""Times are those that were measured, added up as the arms will run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from analysis.ablation.basis import Basis
from analysis.ablation.estimate import (
    Forecast,
    Span,
    cut_speeds,
    forecast_all,
    forecast_arm,
    format_forecast,
    measure_speeds,
    read_measured,
)
from analysis.ablation.plan import Arm, Plan, make_plan
from analysis.ablation.runner import list_slots, run_arm, run_here
from tests.analysis.ablation.stand_ins import Program


def write_log(arm: Arm, speeds: list[float]) -> None:
    arm.pretraining.mkdir(parents=True)
    (arm.pretraining / "recipe.json").write_text(json.dumps(dict(arm.settings)))
    lines = [{"step": step, "images_per_second": speed} for step, speed in enumerate(speeds)]
    (arm.pretraining / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_speed_of_a_part_is_its_images_over_its_seconds() -> None:
    assert cut_speeds([50.0] * 7) == pytest.approx([50.0] * 3)
    # 2 steps of 10 images at 100/s and 2 at 25/s: 0.2 s and 0.8 s
    assert cut_speeds([100.0, 100.0, 25.0, 25.0]) == pytest.approx([100.0, 25.0])
    assert cut_speeds([100.0, 25.0, 50.0]) == pytest.approx([3 / (0.01 + 0.04 + 0.02)])
    assert len(cut_speeds([1.0] * 1000)) == 10


def test_a_started_arm_takes_what_is_left_of_it_and_at_most_its_epoch_again(plan: Plan) -> None:
    base, target, *_ = plan.arms
    write_log(base, [100.0, 100.0, 25.0, 25.0, 50.0, 50.0])  # 12 steps of 10 images in all, 4 an epoch
    measured = read_measured(plan)
    assert measured.speeds == {"mae-64px": pytest.approx([100.0, 25.0, 50.0])}
    begun, fresh = forecast_arm(plan, base, measured), forecast_arm(plan, target, measured)
    assert (begun.known.low, begun.known.high) == pytest.approx((60 / 100, 80 / 25))
    assert (fresh.known.low, fresh.known.high) == pytest.approx((120 / 100, 120 / 25))
    assert begun.unknown == ("linear_probe", "knn")


def test_finished_steps_tell_of_the_others(plan: Plan, program: Program) -> None:
    run_arm(plan, plan.arms[0], {})
    for name, seconds in {"base-pretraining": 6.0, "base-linear_probe": 30.0, "base-knn": 4.0}.items():
        file = plan.out / "steps" / f"{name}.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "seconds": seconds}))
    measured = read_measured(plan)
    assert measured.seconds == {"linear_probe": [30.0], "knn": [4.0]}
    assert min(measured.speeds["mae-64px"]) == pytest.approx(120 / 6)  # with all that is not a step
    forecasts = [forecast_arm(plan, arm, measured) for arm in plan.arms]
    assert forecasts[0] == Forecast(Span(0.0, 0.0), ())
    assert (forecasts[1].known.low, forecasts[1].known.high) == pytest.approx((35.2, 40.0))
    total = forecast_all(forecasts, 2)  # three arms on two lanes
    assert (total.known.low, total.known.high) == pytest.approx((70.4, 80.0))
    assert format_forecast(total) == "70 s to 80 s"


def test_a_suite_that_was_begun_before_tells_nothing_of_its_time(plan: Plan, program: Program) -> None:
    run_arm(plan, plan.arms[0], {})
    (plan.out / "steps" / "base-knn.json").unlink()
    run_arm(plan, plan.arms[0], {})
    assert set(read_measured(plan).seconds) == {"linear_probe"}


def test_arms_take_the_next_free_lane() -> None:
    arms = [Forecast(Span(seconds, 2 * seconds), ()) for seconds in (5.0, 1.0, 2.0, 3.0)]
    assert forecast_all(arms, 2).known == Span(6.0, 12.0)  # 5 | 1 2 3
    assert forecast_all(arms, 1).known == Span(11.0, 22.0)
    assert forecast_all(arms, 9).known == Span(5.0, 10.0)


def test_a_log_of_other_settings_tells_nothing(plan: Plan) -> None:
    base = plan.arms[0]
    write_log(replace(base, settings={**base.settings, "batch_size": 5}), [100.0] * 4)
    assert read_measured(plan).speeds == {"mae-64px": []}


def test_what_was_not_measured_is_unknown_until_it_is(
    tmp_path: Path, make_basis: Callable[..., Basis], program: Program
) -> None:
    bases = [make_basis("mae-64px"), make_basis("deit3-64px", method="deit3", supervised=True)]
    plan = make_plan("crop", tmp_path / "out", bases, data="DATA", suites=[("knn",)])
    before = [forecast_arm(plan, arm, read_measured(plan)) for arm in plan.arms]
    assert format_forecast(before[0]) == "unknown until the first run"
    assert forecast_all(before, 1).unknown == ("pretraining (mae-64px)", "knn", "pretraining (deit3-64px)")
    measure_speeds(plan, {})
    assert len(program.calls) == 2
    after = forecast_all([forecast_arm(plan, arm, read_measured(plan)) for arm in plan.arms], 1)
    assert after == Forecast(Span(pytest.approx(6 * 1.2), pytest.approx(6 * 1.2)), ("knn",))  # type: ignore[arg-type]
    assert format_forecast(after) == "at least 7 s"
    measure_speeds(plan, {})
    assert len(program.calls) == 2  # known already
    assert {outcome.state for outcome in run_here(plan, list_slots(1, 0), lambda: None)} == {"done"}
    assert read_measured(plan).seconds["knn"]


def test_seconds_are_said_in_the_unit_that_people_use() -> None:
    spans = [Span(0.0, 119.0), Span(120.0, 7100.0), Span(7200.0, 90000.0), Span(2 * 86400.0, 10.5 * 86400.0)]
    texts = [format_forecast(Forecast(span, ())) for span in spans]
    assert texts == ["0 s to 119 s", "2 min to 118 min", "2 h to 25 h", "2 d to 10.5 d"]
