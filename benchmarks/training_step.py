"""One MAE pretraining step of ViT-B/16 on the CPU: ours beside the public definition and transformers' ViTMAE.

python -m benchmarks.training_step [--steps 5] [--threads 2]
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from benchmarks.timing import print_table, time_interleaved
from pixmim_eval.devices import computes_bfloat16
from pixmim_eval.types import LabelSpace, Manifest
from pretrain.recipes import get_recipe
from pretrain.task import MaskedImageModeling
from tests.references.mae import ReferenceMAE

BATCH = 8
LEARNING_RATE, WEIGHT_DECAY, BETAS = 1.5e-4, 0.05, (0.9, 0.95)
Step = Callable[[], float]


def make_inputs() -> tuple[Tensor, Tensor]:
    """Images [8, 3, 224, 224] and mask noise [8, 196], the same for everyone."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(BATCH, 3, 224, 224, generator=generator), torch.rand(BATCH, 196, generator=generator)


def build_step(loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer, *, autocast: bool) -> Step:
    """Forward, look at the loss, backward, update: what each of the three trainers does in a step."""

    def step() -> float:
        with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
            value = loss()
        number = value.item()
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        return number

    return step


def split_by_decay(model: nn.Module) -> list[dict[str, object]]:
    """The public trainer's two groups: no weight decay for vectors and biases."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in trained if parameter.ndim == 1], "weight_decay": 0.0},
        {"params": [parameter for parameter in trained if parameter.ndim > 1], "weight_decay": WEIGHT_DECAY},
    ]


def build_public(images: Tensor, noise: Tensor, *, autocast: bool) -> Step:
    """The public definition: every patch embedded, attention written out, every patch predicted, AdamW's default."""
    model = ReferenceMAE()
    optimizer = torch.optim.AdamW(split_by_decay(model), lr=LEARNING_RATE, betas=BETAS)
    return build_step(lambda: model(images, noise).loss, optimizer, autocast=autocast)


def build_transformers(images: Tensor, noise: Tensor, *, autocast: bool) -> Step:
    """transformers' model with its default attention, and AdamW's default."""
    model = ViTMAEForPreTraining(ViTMAEConfig(norm_pix_loss=True)).train()
    optimizer = torch.optim.AdamW(split_by_decay(model), lr=LEARNING_RATE, betas=BETAS)
    return build_step(lambda: model(images, noise=noise).loss, optimizer, autocast=autocast)


class NoImages:
    """Stands for a data set: the benchmark feeds its own inputs."""

    def read(self, rows: Sequence[int]) -> list[np.ndarray]:
        raise NotImplementedError


def build_task() -> MaskedImageModeling:
    """This package's published MAE recipe at the benchmark's batch size, as the training loop gets it."""
    recipe = replace(get_recipe("mae-vit-b16"), batch_size=BATCH, precision="fp32", in_memory="no", workers=0)
    keys, labels = np.array([str(row) for row in range(BATCH)]), np.full(BATCH, -1)
    manifest = Manifest("none", keys, labels, LabelSpace("none", ()), "0" * 16, NoImages())
    return MaskedImageModeling(recipe, manifest, device=torch.device("cpu"))


def build_ours(images: Tensor, noise: Tensor, *, autocast: bool) -> Step:
    """This package's method and optimizer."""
    task = build_task()
    optimizer = task.build_optimizer(task.parameter_groups(), LEARNING_RATE)
    return build_step(lambda: task.module(images, noise), optimizer, autocast=autocast)


def check_same_work(images: Tensor, noise: Tensor) -> None:
    """Stop unless ours and the public definition give the same loss for the same weights and mask."""
    model, reference = build_task().model, ReferenceMAE()
    reference.load_state_dict(model.public_tensors())
    with torch.no_grad():
        ours, public = model(images, noise).item(), reference(images, noise).loss.item()
    if not math.isclose(ours, public, rel_tol=1e-5):
        raise SystemExit(f"not the same work: our loss {ours}, the public definition's {public}")


BUILDERS = {"ours": build_ours, "public definition": build_public, "transformers ViTMAE": build_transformers}


def compare(precision: str, steps: int) -> list[list[str]]:
    """Table rows of one precision."""
    images, noise = make_inputs()
    calls = {name: build(images, noise, autocast=precision == "bf16") for name, build in BUILDERS.items()}
    seconds = time_interleaved(calls, steps)
    return [
        [name, precision, f"{value:.2f}", f"{BATCH / value:.2f}", f"{value / seconds['ours']:.2f}"]
        for name, value in seconds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each, after one to warm up")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    check_same_work(*make_inputs())
    print(f"ViT-B/16, batch {BATCH}, {arguments.threads} threads, torch {torch.__version__}, medians")
    rows = compare("fp32", arguments.steps)
    if computes_bfloat16("cpu"):
        rows += compare("bf16", arguments.steps)
    print_table(("step", "precision", "s / step", "images / s", "time / ours"), rows)
    if not computes_bfloat16("cpu"):
        print("No bf16 rows: this processor does not compute in bfloat16.")


if __name__ == "__main__":
    main()
