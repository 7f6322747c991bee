"""Encoders as backbones: four maps of features, at a quarter to a thirty-second of the image's size."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from timm.models.vision_transformer import LayerScale
from torch import Tensor, nn
from torch.nn import functional as F

from pixmim_eval.models.convvit import ConvVisionTransformer, Places
from pixmim_eval.models.vit import VisionTransformer, interpolate_positions
from pixmim_eval.transfer.networks import get_encoder
from pixmim_eval.transfer.segmentation.heads import SharedBatchNorm
from pixmim_eval.transfer.segmentation.recipes import UperNetRecipe
from pixmim_eval.types import Model


class ViTBackbone(nn.Module):
    """Patch tokens after a third, a half and two thirds of the blocks and after the last, without the final norm.

    The maps of patches of 16 pixels are enlarged four times and twice, left, and halved by their maxima; those of 8
    pixels are enlarged twice, left, and reduced to a half and a quarter: the published neck of either size. Other
    patches have the former.

    Args:
        encoder: trained along; its final norm must be an identity.

    Source: implus/mae_segmentation, backbone/mae.py: blocks 4, 6, 8 and 12 of 12; two deconvolutions with batch norm
        and GELU between them, one deconvolution, nothing, max-pooling.
    """

    def __init__(self, encoder: VisionTransformer) -> None:
        super().__init__()
        self.encoder = encoder
        self.dims = (encoder.dim,) * 4
        self.blocks = choose_blocks(len(encoder.blocks))
        self.necks = build_necks(encoder.dim, encoder.patch)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images [B, 3, H, W] -> maps [B, D, H_i, W_i], finest first."""
        depth = len(self.encoder.blocks)
        layers = self.encoder.layer_tokens(images, depth - self.blocks[0])
        chosen = [layers[depth - 1 - block] for block in self.blocks]
        maps = [tokens.patches.transpose(1, 2).unflatten(2, tokens.grid) for tokens in chosen]
        return [neck(tokens) for neck, tokens in zip(self.necks, maps, strict=True)]


