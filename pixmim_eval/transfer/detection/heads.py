"""The parts of Mask R-CNN between a pyramid and detections: torchvision's, made as ViTDet was trained with them.

Losses are means over images of what each image gives by itself, as the published runs had them, with one image on each
GPU: no number depends on how images are dealt out to processes and micro-batches.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import roi_align

from pixmim_eval.transfer.detection.backbone import MapNorm
from pixmim_eval.transfer.detection.proposals import SeededSampler, apply_exactly
from pixmim_eval.transfer.detection.recipes import DetectionRecipe

LEVELS = 4  # of the pyramid that regions are read from; proposals come from one more
DETECTIONS = 100  # an image, at most
MASK_SIDE = 28
_POSITIVE = 0.25  # share of regions with an object among those trained on, at most
_POOLED, _POOLED_MASK = 7, 14  # places a side of a region
_CANONICAL = 14  # a region of so many strides of the third level is read from it

Target = dict[str, Tensor]
"""boxes float32 [n, 4], labels int64 [n] from 1, and masks uint8 [n, S, S] where there are some."""


class PyramidPool(nn.Module):
    """What regions look like: each read from the level of its size, between its places.

    Args:
        strides: pixels between the places of each level.
        side: places of the result.

    Source: FPN (arXiv 1612.03144) equation 1. Differs from torchvision's MultiScaleRoIAlign: places are at the middle
        of pixels, as detectron2's aligned pooling has them.
    """

    def __init__(self, strides: tuple[float, ...], side: int) -> None:
        super().__init__()
        self.strides, self.side = strides, side

    def forward(self, levels: list[Tensor], boxes: list[Tensor]) -> Tensor:
        """Maps float32 [B, C, H_i, W_i] and boxes [n, 4] of each image -> [sum of n, C, side, side]."""
        owners = torch.cat([torch.full_like(part[:, :1], image) for image, part in enumerate(boxes)])
        regions = torch.cat((owners, torch.cat(boxes)), dim=1)
        number = self._choose_levels(regions[:, 1:])
        pooled = levels[0].new_zeros(len(regions), levels[0].shape[1], self.side, self.side)
        for level, (maps, stride) in enumerate(zip(levels, self.strides, strict=False)):
            rows = torch.nonzero(number == level)[:, 0]
            found = roi_align(maps, regions[rows], self.side, 1 / stride, sampling_ratio=0, aligned=True)
            pooled = pooled.index_copy(0, rows, found.to(pooled.dtype))
        return pooled

    def _choose_levels(self, boxes: Tensor) -> Tensor:
        side = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
        level = torch.floor(2 + torch.log2(side / (_CANONICAL * self.strides[2]) + 1e-8))
        return level.clamp(0, LEVELS - 1).long()


class BoxHead(nn.Module):
    """Four convolutions with norms and one linear layer; logits and boxes of every class.

    Args:
        classes: K, without the background, which is class 0.

    Source: detectron2's FastRCNNConvFCHead and FastRCNNOutputLayers. Differs: the background starts at its share of the
        regions that are trained on. Where all classes start alike, short trainings at high rates spend the linear layer
        on learning that share, and its outputs no longer differ from region to region.
    """

    def __init__(self, channels: int, width: int, classes: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(*(layer for _ in range(4) for layer in _build_convolution(channels)))
        self.linear = nn.Linear(channels * _POOLED**2, width)
        self.logits = nn.Linear(width, classes + 1)
        self.steps = nn.Linear(width, 4 * (classes + 1))
        nn.init.kaiming_uniform_(self.linear.weight, a=1)
        nn.init.normal_(self.logits.weight, std=0.01)
        nn.init.normal_(self.steps.weight, std=0.001)
        for layer in (self.linear, self.logits, self.steps):
            nn.init.zeros_(layer.bias)
        with torch.no_grad():
            self.logits.bias[0] = math.log(classes * (1 - _POSITIVE) / _POSITIVE)

    def forward(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        """Regions [n, C, 7, 7] -> logits [n, K + 1] and steps [n, 4 (K + 1)], float32."""
        hidden = self.linear(self.convolutions(regions).flatten(1)).relu()
        return apply_exactly(self.logits, hidden), apply_exactly(self.steps, hidden)


class MaskHead(nn.Module):
    """Four convolutions with norms and a transposed one; a mask for every class."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(*(layer for _ in range(4) for layer in _build_convolution(channels)))
        self.enlarge = nn.ConvTranspose2d(channels, channels, 2, stride=2)
        self.logits = nn.Conv2d(channels, classes, 1)
        nn.init.kaiming_normal_(self.enlarge.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.logits.weight, std=0.001)
        nn.init.zeros_(self.enlarge.bias)  # type: ignore[arg-type]
        nn.init.zeros_(self.logits.bias)  # type: ignore[arg-type]

    def forward(self, regions: Tensor, labels: Tensor) -> Tensor:
        """Regions [n, C, 14, 14] of classes int64 [n], from 1 -> logits [n, 28, 28], float32."""
        hidden = self.enlarge(self.convolutions(regions)).relu()
        with torch.autocast(hidden.device.type, enabled=False):  # of the region's class alone, not of all K
            weights = self.logits.weight[labels - 1].flatten(1)
            logits = torch.einsum("nchw,nc->nhw", hidden.float(), weights)
            return logits + self.logits.bias[labels - 1, None, None]  # type: ignore[index]


