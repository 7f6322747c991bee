"""The one training loop: precision, accumulation, schedule, exact resume, logs. Pretraining and transfer use it."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor, nn
from tqdm import tqdm

from pixmim_eval.data.loader import TrainingLoader
from pixmim_eval.data.transforms import normalize
from pixmim_eval.devices import Precision, resolve_device, resolve_precision
from pixmim_eval.errors import InputError, NonFiniteLossError
from pixmim_eval.files import replace_atomically, write_atomic
from pixmim_eval.progress import progress
from pixmim_eval.seeds import derive_seed
from pixmim_eval.types import Batch, Manifest, Preprocessing


@dataclass(frozen=True)
class TrainingSettings:
    """What the loop needs to know.

    Args:
        epochs: passes over the data.
        batch_size: images an optimizer step, over all processes and accumulated micro-batches.
        accumulate: micro-batches a step on each process.
        learning_rate: peak, after the base-lr rule (see `scale_learning_rate`).
        min_learning_rate: at the end of the cosine.
        warmup_epochs: linear from 0; may be fractional.
        compile: torch.compile the module.
        seed: of everything random.
        save_every: epochs between checkpoints; the last epoch is always saved.
        draw_every: epochs between pictures; 0 for none.
        state_minutes: minutes between full training states; one is also saved after every epoch.
        poly_power: of a polynomial decay in the place of the cosine; None for the cosine.
        drops: epochs at each of which the rate falls to a tenth, in the place of the cosine; () for the cosine.
    """

    epochs: int
    batch_size: int
    accumulate: int
    learning_rate: float
    min_learning_rate: float
    warmup_epochs: float
    compile: bool
    seed: int
    save_every: int
    draw_every: int
    state_minutes: float
    poly_power: float | None = None
    drops: tuple[float, ...] = ()


class Task(Protocol):
    """What is trained. `module(*inputs(batch, epoch))` is the loss, a scalar."""

    module: nn.Module

    def parameter_groups(self) -> list[dict[str, Any]]: ...

    def build_optimizer(self, groups: list[dict[str, Any]], learning_rate: float) -> torch.optim.Optimizer: ...

    @property
    def steps_per_epoch(self) -> int: ...

    def batches(self, epoch: int, first_step: int) -> Iterator[Batch]: ...

    def inputs(self, batch: Batch, epoch: int) -> tuple[Tensor, ...]: ...

    def describe_rows(self, batches: list[Batch]) -> list[str]: ...

    def save_checkpoint(self, directory: Path, epoch: int) -> None: ...

    def draw(self, directory: Path, epoch: int) -> dict[str, Tensor]: ...


class ImageTask:
    """What tasks on the images of a manifest share.

    Args:
        manifest: the images.
        loader: makes batches of them.
        preprocessing: how they are normalised.
        device: where the module will be.
    """

    manifest: Manifest
    loader: TrainingLoader
    preprocessing: Preprocessing
    device: torch.device

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps an epoch; the last, smaller batch is left out."""
        return self.loader.steps_per_epoch

    def batches(self, epoch: int, first_step: int) -> Iterator[Batch]:
        """Micro-batches of an epoch from a step on."""
        return self.loader.batches(epoch, first_step)

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 [B, 3, S, S] on any device -> float32 on this one."""
        images = images.to(self.device, non_blocking=True)
        return normalize(images, self.preprocessing.mean, self.preprocessing.std)

    def describe_rows(self, batches: list[Batch]) -> list[str]:
        """Keys of the images in these batches."""
        return [str(key) for batch in batches for key in self.manifest.keys[batch.index.cpu().numpy()]]

    def save_checkpoint(self, directory: Path, epoch: int) -> None:
        """Nothing: the state holds the module."""

    def draw(self, directory: Path, epoch: int) -> dict[str, Tensor]:
        """No pictures."""
        return {}


class Autocast(MixedPrecision):
    """Mixed precision inside operators only: Fabric would round the inputs too, and with them targets and masks."""

    def convert_input(self, data: Any) -> Any:
        """Inputs as they are."""
        return data


def build_fabric(device: str = "auto", precision: Precision = "auto") -> Fabric:
    """Lightning Fabric on one device, or on all that torchrun started.

    Args:
        device: "auto" (a GPU where there is one), "cpu" or "cuda".
        precision: see `resolve_precision`.

    Raises:
        InputError: cuda asked for and absent, or fp16 on the CPU.
    """
    device, precision = resolve_device(device), resolve_precision(device, precision)
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    nodes = int(os.environ.get("WORLD_SIZE", "1")) // local
    strategy = DDPStrategy(broadcast_buffers=False) if local * nodes > 1 else "auto"  # buffers are constant tables
    kind: dict[str, Any] = {"precision": "32-true"}
    if precision != "fp32":
        kind = {"plugins": [Autocast("bf16-mixed" if precision == "bf16" else "16-mixed", device)]}
    fabric = Fabric(accelerator=device, devices=local, num_nodes=nodes, strategy=strategy, **kind)
    fabric.launch()
    return fabric


def scale_learning_rate(base: float, batch_size: int) -> float:
    """Base-lr rule: base * batch_size / 256 (Goyal et al. 2017; MAE's and PixMIM's published rates use it)."""
    return base * batch_size / 256


def schedule_learning_rate(settings: TrainingSettings, epoch: float) -> float:
    """Learning rate at a fractional epoch: linear warm-up from 0, then half a cosine down to the minimum.

    With a poly_power it is low + (peak - low) * (1 - epoch / epochs)^power, and a rising share of that during warm-up.
    With drops it is the peak over 10^(drops passed).

    Source: MAE, official code (per-iteration schedule); mmcv's poly policy; detectron2's multi-step scheduler.
        Differs: mmcv warms up from 1e-6 of the rate and detectron2 from 1e-3 of it, not 0.
    """
    peak, low, warmup = settings.learning_rate, settings.min_learning_rate, settings.warmup_epochs
    if settings.drops:
        rate = peak * 0.1 ** sum(epoch >= drop for drop in settings.drops)
        return rate * epoch / warmup if epoch < warmup else rate
    if settings.poly_power is not None:
        rate = low + (peak - low) * (1 - epoch / settings.epochs) ** settings.poly_power
        return rate * epoch / warmup if epoch < warmup else rate
    if epoch < warmup:
        return peak * epoch / warmup
    part = (epoch - warmup) / max(settings.epochs - warmup, 1e-12)
    return low + (peak - low) * 0.5 * (1 + math.cos(math.pi * part))


def train(fabric: Fabric, task: Task, settings: TrainingSettings, directory: Path) -> None:
    """Train a task to its last epoch, resuming from directory/state.pt where there is one.

    Leaves in `directory`: log.jsonl (one line a step), tensorboard/, state.pt, and the task's checkpoints and
    pictures. Every random number depends on (seed, step) or (seed, epoch, item), so a killed and resumed run ends
    with the numbers of an unbroken one.

    Raises:
        NonFiniteLossError: the loss is NaN or infinite; the state before the step and the batch's rows are saved.
    """
    _Loop(fabric, task, settings, directory).run()


class _Loop:
    def __init__(self, fabric: Fabric, task: Task, settings: TrainingSettings, directory: Path) -> None:
        self.fabric, self.task, self.settings, self.directory = fabric, task, settings, directory
        self.steps_per_epoch = task.steps_per_epoch
        optimizer = task.build_optimizer(task.parameter_groups(), settings.learning_rate)
        module: Any = torch.compile(task.module) if settings.compile else task.module
        self.module, self.optimizer = fabric.setup(module, optimizer)
        self.step = self._load_state()
        self._check_steps()
        self.last_saved = time.monotonic()
        if fabric.is_global_zero:
            truncate_log(directory / "log.jsonl", self.step)

    def run(self) -> None:
        total = self.settings.epochs * self.steps_per_epoch
        if self.step >= total:
            return
        size = self.settings.batch_size
        bar: tqdm[Any] = progress(
            description="training",
            total=total * size,
            initial=self.step * size,
            unit="image",
            quiet=not self.fabric.is_global_zero,
        )
        with bar, Logs(self.directory, self.step, enabled=self.fabric.is_global_zero) as logs:
            for epoch in range(self.step // self.steps_per_epoch, self.settings.epochs):
                self._run_epoch(epoch, logs, bar)
                self._finish_epoch(epoch + 1, logs)

    def _run_epoch(self, epoch: int, logs: Logs, bar: tqdm[Any]) -> None:
        self.module.train()
        first = self.step - epoch * self.steps_per_epoch
        batches = self.task.batches(epoch, first)
        for _ in range(first, self.steps_per_epoch):
            start = time.perf_counter()
            rate = schedule_learning_rate(self.settings, self.step / self.steps_per_epoch)
            loss = self._run_step(batches, epoch, rate)
            seconds = time.perf_counter() - start
            logs.write(self.step, epoch, loss, rate, self.settings.batch_size / seconds)
            self.step += 1
            bar.set_postfix(epoch=epoch + 1, loss=f"{loss:.4f}", refresh=False)
            bar.update(self.settings.batch_size)
            late = time.monotonic() - self.last_saved > 60 * self.settings.state_minutes
            if late and self.step % self.steps_per_epoch:  # after an epoch, its checkpoint comes before the state
                self._save_state()

    def _run_step(self, batches: Iterator[Batch], epoch: int, rate: float) -> float:
        """One optimizer step; the mean loss over micro-batches and processes."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        torch.manual_seed(derive_seed(self.settings.seed, "step", self.step, self.fabric.global_rank))
        seen, total = [], torch.zeros((), device=self.fabric.device)
        for part in range(self.settings.accumulate):
            batch = next(batches)
            seen.append(batch)
            last = part + 1 == self.settings.accumulate
            sync: AbstractContextManager[Any] = nullcontext()
            if not last:
                sync = self.fabric.no_backward_sync(self.module)
            with sync:
                loss = self.module(*self.task.inputs(batch, epoch)) / self.settings.accumulate
                self.fabric.backward(loss)
            total += loss.detach()
        if self.fabric.world_size > 1:
            total = cast(Tensor, self.fabric.all_reduce(total, reduce_op="mean"))
        value = total.item()
        if not math.isfinite(value):
            self._report_non_finite(value, seen, epoch)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return value

    def _finish_epoch(self, epoch: int, logs: Logs) -> None:
        if not self.fabric.is_global_zero:
            return
        last = epoch == self.settings.epochs
        if last or epoch % self.settings.save_every == 0:
            self.task.save_checkpoint(self.directory, epoch)
        self._save_state()
        if self.settings.draw_every and (last or epoch % self.settings.draw_every == 0):
            self.task.module.eval()
            logs.write_images(self.step, self.task.draw(self.directory, epoch))

    def _save_state(self) -> None:
        self.last_saved = time.monotonic()
        if not self.fabric.is_global_zero:
            return
        state = {
            "step": self.step,
            "module": self.task.module.state_dict(),
            "optimizer": self.optimizer.optimizer.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
        }
        with replace_atomically(self.directory / "state.pt") as temporary:
            torch.save(state, temporary)

    def _load_state(self) -> int:
        path = self.directory / "state.pt"
        if not path.exists():
            return 0
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.task.module.load_state_dict(state["module"])
        self.optimizer.optimizer.load_state_dict(state["optimizer"])
        if state["precision"]:  # empty where the state was saved without a gradient scaler
            self.fabric.strategy.precision.load_state_dict(state["precision"])
        return int(state["step"])

    def _check_steps(self) -> None:
        """Every process must go on from the same step."""
        if self.fabric.world_size == 1:
            return
        steps = cast(Tensor, self.fabric.all_gather(torch.tensor(self.step))).tolist()
        if len(set(steps)) > 1:
            raise InputError(
                "training state",
                expected="the same step in every process",
                found=f"steps {sorted(set(steps))}",
                where=str(self.directory / "state.pt"),
                fix="Put --out on a disk that all nodes share.",
            )

    def _report_non_finite(self, value: float, batches: list[Batch], epoch: int) -> None:
        """Save the state before the step and name the batch; the parameters have not been touched yet."""
        report = self.directory / f"nonfinite-rank{self.fabric.global_rank}.json"
        rows = self.task.describe_rows(batches)
        content = {"loss": str(value), "step": self.step, "epoch": epoch, "images": rows}
        write_atomic(report, json.dumps(content, indent=1).encode())
        self._save_state()
        self.fabric.barrier()  # or torchrun ends the process that is still saving
        raise NonFiniteLossError(
            f"loss: expected a finite number, found {value} at step {self.step} (epoch {epoch + 1}); "
            f"first images of the batch: {', '.join(rows[:3])} (all in {report}). The state before this step is in "
            f"{self.directory / 'state.pt'}; start again with a lower --base-lr or --precision fp32 to go on from it."
        )


