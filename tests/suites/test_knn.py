"""The suite knn: scikit-learn's answers on plainly computed features, under names that say k and pooling."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from pixmim_eval.errors import InputError
from pixmim_eval.metrics.intervals import wilson
from pixmim_eval.models import catalog
from pixmim_eval.results import read_rows
from pixmim_eval.run import main
from pixmim_eval.suites import compute_key, knn
from pixmim_eval.suites.knn import Knn, KnnOptions
from pixmim_eval.types import LabelSpace, Manifest, Model, Outcome, SuiteConfig
from tests.fakes import COLOURS, make_manifest, make_model
from tests.transfer.processes import run_in_two_processes

SUITE = Knn()


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIXMIM_CACHE", str(tmp_path / "cache"))


def make_config(
    *,
    train: Manifest | None = None,
    val: Manifest | None = None,
    limit: int | None = None,
    skip: bool = False,
    **options: object,
) -> SuiteConfig:
    data = {"val": val or make_manifest(40, seed=1), "train": train or make_manifest(120, seed=2, name="colours-train")}
    chosen = KnnOptions(**{"k": (1, 5, 20), **options})  # type: ignore[arg-type]
    bad = "skip" if skip else "stop"
    return SuiteConfig(data=data, workers=0, batch_size=16, options=chosen, limit=limit, on_bad_image=bad)


def run(model: Model, config: SuiteConfig) -> Outcome:
    SUITE.conditions(config)
    SUITE.roles(model, "clean", config)
    return SUITE.run(model, "clean", config)


def pool(model: Model, manifest: Manifest, pooling: str) -> np.ndarray:
    """Features the plain way, one image at a time."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (model.preprocessing.mean, model.preprocessing.std))
    features = []
    for row in range(len(manifest)):
        image = torch.from_numpy(manifest.source.read([row])[0]).permute(2, 0, 1) / 255
        with torch.no_grad():
            tokens = model.encoder.tokens(((image - mean) / std)[None])
        features.append((tokens.cls if pooling == "cls" else tokens.patches.mean(dim=1))[0].double().numpy())
    return np.stack(features)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_every_k_and_pooling_has_the_accuracy_of_scikit_learn(temperature: float) -> None:
    model, config = make_model(space=None), make_config(temperature=temperature)
    outcome = run(model, config)
    values = {row.metric: row for row in outcome.rows}
    train, val = config.data["train"], config.data["val"]
    for pooling in ("cls", "mean"):
        for k in (1, 5, 20):
            peer = KNeighborsClassifier(
                k, weights=lambda d: np.exp((1 - d) / temperature), metric="cosine", algorithm="brute"
            )
            peer.fit(pool(model, train, pooling), train.labels)
            hits = peer.predict(pool(model, val, pooling)) == val.labels
            row, expected = values[f"top1_k{k}_{pooling}"], wilson(int(hits.sum()), len(hits))
            assert (row.value, row.low, row.high, row.n) == (expected.value, expected.low, expected.high, 40)
            assert np.array_equal(outcome.hits[row.metric], hits)
    assert len(values) == 7


@pytest.mark.parametrize(
    ("cls", "options", "same"),
    [
        (True, {}, "top1_k20_cls"),
        (False, {}, "top1_k20_mean"),
        (True, {"pooling": "mean"}, "top1_k20_mean"),
        (True, {"k": (5, 1)}, "top1_k5_cls"),
    ],
)
def test_top1_is_that_of_twenty_neighbours_and_of_the_class_token_where_there_are_such(
    cls: bool, options: dict[str, object], same: str
) -> None:
    outcome = run(make_model(space=None, cls=cls), make_config(**options))
    values = {row.metric: row.value for row in outcome.rows}
    assert outcome.rows[0].metric == "top1" and values["top1"] == values[same]
    assert np.array_equal(outcome.hits["top1"], outcome.hits[same])
    protocol = outcome.rows[0].protocol
    _, k, pooling = same.split("_")
    assert f"head=knn(pool={pooling},temperature=0.07,train=120)" in protocol and f"top1={k};" in protocol
    assert "head_data=colours-train@" in protocol and "transform=" in protocol


def test_a_class_token_asked_of_an_encoder_without_one_is_refused_before_train_goes_through_it() -> None:
    model = make_model(space=None, cls=False)
    with pytest.raises(InputError, match=r"found cls .*--pooling mean"):
        run(model, make_config(pooling="cls"))
    assert model.encoder.calls <= 40 + 1


