"""The masked autoencoder as the paper defines it, written to be read and compared against, not to be fast.

Source: He et al., "Masked Autoencoders Are Scalable Vision Learners", arXiv 2111.06377, sections 3 and A.1. Attribute
names follow the public checkpoint layout, so that one state dict loads here and in the package.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn


def position_table(grid: int, dim: int) -> Tensor:
    """Sine-cosine positions of a class token (zeros) and grid x grid patches, float64 [1, 1 + grid², dim].

    The first half of a row encodes the column and the second half the row; each half holds sines, then cosines.
    """
    quarter = dim // 4
    table = torch.zeros(1, 1 + grid * grid, dim, dtype=torch.float64)
    for row in range(grid):
        for column in range(grid):
            for k in range(quarter):
                frequency = 10000.0 ** (-k / quarter)
                entry = table[0, 1 + row * grid + column]
                entry[k] = math.sin(column * frequency)
                entry[quarter + k] = math.cos(column * frequency)
                entry[2 * quarter + k] = math.sin(row * frequency)
                entry[3 * quarter + k] = math.cos(row * frequency)
    return table


def patchify(images: Tensor, patch: int) -> Tensor:
    """Images [B, 3, H, W] as patches [B, N, patch² · 3], pixel by pixel with the colour innermost."""
    batch, channels, height, width = images.shape
    cells = images.view(batch, channels, height // patch, patch, width // patch, patch)
    return cells.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, patch * patch * channels)


def patchify_by_loop(images: np.ndarray, patch: int) -> np.ndarray:
    """The same patches, float64, each number put in its place by explicit loops."""
    batch, channels, height, width = images.shape
    columns = width // patch
    patches = np.empty((batch, (height // patch) * columns, patch * patch * channels))
    for y in range(height):
        for x in range(width):
            number = (y // patch) * columns + x // patch
            place = ((y % patch) * patch + x % patch) * channels
            for channel in range(channels):
                patches[:, number, place + channel] = images[:, channel, y, x]
    return patches


def normalise(patches: Tensor) -> Tensor:
    """Each patch less its mean, over its standard deviation (unbiased variance, 1e-6 inside the root)."""
    deviation = patches - patches.mean(dim=-1, keepdim=True)
    variance = (deviation**2).sum(dim=-1, keepdim=True) / (patches.shape[-1] - 1)
    return deviation / torch.sqrt(variance + 1e-6)


def masked_loss(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error of each patch, averaged over the masked patches of the whole batch."""
    error = ((prediction - target) ** 2).mean(dim=-1)
    return (error * mask).sum() / mask.sum()


class Attention(nn.Module):
    """Softmax attention written out: scores, weights, weighted sum."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        batch, count, dim = tokens.shape
        split = self.qkv(tokens).view(batch, count, 3, self.heads, dim // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)  # each [B, heads, N, dim / heads]
        scores = query @ key.transpose(-2, -1) * (dim // self.heads) ** -0.5
        mixed = scores.softmax(dim=-1) @ value
        return self.proj(mixed.transpose(1, 2).reshape(batch, count, dim))


class Mlp(nn.Module):
    """Two linear layers, four times as wide inside, with the exact GELU between."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(nn.functional.gelu(self.fc1(tokens)))


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attn(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class PatchEmbedding(nn.Module):
    """One linear map of every patch, as a strided convolution."""

    def __init__(self, patch: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=patch, stride=patch)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)


class Reconstruction(NamedTuple):
    """What a forward pass gives.

    loss: scalar; prediction: [B, N, patch² · 3], every patch; mask: float [B, N], 1 where a patch was hidden;
    latent: [B, 1 + visible, dim], class token first; ids_restore: int64 [B, N], where each patch went in the shuffle.
    """

    loss: Tensor
    prediction: Tensor
    mask: Tensor
    latent: Tensor
    ids_restore: Tensor


class ReferenceMAE(nn.Module):
    """An MAE on square images. Weights start as the public code starts them."""

    def __init__(
        self,
        image_size: int = 224,
        patch: int = 16,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        decoder_dim: int = 512,
        decoder_depth: int = 8,
        decoder_heads: int = 16,
    ) -> None:
        super().__init__()
        grid = image_size // patch
        self.patch = patch
        self.patch_embed = PatchEmbedding(patch, dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(position_table(grid, dim).float(), requires_grad=False)
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.decoder_embed = nn.Linear(dim, decoder_dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_dim))
        self.decoder_pos_embed = nn.Parameter(position_table(grid, decoder_dim).float(), requires_grad=False)
        self.decoder_blocks = nn.ModuleList(Block(decoder_dim, decoder_heads) for _ in range(decoder_depth))
        self.decoder_norm = nn.LayerNorm(decoder_dim, eps=1e-6)
        self.decoder_pred = nn.Linear(decoder_dim, patch * patch * 3)
        self.initialise()

    def initialise(self) -> None:
        """Xavier-uniform linear maps (the patch convolution as one), zero biases, normal tokens."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.patch_embed.proj.weight.data.flatten(1))
        nn.init.normal_(self.cls_token, std=0.02)
        nn.init.normal_(self.mask_token, std=0.02)

    def encode(self, images: Tensor, ids_keep: Tensor) -> Tensor:
        """Embed every patch, keep some, and run the encoder on those and the class token."""
        tokens = self.patch_embed(images) + self.pos_embed[:, 1:]
        visible = tokens.gather(1, ids_keep[:, :, None].expand(-1, -1, tokens.shape[-1]))
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(len(images), -1, -1)
        tokens = torch.cat((cls, visible), dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)

    def decode(self, latent: Tensor, ids_restore: Tensor) -> Tensor:
        """Fill the hidden places with the mask token, run the decoder, and predict the pixels of every patch."""
        tokens = self.decoder_embed(latent)
        batch, count, dim = len(latent), ids_restore.shape[1], tokens.shape[-1]
        hidden = self.mask_token.expand(batch, count + 1 - tokens.shape[1], -1)
        shuffled = torch.cat((tokens[:, 1:], hidden), dim=1)
        in_place = shuffled.gather(1, ids_restore[:, :, None].expand(-1, -1, dim))
        tokens = torch.cat((tokens[:, :1], in_place), dim=1) + self.decoder_pos_embed
        for block in self.decoder_blocks:
            tokens = block(tokens)
        return self.decoder_pred(self.decoder_norm(tokens))[:, 1:]

    def forward(
        self,
        images: Tensor,
        noise: Tensor,
        mask_ratio: float = 0.75,
        normalise_target: bool = True,
        target_images: Tensor | None = None,
    ) -> Reconstruction:
        """Hide the patches with the largest noise and reconstruct them.

        Args:
            images: normalised, [B, 3, S, S].
            noise: [B, N]; its order is the shuffle, the first int(N · (1 - mask_ratio)) patches stay.
            normalise_target: compare with patch-normalised pixels.
            target_images: what to reconstruct, like images; the images themselves when None.
        """
        ids_shuffle = noise.argsort(dim=1)
        ids_restore = ids_shuffle.argsort(dim=1)
        kept = int(noise.shape[1] * (1 - mask_ratio))
        mask = (ids_restore >= kept).to(images.dtype)
        latent = self.encode(images, ids_shuffle[:, :kept])
        prediction = self.decode(latent, ids_restore)
        target = patchify(images if target_images is None else target_images, self.patch)
        loss = masked_loss(prediction, normalise(target) if normalise_target else target, mask)
        return Reconstruction(loss, prediction, mask, latent, ids_restore)
