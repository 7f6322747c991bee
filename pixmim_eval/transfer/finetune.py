"""Fine-tuning: the whole encoder is trained further, with a classifier on top, by MAE's published recipe."""

from __future__ import annotations

from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from timm.loss import SoftTargetCrossEntropy
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from pixmim_eval.data.crops import RandomResizedCrop
from pixmim_eval.data.loader import TrainingLoader
from pixmim_eval.devices import resolve_precision
from pixmim_eval.extract import share
from pixmim_eval.models.checkpoints import ours
from pixmim_eval.models.checkpoints.reading import digest_tensors
from pixmim_eval.models.timm_models import TimmEncoder
from pixmim_eval.seeds import derive_seed, uniform
from pixmim_eval.training import ImageTask, TrainingSettings, build_fabric, scale_learning_rate
from pixmim_eval.transfer.augmentation import Mixer, RandAugment
from pixmim_eval.transfer.networks import EPSILON, Groups, TunedClassifier, build_network, group_by_layer
from pixmim_eval.transfer.paths import CALLS, RowDropPath, place_paths
from pixmim_eval.transfer.recipes import FinetuneRecipe
from pixmim_eval.transfer.running import compute_training_key, find_folder, train_in
from pixmim_eval.transfer.training_set import Division, divide_batch, select_training_set
from pixmim_eval.types import Batch, Manifest, Model, Preprocessing, SuiteConfig

VERSION = 1  # raised with every change of what the weights become


@dataclass(frozen=True)
class Finetuned:
    """What fine-tuning gives.

    Args:
        model: a classifier with its own digest.
        average: the same with the moving average of the weights, where the recipe asks for it.
        protocol: what a row's protocol says of the training.
    """

    model: Model
    average: Model | None
    protocol: dict[str, str]


def finetune(model: Model, train_set: Manifest, config: SuiteConfig, recipe: FinetuneRecipe) -> Finetuned:
    """Fine-tune a model, or go on where a killed run stopped (in config.out/training).

    The fine-tuned weights of a ViT or ConvViT with MAE's LayerNorms and ImageNet's normalisation are left there as
    `finetuned.safetensors`, a checkpoint that opens as the same classifier (`finetuned-ema.safetensors`: the average).

    Args:
        model: its encoder is copied; a classifier that it has is dropped.
        train_set: labelled images; config.limit picks from them.
        config: of the run.
        recipe: all settings.

    Raises:
        InputError: images without labels, a class token asked of an encoder without one, a batch that cannot be dealt
            out, a network without residual branches that is to drop some.
        FloatingPointError: the loss is not finite.

    Source: MAE, official code, main_finetune.py, engine_finetune.py, util/lr_decay.py and FINETUNE.md; ConvMAE's
        likewise.
    Differs: random numbers depend on seed, epoch and image, so that results do not depend on processes and workers.
        Batch norms of timm's models keep the statistics of their pretraining.
    """
    chosen = select_training_set(train_set, config.limit)
    recipe = replace(recipe, precision=resolve_precision(config.device, recipe.precision))
    fabric = build_fabric(config.device, recipe.precision)
    division = divide_batch(
        recipe.train_batch_size,
        len(chosen),
        group=recipe.mix_images,
        processes=fabric.world_size,
        at_once=recipe.micro_batch,
    )
    task = FineTuning(model, chosen, config, recipe, division, fabric)
    settings = (astuple(replace(recipe, micro_batch=0)), division.batch, division.group)
    work = (chosen.digest, chosen.label_space, *settings)
    directory = find_folder(config, "finetune", compute_training_key("finetune", VERSION, model, config, *work))
    train_in(directory, fabric, task, _build_settings(recipe, division, config.seed))
    average = task.learner.average
    return Finetuned(
        _make_model(task.learner.network, model, chosen),
        _make_model(average.module, model, chosen) if average is not None else None,
        _describe(recipe, division, chosen, "own" if isinstance(model.encoder, TimmEncoder) else recipe.pooling),
    )


def _build_settings(recipe: FinetuneRecipe, division: Division, seed: int) -> TrainingSettings:
    return TrainingSettings(
        epochs=recipe.epochs,
        batch_size=division.batch,
        accumulate=division.accumulate,
        learning_rate=scale_learning_rate(recipe.base_lr, division.batch),
        min_learning_rate=recipe.min_lr,
        warmup_epochs=recipe.warmup_epochs,
        compile=False,
        seed=seed,
        save_every=recipe.epochs,
        draw_every=0,
        state_minutes=10.0,
    )


def _make_model(network: nn.Module, model: Model, chosen: Manifest) -> Model:
    network.requires_grad_(False).eval()
    return replace(
        model,
        digest=share(digest_tensors(network.state_dict())),  # processes must name stored outputs alike
        encoder=network,
        classify=network,
        label_space=chosen.label_space,
        checkpoint=None,
    )


def _describe(recipe: FinetuneRecipe, division: Division, chosen: Manifest, pooling: str) -> dict[str, str]:
    """What the protocol of a row says: every setting that a result depends on."""
    told: dict[str, object] = asdict(recipe) | {
        "train_batch_size": division.batch,
        "mix_images": division.group,
        "train": len(chosen),
    }
    settings = ",".join(f"{name}={value}" for name, value in told.items() if name not in ("micro_batch", "pooling"))
    return {
        "head": f"finetune({settings})",
        "head_data": f"{chosen.name}@{chosen.digest}",
        "pooling": pooling,
    }


