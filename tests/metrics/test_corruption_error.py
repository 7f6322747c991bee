from __future__ import annotations

import numpy as np
import pytest

from pixmim_eval.errors import InputError
from pixmim_eval.metrics.corruption_error import ALEXNET_ERRORS, image_errors, mce_15, mean_error, name_mean_error
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
    [(FIFTEEN, "mean_error_15"), (FIFTEEN[:6], "mean_error_6"), ([*FIFTEEN, "saturate"], "mean_error_16")],
)
def test_a_mean_error_is_named_by_the_number_of_its_corruptions(corruptions: list[str], name: str) -> None:
    assert name_mean_error(corruptions) == name


def test_mean_error_15_is_kept_for_the_published_fifteen() -> None:
    with pytest.raises(InputError, match="fifteen with saturate"):
        name_mean_error([*FIFTEEN[:14], "saturate"])


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