class ConvBackbone(nn.Module):
    """The three stages of a ConvViT as they are, and the last once more at half the size.

    Args:
        encoder: trained along; its final norm must be an identity.

    Source: ConvMAE, official code, SEG/backbone/convmae.py: the fourth map is a convolution of 3 x 3 with stride 2,
        batch norm and GELU on the third. Differs: that convolution is padded, so that the map has half the size, not
        one row and column less.
    """

    def __init__(self, encoder: ConvVisionTransformer) -> None:
        super().__init__()
        self.encoder = encoder
        stages = (encoder.patch_embed1, encoder.patch_embed2, encoder.patch_embed3)
        widths = [stage.proj.out_channels for stage in stages]
        self.dims = (*widths, widths[-1])
        self.halving = nn.Sequential(
            nn.Conv2d(widths[-1], widths[-1], 3, stride=2, padding=1), SharedBatchNorm(widths[-1]), nn.GELU()
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images [B, 3, H, W] -> maps [B, D_i, H_i, W_i], finest first."""
        encoder = self.encoder
        grid = (images.shape[2] // encoder.patch, images.shape[3] // encoder.patch)
        visible = torch.arange(math.prod(grid), device=images.device).expand(len(images), -1)
        pixels = F.pixel_unshuffle(images, encoder.patch).flatten(2).transpose(1, 2)
        cells = pixels.reshape(-1, 3, encoder.patch, encoder.patch).permute(0, 2, 3, 1)
        maps = []
        for embed, blocks, side in zip(
            (encoder.patch_embed1, encoder.patch_embed2), (encoder.blocks1, encoder.blocks2), encoder.sides, strict=True
        ):
            cells, places = embed(cells), Places(visible, grid, side)
            for block in blocks:
                cells = block(cells, places)
            maps.append(places.spread(cells))
        tokens = encoder.patch_embed4(encoder.patch_embed3(cells)).reshape(len(images), -1, encoder.dim)
        tokens = tokens + interpolate_positions(encoder.pos_embed, encoder.grid, grid)
        for block in encoder.blocks3:
            tokens = block(tokens)
        last = encoder.norm(tokens).transpose(1, 2).unflatten(2, grid)
        return [*maps, last, self.halving(last)]


class BiasedAttention(nn.Module):
    """timm's attention with a learned bias for every step from one patch to another, and for the class token.

    Args:
        attention: whose weights it takes over.
        grid: patches (down, across) of the images that it is for.
        class_token: whether one comes before the patches.

    Source: BEiT (arXiv 2106.08254), as in implus/mae_segmentation: one table a block, from 0.
    """

    def __init__(self, attention: Any, grid: tuple[int, int], *, class_token: bool) -> None:
        super().__init__()
        self.qkv, self.proj, self.num_heads = attention.qkv, attention.proj, attention.num_heads
        steps = (2 * grid[0] - 1) * (2 * grid[1] - 1)
        self.bias_table = nn.Parameter(torch.zeros(steps + 3 * class_token, self.num_heads))
        self.steps: Tensor
        self.register_buffer("steps", number_steps(grid, class_token=class_token), persistent=False)

    def forward(self, tokens: Tensor, *_: Any, **__: Any) -> Tensor:
        """[B, N, D] -> the same shape; what else timm's blocks pass is for masks, of which there are none."""
        batch, count, width = tokens.shape
        query, key, value = self.qkv(tokens).reshape(batch, count, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        bias = self.bias_table[self.steps].permute(2, 0, 1).to(query.dtype)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.proj(mixed.transpose(1, 2).reshape(batch, count, width))


def number_steps(grid: tuple[int, int], *, class_token: bool) -> Tensor:
    """Which entry of the table is the bias from token i to token j: int64 [N, N].

    Steps (down, across) are counted row by row from the largest negative one; the class token has the last three
    entries: from it to patches, from patches to it, to itself.
    """
    down, across = grid
    y, x = torch.meshgrid(torch.arange(down), torch.arange(across), indexing="ij")
    y, x = y.flatten(), x.flatten()
    steps = (y[:, None] - y + down - 1) * (2 * across - 1) + x[:, None] - x + across - 1
    if not class_token:
        return steps
    count = (2 * down - 1) * (2 * across - 1)
    steps = F.pad(steps, (1, 0, 1, 0))
    steps[0, :], steps[:, 0], steps[0, 0] = count, count + 1, count + 2
    return steps


def choose_blocks(depth: int) -> tuple[int, ...]:
    """The blocks whose output is used, from 0: 3, 5, 7 and 11 of 12, and the same shares of another depth."""
    return tuple(max(1, depth * twelfths // 12) - 1 for twelfths in (4, 6, 8, 12))


def build_necks(dim: int, patch: int) -> nn.ModuleList:
    """What brings maps of patches to four sizes; see ViTBackbone."""
    twice = nn.ConvTranspose2d(dim, dim, 2, stride=2)
    if patch == 8:
        return nn.ModuleList((twice, nn.Identity(), nn.MaxPool2d(2), nn.MaxPool2d(4)))
    four_times = nn.Sequential(
        nn.ConvTranspose2d(dim, dim, 2, stride=2),
        SharedBatchNorm(dim),
        nn.GELU(),
        nn.ConvTranspose2d(dim, dim, 2, stride=2),
    )
    return nn.ModuleList((four_times, twice, nn.Identity(), nn.MaxPool2d(2)))


def build_backbone(model: Model, recipe: UperNetRecipe) -> ViTBackbone | ConvBackbone:
    """A trainable copy of a model's encoder as a backbone for crops of the recipe's size.

    Positions are interpolated to the crop's grid and become weights; the final norm goes; LayerScale and relative
    positions come in where the recipe has them, without changing what the encoder gives.

    Raises:
        InputError: the encoder is neither a ViT nor a ConvViT of ours.
    """
    fix = "Use --protocol linear or knn, which take any encoder with patch tokens."
    encoder = copy.deepcopy(get_encoder(model, "UperNet", fix)).requires_grad_(True)
    convolutional = isinstance(encoder, ConvVisionTransformer)
    if isinstance(encoder, ConvVisionTransformer):  # only pretraining uses the fusion
        encoder.stage1_output_decode = encoder.stage2_output_decode = None
    encoder.norm = nn.Identity()
    grid = (recipe.crop // encoder.patch,) * 2
    positions = interpolate_positions(encoder.pos_embed.detach(), encoder.grid, grid).clone()
    del encoder.pos_embed
    encoder.pos_embed = nn.Parameter(positions)
    encoder.grid = grid
    for block in encoder.blocks3 if isinstance(encoder, ConvVisionTransformer) else encoder.blocks:
        _extend_block(block, recipe, encoder.dim, grid, class_token=not convolutional)
    return ConvBackbone(encoder) if isinstance(encoder, ConvVisionTransformer) else ViTBackbone(encoder)


def _extend_block(block: Any, recipe: UperNetRecipe, dim: int, grid: tuple[int, int], *, class_token: bool) -> None:
    if recipe.relative_positions:
        block.attn = BiasedAttention(block.attn, grid, class_token=class_token)
    for name in ("ls1", "ls2"):
        if recipe.layer_scale and isinstance(getattr(block, name), nn.Identity):
            setattr(block, name, LayerScale(dim, init_values=1.0))
