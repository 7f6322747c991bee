"""Pretraining as a task of the training loop: what all methods share, and masked image modeling."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pixmim_eval.data.loader import TrainingLoader, evaluation_batches
from pixmim_eval.errors import BadImageError
from pixmim_eval.models.checkpoints import ours
from pixmim_eval.seeds import derive_seed, uniform
from pixmim_eval.training import ImageTask
from pixmim_eval.types import Batch, LabelSpace, Manifest, Preprocessing
from pretrain.autoencoder import MaskedAutoencoder
from pretrain.methods import METHODS
from pretrain.methods.supervised import SupervisedClassifier
from pretrain.pictures import draw_reconstructions
from pretrain.recipes import Recipe, build_crop, describe_method

PICTURED = 6  # images of a reconstruction picture
PROBED = 15  # images by which a data set's size in pixels is told


def measure_side(manifest: Manifest) -> int:
    """The median short side, in pixels, of a few images spread over the data; 0 where none can be read.

    Half of it is the highest frequency, in cycles per image, that any crop of them holds.
    """
    sides = []
    for row in np.unique(np.linspace(0, len(manifest) - 1, PROBED).astype(int)):
        try:
            sides.append(min(manifest.source.read([int(row)])[0].shape[:2]))
        except BadImageError:  # the loader does with it what the user asked for
            continue
    return int(np.median(sides)) if sides else 0


class PretrainingTask(ImageTask, ABC):
    """A recipe on a data set; see training.Task.

    Args:
        recipe: see Recipe.
        manifest: images.
        device: where the module will be.
        world_size, rank: of the processes that train together.
        on_bad_image: "stop", or "skip" images that cannot be decoded.
    """

    model: MaskedAutoencoder | SupervisedClassifier
    label_space: LabelSpace | None = None  # of the model's classifier

    def __init__(
        self,
        recipe: Recipe,
        manifest: Manifest,
        *,
        device: torch.device,
        world_size: int = 1,
        rank: int = 0,
        on_bad_image: str = "stop",
    ) -> None:
        self.recipe, self.manifest, self.device, self.on_bad_image = recipe, manifest, device, on_bad_image
        self.preprocessing = Preprocessing(size=recipe.image_size, resize=recipe.image_size)
        torch.manual_seed(derive_seed(recipe.seed, "weights"))
        self.model = self.build_model()
        self.module: nn.Module = self.model
        self.loader = TrainingLoader(
            manifest,
            build_crop(recipe),
            batch_size=recipe.batch_size,
            world_size=world_size,
            rank=rank,
            accumulate=recipe.accumulate,
            seed=recipe.seed,
            device=str(device),
            workers=recipe.workers,
            in_memory=recipe.in_memory,
            on_bad_image=on_bad_image,
        )

    @abstractmethod
    def build_model(self) -> MaskedAutoencoder | SupervisedClassifier:
        """The recipe's model, with random weights from torch's global generator."""

    @abstractmethod
    def build_optimizer(self, groups: list[dict[str, Any]], learning_rate: float) -> torch.optim.Optimizer:
        """The method's optimiser."""

    @abstractmethod
    def inputs(self, batch: Batch, epoch: int) -> tuple[Tensor, ...]:
        """What the model takes."""

    @abstractmethod
    def draw(self, directory: Path, epoch: int) -> dict[str, Tensor]:
        """Pictures of what the model does, by name, uint8 [3, H, W]; also saved as files."""

    @abstractmethod
    def describe_recipe(self) -> dict[str, Any]:
        """The recipe as it goes into checkpoints."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Two groups: decayed, and not (vectors, biases, learned positions; class and mask token unless
        recipe.decay_tokens)."""
        decayed: list[nn.Parameter] = []
        exempt: list[nn.Parameter] = []
        for name, parameter in self.model.named_parameters():
            token = name.endswith(("cls_token", "mask_token"))
            free = parameter.ndim <= 1 or name.endswith((".bias", "pos_embed"))
            free = free or (token and not self.recipe.decay_tokens)
            (exempt if free else decayed).append(parameter)
        return [
            {"params": decayed, "weight_decay": self.recipe.weight_decay},
            {"params": exempt, "weight_decay": 0.0},
        ]

    @cached_property
    def data_side(self) -> int:
        """Of its images; see measure_side."""
        return measure_side(self.manifest)

    def save_checkpoint(self, directory: Path, epoch: int) -> None:
        """epoch-NNNN.safetensors: the model and the recipe."""
        recipe = self.recipe
        ours.write(
            directory / f"epoch-{epoch:04d}.safetensors",
            self.model.public_tensors(),
            architecture=self.model.architecture,
            image_size=recipe.image_size,
            method=describe_method(recipe),
            epoch=epoch,
            recipe=self.describe_recipe() | {"data_side": self.data_side},
            label_space=self.label_space,
            dtype=getattr(torch, recipe.save_dtype),
        )


class MaskedImageModeling(PretrainingTask):
    """MAE and what is like it; labels are not used."""

    model: MaskedAutoencoder

    def build_model(self) -> MaskedAutoencoder:
        """See PretrainingTask."""
        return METHODS[self.recipe.method](self.recipe)

    def build_optimizer(self, groups: list[dict[str, Any]], learning_rate: float) -> torch.optim.Optimizer:
        """AdamW in its fused form: one pass over the weights instead of one an operation."""
        return torch.optim.AdamW(groups, lr=learning_rate, betas=(self.recipe.beta1, self.recipe.beta2), fused=True)

    def inputs(self, batch: Batch, epoch: int) -> tuple[Tensor, ...]:
        """Normalised images, and the noise that masks each (depends on seed, epoch and image alone)."""
        return self.normalise(batch.images), self._draw_noise(batch, "mask", epoch)

    def _draw_noise(self, batch: Batch, *purpose: str | int) -> Tensor:
        return uniform(derive_seed(self.recipe.seed, *purpose), batch.index.to(self.device), self.model.units)

    def describe_recipe(self) -> dict[str, Any]:
        """Every field, and what readers of checkpoints ask of every method, whatever its target is called."""
        return dataclasses.asdict(self.recipe) | {"normalise_target": self.model.normalise_target}

    def draw(self, directory: Path, epoch: int) -> dict[str, Tensor]:
        """reconstruction-NNNN.png: input, masked input, prediction and target of the same few images every time."""
        rows = np.linspace(0, len(self.manifest) - 1, PICTURED).astype(np.int64)
        batches = evaluation_batches(
            self.manifest,
            self.preprocessing,
            rows=rows,
            batch_size=PICTURED,
            workers=0,
            on_bad_image=self.on_bad_image,
        )
        batch = next(batches, None)
        if batch is None:  # every one of them was skipped as bad
            return {}
        images = self.normalise(batch.images)
        reconstruction = self.model.reconstruct(images, self._draw_noise(batch, "picture"))
        side = self.recipe.image_size // self.recipe.patch
        path = directory / f"reconstruction-{epoch:04d}.png"
        picture = draw_reconstructions(images, reconstruction, self.recipe.patch, (side, side), path)
        return {"reconstruction": picture}
