"""The suite detection: pycocotools' numbers on its own files, exact resume, one or two processes, and bad input."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pixmim_eval import training
from pixmim_eval.data.coco import open_detection
from pixmim_eval.errors import InputError
from pixmim_eval.metrics.detection import score_detections
from pixmim_eval.results import RunFolder
from pixmim_eval.suites import compute_key, load_suite
from pixmim_eval.suites.detection import Detection, choose_recipe, open_train
from pixmim_eval.suites.roles import DEFAULT_DATA, _assign_roles
from pixmim_eval.transfer.detection.recipes import RECIPES, DetectionOptions, resolve_recipe
from pixmim_eval.transfer.detection.task import _build_settings, list_rows, train_detector
from pixmim_eval.types import ResultRow, SuiteConfig
from tests.transfer.encoders import make_convvit, make_timm, make_vit
from tests.transfer.processes import run_in_two_processes

TINY: dict[str, Any] = {
    "iterations": 4,
    "train_batch_size": 4,
    "channels": 8,
    "box_width": 16,
    "proposals": 30,
    "roi_samples": 16,
    "least_score": 0.0,
    "drop_path": 0.3,
    "warmup_iterations": 1,
    "window": 2,
}
Measured = tuple[SuiteConfig, dict[str, ResultRow]]
COLOURS = ((200, 40, 40), (40, 200, 40), (60, 60, 220))


def write_set(folder: Path, part: str, images: int, seed: int, crowd: bool = True) -> Path:
    """COCO's layout with bright rectangles of three classes, of which the last is in no image, and a crowd."""
    random = np.random.default_rng(seed)
    (folder / "images" / part).mkdir(parents=True)
    (folder / "annotations").mkdir(exist_ok=True)
    content: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 10 * (number + 1), "name": name} for number, name in enumerate(("a", "b", "c"))],
    }
    for number in range(images):
        height, width = 24 + 4 * (number % 3), 32
        pixels = random.integers(0, 60, (height, width, 3), dtype=np.uint8)
        for _ in range(1 + number % 2):
            label = int(random.integers(0, 2))
            wide, high = (int(side) for side in random.integers(8, 16, 2))
            left, top = int(random.integers(0, width - wide)), int(random.integers(0, height - high))
            pixels[top : top + high, left : left + wide] = COLOURS[label]
            outline = [[left, top, left + wide, top, left + wide, top + high, left, top + high]]
            entry = {"id": len(content["annotations"]), "image_id": number, "category_id": 10 * (label + 1)}
            is_crowd = int(crowd and number == 2)
            entry |= {"bbox": [left, top, wide, high], "area": wide * high, "iscrowd": is_crowd}
            if is_crowd:
                entry["segmentation"] = {"size": [height, width], "counts": [0, height * width]}
            else:
                entry["segmentation"] = outline
            content["annotations"].append(entry)
        Image.fromarray(pixels).save(folder / "images" / part / f"{number}.png")
        content["images"].append({"id": number, "file_name": f"{number}.png", "height": height, "width": width})
    file = folder / "annotations" / f"instances_{part}.json"
    file.write_text(json.dumps(content))
    return file


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("set")
    return {"val": write_set(folder, "val", 6, 1), "train": write_set(folder, "train", 8, 2)}


@contextlib.contextmanager
def configure(files: dict[str, Path], folder: Path) -> Iterator[SuiteConfig]:
    opened = {role: open_detection(str(file)) for role, file in files.items()}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIXMIM_CACHE", str(folder / "cache"))
        patch.setattr("pixmim_eval.suites.detection.score_detections", partial(score_detections, groups=5))
        yield SuiteConfig({}, files=opened, options=DetectionOptions(**TINY), out=folder / "run", workers=0)
    torch.set_num_threads(threads)


