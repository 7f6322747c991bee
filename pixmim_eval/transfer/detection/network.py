"""Mask R-CNN on an encoder: the network, its loss, and how its weights are grouped for training."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from pixmim_eval.models.convvit import ConvVisionTransformer
from pixmim_eval.seeds import derive_seed
from pixmim_eval.transfer.detection.backbone import build_backbone, find_encoder, list_blocks
from pixmim_eval.transfer.detection.heads import LEVELS, RegionHeads, Target
from pixmim_eval.transfer.detection.proposals import build_proposals, list_strides
from pixmim_eval.transfer.detection.recipes import DetectionRecipe
from pixmim_eval.transfer.paths import CALLS, place_paths
from pixmim_eval.types import Model

Groups = list[dict[str, Any]]
_STEM = re.compile(r"\.(patch_embed\d?|blocks1|blocks2)\.")
_BLOCK = re.compile(r"\.blocks3?\.(\d+)\.")


class MaskRCNN(nn.Module):
    """A detector.

    Args:
        model: of whose encoder it trains a copy.
        classes: number K of classes.
        recipe: resolved (see recipes.resolve_recipe).
        masks: with a mask head.
        seed: of what the heads are trained on.

    Source: He et al., arXiv 1703.06870, with the parts of ViTDet; see DetectionRecipe.
    """

    def __init__(self, model: Model, classes: int, recipe: DetectionRecipe, *, masks: bool, seed: int) -> None:
        super().__init__()
        encoder = find_encoder(model)
        self.backbone, self.pyramid = build_backbone(model, recipe)
        strides = list_strides(encoder.patch)
        self.proposals = build_proposals(strides, recipe)
        self.heads = RegionHeads(classes, strides[:LEVELS], recipe, masks=masks)
        self.depth, self.convolutional = len(list_blocks(encoder)), isinstance(encoder, ConvVisionTransformer)
        self._paths = place_paths(self.backbone, recipe.drop_path)
        self._seeds = (derive_seed(seed, "anchors"), derive_seed(seed, "regions"))

    @property
    def random_numbers(self) -> int:
        """How many random numbers an image takes for its paths."""
        return len(self._paths) * CALLS

    def forward(
        self,
        images: Tensor,
        sizes: Tensor,
        owners: Tensor,
        boxes: Tensor,
        labels: Tensor,
        masks: Tensor,
        numbers: Tensor,
        places: Tensor,
    ) -> Tensor:
        """The loss: the sum of those of anchors, regions and masks, each a mean over images.

        Args:
            images: float32 [B, 3, S, S], normalised, zero beyond their sizes.
            sizes: int64 [B, 2], height and width of what is in the upper left corner.
            owners: int64 [M], the image of each object, rising.
            boxes: float32 [M, 4].
            labels: int64 [M] from 1.
            masks: uint8 [M, S, S]; [M, 0, 0] of a set without masks.
            numbers: float32 [B, random_numbers] in [0, 1), which decide on paths.
            places: int64 [B], the number of each crop, of which its random numbers are drawn.
        """
        for place, path in enumerate(self._paths):
            path.begin(numbers[:, place * CALLS : (place + 1) * CALLS])
        self.proposals.fg_bg_sampler.begin(self._seeds[0], places)
        self.heads.fg_bg_sampler.begin(self._seeds[1], places)
        counts = torch.bincount(owners, minlength=len(images)).tolist()
        split = zip(boxes.split(counts), labels.split(counts), masks.split(counts), strict=True)
        targets: list[Target] = [{"boxes": box, "labels": label, "masks": mask} for box, label, mask in split]
        levels = self._encode(images)
        batch = ImageList(images, [(height, width) for height, width in sizes.tolist()])
        found, losses = self.proposals(batch, dict(enumerate(levels)), targets)
        return sum(losses.values()) + sum(self.heads.measure_loss(levels[:LEVELS], found, targets))

    def detect(self, images: Tensor, sizes: list[tuple[int, int]]) -> list[Target]:
        """Detections in pixels of the images, best first; see RegionHeads.detect.

        Args:
            images: float32 [B, 3, S, S], normalised, zero beyond their sizes.
            sizes: height and width of each.

        Raises:
            FloatingPointError: features are not finite.
        """
        levels = self._encode(images)
        for number, level in enumerate(levels):
            if not torch.isfinite(level).all():
                raise FloatingPointError(f"level {number} of the pyramid is not finite")
        found, _ = self.proposals(ImageList(images, sizes), dict(enumerate(levels)))
        return self.heads.detect(levels[:LEVELS], found, sizes)

    def _encode(self, images: Tensor) -> list[Tensor]:
        """The five levels, float32 whatever the encoder computes in."""
        return [level.float() for level in self.pyramid(self.backbone(images))]


def group_parameters(network: MaskRCNN, recipe: DetectionRecipe) -> Groups:
    """Groups with "lr_scale" = layer_decay^(layers above) and "weight_decay", 0 for positions and the encoder's norms.

    Patch embedding and positions are layer 0, block i is layer i + 1, everything else is one layer above the last
    block, and so are the relative positions of a block in its layer. Of a ConvViT, layer 0 is stages 1 and 2, and its
    positions are in the layer above all.

    Source: detectron2, get_vit_lr_decay_rate and get_default_optimizer_params with weight_decay_norm 0 and an exception
        for pos_embed: biases are decayed, and so are norms that are no torch.nn.LayerNorm. OpenGVLab/
        Official-ConvMAE-Det likewise.
    """
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for owner, module in network.named_modules():
        for name, weight in module.named_parameters(recurse=False):
            exempt = isinstance(module, nn.LayerNorm) or name == "pos_embed"
            layer = _find_layer(f"{owner}.{name}", network.depth, convolutional=network.convolutional)
            groups.setdefault((layer, exempt), []).append(weight)
    return [
        {
            "params": weights,
            "lr_scale": recipe.layer_decay ** (network.depth + 1 - layer),
            "weight_decay": 0.0 if exempt else recipe.weight_decay,
        }
        for (layer, exempt), weights in sorted(groups.items(), key=lambda item: item[0])
    ]


def _find_layer(name: str, depth: int, *, convolutional: bool) -> int:
    """The layer of a parameter, 0 to depth + 1."""
    if not name.startswith("backbone."):
        return depth + 1
    if _STEM.search(name) or (name.endswith(".pos_embed") and not convolutional):
        return 0
    block = _BLOCK.search(name)
    return int(block[1]) + 1 if block else depth + 1
