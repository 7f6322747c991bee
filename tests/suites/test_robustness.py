"""The robustness suite: every number equals one computed the plain way, under a name that says what it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pixmim_eval.corruptions import corrupt, resolve_names
from pixmim_eval.corruptions.frost import frost_source
from pixmim_eval.data import open_manifest
from pixmim_eval.data.imagenet import imagenet_space
from pixmim_eval.errors import InputError
from pixmim_eval.extract import passes
from pixmim_eval.metrics.corruption_error import ALEXNET_ERRORS
from pixmim_eval.metrics.intervals import wilson
from pixmim_eval.suites import SUITES, compute_key, load_suite
from pixmim_eval.suites.robustness import VARIANTS, Robustness, list_cells
from pixmim_eval.suites.roles import open_data
from pixmim_eval.suites.scoring import label_space_of
from pixmim_eval.types import LabelSpace, Manifest, Model, Outcome, ResultRow, SuiteConfig
from tests.fakes import COLOURS, ArraySource, make_manifest, make_model

SUITE = Robustness()
CHOSEN = ("gaussian_noise", "impulse_noise", "brightness", "contrast")
WIDE = LabelSpace("names-5", ("amber", *COLOURS.classes, "white"))


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PIXMIM_CACHE", str(tmp_path / "cache"))
    passes._kept.clear()
    yield
    passes._kept.clear()


def make_config(**changes: object) -> SuiteConfig:
    data = {"val": make_manifest(), "sketch": make_manifest(18, seed=3, name="drawings")}
    fields: dict[str, object] = {"data": data, "workers": 0, "batch_size": 8, "run": "demo", "corruptions": CHOSEN}
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


def find(outcome: Outcome, metric: str = "top1") -> ResultRow:
    (row,) = (row for row in outcome.rows if row.metric == metric)
    return row


def test_the_conditions_are_clean_all_cells_the_variants_there_are_and_the_summary() -> None:
    conditions = SUITE.conditions(make_config(corruptions=()))
    assert conditions[0] == "clean" and conditions[-2:] == ["sketch", "summary"]
    assert len(conditions) == len(set(conditions)) == 1 + 75 + 2
    assert "gaussian_noise/1" in conditions and "jpeg_compression/5" in conditions
    assert list(list_cells(make_config(corruptions=("fog",)))) == [f"fog/{severity}" for severity in range(1, 6)]


@pytest.mark.parametrize("condition", ["clean", "gaussian_noise/4", "contrast/2", "sketch"])
def test_accuracy_is_that_of_the_images_one_by_one(condition: str) -> None:
    model, config = make_model(), make_config()
    outcome = SUITE.run(model, condition, config)
    row = find(outcome)
    manifest = config.data.get(condition, config.data["val"])
    hits = find_hits(model, manifest, COLOURS.classes, list_cells(config).get(condition))
    expected = wilson(int(hits.sum()), len(hits))
    assert (row.value, row.low, row.high, row.n) == (expected.value, expected.low, expected.high, expected.n)
    assert (row.metric, row.condition, row.suite) == ("top1", condition, "robustness")
    assert (row.dataset, row.dataset_digest) == (manifest.name, manifest.digest)
    assert [row.metric for row in outcome.rows] == ["top1", "ece"]
    np.testing.assert_array_equal(outcome.hits["top1"], hits)
    assert list(outcome.hits) == ["top1"] and outcome.hits["top1"].dtype == np.int8


def find_errors(model: Model, config: SuiteConfig) -> dict[str, np.ndarray]:
    """For each corruption the share of its severities at which an image is misclassified."""
    return {
        name: 1
        - np.mean(
            [find_hits(model, config.data["val"], COLOURS.classes, (name, severity)) for severity in range(1, 6)],
            axis=0,
        )
        for name in config.corruptions
    }


def test_the_summary_has_the_mean_errors_over_all_cells_and_over_groups() -> None:
    model, config = make_model(), make_config()
    rows = {row.metric: row for row in SUITE.run(model, "summary", config).rows}
    errors = find_errors(model, config)
    assert set(rows) == {"mean_error_4"}  # no group is whole: a part of one has no mean of the group's name
    each = np.mean(list(errors.values()), axis=0)
    half = 2.0452296 * each.std(ddof=1) / np.sqrt(30)  # Student's t, 29 degrees of freedom
    row = rows["mean_error_4"]
    assert row.value == pytest.approx(each.mean(), abs=1e-12) and row.condition == "summary" and row.n == 30
    assert (row.low, row.high) == (pytest.approx(each.mean() - half), pytest.approx(min(1, each.mean() + half)))


def test_a_whole_group_has_its_mean() -> None:
    model, config = make_model(), make_config(corruptions=("gaussian_noise", "shot_noise", "impulse_noise", "contrast"))
    rows = {row.metric: row.value for row in SUITE.run(model, "summary", config).rows}
    errors = find_errors(model, config)
    assert set(rows) == {"mean_error_4", "mean_error_noise"}
    assert rows["mean_error_noise"] == pytest.approx(np.mean([errors[name].mean() for name in config.corruptions[:3]]))


def test_all_fifteen_have_the_published_name_and_nineteen_have_both() -> None:
    model, manifest = make_model(), make_manifest(6)
    summary = SUITE.run(model, "summary", make_config(data={"val": manifest}, corruptions=())).rows
    groups = {f"mean_error_{group}" for group in ("noise", "blur", "weather", "digital")}
    assert {row.metric for row in summary} == {"mean_error_15", *groups}  # no mCE: AlexNet never saw these classes
    config = make_config(data={"val": manifest}, corruptions=resolve_names(["all"]))
    more = {row.metric: row.value for row in SUITE.run(model, "summary", config).rows}
    assert set(more) == {"mean_error_15", "mean_error_19", *groups, "mean_error_extra"}
    assert more["mean_error_19"] == pytest.approx((15 * more["mean_error_15"] + 4 * more["mean_error_extra"]) / 19)


def test_models_with_the_classes_of_imagenet_have_mce_relative_to_alexnet() -> None:
    space = imagenet_space()
    colours = dict(zip(COLOURS.classes, (5, 77, 999), strict=True))
    model, base = make_model(space=space), make_manifest(12)
    labels = np.array([colours[COLOURS.classes[label]] for label in base.labels])
    config = make_config(data={"val": replace(base, labels=labels, label_space=space)}, corruptions=())
    rows = {row.metric: row for row in SUITE.run(model, "summary", config).rows}
    errors = {
        name: 1 - np.mean([find(SUITE.run(model, f"{name}/{severity}", config)).value for severity in range(1, 6)])
        for name in ALEXNET_ERRORS
    }
    expected = np.mean([errors[name] / alexnet for name, alexnet in ALEXNET_ERRORS.items()])
    assert rows["mce_15"].value == pytest.approx(expected) and rows["mce_15"].unit == "ratio"
    assert "relative_mce_15" in rows
    part = {row.metric for row in SUITE.run(model, "summary", replace(config, corruptions=CHOSEN)).rows}
    assert part == {"mean_error_4"}


def test_a_model_of_more_classes_is_scored_on_all_and_on_those_of_the_data() -> None:
    model, config = make_model(seed=14, space=WIDE), make_config()
    rows = {row.metric: row for row in SUITE.run(model, "brightness/3", config).rows}
    assert set(rows) == {"top1_full5", "top1_masked3", "ece_full5", "ece_masked3"}
    full = find_hits(model, config.data["val"], WIDE.classes, ("brightness", 3))
    masked = find_hits(model, config.data["val"], COLOURS.classes, ("brightness", 3))
    assert rows["top1_full5"].value == full.mean() and rows["top1_masked3"].value == masked.mean()
    assert full.mean() < masked.mean()
    assert "label_space=names-3-of-names-5" in rows["top1_full5"].protocol
    summary = {row.metric: row.value for row in SUITE.run(model, "summary", config).rows}
    assert set(summary) == {"mean_error_4_full5", "mean_error_4_masked3"}
    assert summary["mean_error_4_full5"] > summary["mean_error_4_masked3"]


def test_a_variant_of_fewer_classes_stands_beside_the_clean_images_of_those() -> None:
    two = LabelSpace("names-2", ("green", "red"))
    variant = make_manifest(18, seed=3, space=COLOURS, name="drawings")
    kept = variant.labels > 0
    source = ArraySource(variant.source.images[kept])  # type: ignore[attr-defined]
    part = replace(variant, keys=variant.keys[kept], labels=variant.labels[kept] - 1, label_space=two, source=source)
    model, config = make_model(seed=14), make_config()
    config.data["imagenet-r"] = part
    rows = {row.metric: row for row in SUITE.run(model, "imagenet-r", config).rows}
    clean = config.data["val"]
    shared = clean.labels > 0
    for metric, classes in (("top1_full3", COLOURS.classes), ("top1_masked2", two.classes)):
        assert rows[metric].value == find_hits(model, part, classes).mean()
        assert rows[f"clean_{metric}"].value == find_hits(model, clean, classes)[shared].mean()
        assert (rows[metric].n, rows[f"clean_{metric}"].n) == (12, 20)
    assert not any(row.metric.startswith("clean") for row in SUITE.run(model, "sketch", config).rows)


@pytest.fixture
def files() -> SuiteConfig:
    """Corrupted images from files: generated ones, written and read without loss."""
    config = make_config()
    data = {"val": config.data["val"]}
    for cell, (name, severity) in list_cells(config).items():
        images = torch.from_numpy(data["val"].source.images).permute(0, 3, 1, 2)  # type: ignore[attr-defined]
        changed = corrupt(images, name, severity, seed=0, index=torch.arange(30), parameters="cifar-c")
        source = ArraySource(changed.permute(0, 2, 3, 1).numpy())
        data[f"imagenet-c/{cell}"] = replace(data["val"], name=f"stored-{name}", digest=f"{cell:>16}", source=source)
    return replace(config, data=data)


def test_images_from_files_give_the_numbers_of_generated_ones_and_never_pass_for_them(files: SuiteConfig) -> None:
    model = make_model()
    for condition in ("clean", "gaussian_noise/2", "summary"):
        generated = SUITE.run(model, condition, make_config()).rows
        stored = SUITE.run(model, condition, files).rows
        assert [(row.metric, row.value, row.low) for row in stored] == [
            (row.metric, row.value, row.low) for row in generated
        ]
    assert "source=files" in stored[0].protocol and "source=generated" in generated[0].protocol
    assert "parameters" not in stored[0].protocol and "stored" not in stored[0].protocol
    assert find(SUITE.run(model, "brightness/1", files)).dataset == "stored-brightness"
    keys = {compute_key(SUITE, model, "contrast/1", config) for config in (files, make_config())}
    assert len(keys) == 2
    other = replace(files, data={**files.data, "imagenet-c/contrast/1": files.data["imagenet-c/contrast/2"]})
    assert compute_key(SUITE, model, "contrast/1", other) not in keys
    assert compute_key(SUITE, model, "summary", other) != compute_key(SUITE, model, "summary", files)


def test_labels_are_matched_by_name_and_not_by_number() -> None:
    shuffled = LabelSpace("names-3", ("red", "blue", "green"))
    model = make_model(space=shuffled)
    config = make_config()
    assert find(SUITE.run(model, "clean", config)).value == find_hits(model, config.data["val"], COLOURS.classes).mean()


def test_classes_that_the_model_does_not_know_are_named() -> None:
    model = make_model(space=LabelSpace("names-2", ("blue", "violet")))
    with pytest.raises(InputError, match="green, red"):
        SUITE.run(model, "clean", make_config())


def test_scores_need_a_label_space() -> None:
    with pytest.raises(ValueError, match="label space"):
        label_space_of(make_model(space=None))


def test_an_encoder_gets_a_head_and_the_row_says_so() -> None:
    config = make_config()
    config.data["train"] = make_manifest(120, seed=5)
    row = find(SUITE.run(make_model(space=None), "clean", config))
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
    clean = find(SUITE.run(model, "clean", config)).protocol
    assert clean == "head=own;label_space=names-3;pooling=own;precision=float32;source=files;transform=ready-16"
    noisy = find(SUITE.run(model, "gaussian_noise/1", config)).protocol
    assert noisy == (
        "head=own;label_space=names-3;parameters=cifar-c;pooling=own;precision=float32;source=generated;"
        "stored=lossless;transform=ready-16"
    )
    assert SUITE.run(model, "summary", config).rows[0].protocol == noisy
    large = replace(model, preprocessing=replace(model.preprocessing, size=224, resize=256))
    described = find(SUITE.run(large, "contrast/1", config)).protocol
    assert "parameters=imagenet-c" in described and "transform=pil-bicubic-16-to-224" in described
    assert "stored=jpeg-85" in described
    plain = find(SUITE.run(large, "contrast/1", replace(config, jpeg_step=False))).protocol
    assert plain == described.replace("jpeg-85", "lossless")


def test_the_protocol_says_whose_frost_it_is() -> None:
    config = make_config(corruptions=("contrast", "frost"))
    rows = [SUITE.run(make_model(), condition, config).rows[0] for condition in ("contrast/1", "frost/1", "summary")]
    assert len({row.protocol for row in rows}) == 1 and f"frost={frost_source()};" in rows[0].protocol
    assert "frost" not in find(SUITE.run(make_model(), "clean", config)).protocol


def test_skipped_images_are_on_every_row() -> None:
    config = make_config(data={"val": make_manifest(bad=(4, 7))}, on_bad_image="skip")
    for condition in ("clean", "contrast/1", "summary"):
        outcome = SUITE.run(make_model(), condition, config)
        assert {(row.n, row.skipped) for row in outcome.rows} == {(28, 2)}
    hits = SUITE.run(make_model(), "clean", config).hits["top1"]
    assert np.flatnonzero(hits == -1).tolist() == [4, 7] and len(hits) == 30


def test_a_limited_run_says_so() -> None:
    row = find(SUITE.run(make_model(), "clean", make_config(limit=9)))
    assert (row.n, row.subset) == (9, "spread-9")


def test_the_work_is_counted_once_for_all_that_share_it() -> None:
    config = make_config()
    config.data["train"] = make_manifest(120, seed=5)
    encoder = make_model(space=None)
    assert SUITE.count_images(encoder, "sketch", config) == {"sketch": 18, "clean": 30, "train": 120}
    passes_of_all = {}
    for condition in SUITE.conditions(config):
        passes_of_all |= SUITE.count_images(encoder, condition, config)
    assert sum(passes_of_all.values()) == 30 + 20 * 30 + 18 + 120
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
        compute_key(SUITE, make_model(space=None, epoch=6), "clean", config),  # rows say the epoch
        compute_key(SUITE, make_model(space=None, method="pixmim-mae"), "clean", config),
        compute_key(SUITE, model, "clean", config),
        compute_key(SUITE, encoder, "clean", replace(config, limit=5)),
        compute_key(SUITE, encoder, "clean", replace(config, seed=1)),
        compute_key(SUITE, encoder, "clean", replace(config, on_bad_image="skip")),
        compute_key(SUITE, encoder, "clean", replace(config, device="cuda")),
        compute_key(SUITE, encoder, "clean", replace(config, data=other_train)),
        compute_key(SUITE, encoder, "clean", replace(config, data=other_val)),
        compute_key(newer, encoder, "clean", config),
        compute_key(SUITE, encoder, "contrast/1", replace(config, jpeg_step=False)),
        compute_key(SUITE, encoder, "summary", config),
        compute_key(SUITE, encoder, "summary", replace(config, corruptions=CHOSEN[:2])),
    ]
    assert len({base, *different}) == len(different) + 1
    same = replace(config, batch_size=1, workers=3, run="elsewhere", data=other_sketch)
    assert compute_key(SUITE, encoder, "clean", same) == base
    assert compute_key(SUITE, make_model(space=None, name="twin"), "clean", config) == base
    assert compute_key(SUITE, encoder, "clean", replace(config, jpeg_step=False, corruptions=())) == base
    assert compute_key(SUITE, model, "clean", replace(config, data=other_train)) == compute_key(
        SUITE, model, "clean", config
    )


def test_the_catalogue_finds_suites_and_names_close_ones() -> None:
    assert isinstance(load_suite("robustness"), Robustness)
    with pytest.raises(InputError, match="Did you mean robustness"):
        load_suite("robustnes")
    assert all(load_suite(name).name == name for name in SUITES)


def test_without_data_the_built_in_set_plays_every_role() -> None:
    data = open_data([], SUITE, with_train=True, corruptions=())
    assert {role: manifest.name for role, manifest in data.items()} == {
        role: f"shapes16-{role}" for role in ("val", "train", "cue-conflict", "sketch", "rendition", "hard")
    }
    small = open_data(["builtin:shapes16@32"], SUITE, with_train=True, corruptions=())
    assert {manifest.ready_size for manifest in small.values()} == {32} and set(small) == set(data)
    one = open_data(["builtin:shapes16:val@32"], SUITE, with_train=True, corruptions=())
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
    data = open_data([str(tmp_path / "set")], SUITE, with_train=True, corruptions=())
    assert {role: len(manifest) for role, manifest in data.items()} == {"val": 6, "train": 9}
    assert set(open_data([str(tmp_path / "set")], SUITE, with_train=False, corruptions=())) == {"val"}
    assert set(open_data([str(tmp_path / "set" / "val")], SUITE, with_train=True, corruptions=())) == {"val"}


def test_a_named_role_goes_before_an_implied_one(tmp_path: Path) -> None:
    drawings = write_images(tmp_path / "drawings")
    data = open_data([f"sketch={drawings}", "builtin:shapes16@16"], SUITE, with_train=True, corruptions=())
    assert data["sketch"].name == "drawings" and data["hard"].name == "shapes16-hard"
    declared = open_data([f"val={drawings}@16"], SUITE, with_train=False, corruptions=())
    assert declared["val"].ready_size == 16


def test_a_variant_may_be_a_folder_with_parts(tmp_path: Path) -> None:
    write_images(tmp_path / "set" / "train", 3)
    write_images(tmp_path / "set" / "val", 2)
    data = open_data(
        [f"rendition={tmp_path / 'set'}", "val=builtin:shapes16@16"], SUITE, with_train=False, corruptions=()
    )
    assert len(data["rendition"]) == 6


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
        open_data(texts, SUITE, with_train=True, corruptions=())


def test_the_variants_of_the_built_in_set_are_roles() -> None:
    assert {"cue-conflict", "sketch", "rendition", "hard"} <= set(VARIANTS) <= set(Robustness.accepts)
    assert open_manifest("builtin:shapes16", role="hard").name == "shapes16-hard"
