"""The segmentation suite: every number equals one computed the plain way, on any number of processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from pixmim_eval.arguments import parse_suite
from pixmim_eval.data.segmentation import IGNORED, SegmentationSet, open_segmentation
from pixmim_eval.errors import InputError
from pixmim_eval.flags import read_flags
from pixmim_eval.metrics.segmentation import count_confusion, score_segmentation, tally
from pixmim_eval.models.catalog import load_models
from pixmim_eval.models.vit import Architecture, VisionTransformer
from pixmim_eval.results import RunFolder
from pixmim_eval.suites import compute_key, load_suite
from pixmim_eval.suites.segmentation import Segmentation, SegmentationOptions, open_train, prepare, resolve_recipe
from pixmim_eval.transfer.segmentation import examples
from pixmim_eval.transfer.segmentation.token_heads import LinearTokens, NearestTokens, fit_tokens
from pixmim_eval.transfer.segmentation.tokens import gather_tokens
from pixmim_eval.transfer.segmentation.windows import Geometry
from pixmim_eval.types import Model, Outcome, Preprocessing, SuiteConfig
from tests.fakes import make_model
from tests.transfer.pixels import NAMES, make_set
from tests.transfer.processes import run_in_two_processes

SUITE = Segmentation()
TRAINING = {
    "iterations": 3,
    "train_batch_size": 4,
    "channels": 8,
    "auxiliary_channels": 4,
    "drop_path": 0.2,
    "dropout": 0.1,
    "precision": "fp32",
}


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PIXMIM_CACHE", str(tmp_path / "cache"))
    yield


def make_config(out: Path, *, bad: tuple[int, ...] = (), **changes: object) -> SuiteConfig:
    options = {name: changes.pop(name) for name in list(changes) if name in SegmentationOptions.__dataclass_fields__}
    fields: dict[str, object] = {
        "data": {},
        "files": {"val": make_set(9, seed=1, bad=bad, name="blocks-val"), "train": make_set(16, name="blocks-train")},
        "workers": 0,
        "out": out,
        "options": SegmentationOptions(**{"k": 3, "bank": 240, **options}),
    }
    return SuiteConfig(**{**fields, **changes})  # type: ignore[arg-type]


def make_vit() -> Model:
    torch.manual_seed(0)
    encoder = VisionTransformer(32, Architecture(patch=8, dim=24, depth=4, heads=3)).eval().requires_grad_(False)
    return Model("tiny", "0" * 16, encoder, Preprocessing(32, 32), method="mae", epoch=3)


MODEL = make_model(space=None, cls=False)


def read_values(outcome: Outcome) -> dict[str, tuple[float, float, float, int]]:
    return {row.metric: (row.value, row.low, row.high, row.n) for row in outcome.rows}


@pytest.mark.parametrize("condition", ["knn", "linear"])
def test_rows_are_scores_of_answers_at_the_size_of_the_masks(condition: str, tmp_path: Path) -> None:
    config = make_config(tmp_path)
    prepared = prepare(MODEL, condition, config)
    val, tallies = config.files["val"], []
    assert isinstance(val, SegmentationSet)
    for image, labels in zip(val.manifest.source.read(range(9)), val.labels.read(range(9)), strict=True):
        resized = np.array(Image.fromarray(image).resize((26, 16), Image.Resampling.BICUBIC))  # 24 x 40, short side 16
        mean, std = (torch.tensor(v)[:, None, None] for v in (MODEL.preprocessing.mean, MODEL.preprocessing.std))
        pixels = (torch.from_numpy(resized).permute(2, 0, 1) / 255 - mean) / std
        total, counts = torch.zeros(3, 16, 26), torch.zeros(16, 26)
        for left in (0, 10):
            with torch.inference_mode():
                total[:, :, left : left + 16] += prepared.score(pixels[None, :, :, left : left + 16])[0]
            counts[:, left : left + 16] += 1
        large = F.interpolate((total / counts)[None], size=(24, 40), mode="bilinear", align_corners=False)[0]
        tallies.append(tally(count_confusion(labels, large.argmax(dim=0).numpy(), 3)))
    wanted = score_segmentation(np.stack(tallies))
    outcome = SUITE.run(MODEL, condition, config)
    found = read_values(outcome)
    for name, estimate in (("miou", wanted.miou), ("macc", wanted.macc), ("aacc", wanted.aacc)):
        assert found[name] == pytest.approx((estimate.value, estimate.low, estimate.high, 9), abs=2e-3)
    assert {f"{kind}/{name}" for kind in ("iou", "accuracy") for name in NAMES} < set(found)
    assert outcome.rows[0].condition == condition and outcome.rows[0].dataset == "blocks-val"
    protocol = dict(pair.split("=", 1) for pair in outcome.rows[0].protocol.split(";"))
    assert protocol["transform"] == "pil-bicubic-short-side-16-slide-16-by-10"
    assert protocol["head"].startswith({"knn": "knn-patches(k=3", "linear": "logistic-lbfgs-patches(l2="}[condition])


@pytest.mark.parametrize("condition", ["knn", "linear"])
def test_colours_are_told_from_single_tokens(condition: str, tmp_path: Path) -> None:
    sets = {"val": make_set(6, height=16, width=16, seed=1), "train": make_set(30, height=16, width=16)}
    found = read_values(SUITE.run(MODEL, condition, make_config(tmp_path, files=sets)))
    assert found["miou"][0] > 0.8  # what is missing are the edges between patches, where scores are interpolated
    assert found["aacc"][0] > 0.9


@pytest.mark.parametrize("condition", ["knn", "linear", "upernet"])
def test_two_processes_give_the_rows_of_one(condition: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_vit()
    one = SUITE.run(model, condition, make_config(tmp_path / "one", **TRAINING))

    def work(rank: int) -> None:
        monkeypatch.setenv("PIXMIM_CACHE", str(tmp_path / "cache-of-two"))
        rows = SUITE.run(model, condition, make_config(tmp_path / "two", **TRAINING)).rows
        np.save(tmp_path / f"rank-{rank}.npy", [[row.value, row.low, row.high, row.n] for row in rows])

    run_in_two_processes(work)
    wanted = [[row.value, row.low, row.high, row.n] for row in one.rows]
    tolerance = 5e-3 if condition == "upernet" else 0  # sums of gradients are rounded in another order
    for rank in range(2):
        np.testing.assert_allclose(np.load(tmp_path / f"rank-{rank}.npy"), wanted, atol=tolerance, rtol=0)


def test_a_shipped_checkpoint_tells_shapes_far_above_chance(tmp_path: Path) -> None:
    """Chance is what the same heads make of the same tokens when those on objects have each other's classes: where
    objects are is still known, and which are where is not."""
    model = next(iter(load_models()))
    train, val = open_train("builtin:shapes16@64"), open_segmentation("builtin:shapes16:val@64")
    geometry, config = Geometry(64, 64, 42, "bicubic", 8), make_config(tmp_path, limit=600)
    bank = gather_tokens(model, train, geometry, config, count=19_200)
    objects = np.flatnonzero(bank.shares[:, 1:].sum(axis=1) > 0.5)
    shares = bank.shares.copy()
    shares[objects] = shares[np.random.default_rng(0).permutation(objects)]
    found: dict[tuple[str, str], float] = {}
    for name, known in (("true", bank), ("chance", replace(bank, shares=shares))):
        scorers = {
            "knn": NearestTokens(model.encoder, known, 30, 0.02, "cpu"),
            "linear": LinearTokens(model.encoder, fit_tokens(known, seed=0)),
        }
        for kind, score in scorers.items():
            tallies = [
                tally(
                    count_confusion(one.labels, examples.segment(one, score, geometry, model.preprocessing, "cpu"), 17)
                )
                for one in examples.read_examples(val, np.arange(0, 768, 8), geometry, config)
            ]
            right, true, _ = np.sum(tallies, axis=0)
            found[name, kind] = np.mean(right[1:] / true[1:])
    assert found["true", "knn"] > 5 * found["chance", "knn"]
    assert found["true", "linear"] > 2 * found["chance", "linear"]


def test_done_work_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config(tmp_path, **TRAINING)
    first = [read_values(SUITE.run(make_vit(), condition, config)) for condition in ("knn", "linear", "upernet")]
    monkeypatch.setattr(examples, "read_pairs", lambda *_: pytest.fail("an image was read"))
    monkeypatch.setattr(
        "pixmim_eval.transfer.segmentation.upernet.read_pairs", lambda *_: pytest.fail("an image was read")
    )
    again = [read_values(SUITE.run(make_vit(), condition, config)) for condition in ("knn", "linear", "upernet")]
    assert first == again


def test_keys_know_the_settings_of_their_protocol_alone(tmp_path: Path) -> None:
    model = make_vit()

    def key(condition: str, **changes: object) -> str:
        return compute_key(SUITE, model, condition, make_config(tmp_path, **changes))

    assert key("knn") != key("knn", k=4) and key("linear") == key("linear", k=4)
    assert key("upernet") != key("upernet", channels=9) and key("knn") == key("knn", channels=9)
    assert key("linear") != key("linear", bank=100)


def test_images_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="damage"):
        SUITE.run(MODEL, "knn", make_config(tmp_path, bad=(2, 5)))
    outcome = SUITE.run(MODEL, "knn", make_config(tmp_path, bad=(2, 5), on_bad_image="skip"))
    assert (outcome.rows[0].skipped, outcome.rows[0].n) == (2, 7)


def write_pairs(root: Path, split: str, count: int, seed: int) -> None:
    """Images and masks of blocks, 1 to 3 for the classes, in ADE20K's layout."""
    data = make_set(count, seed=seed)
    for folder, values in (
        ("images", data.manifest.source.read(range(count))),
        ("annotations", data.labels.read(range(count))),
    ):
        (root / folder / split).mkdir(parents=True)
        for row, array in enumerate(values):
            Image.fromarray(array + (folder != "images")).save(root / folder / split / f"{row}.png")


