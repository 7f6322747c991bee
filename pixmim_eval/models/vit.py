"""The Vision Transformer encoder of MAE, from timm's blocks, in the public checkpoints' key layout."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from timm.layers import LayerNorm, PatchEmbed
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from pixmim_eval.errors import InputError
from pixmim_eval.types import Tokens


@dataclass(frozen=True)
class Architecture:
    """Size of a ViT: side of a patch in pixels, width, number of blocks, attention heads."""

    patch: int
    dim: int
    depth: int
    heads: int


ARCHITECTURES = {
    "vit-ti16": Architecture(patch=16, dim=192, depth=12, heads=3),
    "vit-s16": Architecture(patch=16, dim=384, depth=12, heads=6),
    "vit-b16": Architecture(patch=16, dim=768, depth=12, heads=12),
    "vit-l16": Architecture(patch=16, dim=1024, depth=24, heads=16),
    "vit-h14": Architecture(patch=14, dim=1280, depth=32, heads=16),
}


class VisionTransformer(nn.Module):
    """ViT with a class token and fixed sin-cos positions.

    Args:
        image_size: side of the square input in pixels, a multiple of architecture.patch.
        architecture: see Architecture.
        layer_scale: initial value of a learned factor on every channel of every residual branch (1e-4 in DeiT III);
            None for none.
        final_norm: normalise the tokens at the end. Networks fine-tuned with mean pooling do not: their classifier
            normalises what it pooled.
        epsilon: of every LayerNorm.

    Raises:
        InputError: image_size is not a multiple of the patch, or the width not one of the number of heads and of 4.

    Source: ViT (arXiv 2010.11929); MAE (arXiv 2111.06377) appendix A.1; LayerNorm eps 1e-6. LayerScale: CaiT
        (arXiv 2103.17239), DeiT III (arXiv 2204.07118).
    """

    def __init__(
        self,
        image_size: int,
        architecture: Architecture,
        *,
        layer_scale: float | None = None,
        final_norm: bool = True,
        epsilon: float = 1e-6,
    ) -> None:
        super().__init__()
        self.patch, self.dim = architecture.patch, architecture.dim
        if image_size % self.patch:
            raise InputError(
                "image size",
                expected=f"a multiple of the patch size {self.patch}",
                found=str(image_size),
                where="--image-size",
                fix=f"Take {image_size // self.patch * self.patch or self.patch}.",
            )
        if self.dim % architecture.heads or self.dim % 4:
            raise InputError(
                "architecture",
                expected="a width that is a multiple of 4 and of the number of heads",
                found=f"width {self.dim}, {architecture.heads} heads",
                where="architecture",
                fix="Published ViTs have 64 channels a head.",
            )
        side = image_size // self.patch
        self.grid = (side, side)
        self.patch_embed = PatchEmbed(image_size, self.patch, 3, self.dim, strict_img_size=False)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, self.dim))
        self.pos_embed: Tensor
        self.register_buffer("pos_embed", sincos_positions(self.dim, side))
        self.blocks = nn.ModuleList(
            build_block(self.dim, architecture.heads, layer_scale=layer_scale, epsilon=epsilon)
            for _ in range(architecture.depth)
        )
        self.norm = LayerNorm(self.dim, eps=epsilon) if final_norm else nn.Identity()
        nn.init.normal_(self.cls_token, std=0.02)
        initialise_linear(self)
        nn.init.xavier_uniform_(self.patch_embed.proj.weight.view(self.dim, -1))

    def forward(self, images: Tensor, visible: Tensor | None = None) -> Tensor:
        """Tokens after the final norm, class token first.

        Args:
            images: float [B, 3, H, W], normalised.
            visible: int64 [B, V], the patches to encode; None for all.

        Returns:
            [B, 1 + V, D] (V = N where visible is None).
        """
        tokens = self._embed(images, visible)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)

    def _embed(self, images: Tensor, visible: Tensor | None = None) -> Tensor:
        """What the first block reads: class token and embedded patches, with their positions."""
        positions = interpolate_positions(self.pos_embed, self.grid, self._measure_grid(images))
        if visible is None:
            patches = self.patch_embed(images) + positions[:, 1:]
        else:
            patches = self._embed_visible(images, visible, positions[:, 1:])
        cls = (self.cls_token + positions[:, :1]).expand(len(images), -1, -1)
        return torch.cat((cls, patches), dim=1)

    def _measure_grid(self, images: Tensor) -> tuple[int, int]:
        return images.shape[2] // self.patch, images.shape[3] // self.patch

    def _embed_visible(self, images: Tensor, visible: Tensor, positions: Tensor) -> Tensor:
        """Patch embedding of the visible patches alone: the convolution's stride is its kernel, so patches are
        independent and the masked ones need not be computed."""
        projection = self.patch_embed.proj
        channel_first = F.pixel_unshuffle(images, self.patch).flatten(2).transpose(1, 2)  # [B, N, 3 p p]
        rows = visible[:, :, None]
        pixels = channel_first.gather(1, rows.expand(-1, -1, channel_first.shape[2]))
        embedded = F.linear(pixels, projection.weight.flatten(1), projection.bias)
        return embedded + positions.expand(len(images), -1, -1).gather(1, rows.expand(-1, -1, self.dim))

    def tokens(self, images: Tensor) -> Tokens:
        """Class token and patch tokens after the final norm; see types.Encoder."""
        return self._split(self(images), images)

    def layer_tokens(self, images: Tensor, count: int) -> list[Tokens]:
        """The same after each of the last blocks; see types.Encoder."""
        check_layers(count, len(self.blocks))
        tokens, layers = self._embed(images), []
        for block in self.blocks:
            tokens = block(tokens)
            layers.append(tokens)
        return [self._split(self.norm(tokens), images) for tokens in layers[: -count - 1 : -1]]

    def _split(self, tokens: Tensor, images: Tensor) -> Tokens:
        return Tokens(cls=tokens[:, 0], patches=tokens[:, 1:], grid=self._measure_grid(images))


class Classifier(nn.Module):
    """From an encoder's tokens to logits: pool, normalise, one linear layer. Public keys of its weights in brackets.

    Args:
        dim: width D of the tokens.
        classes: number K of classes.
        pooling: "cls" (class token; the first patch token where there is none, as ConvMAE's linear probe without
            --global_pool has it) or "mean" (of the patch tokens).
        norm: "layer" (LayerNorm [fc_norm]: fine-tuning with mean pooling), "batch" (BatchNorm without learned factors
            [head_norm]: MAE's linear probe), "layer+batch" (ConvMAE's with mean pooling) or None.
        epsilon: of the norm.

    Source: MAE, official fine-tuning and linear probing; the linear layer is [head].
    """

    def __init__(
        self, dim: int, classes: int, *, pooling: str = "cls", norm: str | None = None, epsilon: float = 1e-6
    ) -> None:
        super().__init__()
        self.classes, self.pooling = classes, pooling
        self.fc_norm = LayerNorm(dim, eps=epsilon) if norm in ("layer", "layer+batch") else nn.Identity()
        batch = norm in ("batch", "layer+batch")
        self.head_norm = nn.BatchNorm1d(dim, affine=False, eps=epsilon) if batch else nn.Identity()
        self.head = nn.Linear(dim, classes)

    def forward(self, tokens: Tokens) -> Tensor:
        """Logits [B, K]."""
        return self.head(self.head_norm(self.fc_norm(self._pool(tokens))))

    def _pool(self, tokens: Tokens) -> Tensor:
        if self.pooling == "mean":
            return tokens.patches.mean(dim=1)
        return tokens.patches[:, 0] if tokens.cls is None else tokens.cls


def check_layers(count: int, known: int) -> None:
    """Raise InputError where an encoder has fewer layers than are asked for."""
    if not 1 <= count <= known:
        raise InputError(
            "layers of the encoder",
            expected=f"1 to {known}",
            found=str(count),
            where="number of last layers",
            fix="Ask for fewer.",
        )


def build_block(dim: int, heads: int, *, layer_scale: float | None = None, epsilon: float = 1e-6) -> Block:
    """timm's pre-norm transformer block with MAE's settings (MLP ratio 4, qkv bias, LayerNorm eps 1e-6)."""
    norm: Any = partial(LayerNorm, eps=epsilon)
    return Block(dim, heads, mlp_ratio=4.0, qkv_bias=True, init_values=layer_scale, norm_layer=norm)


def interpolate_positions(table: Tensor, grid_from: tuple[int, int], grid_to: tuple[int, int]) -> Tensor:
    """A position table for another grid of patches; rows before the patches (the class token's) stay as they are.

    Args:
        table: float [1, extra + rows * columns, D] for grid_from.
        grid_from, grid_to: (rows, columns).

    Returns:
        [1, extra + rows * columns, D] for grid_to, in the table's dtype.

    Source: MAE, official code, util/pos_embed.py (as DeiT, mmpretrain and transformers): bicubic, corners not aligned,
        no antialiasing. Differs from timm's own loader, which antialiases when it makes a table smaller.
    """
    if grid_from == grid_to:
        return table
    extra = table.shape[1] - grid_from[0] * grid_from[1]
    image = table[:, extra:].float().unflatten(1, grid_from).permute(0, 3, 1, 2)
    image = F.interpolate(image, size=grid_to, mode="bicubic", align_corners=False)
    return torch.cat((table[:, :extra], image.permute(0, 2, 3, 1).flatten(1, 2).to(table.dtype)), dim=1)


def initialise_linear(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases for every Linear of a module.

    Source: MAE, official code; LayerNorms keep PyTorch's ones and zeros.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def sincos_positions(dim: int, side: int) -> Tensor:
    """Fixed 2-D sin-cos position table with a row of zeros for the class token, float32 [1, 1 + side * side, dim].

    The first half of the channels encodes the column, the second half the row; each half holds sines, then cosines,
    of position / 10000^(2 k / half).

    Args:
        dim: width, a multiple of 4.
        side: patches a side.

    Source: MAE, official code. Differs from mmselfsup's, which swaps the halves: load the table from a checkpoint.
    """
    quarter = dim // 4
    frequency = 10000.0 ** (-np.arange(quarter, dtype=np.float64) / quarter)
    angle = np.arange(side, dtype=np.float64)[:, None] * frequency[None, :]
    axis = np.concatenate((np.sin(angle), np.cos(angle)), axis=1)  # [side, dim / 2]
    columns, rows = np.tile(axis, (side, 1)), np.repeat(axis, side, axis=0)
    table = np.concatenate((columns, rows), axis=1)
    return torch.from_numpy(np.concatenate((np.zeros((1, dim)), table))).float()[None]
