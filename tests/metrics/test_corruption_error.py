from __future__ import annotations

import numpy as np
import pytest

from pixmim_eval.errors import InputError
from pixmim_eval.metrics.corruption_error import (
    ALEXNET_CLEAN_ERROR,
    ALEXNET_ERRORS,
    EXTRA_CORRUPTIONS,
    image_errors,
    mce_15,
    mean_error,
    mean_error_by_group,
    name_mean_error,
    relative_mce_15,
)
from pixmim_eval.metrics.intervals import mean_interval, wilson

FIFTEEN = list(ALEXNET_ERRORS)


def make_cells(corruptions: list[str], n: int, seed: int = 0) -> dict[tuple[str, int], np.ndarray]:
    """Answers in which easy images are easy everywhere, as they are."""
    random = np.random.default_rng(seed)
    difficulty = random.beta(1, 1, n)
    return {(c, s): random.uniform(size=n) > difficulty * (0.5 + 0.1 * s) for c in corruptions for s in range(1, 6)}


def test_mean_error_equals_a_loop_over_cells_and_images() -> None:
    cells = make_cells(["fog", "snow", "contrast"], 40)
    total = 0.0
    for correct in cells.values():
        for answer in correct:
            total += not answer
    estimate = mean_error(cells)
    assert estimate.value == pytest.approx(total / (15 * 40), abs=1e-15)
    assert (estimate.n, estimate.unit) == (40, "fraction")


