"""Training Mask R-CNN as a task of the training loop."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, astuple, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pixmim_eval.data.coco import DetectionSet
from pixmim_eval.errors import BadImageError, InputError
from pixmim_eval.seeds import derive_seed, uniform
from pixmim_eval.training import TrainingSettings, build_fabric
from pixmim_eval.transfer.detection.jitter import Crop, ScaleJitter
from pixmim_eval.transfer.detection.network import Groups, MaskRCNN, group_parameters
from pixmim_eval.transfer.detection.recipes import DetectionRecipe
from pixmim_eval.transfer.endless import EndlessTask, check_batch, pick_row
from pixmim_eval.transfer.running import (
    compute_training_key,
    find_folder,
    is_finished,
    load_weights,
    plan_iterations,
    train_in,
)
from pixmim_eval.types import Batch, Model, SuiteConfig

logger = logging.getLogger("pixmim_eval")

VERSION = 2  # raised with every change of what the weights become
_DROPS = (8 / 9, 26 / 27)  # of the training: 163,889 and 177,546 of 184,375 steps


@dataclass(frozen=True)
class ObjectBatch(Batch):
    """A batch with its objects, M of all images in a row.

    Args:
        sizes: int64 [B, 2], height and width of what is in the upper left corner.
        owners: int64 [M], the image of each object, rising.
        boxes: float32 [M, 4].
        classes: int64 [M], of the data set.
        masks: uint8 [M, S, S] or [M, 0, 0].
        places: int64 [B], in the endless sequence of crops.
    """

    sizes: Tensor
    owners: Tensor
    boxes: Tensor
    classes: Tensor
    masks: Tensor
    places: Tensor


class _Crops(Dataset[Any]):
    """The endless sequence of crops (see transfer.endless). In the place of a bad image that is to be skipped, the one
    of the next place is taken."""

    def __init__(self, data: DetectionSet, rows: np.ndarray, jitter: ScaleJitter, seed: int, *, skip: bool) -> None:
        self.data, self.rows, self.jitter, self.seed, self.skip = data, rows, jitter, seed, skip

    def __getitems__(self, places: np.ndarray) -> dict[str, Tensor] | InputError:
        try:
            rows, crops = zip(*(self._read(place) for place in places.tolist()), strict=True)
        except InputError as error:
            return error
        side = self.jitter.size
        images = np.zeros((len(crops), side, side, 3), dtype=np.uint8)
        for image, crop in zip(images, crops, strict=True):
            image[: crop.image.shape[0], : crop.image.shape[1]] = crop.image
        return {
            "images": torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(),
            "index": torch.tensor(rows),
            "labels": torch.full((len(crops),), -1),
            "sizes": torch.tensor([crop.image.shape[:2] for crop in crops]),
            "owners": torch.arange(len(crops)).repeat_interleave(torch.tensor([len(crop.boxes) for crop in crops])),
            "boxes": torch.from_numpy(np.concatenate([crop.boxes for crop in crops])),
            "classes": torch.from_numpy(np.concatenate([crop.labels for crop in crops])),
            "masks": torch.from_numpy(np.concatenate([crop.masks for crop in crops])),
            "places": torch.from_numpy(places),
        }

    def _read(self, place: int) -> tuple[int, Crop]:
        """The row and the crop of a place."""
        for further in range(len(self.rows)):
            row = pick_row(self.rows, place + further, self.seed)
            try:
                (image,) = self.data.manifest.source.read([row])
            except BadImageError as error:
                if not self.skip:
                    raise
                logger.warning("skipped: %s", error)
                continue
            masks = self.data.masks(row) if self.data.with_masks else None
            return row, self.jitter(image, self.data.objects(row), masks, seed=self.seed, index=place)
        raise InputError(
            "training images",
            expected="at least one that can be decoded",
            found=f"none of {len(self.rows)}",
            where=self.data.name,
            fix="Check the files.",
        )


class DetectorTraining(EndlessTask):
    """The training as a task of the training loop; see train_detector."""

    def __init__(
        self,
        model: Model,
        data: DetectionSet,
        rows: np.ndarray,
        config: SuiteConfig,
        recipe: DetectionRecipe,
        fabric: Any,
    ) -> None:
        self.network, self.recipe = build_network(model, data, recipe, config.seed), recipe
        jitter = ScaleJitter(recipe.image_size, recipe.least_scale, recipe.most_scale)
        skip = config.on_bad_image == "skip"
        crops = _Crops(data, rows, jitter, derive_seed(config.seed, "jitter"), skip=skip)
        super().__init__(self.network, model, data.manifest, crops, config, recipe, fabric)

    def batches(self, epoch: int, first_step: int) -> Iterator[Batch]:
        """Micro-batches from a step on."""
        for found in self.read_crops(first_step):
            yield ObjectBatch(**found)

    def parameter_groups(self) -> Groups:
        """Weights by layer, each with its share of the learning rate, decayed or not."""
        return group_parameters(self.network, self.recipe)

    def inputs(self, batch: Batch, epoch: int) -> tuple[Tensor, ...]:
        """What MaskRCNN.forward takes."""
        assert isinstance(batch, ObjectBatch)  # as `batches` makes them
        places = batch.places.to(self.device)
        numbers = uniform(derive_seed(self.seed, "paths"), places, self.network.random_numbers)
        return (
            blank(self.normalise(batch.images), batch.sizes),
            batch.sizes.to(self.device),
            *(part.to(self.device, non_blocking=True) for part in (batch.owners, batch.boxes)),
            batch.classes.to(self.device) + 1,
            batch.masks.to(self.device, non_blocking=True),
            numbers,
            places,
        )


def blank(images: Tensor, sizes: Tensor) -> Tensor:
    """Normalised images [B, 3, S, S], with zeros beyond what is in the upper left corner; changed in place.

    Args:
        sizes: int64 [B, 2], height and width.
    """
    for image, (height, width) in zip(images, sizes.tolist(), strict=True):
        image[:, height:] = 0
        image[:, :, width:] = 0
    return images


def build_network(model: Model, data: DetectionSet, recipe: DetectionRecipe, seed: int) -> MaskRCNN:
    """A network that is not trained yet."""
    torch.manual_seed(derive_seed(seed, "mask-rcnn"))
    return MaskRCNN(model, len(data.classes), recipe, masks=data.with_masks, seed=seed)


def train_detector(
    model: Model, data: DetectionSet, rows: np.ndarray, config: SuiteConfig, recipe: DetectionRecipe
) -> tuple[MaskRCNN, str]:
    """Train Mask R-CNN on a copy of a model's encoder, or go on where a killed run stopped (in config.out/training).

    Args:
        model: a ViT or ConvViT of ours.
        data, rows: the training images, of which those without an object are left out (see list_rows).
        config: of the run.
        recipe: resolved, its precision too.

    Returns:
        The network in eval mode, and 16 hex digits of all that its weights depend on.

    Raises:
        InputError: another encoder, or a batch that cannot be dealt out.
        FloatingPointError: the loss is not finite.

    Source: see DetectionRecipe. Differs: random numbers depend on the seed and the crop alone, so that results do not
        depend on processes and workers; the learning rate warms up from 0 (published: 1e-3 of it); bf16 where the
        device computes in it (published: fp16).
    """
    fabric = build_fabric(config.device, recipe.precision)
    check_batch(recipe, fabric.world_size)
    key = _compute_key(model, data, rows, config, recipe)
    task = DetectorTraining(model, data, rows, config, recipe, fabric)
    train_in(find_folder(config, "detection", key), fabric, task, _build_settings(recipe, config.seed))
    return task.network.requires_grad_(False).eval(), key


def load_detector(
    model: Model, data: DetectionSet, rows: np.ndarray, config: SuiteConfig, recipe: DetectionRecipe
) -> tuple[MaskRCNN, str] | None:
    """What train_detector gave, on the run's device; None where that training is not at its end."""
    key = _compute_key(model, data, rows, config, recipe)
    folder = find_folder(config, "detection", key)
    if not is_finished(folder, recipe.iterations):
        return None
    network = build_network(model, data, recipe, config.seed)
    load_weights(folder, network)
    return network.requires_grad_(False).eval().to(config.device), key


