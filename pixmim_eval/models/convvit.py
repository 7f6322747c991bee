"""ConvMAE's encoder: two stages of convolution blocks, then one of transformer blocks, in the public key layout."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers import LayerNorm
from torch import Tensor, nn
from torch.nn import functional as F

from pixmim_eval.errors import InputError
from pixmim_eval.models.vit import (
    build_block,
    check_layers,
    initialise_linear,
    interpolate_positions,
    sincos_positions,
)
from pixmim_eval.types import Tokens

_EPSILON = 1e-5  # of the LayerNorms in stages 1 and 2; stage 3 has MAE's 1e-6


@dataclass(frozen=True)
class ConvArchitecture:
    """Size of a ConvViT; each of the first three has one number a stage.

    Args:
        strides: by how much each stage's patch embedding shrinks its input.
        dims: width.
        depths: number of blocks.
        heads: attention heads of stage 3.
    """

    strides: tuple[int, int, int]
    dims: tuple[int, int, int]
    depths: tuple[int, int, int]
    heads: int

    @property
    def patch(self) -> int:
        """Pixels a side that one token of the last stage stands for."""
        return math.prod(self.strides)

    @property
    def dim(self) -> int:
        """Width of the encoder's tokens."""
        return self.dims[2]


CONV_ARCHITECTURES = {
    "convvit-b16": ConvArchitecture(strides=(4, 2, 2), dims=(256, 384, 768), depths=(2, 2, 11), heads=12),
}


