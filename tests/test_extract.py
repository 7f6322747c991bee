"""Extraction: the right numbers for the right model, from the cache or not, and nothing half-written."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pixmim_eval.corruptions import corrupt
from pixmim_eval.errors import BadImageError, InputError
from pixmim_eval.extract import (
    answer,
    cache_dir,
    extract_features,
    passes,
    predict,
    prepare_classifier,
    select_head_rows,
    select_rows,
    store,
)
from pixmim_eval.models.heads import choose_pooling
from pixmim_eval.models.vit import Architecture, VisionTransformer
from pixmim_eval.types import LabelSpace, Manifest, Model, SuiteConfig
from tests.fakes import COLOURS, make_manifest, make_model

ROOT = Path(__file__).resolve().parents[1]
CONFIG = SuiteConfig(data={}, workers=0, batch_size=7)


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PIXMIM_CACHE", str(tmp_path / "cache"))
    passes._kept.clear()
    yield
    passes._kept.clear()


def compute_logits(
    model: Model, manifest: Manifest, corruption: tuple[str, int] | None = None, seed: int = 0
) -> np.ndarray:
    """The plain way: one image at a time, no cache."""
    logits = []
    for row in range(len(manifest)):
        image = torch.from_numpy(manifest.source.read([row])[0]).permute(2, 0, 1)[None]
        if corruption:
            image = corrupt(image, *corruption, seed=seed, index=torch.tensor([row]))
        mean, std = (
            torch.tensor(values)[:, None, None] for values in (model.preprocessing.mean, model.preprocessing.std)
        )
        assert model.classify is not None
        logits.append(model.classify((image / 255 - mean) / std)[0].detach())
    return torch.stack(logits).numpy()


READINGS = {"all": None, "two": np.array([2, 0])}


def confide(
    model: Model, manifest: Manifest, corruption: tuple[str, int] | None = None, config: SuiteConfig = CONFIG
) -> np.ndarray:
    """Probabilities of the answers, which tell images and models apart."""
    return answer(model, manifest, config=config, readings=READINGS, corruption=corruption)["all"].confidence


@pytest.mark.parametrize("corruption", [None, ("gaussian_noise", 3), ("contrast", 5)])
def test_answers_are_those_of_each_image_alone(corruption: tuple[str, int] | None) -> None:
    model, manifest = make_model(), make_manifest()
    found = answer(model, manifest, config=CONFIG, readings=READINGS, corruption=corruption)
    logits = compute_logits(model, manifest, corruption).astype(np.float64)
    for name, classes in (("all", [0, 1, 2]), ("two", [2, 0])):
        odds = np.exp(logits[:, classes])
        np.testing.assert_array_equal(found[name].answers, np.array(classes)[odds.argmax(axis=1)])
        np.testing.assert_allclose(found[name].confidence, odds.max(axis=1) / odds.sum(axis=1), atol=1e-5)
        np.testing.assert_array_equal(found[name].labels, manifest.labels)
    assert (found["all"].answers == 1).any() and not (found["two"].answers == 1).any()


def test_logits_are_those_of_each_image_alone() -> None:
    model, manifest = make_model(), make_manifest()
    predictions = predict(model, manifest, config=CONFIG)
    np.testing.assert_allclose(predictions.logits, compute_logits(model, manifest), atol=1e-5)
    np.testing.assert_array_equal(predictions.index, np.arange(30))
    np.testing.assert_array_equal(predictions.labels, manifest.labels)
    assert predictions.skipped == 0 and predictions.logits.dtype == np.float32


@pytest.mark.parametrize("cls", [True, False])
def test_one_pass_gives_every_pooling(cls: bool) -> None:
    model, manifest = make_model(cls=cls), make_manifest()
    features = extract_features(model, manifest, config=CONFIG)
    assert model.encoder.calls == 31  # and one blank image for the widths
    images = torch.from_numpy(np.stack(manifest.source.read(range(30)))).permute(0, 3, 1, 2)
    tokens = model.encoder.tokens(passes.normalize(images, model.preprocessing.mean, model.preprocessing.std))
    assert set(features) == ({"cls", "mean"} if cls else {"mean"})
    np.testing.assert_allclose(features["mean"].features, tokens.patches.mean(dim=1).detach(), atol=1e-5)
    if cls:
        np.testing.assert_allclose(features["cls"].features, tokens.cls.detach(), atol=1e-5)


def test_the_batch_size_changes_no_prediction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for size in (1, 7, 30):
        monkeypatch.setenv("PIXMIM_CACHE", str(tmp_path / str(size)))
        found.append(confide(make_model(), make_manifest(), ("impulse_noise", 4), replace(CONFIG, batch_size=size)))
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)
    np.testing.assert_allclose(found[0], found[2], atol=1e-5)


def test_the_second_time_nothing_is_computed() -> None:
    model, manifest = make_model(), make_manifest()
    first = predict(model, manifest, config=CONFIG)
    calls = model.encoder.calls
    again = predict(model, manifest, config=replace(CONFIG, batch_size=3, workers=1, run="other"))
    assert model.encoder.calls == calls
    np.testing.assert_array_equal(first.logits, again.logits)


def test_no_model_is_given_the_answers_of_another() -> None:
    manifest, base = make_manifest(), make_model()
    reversed_space = LabelSpace("names-3", COLOURS.classes[::-1])
    models = {
        "weights": make_model(seed=1),
        "activation": make_model(activation=nn.LeakyReLU(0.3)),
        "slope": make_model(activation=nn.LeakyReLU(0.7)),
        "mean": replace(base, preprocessing=replace(base.preprocessing, mean=(0.5, 0.5, 0.5))),
        "std": replace(base, preprocessing=replace(base.preprocessing, std=(0.5, 0.5, 0.5))),
        "classes": replace(base, label_space=reversed_space),
        "classifier": replace(base, classify=lambda images: 2 * base.classify(images)),  # type: ignore[misc]
        "base": base,
    }
    assert len({passes.identify_model(model) for model in models.values()}) == len(models)
    for model in models.values():
        stored = predict(model, manifest, config=CONFIG).logits
        np.testing.assert_allclose(stored, compute_logits(model, manifest), atol=1e-5)
        stored = predict(model, manifest, config=CONFIG).logits
        np.testing.assert_allclose(stored, compute_logits(model, manifest), atol=1e-5)


def test_the_same_weights_with_other_heads_are_another_model() -> None:
    model = make_model(space=None)
    few, many = (replace(model, encoder=VisionTransformer(32, Architecture(16, 24, 2, heads))) for heads in (2, 4))
    many.encoder.load_state_dict(few.encoder.state_dict())
    assert repr(few.encoder) == repr(many.encoder)
    assert passes.identify_model(few) != passes.identify_model(many)


def test_a_model_loaded_again_is_the_same_model() -> None:
    assert passes.identify_model(make_model()) == passes.identify_model(make_model())


def test_geometry_is_part_of_what_is_stored() -> None:
    base = make_model()
    wide = replace(base, preprocessing=replace(base.preprocessing, size=32, resize=32))
    manifest = replace(make_manifest(), ready_size=None)
    bilinear = replace(wide, preprocessing=replace(wide.preprocessing, interpolation="bilinear"))
    found = [predict(model, manifest, config=CONFIG).logits for model in (base, wide, bilinear)]
    assert not np.allclose(found[0], found[1]) and not np.allclose(found[1], found[2])


def test_no_images_are_taken_for_others() -> None:
    model, manifest = make_model(), make_manifest()
    found = [
        confide(model, manifest),
        confide(model, make_manifest(seed=1)),
        confide(model, manifest, ("gaussian_noise", 1)),
        confide(model, manifest, ("gaussian_noise", 2)),
        confide(model, manifest, ("impulse_noise", 1)),
        confide(model, manifest, ("gaussian_noise", 1), replace(CONFIG, seed=1)),
    ]
    assert len({confidence.tobytes() for confidence in found}) == len(found)


def test_the_jpeg_step_is_part_of_what_is_stored() -> None:
    model, manifest = make_model(size=64), make_manifest(6, size=64)
    plain = replace(CONFIG, jpeg_step=False)
    cell = ("gaussian_noise", 1)
    assert not np.allclose(confide(model, manifest, cell), confide(model, manifest, cell, plain))
    stored = answer(model, manifest, config=CONFIG, readings=READINGS)["all"].confidence
    assert np.allclose(stored, confide(model, manifest, None, plain))  # clean images are left as they are


def test_the_seed_does_not_touch_clean_images() -> None:
    model, manifest = make_model(), make_manifest()
    predict(model, manifest, config=CONFIG)
    calls = model.encoder.calls
    predict(model, manifest, config=replace(CONFIG, seed=1))
    assert model.encoder.calls == calls


def test_a_change_of_the_code_forgets_what_was_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    model, manifest = make_model(), make_manifest()
    predict(model, manifest, config=CONFIG)
    calls = model.encoder.calls
    monkeypatch.setattr(passes, "digest_code", lambda: "0" * 16)
    predict(model, manifest, config=CONFIG)
    assert model.encoder.calls > calls


def test_the_code_digest_reads_the_code_between_images_and_numbers() -> None:
    root = ROOT / "pixmim_eval"
    names = {str(file.relative_to(root)) for pattern in passes._CODE for file in root.glob(pattern)}
    needed = {
        "corruptions/noise.py",
        "data/transforms.py",
        "models/vit.py",
        "models/heads/logistic.py",
        "extract/passes.py",
    }
    assert needed | {"seeds.py", "data/sources/decode.py"} <= names
    assert not any(name.startswith("suites") for name in names)


def test_a_subset_holds_the_rows_it_names() -> None:
    model, manifest = make_model(), make_manifest()
    cell, few = ("gaussian_noise", 3), replace(CONFIG, limit=8)
    whole = answer(model, manifest, config=CONFIG, readings=READINGS, corruption=cell)["all"]
    part = answer(model, manifest, config=few, readings=READINGS, corruption=cell)["all"]
    assert len(part.index) == 8
    np.testing.assert_allclose(part.confidence, whole.confidence[part.index], atol=1e-5)
    np.testing.assert_array_equal(part.labels, whole.labels[part.index])


def test_skipped_images_are_counted_and_leave_the_others_in_place() -> None:
    model, manifest = make_model(), make_manifest(bad=(0, 11, 29))
    with pytest.raises(BadImageError, match="image-0"):
        predict(model, manifest, config=CONFIG)
    kept = predict(model, manifest, config=replace(CONFIG, on_bad_image="skip"))
    rows = np.setdiff1d(np.arange(30), [0, 11, 29])
    np.testing.assert_array_equal(kept.index, rows)
    np.testing.assert_array_equal(kept.labels, manifest.labels[rows])
    assert kept.skipped == 3
    reference = compute_logits(model, replace(manifest, source=make_manifest().source))
    np.testing.assert_allclose(kept.logits, reference[rows], atol=1e-5)
    with pytest.raises(BadImageError):  # what was stored with images skipped is no answer where none may be
        predict(model, manifest, config=CONFIG)


def test_what_a_killed_process_left_is_not_read() -> None:
    model, manifest = make_model(), make_manifest()
    good = np.array(predict(model, manifest, config=CONFIG).logits)
    (entry,) = (cache_dir() / "outputs").iterdir()
    left = entry.with_name(f".{entry.name}-4242.tmp")
    entry.rename(left)
    (left / "logits.npy").write_bytes((left / "logits.npy").read_bytes()[:150])
    np.testing.assert_array_equal(predict(model, manifest, config=CONFIG).logits, good)
    assert entry.exists() and left.exists()


def predict_until_killed() -> None:
    torch.set_num_threads(1)  # OpenMP does not survive a fork
    os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
    predict(make_model(), make_manifest(), config=CONFIG)


def test_a_process_killed_while_writing_leaves_nothing_to_read() -> None:
    process = multiprocessing.get_context("fork").Process(target=predict_until_killed)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    (left,) = (cache_dir() / "outputs").iterdir()
    assert left.name.startswith(".")
    model, manifest = make_model(), make_manifest()
    found = predict(model, manifest, config=CONFIG)
    np.testing.assert_allclose(found.logits, compute_logits(model, manifest), atol=1e-5)


def test_old_leftovers_go_and_fresh_ones_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    left = cache_dir() / "outputs" / ".0123-1.tmp"
    left.mkdir(parents=True)
    predict(make_model(), make_manifest(), config=CONFIG)
    assert left.exists()
    now = time.time()
    monkeypatch.setattr(store.time, "time", lambda: now + 100_000)
    predict(make_model(seed=1), make_manifest(), config=CONFIG)
    assert not left.exists()


@pytest.mark.parametrize("damage", ["truncated", "empty", "missing", "other rows", "short"])
def test_a_damaged_entry_is_named_and_not_used(damage: str) -> None:
    model, manifest = make_model(), make_manifest()
    predict(model, manifest, config=CONFIG)
    (entry,) = (cache_dir() / "outputs").iterdir()
    file = entry / "logits.npy"
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-40])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "missing":
        file.unlink()
    elif damage == "short":
        np.save(file, np.load(file)[:-1])
    else:
        table = np.load(entry / "rows.npy")
        table["row"][3] = table["row"][2]
        np.save(entry / "rows.npy", table)
    with pytest.raises(InputError, match=entry.name):
        predict(model, manifest, config=CONFIG)


def test_a_model_that_gives_no_numbers_is_stored_nowhere() -> None:
    model = make_model()
    model.encoder.embed.weight.data[3] = float("nan")
    with pytest.raises(FloatingPointError, match="tiny"):
        predict(model, make_manifest(), config=CONFIG)
    assert not list(cache_dir().glob("outputs/*"))


def test_a_failure_in_the_middle_is_stored_nowhere() -> None:
    manifest = make_manifest(bad=(29,))
    with pytest.raises(BadImageError):
        predict(make_model(), manifest, config=CONFIG)
    assert not list((cache_dir() / "outputs").iterdir())


def test_large_outputs_are_stored_in_half_the_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "_HALF_ABOVE_BYTES", 30 * 3 * 4 - 1)
    model, manifest = make_model(), make_manifest()
    logits = predict(model, manifest, config=CONFIG).logits
    assert logits.dtype == np.float16
    np.testing.assert_allclose(logits, compute_logits(model, manifest), rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("kept", [True, False])
def test_corrupted_images_are_kept_for_the_next_model_where_they_are_small(
    kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, size = make_manifest(), 30 * 3 * 16 * 16
    monkeypatch.setattr(passes, "_KEPT_BYTES", size if kept else size - 1)
    for severity in (1, 2):
        confide(make_model(), manifest, ("gaussian_noise", severity))
    assert sum(batch.images.nbytes for batches in passes._kept.values() for batch in batches) == (size if kept else 0)


def test_an_image_is_decoded_once_for_all_that_is_done_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, bad = make_manifest(bad=(4,)), replace(CONFIG, on_bad_image="skip")
    predict(make_model(), manifest, config=bad, keep_images=True)
    cases = [(make_model(), ("gaussian_noise", 2)), (make_model(seed=1), ("contrast", 1)), (make_model(seed=1), None)]
    with monkeypatch.context() as patch:
        patch.setattr(type(manifest.source), "read", None)  # reading again would fail
        found = [answer(model, manifest, config=bad, readings=READINGS, corruption=cell) for model, cell in cases[:2]]
        found.append({"all": predict(make_model(seed=1), manifest, config=bad, keep_images=True)})
    others = np.delete(np.arange(30), 4)
    for (model, cell), stored in zip(cases, found, strict=True):
        logits = compute_logits(model, replace(manifest, source=make_manifest().source), cell)[others]
        np.testing.assert_array_equal(stored["all"].index, others)
        assert stored["all"].skipped == 1
        if cell:
            np.testing.assert_array_equal(stored["all"].answers, logits.argmax(axis=1))
        else:
            np.testing.assert_allclose(stored["all"].logits, logits, atol=1e-5)


def test_a_disk_without_room_is_named_before_anything_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 30 * 3 * 4 - 1})
    monkeypatch.setattr(store.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InputError, match="PIXMIM_CACHE"):
        predict(make_model(), make_manifest(), config=CONFIG)
    usage.free += 1
    assert len(predict(make_model(), make_manifest(), config=CONFIG).index) == 30


def test_what_was_used_longest_ago_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    manifests = [make_manifest(seed=seed) for seed in range(3)]
    predict(make_model(), manifests[0], config=CONFIG)
    (first,) = (cache_dir() / "outputs").iterdir()
    size = sum(file.stat().st_size for file in first.iterdir())
    monkeypatch.setattr(store, "_KEPT_BYTES", 2 * size)
    os.utime(first, (1, 1))
    predict(make_model(), manifests[1], config=CONFIG)
    assert len(list(first.parent.iterdir())) == 2
    predict(make_model(), manifests[0], config=CONFIG)  # used again: the second one is older now
    (second,) = set(first.parent.iterdir()) - {first}
    os.utime(second, (2, 2))
    predict(make_model(), manifests[2], config=CONFIG)
    assert first.exists() and not second.exists() and len(list(first.parent.iterdir())) == 2


def test_a_subset_of_a_data_set_that_cycles_has_every_class_equally() -> None:
    space = LabelSpace("names-16", tuple(f"class-{number:02d}" for number in range(16)))
    manifest = replace(make_manifest(), labels=np.arange(4096) % 16, keys=np.arange(4096), label_space=space)
    rows = select_rows(manifest, 256)
    assert len(rows) == 256 and (np.diff(rows) > 0).all()
    assert np.bincount(manifest.labels[rows]).tolist() == [16] * 16
    textures = manifest.keys[rows] // 16 % 16  # the second thing that such sets cycle through
    assert len(set(textures.tolist())) == 16


@pytest.mark.parametrize("count", [1, 2, 29, 30, 31, None])
def test_a_subset_has_as_many_rows_as_asked_for_where_there_are_so_many(count: int | None) -> None:
    rows = select_rows(make_manifest(), count)
    assert len(rows) == min(count or 30, 30) and (np.diff(rows) > 0).all() and rows[0] >= 0 and rows[-1] < 30


def test_a_head_is_fitted_on_4096_images_or_a_hundred_a_class() -> None:
    few = replace(make_manifest(), labels=np.arange(9000) % 3, keys=np.arange(9000))
    many = replace(few, label_space=LabelSpace("names-60", tuple(f"{number:02d}" for number in range(60))))
    assert (len(select_head_rows(few, None)), len(select_head_rows(many, None))) == (4096, 6000)
    assert len(select_head_rows(few, 100)) == 100 and len(select_head_rows(make_manifest(), None)) == 30


def test_an_encoder_is_given_the_head_that_its_features_call_for() -> None:
    model, train, val = make_model(space=None), make_manifest(120, seed=5), make_manifest()
    config = replace(CONFIG, data={"train": train})
    classifier, protocol = prepare_classifier(model, config)
    predictions = predict(classifier, val, config=config)
    features = extract_features(model, train, config=config)
    head = choose_pooling({name: set_.features for name, set_ in features.items()}, train.labels, 3)
    scored = torch.from_numpy(np.array(extract_features(model, val, config=config)[head.pooling].features))
    np.testing.assert_allclose(predictions.logits, head(scored), atol=1e-4)
    data = config.data["train"]
    assert protocol == {"head": head.name, "head_data": f"{data.name}@{data.digest}", "pooling": head.pooling}
    assert classifier.label_space == train.label_space and classifier.name == model.name


def test_a_fitted_head_is_kept_and_never_given_to_another_model() -> None:
    train = make_manifest(120, seed=5)
    config = replace(CONFIG, data={"train": train})
    first, _ = prepare_classifier(make_model(space=None), config)
    calls = first.encoder.calls
    again, _ = prepare_classifier(replace(first, classify=None, label_space=None, digest=make_model().digest), config)
    assert first.encoder.calls == calls and again.digest == first.digest
    other_model, _ = prepare_classifier(make_model(seed=1, space=None), config)
    other_data, _ = prepare_classifier(
        make_model(space=None), replace(config, data={"train": make_manifest(120, seed=6)})
    )
    assert len({first.digest, other_model.digest, other_data.digest, make_model().digest}) == 4
    found = (
        predict(first, make_manifest(), config=config).logits,
        predict(other_data, make_manifest(), config=config).logits,
    )
    assert not np.allclose(*found)


def test_a_model_with_a_classifier_keeps_it() -> None:
    model = make_model()
    assert prepare_classifier(model, CONFIG) == (model, {"head": "own", "pooling": "own"})


def test_an_encoder_without_training_images_says_what_to_give() -> None:
    with pytest.raises(InputError, match="--data train=PATH"):
        prepare_classifier(make_model(space=None), CONFIG)
    with pytest.raises(ValueError, match="prepare_classifier"):
        predict(make_model(space=None), make_manifest(), config=CONFIG)
