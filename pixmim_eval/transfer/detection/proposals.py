"""Where regions are proposed from: anchors, the choice of those that are trained on, and torchvision's network with the
settings and losses of detectron2."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from pixmim_eval.seeds import uniform
from pixmim_eval.transfer.detection.recipes import DetectionRecipe

_RATIOS = (0.5, 1.0, 2.0)  # height over width of anchors
_ANCHOR_STRIDES = 8  # side of an anchor
_ANCHORS_TRAINED = 256  # an image


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


def apply_exactly(layer: nn.Module, values: Tensor) -> Tensor:
    """A layer in float32 whatever is computed in before: ranks of 10^5 logits, and boxes of 1024 pixels, need more
    than the three digits of bf16."""
    with torch.autocast(values.device.type, enabled=False):
        found: Tensor = layer(values.float())
    return found


class ProposalHead(RPNHead):
    """torchvision's, with outputs in float32."""

    def forward(self, levels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Logits [B, A, H, W] and steps to boxes [B, 4 A, H, W] of each level."""
        hidden = [self.conv(level) for level in levels]
        logits, steps = ([apply_exactly(layer, maps) for maps in hidden] for layer in (self.cls_logits, self.bbox_pred))
        return logits, steps


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
