"""Training with labels as a task of the training loop."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from timm.optim import Lamb
from torch import Tensor

from pixmim_eval.seeds import derive_seed
from pixmim_eval.types import Batch
from pretrain.augmentation import augment_three, draw_mixing, mix
from pretrain.methods import SUPERVISED_METHODS
from pretrain.methods.supervised import SupervisedClassifier
from pretrain.recipes import MASKED_FIELDS
from pretrain.task import PretrainingTask


class SupervisedLearning(PretrainingTask):
    """DeiT III: the same crops as masked image modeling, then 3-Augment, mixup or CutMix, and labels.

    Differs: DeiT III's code repeats augmentation, three crops of each image in a batch; here an epoch shows every image
        once. Its learning rate warms up from 1e-6, epoch by epoch; here from 0, step by step.
    """

    model: SupervisedClassifier

    def build_model(self) -> SupervisedClassifier:
        """See PretrainingTask."""
        self.label_space = self.manifest.label_space
        return SUPERVISED_METHODS[self.recipe.method](self.recipe, len(self.label_space.classes))

    def build_optimizer(self, groups: list[dict[str, Any]], learning_rate: float) -> torch.optim.Optimizer:
        """LAMB with the gradient's norm clipped to 1, as apex's FusedLAMB, which DeiT III took with its eps of 1e-8."""
        betas = (self.recipe.beta1, self.recipe.beta2)
        return Lamb(groups, lr=learning_rate, betas=betas, eps=1e-8, max_grad_norm=1.0)

    def inputs(self, batch: Batch, epoch: int) -> tuple[Tensor, Tensor]:
        """Mixed images and targets. An image's own changes depend on (seed, epoch, image) alone; how a micro-batch is
        mixed, on (seed, epoch, its first image)."""
        seed = self.recipe.seed
        images = batch.images.to(self.device, non_blocking=True)
        images = augment_three(images, derive_seed(seed, "augment", epoch), batch.index)
        mixing = draw_mixing(images.shape[-1], derive_seed(seed, "mix", epoch, int(batch.index[0])))
        return mix(self.normalise(images), batch.labels.to(self.device), self.model.network.num_classes, mixing)

    def describe_recipe(self) -> dict[str, Any]:
        """Every field that means something here."""
        return {key: value for key, value in dataclasses.asdict(self.recipe).items() if key not in MASKED_FIELDS}

    def draw(self, directory: Path, epoch: int) -> dict[str, Tensor]:
        """Nothing is reconstructed."""
        return {}
