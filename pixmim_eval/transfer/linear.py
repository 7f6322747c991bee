"""MAE's linear probe to the letter: 90 epochs of fresh crops through a frozen encoder, batch norm, LARS."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, dataclass
from typing import Any, Literal

import torch
from timm.optim import Lars
from torch import Tensor, nn
from torch.nn import functional as F

from pixmim_eval.data.crops import SingleTryResizedCrop
from pixmim_eval.data.loader import TrainingLoader
from pixmim_eval.errors import InputError
from pixmim_eval.extract import share
from pixmim_eval.extract.passes import find_bad_layer, pool_tokens
from pixmim_eval.extract.processes import MODEL_VALUES, split_over_threads
from pixmim_eval.models.heads import LinearHead
from pixmim_eval.seeds import derive_seed
from pixmim_eval.training import ImageTask, TrainingSettings, build_fabric, scale_learning_rate
from pixmim_eval.transfer.running import compute_training_key, find_folder, train_in
from pixmim_eval.transfer.training_set import Division, divide_batch, select_training_set
from pixmim_eval.types import Batch, Manifest, Model, SuiteConfig

PROTOCOL = "mae-90e"
VERSION = 1  # raised with every change of what the head becomes
EPSILON = 1e-6  # of the batch norm
NORM_MOMENTUM = 0.1
HEAD_DEVIATION = 0.01


@dataclass(frozen=True)
class ProbeOptions:
    """What can be set of the protocol `mae-90e`; the defaults are the published settings.

    Args:
        epochs: passes over the training set (90; 50 for ViT-L and ViT-H).
        batch_size: images a step.
        base_lr: learning rate for 256 images.
        warmup_epochs: linear from 0.
        pooling: "cls", "mean" (of the patch tokens after the final norm) or "auto": the class token where there is one.
        norm_images: images whose statistics normalise them, as one GPU of the published runs had.
    """

    epochs: int = 90
    batch_size: int = 16384
    base_lr: float = 0.1
    warmup_epochs: float = 10.0
    pooling: Literal["auto", "cls", "mean"] = "auto"
    norm_images: int = 512


def train_linear_probe(
    model: Model, train_set: Manifest, config: SuiteConfig, options: ProbeOptions
) -> tuple[LinearHead, dict[str, str]]:
    """Train the published linear probe, or go on where a killed run stopped (in config.out/training).

    Args:
        model: only its encoder is used, frozen and in eval mode.
        train_set: labelled images; config.limit picks from them.
        config: of the run.
        options: see ProbeOptions.

    Returns:
        The head, which standardises with the running statistics of the batch norm; and what a row's protocol says of
        it.

    Raises:
        InputError: images without labels, a class token asked of an encoder without one, a batch that cannot be dealt
            out.
        FloatingPointError: features, or the loss, are not finite.

    Source: MAE, official code, main_linprobe.py, util/lars.py, util/crop.py and FINETUNE.md: LARS with momentum 0.9,
        base lr 0.1, no weight decay, batch 16,384, 90 epochs, 10 of warm-up, cosine to 0; the single-try crop and
        flips; BatchNorm1d without learned factors (eps 1e-6) on the class token after the final norm; weights from a
        truncated normal of deviation 0.01. The batch norm is not synchronised there: each of 32 GPUs normalises its 512
        images with their own statistics, and the running statistics, of the first GPU, are what is kept. Here too, on
        any number of processes: groups of 512 images, of which the first of each step is what is kept.
    Differs: the head computes in float32 and the encoder in the precision that evaluation has (published: float16
        autocast). The official option for mean pooling takes the mean before the final norm, and normalises that by a
        LayerNorm without learned factors; here it is the mean of the normalised tokens, as in all other suites.
    """
    chosen = select_training_set(train_set, config.limit)
    fabric = build_fabric(config.device, "fp32")
    division = divide_batch(
        options.batch_size,
        len(chosen),
        group=options.norm_images,
        processes=fabric.world_size,
        at_once=options.norm_images,
        may_split=True,
    )
    pooling, dim = resolve_pooling(model, options.pooling)
    task = LinearProbe(model, chosen, config, division, pooling=pooling, dim=dim, fabric=fabric)
    settings = TrainingSettings(
        epochs=options.epochs,
        batch_size=division.batch,
        accumulate=division.accumulate,
        learning_rate=scale_learning_rate(options.base_lr, division.batch),
        min_learning_rate=0.0,
        warmup_epochs=options.warmup_epochs,
        compile=False,
        seed=config.seed,
        save_every=options.epochs,
        draw_every=0,
        state_minutes=10.0,
    )
    work = (chosen.digest, chosen.label_space, astuple(options), pooling, division.batch, division.group)
    key = compute_training_key(PROTOCOL, VERSION, model, config, *work)
    train_in(find_folder(config, "linear-probe", key), fabric, task, settings)
    return share(task.build_head()).to(config.device), describe_probe(chosen, options, division, pooling)


def resolve_pooling(model: Model, asked: str) -> tuple[str, int]:
    """The pooling that is meant, and its width.

    Raises:
        InputError: a class token is asked of an encoder without one.
    """
    size = model.preprocessing.size
    parameter = next(model.encoder.parameters())
    with torch.inference_mode():
        pooled = pool_tokens(model.encoder, torch.zeros(1, 3, size, size, device=parameter.device))
    pooling = next(iter(pooled)) if asked == "auto" else asked  # the class token comes first
    if pooling not in pooled:
        raise InputError(
            "pooling",
            expected=f"one that the encoder has: {', '.join(pooled)}",
            found=asked,
            where=f"--pooling, model {model.name}",
            fix="Its encoder has no class token: use --pooling mean.",
        )
    return pooling, pooled[pooling].shape[1]


def describe_probe(chosen: Manifest, options: ProbeOptions, division: Division, pooling: str) -> dict[str, str]:
    """What the protocol of a row says of the probe."""
    rate = f"base_lr={options.base_lr:g},batch={division.batch},norm={division.group}"
    schedule = f"epochs={options.epochs},warmup={options.warmup_epochs:g}"
    return {
        "head": f"{PROTOCOL}(lars,{rate},{schedule},pool={pooling},train={len(chosen)})",
        "head_data": f"{chosen.name}@{chosen.digest}",
        "pooling": pooling,
    }


class ProbeHead(nn.Module):
    """The linear layer, and the running statistics of the batch norm before it."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, classes)
        nn.init.trunc_normal_(self.linear.weight, std=HEAD_DEVIATION)
        nn.init.zeros_(self.linear.bias)
        self.mean: Tensor
        self.variance: Tensor
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("variance", torch.ones(dim))

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy in nats of normalised features float32 [B, D] and labels int64 [B]."""
        return F.cross_entropy(self.linear(features), labels)


class LinearProbe(ImageTask):
    """The probe as a task of the training loop; see train_linear_probe.

    What the optimizer trains is the head alone. Encoder and batch norm have no weights to learn, so features are
    computed and normalised outside of it, without gradients.
    """

    def __init__(
        self,
        model: Model,
        manifest: Manifest,
        config: SuiteConfig,
        division: Division,
        *,
        pooling: str,
        dim: int,
        fabric: Any,
    ) -> None:
        self.manifest, self.preprocessing, self.device = manifest, model.preprocessing, fabric.device
        self.model, self.division, self.pooling, self.fabric = model, division, pooling, fabric
        self.first = False  # whether the next micro-batch is the first of its step
        torch.manual_seed(derive_seed(config.seed, "probe"))
        self.head = ProbeHead(dim, len(manifest.label_space.classes))
        self.module: nn.Module = self.head
        self.loader = TrainingLoader(
            manifest,
            SingleTryResizedCrop(model.preprocessing.size),
            batch_size=division.batch,
            world_size=fabric.world_size,
            rank=fabric.global_rank,
            accumulate=division.accumulate,
            seed=config.seed,
            device=str(fabric.device),
            workers=config.workers,
            on_bad_image=config.on_bad_image,
        )

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The weights, with a trust ratio, and the biases, without."""
        return group_for_lars(self.head.parameters())

    def build_optimizer(self, groups: list[dict[str, Any]], learning_rate: float) -> torch.optim.Optimizer:
        """See build_lars."""
        return build_lars(groups, learning_rate)

    def batches(self, epoch: int, first_step: int) -> Iterator[Batch]:
        """Micro-batches of an epoch from a step on."""
        for number, batch in enumerate(super().batches(epoch, first_step)):
            self.first = number % self.division.accumulate == 0
            yield batch

    def inputs(self, batch: Batch, epoch: int) -> tuple[Tensor, Tensor]:
        """Features, normalised group by group, and labels."""
        features, labels = self._extract(batch), batch.labels.to(self.device)
        if self.division.split:
            return self._normalise(features, update=self.first), labels
        parts = features.split(self.division.group)
        normal = [self._normalise(part, update=self.first and not number) for number, part in enumerate(parts)]
        return torch.cat(normal), labels

    def build_head(self) -> LinearHead:
        """The probe as a classifier on pooled features, on the CPU."""
        state = {name: value.detach().float().cpu() for name, value in self.head.state_dict().items()}
        return LinearHead(
            weight=state["linear.weight"],
            bias=state["linear.bias"],
            mean=state["mean"],
            scale=(state["variance"] + EPSILON).sqrt(),
            pooling=self.pooling,
            l2=0.0,
            images=len(self.manifest),
            held_out_loss=float("nan"),
        )

    def _extract(self, batch: Batch) -> Tensor:
        """Pooled features of a micro-batch, float32 [B, D]. Raises FloatingPointError where they are not finite."""
        device = self.device

        def forward(images: Tensor, _: Tensor) -> Tensor:
            with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                return pool_tokens(self.model.encoder, self.normalise(images))[self.pooling].float()

        parts = split_over_threads(forward, batch.images, batch.index, device=device, values=MODEL_VALUES)
        features = torch.cat(parts)
        bad = (~features.isfinite()).any(dim=1)
        if bad.any():
            row = batch.index[bad].cpu()[:1]
            layer = find_bad_layer(self.model.encoder, lambda: forward(batch.images[bad][:1], row))
            raise FloatingPointError(
                f"features {self.pooling} of model {self.model.name} are not finite for {int(bad.sum())} of {len(bad)} "
                f"images of a batch of {self.manifest.name}: {self.manifest.keys[int(row)]} is the first, where layer "
                f"{layer} is the first to give such"
            )
        return features

    def _normalise(self, features: Tensor, *, update: bool) -> Tensor:
        """Features normalised with their own statistics, which `update` also adds to the running ones."""
        count = self._sum(torch.tensor(float(len(features)), device=self.device))
        mean = self._sum(features.sum(dim=0)) / count
        centred = features - mean
        variance = self._sum(centred.square().sum(dim=0)) / count
        if update:
            self.head.mean.lerp_(mean, NORM_MOMENTUM)
            self.head.variance.lerp_(variance * count / (count - 1).clamp(min=1), NORM_MOMENTUM)
        return centred * (variance + EPSILON).rsqrt()

    def _sum(self, value: Tensor) -> Tensor:
        """Over the processes that share a group."""
        if not self.division.split or self.fabric.world_size == 1:
            return value
        total: Tensor = self.fabric.all_reduce(value, reduce_op="sum")
        return total


def group_for_lars(parameters: Any) -> list[dict[str, Any]]:
    """Parameters for build_lars: matrices, which have a trust ratio, and vectors, which have none."""
    listed = list(parameters)
    return [
        {"params": [parameter for parameter in listed if parameter.ndim > 1], "always_adapt": True},
        {"params": [parameter for parameter in listed if parameter.ndim <= 1], "always_adapt": False},
    ]


def build_lars(groups: list[dict[str, Any]], learning_rate: float) -> torch.optim.Optimizer:
    """timm's LARS, set so that it does the published update.

    Args:
        groups: see group_for_lars.
        learning_rate: after the base-lr rule.

    Source: MAE, official code, util/lars.py (from MoCo v3): trust coefficient 0.001, momentum 0.9; no trust ratio and
        no weight decay for vectors.
    """
    return Lars(groups, lr=learning_rate, momentum=0.9, weight_decay=0.0, trust_coeff=0.001, eps=0.0)
