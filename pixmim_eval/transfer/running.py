"""Training for an evaluation: in a folder of the run, where a killed one goes on; what fails lets others go on."""

from __future__ import annotations

from pathlib import Path

from lightning_fabric import Fabric

from pixmim_eval.errors import NonFiniteLossError
from pixmim_eval.extract import wait_for_all
from pixmim_eval.training import Task, TrainingSettings, train


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
