"""UperNet on a pretrained encoder, trained whole: the network, and its training as a task of the training loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, astuple, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from pixmim_eval.data.segmentation import IGNORED, SegmentationSet
from pixmim_eval.errors import BadImageError, InputError
from pixmim_eval.models.convvit import ConvVisionTransformer
from pixmim_eval.seeds import derive_seed, uniform
from pixmim_eval.training import build_fabric
from pixmim_eval.transfer.endless import EndlessTask, check_batch, pick_row
from pixmim_eval.transfer.networks import group_by_layer
from pixmim_eval.transfer.paths import CALLS, place_paths
from pixmim_eval.transfer.running import (
    compute_training_key,
    find_folder,
    is_finished,
    load_weights,
    plan_iterations,
    train_in,
)
from pixmim_eval.transfer.segmentation.backbone import ConvBackbone, ViTBackbone, build_backbone
from pixmim_eval.transfer.segmentation.crops import MaskedCrop
from pixmim_eval.transfer.segmentation.examples import logger, read_pairs
from pixmim_eval.transfer.segmentation.heads import FcnHead, RowDropout, UperHead, resize_maps
from pixmim_eval.transfer.segmentation.recipes import UperNetRecipe
from pixmim_eval.types import Batch, Model, SuiteConfig

VERSION = 2  # raised with every change of what the weights become
AUXILIARY_LEVEL = 2  # of the backbone's maps


class UperNet(nn.Module):
    """A backbone with UperNet's head, an auxiliary head on its third map, and the loss of both.

    Args:
        backbone: gives four maps.
        classes: number K of classes.
        recipe: widths, dropout and drop path.
    """

    def __init__(self, backbone: ViTBackbone | ConvBackbone, classes: int, recipe: UperNetRecipe) -> None:
        super().__init__()
        self.backbone, self.auxiliary_weight = backbone, recipe.auxiliary_weight
        self.head = UperHead(backbone.dims, recipe.channels, classes, recipe.dropout)
        self.auxiliary: FcnHead | None = None
        if recipe.auxiliary_weight:
            width = backbone.dims[AUXILIARY_LEVEL]
            self.auxiliary = FcnHead(width, recipe.auxiliary_channels, classes, recipe.dropout)
        self._paths = place_paths(backbone, recipe.drop_path)
        self._dropouts = [module for module in self.modules() if isinstance(module, RowDropout) and module.rate]

    @property
    def random_numbers(self) -> int:
        """How many random numbers an image takes."""
        return len(self._paths) * CALLS + sum(dropout.channels for dropout in self._dropouts)

    def forward(self, images: Tensor, labels: Tensor, numbers: Tensor) -> Tensor:
        """The loss: mean cross-entropy in nats, of both heads.

        Args:
            images: float32 [B, 3, S, S], normalised.
            labels: int64 [B, S, S], IGNORED where there is no class.
            numbers: float32 [B, random_numbers] in [0, 1), which decide on paths and channels.
        """
        start = 0
        for owner, count in [(path, CALLS) for path in self._paths] + [(one, one.channels) for one in self._dropouts]:
            owner.begin(numbers[:, start : start + count])
            start += count
        maps = self.backbone(images)
        loss = measure_pixel_loss(self.head(maps), labels)
        if self.auxiliary is not None:
            loss = loss + self.auxiliary_weight * measure_pixel_loss(self.auxiliary(maps[AUXILIARY_LEVEL]), labels)
        return loss

    def score(self, images: Tensor) -> Tensor:
        """Logits float32 [B, K, H, W] of images float [B, 3, H, W], normalised; see windows.Scorer."""
        return resize_maps(self.head(self.backbone(images)), images.shape[2:])

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Which parameters are of which layer, as timm's models say it; necks and heads are of the last.

        Source: implus/mae_segmentation and ConvMAE's SEG, layer_decay_optimizer_constructor.py: embedding, class token
            and positions are layer 0, and so are stages 1 and 2 of ConvMAE.
        """
        start = r"^backbone\.encoder\."
        if isinstance(self.backbone.encoder, ConvVisionTransformer):
            stem = start + r"(?:pos_embed|patch_embed|blocks1|blocks2)"
            return {"stem": stem, "blocks": [(start + r"blocks3\.(\d+)", None)]}
        return {"stem": start + r"(?:cls_token|pos_embed|patch_embed)", "blocks": [(start + r"blocks\.(\d+)", None)]}


