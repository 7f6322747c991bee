from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from pixmim_eval.data.panels import Panel, open_trials
from pixmim_eval.errors import InputError
from pixmim_eval.metrics import shape_bias
from pixmim_eval.metrics.intervals import wilson
from pixmim_eval.metrics.shape_bias import decide, measure_shape_bias

CATEGORIES = ("bear", "cat", "dog")
# Per cent. Sources: bethgelab/model-vs-human, raw-data/cue-conflict, by its rule (people); rgeirhos/texture-vs-shape,
# raw-data/style-transfer-512-nomask-experiment (the networks of the paper).
PUBLISHED = {
    "subject-01": "96.172", "subject-02": "94.381", "subject-03": "96.731", "subject-04": "91.909",
    "subject-05": "96.398", "subject-06": "97.600", "subject-07": "94.081", "subject-08": "95.769",
    "subject-09": "98.660", "subject-10": "95.886", "alexnet": "42.944", "googlenet": "31.190", "vgg": "17.219",
}  # fmt: skip


def count_decisions(
    answers: Sequence[Sequence[int]], shapes: Sequence[int], textures: Sequence[int]
) -> tuple[int, int]:
    """Shape and texture decisions, one trial after the other."""
    by_shape = by_texture = 0
    for observer in answers:
        for answer, shape, texture in zip(observer, shapes, textures, strict=True):
            if texture >= 0 and shape != texture:
                by_shape += answer == shape
                by_texture += answer == texture
    return by_shape, by_texture


@pytest.fixture(scope="module")
def panel(shared_data: Path) -> Panel:
    return open_trials(str(shared_data / "*_responses")).panels["cue-conflict"]


def test_people_and_published_networks_have_their_published_biases(panel: Panel) -> None:
    for observer, published in PUBLISHED.items():
        answers = panel.answers[panel.observers.index(observer)]
        found = measure_shape_bias(answers, panel.shapes, panel.textures, panel.categories)["shape_bias"]
        assert f"{100 * found.value:.3f}" == published, observer
        assert found.n == 1200 and found.low < found.value < found.high
    found = measure_shape_bias(panel.answers[panel.people], panel.shapes, panel.textures, panel.categories)
    assert f"{100 * found['shape_bias'].value:.3f}" == "95.869"
    mean = np.mean([found[f"shape_bias/{name}"].value for name in panel.categories])
    assert f"{100 * mean:.3f}" == "95.385"
    persons = [
        measure_shape_bias(panel.answers[place], panel.shapes, panel.textures, panel.categories)["shape_bias"].value
        for place in panel.people
    ]
    assert f"{100 * np.mean(persons):.3f}" == "95.759"


@pytest.mark.parametrize(
    ("network", "decisions"), [("alexnet", (283, 376)), ("googlenet", (228, 503)), ("vgg", (130, 625))]
)
def test_networks_decide_as_often_as_published(panel: Panel, network: str, decisions: tuple[int, int]) -> None:
    by_shape, by_texture = decisions
    answers = panel.answers[panel.observers.index(network)]
    assert count_decisions([answers.tolist()], panel.shapes.tolist(), panel.textures.tolist()) == decisions
    found = measure_shape_bias(answers, panel.shapes, panel.textures, panel.categories)
    assert found["accuracy_shape"].value == pytest.approx(by_shape / 1200, abs=1e-15)
    assert found["accuracy_texture"].value == pytest.approx(by_texture / 1200, abs=1e-15)


def test_pooled_people_decide_as_often_as_published(panel: Panel) -> None:
    people = panel.answers[panel.people]
    assert count_decisions(people.tolist(), panel.shapes.tolist(), panel.textures.tolist()) == (9236, 398)
    found = measure_shape_bias(people, panel.shapes, panel.textures, panel.categories)
    assert found["accuracy_shape"].value == pytest.approx(9236 / 12000, abs=1e-15)
    assert found["accuracy_texture"].value == pytest.approx(398 / 12000, abs=1e-15)
    assert found["correct_fraction"].value == pytest.approx(9634 / 12000, abs=1e-15)


@pytest.mark.parametrize("observers", [1, 4])
def test_every_number_is_that_of_a_plain_count(observers: int) -> None:
    random = np.random.default_rng(observers)
    shapes, textures = random.integers(0, 3, 200), random.integers(-1, 3, 200)
    answers = random.integers(-1, 3, (observers, 200))
    found = measure_shape_bias(answers, shapes, textures, CATEGORIES)
    trials = observers * int(((textures >= 0) & (textures != shapes)).sum())
    by_shape, by_texture = count_decisions(answers.tolist(), shapes.tolist(), textures.tolist())
    assert found["shape_bias"].value == pytest.approx(by_shape / (by_shape + by_texture), abs=1e-15)
    assert found["accuracy_shape"].value == pytest.approx(by_shape / trials, abs=1e-15)
    assert found["accuracy_texture"].value == pytest.approx(by_texture / trials, abs=1e-15)
    assert found["correct_fraction"].value == pytest.approx((by_shape + by_texture) / trials, abs=1e-15)
    for place, name in enumerate(CATEGORIES):
        of_shape = np.flatnonzero(shapes == place)
        parts = (answers[:, of_shape].tolist(), shapes[of_shape].tolist(), textures[of_shape].tolist())
        one, other = count_decisions(*parts)
        assert found[f"shape_bias/{name}"].value == pytest.approx(one / (one + other), abs=1e-15)
    assert set(found) == {
        "shape_bias", "accuracy_shape", "accuracy_texture", "correct_fraction", *(f"shape_bias/{c}" for c in CATEGORIES)
    }  # fmt: skip


