"""The light decoder that MAE, ConvMAE and LSMAE share."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import LayerNorm
from torch import Tensor, nn
from torch.nn import functional as F

from pixmim_eval.models.vit import build_block, initialise_linear, sincos_positions
from pretrain.masking import Masking, gather_rows


class Decoder(nn.Module):
    """Transformer blocks over visible tokens and mask tokens, then a linear layer to pixels.

    Token order does not matter to attention, so visible and masked tokens stay in shuffled order. The loss reads the
    masked patches only, so the last block computes queries, MLP and pixels for those alone. Tokens before the patches
    (the class token) are there where the encoder has them, as the rows of the position table are.

    Args:
        encoder_dim: width of the encoder's tokens.
        dim, depth, heads: of the decoder.
        side: patches a side of the image.
        values: pixels a patch times 3.
        class_token: whether a class token comes before the patches (not in ConvMAE).

    Source: MAE (arXiv 2111.06377) section 3, "MAE decoder"; keys and initialisation of the official code.
    """

    def __init__(
        self, encoder_dim: int, dim: int, depth: int, heads: int, *, side: int, values: int, class_token: bool = True
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(encoder_dim, dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed: Tensor
        self.extra = int(class_token)  # tokens before the patches
        self.register_buffer("pos_embed", sincos_positions(dim, side)[:, 1 - self.extra :].clone())
        self.blocks = nn.ModuleList(build_block(dim, heads) for _ in range(depth))
        self.norm = LayerNorm(dim)
        self.pred = nn.Linear(dim, values)
        nn.init.normal_(self.mask_token, std=0.02)
        initialise_linear(self)

    def forward(self, latent: Tensor, masking: Masking) -> Tensor:
        """Predictions for the masked patches.

        Args:
            latent: encoder tokens [B, V, D] in the order of masking.visible, or [B, 1 + V, D], class token first.
            masking: see Masking.

        Returns:
            [B, M, values], in the order of masking.masked.
        """
        masked = masking.masked.shape[1]
        tokens = self._assemble(latent, masking)
        for block in self.blocks[:-1]:
            tokens = block(tokens)
        return self.pred(self.norm(_run_last(self.blocks[-1], tokens, masked)))

    def predict_all(self, latent: Tensor, masking: Masking) -> Tensor:
        """Predictions for every patch in image order, [B, N, values]: what pictures and public codes look at."""
        tokens = self._assemble(latent, masking)
        for block in self.blocks:
            tokens = block(tokens)
        return gather_rows(self.pred(self.norm(tokens[:, self.extra :])), masking.restore())

    def _assemble(self, latent: Tensor, masking: Masking) -> Tensor:
        """Class token if any, visible tokens and mask tokens with their positions, [B, extra + V + M, dim]."""
        first, positions = self.pos_embed[:, : self.extra], self.pos_embed[:, self.extra :]
        seen = self.embed(latent)
        visible = seen[:, self.extra :] + gather_rows(positions, masking.visible)
        unseen = gather_rows(self.mask_token + positions, masking.masked)
        return torch.cat((seen[:, : self.extra] + first, visible, unseen), dim=1)


def _run_last(block: Any, tokens: Tensor, count: int) -> Tensor:
    """A timm block evaluated at the last `count` tokens only; they attend to all tokens.

    Equal to block(tokens)[:, -count:] for blocks without drop path, layer scale or qk norm (see build_block).
    """
    attention = block.attn
    dim = tokens.shape[2]
    normed, wanted = block.norm1(tokens), tokens[:, -count:]
    weight, bias = attention.qkv.weight, attention.qkv.bias
    query = F.linear(normed[:, -count:], weight[:dim], bias[:dim])
    key, value = F.linear(normed, weight[dim:], bias[dim:]).chunk(2, dim=2)
    heads = [part.unflatten(2, (attention.num_heads, -1)).transpose(1, 2) for part in (query, key, value)]
    mixed = F.scaled_dot_product_attention(*heads)
    wanted = wanted + attention.proj(mixed.transpose(1, 2).flatten(2))
    return wanted + block.mlp(block.norm2(wanted))
