"""DeiT III: published settings, network and loss against independent definitions, and training as a person runs it."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import pixmim_eval.run
from pixmim_eval.data import open_manifest
from pixmim_eval.data.crops import RandomResizedCrop, SimpleResizedCrop
from pixmim_eval.errors import InputError
from pixmim_eval.models.catalog import load_models
from pixmim_eval.models.checkpoints import load
from pixmim_eval.models.vit import Architecture
from pixmim_eval.results import read_rows
from pixmim_eval.training import scale_learning_rate
from pretrain.methods import SUPERVISED_METHODS
from pretrain.methods.supervised import SupervisedClassifier
from pretrain.recipes import SUPERVISED, Recipe, build_crop, check_recipe, describe_method, get_recipe
from pretrain.run import fill_recipe, main, parse_options
from pretrain.supervised_task import SupervisedLearning

ROOT = Path(__file__).resolve().parents[2]
TINY = Architecture(patch=8, dim=24, depth=2, heads=2)
CLASSES = ("cat", "dog", "fox")
SMALL = (  # noqa: SIM905 (a command line reads better whole)
    "--recipe deit3-64px --image-size 32 --dim 24 --depth 2 --heads 2 --batch-size 8 --workers 0 --device cpu "
    "--precision fp32 --warmup-epochs 1 --save-every 100 --drop-path 0.2"
).split()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 14 images, each of a colour of its own, in parts train and val."""
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for part, count in (("train", 14), ("val", 4)):
        for channel, name in enumerate(CLASSES):
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 100, (5, 5, 3), dtype=np.uint8)
                pixels[:, :, channel] += 120
                picture = Image.fromarray(pixels).resize((40, 36), Image.Resampling.BICUBIC)
                picture.save(folder / part / name / f"{number:02d}.png")
    return folder


def randomise(model: SupervisedClassifier) -> SupervisedClassifier:
    """Weights away from their start, LayerScale above all, so that each one counts."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_((0.5 if "gamma" in name else 0.05) * torch.randn_like(parameter))
    return model.eval()


def build_task(images: Path, *flags: str, **settings: Any) -> SupervisedLearning:
    recipe = fill_recipe(parse_options([*SMALL, *flags]))
    manifest = open_manifest(str(images), role="train")
    return SupervisedLearning(recipe, manifest, device=torch.device("cpu"), **settings)


def define_logits(weights: dict[str, torch.Tensor], images: torch.Tensor, heads: int) -> torch.Tensor:
    """DeiT III's network as the paper defines it, in float64."""
    w = {name: value.double() for name, value in weights.items()}
    dim, patch = w["patch_embed.proj.weight"].shape[0], w["patch_embed.proj.weight"].shape[-1]

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        centred = x - x.mean(dim=-1, keepdim=True)
        scaled = centred / (centred.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt()
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    rows = images.shape[2] // patch
    cells = images.double().unflatten(2, (rows, patch)).unflatten(4, (rows, patch))  # [B, 3, rows, p, columns, p]
    cells = cells.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
    patches = cells @ w["patch_embed.proj.weight"].flatten(1).T + w["patch_embed.proj.bias"] + w["pos_embed"]
    x = torch.cat((w["cls_token"].expand(len(images), 1, dim), patches), dim=1)  # no position for the class token
    for block in range(len({name.split(".")[1] for name in w if name.startswith("blocks.")})):
        name = f"blocks.{block}"
        query, key, value = linear(norm(x, f"{name}.norm1"), f"{name}.attn.qkv").chunk(3, dim=-1)
        attended = []
        for q, k, v in zip(*(part.chunk(heads, dim=-1) for part in (query, key, value)), strict=True):
            attended.append(torch.softmax(q @ k.mT / math.sqrt(dim / heads), dim=-1) @ v)
        x = x + w[f"{name}.ls1.gamma"] * linear(torch.cat(attended, dim=-1), f"{name}.attn.proj")
        hidden = linear(norm(x, f"{name}.norm2"), f"{name}.mlp.fc1")
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
        x = x + w[f"{name}.ls2.gamma"] * linear(hidden, f"{name}.mlp.fc2")
    return linear(norm(x, "norm")[:, 0], "head")


def test_the_recipes_hold_the_published_settings() -> None:
    small, base = get_recipe("deit3-vit-s16"), get_recipe("deit3-vit-b16")
    for recipe in (small, base):
        assert (recipe.epochs, recipe.batch_size, recipe.warmup_epochs) == (800, 2048, 5)
        assert (recipe.weight_decay, recipe.min_lr, recipe.beta1, recipe.beta2) == (0.05, 1e-5, 0.9, 0.999)
        assert (recipe.patch, recipe.depth) == (16, 12)
    assert (small.image_size, small.dim, small.heads, small.drop_path) == (224, 384, 6, 0.05)
    assert (base.image_size, base.dim, base.heads, base.drop_path) == (192, 768, 12, 0.2)
    assert scale_learning_rate(small.base_lr, small.batch_size) == 4e-3
    assert scale_learning_rate(base.base_lr, base.batch_size) == 3e-3
    assert build_crop(small) == RandomResizedCrop(224, scale=(0.08, 1.0))
    assert build_crop(replace(small, crop="src")) == SimpleResizedCrop(224, padding=4)
    assert describe_method(small) == "deit3"
    assert describe_method(replace(small, crop="src")) == "deit3+src"
    assert set(SUPERVISED) == SUPERVISED_METHODS.keys()


@pytest.mark.parametrize(("name", "parameters"), [("deit3-vit-s16", 22_059_496), ("deit3-vit-b16", 86_585_320)])
def test_models_have_the_published_number_of_parameters(name: str, parameters: int) -> None:
    with torch.device("meta"):
        model = SUPERVISED_METHODS["deit3"](replace(get_recipe(name), image_size=224), 1000)
    assert sum(tensor.numel() for tensor in model.public_tensors().values()) == parameters


def test_logits_equal_timm_s_deit3_with_the_same_weights() -> None:
    model = randomise(SUPERVISED_METHODS["deit3"](get_recipe("deit3-vit-s16"), 1000))
    peer = timm.create_model("deit3_small_patch16_224", pretrained=False).eval()
    peer.load_state_dict(model.public_tensors(), strict=True)
    pictures = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model.network(pictures), peer(pictures), rtol=1e-5, atol=1e-5)


