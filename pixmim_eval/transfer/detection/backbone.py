"""Encoders as backbones of a detector, and the pyramids of features on top of them."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import FeaturePyramidNetwork

from pixmim_eval.errors import InputError
from pixmim_eval.models.convvit import ConvVisionTransformer
from pixmim_eval.models.vit import VisionTransformer, interpolate_positions
from pixmim_eval.transfer.detection.attention import WindowedAttention
from pixmim_eval.transfer.detection.recipes import DetectionRecipe
from pixmim_eval.transfer.networks import get_encoder
from pixmim_eval.transfer.segmentation.backbone import ConvBackbone
from pixmim_eval.types import Model

_EPSILON = 1e-6


class MapNorm(nn.Module):
    """LayerNorm over the channels of maps [B, C, H, W].

    Source: detectron2's "LN". It is no torch.nn.LayerNorm there either, so that its weights are decayed.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, maps: Tensor) -> Tensor:
        """The same shape."""
        last = maps.permute(0, 2, 3, 1)
        return F.layer_norm(last, self.weight.shape, self.weight, self.bias, _EPSILON).permute(0, 3, 1, 2)


class PlainBackbone(nn.Module):
    """The map of patch tokens after the last block of a ViT, without class token and final norm.

    Args:
        encoder: whose layers it takes over.
        grid: patches (down, across) of the images, which the position table is interpolated to; it is trained.

    Differs: the table is interpolated once, and trained as it is then; detectron2 trains the table of the pretrained
        size, and interpolates it in every step.
    """

    def __init__(self, encoder: VisionTransformer, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid, self.dims, self.patch = grid, (encoder.dim,), encoder.patch
        self.patch_embed, self.blocks = encoder.patch_embed, encoder.blocks
        positions = interpolate_positions(encoder.pos_embed.detach(), encoder.grid, grid)
        self.pos_embed = nn.Parameter(positions[:, 1:].clone())

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images [B, 3, H, W] -> one map [B, D, H / patch, W / patch]."""
        tokens = self.patch_embed(images) + self.pos_embed
        for block in self.blocks:
            tokens = block(tokens)
        return [tokens.transpose(1, 2).unflatten(2, self.grid)]


class StageBackbone(nn.Module):
    """The three stages of a ConvViT without final norm, and the maxima of the last at half the size.

    Args:
        encoder: trained along; its final norm must be an identity.
        last: give the third map alone, for a simple pyramid.
    """

    def __init__(self, encoder: ConvVisionTransformer, *, last: bool) -> None:
        super().__init__()
        self.last, self.patch = last, encoder.patch
        self.maps = ConvBackbone(encoder)
        self.maps.halving = nn.MaxPool2d(2)  # type: ignore[assignment]
        self.dims = (encoder.dim,) if last else self.maps.dims

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images [B, 3, H, W] -> maps [B, D_i, H_i, W_i], finest first."""
        maps = self.maps(images)
        return [maps[2]] if self.last else maps


class SimplePyramid(nn.Module):
    """Maps at 4, 2, 1 and 1/2 times the size of one, and each second place of the last.

    Args:
        dim: channels of the map.
        channels: of the pyramid.

    Source: ViTDet, section 3, and detectron2's SimpleFeaturePyramid with LastLevelMaxPool: two transposed convolutions
        with norm and GELU between them, one, none, max-pooling; then convolutions of 1 x 1 and 3 x 3 with norms.
    """

    def __init__(self, dim: int, channels: int) -> None:
        super().__init__()
        half, quarter = dim // 2, dim // 4
        enlarge = nn.Sequential(
            nn.ConvTranspose2d(dim, half, 2, stride=2),
            MapNorm(half),
            nn.GELU(),
            nn.ConvTranspose2d(half, quarter, 2, stride=2),
        )
        sizes = (
            (enlarge, quarter),
            (nn.ConvTranspose2d(dim, half, 2, stride=2), half),
            (nn.Identity(), dim),
            (nn.MaxPool2d(2), dim),
        )
        self.levels = nn.ModuleList(
            nn.Sequential(
                resize,
                nn.Conv2d(width, channels, 1, bias=False),
                MapNorm(channels),
                nn.Conv2d(channels, channels, 3, padding=1, bias=False),
                MapNorm(channels),
            )
            for resize, width in sizes
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """[one map] -> five, finest first."""
        levels = [level(maps[0]) for level in self.levels]
        return [*levels, levels[-1][:, :, ::2, ::2]]


class StagePyramid(nn.Module):
    """FPN on maps that halve from one to the next, and each second place of the last.

    Args:
        dims: channels of the maps.
        channels: of the pyramid.

    Source: Lin et al., arXiv 1612.03144, by torchvision, with norms.
    """

    def __init__(self, dims: tuple[int, ...], channels: int) -> None:
        super().__init__()
        self.pyramid = FeaturePyramidNetwork(list(dims), channels, norm_layer=MapNorm)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Four maps -> five, finest first."""
        levels = list(self.pyramid({str(place): values for place, values in enumerate(maps)}).values())
        return [*levels, levels[-1][:, :, ::2, ::2]]


def find_encoder(model: Model) -> VisionTransformer | ConvVisionTransformer:
    """The encoder of a model. Raises InputError where it is neither a ViT nor a ConvViT of ours."""
    return get_encoder(model, "Mask R-CNN", "Give the weights by --checkpoint FILE.")


def list_blocks(encoder: VisionTransformer | ConvVisionTransformer) -> Any:
    """The transformer blocks of an encoder."""
    return encoder.blocks3 if isinstance(encoder, ConvVisionTransformer) else encoder.blocks


def build_backbone(model: Model, recipe: DetectionRecipe) -> tuple[PlainBackbone | StageBackbone, nn.Module]:
    """A trainable copy of a model's encoder for images of the recipe's size, and a pyramid, whose weights torch's
    generator draws.

    Raises:
        InputError: another encoder, or stages asked of one without.
    """
    encoder = copy.deepcopy(find_encoder(model)).requires_grad_(True)
    grid = (recipe.image_size // encoder.patch,) * 2
    for number, block in enumerate(list_blocks(encoder)):
        window = 0 if number in recipe.global_blocks else recipe.window
        block.attn = WindowedAttention(block.attn, grid, window, relative=recipe.relative_positions)
    if isinstance(encoder, VisionTransformer):
        if recipe.pyramid == "stages":
            raise InputError(
                "pyramid of Mask R-CNN",
                expected="simple or auto, as the encoder has no stages",
                found="stages",
                where=f"--pyramid, model {model.name}",
                fix="Use --pyramid simple, and a recipe that is not ConvMAE's.",
            )
        plain = PlainBackbone(encoder, grid)
        return plain, SimplePyramid(encoder.dim, recipe.channels)
    encoder.stage1_output_decode = encoder.stage2_output_decode = None  # only pretraining uses the fusion
    encoder.norm = nn.Identity()  # type: ignore[assignment]
    positions = interpolate_positions(encoder.pos_embed.detach(), encoder.grid, grid).clone()
    del encoder.pos_embed
    encoder.pos_embed, encoder.grid = nn.Parameter(positions), grid
    stages = StageBackbone(encoder, last=recipe.pyramid == "simple")
    if stages.last:
        return stages, SimplePyramid(encoder.dim, recipe.channels)
    return stages, StagePyramid(stages.dims, recipe.channels)
