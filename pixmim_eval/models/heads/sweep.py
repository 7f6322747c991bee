"""Many linear heads at once: gradient descent for every learning rate and weight decay in the same two products."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from torch import Tensor

from pixmim_eval.errors import InputError
from pixmim_eval.models.heads.features import CHUNK, Features, standardise
from pixmim_eval.models.heads.linear import LinearHead
from pixmim_eval.seeds import derive_seed, uniform

LEARNING_RATES = tuple(float(f"{10 ** (step / 3 - 3):.2g}") for step in range(13))  # 0.001, 0.0022, … 10
WEIGHT_DECAYS = (0.0, 1e-3)
HELD_OUT = 0.1
MOMENTUM = 0.9
_STEPS = 32  # an epoch at least, where the training set is small
_LEAST_BATCH = 32

Views = Sequence[tuple[np.ndarray, ...]]


@dataclass(frozen=True)
class Grid:
    """The heads of a sweep, and how each of them is trained.

    Args:
        learning_rates, weight_decays: one head for every pair of them.
        epochs: passes over the training set, each over another view of it.
        batch: images a step; fewer where an epoch would have less than 32 steps.
    """

    learning_rates: tuple[float, ...] = LEARNING_RATES
    weight_decays: tuple[float, ...] = WEIGHT_DECAYS
    epochs: int = 30
    batch: int = 1024

    @property
    def pairs(self) -> list[tuple[float, float]]:
        """(learning rate, weight decay) of every head."""
        return list(product(self.learning_rates, self.weight_decays))

    def choose_batch(self, images: int) -> int:
        """Images a step for a training set of so many."""
        return min(self.batch, max(_LEAST_BATCH, images // _STEPS))


@dataclass(frozen=True)
class Choice:
    """The winner of a sweep.

    Args:
        pooling, learning_rate, weight_decay: what was chosen.
        batch, epochs: how the head was trained.
        held_out_top1, held_out_loss: accuracy and cross-entropy in nats on the images that were held out.
        held_out: their number.
    """

    pooling: str
    learning_rate: float
    weight_decay: float
    batch: int
    epochs: int
    held_out_top1: float
    held_out_loss: float
    held_out: int


def sweep_heads(
    candidates: Mapping[str, Views],
    labels: np.ndarray,
    classes: int,
    *,
    index: np.ndarray,
    grid: Grid | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> tuple[LinearHead, Choice]:
    """The best linear head over poolings, learning rates and weight decays, none of them chosen on scored images.

    A tenth of every class is held out. On the rest all heads of a pooling are trained together, epoch e on view
    e mod k, and the one that is most often right on the first view of the held-out images wins (of equal ones that of
    lower cross-entropy). It is then trained once more, on all images.

    Args:
        candidates: pooling -> k views of the training images, the first of them as images are scored; a view is arrays
            [N, D_i] of any float type that stand side by side. They may be memory-mapped: features beyond 1 GiB a view
            are read a batch at a time.
        labels: int64 [N] in [0, classes).
        classes: number K of classes.
        index: int64 [N], rows of the data set; which of them are held out depends on seed and row alone.
        grid: what is tried; by default 13 learning rates and two weight decays.
        seed: of the held-out images and the order of images.
        device: "cpu" or "cuda".

    Raises:
        InputError: no class has an image to spare, labels outside [0, classes), or features that are not finite.
    """
    grid = grid or Grid()
    held_out = hold_out(labels, classes, index=index, seed=seed)
    fitted, rest = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    choices = []
    for pooling, views in candidates.items():
        training = standardise([Features(view, fitted, torch.device(device)) for view in views])
        heads = Heads.train(training, labels[fitted], classes, grid, seed=seed)
        top1, losses = heads.score(replace(training[0], rows=rest), labels[rest])
        for (rate, decay), correct, loss in zip(grid.pairs, top1.tolist(), losses.tolist(), strict=True):
            batch = grid.choose_batch(len(labels))
            choices.append(Choice(pooling, rate, decay, batch, grid.epochs, correct, loss, len(rest)))
    best = max(choices, key=lambda choice: (choice.held_out_top1, -choice.held_out_loss))
    everything = [Features(view, np.arange(len(labels)), torch.device(device)) for view in candidates[best.pooling]]
    single = replace(grid, learning_rates=(best.learning_rate,), weight_decays=(best.weight_decay,))
    training = standardise(everything)
    heads = Heads.train(training, labels, classes, single, seed=seed)
    assert training[0].mean is not None and training[0].scale is not None
    head = LinearHead(
        weight=heads.weight[0].cpu(),
        bias=heads.bias[0].cpu(),
        mean=training[0].mean.cpu(),
        scale=training[0].scale.cpu(),
        pooling=best.pooling,
        l2=best.weight_decay,
        images=len(labels),
        held_out_loss=best.held_out_loss,
    )
    return head, best


def hold_out(
    labels: np.ndarray, classes: int, *, index: np.ndarray, seed: int, fraction: float = HELD_OUT
) -> np.ndarray:
    """Which training images choose and do not train: the same fraction of every class.

    Args:
        labels: int64 [N] in [0, classes).
        classes: number of classes.
        index: int64 [N], rows of the data set.
        seed: of the choice.
        fraction: of each class; at least one image where it has two, none where it has one.

    Returns:
        bool [N].

    Raises:
        InputError: labels outside [0, classes), or no class with two images.
    """
    wrong = labels[(labels < 0) | (labels >= classes)]
    counts = np.bincount(labels[(labels >= 0) & (labels < classes)], minlength=classes)
    if len(wrong) or counts.max(initial=0) < 2:
        raise InputError(
            "training set of a linear head",
            expected=f"labels 0…{classes - 1}, and two images of a class: one to train on, one to choose by",
            found=f"labels such as {wrong[:3].tolist()}" if len(wrong) else f"{len(labels)} images, one a class",
            where="role train",
            fix="Give a labelled data set: --data train=PATH, or raise --limit.",
        )
    wanted = np.where(counts < 2, 0, np.maximum(1, np.round(fraction * counts)))
    chance = uniform(
        derive_seed(seed, "held-out"), torch.from_numpy(np.ascontiguousarray(index)), 1, dtype=torch.float64
    )[:, 0].numpy()
    order = np.lexsort((chance, labels))
    rank = np.empty(len(labels), dtype=np.int64)
    rank[order] = np.arange(len(labels)) - (np.cumsum(counts) - counts)[labels[order]]
    chosen: np.ndarray = rank < wanted[labels]
    return chosen


@dataclass(frozen=True)
class Heads:
    """Linear heads that share their features.

    Args:
        weight: float32 [H, K, D].
        bias: float32 [H, K].
    """

    weight: Tensor
    bias: Tensor

    @classmethod
    @torch.no_grad()
    def train(cls, views: Sequence[Features], labels: np.ndarray, classes: int, grid: Grid, *, seed: int) -> Heads:
        """Heads trained from zero on mean cross-entropy by momentum SGD, the learning rate falling on a cosine to 0.

        All heads see the same batches; a step is two products, whatever their number. Weight decay is added to the
        gradient, as torch.optim.SGD does, and biases have none.

        Args:
            views: standardised features of the same N images; epoch e is on view e mod k.
            labels: int64 [N].
            classes: number K of classes.
            grid: one head a pair of learning rate and weight decay.
            seed: of the order of images.
        """
        device, pairs = views[0].device, torch.tensor(grid.pairs, device=views[0].device)
        (count, width), batch = views[0].shape, grid.choose_batch(len(labels))
        heads = cls(
            torch.zeros(len(pairs), classes, width, device=device), torch.zeros(len(pairs), classes, device=device)
        )
        velocity = cls(torch.zeros_like(heads.weight), torch.zeros_like(heads.bias))
        targets, sources = torch.from_numpy(labels.astype(np.int64)).to(device), [view.load() for view in views]
        steps, step = grid.epochs * math.ceil(count / batch), 0
        for epoch in range(grid.epochs):
            source, rows = sources[epoch % len(sources)], torch.arange(count)
            order = uniform(derive_seed(seed, "sweep", epoch), rows, 1, dtype=torch.float64)[:, 0].argsort()
            for part in order.split(batch):
                place = part.sort().values  # in the order of the file, if they are in one
                chunk = (
                    source[place.to(device)] if isinstance(source, Tensor) else source.read(source.rows[place.numpy()])
                )
                rates = pairs[:, 0] * (0.5 + 0.5 * math.cos(math.pi * step / steps))
                heads._descend(chunk, targets[place.to(device)], velocity, rates, pairs[:, 1])
                step += 1
        return heads

    @torch.no_grad()
    def score(self, features: Features, labels: np.ndarray) -> tuple[Tensor, Tensor]:
        """Accuracy and mean cross-entropy in nats of every head, float64 [H] each; 0 and infinity where it diverged."""
        correct = torch.zeros(len(self.weight), dtype=torch.float64)
        losses = torch.zeros(len(self.weight), dtype=torch.float64)
        targets = torch.from_numpy(labels.astype(np.int64)).to(self.weight.device)
        size = max(1, CHUNK // len(self.weight))
        for chunk, own in zip(features.split(size), targets.split(size), strict=True):
            logits = self._apply(chunk)
            correct += (logits.argmax(dim=2) == own[:, None]).sum(dim=0).cpu()
            own_logits = logits.gather(2, own[:, None, None].expand(-1, len(self.weight), 1))[:, :, 0]
            losses += (logits.logsumexp(dim=2) - own_logits).sum(dim=0, dtype=torch.float64).cpu()
        finite = losses.isfinite()
        return torch.where(finite, correct / len(labels), 0.0), torch.where(finite, losses / len(labels), math.inf)

    def _apply(self, chunk: Tensor) -> Tensor:
        """Logits [B, H, K]."""
        flat = torch.addmm(self.bias.flatten(), chunk, self.weight.flatten(0, 1).T)
        return flat.unflatten(1, self.bias.shape)

    def _descend(self, chunk: Tensor, labels: Tensor, velocity: Heads, rates: Tensor, decays: Tensor) -> None:
        """One step of all heads, in place."""
        errors = self._apply(chunk).softmax(dim=2)
        own = labels[:, None, None].expand(-1, len(self.weight), 1)
        errors.scatter_add_(2, own, errors.new_full((1, 1, 1), -1.0).expand_as(own))
        flat = errors.flatten(1)
        velocity.weight.flatten(0, 1).addmm_(flat.T, chunk, beta=MOMENTUM, alpha=1 / len(chunk))
        velocity.weight.addcmul_(self.weight, decays[:, None, None])
        velocity.bias.mul_(MOMENTUM).add_(errors.mean(dim=0))
        self.weight.addcmul_(velocity.weight, rates[:, None, None], value=-1)
        self.bias.addcmul_(velocity.bias, rates[:, None], value=-1)
