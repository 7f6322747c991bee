"""The command as it is typed: plans, runs, resumes, refuses, and ends with the numbers."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from analysis.ablation import runner
from analysis.run import main
from pixmim_eval.results import read_rows
from tests.analysis.ablation.stand_ins import Program

PLAIN = ["--recipe", "mae-64px", "--data", "DATA", "--suites", "knn"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(runner, "POLL_SECONDS", 0.02)
    return tmp_path


def run(*words: str) -> int:
    return main(["ablation", *words])


def test_a_dry_run_tells_all_and_writes_nothing(
    here: Path, program: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("components", *PLAIN, "--out", "abl", "--dry-run") == 0
    told = capsys.readouterr().out
    assert not (here / "abl").exists()
    command = "python -m pretrain.run --recipe mae-64px --target lowfreq --crop src --data DATA --out abl/pretrain/both"
    assert command in told.splitlines()
    assert "8 steps = 0 done + 8 missing; 1 arm side by side" in told
    assert "time: unknown until the first run" in told
    assert all("--dry-run" in call for call in program.calls)


def test_a_second_run_does_nothing_but_ask_and_tell(program: Program, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bandwidth", *PLAIN, "--radii", "5", "40", "--out", "abl", "--jobs", "2"]
    program.set("tell", "knn")
    assert run(*words) == 0
    first = capsys.readouterr().out
    assert "steps: 0 were done before, 6 done now, 0 not done" in first
    done = [call for call in program.calls if "--dry-run" not in call]
    assert len(done) == 6
    assert run(*words) == 0
    assert [call for call in program.calls if "--dry-run" not in call] == done
    told = capsys.readouterr().out
    assert first.endswith(told)  # figure and table, drawn again from the same rows
    assert "r = 40" in told and "0.625" in told
    written = [*Path("abl/reports").glob("*/ablation-bandwidth*")]
    assert {path.suffix for path in written} == {".png", ".pdf", ".md", ".tex", ".csv"}
    assert all(str(path) in told for path in written)
    assert run(*words, "--dry-run") == 0
    assert "6 steps = 6 done + 0 missing" in capsys.readouterr().out
    rows = pd.concat([read_rows(Path("abl/evaluation") / arm) for arm in ("r5", "r40", "plain")])
    assert {*rows["command"]} == {call for call in done if "--suite" in call}


def test_more_radii_add_arms_to_those_there_are(program: Program) -> None:
    assert run("bandwidth", *PLAIN, "--radii", "5", "--out", "abl") == 0
    before = len([call for call in program.calls if "--dry-run" not in call])
    assert run("bandwidth", *PLAIN, "--radii", "5", "20", "--out", "abl") == 0
    done = [call for call in program.calls if "--dry-run" not in call]
    assert [call for call in done[before:] if "/r20" not in call] == []
    assert len(done) == before + 2


def test_a_failing_step_is_told_with_its_log_and_what_to_type(
    program: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    program.set("fail", "pretrain/mae-cc")
    words = ["crop", *PLAIN, "--supervised", "none", "--out", "my abl"]
    assert run(*words) == 4
    told = capsys.readouterr().out
    assert "failed: see my abl/logs/mae-cc-pretraining.log, or try it alone: python -m pretrain.run" in told
    assert f"the rest goes on with: python -m analysis.run ablation {shlex.join(words)}" in told
    program.set("fail", "nothing")
    assert run(*words) == 0


def test_crop_asks_for_deit_iii_of_the_same_size(program: Program, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = "mae-64px --epochs 2 --decoder-depth 2"
    assert run("crop", "--recipe", recipe, "--data", "DATA", "--out", "abl", "--dry-run") == 0
    told = capsys.readouterr().out
    assert "python -m pretrain.run --recipe deit3-64px --epochs 2 --crop cc --data DATA" in told
    assert "python -m pretrain.run --recipe mae-64px --epochs 2 --decoder-depth 2 --crop cc --data DATA" in told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["bandwidth", "--recipe", "unknown", "--data", "DATA"], ["expected a name, found 'unknown'", "--dry-run"]),
        (["crop", "--recipe", "mae-unknown", "--data", "DATA"], ["found 'unknown'"]),
        (["bandwidth", *PLAIN, "--radii", "99"], ["at most Nyquist's 64 cycles"]),
        (["components", *PLAIN, "--radii", "9"], ["--radii with bandwidth alone"]),
        (["components", *PLAIN, "--supervised", "deit3-64px"], ["--supervised with crop alone"]),
        (["components", "--recipe", "deit3-64px", "--data", "DATA"], ["learns from labels"]),
        (["crop", *PLAIN, "--supervised", "mae-64px"], ["expected one that learns from labels"]),
        (["components", *PLAIN[:-1], "knn --unknown"], ["--suite knn --unknown", "Mend"]),
        (["components", *PLAIN, "--measure"], ["Add --dry-run"]),
        (["components", *PLAIN, "--gpus", "2"], ["expected 1 x 2", "--slurm"]),
    ],
)
def test_bad_input_is_one_line_that_names_the_fix(
    program: Program, capsys: pytest.CaptureFixture[str], words: list[str], said: list[str]
) -> None:
    assert run(*words) == 2
    message = capsys.readouterr().err.strip()
    assert message.startswith("error: ") and "\n" not in message
    assert all(word in message for word in said)
    assert not any("--dry-run" not in call for call in program.calls)


@pytest.mark.parametrize("hours", ["0", "-1", "nan", "inf"])
def test_a_job_has_a_time(capsys: pytest.CaptureFixture[str], hours: str) -> None:
    with pytest.raises(SystemExit):
        run("components", *PLAIN, "--slurm", f"--hours={hours}")
    assert f"expected a number above 0, found {hours}" in capsys.readouterr().err


def test_a_counterpart_that_does_not_exist_is_named_with_its_option(
    program: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    program.set("refuse", "deit3-64px")
    assert run("crop", *PLAIN) == 2
    assert "--supervised none" in capsys.readouterr().err
    assert run("crop", *PLAIN, "--supervised", "none", "--out", "abl") == 0
    program.set("refuse", "mae-64px")
    assert run("crop", *PLAIN) == 2
    assert "--supervised" not in capsys.readouterr().err


def test_the_folder_of_another_ablation_is_refused(program: Program, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("components", *PLAIN, "--out", "abl") == 0
    assert run("crop", *PLAIN, "--supervised", "none", "--out", "abl") == 2
    assert "found the ablation components (in abl/ablation.json)" in capsys.readouterr().err


@pytest.mark.slow
def test_a_real_ablation_from_images_to_numbers(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = (
        "mae-64px --image-size 32 --patch 8 --dim 24 --depth 1 --heads 2 --decoder-dim 16 --batch-size 16 --epochs 1 "
        "--warmup-epochs 0 --workers 0 --draw-every 0 --device cpu"
    )
    images = np.random.default_rng(0).integers(0, 256, (48, 32, 32, 3), dtype=np.uint8)
    for number, image in enumerate(images):
        file = here / "my images" / ("val" if number % 3 else "train") / f"it's {number % 2}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    words = ["bandwidth", "--recipe", recipe, "--data", "my images/val", "--radii", "4", "12", "--jobs", "2"]
    words += ["--eval-data", "train=my images/train", "val=my images/val"]
    words += ["--suites", "knn --k 5 --workers 0 --device cpu", "--out", "my 'abl'"]
    assert run(*words) == 0
    assert "6 done now, 0 not done" in capsys.readouterr().out
    out = here / "my 'abl'"
    assert (out / "reports" / "figures" / "ablation-bandwidth.png").exists()
    for arm, target in {"r4": "lowfreq", "r12": "lowfreq", "plain": "normalised"}.items():
        settings = json.loads((out / "pretrain" / arm / "recipe.json").read_text())
        assert settings["target"] == target
        rows = read_rows(out / "evaluation" / arm)
        assert rows["pretraining"].str.contains(f"target={target}").all()
        command = rows["command"].iloc[0]
        assert command == json.loads((out / "steps" / f"{arm}-knn.json").read_text())["command"]
    assert run(*words, "--dry-run") == 0
    assert "6 steps = 6 done + 0 missing" in capsys.readouterr().out
