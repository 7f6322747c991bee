"""The training loop on a problem small enough to follow by hand."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pixmim_eval.errors import InputError, NonFiniteLossError
from pixmim_eval.seeds import derive_seed
from pixmim_eval.training import (
    TrainingSettings,
    build_fabric,
    scale_learning_rate,
    schedule_learning_rate,
    train,
    truncate_log,
)
from pixmim_eval.types import Batch

SETTINGS = TrainingSettings(
    epochs=3,
    batch_size=8,
    accumulate=1,
    learning_rate=0.05,
    min_learning_rate=0.0,
    warmup_epochs=1.0,
    compile=False,
    seed=0,
    save_every=2,
    draw_every=0,
    state_minutes=0.0,  # a state after every step
)


class KilledError(Exception):
    """What a kill looks like from inside."""


class Squares(nn.Module):
    """Least squares with dropout, so that resuming needs the right random numbers too."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(12, 1)
        self.drop = nn.Dropout(0.2)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(self.drop(inputs)).square().mean()


class Regression:
    """5 steps an epoch over 40 images of 2 x 2 pixels; `kill_at` and `poison_at` are steps."""

    def __init__(self, *, accumulate: int = 1, kill_at: int | None = None, poison_at: int | None = None) -> None:
        torch.manual_seed(0)
        self.model = Squares()
        self.module: nn.Module = self.model
        self.accumulate, self.kill_at, self.poison_at = accumulate, kill_at, poison_at
        self.saved: list[int] = []
        self.steps_per_epoch = 5
        self.step = 0

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.model.parameters())}]

    def build_optimizer(self, groups: list[dict[str, Any]], learning_rate: float) -> torch.optim.Optimizer:
        return torch.optim.AdamW(groups, lr=learning_rate)

    def batches(self, epoch: int, first_step: int) -> Iterator[Batch]:
        order = torch.randperm(40, generator=torch.Generator().manual_seed(derive_seed("order", epoch)))
        for step in range(first_step, 5):
            self.step = epoch * 5 + step
            for rows in order[8 * step : 8 * step + 8].chunk(self.accumulate):
                images = (rows[:, None] * 7 + torch.arange(12)) % 11
                yield Batch(images.to(torch.uint8).reshape(-1, 3, 2, 2), rows, rows)

    def inputs(self, batch: Batch, epoch: int) -> tuple[Tensor, ...]:
        if self.step == self.kill_at:
            raise KilledError
        scale = math.nan if self.step == self.poison_at else 0.1
        return (batch.images.flatten(1).float() * scale,)

    def describe_rows(self, batches: list[Batch]) -> list[str]:
        return [f"image-{row}" for batch in batches for row in batch.index.tolist()]

    def save_checkpoint(self, directory: Path, epoch: int) -> None:
        self.saved.append(epoch)

    def draw(self, directory: Path, epoch: int) -> dict[str, Tensor]:
        return {}


def run(task: Regression, directory: Path, settings: TrainingSettings = SETTINGS) -> list[dict[str, Any]]:
    directory.mkdir(exist_ok=True)
    train(build_fabric("cpu", "fp32"), task, settings, directory)
    return read_log(directory)


def read_log(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]


def trace(records: list[dict[str, Any]]) -> list[tuple[int, int, float, float]]:
    return [(line["step"], line["epoch"], line["loss"], line["learning_rate"]) for line in records]


@pytest.mark.parametrize("warmup", [0.0, 1.0, 2.5])
def test_the_schedule_is_the_published_one(warmup: float) -> None:
    settings = replace(SETTINGS, epochs=10, warmup_epochs=warmup, learning_rate=0.3, min_learning_rate=0.01)
    for tenth in range(100):
        epoch = tenth / 10
        if epoch < warmup:
            wanted = 0.3 * epoch / warmup
        else:
            wanted = 0.01 + (0.3 - 0.01) * 0.5 * (1.0 + math.cos(math.pi * (epoch - warmup) / (10 - warmup)))
        assert schedule_learning_rate(settings, epoch) == pytest.approx(wanted, rel=1e-12)


