"""The suite few_shot: balanced draws, scikit-learn's optimum on each, and an interval that holds what it says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from pixmim_eval.errors import InputError
from pixmim_eval.extract import extract_features
from pixmim_eval.metrics.intervals import wilson
from pixmim_eval.models import catalog
from pixmim_eval.results import read_rows
from pixmim_eval.run import main
from pixmim_eval.suites.few_shot import FewShot, FewShotOptions, average_draws, draw_rows, fit_draw
from pixmim_eval.types import FeatureSet, Model, SuiteConfig
from tests.fakes import make_manifest, make_model
from tests.transfer.processes import run_in_two_processes

SUITE = FewShot()


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIXMIM_CACHE", str(tmp_path / "cache"))


def make_config(train: int = 600, limit: int | None = None, **options: object) -> SuiteConfig:
    data = {"val": make_manifest(60, seed=1), "train": make_manifest(train, seed=2, name="colours-train")}
    chosen = FewShotOptions(**{"draws": 3, **options})  # type: ignore[arg-type]
    return SuiteConfig(data=data, workers=0, batch_size=64, options=chosen, limit=limit)


def draw(size: float, seed: int = 0, number: int = 1, count: int = 600) -> np.ndarray:
    return draw_rows(make_manifest(count), np.arange(count), size, seed=seed, draw=number)


@pytest.mark.parametrize(("size", "each"), [(0.01, 2), (0.1, 20), (0.0001, 1), (1.0, 200), (1, 1), (7, 7)])
def test_a_draw_has_as_many_images_of_every_class(size: float, each: int) -> None:
    rows = draw(size)
    assert np.bincount(make_manifest(600).labels[rows]).tolist() == [each] * 3
    assert (np.diff(rows) > 0).all()


def test_a_class_with_fewer_images_gives_all_of_them() -> None:
    train = make_manifest(600)
    train.labels[:] = np.repeat([0, 1, 2], [5, 95, 500])
    rows = draw_rows(train, np.arange(600), 0.1, seed=0, draw=1)
    assert np.bincount(train.labels[rows]).tolist() == [5, 20, 20]


def test_draws_differ_by_number_and_seed_and_fewer_are_among_more() -> None:
    assert set(draw(0.01)) < set(draw(0.1)) < set(draw(0.5))
    assert len({tuple(draw(0.1, seed, number)) for seed in (0, 1) for number in (1, 2, 3)}) == 6


def test_every_image_is_drawn_as_often_as_any_other() -> None:
    counts = np.zeros(60)
    for number in range(1, 801):
        counts[draw(5, number=number, count=60)] += 1  # five of twenty a class
    assert counts.sum() == 800 * 15
    assert ((counts - 200) ** 2 / (800 * 0.25 * 0.75)).sum() < 57 + 4 * np.sqrt(2 * 57)  # chi-squared


@pytest.mark.parametrize("size", [0.05, 20])
def test_each_draw_reaches_the_optimum_of_scikit_learn(size: float) -> None:
    model, config = make_model(space=None), make_config(draws=1)
    train = config.data["train"]
    rows = draw_rows(train, np.arange(600), size, seed=0, draw=1)
    drawn = {"cls": extract_features(model, train, config=config, rows=rows)["cls"]}
    head = fit_draw(drawn, config)
    features = drawn["cls"].features.astype(np.float64)
    scale = features.std(axis=0)
    features = (features - features.mean(axis=0)) / np.where(scale > 1e-6, scale, 1)
    labels = train.labels[rows]
    peer = LogisticRegression(C=1 / (head.l2 * len(rows)), tol=1e-10, max_iter=10_000).fit(features, labels)

    def loss(weight: np.ndarray, bias: np.ndarray) -> float:
        logits = torch.from_numpy(features @ weight.T + bias)
        entropy = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels)).item()
        return entropy + head.l2 / 2 * float((weight**2).sum())

    ours, best = loss(head.weight.double().numpy(), head.bias.double().numpy()), loss(peer.coef_, peer.intercept_)
    assert ours <= best * (1 + 1e-4)
    logits = head(torch.from_numpy(np.array(drawn["cls"].features))).numpy()
    assert np.array_equal(logits.argmax(axis=1), peer.predict(features))


def test_rows_are_the_mean_over_draws_and_every_draw() -> None:
    model, config = make_model(space=None), make_config(shots=(4, 40))
    assert SUITE.conditions(config) == ["4-per-class", "40-per-class"]
    outcome = SUITE.run(model, "40-per-class", config)
    values = {row.metric: row for row in outcome.rows}
    single = [values[f"top1/draw-{number}"] for number in (1, 2, 3)]
    assert values["top1"].value == pytest.approx(np.mean([row.value for row in single]), abs=1e-12)
    for row in single:
        hits = outcome.hits[row.metric]
        assert len(hits) == row.n == 60 and row.value == wilson(int(hits.sum()), 60).value > 0.5
    assert set(outcome.hits) == {row.metric for row in single}
    protocol = dict(piece.split("=", 1) for piece in values["top1"].protocol.split(";"))
    assert (protocol["draws"], protocol["images_per_class"], protocol["interval"]) == ("3", "40", "draws-and-images")
    assert protocol["head"].startswith("logistic(l2=") and protocol["head"].count("/") == 4


def test_fractions_are_conditions_by_per_cent() -> None:
    assert SUITE.conditions(make_config()) == ["1-percent", "10-percent"]
    outcome = SUITE.run(make_model(space=None), "1-percent", make_config(draws=1))
    assert "images_per_class=2;" in outcome.rows[0].protocol and "interval=images;" in outcome.rows[0].protocol


def test_the_answers_are_those_of_a_head_on_the_drawn_images_alone() -> None:
    model, config = make_model(space=None), make_config(draws=1, pooling="mean")
    outcome = SUITE.run(model, "10-percent", config)
    rows = draw_rows(config.data["train"], np.arange(600), 0.1, seed=0, draw=1)
    stored = extract_features(model, config.data["train"], config=config)["mean"]
    drawn = {"mean": FeatureSet(rows, stored.labels[rows], stored.features[rows])}
    val = extract_features(model, config.data["val"], config=config)["mean"]
    answers = fit_draw(drawn, config)(torch.from_numpy(np.array(val.features))).argmax(dim=1).numpy()
    assert np.array_equal(outcome.hits["top1/draw-1"], answers == val.labels)


def test_only_drawn_images_go_through_the_model_where_they_are_few() -> None:
    model, config = make_model(space=None), make_config()
    SUITE.run(model, "1-percent", config)
    assert model.encoder.calls <= 60 + 3 * 6 + 2  # and blank images that tell the shapes
    (passes,) = [SUITE.count_images(model, condition, config) for condition in ("1-percent",)]
    assert passes["val"] == 60 and sum(passes.values()) <= 60 + 3 * 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shots": (2, 201)}, r"at least 201 of each, found 200 of blue, 200 of green, 200 of red"),
        ({"shots": (0,)}, "at least 1"),
        ({"fractions": (0.1, 1.5)}, r"in \(0, 1\]"),
        ({"draws": 0}, "draws"),
    ],
)
def test_options_out_of_range_are_refused_before_anything_is_computed(options: dict[str, object], message: str) -> None:
    model, config = make_model(space=None), make_config(**options)
    with pytest.raises(InputError, match=message):
        for condition in SUITE.conditions(config):
            SUITE.roles(model, condition, config)
    assert model.encoder.calls == 0


def test_a_class_token_asked_of_an_encoder_without_one_is_refused() -> None:
    with pytest.raises(InputError, match="--pooling mean"):
        SUITE.run(make_model(space=None, cls=False), "10-percent", make_config(pooling="cls"))


def test_the_interval_holds_the_accuracy_over_all_draws_and_images() -> None:
    """Draws that differ, images that differ: the expected accuracy is in 95 % of the intervals, or somewhat more."""
    generator, inside = np.random.default_rng(0), 0
    for _ in range(400):
        chance = 0.6 + 0.05 * generator.normal(size=(5, 1)) + generator.uniform(-0.25, 0.25, (1, 200))
        estimate = average_draws((generator.random((5, 200)) < chance).astype(np.int8))
        inside += estimate.low <= 0.6 <= estimate.high
    assert 0.94 <= inside / 400 <= 0.995


def test_of_one_draw_the_interval_is_wilsons_and_left_out_images_do_not_count() -> None:
    hits = np.array([[1, 0, 1, 1, -1]], dtype=np.int8)
    assert average_draws(hits) == wilson(3, 4)
    twice = average_draws(np.concatenate([hits, hits]))
    assert twice.n == 4 and twice.value == 0.75


def test_the_same_command_twice_does_no_work_the_second_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loaded: list[Model] = []

    def load(*_: object) -> list[Model]:
        loaded.append(make_model(space=None))
        return loaded[-1:]

    monkeypatch.setattr(catalog, "load_models", load)
    command = ["--suite", "few_shot", "--data", "builtin:shapes16@16", "--limit", "64", "--device", "cpu"]
    command += ["--workers", "0", "--draws", "2", "--out", "out"]
    assert main([*command, "--shots", "2"]) == 0
    assert loaded[0].encoder.calls > 64 and len(read_rows(Path("out"))) == 3
    assert main([*command, "--shots", "2"]) == 0
    assert loaded[1].encoder.calls == 0
    assert main([*command, "--shots", "2", "4"]) == 0
    assert len(read_rows(Path("out"))) == 6  # what was there is kept


def test_two_processes_give_the_rows_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(space=None)
    expected = SUITE.run(model, "10-percent", make_config())
    monkeypatch.setenv("PIXMIM_CACHE", str(tmp_path / "two"))

    def work(rank: int) -> None:
        outcome = SUITE.run(model, "10-percent", make_config())
        assert [replace(row, time="") for row in outcome.rows] == [replace(row, time="") for row in expected.rows]

    run_in_two_processes(work)
