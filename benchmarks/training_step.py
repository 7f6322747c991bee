"""One pretraining step of MAE, LSMAE or ConvMAE at its published base size: ours beside other implementations of it.

python -m benchmarks.training_step [--method mae|lsmae|convmae] [--public FOLDER] [--steps 5] [--batch 8] [--device cpu]
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from benchmarks.timing import print_table, time_interleaved
from pixmim_eval.devices import computes_bfloat16
from pixmim_eval.types import LabelSpace, Manifest
from pretrain.masking import mask_randomly
from pretrain.recipes import get_recipe
from pretrain.task import MaskedImageModeling
from tests.references.convmae import ReferenceConvMAE
from tests.references.mae import ReferenceMAE
from tests.references.public_code import SOURCES, load_public, run_public, write_attention_out

LEARNING_RATE, WEIGHT_DECAY, BETAS = 1.5e-4, 0.05, (0.9, 0.95)
OURS, TRANSFORMERS = "ours", "transformers ViTMAE"
# dense operations a second of a card in bf16, from its data sheet; by a part of its name
BF16_PEAKS = {"H100": 989e12, "H200": 989e12}
Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Contestant:
    """One implementation.

    Args:
        model: on the benchmark's device.
        optimizer: over its weights.
        loss: (images, noise) -> scalar.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Loss


class NoImages:
    """Stands for a data set: the benchmark feeds its own inputs."""

    def read(self, rows: Sequence[int]) -> list[np.ndarray]:
        raise NotImplementedError


def build_task(method: str, batch: int, device: torch.device) -> MaskedImageModeling:
    """This package's published recipe at the benchmark's batch size, as the training loop gets it."""
    recipe = replace(get_recipe(f"{method}-vit-b16"), batch_size=batch, precision="fp32", in_memory="no", workers=0)
    keys, labels = np.array([str(row) for row in range(batch)]), np.full(batch, -1)
    manifest = Manifest("none", keys, labels, LabelSpace("none", ()), "0" * 16, NoImages())
    task = MaskedImageModeling(recipe, manifest, device=device)
    task.module.to(device)
    return task


def make_inputs(task: MaskedImageModeling) -> tuple[Tensor, Tensor]:
    """Images [B, 3, H, W] and mask noise [B, units], the same for everyone."""
    generator, recipe = torch.Generator().manual_seed(0), task.recipe
    images = torch.randn(recipe.batch_size, 3, recipe.image_size, recipe.image_size, generator=generator)
    noise = torch.rand(recipe.batch_size, task.model.units, generator=generator)
    return images.to(task.device), noise.to(task.device)


def split_by_decay(model: nn.Module) -> list[dict[str, object]]:
    """The public trainers' two groups: no weight decay for vectors and biases."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in trained if parameter.ndim == 1], "weight_decay": 0.0},
        {"params": [parameter for parameter in trained if parameter.ndim > 1], "weight_decay": WEIGHT_DECAY},
    ]


def enter_ours(task: MaskedImageModeling) -> Contestant:
    """This package's method and optimizer."""
    return Contestant(task.module, task.build_optimizer(task.parameter_groups(), LEARNING_RATE), task.module)


def enter(model: nn.Module, loss: Loss, device: torch.device) -> Contestant:
    """A peer with AdamW as the public trainers build it, PyTorch's default."""
    model = model.to(device).train()
    return Contestant(model, torch.optim.AdamW(split_by_decay(model), lr=LEARNING_RATE, betas=BETAS), loss)


def build_reference(method: str) -> tuple[nn.Module, Loss]:
    """The plain definition in tests/references: everything computed, attention written out."""
    if method == "lsmae":
        long = ReferenceMAE(448, decoder_dim=384, decoder_heads=12)
        return long, lambda images, noise: long(images, mask_randomly(noise, 0.75).split(14, 2).restore()).loss
    model: nn.Module = ReferenceConvMAE() if method == "convmae" else ReferenceMAE()
    return model, lambda images, noise: model(images, noise).loss


def build_public(method: str, folder: Path) -> dict[str, tuple[nn.Module, Loss]]:
    """The public code with the fused attention of today's timm, and as it was published."""
    models = {"public code": load_public(method, folder)}
    if method != "convmae":  # which brings its own attention, written out
        models["public code, attention written out"] = write_attention_out(load_public(method, folder))

    def bind(model: nn.Module) -> Loss:
        return lambda images, noise: run_public(method, model, images, noise)[0]

    return {name: (model, bind(model)) for name, model in models.items()}


