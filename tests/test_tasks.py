"""Many checkpoints in one command: few in memory, none done twice, and names by which a run's own are known."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from pixmim_eval.models import catalog
from pixmim_eval.models.checkpoints import Checkpoint
from pixmim_eval.results import RunFolder, read_rows
from pixmim_eval.run import main
from pixmim_eval.suites import EvaluationSuite
from pixmim_eval.tasks import make_plan
from pixmim_eval.types import Model, Outcome, Preprocessing, SuiteConfig
from tests.checkpoints import watch_passes, write_checkpoint
from tests.fakes import make_model

COMMAND = ["--suite", "knn", "--k", "1", "--pooling", "mean", "--data", "builtin:shapes16@16", "--limit", "32"]
COMMAND += ["--device", "cpu", "--workers", "0", "--out", "out", "--checkpoint"]
EVERYTHING = "runs/*/epoch-*.safetensors"


@pytest.fixture(autouse=True)
def passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Images of each forward pass; an empty folder and an empty cache."""
    return watch_passes(tmp_path, monkeypatch)


@pytest.fixture
def alive(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """The greatest number of encoders that were in memory at once."""
    references: list[weakref.ReferenceType[nn.Module]] = []
    counts = [0]

    def load(path: Path, real: Callable[[Path], Checkpoint] = catalog.load) -> Checkpoint:
        checkpoint = real(path)
        references.append(weakref.ref(checkpoint.encoder))
        counts.append(sum(reference() is not None for reference in references))
        return checkpoint

    monkeypatch.setattr(catalog, "load", load)
    return lambda: max(counts)


def test_checkpoints_over_epochs_and_methods_are_evaluated_a_few_at_a_time(
    passes: list[int], alive: Callable[[], int], capsys: pytest.CaptureFixture[str]
) -> None:
    for epoch in (1, 2, 3):
        write_checkpoint(Path("runs/mae"), epoch)
        write_checkpoint(Path("runs/pixmim"), epoch, method="pixmim-mae", seed=1)
    assert main([*COMMAND, EVERYTHING]) == 0
    assert alive() <= catalog.FEW + 1
    rows = read_rows(Path("out"))
    found = rows[rows["metric"] == "top1"]
    expected = {(method, epoch, f"{method}-{epoch}") for method in ("mae", "pixmim-mae") for epoch in range(1, 4)}
    assert set(zip(found["method"], found["epoch"], found["model"], strict=True)) == expected
    assert found["weights_digest"].nunique() == len(found) == 6
    shown = capsys.readouterr().out
    assert all(name in shown for _, _, name in expected)
    passes.clear()
    assert main([*COMMAND, EVERYTHING]) == 0
    assert main([*COMMAND, EVERYTHING, "--dry-run"]) == 0
    assert not passes
    plan = capsys.readouterr().out
    assert "conditions: 6 = 6 done + 0 missing" in plan and plan.count("\nmodel ") == 6
    write_checkpoint(Path("runs/mae"), 4)
    assert main([*COMMAND, EVERYTHING]) == 0
    assert 64 <= sum(passes) < 2 * 64  # the new one alone


def test_a_second_run_of_the_method_renames_the_first_and_repeats_nothing(passes: list[int]) -> None:
    write_checkpoint(Path("runs/a"), 1)
    write_checkpoint(Path("runs/a"), 2)
    assert main([*COMMAND, EVERYTHING]) == 0
    values = read_rows(Path("out")).set_index(["weights_digest", "metric"])["value"]
    assert set(read_rows(Path("out"))["model"]) == {"mae-1", "mae-2"}
    write_checkpoint(Path("runs/b"), 2, seed=1)
    passes.clear()
    assert main([*COMMAND, EVERYTHING]) == 0
    assert 64 <= sum(passes) < 2 * 64
    rows = read_rows(Path("out"))
    assert set(rows["model"]) == {"mae-1:a/epoch-0001", "mae-2:a/epoch-0002", "mae-2:b/epoch-0002"}
    assert len(RunFolder(Path("out")).files()) == 3  # and none under the former names
    again = rows.set_index(["weights_digest", "metric"])["value"]
    assert again[values.index].equals(values)


def test_the_same_weights_in_two_files_are_evaluated_once(passes: list[int]) -> None:
    path = write_checkpoint(Path("runs/a"), 1)
    Path("runs/b").mkdir()
    shutil.copy(path, Path("runs/b") / path.name)
    assert main([*COMMAND, EVERYTHING]) == 0
    assert sum(passes) < 2 * 64 and len(RunFolder(Path("out")).files()) == 1


def test_one_broken_file_among_many_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    for epoch in range(1, 6):
        write_checkpoint(Path("runs/a"), epoch)
    Path("runs/a/epoch-0004.safetensors").write_bytes(b"half a file")
    assert main([*COMMAND, EVERYTHING]) == 2
    assert "epoch-0004.safetensors" in capsys.readouterr().err


def test_a_plan_says_of_people_that_they_answer_and_of_encoders_that_a_head_is_fitted() -> None:
    class Suite(EvaluationSuite):
        name, version, needs, accepts = "who", 1, (), ("train",)

        def conditions(self, config: SuiteConfig) -> list[str]:
            return ["clean"]

        def roles(self, model: Model, condition: str, config: SuiteConfig) -> tuple[str, ...]:
            return ()

        def run(self, model: Model, condition: str, config: SuiteConfig) -> Outcome:
            raise AssertionError("a plan runs nothing")

    person = Model(name="subject-1", digest="0" * 16, encoder=None, preprocessing=Preprocessing(0, 0), method="people")
    encoder = make_model(space=None)
    plan = make_plan(Suite(), [person, encoder, make_model()], SuiteConfig(data={}), RunFolder(Path("out")))
    assert plan.models == [
        f"subject-1: method people, answers {'0' * 16}",
        f"tiny: method mae, epoch 5, weights {encoder.digest}, a linear head is fitted",
        f"tiny: method mae, epoch 5, weights {encoder.digest}, own classifier",
    ]
    assert plan.missing == {"clean": ["subject-1", "tiny", "tiny"]}