def test_masks_that_do_not_fit_are_named_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for split, seed in (("training", 0), ("validation", 1)):
        write_pairs(tmp_path / "ade", split, 8, seed)
    masks = tmp_path / "ade" / "annotations" / "validation"
    (tmp_path / "ade" / "classes.csv").write_text("value,name\n1,blue\n2,green\n3,red\n")
    Image.fromarray(np.ones((5, 5), np.uint8)).save(masks / "0.png")
    Image.fromarray(np.full((24, 40), 99, np.uint8)).save(masks / "1.png")
    strange = np.array(Image.open(masks / "2.png"))
    strange[0, 0] = 77
    Image.fromarray(strange).save(masks / "2.png")
    images = tmp_path / "ade" / "images"
    files = {"val": open_segmentation(str(images / "validation")), "train": open_segmentation(str(images / "training"))}
    config = make_config(tmp_path, files=files)
    assert SUITE.conditions(config) == ["knn", "linear"]
    for named in ("another size than their image", "without a pixel of any class", "2 masks with values outside"):
        assert named in caplog.text
    row = SUITE.run(MODEL, "knn", config).rows[0]
    assert (row.skipped, row.n) == (2, 6)


def test_training_on_what_is_scored_and_other_classes_are_errors(tmp_path: Path) -> None:
    val = make_set(4)
    with pytest.raises(InputError, match="the same data set blocks for both"):
        SUITE.conditions(make_config(tmp_path, files={"val": val, "train": val}))
    train = replace(make_set(4, seed=2), classes=("blue", "green", "black"))
    with pytest.raises(InputError, match="3 classes in val, 3 in train"):
        SUITE.conditions(make_config(tmp_path, files={"val": val, "train": train}))


