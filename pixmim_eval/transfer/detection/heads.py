"""The parts of Mask R-CNN between a pyramid and detections: torchvision's, made as ViTDet was trained with them.

Losses are means over images of what each image gives by itself, as the published runs had them, with one image on each
GPU: no number depends on how images are dealt out to processes and micro-batches.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import roi_align

from pixmim_eval.seeds import uniform
from pixmim_eval.transfer.detection.backbone import MapNorm
from pixmim_eval.transfer.detection.recipes import DetectionRecipe

LEVELS = 4  # of the pyramid that regions are read from; proposals come from one more
DETECTIONS = 100  # an image, at most
MASK_SIDE = 28
_RATIOS = (0.5, 1.0, 2.0)  # height over width of anchors
_ANCHOR_STRIDES = 8  # side of an anchor
_ANCHORS_TRAINED = 256  # an image
_POSITIVE = 0.25  # share of regions with an object among those trained on, at most
_POOLED, _POOLED_MASK = 7, 14  # places a side of a region
_CANONICAL = 14  # a region of so many strides of the third level is read from it

Target = dict[str, Tensor]
"""boxes float32 [n, 4], labels int64 [n] from 1, and masks uint8 [n, S, S] where there are some."""


class Anchors(nn.Module):
    """Boxes of three shapes around the upper left corner of every place of every level.

    Args:
        strides: pixels between the places of each level.

    Source: detectron2's DefaultAnchorGenerator with offset 0, which does not round as torchvision's does.
    """

    def __init__(self, strides: tuple[float, ...]) -> None:
        super().__init__()
        self.strides = strides

    def forward(self, images: Any, levels: list[Tensor]) -> list[Tensor]:
        """The same boxes [A, 4] for each image, in the order of torchvision's RPN: level, row, column, shape."""
        anchors = torch.cat([self._place(level, stride) for level, stride in zip(levels, self.strides, strict=True)])
        return [anchors] * len(images.image_sizes)

    def _place(self, level: Tensor, stride: float) -> Tensor:
        height, width = level.shape[-2:]
        ratios = torch.tensor(_RATIOS, device=level.device).sqrt()
        wide, high = _ANCHOR_STRIDES * stride / ratios / 2, _ANCHOR_STRIDES * stride * ratios / 2
        shapes = torch.stack((-wide, -high, wide, high), dim=1)
        y = torch.arange(height, device=level.device) * stride
        x = torch.arange(width, device=level.device) * stride
        y, x = torch.meshgrid(y, x, indexing="ij")
        return (torch.stack((x, y, x, y), dim=-1)[:, :, None] + shapes).reshape(-1, 4)


class SeededSampler:
    """Which anchors or regions a head is trained on, in the place of torchvision's BalancedPositiveNegativeSampler:
    at most a share of positive ones, and negative ones for the rest, by random numbers of each image.

    Args:
        count: an image.
        share: of positive ones, at most.
    """

    def __init__(self, count: int, share: float) -> None:
        self.count, self.share = count, share
        self._seed, self._places = 0, torch.zeros(0, dtype=torch.int64)

    def begin(self, seed: int, places: Tensor) -> None:
        """Take the seed and the number of each image, int64 [B], for the next call."""
        self._seed, self._places = seed, places

    def __call__(self, labels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """The chosen positive ones (labels above 0) and negative ones (0) of each image, bool [n] each."""
        positive, negative = [], []
        for label, place in zip(labels, self._places, strict=True):
            keys = uniform(self._seed, place[None], len(label), dtype=torch.float64)[0]
            chosen = _choose(label > 0, keys, int(self.count * self.share))
            positive.append(chosen)
            negative.append(_choose(label == 0, keys, self.count - int(chosen.sum())))
        return positive, negative


def _choose(candidates: Tensor, keys: Tensor, count: int) -> Tensor:
    """The candidates of the lowest keys, at most so many: bool [n]."""
    rows = torch.nonzero(candidates)[:, 0]
    chosen = torch.zeros_like(candidates)
    chosen[rows[keys[rows].argsort()[:count]]] = True
    return chosen


class ProposalHead(RPNHead):
    """torchvision's, whose outputs are float32 whatever it computes in: a box of 1024 pixels needs more than bf16."""

    def forward(self, levels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Logits [B, A, H, W] and steps to boxes [B, 4 A, H, W] of each level."""
        logits, steps = super().forward(levels)
        return [values.float() for values in logits], [values.float() for values in steps]


class ProposalNetwork(RegionProposalNetwork):
    """torchvision's, with the losses of detectron2.

    Source: detectron2's RPN: sums over the chosen anchors over 256 an image, whether there are as many or not; the
        absolute difference for boxes.
    """

    def compute_loss(
        self, objectness: Tensor, pred_bbox_deltas: Tensor, labels: list[Tensor], regression_targets: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Losses of logits [N, 1] and boxes [N, 4], the anchors of all images in a row."""
        positive, negative = (torch.cat(chosen) for chosen in self.fg_bg_sampler(labels))
        chosen, total = positive | negative, self.fg_bg_sampler.count * len(labels)
        truth = torch.cat(labels)[chosen]
        logits = objectness.flatten()[chosen]
        of_objects = F.binary_cross_entropy_with_logits(logits, truth, reduction="sum") / total
        wanted = torch.cat(regression_targets)[positive]
        return of_objects, F.l1_loss(pred_bbox_deltas[positive], wanted, reduction="sum") / total


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
        return self.logits(hidden).float(), self.steps(hidden).float()


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
        logits = self.logits(self.enlarge(self.convolutions(regions)).relu()).float()
        return logits[torch.arange(len(labels), device=labels.device), labels - 1]


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


def build_proposals(strides: tuple[float, ...], recipe: DetectionRecipe) -> ProposalNetwork:
    """The network that proposes regions, of two convolutions, whose weights torch's generator draws."""
    before = {"training": 2 * recipe.proposals, "testing": recipe.proposals}
    network = ProposalNetwork(
        Anchors(strides),
        ProposalHead(recipe.channels, len(_RATIOS), conv_depth=2),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=_ANCHORS_TRAINED,
        positive_fraction=0.5,
        pre_nms_top_n=before,
        post_nms_top_n={"training": recipe.proposals, "testing": recipe.proposals},
        nms_thresh=0.7,
    )
    network.fg_bg_sampler = SeededSampler(_ANCHORS_TRAINED, 0.5)
    return network


def list_strides(patch: int) -> tuple[float, ...]:
    """Pixels between the places of the five levels of a pyramid on patches of a size."""
    return tuple(patch * math.ldexp(1.0, level) for level in range(-2, 3))
