"""ConvMAE as its paper defines it, on dense feature maps with masks multiplied in, written to be read, not to be fast.

Source: Gao et al., "ConvMAE: Masked Convolution Meets Masked Autoencoders", arXiv 2205.03892, section 3. Attribute
names follow the public checkpoint layout, so that one state dict loads here and in the package.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.references.mae import Block, Reconstruction, masked_loss, normalise, patchify, position_table


def enlarge(mask: Tensor, side: int, factor: int) -> Tensor:
    """A mask [B, side * side] as a map [B, 1, side * factor, side * factor], every value a square of factor²."""
    maps = torch.empty(len(mask), 1, side * factor, side * factor, dtype=mask.dtype)
    for row in range(side * factor):
        for column in range(side * factor):
            maps[:, 0, row, column] = mask[:, (row // factor) * side + column // factor]
    return maps


def normalise_channels(norm: nn.LayerNorm, maps: Tensor) -> Tensor:
    """LayerNorm over the channels of [B, C, H, W]."""
    return norm(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class PatchEmbedding(nn.Module):
    """Strided convolution, LayerNorm over channels, GELU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(inputs, outputs, stride, stride)
        self.norm = nn.LayerNorm(outputs)

    def forward(self, maps: Tensor) -> Tensor:
        return nn.functional.gelu(normalise_channels(self.norm, self.proj(maps)))


class Mlp(nn.Module):
    """Two 1 x 1 convolutions, four times as wide inside."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(dim, 4 * dim, 1)
        self.fc2 = nn.Conv2d(4 * dim, dim, 1)

    def forward(self, maps: Tensor) -> Tensor:
        return self.fc2(nn.functional.gelu(self.fc1(maps)))


class MaskedConvolution(nn.Module):
    """Residual block with a depth-wise 5 x 5 convolution that reads zeros where the image is masked."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.conv1 = nn.Conv2d(dim, dim, 1)
        self.attn = nn.Conv2d(dim, dim, 5, padding=2, groups=dim)
        self.conv2 = nn.Conv2d(dim, dim, 1)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim)

    def forward(self, maps: Tensor, visible: Tensor) -> Tensor:
        maps = maps + self.conv2(self.attn(visible * self.conv1(normalise_channels(self.norm1, maps))))
        return maps + self.mlp(normalise_channels(self.norm2, maps))