@pytest.fixture
def config(files: dict[str, Path], tmp_path: Path) -> Iterator[SuiteConfig]:
    with configure(files, tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def measured(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """A run that is at its end, for all tests that only look at one."""
    with configure(files, tmp_path_factory.mktemp("measured")) as made:
        return made, measure(made)


def measure(config: SuiteConfig, model: Any = None) -> dict[str, Any]:
    suite = load_suite("detection")
    (condition,) = suite.conditions(config)
    return {row.metric: row for row in suite.run(model or make_vit(32), condition, config).rows}


def test_rows_are_pycocotools_own_numbers_of_the_stored_detections(measured: Measured) -> None:
    config, rows = measured
    (file,) = (config.out / "detections").glob("[!t]*.json")
    (truth,) = (config.out / "detections").glob("truth-*.json")
    stored = json.loads(file.read_text())
    assert stored and any(entry["iscrowd"] for entry in json.loads(truth.read_text())["annotations"])
    for kind, prefix in (("bbox", "box_ap"), ("segm", "mask_ap")):
        own = [{key: value for key, value in one.items() if kind == "bbox" or key != "bbox"} for one in stored]
        with contextlib.redirect_stdout(io.StringIO()):
            known = COCO(str(truth))
            evaluation = COCOeval(known, known.loadRes(own), kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        names = ("", "50", "75", "_small", "_medium", "_large")
        for name, value in zip(names, evaluation.stats[:6], strict=True):
            assert (rows[prefix + name].value if prefix + name in rows else -1) == value
    assert {"box_ap/a", "box_ap/b", "mask_ap/a"} <= rows.keys() and "box_ap/c" not in rows
    row = rows["box_ap"]
    assert "absent_classes=1" in row.protocol and "train=7" in row.protocol  # the crowd is nothing to train on
    assert "=auto" not in row.protocol  # but what it was for this encoder on this device
    assert row.n == 6 and row.dataset == "instances_val" and row.low <= row.value <= row.high


def test_a_second_run_trains_and_looks_at_nothing(measured: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    config, first = measured
    monkeypatch.setenv("PIXMIM_CACHE", str(config.out.parent / "cache"))
    monkeypatch.setattr(training._Loop, "_run_step", None)
    monkeypatch.setattr("pixmim_eval.transfer.detection.network.MaskRCNN.detect", None)
    assert {name: row.value for name, row in measure(config).items()} == {n: r.value for n, r in first.items()}


class KilledError(Exception):
    """What a kill looks like from inside."""


def read_weights(config: SuiteConfig) -> dict[str, torch.Tensor]:
    (file,) = (config.out / "training").glob("*/state.pt")
    return torch.load(file, weights_only=True)["module"]


def fit(config: SuiteConfig) -> dict[str, torch.Tensor]:
    """The trained weights, without a look at val."""
    model, train = make_vit(32), config.files["train"]
    rows = list_rows(train, np.arange(len(train)))  # type: ignore[arg-type]
    network, _ = train_detector(model, train, rows, config, choose_recipe(model, config))  # type: ignore[arg-type]
    return network.state_dict()


def test_a_killed_run_ends_with_the_weights_of_an_unbroken_one(
    config: SuiteConfig, measured: Measured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    expected = read_weights(measured[0])
    step = training._Loop._run_step

    def run_step(loop: Any, *arguments: Any) -> float:
        if loop.step == 2:
            loop._save_state()
            raise KilledError
        return step(loop, *arguments)

    broken = replace(config, out=tmp_path / "broken")
    monkeypatch.setattr(training._Loop, "_run_step", run_step)
    with pytest.raises(KilledError):
        fit(broken)
    monkeypatch.setattr(training._Loop, "_run_step", step)
    assert all(torch.equal(value, expected[name]) for name, value in fit(broken).items())


def test_accumulation_changes_no_result(config: SuiteConfig, measured: Measured, tmp_path: Path) -> None:
    parts = replace(config, options=DetectionOptions(**TINY, accumulate=2), out=tmp_path / "parts")
    key = compute_key(Detection(), make_vit(32), "mask-rcnn", config)
    assert compute_key(Detection(), make_vit(32), "mask-rcnn", parts) == key
    expected = read_weights(measured[0])
    for name, value in fit(parts).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=2e-5)


def test_two_processes_give_the_rows_of_one(config: SuiteConfig, measured: Measured, tmp_path: Path) -> None:
    together = replace(config, out=tmp_path / "two")

    def work(rank: int) -> None:
        suite = Detection()
        outcome = suite.run(make_vit(32), suite.conditions(together)[0], together)
        if rank == 0:
            RunFolder(together.out).write("two", outcome)

    run_in_two_processes(work)
    two = {row.metric: row for row in RunFolder(together.out).read()}
    one, expected = measured[1], read_weights(measured[0])
    for name, value in read_weights(together).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=2e-5)
    assert two.keys() == one.keys()
    assert {(name, row.value, row.low, row.high, row.n, row.protocol) for name, row in two.items()} == {
        (name, row.value, row.low, row.high, row.n, row.protocol) for name, row in one.items()
    }


def test_a_convvit_is_measured_on_its_own_stages(config: SuiteConfig) -> None:
    rows = measure(config, make_convvit(32))
    assert "pyramid=stages" in rows["box_ap"].protocol and "mask_ap50" in rows


def test_pictures_show_truth_and_detections(config: SuiteConfig, measured: Measured, tmp_path: Path) -> None:
    suite, model = Detection(), make_vit(32)
    assert suite.draw([model], config, tmp_path) == []  # not trained yet, and nothing is trained for a picture
    written = suite.draw([model], measured[0], tmp_path)
    assert [path.name for path in written] == ["detection.png", "detection.pdf"]
    before = [path.read_bytes() for path in written]
    assert [path.read_bytes() for path in suite.draw([model], measured[0], tmp_path)] == before


def test_what_is_wrong_is_said_and_classes_without_an_object_are_named(
    config: SuiteConfig, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="pixmim_eval"):
        Detection().conditions(config)
    assert "classes without an object" in caplog.text and "left out of every average: c" in caplog.text


def test_sets_that_do_not_fit_are_errors(config: SuiteConfig, tmp_path: Path) -> None:
    val = config.files["val"]
    with pytest.raises(InputError, match="the same data set"):
        Detection().conditions(replace(config, files={"val": val, "train": val}))
    other = replace(config.files["train"], classes=("a", "b", "d"))  # type: ignore[type-var]
    with pytest.raises(InputError, match="c, d"):
        Detection().conditions(replace(config, files={"val": val, "train": other}))
    boxes = replace(config.files["train"], with_masks=False)  # type: ignore[type-var]
    with pytest.raises(InputError, match="none in instances_train"):
        Detection().conditions(replace(config, files={"val": val, "train": boxes}))
    crowd = replace(val, crowd=np.ones_like(val.crowd))  # type: ignore[attr-defined,type-var]
    with pytest.raises(InputError, match="not a crowd"):
        Detection().conditions(replace(config, files={"val": crowd, "train": config.files["train"]}))


def test_models_and_recipes_that_do_not_fit_are_errors(config: SuiteConfig) -> None:
    with pytest.raises(InputError, match="a ViT or ConvViT"):
        measure(config, make_timm("test_vit", size=32, img_size=32))
    for wrong in (
        {"image_size": 24},
        {"global_blocks": (3,)},
        {"drop_path": 1.0},
        {"learning_rate": 0.0},
        {"weight_decay": math.nan},
        {"most_scale": 0.05, "least_scale": 0.1},
        {"train_batch_size": 3, "accumulate": 2},
    ):
        with pytest.raises(InputError, match=next(iter(wrong)).replace("train_", "").replace("_", ".")):
            measure(replace(config, options=DetectionOptions(**TINY | wrong)))


def test_bad_images_are_skipped_and_counted(files: dict[str, Path], config: SuiteConfig, tmp_path: Path) -> None:
    val = open_detection(str(write_set(tmp_path, "val", 5, 3, crowd=False)))
    (tmp_path / "images" / "val" / "3.png").write_bytes(b"no image")
    broken = replace(config, files=config.files | {"val": val}, on_bad_image="skip")
    rows = measure(broken)
    assert rows["box_ap"].skipped == 1 and rows["box_ap"].n == 4
    with pytest.raises(InputError, match=r"3\.png"):
        measure(replace(broken, on_bad_image="stop"))


def test_the_built_in_set_plays_both_roles(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("pixmim_eval.suites.detection.open_detection", opened.append)
    for path in ("builtin:shapes16", "builtin:shapes16@32", "builtin:shapes16:hard@32", "instances.json"):
        open_train(path)
    expected = ["builtin:shapes16:train", "builtin:shapes16:train@32", "builtin:shapes16:hard@32", "instances.json"]
    assert opened == expected
    assert _assign_roles([], Detection(), False) == {"val": DEFAULT_DATA, "train": DEFAULT_DATA}


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [  # analysis of the public configurations, as in the project's table of settings
        ("vitdet-b", "iterations", 184_375),
        ("vitdet-b", "train_batch_size", 64),
        ("vitdet-b", "learning_rate", 1e-4),
        ("vitdet-b", "weight_decay", 0.1),
        ("vitdet-b", "layer_decay", 0.7),
        ("vitdet-b", "drop_path", 0.1),
        ("vitdet-b", "warmup_iterations", 250),
        ("vitdet-b", "window", 14),
        ("vitdet-b", "global_blocks", (2, 5, 8, 11)),
        ("vitdet-b", "image_size", 1024),
        ("vitdet-b", "least_scale", 0.1),
        ("vitdet-b", "most_scale", 2.0),
        ("convmae-b", "iterations", 92_187),
        ("convmae-b", "train_batch_size", 32),
        ("convmae-b", "learning_rate", 8e-5),
        ("convmae-b", "schedule", "cosine"),
        ("convmae-vitdet-b", "layer_decay", 0.8),
        ("convmae-vitdet-b", "train_batch_size", 16),
    ],
)
def test_published_recipes_are_the_published_settings(name: str, field: str, value: object) -> None:
    recipe = resolve_recipe(DetectionOptions(recipe=name), size=224, patch=16, depth=12)
    assert getattr(recipe, field) == value


def test_the_published_rate_falls_where_it_fell() -> None:
    settings = _build_settings(RECIPES["vitdet-b"], 0)
    rates = {
        step: training.schedule_learning_rate(settings, step / 184_375)
        for step in (125, 250, 163_888, 163_889, 177_546, 177_547, 184_374)
    }
    expected = {125: 5e-5, 250: 1e-4, 163_888: 1e-4, 163_889: 1e-5, 177_546: 1e-5, 177_547: 1e-6, 184_374: 1e-6}
    assert rates == pytest.approx(expected)
    own = resolve_recipe(DetectionOptions(recipe="convmae-vitdet-b"), size=224, patch=16, depth=11)
    assert own.global_blocks == (1, 4, 7, 10)