class Learner(nn.Module):
    """A network with its loss, its paths and, where asked for, the moving average of its weights.

    Args:
        network: images -> logits.
        paths: of the network, see place_paths.
        ema: decay of the average; 0 for none.
    """

    def __init__(self, network: nn.Module, paths: list[RowDropPath], ema: float) -> None:
        super().__init__()
        self.network = network
        self.average: Any = None
        if ema:
            self.average = ModelEmaV3(network, decay=ema).requires_grad_(False)
        self._paths = list(paths)  # a plain list: they are the network's
        self.loss = SoftTargetCrossEntropy()

    def forward(self, images: Tensor, targets: Tensor, numbers: Tensor) -> Tensor:
        """The loss: mean cross-entropy in nats.

        Args:
            images: float32 [B, 3, S, S], normalised.
            targets: float32 [B, K].
            numbers: float32 [B, paths * CALLS] in [0, 1), which decide on the paths.
        """
        for place, path in enumerate(self._paths):
            path.begin(numbers[:, place * CALLS : (place + 1) * CALLS])
        return self.loss(self.network(images).float(), targets)

    def train(self, mode: bool = True) -> Learner:
        """Training mode but for batch norms, which would make an image depend on the others of its process."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self


class FineTuning(ImageTask):
    """Fine-tuning as a task of the training loop; see finetune."""

    def __init__(
        self,
        model: Model,
        manifest: Manifest,
        config: SuiteConfig,
        recipe: FinetuneRecipe,
        division: Division,
        fabric: Any,
    ) -> None:
        self.model, self.manifest, self.recipe, self.division = model, manifest, recipe, division
        self.preprocessing, self.device, self.seed = model.preprocessing, fabric.device, config.seed
        classes = len(manifest.label_space.classes)
        torch.manual_seed(derive_seed(config.seed, "finetune"))
        network = build_network(model, classes, recipe.pooling)
        paths = place_paths(network, recipe.drop_path)
        self.random_numbers = len(paths) * CALLS
        self.learner = Learner(network, paths, recipe.ema)
        self.module: nn.Module = self.learner
        self.mixer = Mixer(recipe, classes, config.seed)
        self.loader = TrainingLoader(
            manifest,
            RandomResizedCrop(self.preprocessing.size, scale=(recipe.crop_scale, 1.0)),
            batch_size=division.batch,
            world_size=fabric.world_size,
            rank=fabric.global_rank,
            accumulate=division.accumulate,
            seed=config.seed,
            device=str(fabric.device),
            workers=config.workers,
            on_bad_image=config.on_bad_image,
            change=None if recipe.rand_augment == "none" else RandAugment(recipe.rand_augment, self.preprocessing),
        )

    def parameter_groups(self) -> Groups:
        """Weights by layer, each with its share of the learning rate, decayed or not."""
        return group_by_layer(self.learner.network, self.recipe.weight_decay, self.recipe.layer_decay)

    def build_optimizer(self, groups: Groups, learning_rate: float) -> torch.optim.Optimizer:
        """AdamW, after whose steps the average of the weights follows."""
        optimizer = torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.999), eps=1e-8, fused=True)
        if self.learner.average is not None:
            optimizer.register_step_post_hook(lambda *_: self.learner.average.update(self.learner.network))
        return optimizer

    def inputs(self, batch: Batch, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
        """Mixed images, their targets, and what decides on the paths of each image."""
        images, labels = self.normalise(batch.images), batch.labels.to(self.device)
        images, targets = self.mixer(images, labels, batch.index, epoch=epoch, group=self.division.group)
        index = batch.index[: len(images)].to(self.device)
        return images, targets, uniform(derive_seed(self.seed, "paths", epoch), index, self.random_numbers)

    def save_checkpoint(self, directory: Path, epoch: int) -> None:
        """finetuned.safetensors, and the average as finetuned-ema.safetensors."""
        usual = Preprocessing(self.preprocessing.size, 0)  # headers tell neither normalisation nor epsilon
        if (self.preprocessing.mean, self.preprocessing.std) != (usual.mean, usual.std):
            return
        networks: dict[str, Any] = {"finetuned": self.learner.network}
        if self.learner.average is not None:
            networks["finetuned-ema"] = self.learner.average.module
        for name, network in networks.items():
            known = self.model.checkpoint is not None and isinstance(network, TunedClassifier)
            if known and network.epsilon == EPSILON:
                self._write(directory / f"{name}.safetensors", network)

    def _write(self, path: Path, network: TunedClassifier) -> None:
        ours.write(
            path,
            network.public_tensors(),
            architecture=self.model.checkpoint.architecture,
            image_size=self.preprocessing.size,
            method=f"{self.model.method}-finetuned",
            epoch=self.model.epoch or 0,
            recipe=asdict(self.recipe) | {"pretrained": self.model.name, "pretrained_digest": self.model.digest},
            label_space=self.manifest.label_space,
        )