def test_the_base_rate_rule_gives_the_published_rate() -> None:
    assert scale_learning_rate(1.5e-4, 4096) == pytest.approx(2.4e-3)


def test_a_run_killed_twice_ends_with_the_numbers_of_an_unbroken_one(tmp_path: Path) -> None:
    whole = Regression()
    wanted = trace(run(whole, tmp_path / "whole"))
    assert [step for step, *_ in wanted] == list(range(15))
    for kill_at in (3, 11):
        with pytest.raises(KilledError):
            run(Regression(kill_at=kill_at), tmp_path / "broken")
    with (tmp_path / "broken" / "log.jsonl").open("a") as file:
        file.write('{"step": 11, "lo')  # the kill cut a line short
    last = Regression()
    assert trace(run(last, tmp_path / "broken")) == wanted
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, last.model.state_dict()[key])


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    run(Regression(), tmp_path)
    again = Regression(kill_at=0)
    run(again, tmp_path)
    assert again.saved == []


def test_checkpoints_come_every_so_often_and_at_the_end(tmp_path: Path) -> None:
    task = Regression()
    run(task, tmp_path)
    assert task.saved == [2, 3]


def test_accumulated_micro_batches_equal_one_large_batch(tmp_path: Path) -> None:
    plain, parts = Regression(), Regression(accumulate=4)
    for task in (plain, parts):
        task.model.drop.p = 0.0
    wanted = trace(run(plain, tmp_path / "plain"))
    found = trace(run(parts, tmp_path / "parts", replace(SETTINGS, accumulate=4)))
    for (*_, loss, _), (*_, other, _) in zip(wanted, found, strict=True):
        assert loss == pytest.approx(other, rel=1e-5)


def test_a_loss_that_is_not_a_number_saves_the_state_and_names_the_batch(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLossError, match=r"found nan at step 7 \(epoch 2\).*image-"):
        run(Regression(poison_at=7), tmp_path)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["step"] == 7
    assert all(torch.isfinite(value).all() for value in state["module"].values())
    report = json.loads((tmp_path / "nonfinite-rank0.json").read_text())
    assert len(report["images"]) == 8
    healed = trace(run(Regression(), tmp_path))
    assert healed == trace(run(Regression(), tmp_path / "whole"))


def test_a_full_disk_leaves_the_last_state_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KilledError):
        run(Regression(kill_at=4), tmp_path)

    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="No space left"):
            run(Regression(), tmp_path)
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 4
    assert not list(tmp_path.glob("*.tmp")) + list(tmp_path.glob(".*.tmp"))
    assert trace(run(Regression(), tmp_path)) == trace(run(Regression(), tmp_path / "whole"))


def test_a_checkpoint_that_could_not_be_written_is_written_by_the_next_start(tmp_path: Path) -> None:
    class FullDisk(Regression):
        def save_checkpoint(self, directory: Path, epoch: int) -> None:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        run(FullDisk(), tmp_path)
    again = Regression()
    run(again, tmp_path)
    assert again.saved == [2, 3]


def test_mixed_precision_leaves_the_inputs_as_they_are(tmp_path: Path) -> None:
    seen: list[torch.dtype] = []

    class Watched(Squares):
        def forward(self, inputs: Tensor) -> Tensor:
            seen.extend((inputs.dtype, self.layer(inputs).dtype))
            return super().forward(inputs)

    task = Regression()
    task.module = Watched()
    task.parameter_groups = lambda: [{"params": list(task.module.parameters())}]  # type: ignore[method-assign]
    train(build_fabric("cpu", "bf16"), task, replace(SETTINGS, epochs=1), tmp_path)
    assert set(seen[::2]) == {torch.float32}
    assert set(seen[1::2]) == {torch.bfloat16}


def test_a_log_is_cut_at_the_step_of_the_state(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 0}\n{"step": 1}\n{"step": 2}\n{"st')
    truncate_log(path, 2)
    assert path.read_text() == '{"step": 0}\n{"step": 1}\n'


def test_a_gpu_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="expected a CUDA GPU"):
        build_fabric("cuda")
    with pytest.raises(InputError, match="found fp16"):
        build_fabric("cpu", "fp16")