def test_images_without_a_conflict_change_nothing() -> None:
    shapes, textures, answers = np.array([0, 1, 2, 0]), np.array([1, 0, 0, 2]), np.array([0, 0, 2, 1])
    found = measure_shape_bias(answers, shapes, textures, CATEGORIES, seed=3)
    more = [
        np.concatenate((values, extra)) for values, extra in ((answers, [1, 1]), (shapes, [1, 1]), (textures, [1, -1]))
    ]
    assert measure_shape_bias(*more, CATEGORIES, seed=3) == found
    assert found["shape_bias"].n == 4 and found["shape_bias/bear"].n == 2


def test_the_interval_is_that_of_the_binomial_of_decisions() -> None:
    """Given how many decisions there are for either, those for the shape are binomial; images are many."""
    random = np.random.default_rng(0)
    answers = random.choice(3, size=4000, p=[0.3, 0.5, 0.2])
    found = measure_shape_bias(answers, np.zeros(4000, int), np.ones(4000, int), CATEGORIES)["shape_bias"]
    decided = int((answers < 2).sum())
    spread = np.sqrt(found.value * (1 - found.value) / decided)
    assert found.low == pytest.approx(found.value - 1.96 * spread, abs=0.1 * spread)
    assert found.high == pytest.approx(found.value + 1.96 * spread, abs=0.1 * spread)


def test_the_interval_of_pooled_observers_is_over_images_not_trials() -> None:
    """Ten observers who always agree know as much as one."""
    random = np.random.default_rng(1)
    answers = random.choice(3, size=500)
    shapes, textures = np.zeros(500, int), np.ones(500, int)
    one = measure_shape_bias(answers, shapes, textures, CATEGORIES)["shape_bias"]
    ten = measure_shape_bias(np.tile(answers, (10, 1)), shapes, textures, CATEGORIES)["shape_bias"]
    assert (ten.value, ten.low, ten.high, ten.n) == (one.value, one.low, one.high, one.n)


def test_the_interval_holds_the_truth_as_often_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shape_bias, "_RESAMPLES", 1000)
    random, truth, held = np.random.default_rng(2), 0.25, 0
    shapes, textures = np.zeros(300, int), np.ones(300, int)
    for trial in range(200):
        answers = random.choice(3, size=300, p=[0.15, 0.45, 0.4])
        found = measure_shape_bias(answers, shapes, textures, CATEGORIES, seed=trial)["shape_bias"]
        held += found.low <= truth <= found.high
    assert stats.binomtest(held, 200, 0.95).pvalue > 0.001


def test_decisions_that_are_all_alike_leave_room_for_others() -> None:
    shapes, textures = np.zeros(40, int), np.ones(40, int)
    answers = np.array([0] * 30 + [2] * 10)
    found = measure_shape_bias(answers, shapes, textures, CATEGORIES)["shape_bias"]
    expected = wilson(30, 30)
    assert (found.value, found.low, found.high, found.n) == (1.0, pytest.approx(expected.low), 1.0, 40)


def test_no_decision_for_either_is_no_bias_but_still_a_fraction() -> None:
    found = measure_shape_bias(np.array([2, -1]), np.array([0, 0]), np.array([1, 1]), CATEGORIES)
    assert set(found) == {"accuracy_shape", "accuracy_texture", "correct_fraction"}
    assert found["correct_fraction"].value == 0 < found["correct_fraction"].high


def test_the_same_seed_gives_the_same_interval_and_another_one_another() -> None:
    random = np.random.default_rng(5)
    arrays = random.integers(0, 3, 100), np.zeros(100, int), np.ones(100, int), CATEGORIES
    assert measure_shape_bias(*arrays, seed=1) == measure_shape_bias(*arrays, seed=1)
    assert measure_shape_bias(*arrays, seed=1) != measure_shape_bias(*arrays, seed=2)


def test_nothing_in_conflict_is_an_error() -> None:
    with pytest.raises(InputError, match="at least one image whose texture"):
        measure_shape_bias(np.array([0]), np.array([0]), np.array([0]), CATEGORIES)
    with pytest.raises(InputError, match="one answer"):
        measure_shape_bias(np.array([0, 1]), np.array([0]), np.array([1]), CATEGORIES)


def test_the_answer_is_the_category_of_the_highest_mean_probability() -> None:
    random = np.random.default_rng(7)
    logits = random.normal(scale=3, size=(50, 12)).astype(np.float32)
    members = [np.array([3]), np.array([0, 1, 2, 7]), np.array([], dtype=np.int64), np.array([11, 4])]
    for row, answer in zip(logits.astype(np.float64), decide(logits, members).tolist(), strict=True):
        total = sum(np.exp(value) for value in row)
        means = [sum(np.exp(row[k]) / total for k in found) / max(len(found), 1) for found in members]
        assert answer == means.index(max(means)) != 2


def test_the_mean_does_not_favour_categories_of_many_classes() -> None:
    logits = np.log(np.array([[0.3, 0.2, 0.2, 0.2, 0.1]]))
    assert decide(logits, [np.array([0]), np.array([1, 2, 3])]).tolist() == [0]