def test_masks_without_a_label_are_no_score(tmp_path: Path) -> None:
    val = make_set(2, height=8, width=8, hidden=True)
    with pytest.raises(InputError, match="no labelled pixel"):
        SUITE.run(MODEL, "knn", make_config(tmp_path, files={"val": val, "train": make_set(5)}))


def test_scores_that_are_not_finite_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config(tmp_path)
    prepare(MODEL, "knn", config)
    monkeypatch.setattr(NearestTokens, "__call__", lambda _, images: images[:, :3] * torch.nan)
    with pytest.raises(FloatingPointError, match=r"scores are not finite in image-0"):
        SUITE.run(MODEL, "knn", config)


def test_the_command_line_names_protocols_and_every_setting() -> None:
    words = ["--suite", "segmentation", "--protocol", "knn", "upernet", "--iterations", "7", "--no-distort", "--k", "5"]
    options = SegmentationOptions(**read_flags(parse_suite(words, lambda _: SegmentationOptions), SegmentationOptions))
    assert options.protocol == ("knn", "upernet") and options.k == 5
    recipe = resolve_recipe(make_vit(), SuiteConfig(data={}, options=options))
    assert recipe.precision in ("fp32", "bf16")  # as rows say, which "auto" would not
    assert (recipe.iterations, recipe.distort, recipe.channels, recipe.crop) == (7, False, 96, 32)
    assert isinstance(load_suite("segmentation"), Segmentation)


