"""Pretraining as a person runs it: from the command line, killed, resumed, on two processes, with bad input."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pixmim_eval.data import open_manifest
from pixmim_eval.errors import InputError
from pixmim_eval.models.catalog import load_models
from pixmim_eval.models.checkpoints import load
from pretrain.run import fill_recipe, main, parse_options
from pretrain.task import MaskedImageModeling

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
SMALL = (  # noqa: SIM905 (a command line reads better whole)
    "--recipe pixmim-mae-64px --image-size 32 --radius 6 --dim 24 --depth 2 --heads 2 --decoder-dim 16 --batch-size 8 "
    "--workers 0 --device cpu --precision fp32 --warmup-epochs 1 --draw-every 0 --save-every 100"
).split()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for number in range(40):
        coarse = Image.fromarray(generator.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        coarse.resize((40, 36), Image.Resampling.BICUBIC).save(folder / f"{number:03d}.png")
    return folder


def read_trace(directory: Path) -> list[tuple[int, float, float]]:
    lines = (directory / "log.jsonl").read_text().splitlines()
    return [(line["step"], line["loss"], line["learning_rate"]) for line in map(json.loads, lines)]


def start(*arguments: str, launcher: tuple[str, ...] = ("-m",)) -> subprocess.Popen[bytes]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *launcher, "pretrain.run", *SMALL, *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_a_run_makes_a_checkpoint_that_opens_a_log_and_a_picture(images: Path, tmp_path: Path) -> None:
    arguments = [*SMALL, "--data", str(images), "--out", str(tmp_path), "--epochs", "4", "--draw-every", "4"]
    assert main(arguments) == 0
    checkpoint = load(tmp_path / "epoch-0004.safetensors")
    assert (checkpoint.method, checkpoint.epoch, checkpoint.image_size) == ("pixmim-mae", 4, 32)
    trace = read_trace(tmp_path)
    assert [step for step, *_ in trace] == list(range(20))
    assert trace[-1][1] < trace[0][1]
    with Image.open(tmp_path / "reconstruction-0004.png") as picture:
        assert picture.size == (4 * (128 + 4), 18 + 6 * (128 + 4))
    assert list((tmp_path / "tensorboard").iterdir())


METHOD_FLAGS = {
    "mae": "",
    "lsmae": "--patch 4",
    "convmae": "--stage1-dim 8 --stage2-dim 12",
}
each_method = pytest.mark.parametrize("method", METHOD_FLAGS)


def select_method(method: str) -> list[str]:
    return [*METHOD_FLAGS[method].split(), "--recipe", f"pixmim-{method}-64px"]


@pytest.mark.parametrize("method", ["lsmae", "convmae"])
@pytest.mark.parametrize("name", ["METHOD-64px", "pixmim-METHOD-64px"])
def test_other_methods_train_and_their_checkpoints_open(images: Path, tmp_path: Path, method: str, name: str) -> None:
    recipe = name.replace("METHOD", method)
    arguments = [*SMALL, *METHOD_FLAGS[method].split(), "--recipe", recipe, "--data", str(images)]
    assert main([*arguments, "--out", str(tmp_path), "--epochs", "4", "--draw-every", "4"]) == 0
    losses = [loss for _, loss, _ in read_trace(tmp_path)]
    assert sum(losses[-5:]) < sum(losses[:5])
    file = tmp_path / "epoch-0004.safetensors"
    checkpoint = load(file)
    assert (checkpoint.method, checkpoint.normalised_target) == (recipe.removesuffix("-64px"), True)
    task = MaskedImageModeling(
        fill_recipe(parse_options(arguments)), open_manifest(str(images), role="train", labelled=False), device=CPU
    )
    assert checkpoint.require_decoder().keys() == {
        key for key in task.model.public_tensors() if key.startswith("decoder_") or key == "mask_token"
    }
    (model,) = load_models([str(file)])
    patches = model.encoder.tokens(torch.zeros(1, 3, 32, 32)).patches
    assert patches.shape == (1, task.model.units * task.model.mask_unit**2, 24)
    with Image.open(tmp_path / "reconstruction-0004.png") as picture:
        assert picture.size == (4 * (128 + 4), 18 + 6 * (128 + 4))


@each_method
def test_a_run_killed_twice_ends_with_the_loss_trace_of_an_unbroken_one(
    images: Path, tmp_path: Path, method: str
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    arguments = [*select_method(method), "--data", str(images), "--epochs", "80", "--state-minutes", "0.001"]
    kills = 0
    for wanted in (60, 200):
        process = start(*arguments, "--out", str(broken))
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            log = broken / "log.jsonl"
            if log.exists() and log.read_bytes().count(b"\n") >= wanted:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.005)
        kills += process.wait() == -signal.SIGKILL
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert main([*SMALL, *arguments, "--out", str(whole)]) == 0
        assert main([*SMALL, *arguments, "--out", str(broken)]) == 0
    finally:
        torch.set_num_threads(threads)
    assert kills == 2
    assert len(read_trace(broken)) == 400
    assert read_trace(broken) == read_trace(whole)


@each_method
def test_two_processes_train_as_one(images: Path, tmp_path: Path, method: str) -> None:
    arguments = [*select_method(method), "--data", str(images), "--epochs", "3"]
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m")
    pair = start(*arguments, "--out", str(tmp_path / "two"), launcher=launcher)
    assert main([*SMALL, *arguments, "--out", str(tmp_path / "one")]) == 0
    assert pair.wait(timeout=120) == 0
    one, two = (np.array(read_trace(tmp_path / name)) for name in ("one", "two"))
    np.testing.assert_allclose(one, two, rtol=1e-4)


def test_an_unknown_recipe_gets_close_matches(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--recipe", "pixmim-mae-b16"]) == 2
    assert "Did you mean pixmim-mae-vit-b16" in capsys.readouterr().err


def test_a_folder_of_another_run_is_not_overwritten(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*SMALL, "--data", str(images), "--out", str(tmp_path), "--epochs", "1"]
    assert main(arguments) == 0
    before = (tmp_path / "log.jsonl").read_bytes()
    assert main([*arguments, "--radius", "9"]) == 2
    assert "expected radius = 6.0, found radius = 9.0" in capsys.readouterr().err
    assert main([*arguments, "--save-every", "7"]) == 0
    assert (tmp_path / "log.jsonl").read_bytes() == before


def test_a_loss_that_is_not_finite_exits_with_3_and_keeps_the_state(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*SMALL, "--data", str(images), "--out", str(tmp_path), "--epochs", "2"]
    assert main([*arguments, "--base-lr", "1e30", "--warmup-epochs", "0"]) == 3
    assert "expected a finite number" in capsys.readouterr().err
    step = torch.load(tmp_path / "state.pt", weights_only=True)["step"]
    report = json.loads((tmp_path / "nonfinite-rank0.json").read_text())
    assert report["step"] == step
    assert len(report["images"]) == 8


def test_after_a_loss_that_was_not_finite_the_rate_may_change_and_nothing_else(images: Path, tmp_path: Path) -> None:
    arguments = [*SMALL, "--data", str(images), "--out", str(tmp_path), "--epochs", "2", "--warmup-epochs", "0"]
    assert main([*arguments, "--base-lr", "1e30"]) == 3
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["step"] > 0
    torch.manual_seed(0)
    for value in state["module"].values():  # weights that one step at 1e30 left are beyond saving: give it sound ones
        if value.ndim > 1:
            value.copy_(0.02 * torch.randn_like(value))
        else:
            value.zero_()
    state["optimizer"]["state"] = {}
    torch.save(state, tmp_path / "state.pt")
    assert main([*arguments, "--radius", "9"]) == 2  # another run all the same
    assert main([*arguments, "--base-lr", "1e-4"]) == 0
    assert json.loads((tmp_path / f"recipe-before-{state['step']}.json").read_text())["base_lr"] == 1e30
    assert json.loads((tmp_path / "recipe.json").read_text())["base_lr"] == 1e-4
    assert [step for step, *_ in read_trace(tmp_path)] == list(range(10))


def test_bad_images_can_be_skipped_and_do_not_stop_the_pictures(images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    shutil.copytree(images, folder)
    (folder / "000.png").write_bytes(b"not an image")
    arguments = [*SMALL, "--data", str(folder), "--out", str(tmp_path / "run"), "--epochs", "1", "--draw-every", "1"]
    assert main(arguments) == 2
    assert main([*arguments, "--on-bad-image", "skip"]) == 0
    with Image.open(tmp_path / "run" / "reconstruction-0001.png") as picture:
        assert picture.size == (4 * (128 + 4), 18 + 5 * (128 + 4))


def test_too_little_data_for_a_batch_is_bad_input_and_claims_no_folder(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*SMALL, "--data", str(images), "--out", str(tmp_path), "--epochs", "1"]
    assert main([*arguments, "--batch-size", "64"]) == 2
    assert "at most the number of images, 40" in capsys.readouterr().err
    assert main(arguments) == 0


def test_a_path_without_images_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--data", str(tmp_path / "nowhere"), "--out", str(tmp_path / "run")]) == 2
    assert "error:" in capsys.readouterr().err


def test_errors_name_all_that_a_reader_needs() -> None:
    error = InputError("radius", expected="a number", found="x", where="--radius", fix="Give one.")
    assert str(error) == "radius: expected a number, found x (in --radius). Give one."