class ReferenceConvMAE(nn.Module):
    """A ConvMAE on square images, with the strides 4/2/2 unless told."""

    def __init__(
        self,
        image_size: int = 224,
        strides: tuple[int, int, int] = (4, 2, 2),
        dims: tuple[int, int, int] = (256, 384, 768),
        depths: tuple[int, int, int] = (2, 2, 11),
        heads: int = 12,
        decoder_dim: int = 512,
        decoder_depth: int = 8,
        decoder_heads: int = 16,
    ) -> None:
        super().__init__()
        self.patch = strides[0] * strides[1] * strides[2]
        self.side = image_size // self.patch
        self.factors = strides[1] * strides[2], strides[2]
        self.patch_embed1 = PatchEmbedding(3, dims[0], strides[0])
        self.patch_embed2 = PatchEmbedding(dims[0], dims[1], strides[1])
        self.patch_embed3 = PatchEmbedding(dims[1], dims[2], strides[2])
        self.patch_embed4 = nn.Linear(dims[2], dims[2])
        self.stage1_output_decode = nn.Conv2d(dims[0], dims[2], self.factors[0], self.factors[0])
        self.stage2_output_decode = nn.Conv2d(dims[1], dims[2], self.factors[1], self.factors[1])
        self.pos_embed = nn.Parameter(position_table(self.side, dims[2])[:, 1:].float(), requires_grad=False)
        self.blocks1 = nn.ModuleList(MaskedConvolution(dims[0]) for _ in range(depths[0]))
        self.blocks2 = nn.ModuleList(MaskedConvolution(dims[1]) for _ in range(depths[1]))
        self.blocks3 = nn.ModuleList(Block(dims[2], heads) for _ in range(depths[2]))
        self.norm = nn.LayerNorm(dims[2], eps=1e-6)
        self.decoder_embed = nn.Linear(dims[2], decoder_dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_dim))
        table = position_table(self.side, decoder_dim)[:, 1:].float()
        self.decoder_pos_embed = nn.Parameter(table, requires_grad=False)
        self.decoder_blocks = nn.ModuleList(Block(decoder_dim, decoder_heads) for _ in range(decoder_depth))
        self.decoder_norm = nn.LayerNorm(decoder_dim, eps=1e-6)
        self.decoder_pred = nn.Linear(decoder_dim, self.patch**2 * 3)
        self.initialise()

    def initialise(self) -> None:
        """Xavier-uniform linear maps and last patch convolution, zero biases, normal mask token; PyTorch's own for
        every other convolution."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.patch_embed3.proj.weight.data.flatten(1))
        nn.init.normal_(self.mask_token, std=0.02)

    def embed(self, images: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens of all patches before stage 3, and what stages 1 and 2 add after it; each [B, N, dim]."""
        maps, added = self.patch_embed1(images), []
        stages = [(self.blocks1, self.stage1_output_decode), (self.blocks2, self.stage2_output_decode)]
        for (blocks, fusion), factor in zip(stages, self.factors, strict=True):
            for block in blocks:
                maps = block(maps, 1 - enlarge(mask, self.side, factor))
            added.append(fusion(maps).flatten(2).transpose(1, 2))
            maps = self.patch_embed2(maps) if len(added) == 1 else self.patch_embed3(maps)
        return self.patch_embed4(maps.flatten(2).transpose(1, 2)) + self.pos_embed, added[0] + added[1]

    def encode_all(self, images: Tensor) -> Tensor:
        """What the encoder gives after pretraining: nothing masked, nothing added. [B, N, dim]."""
        tokens, _ = self.embed(images, torch.zeros(len(images), self.side**2, dtype=images.dtype))
        for block in self.blocks3:
            tokens = block(tokens)
        return self.norm(tokens)

    def decode(self, latent: Tensor, ids_restore: Tensor) -> Tensor:
        """Fill the hidden places with the mask token, run the decoder, and predict the pixels of every patch."""
        tokens = self.decoder_embed(latent)
        hidden = self.mask_token.expand(len(latent), ids_restore.shape[1] - tokens.shape[1], -1)
        places = ids_restore[:, :, None].expand(-1, -1, tokens.shape[2])
        tokens = torch.cat((tokens, hidden), dim=1).gather(1, places) + self.decoder_pos_embed
        for block in self.decoder_blocks:
            tokens = block(tokens)
        return self.decoder_pred(self.decoder_norm(tokens))

    def forward(
        self,
        images: Tensor,
        noise: Tensor,
        mask_ratio: float = 0.75,
        normalise_target: bool = True,
        target_images: Tensor | None = None,
    ) -> Reconstruction:
        """Hide the patches with the largest noise and reconstruct them; arguments as of ReferenceMAE."""
        ids_shuffle = noise.argsort(dim=1)
        ids_restore = ids_shuffle.argsort(dim=1)
        kept = int(noise.shape[1] * (1 - mask_ratio))
        mask = (ids_restore >= kept).to(images.dtype)
        places = ids_shuffle[:, :kept, None].expand(-1, -1, self.pos_embed.shape[2])
        tokens, added = (part.gather(1, places) for part in self.embed(images, mask))
        for block in self.blocks3:
            tokens = block(tokens)
        latent = self.norm(tokens + added)
        prediction = self.decode(latent, ids_restore)
        target = patchify(images if target_images is None else target_images, self.patch)
        loss = masked_loss(prediction, normalise(target) if normalise_target else target, mask)
        return Reconstruction(loss, prediction, mask, latent, ids_restore)