def test_the_built_in_data_set_is_train_and_val() -> None:
    assert open_train("builtin:shapes16@32").name == "shapes16-train"
    assert open_train("builtin:shapes16:hard@32").name == "shapes16-hard"


def test_overlays_show_image_truth_and_every_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config(tmp_path, protocol=("knn", "upernet"), limit=2, **TRAINING)
    model = make_vit()
    SUITE.run(model, "knn", config)
    partly = SUITE.draw([model], config, tmp_path / "figures")  # UperNet is not trained yet: it is left out
    assert [path.name for path in partly] == ["segmentation.png", "segmentation.pdf"]
    before, narrow = [path.read_bytes() for path in partly], Image.open(partly[0]).width
    assert [path.read_bytes() for path in SUITE.draw([model], config, tmp_path / "figures")] == before
    SUITE.run(model, "upernet", config)
    assert Image.open(SUITE.draw([model], config, tmp_path / "figures")[0]).width > narrow
    RunFolder(tmp_path).write(compute_key(SUITE, model, "knn", config), SUITE.run(model, "knn", config))
    monkeypatch.setattr("pixmim_eval.transfer.pictures.ANSWERS", 1)
    parts = SUITE.draw([model], config, tmp_path / "figures")
    pictures = [f"segmentation-part-{part}.{end}" for part in (1, 2) for end in ("png", "pdf")]
    assert [path.name for path in parts] == [*pictures, "segmentation-classes.md"]
    assert "| tiny, knn: IoU |" in (tmp_path / "tables" / "segmentation-classes.md").read_text()


def test_pixels_without_a_class_do_not_count(tmp_path: Path) -> None:
    whole, hidden = make_set(6, seed=4), make_set(6, seed=4, hidden=True)
    assert (hidden.labels.read([0])[0] == IGNORED).sum() == 64
    config = make_config(tmp_path, files={"val": whole, "train": make_set(16)})
    found = prepare(MODEL, "knn", config)
    tallies = []
    for one in examples.read_examples(hidden, np.arange(6), found.geometry, config):
        answer = examples.segment(one, found.score, found.geometry, MODEL.preprocessing, "cpu")
        answer[:8, :8] = 0  # whatever it is
        tallies.append(tally(count_confusion(one.labels, answer, 3)))
    scored = SUITE.run(MODEL, "knn", replace(config, files={"val": hidden, "train": config.files["train"]}))
    assert read_values(scored)["miou"][0] == pytest.approx(score_segmentation(np.stack(tallies)).miou.value, abs=1e-12)