class ConvVisionTransformer(nn.Module):
    """ConvViT with fixed sin-cos positions and no class token.

    A cell is what one token of the last stage covers: 16 x 16 pixels, 4 x 4 positions of stage 1 and 2 x 2 of stage 2
    in the published size. Patch embeddings stay inside a cell, and the depth-wise convolutions read zeros where a cell
    is masked, so masked cells never reach visible ones: only visible cells are computed, each as a row of positions,
    and put back on the image's grid for the depth-wise convolutions alone. Everything else is a product with a matrix.

    Args:
        image_size: side of the square input in pixels, a multiple of architecture.patch.
        architecture: see ConvArchitecture.
        fusion: with the strided convolutions that add stages 1 and 2 to the input of the last norm. `forward` uses
            them where they are; `tokens` never does.

    Raises:
        InputError: image_size is not a multiple of the patch, or the width not one of the number of heads and of 4.

    Source: ConvMAE (arXiv 2205.03892) section 3; keys, LayerNorm eps (1e-5 in stages 1 and 2, else 1e-6) and
        initialisation (Xavier for every Linear and for patch_embed3, PyTorch's for other convolutions) of the official
        code, which also drops the fusion after pretraining. Differs: the official code computes masked cells too, and
        throws them away; outputs and gradients are equal.
    """

    def __init__(self, image_size: int, architecture: ConvArchitecture, *, fusion: bool = False) -> None:
        super().__init__()
        self.patch, self.dim = architecture.patch, architecture.dim
        _check(image_size, architecture)
        strides, dims, depths = architecture.strides, architecture.dims, architecture.depths
        side = image_size // self.patch
        self.grid = (side, side)
        self.patch_embed1 = CellEmbed(3, dims[0], strides[0])
        self.patch_embed2 = CellEmbed(dims[0], dims[1], strides[1])
        self.patch_embed3 = CellEmbed(dims[1], dims[2], strides[2])
        self.patch_embed4 = nn.Linear(dims[2], dims[2])
        self.pos_embed: Tensor
        self.register_buffer("pos_embed", sincos_positions(self.dim, side)[:, 1:].clone())
        self.blocks1 = nn.ModuleList(ConvBlock(dims[0]) for _ in range(depths[0]))
        self.blocks2 = nn.ModuleList(ConvBlock(dims[1]) for _ in range(depths[1]))
        self.blocks3 = nn.ModuleList(build_block(self.dim, architecture.heads) for _ in range(depths[2]))
        self.norm = LayerNorm(self.dim, eps=1e-6)
        self.sides = (strides[1] * strides[2], strides[2])  # positions a side of a cell, in stages 1 and 2
        self.stage1_output_decode = nn.Conv2d(dims[0], self.dim, self.sides[0], self.sides[0]) if fusion else None
        self.stage2_output_decode = nn.Conv2d(dims[1], self.dim, self.sides[1], self.sides[1]) if fusion else None
        initialise_linear(self)
        nn.init.xavier_uniform_(self.patch_embed3.proj.weight.view(self.dim, -1))

    def forward(self, images: Tensor, visible: Tensor | None = None) -> Tensor:
        """Tokens after the final norm, with stages 1 and 2 added where the encoder has the fusion.

        Args:
            images: float [B, 3, H, W], normalised.
            visible: int64 [B, V], the cells to encode; None for all.

        Returns:
            [B, V, D] (V = N where visible is None).
        """
        return self.norm(self._encode(images, visible, fuse=self.stage1_output_decode is not None)[-1])

    def tokens(self, images: Tensor) -> Tokens:
        """Patch tokens after the final norm, without fusion; see types.Encoder."""
        return self.layer_tokens(images, 1)[0]

    def layer_tokens(self, images: Tensor, count: int) -> list[Tokens]:
        """The same after each of the last blocks of stage 3; see types.Encoder."""
        check_layers(count, len(self.blocks3))
        grid = (images.shape[2] // self.patch, images.shape[3] // self.patch)
        layers = self._encode(images, None, fuse=False)[: -count - 1 : -1]
        return [Tokens(cls=None, patches=self.norm(tokens), grid=grid) for tokens in layers]

    def _encode(self, images: Tensor, visible: Tensor | None, *, fuse: bool) -> list[Tensor]:
        """What goes into stage 3 and what each of its blocks gives, [B, V, D]; the fusion is added to the last."""
        batch, grid = len(images), (images.shape[2] // self.patch, images.shape[3] // self.patch)
        if visible is None:
            visible = torch.arange(math.prod(grid), device=images.device).expand(batch, -1)
        cells = self.patch_embed1(self._cut(images, visible))
        cells = _run_blocks(self.blocks1, cells, Places(visible, grid, self.sides[0]))
        fused = [apply_to_cells(self.stage1_output_decode, cells)] if fuse else []
        cells = self.patch_embed2(cells)
        cells = _run_blocks(self.blocks2, cells, Places(visible, grid, self.sides[1]))
        fused += [apply_to_cells(self.stage2_output_decode, cells)] if fuse else []
        tokens = self.patch_embed4(self.patch_embed3(cells)).reshape(batch, -1, self.dim)
        positions = interpolate_positions(self.pos_embed, self.grid, grid).expand(batch, -1, -1)
        tokens = tokens + positions.gather(1, visible[:, :, None].expand(-1, -1, self.dim))
        layers = [tokens]
        for block in self.blocks3:
            layers.append(block(layers[-1]))
        for stage in fused:
            layers[-1] = layers[-1] + stage.reshape(tokens.shape)
        return layers

    def _cut(self, images: Tensor, visible: Tensor) -> Tensor:
        """The pixels of the visible cells, [B * V, patch, patch, 3]."""
        pixels = F.pixel_unshuffle(images, self.patch).flatten(2).transpose(1, 2)  # [B, N, 3 p p]
        pixels = pixels.gather(1, visible[:, :, None].expand(-1, -1, pixels.shape[2]))
        return pixels.reshape(-1, 3, self.patch, self.patch).permute(0, 2, 3, 1)


class CellEmbed(nn.Module):
    """Patch embedding between stages: a convolution whose stride is its kernel, LayerNorm over channels, GELU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(inputs, outputs, stride, stride)
        self.norm = LayerNorm(outputs, eps=_EPSILON)

    def forward(self, cells: Tensor) -> Tensor:
        """Cells [n, k, k, inputs] -> [n, k / stride, k / stride, outputs]."""
        return F.gelu(self.norm(apply_to_cells(self.proj, cells)))


class ConvBlock(nn.Module):
    """Pre-norm block with a depth-wise 5 x 5 convolution in the place of attention, and 1 x 1 convolutions."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1 = LayerNorm(dim, eps=_EPSILON)
        self.conv1 = nn.Conv2d(dim, dim, 1)
        self.attn = nn.Conv2d(dim, dim, 5, padding=2, groups=dim)
        self.conv2 = nn.Conv2d(dim, dim, 1)
        self.drop_path1: nn.Module = nn.Identity()  # as in timm's blocks; fine-tuning drops paths
        self.norm2 = LayerNorm(dim, eps=_EPSILON)
        self.mlp = nn.ModuleDict({"fc1": nn.Conv2d(dim, 4 * dim, 1), "fc2": nn.Conv2d(4 * dim, dim, 1)})
        self.drop_path2: nn.Module = nn.Identity()

    def forward(self, cells: Tensor, places: Places) -> Tensor:
        """Cells [n, k, k, dim] -> the same shape."""
        inside = places.spread(apply_to_cells(self.conv1, self.norm1(cells)))
        mixed = places.collect(self.attn(inside))
        cells = cells + self.drop_path1(apply_to_cells(self.conv2, mixed))
        hidden = F.gelu(apply_to_cells(self.mlp["fc1"], self.norm2(cells)))
        return cells + self.drop_path2(apply_to_cells(self.mlp["fc2"], hidden))


class Places:
    """Where the positions of visible cells lie on the image's grid of a stage.

    Args:
        visible: int64 [B, V].
        grid: cells (down, across).
        side: positions a side of a cell.
    """

    def __init__(self, visible: Tensor, grid: tuple[int, int], side: int) -> None:
        (down, across), device = grid, visible.device
        self.side, self.shape = side, (len(visible), down * side, across * side)
        inside = torch.arange(side, device=device)
        y = (visible // across)[:, :, None] * side + inside
        x = (visible % across)[:, :, None] * side + inside
        first = torch.arange(len(visible), device=device)[:, None, None] * (down * side)
        self.rows = ((first + y)[..., :, None] * (across * side) + x[..., None, :]).flatten()  # in 0 … B * H * W - 1

    def spread(self, cells: Tensor) -> Tensor:
        """[B * V, side, side, C] -> [B, C, H, W] in channels-last memory, zeros where no visible cell lies."""
        width = cells.shape[-1]
        canvas = cells.new_zeros(math.prod(self.shape), width).index_copy(0, self.rows, cells.reshape(-1, width))
        return canvas.reshape(*self.shape, width).permute(0, 3, 1, 2)

    def collect(self, image: Tensor) -> Tensor:
        """The inverse of `spread`."""
        canvas = image.permute(0, 2, 3, 1).reshape(-1, image.shape[1])
        return canvas.index_select(0, self.rows).reshape(-1, self.side, self.side, image.shape[1])


def apply_to_cells(convolution: Any, cells: Tensor) -> Tensor:
    """A convolution whose stride is its kernel, as a matrix product: [n, k, k, C] -> [n, k / stride, k / stride, O]."""
    stride = convolution.stride[0]
    if stride > 1:
        count, side, _, width = cells.shape
        cells = cells.reshape(count, side // stride, stride, side // stride, stride, width)
        cells = cells.permute(0, 1, 3, 2, 4, 5).flatten(3)
    return F.linear(cells, convolution.weight.permute(0, 2, 3, 1).flatten(1), convolution.bias)


def _run_blocks(blocks: nn.ModuleList, cells: Tensor, places: Places) -> Tensor:
    for block in blocks:
        cells = block(cells, places)
    return cells


def _check(image_size: int, architecture: ConvArchitecture) -> None:
    """Raise InputError for sizes that do not divide."""
    if image_size % architecture.patch:
        raise InputError(
            "image size",
            expected=f"a multiple of the patch size {architecture.patch}",
            found=str(image_size),
            where="--image-size",
            fix=f"Take {image_size // architecture.patch * architecture.patch or architecture.patch}.",
        )
    if architecture.dim % architecture.heads or architecture.dim % 4:
        raise InputError(
            "architecture",
            expected="a width that is a multiple of 4 and of the number of heads",
            found=f"width {architecture.dim}, {architecture.heads} heads",
            where="architecture",
            fix="The published ConvViT has 64 channels a head.",
        )
