"""Training for an evaluation: in a folder of the run, where a killed one goes on; what fails lets others go on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch
from lightning_fabric import Fabric
from torch import nn

from pixmim_eval.errors import NonFiniteLossError
from pixmim_eval.extract import digest_code, identify_model, wait_for_all
from pixmim_eval.results import hash_parts
from pixmim_eval.training import Task, TrainingSettings, train
from pixmim_eval.types import Model, SuiteConfig


class IterationRecipe(Protocol):
    """What recipes that count iterations, not epochs, have in common."""

    @property
    def iterations(self) -> int: ...

    @property
    def train_batch_size(self) -> int: ...

    @property
    def accumulate(self) -> int: ...

    @property
    def learning_rate(self) -> float: ...

    @property
    def warmup_iterations(self) -> int: ...


def compute_training_key(kind: str, version: int, model: Model, config: SuiteConfig, *work: object) -> str:
    """16 hex digits of all that trained weights depend on.

    Args:
        kind, version: of the training.
        model: whose encoder it starts from.
        config: of the run.
        work: the data and the settings.
    """
    bare = identify_model(replace(model, classify=None, label_space=None))
    of_run = (config.seed, config.on_bad_image, torch.device(config.device).type, digest_code())
    return hash_parts(kind, version, bare, *work, *of_run)


def find_folder(config: SuiteConfig, kind: str, key: str) -> Path:
    """Where a training keeps its state, in the run's folder."""
    return config.out / "training" / f"{kind}-{key}"


def plan_iterations(
    recipe: IterationRecipe, seed: int, *, poly_power: float | None = None, drops: tuple[float, ...] = ()
) -> TrainingSettings:
    """Settings of a training whose one epoch is all iterations; the learning rate decays as TrainingSettings says."""
    return TrainingSettings(
        epochs=1,
        batch_size=recipe.train_batch_size,
        accumulate=recipe.accumulate,
        learning_rate=recipe.learning_rate,
        min_learning_rate=0.0,
        warmup_epochs=recipe.warmup_iterations / recipe.iterations,
        compile=False,
        seed=seed,
        save_every=1,
        draw_every=0,
        state_minutes=10.0,
        poly_power=poly_power,
        drops=drops,
    )


def is_finished(folder: Path, iterations: int) -> bool:
    """Whether the training in this folder is at its end."""
    path = folder / "state.pt"
    return path.exists() and torch.load(path, map_location="cpu", weights_only=True, mmap=True)["step"] >= iterations


def load_weights(folder: Path, network: nn.Module) -> None:
    """Give a network the weights of the training in this folder."""
    network.load_state_dict(torch.load(folder / "state.pt", map_location="cpu", weights_only=True)["module"])


def train_in(directory: Path, fabric: Fabric, task: Task, settings: TrainingSettings) -> None:
    """Train a task to its end, in a folder that is made where it is missing; see training.train.

    Raises:
        FloatingPointError: the loss is not finite; what the loop says of it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    try:
        train(fabric, task, settings, directory)
    except NonFiniteLossError as error:
        raise FloatingPointError(str(error)) from error
    wait_for_all()