def build_contestants(task: MaskedImageModeling, public: Path | None) -> dict[str, Contestant]:
    """Ours and its peers, all but transformers' with our weights."""
    method, device = task.recipe.method, task.device
    peers = build_public(method, public) if public else {"public definition": build_reference(method)}
    ours = task.model.public_tensors()
    for model, _ in peers.values():
        model.load_state_dict(ours)
    if method == "mae":
        vit = ViTMAEForPreTraining(ViTMAEConfig(norm_pix_loss=True))
        peers[TRANSFORMERS] = vit, lambda images, noise: vit(images, noise=noise).loss
    return {OURS: enter_ours(task)} | {name: enter(model, loss, device) for name, (model, loss) in peers.items()}


def check_same_work(contestants: dict[str, Contestant], images: Tensor, noise: Tensor) -> None:
    """Stop unless everyone who has our weights gives our loss."""
    with torch.no_grad():
        losses = {name: entry.loss(images, noise).item() for name, entry in contestants.items() if name != TRANSFORMERS}
    for name, loss in losses.items():
        if not math.isclose(loss, losses[OURS], rel_tol=1e-5):
            raise SystemExit(f"not the same work: our loss is {losses[OURS]}, that of {name} {loss}")


def count_operations(contestant: Contestant, images: Tensor, noise: Tensor) -> float:
    """Additions and multiplications of forward and backward in matrix products, convolutions and fused attention."""
    corrected = {torch.ops.aten.convolution_backward: count_convolution_backward}
    with FlopCounterMode(display=False, custom_mapping=corrected) as counter:
        contestant.loss(images, noise).backward()
    contestant.optimizer.zero_grad()
    return float(counter.get_total_flops())


def count_convolution_backward(
    gradient: Sequence[int], images: Sequence[int], weight: Sequence[int], *settings: Any, out_shape: object
) -> int:
    """As many as forward for each of the gradients asked for; PyTorch's own count takes depth-wise ones for dense."""
    return 2 * math.prod(gradient) * math.prod(weight[1:]) * sum(settings[-1][:2])


def build_step(contestant: Contestant, images: Tensor, noise: Tensor, *, autocast: bool) -> Callable[[], float]:
    """Forward, backward, update and a look at the loss: what each of the trainers does in a step."""

    def step() -> float:
        with torch.autocast(images.device.type, torch.bfloat16) if autocast else nullcontext():
            value = contestant.loss(images, noise)
        value.backward()
        contestant.optimizer.step()
        contestant.optimizer.zero_grad()
        return value.item()  # waits for a GPU

    return step


def find_peak(device: torch.device, precision: str) -> float | None:
    """The card's operations a second, where known."""
    if device.type != "cuda" or precision != "bf16":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in BF16_PEAKS.items() if part in name), None)


def compare(
    contestants: dict[str, Contestant],
    operations: dict[str, float],
    inputs: tuple[Tensor, Tensor],
    precision: str,
    steps: int,
) -> list[list[str]]:
    """Table rows of one precision; operations as of `count_operations`."""
    calls = {name: build_step(entry, *inputs, autocast=precision == "bf16") for name, entry in contestants.items()}
    seconds, (images, _) = time_interleaved(calls, steps), inputs
    peak = find_peak(images.device, precision)
    return [
        [
            name,
            precision,
            f"{value:.3g}",
            f"{len(images) / value:.3g}",
            f"{operations[name] / len(images) / 1e9:.1f}",
            f"{operations[name] / value / peak:.2f}" if peak else "",
            f"{value / seconds[OURS]:.2f}",
        ]
        for name, value in seconds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=SOURCES, default="mae")
    parser.add_argument("--public", type=Path, metavar="FOLDER", help="a checkout of the method's public repository")
    parser.add_argument("--batch", type=int, default=8, help="images a step")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each, after one to warm up")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    task = build_task(arguments.method, arguments.batch, arguments.device)
    inputs = make_inputs(task)
    contestants = build_contestants(task, arguments.public)
    check_same_work(contestants, *inputs)
    operations = {name: count_operations(entry, *inputs) for name, entry in contestants.items()}
    where = f"{arguments.threads} threads" if arguments.device.type == "cpu" else torch.cuda.get_device_name()
    print(f"{arguments.method}, batch {arguments.batch}, {where}, torch {torch.__version__}, medians")
    with_bf16 = computes_bfloat16(arguments.device.type)
    rows = [
        row
        for precision in ("fp32", "bf16")[: 1 + with_bf16]
        for row in compare(contestants, operations, inputs, precision, arguments.steps)
    ]
    header = ("step", "precision", "s / step", "images / s", "GFLOP / image", "share of peak", "time / ours")
    print_table(header, rows)
    if not with_bf16:
        print("No bf16 rows: this processor does not compute in bfloat16.")


if __name__ == "__main__":
    main()