def test_logits_equal_the_definition() -> None:
    torch.manual_seed(0)
    model = randomise(SupervisedClassifier(32, TINY, 5, drop_path=0.3))
    pictures = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = define_logits(model.public_tensors(), pictures, TINY.heads)
        torch.testing.assert_close(model.network(pictures).double(), wanted, rtol=1e-4, atol=1e-5)


def test_the_loss_is_binary_cross_entropy_with_every_class_in_the_image_counted_whole() -> None:
    torch.manual_seed(0)
    model = randomise(SupervisedClassifier(32, TINY, 5, drop_path=0.0))
    pictures = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    targets = torch.zeros(4, 5)
    for number, shares in enumerate(({0: 0.9, 3: 0.1}, {2: 1.0}, {1: 0.001, 4: 0.999}, {0: 0.5, 1: 0.5})):
        for label, share in shares.items():
            targets[number, label] = share
    with torch.no_grad():
        loss, logits = model(pictures, targets).item(), model.network(pictures).double()
    total = 0.0
    for number in range(4):
        for label in range(5):
            probability = 1 / (1 + math.exp(-logits[number, label].item()))
            total -= math.log(probability if targets[number, label] > 0 else 1 - probability)
    assert loss == pytest.approx(total / 20, rel=1e-6)


def test_new_weights_follow_the_published_initialisation() -> None:
    torch.manual_seed(0)
    model = SupervisedClassifier(64, Architecture(8, 192, 3, 3), 50, drop_path=0.2)
    for name, parameter in model.network.named_parameters():
        if "gamma" in name:
            assert parameter.eq(1e-4).all(), name
        elif name in ("cls_token", "pos_embed", "head.weight") or ("blocks" in name and name.endswith("l.weight")):
            assert parameter.abs().max() <= 2, name
            assert parameter.std().item() == pytest.approx(0.02, rel=0.15), name
        elif name.endswith(".bias") and "patch" not in name:
            assert not parameter.any(), name
    assert [(b.drop_path1.drop_prob, b.drop_path2.drop_prob) for b in model.network.blocks] == [(0.2, 0.2)] * 3


