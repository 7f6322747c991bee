"""The suite linear_probe: what is scored is the head, what is chosen is chosen on train, and the row says how."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pixmim_eval.data.crops import SingleTryResizedCrop
from pixmim_eval.errors import InputError
from pixmim_eval.extract import extract_features
from pixmim_eval.metrics.accuracy import rank_labels
from pixmim_eval.metrics.intervals import wilson
from pixmim_eval.models.heads import LinearHead
from pixmim_eval.models.heads.sweep import Grid, sweep_heads
from pixmim_eval.suites import compute_key, linear_probe, load_suite
from pixmim_eval.suites.linear_probe import LinearProbe, LinearProbeOptions, list_parts, score_head
from pixmim_eval.transfer import linear
from pixmim_eval.transfer.linear import ProbeOptions
from pixmim_eval.types import FeatureSet, LabelSpace, Manifest, Model, Outcome, SuiteConfig
from tests.fakes import COLOURS, make_manifest, make_model
from tests.transfer.processes import run_in_two_processes

SUITE = LinearProbe()
SIX = LabelSpace("names-6", ("amber", *COLOURS.classes, "violet", "white"))


@pytest.fixture(autouse=True)
def small_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIXMIM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(linear_probe, "Grid", lambda: Grid((0.01, 0.1), (0.0,), epochs=3))


def make_config(
    *, train: Manifest | None = None, val: Manifest | None = None, skip: bool = False, **options: Any
) -> SuiteConfig:
    data = {"val": val or make_manifest(40, seed=1), "train": train or make_manifest(120, seed=2, name="colours-train")}
    bad = "skip" if skip else "stop"
    chosen = LinearProbeOptions(**{"views": 1, **options})
    return SuiteConfig(data=data, workers=0, batch_size=16, options=chosen, on_bad_image=bad)


def run(model: Model, config: SuiteConfig) -> Outcome:
    SUITE.conditions(config)
    SUITE.roles(model, "clean", config)
    return SUITE.run(model, "clean", config)


def read_protocol(outcome: Outcome) -> dict[str, str]:
    return dict(item.split("=", 1) for item in outcome.rows[0].protocol.split(";"))


def test_the_head_of_a_sweep_over_stored_views_answers_and_the_row_says_how_it_was_chosen() -> None:
    model, config = make_model(space=None), make_config(views=2)
    outcome = run(model, config)
    train, val, crop = config.data["train"], config.data["val"], SingleTryResizedCrop(16)
    views = [extract_features(model, train, config=config)]
    views += [extract_features(model, train, config=config, crop=crop, view=view) for view in (0, 1)]
    candidates = {pooling: [(view[pooling].features,) for view in views] for pooling in ("cls", "mean")}
    grid = Grid((0.01, 0.1), (0.0,), epochs=3)
    head, choice = sweep_heads(candidates, train.labels, 3, index=np.arange(120), grid=grid)
    features = extract_features(model, val, config=config)[head.pooling].features
    hits = head(torch.from_numpy(np.array(features))).argmax(dim=1).numpy() == val.labels
    row, expected = outcome.rows[0], wilson(int(hits.sum()), 40)
    assert (row.metric, row.value, row.low, row.high, row.n) == (
        "top1",
        expected.value,
        expected.low,
        expected.high,
        40,
    )
    assert np.array_equal(outcome.hits["top1"], hits) and len(outcome.rows) == 1  # of three classes top-5 says nothing
    protocol = read_protocol(outcome)
    assert protocol["probe"] == "cached" and protocol["views"] == "centre+2" and protocol["pooling"] == choice.pooling
    named = f"cached(sgd,lr={choice.learning_rate:g},wd=0,batch=32,epochs=3,pool={choice.pooling},train=120)"
    assert protocol["head"] == named and protocol["head_data"] == f"colours-train@{train.digest}"
    assert protocol["held_out_top1"] == f"{choice.held_out_top1:.4f}of12"


def test_nothing_that_is_scored_has_a_say_in_the_head() -> None:
    val = make_manifest(40, seed=1)
    other = replace(make_manifest(40, seed=9), labels=(val.labels + 1) % 3)
    one, two = (read_protocol(run(make_model(space=None), make_config(val=manifest))) for manifest in (val, other))
    assert (one["head"], one["held_out_top1"]) == (two["head"], two["held_out_top1"])


def test_ranks_count_the_classes_that_go_before() -> None:
    logits = np.random.default_rng(0).integers(0, 6, (200, 9)).astype(np.float32)
    labels = np.random.default_rng(1).integers(0, 9, 200)
    order = np.argsort(-logits, axis=1, kind="stable")
    assert np.array_equal(rank_labels(logits, labels), (order == labels[:, None]).argmax(axis=1))


def test_top5_and_the_classes_that_may_be_the_answer_are_those_of_the_metrics_name() -> None:
    generator = np.random.default_rng(3)
    train = replace(make_manifest(60), label_space=SIX)
    val, config = make_manifest(40, seed=1), make_config(train=train)
    weight = torch.from_numpy(generator.normal(size=(6, 12)).astype(np.float32))
    head = LinearHead(weight, torch.zeros(6), torch.zeros(12), torch.ones(12), "cls", 0.0, 60, 0.0)
    inputs = generator.normal(size=(40, 12)).astype(np.float32)
    features = {"cls": FeatureSet(np.arange(40), val.labels, inputs)}
    hits = score_head(head, features, config)
    order = np.argsort(-(inputs @ weight.numpy().T), axis=1)
    own = val.labels + 1  # amber goes before blue, green and red
    assert np.array_equal(hits["top1_full6"], order[:, 0] == own)
    assert np.array_equal(hits["top5_full6"], (order[:, :5] == own[:, None]).any(axis=1))
    among = np.array([[place for place in row if place in (1, 2, 3)] for row in order])
    assert np.array_equal(hits["top1_masked3"], among[:, 0] == own)
    assert set(hits) == {"top1_full6", "top1_masked3", "top5_full6"}
    features = {"cls": FeatureSet(np.arange(40), own, inputs)}
    whole = score_head(head, features, make_config(train=train, val=replace(val, labels=own, label_space=SIX)))
    assert set(whole) == {"top1", "top5"} and np.array_equal(whole["top5"], hits["top5_full6"])


def test_the_last_layers_stand_side_by_side() -> None:
    assert list_parts("cls") == ["cls"] and list_parts("mean-last3") == ["mean", "mean-2", "mean-3"]
    generator = np.random.default_rng(0)
    parts = [generator.normal(size=(40, 2)).astype(np.float16) for _ in range(2)]
    weight = torch.from_numpy(generator.normal(size=(3, 4)).astype(np.float32))
    head = LinearHead(weight, torch.zeros(3), torch.zeros(4), torch.ones(4), "mean-last2", 0.0, 60, 0.0)
    labels, rows = make_manifest(40, seed=1).labels, np.arange(40)
    features = {name: FeatureSet(rows, labels, part) for name, part in zip(("mean", "mean-2"), parts, strict=True)}
    answers = (np.concatenate(parts, axis=1).astype(np.float32) @ weight.numpy().T).argmax(axis=1)
    assert np.array_equal(score_head(head, features, make_config())["top1"], answers == labels)


def test_a_class_token_asked_of_an_encoder_without_one_is_refused_before_train_goes_through_it() -> None:
    model = make_model(space=None, cls=False)
    with pytest.raises(InputError, match=r"expected .*mean.* found cls .*--pooling mean"):
        run(model, make_config(pooling="cls"))
    assert model.encoder.calls <= 40 + 1
    assert read_protocol(run(model, make_config()))["pooling"] == "mean"


def test_a_class_absent_from_train_is_counted_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    train = make_manifest(120, seed=2)
    kept = np.flatnonzero(train.labels != 1)
    source = type(train.source)(train.source.images[kept])  # type: ignore[attr-defined]
    part = replace(train, keys=train.keys[kept], labels=train.labels[kept], source=source, digest="0" * 16)
    outcome = run(make_model(space=None), make_config(train=part))
    assert "1 scored classes have no image in colours (green)" in capsys.readouterr().err
    assert read_protocol(outcome)["absent_classes"] == "1"


def test_unreadable_images_are_left_out_of_both_sets() -> None:
    val, train = make_manifest(40, seed=1, bad=(3, 7)), make_manifest(120, seed=2, bad=(5,))
    outcome = run(make_model(space=None), make_config(val=val, train=train, skip=True))
    assert np.flatnonzero(outcome.hits["top1"] == -1).tolist() == [3, 7]
    assert (outcome.rows[0].n, outcome.rows[0].skipped) == (38, 2)
    assert "train=119" in outcome.rows[0].protocol


def test_each_version_of_an_image_goes_through_the_model_once() -> None:
    model, config = make_model(space=None), make_config(views=2)
    run(model, config)
    passes = SUITE.count_images(model, "clean", config)
    assert passes == {"val": 40, "train": 120, "train view 1": 120, "train view 2": 120}
    assert sum(passes.values()) <= model.encoder.calls <= sum(passes.values()) + 4  # blank images tell the widths
    calls = model.encoder.calls
    run(model, config)
    assert model.encoder.calls == calls


def test_the_published_protocol_has_its_settings_and_is_scored_by_the_same_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weight = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 12)).astype(np.float32))
    head = LinearHead(weight, torch.zeros(3), torch.full((12,), 0.1), torch.full((12,), 2.0), "mean", 0.0, 120, np.nan)
    asked: list[ProbeOptions] = []

    def train(
        _: Model, train_set: Manifest, __: SuiteConfig, options: ProbeOptions
    ) -> tuple[LinearHead, dict[str, str]]:
        asked.append(options)
        return head, {"head": f"mae-90e(train={len(train_set)})", "pooling": "mean"}

    monkeypatch.setattr(linear, "train_linear_probe", train)
    model = make_model(space=None)
    config = make_config(protocol="mae-90e")
    outcome = run(model, config)
    others = {"probe_epochs": 50, "probe_batch_size": 64, "probe_base_lr": 2.0, "probe_warmup_epochs": 4.0}
    run(model, make_config(protocol="mae-90e", pooling="mean", **others))
    given = ProbeOptions(epochs=50, batch_size=64, base_lr=2.0, warmup_epochs=4.0, pooling="mean")
    assert asked == [ProbeOptions(), given]
    features = np.array(extract_features(model, config.data["val"], config=config)["mean"].features)
    answers = ((features - 0.1) / 2 @ weight.numpy().T).argmax(axis=1)
    assert np.array_equal(outcome.hits["top1"], answers == config.data["val"].labels)
    protocol = read_protocol(outcome)
    assert (protocol["probe"], protocol["head"]) == ("mae-90e", "mae-90e(train=120)") and "views" not in protocol
    assert SUITE.count_images(model, "clean", config) == {"val": 40, "train, every epoch anew": 90 * 120}


def test_the_published_probe_is_trained_on_train_and_scored_on_val(tmp_path: Path) -> None:
    model = make_model(space=None)
    options = {"probe_epochs": 6, "probe_batch_size": 24, "probe_base_lr": 800.0, "probe_warmup_epochs": 1.0}
    config = replace(make_config(protocol="mae-90e", pooling="mean", **options), out=tmp_path / "out")
    outcome = run(model, config)
    chosen = ProbeOptions(epochs=6, batch_size=24, base_lr=800.0, warmup_epochs=1.0, pooling="mean")
    head, _ = linear.train_linear_probe(model, config.data["train"], replace(config, out=tmp_path / "again"), chosen)
    features = torch.from_numpy(np.array(extract_features(model, config.data["val"], config=config)["mean"].features))
    hits = head(features).argmax(dim=1).numpy() == config.data["val"].labels
    assert np.array_equal(outcome.hits["top1"], hits) and 0 < hits.sum() < 40
    named = "mae-90e(lars,base_lr=800,batch=24,norm=24,epochs=6,warmup=1,pool=mean,train=120)"
    assert read_protocol(outcome)["head"] == named


def test_two_processes_give_the_rows_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(space=None)
    monkeypatch.setenv("PIXMIM_CACHE", str(tmp_path / "one"))
    expected = run(model, make_config())
    monkeypatch.setenv("PIXMIM_CACHE", str(tmp_path / "two"))

    def work(rank: int) -> None:
        outcome = run(model, make_config())
        assert [replace(row, time="") for row in outcome.rows] == [replace(row, time="") for row in expected.rows]
        assert np.array_equal(outcome.hits["top1"], expected.hits["top1"])

    run_in_two_processes(work)


def test_only_the_options_of_the_protocol_that_is_used_are_part_of_the_key() -> None:
    model = make_model(space=None)

    def key(**options: object) -> str:
        return compute_key(SUITE, model, "clean", make_config(**options))

    published = {"protocol": "mae-90e"}
    assert len({key(), key(views=2), key(last_layers=2), key(pooling="cls"), key(**published)}) == 5
    assert key() == key(probe_epochs=50) and key(**published) == key(**published, last_layers=3)
    others = {"probe_epochs": 50, "probe_batch_size": 64, "probe_base_lr": 2.0, "probe_warmup_epochs": 4.0}
    assert len({key(**published), *(key(**published, **{name: value}) for name, value in others.items())}) == 5
    assert isinstance(load_suite("linear_probe"), LinearProbe)


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"views": -1}, "--views"),
        ({"last_layers": 0}, "--last-layers"),
        ({"probe_epochs": 0}, "--probe-epochs"),
        ({"probe_base_lr": 0.0}, "--probe-base-lr"),
        ({"probe_epochs": 5}, "10 of 5 epochs .*--probe-warmup-epochs"),
    ],
)
def test_options_out_of_range_are_refused_before_anything_is_computed(options: dict[str, object], flag: str) -> None:
    with pytest.raises(InputError, match=flag):
        SUITE.conditions(make_config(**options))