def _build_convolution(channels: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution, MapNorm(channels), nn.ReLU()


class RegionHeads(RoIHeads):
    """torchvision's choice of regions and of detections, around the heads and losses of detectron2.

    Args:
        classes: K.
        strides: of the levels that regions are read from.
        recipe: widths and numbers.
        masks: with a mask head.

    Source: detectron2's StandardROIHeads: cross-entropy and absolute difference over the chosen regions of an image,
        cross-entropy over the masks of its positive ones. Differs: a mask's target is read from pixels, not polygons.
    """

    def __init__(self, classes: int, strides: tuple[float, ...], recipe: DetectionRecipe, *, masks: bool) -> None:
        super().__init__(
            box_roi_pool=PyramidPool(strides, _POOLED),
            box_head=BoxHead(recipe.channels, recipe.box_width, classes),
            box_predictor=None,
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=recipe.roi_samples,
            positive_fraction=_POSITIVE,
            bbox_reg_weights=(10.0, 10.0, 5.0, 5.0),
            score_thresh=recipe.least_score,
            nms_thresh=0.5,
            detections_per_img=DETECTIONS,
        )
        self.fg_bg_sampler = SeededSampler(recipe.roi_samples, _POSITIVE)
        self.mask_pool = PyramidPool(strides, _POOLED_MASK)
        self.masks = MaskHead(recipe.channels, classes) if masks else None

    def measure_loss(
        self, levels: list[Tensor], proposals: list[Tensor], targets: list[Target]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Losses of classes, boxes and masks: means over images."""
        regions, matched, labels, wanted = self.select_training_samples(proposals, targets)
        logits, steps = self.box_head(self.box_roi_pool(levels, regions))
        weights = torch.cat([torch.full_like(part, 1 / len(part), dtype=torch.float32) for part in labels])
        truth, count = torch.cat(labels), len(labels)
        of_classes = (F.cross_entropy(logits, truth, reduction="none") * weights).sum() / count
        rows = torch.nonzero(truth > 0)[:, 0]
        found = steps.unflatten(1, (-1, 4))[rows, truth[rows]]
        differences = F.l1_loss(found, torch.cat(wanted)[rows], reduction="none").sum(dim=1)
        of_boxes = (differences * weights[rows]).sum() / count
        return of_classes, of_boxes, self._measure_masks(levels, regions, matched, labels, targets)

    def _measure_masks(
        self,
        levels: list[Tensor],
        regions: list[Tensor],
        matched: list[Tensor],
        labels: list[Tensor],
        targets: list[Target],
    ) -> Tensor:
        if self.masks is None:
            return levels[0].new_zeros(())
        rows = [torch.nonzero(part > 0)[:, 0] for part in labels]
        chosen = [part[row] for part, row in zip(regions, rows, strict=True)]
        classes = torch.cat([part[row] for part, row in zip(labels, rows, strict=True)])
        logits = self.masks(self.mask_pool(levels, chosen), classes)
        wanted = torch.cat(
            [
                cut_masks(target["masks"], part, match[row])
                for target, part, match, row in zip(targets, chosen, matched, rows, strict=True)
            ]
        )
        of_masks = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean(dim=(1, 2))
        weights = [torch.full_like(part[:, 0], 1 / max(len(part), 1)) for part in chosen]
        return (of_masks * torch.cat(weights)).sum() / len(labels)

    def detect(self, levels: list[Tensor], proposals: list[Tensor], sizes: list[tuple[int, int]]) -> list[Target]:
        """Boxes, labels from 1, scores, and masks float32 [n, 28, 28] in [0, 1] of each image."""
        logits, steps = self.box_head(self.box_roi_pool(levels, proposals))
        boxes, scores, labels = self.postprocess_detections(logits, steps, proposals, sizes)
        found = [
            {"boxes": box, "scores": score, "labels": label}
            for box, score, label in zip(boxes, scores, labels, strict=True)
        ]
        if self.masks is not None:
            masks = self.masks(self.mask_pool(levels, boxes), torch.cat(labels)).sigmoid()
            for part, mask in zip(found, masks.split([len(box) for box in boxes]), strict=True):
                part["masks"] = mask
        return found


def cut_masks(masks: Tensor, boxes: Tensor, rows: Tensor) -> Tensor:
    """The pixels of masks inside boxes, at 28 x 28 places: 1 where at least half of what is there belongs to the mask.

    Args:
        masks: uint8 [n, H, W].
        boxes: float32 [m, 4].
        rows: int64 [m], which mask.

    Returns:
        float32 [m, 28, 28].
    """
    if not len(boxes):
        return boxes.new_zeros(0, MASK_SIDE, MASK_SIDE)
    regions = torch.cat((rows[:, None].to(boxes.dtype), boxes), dim=1)
    read = roi_align(masks[:, None].to(boxes.dtype), regions, MASK_SIDE, 1.0, sampling_ratio=0, aligned=True)
    return (read[:, 0] >= 0.5).to(boxes.dtype)
