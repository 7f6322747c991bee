"""Following a pretraining run: every checkpoint once, in order, as it comes, and nothing lost when one stops."""

from __future__ import annotations

import time
from pathlib import Path
from threading import Thread

import pytest

from pixmim_eval import follow
from pixmim_eval.errors import InputError
from pixmim_eval.follow import list_checkpoints, wait_for_checkpoints
from pixmim_eval.results import read_rows
from pixmim_eval.run import main
from tests.checkpoints import watch_passes, write_checkpoint, write_recipe

RUN = Path("runs/mae[1]")  # a name that a glob would not find
COMMAND = ["--suite", "knn", "--k", "1", "--pooling", "mean", "--data", "builtin:shapes16@16", "--limit", "32"]
COMMAND += ["--device", "cpu", "--workers", "0", "--out", "out"]


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "POLL_SECONDS", 0.01)


@pytest.fixture
def passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Images of each forward pass; an empty folder and an empty cache."""
    return watch_passes(tmp_path, monkeypatch)


def touch(run: Path, epoch: int) -> None:
    (run / f"epoch-{epoch:04d}.safetensors").touch()


def test_checkpoints_come_in_order_as_a_run_writes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_recipe(tmp_path, 12)

    def train() -> None:
        for epoch in (2, 9, 12):
            time.sleep(0.05)
            half = tmp_path / f".epoch-{epoch:04d}.safetensors.77.tmp"
            half.touch()
            time.sleep(0.05)
            half.rename(tmp_path / f"epoch-{epoch:04d}.safetensors")

    training = Thread(target=train)
    training.start()
    found = [file.name for file in wait_for_checkpoints(tmp_path)]
    training.join()
    assert found == ["epoch-0002.safetensors", "epoch-0009.safetensors", "epoch-0012.safetensors"]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3  # once each time, however often it looks
    assert "no checkpoint yet" in said[0] and "epoch 2 of 12" in said[1] and "epoch 9 of 12" in said[2]


def test_what_is_there_already_comes_first_and_nothing_is_said_where_there_is_no_wait(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_recipe(tmp_path, 10)
    for epoch in (10, 5, 100):  # of a longer run before this one
        touch(tmp_path, epoch)
    assert [file.stem for file in wait_for_checkpoints(tmp_path)] == ["epoch-0005", "epoch-0010"]
    assert [file.stem for file in list_checkpoints(tmp_path)] == ["epoch-0005", "epoch-0010", "epoch-0100"]
    assert not capsys.readouterr().err


def test_a_run_that_is_prolonged_is_followed_further(tmp_path: Path) -> None:
    write_recipe(tmp_path, 4)
    touch(tmp_path, 4)
    checkpoints = wait_for_checkpoints(tmp_path)
    next(checkpoints)
    write_recipe(tmp_path, 8)
    touch(tmp_path, 8)
    assert [file.stem for file in checkpoints] == ["epoch-0008"]


@pytest.mark.parametrize(
    ("text", "found"), [(None, "no such file"), ("{", "JSONDecodeError"), ("{}", "KeyError"), ('{"epochs": 0}', "0")]
)
def test_a_folder_of_no_run_is_refused_at_once(tmp_path: Path, text: str | None, found: str) -> None:
    if text is not None:
        (tmp_path / "recipe.json").write_text(text)
    with pytest.raises(InputError, match=rf"found .*{found}.*python -m pretrain.run"):
        list_checkpoints(tmp_path)


def test_every_epoch_of_a_run_is_evaluated_and_the_second_time_nothing_is_done(passes: list[int]) -> None:
    write_recipe(RUN, 3)

    def train() -> None:
        for epoch in (1, 2, 3):
            while len([*Path("out/rows").glob("knn-*.json")]) < epoch - 1:  # the one before is evaluated
                time.sleep(0.01)
            whole = write_checkpoint(Path("elsewhere"), epoch)
            whole.rename(RUN / whole.name)

    training = Thread(target=train)
    training.start()
    assert main([*COMMAND, "--follow", str(RUN)]) == 0
    training.join()
    rows = read_rows(Path("out"))
    top1 = rows[rows["metric"] == "top1"].sort_values("epoch")
    assert top1["epoch"].tolist() == [1, 2, 3] and set(top1["method"]) == {"mae"}
    assert top1["model"].tolist() == ["mae-1", "mae-2", "mae-3"] and top1["weights_digest"].nunique() == 3
    assert sum(passes) >= 3 * 64
    before = {file: file.read_bytes() for file in Path("out/rows").iterdir()}
    passes.clear()
    assert main([*COMMAND, "--follow", str(RUN)]) == 0
    assert main([*COMMAND, "--checkpoint", "runs/*/epoch-*.safetensors"]) == 0
    assert not passes
    assert {file: file.read_bytes() for file in Path("out/rows").iterdir()} == before


def test_stopped_by_hand_it_keeps_what_it_has_and_goes_on_later(
    passes: list[int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_recipe(RUN, 2)
    write_checkpoint(RUN, 1)

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(time, "sleep", interrupt)
        assert main([*COMMAND, "--follow", str(RUN)]) == 4
    shown = capsys.readouterr()
    assert "the same command goes on" in shown.err and "mae-1" in shown.out
    assert set(read_rows(Path("out"))["epoch"]) == {1}
    write_checkpoint(RUN, 2)
    passes.clear()
    assert main([*COMMAND, "--follow", str(RUN)]) == 0
    assert 64 <= sum(passes) < 2 * 64
    assert set(read_rows(Path("out"))["epoch"]) == {1, 2}


def test_a_dry_run_plans_what_is_there_and_does_not_wait(passes: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    write_recipe(RUN, 9)
    write_checkpoint(RUN, 1)
    assert main([*COMMAND, "--follow", str(RUN), "--dry-run"]) == 0
    assert "conditions: 1 = 0 done + 1 missing" in capsys.readouterr().out
    assert not passes and not Path("out").exists()


def test_a_folder_without_recipe_and_other_models_beside_it_are_bad_input(
    passes: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*COMMAND, "--follow", "nowhere"]) == 2
    assert "nowhere/recipe.json" in capsys.readouterr().err
    write_recipe(RUN, 1)
    assert main([*COMMAND, "--follow", str(RUN), "--model", "resnet18"]) == 2
    with pytest.raises(SystemExit) as stopped:
        main([*COMMAND, "--follow", str(RUN), "--checkpoint", "x"])
    assert stopped.value.code == 2