def test_vectors_biases_tokens_and_positions_are_not_decayed(images: Path) -> None:
    task = build_task(images)
    decayed, exempt = task.parameter_groups()
    names = {id(parameter): name for name, parameter in task.model.network.named_parameters()}
    assert (decayed["weight_decay"], exempt["weight_decay"]) == (0.05, 0.0)
    free = {names[id(parameter)] for parameter in exempt["params"]}
    assert {"cls_token", "pos_embed"} <= free
    assert {name for name in names.values() if name.endswith((".bias", "gamma")) or "norm" in name} <= free
    assert {names[id(parameter)] for parameter in decayed["params"]} == set(names.values()) - free
    optimizer = task.build_optimizer([decayed, exempt], 1e-3)
    assert type(optimizer).__name__ == "Lamb"
    assert (optimizer.defaults["eps"], optimizer.defaults["betas"]) == (1e-8, (0.9, 0.999))


def test_inputs_are_the_same_on_one_process_that_accumulates_and_on_two(images: Path) -> None:
    one = build_task(images, "--accumulate", "2")
    pair = [build_task(images, world_size=2, rank=rank) for rank in (0, 1)]
    shares = [one.inputs(batch, 3) for batch in one.batches(3, 0)]
    for rank, task in enumerate(pair):
        for share, batch in zip(shares[rank::2], task.batches(3, 0), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(share, task.inputs(batch, 3), strict=True))
    pictures, targets = shares[0]
    assert pictures.shape == (4, 3, 32, 32)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(4))
    again = one.inputs(next(one.batches(4, 0)), 4)
    assert not torch.equal(again[0], pictures)


def read_trace(directory: Path) -> list[tuple[int, float, float]]:
    lines = (directory / "log.jsonl").read_text().splitlines()
    return [(line["step"], line["loss"], line["learning_rate"]) for line in map(json.loads, lines)]


def run_in_one_thread(*arguments: str) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert main([*SMALL, *arguments]) == 0
    finally:
        torch.set_num_threads(threads)