def test_the_interval_is_over_images_not_over_cells() -> None:
    cells = make_cells(FIFTEEN, 200)
    per_image = [np.mean([not cells[key][i] for key in cells]) for i in range(200)]
    estimate, expected = mean_error(cells), mean_interval(np.array(per_image))
    assert (estimate.low, estimate.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    cells_as_trials = wilson(round(estimate.value * 75 * 200), 75 * 200)
    assert estimate.high - estimate.low > 3 * (cells_as_trials.high - cells_as_trials.low)


def test_95_per_cent_of_intervals_hold_the_mean_error() -> None:
    truth = 0.5 * np.mean([0.5 + 0.1 * s for s in range(1, 6)])
    estimates = [mean_error(make_cells(["fog", "snow"], 80, seed)) for seed in range(1500)]
    assert 0.935 < np.mean([e.low <= truth <= e.high for e in estimates]) < 0.965


def test_severities_weigh_alike_within_a_corruption() -> None:
    cells = {("fog", s): np.array([s != 2, True]) for s in range(1, 6)}
    assert image_errors(cells)["fog"].tolist() == [pytest.approx(0.2), 0.0]


@pytest.mark.parametrize(
    ("corruptions", "name"),
    [
        (FIFTEEN, "mean_error_15"),
        (FIFTEEN[:6], "mean_error_6"),
        ([*FIFTEEN, "saturate"], "mean_error_16"),
        (["fog"], "mean_error_1"),
        ([*FIFTEEN, "speckle_noise", "gaussian_blur", "spatter", "saturate"], "mean_error_19"),
    ],
)
def test_a_mean_error_is_named_by_the_number_of_its_corruptions(corruptions: list[str], name: str) -> None:
    assert name_mean_error(corruptions) == name


def test_mean_error_15_and_19_are_kept_for_the_published_ones() -> None:
    with pytest.raises(InputError, match="published 15, found 15 with saturate"):
        name_mean_error([*FIFTEEN[:14], "saturate"])
    with pytest.raises(InputError, match="published 19, found 19 with rain"):
        name_mean_error([*FIFTEEN, *EXTRA_CORRUPTIONS[:3], "rain"])


def test_mean_error_by_group_equals_a_loop_over_the_groups_cells() -> None:
    groups = {"fog": "weather", "blur_a": "blur", "snow": "weather", "contrast": "digital", "blur_b": "blur"}
    cells = make_cells(["fog", "snow", "contrast", "blur_a", "speckle_noise"], 30)
    estimates = mean_error_by_group(cells, groups)
    assert list(estimates) == ["mean_error_weather", "mean_error_digital"]  # no blur_b, and speckle_noise has no group
    for names, metric in ((("fog", "snow"), "mean_error_weather"), (("contrast",), "mean_error_digital")):
        per_image = [np.mean([not cells[n, s][i] for n in names for s in range(1, 6)]) for i in range(30)]
        expected = mean_interval(np.array(per_image))
        assert estimates[metric].value == pytest.approx(np.mean(per_image), abs=1e-15)
        assert (estimates[metric].low, estimates[metric].high) == (
            pytest.approx(expected.low),
            pytest.approx(expected.high),
        )
    del cells["snow", 4]
    assert list(mean_error_by_group(cells, groups)) == ["mean_error_digital"]


def test_a_part_of_the_fifteen_has_no_mce() -> None:
    errors = {name: np.full(7, 0.5) for name in [*FIFTEEN[:14], "saturate"]}
    for part in (
        errors,
        {name: errors[name] for name in FIFTEEN[:14]},
        {**dict.fromkeys(FIFTEEN, np.ones(7)), **errors},
    ):
        with pytest.raises(InputError, match="the published fifteen"):
            mce_15(part)
        with pytest.raises(InputError, match="the published fifteen"):
            relative_mce_15(part, np.zeros(7))


def test_mce_of_alexnet_is_one() -> None:
    errors = {name: np.full(7, error) for name, error in ALEXNET_ERRORS.items()}
    estimate = mce_15(errors)
    assert estimate.value == pytest.approx(1.0, abs=1e-15)
    assert (estimate.n, estimate.unit) == (7, "ratio")


def test_mce_equals_a_loop() -> None:
    errors = image_errors(make_cells(FIFTEEN, 90, seed=4))
    multiples = []
    for i in range(90):
        multiple = 0.0
        for name in FIFTEEN:
            multiple += float(errors[name][i]) / ALEXNET_ERRORS[name] / 15
        multiples.append(multiple)
    estimate = mce_15(errors)
    half = mean_interval(np.array(multiples), bounds=(0, 2)).high - np.mean(multiples)
    assert estimate.value == pytest.approx(np.mean(multiples), abs=1e-14)
    assert estimate.high - estimate.value == pytest.approx(half)


def test_mce_of_a_model_that_is_always_wrong_is_the_greatest_there_is() -> None:
    estimate = mce_15({name: np.ones(50) for name in FIFTEEN})
    greatest = sum(1 / error for error in ALEXNET_ERRORS.values()) / 15
    assert estimate.value == pytest.approx(greatest) and estimate.high == pytest.approx(greatest)
    assert estimate.low < estimate.value


def test_relative_mce_of_alexnet_is_one_though_its_images_differ() -> None:
    n = 100_000
    answers = np.arange(n) / n
    errors = {name: answers < error for name, error in ALEXNET_ERRORS.items()}
    estimate = relative_mce_15(errors, answers < ALEXNET_CLEAN_ERROR)
    assert estimate.value == pytest.approx(1.0, abs=1e-4)
    assert (estimate.n, estimate.unit) == (n, "ratio")


def test_relative_mce_equals_a_loop_and_its_interval_is_of_pairs() -> None:
    cells = make_cells(FIFTEEN, 90, seed=4)
    errors, clean = image_errors(cells), ~make_cells(["fog"], 90, seed=4)["fog", 1]
    multiples = []
    for i in range(90):
        multiple = 0.0
        for name in FIFTEEN:
            rise = sum(not cells[name, s][i] for s in range(1, 6)) - 5 * float(clean[i])
            multiple += rise / (5 * ALEXNET_ERRORS[name] - 5 * ALEXNET_CLEAN_ERROR) / 15
        multiples.append(multiple)
    expected = mean_interval(np.array(multiples), bounds=(-20, 20))
    estimate = relative_mce_15(errors, clean)
    assert estimate.value == pytest.approx(expected.value, abs=1e-13)
    assert (estimate.low, estimate.high) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_relative_mce_is_0_for_a_model_that_loses_nothing_and_may_be_negative() -> None:
    answers = np.arange(40) % 3 == 0
    assert relative_mce_15(dict.fromkeys(FIFTEEN, answers), answers).value == pytest.approx(0, abs=1e-15)
    gains = relative_mce_15(dict.fromkeys(FIFTEEN, np.zeros(40)), np.ones(40))
    greatest = sum(1 / (error - ALEXNET_CLEAN_ERROR) for error in ALEXNET_ERRORS.values()) / 15
    assert gains.value == pytest.approx(-greatest) and gains.low == pytest.approx(-greatest)


def test_incomplete_or_uneven_results_are_named() -> None:
    cells = make_cells(["fog", "snow"], 8)
    with pytest.raises(InputError, match="no or needless snow/3"):
        mean_error({key: value for key, value in cells.items() if key != ("snow", 3)})
    with pytest.raises(InputError, match="no or needless fog/6"):
        mean_error({**cells, ("fog", 6): cells["fog", 1]})
    with pytest.raises(InputError, match="no or needless cells"):
        mean_error({})
    with pytest.raises(InputError, match=r"8 in .*, 7 in fog/2"):
        mean_error({**cells, ("fog", 2): cells["fog", 2][:7]})
    with pytest.raises(InputError, match=r"shape \[0\] \(in fog/1\)"):
        mean_error({key: value[:0] for key, value in cells.items()})
    with pytest.raises(InputError, match="no or needless frost"):
        mce_15({name: np.zeros(3) for name in FIFTEEN if name != "frost"})
    with pytest.raises(InputError, match="nan in row 0"):
        mce_15({name: np.array([np.nan]) for name in FIFTEEN})
    with pytest.raises(InputError, match=r"3 in .*, 2 in clean"):
        relative_mce_15({name: np.zeros(3) for name in FIFTEEN}, np.zeros(2))
    with pytest.raises(InputError, match="nan in row 1"):
        relative_mce_15({name: np.zeros(2) for name in FIFTEEN}, np.array([0, np.nan]))