class Logs:
    """log.jsonl and TensorBoard of one run; does nothing on processes other than the first."""

    def __init__(self, directory: Path, step: int, *, enabled: bool) -> None:
        self.file = None
        if enabled:
            from torch.utils.tensorboard import SummaryWriter  # slow to import, needed by the first process only

            self.file = (directory / "log.jsonl").open("a")
            self.board = SummaryWriter(str(directory / "tensorboard"), purge_step=step)

    def __enter__(self) -> Logs:
        return self

    def __exit__(self, *_: object) -> None:
        if self.file is not None:
            self.file.close()
            self.board.close()

    def write(self, step: int, epoch: int, loss: float, rate: float, images_per_second: float) -> None:
        """One step: loss in full precision, learning rate, images/s of the whole run."""
        if self.file is None:
            return
        record = {"step": step, "epoch": epoch, "loss": loss, "learning_rate": rate}
        self.file.write(json.dumps({**record, "images_per_second": round(images_per_second, 1)}) + "\n")
        self.file.flush()
        for name, value in (("loss", loss), ("learning_rate", rate), ("images_per_second", images_per_second)):
            self.board.add_scalar(name, value, step)

    def write_images(self, step: int, images: dict[str, Tensor]) -> None:
        """Pictures by name, uint8 [3, H, W]."""
        if self.file is not None:
            for name, image in images.items():
                self.board.add_image(name, image, step)


def truncate_log(path: Path, step: int) -> None:
    """Drop the lines of a log at or after `step`, and a last line cut short by a kill."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            break
        if record["step"] < step:
            kept.append(line)
    write_atomic(path, "".join(line + "\n" for line in kept).encode())