def measure_pixel_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy in nats, over all pixels: one without a class counts as 0.

    Args:
        logits: float32 [B, K, h, w], resized to the labels.
        labels: int64 [B, H, W].

    Source: mmsegmentation's CrossEntropyLoss, whose mean counts ignored pixels (avg_non_ignore=False).
    """
    resized = resize_maps(logits, labels.shape[1:])
    return F.cross_entropy(resized, labels, ignore_index=IGNORED, reduction="sum") / labels.numel()


@dataclass(frozen=True)
class PixelBatch(Batch):
    """A batch with the classes of pixels.

    Args:
        pixels: uint8 [B, S, S].
        places: int64 [B], in the endless sequence of crops.
    """

    pixels: Tensor
    places: Tensor


class _Crops(Dataset[Any]):
    """The endless sequence of crops: pass after pass over the data set, each in an order of its own.

    A bad image that is to be skipped gives a crop of pixels without a class, so that batches keep their size.
    """

    def __init__(self, data: SegmentationSet, rows: np.ndarray, crop: MaskedCrop, seed: int, *, skip: bool) -> None:
        self.data, self.rows, self.crop, self.seed, self.skip = data, rows, crop, seed, skip

    def __getitems__(self, places: np.ndarray) -> tuple[np.ndarray, ...] | InputError:
        rows = np.array([pick_row(self.rows, place, self.seed) for place in places.tolist()])
        side, found = self.crop.recipe.crop, []
        for place, pair in zip(places.tolist(), read_pairs(self.data, rows), strict=True):
            if isinstance(pair, InputError):
                if not self.skip or not isinstance(pair, BadImageError):
                    return pair
                logger.warning("skipped: %s", pair)
                pair = np.full((side, side, 3), self.crop.fill, np.uint8), np.full((side, side), IGNORED, np.uint8)
            found.append(self.crop(*pair, seed=derive_seed(self.seed, "crop"), index=place))
        images, pixels = zip(*found, strict=True)
        return np.stack(images), np.stack(pixels), rows, places


class UperNetTraining(EndlessTask):
    """The training as a task of the training loop; see train_upernet."""

    def __init__(
        self,
        model: Model,
        data: SegmentationSet,
        rows: np.ndarray,
        config: SuiteConfig,
        recipe: UperNetRecipe,
        fabric: Any,
    ) -> None:
        torch.manual_seed(derive_seed(config.seed, "upernet"))
        self.network, self.recipe = UperNet(build_backbone(model, recipe), len(data.classes), recipe), recipe
        red, green, blue = (round(255 * mean) for mean in model.preprocessing.mean)
        crop = MaskedCrop(recipe, (red, green, blue))
        crops = _Crops(data, rows, crop, config.seed, skip=config.on_bad_image == "skip")
        super().__init__(self.network, model, data.manifest, crops, config, recipe, fabric)

    def batches(self, epoch: int, first_step: int) -> Iterator[Batch]:
        """Micro-batches from a step on."""
        for found in self.read_crops(first_step):
            images, pixels, rows, places = (torch.as_tensor(values) for values in found)
            yield PixelBatch(images.permute(0, 3, 1, 2).contiguous(), rows, torch.full_like(rows, -1), pixels, places)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Weights by layer, each with its share of the learning rate, decayed or not.

        Source: as UperNet.group_matcher; class token and positions are decayed, as its names miss the exemption.
        """
        return group_by_layer(self.network, self.recipe.weight_decay, self.recipe.layer_decay)

    def inputs(self, batch: Batch, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised images, labels, and what decides on the paths and channels of each crop."""
        assert isinstance(batch, PixelBatch)  # as `batches` makes them
        places = batch.places.to(self.device)
        numbers = uniform(derive_seed(self.seed, "paths"), places, self.network.random_numbers)
        return self.normalise(batch.images), batch.pixels.to(self.device).long(), numbers


def train_upernet(
    model: Model, data: SegmentationSet, rows: np.ndarray, config: SuiteConfig, recipe: UperNetRecipe
) -> tuple[UperNet, str]:
    """Train UperNet on a copy of a model's encoder, or go on where a killed run stopped (in config.out/training).

    Args:
        model: a ViT or ConvViT of ours.
        data, rows: the training images.
        config: of the run.
        recipe: with its sizes and its precision resolved.

    Returns:
        The network in eval mode, and 16 hex digits of all that its weights depend on.

    Raises:
        InputError: another encoder, or a batch that cannot be dealt out.
        FloatingPointError: the loss is not finite.

    Source: see UperNetRecipe. Differs: random numbers depend on the seed and the crop alone, so that results do not
        depend on processes and workers; the learning rate warms up from 0 (published: 1e-6 of it); bf16 where the
        device computes in it (published: fp16 with apex).
    """
    fabric = build_fabric(config.device, recipe.precision)
    check_batch(recipe, fabric.world_size, least=2)  # a batch norm needs two
    task = UperNetTraining(model, data, rows, config, recipe, fabric)
    key = _compute_key(model, data, rows, config, recipe)
    settings = plan_iterations(recipe, config.seed, poly_power=recipe.power)
    train_in(find_folder(config, "upernet", key), fabric, task, settings)
    return task.network.requires_grad_(False).eval(), key


def load_upernet(
    model: Model, data: SegmentationSet, rows: np.ndarray, config: SuiteConfig, recipe: UperNetRecipe
) -> tuple[UperNet, str] | None:
    """What train_upernet gave, on the run's device; None where that training is not at its end."""
    key = _compute_key(model, data, rows, config, recipe)
    folder = find_folder(config, "upernet", key)
    if not is_finished(folder, recipe.iterations):
        return None
    network = UperNet(build_backbone(model, recipe), len(data.classes), recipe)
    load_weights(folder, network)
    return network.requires_grad_(False).eval().to(config.device), key


def _compute_key(
    model: Model, data: SegmentationSet, rows: np.ndarray, config: SuiteConfig, recipe: UperNetRecipe
) -> str:
    settings = astuple(replace(recipe, inference="slide", stride=0))  # of tests, not of training
    work = (data.digest, rows.tolist(), data.classes, *settings)
    return compute_training_key("upernet", VERSION, model, config, *work)


def describe_recipe(recipe: UperNetRecipe) -> Mapping[str, object]:
    """What the protocol of a row says: every setting that its numbers depend on, but those of test windows."""
    return {name: value for name, value in asdict(recipe).items() if name not in ("inference", "stride")}