def test_a_run_that_broke_off_ends_with_the_loss_trace_and_the_weights_of_an_unbroken_one(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    arguments = ["--data", str(images), "--epochs", "12", "--state-minutes", "0"]
    run_in_one_thread(*arguments, "--out", str(whole))
    inputs = SupervisedLearning.inputs
    for limit in (17, 20):  # micro-batches until it breaks: in the middle of epochs 4 and 8
        left = iter(range(limit))

        def break_off(*given: Any, left: Iterator[int] = left) -> Any:
            if next(left, None) is None:
                raise RuntimeError("broken off")
            return inputs(*given)

        with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="broken off"):
            patch.setattr(SupervisedLearning, "inputs", break_off)
            run_in_one_thread(*arguments, "--out", str(broken))
    run_in_one_thread(*arguments, "--out", str(broken))
    assert len(read_trace(broken)) == 60
    assert read_trace(broken) == read_trace(whole)
    one, two = (load_file(folder / "epoch-0012.safetensors") for folder in (whole, broken))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_two_processes_train_as_one_that_accumulates(images: Path, tmp_path: Path) -> None:
    arguments = ["--data", str(images), "--epochs", "3", "--drop-path", "0"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    pair = subprocess.Popen(
        [*launcher, "-m", "pretrain.run", *SMALL, *arguments, "--out", str(tmp_path / "two")],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert main([*SMALL, *arguments, "--accumulate", "2", "--out", str(tmp_path / "one")]) == 0
    assert pair.wait(timeout=120) == 0
    one, two = (np.array(read_trace(tmp_path / name)) for name in ("one", "two"))
    np.testing.assert_allclose(one, two, rtol=1e-4)


@pytest.fixture(scope="module")
def trained(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run long enough to tell three colours apart."""
    directory = tmp_path_factory.mktemp("run")
    arguments = ["--data", str(images), "--epochs", "30", "--crop", "src", "--base-lr", "0.3", "--drop-path", "0"]
    run_in_one_thread(*arguments, "--out", str(directory))
    return directory


def test_training_lowers_the_loss_and_the_checkpoint_opens_as_the_trained_classifier(
    images: Path, trained: Path
) -> None:
    losses = [loss for _, loss, _ in read_trace(trained)]
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) - 0.1
    file = trained / "epoch-0030.safetensors"
    checkpoint = load(file)
    assert (checkpoint.method, checkpoint.epoch, checkpoint.image_size) == ("deit3+src", 30, 32)
    assert not checkpoint.decoder
    assert not [key for key in load_file(file) if "decoder" in key or "mask" in key]
    with safe_open(file, framework="pt") as opened:
        recipe = json.loads(opened.metadata()["recipe"])
    assert recipe["data_side"] == 36
    assert recipe["drop_path"] == 0 and not {"mask_ratio", "target", "decoder_dim", "normalise_target"} & recipe.keys()
    (model,) = load_models([str(file)])
    assert model.label_space is not None and model.classify is not None
    assert model.label_space.classes == CLASSES
    task = build_task(images)
    task.model.network.load_state_dict(load_file(file))
    pictures = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = task.model.eval().network(pictures)
        torch.testing.assert_close(model.classify(pictures), wanted, rtol=1e-4, atol=1e-5)


def test_the_evaluation_scores_its_own_head(
    images: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIXMIM_CACHE", str(tmp_path / "cache"))
    arguments = ["--suite", "robustness", "--checkpoint", str(trained / "epoch-0030.safetensors"), "--device", "cpu"]
    arguments += ["--data", f"val={images / 'val'}", "--corruptions", "contrast", "--workers", "0"]
    assert pixmim_eval.run.main([*arguments, "--out", str(tmp_path / "out")]) == 0
    rows = read_rows(tmp_path / "out")
    clean = rows[(rows["condition"] == "clean") & (rows["metric"] == "top1")].iloc[0]
    assert (clean["method"], clean["n"]) == ("deit3+src", 12)
    assert "head=own" in clean["protocol"]
    assert clean["value"] > 0.8


@pytest.mark.parametrize(
    ("flags", "field"),
    [
        ("--recipe deit3-64px --mask-ratio 0.5", "mask-ratio"),
        ("--recipe deit3-64px --target lowfreq", "target"),
        ("--recipe deit3-64px --draw-every 4", "draw-every"),
        ("--recipe deit3-64px --drop-path 1", "drop-path"),
        ("--recipe deit3-64px --patch 7", "patch"),
        ("--recipe deit3-64px --heads 5", "dim"),
        ("--recipe mae-64px --drop-path 0.1", "drop-path"),
    ],
)
def test_fields_of_the_other_kind_of_method_are_refused(flags: str, field: str) -> None:
    with pytest.raises(InputError, match=f"--{field}"):
        check_recipe(fill_recipe(parse_options(flags.split())))


def test_every_published_field_is_in_order() -> None:
    for name in ("deit3-vit-s16", "deit3-vit-b16", "deit3-64px"):
        check_recipe(get_recipe(name))
    check_recipe(Recipe())


def test_images_without_labels_are_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(8):
        Image.new("RGB", (32, 32)).save(tmp_path / f"{number}.png")
    assert main([*SMALL, "--data", str(tmp_path), "--out", str(tmp_path / "run")]) == 2
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize(
    "space",
    [
        {"name": "pets", "classes": ["cat", "dog"]},
        {"name": "pets", "classes": ["cat", "cat", "dog"]},
        {"name": "pets", "classes": ["cat", "dog", 3]},
        {"name": "pets", "classes": "cat"},
        {"classes": ["cat", "dog", "fox"]},
        ["cat", "dog", "fox"],
    ],
)
def test_a_label_space_that_does_not_fit_its_classifier_is_refused(trained: Path, tmp_path: Path, space: Any) -> None:
    file = trained / "epoch-0030.safetensors"
    with safe_open(file, framework="pt") as opened:
        header = opened.metadata()
    save_file(load_file(file), tmp_path / "changed.safetensors", header | {"label_space": json.dumps(space)})
    with pytest.raises(InputError, match="label_space"):
        load(tmp_path / "changed.safetensors")
