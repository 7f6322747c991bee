"""The robustness suite: every number equals one computed the plain way, under a name that says what it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pixmim_eval.corruptions import corrupt
from pixmim_eval.data import open_manifest
from pixmim_eval.errors import InputError
from pixmim_eval.extract import passes
from pixmim_eval.metrics.intervals import wilson
from pixmim_eval.suites import SUITES, compute_key, load_suite
from pixmim_eval.suites.robustness import CELLS, VARIANTS, Robustness, score_predictions
from pixmim_eval.suites.roles import open_data
from pixmim_eval.types import LabelSpace, Manifest, Model, PredictionSet, ResultRow, SuiteConfig
from tests.fakes import COLOURS, make_manifest, make_model

SUITE = Robustness()
WIDE = LabelSpace("names-5", ("amber", *COLOURS.classes, "white"))


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PIXMIM_CACHE", str(tmp_path / "cache"))
    passes._memory.clear()
    yield
    passes._memory.clear()


def make_config(**changes: object) -> SuiteConfig:
    data = {"val": make_manifest(), "sketch": make_manifest(18, seed=3, name="drawings")}
    fields: dict[str, object] = {"data": data, "workers": 0, "batch_size": 8, "run": "demo"}
    return SuiteConfig(**{**fields, **changes})  # type: ignore[arg-type]


def find_hits(
    model: Model, manifest: Manifest, classes: tuple[str, ...], cell: tuple[str, int] | None = None, seed: int = 0
) -> np.ndarray:
    """Which images are right, by class name, image by image; only `classes` may be the answer."""
    assert model.classify is not None and model.label_space is not None
    hits = []
    for row in range(len(manifest)):
        image = torch.from_numpy(manifest.source.read([row])[0]).permute(2, 0, 1)[None]
        if cell:
            image = corrupt(image, *cell, seed=seed, index=torch.tensor([row]), parameters="cifar-c")
        mean, std = (
            torch.tensor(values)[:, None, None] for values in (model.preprocessing.mean, model.preprocessing.std)
        )
        logits = dict(
            zip(model.label_space.classes, model.classify((image / 255 - mean) / std)[0].tolist(), strict=True)
        )
        answer = max(classes, key=lambda name: logits[name])
        hits.append(answer == manifest.label_space.classes[manifest.labels[row]])
    return np.array(hits)


def only(rows: list[ResultRow]) -> ResultRow:
    assert len(rows) == 1
    return rows[0]


def test_the_conditions_are_clean_thirty_cells_the_variants_there_are_and_the_summary() -> None:
    conditions = SUITE.conditions(make_config())
    assert conditions[0] == "clean" and conditions[-2:] == ["sketch", "summary"]
    assert len(conditions) == len(set(conditions)) == 33
    assert "gaussian_noise/1" in conditions and "pixelate/5" in conditions


@pytest.mark.parametrize("condition", ["clean", "gaussian_noise/4", "contrast/2", "sketch"])
def test_accuracy_is_that_of_the_images_one_by_one(condition: str) -> None:
    model, config = make_model(), make_config()
    row = only(SUITE.run(model, condition, config))
    manifest = config.data.get(condition, config.data["val"])
    hits = find_hits(model, manifest, COLOURS.classes, CELLS.get(condition))
    expected = wilson(int(hits.sum()), len(hits))
    assert (row.value, row.low, row.high, row.n) == (expected.value, expected.low, expected.high, expected.n)
    assert (row.metric, row.condition, row.suite) == ("top1", condition, "robustness")
    assert (row.dataset, row.dataset_digest) == (manifest.name, manifest.digest)


def test_the_summary_is_the_mean_error_over_all_cells() -> None:
    model, config = make_model(), make_config()
    row = only(SUITE.run(model, "summary", config))
    cells = [only(SUITE.run(model, condition, config)).value for condition in CELLS]
    assert row.metric == "mean_error_6" and row.condition == "summary" and row.n == 30
    assert row.value == pytest.approx(1 - np.mean(cells), abs=1e-12)
    errors = 1 - np.mean(
        [find_hits(model, config.data["val"], COLOURS.classes, cell) for cell in CELLS.values()], axis=0
    )
    half = 2.0452296 * errors.std(ddof=1) / np.sqrt(30)  # Student's t, 29 degrees of freedom
    assert (row.low, row.high) == (pytest.approx(errors.mean() - half), pytest.approx(min(1, errors.mean() + half)))


def test_a_model_of_more_classes_is_scored_on_all_and_on_those_of_the_data() -> None:
    model, config = make_model(seed=14, space=WIDE), make_config()
    rows = {row.metric: row for row in SUITE.run(model, "brightness/3", config)}
    assert set(rows) == {"top1_full5", "top1_masked3"}
    full = find_hits(model, config.data["val"], WIDE.classes, ("brightness", 3))
    masked = find_hits(model, config.data["val"], COLOURS.classes, ("brightness", 3))
    assert rows["top1_full5"].value == full.mean() and rows["top1_masked3"].value == masked.mean()
    assert full.mean() < masked.mean()
    assert "label_space=names-3-of-names-5" in rows["top1_full5"].protocol
    summary = {row.metric: row.value for row in SUITE.run(model, "summary", config)}
    assert set(summary) == {"mean_error_6_full5", "mean_error_6_masked3"}
    assert summary["mean_error_6_full5"] > summary["mean_error_6_masked3"]


def test_labels_are_matched_by_name_and_not_by_number() -> None:
    shuffled = LabelSpace("names-3", ("red", "blue", "green"))
    model = make_model(space=shuffled)
    config = make_config()
    row = only(SUITE.run(model, "clean", config))
    assert row.metric == "top1"
    assert row.value == find_hits(model, config.data["val"], COLOURS.classes).mean()


def test_classes_that_the_model_does_not_know_are_named() -> None:
    model = make_model(space=LabelSpace("names-2", ("blue", "violet")))
    with pytest.raises(InputError, match="green, red"):
        SUITE.run(model, "clean", make_config())


def test_scores_need_a_label_space() -> None:
    predictions = PredictionSet(np.arange(2), np.zeros(2, np.int64), np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match="label space"):
        score_predictions(predictions, make_model(space=None), make_manifest())


def test_an_encoder_gets_a_head_and_the_row_says_so() -> None:
    config = make_config()
    config.data["train"] = make_manifest(120, seed=5)
    row = only(SUITE.run(make_model(space=None), "clean", config))
    protocol = dict(piece.split("=", 1) for piece in row.protocol.split(";"))
    assert protocol["head"].startswith("logistic-lbfgs(l2=") and protocol["head"].endswith(",train=120)")
    assert protocol["pooling"] in ("cls", "mean") and f"pool={protocol['pooling']}" in protocol["head"]
    assert row.weights_digest == make_model(space=None).digest
    assert row.value > 0.8  # the channel of each class is brighter by far: chance is a third


def test_an_encoder_without_training_images_is_bad_input() -> None:
    with pytest.raises(InputError, match="--data train=PATH"):
        SUITE.run(make_model(space=None), "clean", make_config())


def test_the_protocol_says_how_images_were_made() -> None:
    config, model = make_config(), make_model()
    clean = only(SUITE.run(model, "clean", config)).protocol
    assert clean == "head=own;label_space=names-3;pooling=own;precision=float32;source=files;transform=ready-16"
    noisy = only(SUITE.run(model, "gaussian_noise/1", config)).protocol
    assert noisy == clean.replace("source=files", "source=generated").replace(
        "pooling=own;", "parameters=cifar-c;pooling=own;"
    )
    assert only(SUITE.run(model, "summary", config)).protocol == noisy
    large = replace(model, preprocessing=replace(model.preprocessing, size=224, resize=256))
    described = only(SUITE.run(large, "pixelate/1", config)).protocol
    assert "parameters=imagenet-c" in described and "transform=pil-bicubic-16-to-224" in described


def test_skipped_images_are_on_every_row() -> None:
    config = make_config(data={"val": make_manifest(bad=(4, 7))}, on_bad_image="skip")
    for condition in ("clean", "contrast/1", "summary"):
        row = only(SUITE.run(make_model(), condition, config))
        assert (row.n, row.skipped) == (28, 2)


def test_a_limited_run_says_so() -> None:
    row = only(SUITE.run(make_model(), "clean", make_config(limit=9)))
    assert (row.n, row.subset) == (9, "spread-9")


def test_the_work_is_counted_once_for_all_that_share_it() -> None:
    config = make_config()
    config.data["train"] = make_manifest(120, seed=5)
    encoder = make_model(space=None)
    assert SUITE.count_images(encoder, "sketch", config) == {"sketch": 18, "train": 120}
    passes_of_all = {}
    for condition in SUITE.conditions(config):
        passes_of_all |= SUITE.count_images(encoder, condition, config)
    assert sum(passes_of_all.values()) == 30 + 30 * 30 + 18 + 120
    assert SUITE.count_images(make_model(), "clean", config) == {"clean": 30}


def test_results_are_the_same_work_only_where_nothing_differs() -> None:
    config, model = make_config(), make_model()
    config.data["train"] = make_manifest(120, seed=5)
    encoder = make_model(space=None)
    other_train = {**config.data, "train": make_manifest(120, seed=6)}
    other_val = {**config.data, "val": make_manifest(seed=8)}
    other_sketch = {**config.data, "sketch": make_manifest(18, seed=9)}
    newer = Robustness()
    newer.version = 99  # type: ignore[misc]
    base = compute_key(SUITE, encoder, "clean", config)
    different = [
        compute_key(SUITE, encoder, "contrast/1", config),
        compute_key(SUITE, make_model(space=None, seed=1), "clean", config),
        compute_key(SUITE, make_model(space=None, name="twin"), "clean", config),
        compute_key(SUITE, model, "clean", config),
        compute_key(SUITE, encoder, "clean", replace(config, limit=5)),
        compute_key(SUITE, encoder, "clean", replace(config, seed=1)),
        compute_key(SUITE, encoder, "clean", replace(config, on_bad_image="skip")),
        compute_key(SUITE, encoder, "clean", replace(config, device="cuda")),
        compute_key(SUITE, encoder, "clean", replace(config, data=other_train)),
        compute_key(SUITE, encoder, "clean", replace(config, data=other_val)),
        compute_key(newer, encoder, "clean", config),
    ]
    assert len({base, *different}) == len(different) + 1
    same = replace(config, batch_size=1, workers=3, run="elsewhere", data=other_sketch)
    assert compute_key(SUITE, encoder, "clean", same) == base
    assert compute_key(SUITE, model, "clean", replace(config, data=other_train)) == compute_key(
        SUITE, model, "clean", config
    )


def test_the_catalogue_finds_suites_and_names_close_ones() -> None:
    assert isinstance(load_suite("robustness"), Robustness)
    with pytest.raises(InputError, match="Did you mean robustness"):
        load_suite("robustnes")
    assert all(load_suite(name).name == name for name in SUITES)


def test_without_data_the_built_in_set_plays_every_role() -> None:
    data = open_data([], SUITE, with_train=True)
    assert {role: manifest.name for role, manifest in data.items()} == {
        role: f"shapes16-{role}" for role in ("val", "train", "cue-conflict", "sketch", "rendition", "hard")
    }
    small = open_data(["builtin:shapes16@32"], SUITE, with_train=True)
    assert {manifest.ready_size for manifest in small.values()} == {32} and set(small) == set(data)
    one = open_data(["builtin:shapes16:val@32"], SUITE, with_train=True)
    assert set(one) == {"val"}


def write_images(folder: Path, count: int = 2, shade: int = 0) -> Path:
    from PIL import Image

    for name in COLOURS.classes:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (20, 16), (shade, number, len(name))).save(folder / name / f"{number}.png")
    return folder


def test_a_path_without_a_role_is_val_and_train_where_it_has_both(tmp_path: Path) -> None:
    write_images(tmp_path / "set" / "train", 3)
    write_images(tmp_path / "set" / "val", 2)
    data = open_data([str(tmp_path / "set")], SUITE, with_train=True)
    assert {role: len(manifest) for role, manifest in data.items()} == {"val": 6, "train": 9}
    assert set(open_data([str(tmp_path / "set")], SUITE, with_train=False)) == {"val"}
    assert set(open_data([str(tmp_path / "set" / "val")], SUITE, with_train=True)) == {"val"}


def test_a_named_role_goes_before_an_implied_one(tmp_path: Path) -> None:
    drawings = write_images(tmp_path / "drawings")
    data = open_data([f"sketch={drawings}", "builtin:shapes16@16"], SUITE, with_train=True)
    assert data["sketch"].name == "drawings" and data["hard"].name == "shapes16-hard"
    declared = open_data([f"val={drawings}@16"], SUITE, with_train=False)
    assert declared["val"].ready_size == 16


def test_a_variant_may_be_a_folder_with_parts(tmp_path: Path) -> None:
    write_images(tmp_path / "set" / "train", 3)
    write_images(tmp_path / "set" / "val", 2)
    data = open_data([f"imagenet-r={tmp_path / 'set'}", "val=builtin:shapes16@16"], SUITE, with_train=False)
    assert len(data["imagenet-r"]) == 6


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["skecth=builtin:shapes16"], "skecth"),
        (["val=builtin:shapes16@16", "val=builtin:shapes16@32"], "one PATH of role val"),
        (["builtin:shapes16:val@16", "builtin:shapes16:hard@16"], "one PATH of role val"),
        (["sketch=builtin:shapes16"], "--data val=PATH"),
        (["val=builtin:shapes16:val@16", "train=builtin:shapes16:val@16"], "apart"),
        (["/nowhere/at=all"], "/nowhere/at=all"),
    ],
)
def test_data_that_cannot_be_meant_so_is_refused(texts: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_data(texts, SUITE, with_train=True)


def test_the_variants_of_the_built_in_set_are_roles() -> None:
    assert {"cue-conflict", "sketch", "rendition", "hard"} <= set(VARIANTS) <= set(Robustness.accepts)
    assert open_manifest("builtin:shapes16", role="hard").name == "shapes16-hard"