@pytest.mark.parametrize(("options", "message"), [({"k": (5, 121)}, "1 to 120"), ({"temperature": -1.0}, "above 0")])
def test_options_out_of_range_are_refused_before_anything_is_computed(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SUITE.conditions(make_config(**options))


def test_labels_are_matched_by_class_name() -> None:
    space = LabelSpace("names-4", ("red", "amber", "green", "blue"))
    train = make_manifest(120, seed=2, name="colours-train")
    renamed = replace(train, labels=np.array([3, 2, 0])[train.labels], label_space=space, digest="1" * 16)
    model = make_model(space=None)
    ours, theirs = (run(model, make_config(train=manifest)) for manifest in (train, renamed))
    assert all(np.array_equal(ours.hits[metric], theirs.hits[metric]) for metric in ours.hits)
    with pytest.raises(InputError, match=r"e\.g\. red"):
        run(model, make_config(train=replace(train, label_space=LabelSpace("names-3", ("blue", "green", "amber")))))


def test_a_class_absent_from_train_is_counted_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    train = make_manifest(120, seed=2)
    kept = np.flatnonzero(train.labels != 1)
    source = type(train.source)(train.source.images[kept])  # type: ignore[attr-defined]
    part = replace(train, keys=train.keys[kept], labels=train.labels[kept], source=source, digest="0" * 16)
    config = make_config(train=part)
    outcome = run(make_model(space=None), config)
    assert "1 scored classes have no image in colours (green)" in capsys.readouterr().err
    assert "absent_classes=1" in outcome.rows[0].protocol
    assert not outcome.hits["top1"][config.data["val"].labels == 1].any()
    assert "absent_classes" not in run(make_model(space=None), make_config()).rows[0].protocol


def test_unreadable_images_are_left_out_of_both_sets() -> None:
    val, train = make_manifest(40, seed=1, bad=(3, 7)), make_manifest(120, seed=2, bad=(5,))
    outcome = run(make_model(space=None), make_config(val=val, train=train, skip=True))
    assert np.flatnonzero(outcome.hits["top1"] == -1).tolist() == [3, 7]
    assert (outcome.rows[0].n, outcome.rows[0].skipped) == (38, 2)
    assert "train=119" in outcome.rows[0].protocol


def test_options_data_and_weights_are_part_of_the_key() -> None:
    model = make_model(space=None)
    configs = [make_config(), make_config(k=(1,)), make_config(temperature=0.1), make_config(pooling="cls")]
    configs.append(make_config(train=make_manifest(120, seed=5)))
    keys = {compute_key(SUITE, model, "clean", config) for config in configs}
    assert len(keys | {compute_key(SUITE, make_model(seed=1, space=None), "clean", configs[0])}) == 6


def test_the_same_command_twice_does_no_work_the_second_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loaded: list[Model] = []

    def load(*_: object) -> list[Model]:
        loaded.append(make_model(space=None))
        return loaded[-1:]

    monkeypatch.setattr(catalog, "load_models", load)
    command = ["--suite", "knn", "--data", "builtin:shapes16@16", "--limit", "48", "--device", "cpu", "--workers", "0"]
    command += ["--k", "1", "20", "--out", "out"]
    assert main(command) == 0
    assert loaded[0].encoder.calls >= 96 and len(read_rows(Path("out"))) == 5
    before = {file: file.read_bytes() for file in Path("out/rows").iterdir()}
    assert main(command) == 0
    assert loaded[1].encoder.calls == 0
    assert {file: file.read_bytes() for file in Path("out/rows").iterdir()} == before
    assert main([*command, "--pooling", "mean"]) == 0
    assert loaded[2].encoder.calls == 0  # features are stored by content


def test_chance_is_what_features_without_meaning_reach() -> None:
    model = make_model(space=None)
    model.encoder.embed.weight.data.zero_()  # every image has the same feature
    outcome = run(model, make_config())
    assert COLOURS.classes[0] == "blue"
    assert outcome.rows[0].value == pytest.approx(14 / 40)  # of 20 first rows 7, 7, 6: the first class wins


def test_two_processes_share_the_queries_and_give_the_rows_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(space=None)
    expected = run(model, make_config())
    monkeypatch.setenv("PIXMIM_CACHE", str(tmp_path / "two"))
    asked: list[int] = []
    plain = knn.find_neighbours
    monkeypatch.setattr(knn, "find_neighbours", lambda *a, **k: asked.append(len(a[1])) or plain(*a, **k))

    def work(rank: int) -> None:
        outcome = run(model, make_config())
        assert asked == [20, 20]  # of 40, for two poolings
        assert [replace(row, time="") for row in outcome.rows] == [replace(row, time="") for row in expected.rows]
        assert all(np.array_equal(outcome.hits[metric], hits) for metric, hits in expected.hits.items())

    run_in_two_processes(work)