def list_rows(data: DetectionSet, rows: np.ndarray) -> np.ndarray:
    """Those of the rows, int64 sorted, whose image has an object that is not a crowd.

    Raises:
        InputError: there is none.
    """
    kept = rows[np.isin(rows, data.image[~data.crowd])]
    if not len(kept):
        raise InputError(
            "objects",
            expected="at least one image with an object that is not a crowd",
            found=f"none in {len(rows)} images",
            where=data.name,
            fix="Raise --limit, or check that the annotations belong to these images.",
        )
    return kept


def _compute_key(
    model: Model, data: DetectionSet, rows: np.ndarray, config: SuiteConfig, recipe: DetectionRecipe
) -> str:
    settings = astuple(replace(recipe, accumulate=1, least_score=0.0))  # of tests, not of training
    work = (data.digest, rows.tolist(), data.classes, *settings)
    return compute_training_key("detection", VERSION, model, config, *work)


def describe_recipe(recipe: DetectionRecipe) -> Mapping[str, object]:
    """What the protocol of a row says: every setting that its numbers depend on."""
    told: dict[str, object] = {name: value for name, value in asdict(recipe).items() if name != "accumulate"}
    return told | {"global_blocks": "+".join(map(str, recipe.global_blocks))}


def _build_settings(recipe: DetectionRecipe, seed: int) -> TrainingSettings:
    return plan_iterations(recipe, seed, drops=_DROPS if recipe.schedule == "steps" else ())
