"""The numbers of figures and tables, against ones worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pandas as pd
import pytest

from analysis.columns import MEAN_INTERVAL, ROW_INTERVAL, Column
from analysis.groups import split_groups
from analysis.robustness.statistics import Robustness, summarise_robustness, tabulate
from pixmim_eval.errors import InputError
from pixmim_eval.types import Estimate, ResultRow

Rows = Callable[..., list[ResultRow]]
Frame = Callable[[list[ResultRow]], pd.DataFrame]


@pytest.fixture
def summarise(as_frame: Frame) -> Callable[[list[ResultRow]], Robustness]:
    return lambda rows: summarise_robustness(*split_groups(as_frame(rows), "robustness"))


def test_a_corruption_is_the_mean_of_its_severities_and_of_their_bounds(
    make_row: Callable, summarise: Callable
) -> None:
    values = [(0.9, 0.85, 0.93), (0.8, 0.74, 0.85), (0.6, 0.55, 0.66), (0.4, 0.33, 0.47), (0.2, 0.18, 0.24)]
    rows = [
        make_row(f"fog/{severity}", value, low=low, high=high, n=500 + severity)
        for severity, (value, low, high) in enumerate(values, start=1)
    ]
    (column,) = summarise(rows).corruptions
    (found,) = column.estimates
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((2.9 / 5, 2.65 / 5, 3.15 / 5), abs=1e-12)
    assert found.n == 501
    assert column.chance == 1 / 16


def test_a_missing_severity_leaves_no_mean_and_a_gap_in_the_curve(make_model: Rows, summarise: Callable) -> None:
    rows = [row for row in make_model(0.9, ["fog", "snow"]) if row.condition != "fog/3"]
    robustness = summarise(rows)
    assert [column.name for column in robustness.corruptions] == ["snow", "fog"]  # ImageNet-C's order
    assert [column.estimates[0] is None for column in robustness.corruptions] == [False, True]
    assert [column.estimates[0] is None for column in robustness.curves["fog"]] == [False, False, False, True] + 2 * [
        False
    ]
    (weather,) = robustness.families
    assert weather.estimates == (None,)


def test_families_average_their_corruptions(make_row: Callable, summarise: Callable) -> None:
    levels = {"gaussian_noise": 0.6, "shot_noise": 0.4, "fog": 0.7, "my_own": 0.1}
    rows = [make_row(f"{name}/{severity}", value) for name, value in levels.items() for severity in range(1, 6)]
    families = {column.name: (column.parts, column.estimates[0]) for column in summarise(rows).families}
    assert {name: (parts, round(found.value, 12)) for name, (parts, found) in families.items()} == {
        "noise": (2, 0.5),
        "weather": (1, 0.7),
        "other": (1, 0.1),
    }


def test_the_mean_over_all_is_the_summary_turned_round(make_row: Callable, summarise: Callable) -> None:
    rows = [make_row("summary", 0.3, metric="mean_error_6", low=0.28, high=0.35), make_row("clean", 0.9)]
    robustness = summarise(rows)
    (error,), (mean,) = robustness.errors, robustness.means
    assert error.estimates == (Estimate(0.3, 0.28, 0.35, 1024),)
    found = mean.estimates[0]
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((0.7, 0.65, 0.72))
    assert error.lower_is_better and not mean.lower_is_better


def test_a_model_without_a_variant_has_no_number_there(make_model: Rows, summarise: Callable) -> None:
    rows = make_model(0.9) + make_model(0.8, variants={"sketch": 0.5}, model="other", weights_digest="b")
    variants = {column.name: column.estimates for column in summarise(rows).variants}
    assert list(variants) == ["cue-conflict", "sketch", "rendition", "hard"]
    assert [estimates[1] is None for estimates in variants.values()] == [True, False, True, True]


def test_plain_top1_comes_before_masked_and_masked_before_full(make_row: Callable, summarise: Callable) -> None:
    rows = [make_row("imagenet-a", 0.1, metric=metric) for metric in ("top1_full1000", "top1_masked200")]
    rows += [make_row("hard", 0.2, metric=metric) for metric in ("top1_masked7", "top1")]
    rows += [make_row(f"fog/{s}", 0.3, metric=m) for s in range(1, 6) for m in ("top1_full1000", "top1_masked16")]
    rows += [make_row("summary", 0.7, metric=f"mean_error_1_{end}") for end in ("full1000", "masked16")]
    rows += [make_row("clean", 0.9)]
    robustness = summarise(rows)
    assert {c.name: (c.metric, c.chance) for c in robustness.variants} == {
        "hard": ("top1", 1 / 16),
        "imagenet-a": ("top1_masked200", 1 / 200),
    }
    assert robustness.corruptions[0].metric == "top1_masked16"
    assert [column.name for column in robustness.errors] == ["mean_error_1_masked16"]
    assert robustness.curves["fog"][0].estimates == (None,)  # clean was not scored so


@pytest.mark.parametrize(
    ("space", "chance"),
    [("imagenet-1k", 1 / 1000), ("wordnet-100", 1 / 100), ("names-7", 1 / 7), ("names-7-of-imagenet-1k", None)],
)
def test_chance_follows_from_the_label_space(
    space: str, chance: float | None, make_row: Callable, summarise: Callable
) -> None:
    clean = summarise([make_row("clean", 0.9, protocol=f"label_space={space};source=files")]).clean
    assert clean is not None
    assert clean.chance == chance


def test_a_lead_inside_its_interval_is_no_lead() -> None:
    def column(*bounds: tuple[float, float, float] | None, lower: bool = False) -> Column:
        estimates = tuple(Estimate(*found, 100) if found else None for found in bounds)
        return Column("clean", "clean", "top1", estimates, lower_is_better=lower)

    assert column((0.8, 0.7, 0.9), (0.85, 0.75, 0.95)).best() is None
    assert column((0.8, 0.79, 0.81), (0.85, 0.84, 0.86), None).best() == 1
    assert column((0.8, 0.79, 0.81), (0.85, 0.81, 0.89)).best() is None  # they touch
    assert column((0.8, 0.79, 0.81), (0.85, 0.84, 0.86), lower=True).best() == 0
    # The runner-up is far below, but the third has an interval that reaches up.
    assert column((0.9, 0.88, 0.92), (0.8, 0.79, 0.81), (0.7, 0.4, 0.95)).best() is None
    assert column((0.9, 0.88, 0.92)).best() is None
    assert column((0.9, 0.88, 0.92), None).best() is None


def test_the_long_form_holds_raw_fractions_and_empty_values(make_model: Rows, summarise: Callable) -> None:
    second = [replace(row, model="other", weights_digest="b") for row in make_model(0.8, ["fog"], {})]
    table = tabulate(summarise(make_model(0.9, ["fog"], {"sketch": 0.5}) + second))
    cell = table[(table["label"] == "mae-small") & (table["condition"] == "fog/2")].iloc[0]
    assert (cell["value"], cell["n"], cell["kind"]) == (pytest.approx(0.9 * (1 - 2 * 0.05)), 1024, "severity")
    missing = table[(table["label"] == "other") & (table["condition"] == "sketch")].iloc[0]
    assert missing[["value", "low", "high", "n"]].isna().all()
    assert len(table) == 2 * (1 + 5 + 1 + 1 + 1 + 1)  # clean, severities, corruption, its family, mean error, sketch


def test_rows_without_an_accuracy_are_refused(make_row: Callable, summarise: Callable) -> None:
    with pytest.raises(InputError, match="expected top1"):
        summarise([make_row("summary", 0.3, metric="mean_error_6")])


def test_ten_thousand_rows_are_no_problem(make_model: Rows, summarise: Callable) -> None:
    names = [f"corruption_{number}" for number in range(250)]
    rows = [row for m in range(8) for row in make_model(0.9, names, model=f"model-{m}", weights_digest=f"{m}")]
    assert len(rows) > 10_000
    assert len(summarise(rows).corruptions) == 250


def test_groups_have_the_summarys_own_interval_where_every_model_has_it(
    make_row: Callable, summarise: Callable
) -> None:
    names = ("gaussian_noise", "shot_noise", "impulse_noise", "fog")
    rows = [make_row(f"{name}/{severity}", 0.5) for name in names for severity in range(1, 6)]
    exact = make_row("summary", 0.5, metric="mean_error_noise", low=0.48, high=0.53)
    noise, weather = summarise([*rows, exact]).families
    assert noise.estimates == (Estimate(0.5, 0.47, 0.52, 1024),)  # an accuracy: bounds change places
    assert (noise.interval, noise.parts) == (ROW_INTERVAL, 3)
    assert weather.interval == MEAN_INTERVAL
    second = [replace(row, model="other", weights_digest="b") for row in rows]
    noise, _ = summarise([*rows, exact, *second]).families
    assert noise.interval == MEAN_INTERVAL  # one column, one kind of interval
    assert noise.estimates[0] is not None and noise.estimates[0].low < 0.47


def test_only_the_published_fifteen_are_called_mce(make_row: Callable, summarise: Callable) -> None:
    metrics = ("mce_6", "mce_15", "relative_mce_15", "mean_error_19", "mean_error_15", "mce_15_full1000", "mce_19")
    rows = [make_row("summary", 0.5, metric=metric, unit="ratio") for metric in metrics]
    robustness = summarise([*rows, make_row("clean", 0.9), make_row("fog/1", 0.5)])
    names = [column.name for column in robustness.errors]
    assert names == ["mean_error_15", "mean_error_19", "mce_15", "mce_15_full1000", "relative_mce_15"]
    assert all(column.lower_is_better for column in robustness.errors)
    assert [column.name for column in robustness.means] == ["mean_error_15", "mean_error_19"]


def test_calibration_is_of_the_classes_that_accuracy_is_of(make_row: Callable, summarise: Callable) -> None:
    rows = [make_row("clean", 0.9, metric=metric) for metric in ("top1_masked9", "top1_full1000")]
    rows += [make_row("clean", level, metric=f"ece_{end}") for level, end in ((0.1, "full1000"), (0.2, "masked9"))]
    calibration = summarise(rows).calibration
    assert calibration is not None and calibration.lower_is_better
    assert (calibration.metric, calibration.estimates[0].value, calibration.chance) == ("ece_masked9", 0.2, None)


def test_a_variants_fair_baseline_is_clean_images_of_its_classes(make_row: Callable, summarise: Callable) -> None:
    plain = "head=own;label_space=imagenet-1k;source=files"
    masked = "head=own;label_space=wordnet-200-of-imagenet-1k;source=files"
    rows = [make_row("clean", 0.8, protocol=plain), make_row("imagenet-sketch", 0.3, protocol=plain)]
    assert summarise(rows).fair_baselines == {}  # the same classes as the clean images beside it
    rows += [
        make_row("imagenet-a", value, metric=metric, protocol=masked)
        for metric, value in (("top1_masked200", 0.1), ("clean_top1_masked200", 0.93), ("clean_top1_full1000", 0.85))
    ]
    rows.append(make_row("imagenet-r", 0.4, metric="top1_masked200", protocol=masked))
    robustness = summarise(rows)
    assert [column.name for column in robustness.variants] == ["imagenet-a", "imagenet-r", "imagenet-sketch"]
    values = {name: column.estimates[0].value for name, column in robustness.fair_baselines.items()}
    assert values == {"imagenet-a": 0.93, "imagenet-sketch": 0.8}
    assert robustness.baselines[1] is None  # nothing tells it: other classes than the clean images


def test_a_groups_curve_is_the_mean_of_its_corruptions_at_each_severity(
    make_row: Callable, summarise: Callable
) -> None:
    rows = [make_row("clean", 0.9, low=0.8, high=1.0)]
    rows += [make_row(f"fog/{s}", 0.1 * s, low=0.1 * s - 0.02, high=0.1 * s + 0.04) for s in range(1, 6)]
    rows += [make_row(f"snow/{s}", 0.2 * s - 0.1, low=0.2 * s - 0.16, high=0.2 * s - 0.1) for s in range(1, 5)]
    curve = summarise(rows).family_curves["weather"]
    assert curve[0].estimates == (Estimate(0.9, 0.8, 1.0, 1024),)
    third = curve[3].estimates[0]
    assert third is not None
    assert (third.value, third.low, third.high) == pytest.approx((0.4, 0.36, 0.42))
    assert curve[5].estimates == (None,)
