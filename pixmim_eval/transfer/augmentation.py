"""timm's augmentations with random numbers that depend on (seed, epoch, image) alone.

They draw from the global generators of Python, NumPy and torch, which are set anew for every image, and put back.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from timm.data import Mixup, create_transform
from timm.data.mixup import mixup_target
from timm.data.random_erasing import RandomErasing
from torch import Tensor

from pixmim_eval.seeds import derive_seed
from pixmim_eval.transfer.recipes import FinetuneRecipe
from pixmim_eval.types import Preprocessing


@contextmanager
def kept_generators() -> Iterator[None]:
    """Put the global generators (of torch that of the CPU) back as they were."""
    of_python, of_numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)


def set_generators(seed: int) -> None:
    """Start the global generators (of torch that of the CPU) from a seed."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)


@dataclass(frozen=True)
class RandAugment:
    """timm's RandAugment as a data.loader.Change.

    Args:
        policy: e.g. "rand-m9-mstd0.5-inc1".
        preprocessing: of the model: size of the crops, and the mean colour that fills what moves in.

    Source: Cubuk et al., arXiv 1909.13719; timm's create_transform, as MAE's fine-tuning calls it.
    """

    policy: str
    preprocessing: Preprocessing

    @cached_property
    def transform(self) -> Any:
        """timm's transform of one PIL image."""
        settings = self.preprocessing
        parts = create_transform(
            settings.size,
            is_training=True,
            auto_augment=self.policy,
            interpolation="bicubic",
            mean=settings.mean,
            std=settings.std,
            separate=True,
        )
        (chosen,) = parts[1].transforms  # between crop and flip, and what comes after normalisation
        for operation in chosen.ops:
            if operation.name.startswith("Posterize"):
                operation.aug_fn = posterize
        return chosen

    def __call__(self, image: np.ndarray, seed: int) -> np.ndarray:
        with kept_generators():
            set_generators(seed)
            return np.array(self.transform(Image.fromarray(np.ascontiguousarray(image))))


def posterize(image: Image.Image, bits: int, **_: Any) -> Image.Image:
    """Keep the highest bits of each level; of none, black is left.

    Differs: timm calls Pillow, whose newer versions stop at 0 bits, which the published policy asks for in one of
        forty times that it posterises. Older ones gave black.
    """
    if bits >= 8:
        return image
    return ImageOps.posterize(image, bits) if bits else Image.new(image.mode, image.size)


class Mixer:
    """Random erasing of each image, then mixup or CutMix group by group, and label smoothing.

    Args:
        recipe: which, and how strong.
        classes: number K.
        seed: of the run.

    Source: Zhong et al., arXiv 1708.04896 (one rectangle of noise per pixel); Zhang et al., arXiv 1710.09412; Yun et
        al., arXiv 1905.04899; timm's, with the arguments of MAE's main_finetune.py. There each GPU mixes its 32 images
        in one way; here each group of recipe.mix_images, on any number of processes.
    """

    def __init__(self, recipe: FinetuneRecipe, classes: int, seed: int) -> None:
        self.classes, self.seed, self.smoothing = classes, seed, recipe.label_smoothing
        self.erase = RandomErasing(recipe.random_erasing, mode="pixel", max_count=1, num_splits=0, device="cpu")
        self.mixup: Any = None
        if recipe.mixup or recipe.cutmix:
            self.mixup = Mixup(
                mixup_alpha=recipe.mixup,
                cutmix_alpha=recipe.cutmix,
                switch_prob=recipe.mixup_switch_prob,
                label_smoothing=recipe.label_smoothing,
                num_classes=classes,
            )

    def __call__(
        self, images: Tensor, labels: Tensor, index: Tensor, *, epoch: int, group: int
    ) -> tuple[Tensor, Tensor]:
        """Images and targets of a micro-batch.

        Args:
            images: float32 [B, 3, S, S], normalised; changed in place.
            labels: int64 [B].
            index: int64 [B] rows of the training set. What is erased of image i depends on (seed, epoch, index[i])
                alone; how a group is mixed, on (seed, epoch, its first row).
            epoch: from 0.
            group: images that are mixed in one way; the last group may be smaller where images were skipped.

        Returns:
            Images, and targets float32 [B, K] whose rows sum to one. Of an odd number of images the last is left out;
            a single one has nothing to be mixed with.
        """
        rows = index.tolist()
        with kept_generators():
            if self.erase.probability:
                for image, row in zip(images, rows, strict=True):
                    set_generators(derive_seed(self.seed, "erase", epoch, row))
                    self.erase(image)
            if self.mixup is None or len(rows) < 2:
                return images, mixup_target(labels, self.classes, 1.0, self.smoothing)
            mixed = []
            for start in range(0, len(rows) // 2 * 2, group):
                part = slice(start, min(start + group, len(rows) // 2 * 2))
                set_generators(derive_seed(self.seed, "mix", epoch, rows[start]))
                mixed.append(self.mixup(images[part], labels[part]))
        pictures, targets = zip(*mixed, strict=True)
        return torch.cat(pictures), torch.cat(targets)
