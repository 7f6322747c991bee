"""Attention inside windows, and by relative positions, as ViTDet adapts a pretrained ViT to large images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_ALIGNED = 8  # fused attention on GPUs wants heads of a multiple of so many channels


class WindowedAttention(nn.Module):
    """timm's attention, kept to windows, with learned biases for steps down and across.

    Windows are cut from the upper left; where they reach beyond the map, it is continued by zeros, which are attended
    to. A window is no larger than the map.

    Args:
        attention: whose weights it takes over.
        grid: patches (down, across) of the images that it is for.
        window: patches a side; 0 for the whole map.
        relative: with the biases: a vector for every step down and one for every step across, whose products with the
            query are added to the logits; zero at first.

    Source: ViTDet (arXiv 2203.16527) section 3; MViTv2 (arXiv 2112.01526) equation 4 for the decomposed biases.
        The biases ride in extra channels of queries and keys, so that no matrix of them is ever made.
    """

    def __init__(self, attention: Any, grid: tuple[int, int], window: int, *, relative: bool) -> None:
        super().__init__()
        self.qkv, self.proj, self.num_heads = attention.qkv, attention.proj, attention.num_heads
        self.grid = grid
        self.sides = (min(window or grid[0], grid[0]), min(window or grid[1], grid[1]))
        self.relative = relative
        if not relative:
            return
        down, across = self.sides
        width = self.proj.in_features // self.num_heads
        self.steps_down = nn.Parameter(torch.zeros(2 * down - 1, width))
        self.steps_across = nn.Parameter(torch.zeros(2 * across - 1, width))
        places = torch.cat((torch.eye(down).repeat_interleave(across, 0), torch.eye(across).repeat(down, 1)), dim=1)
        self.places: Tensor
        self.register_buffer("places", places, persistent=False)  # [down * across, down + across]: row, column

    def forward(self, tokens: Tensor, *_: Any, **__: Any) -> Tensor:
        """[B, N, D] -> the same shape; what else timm's blocks pass is for masks, of which there are none."""
        if self.sides == self.grid:
            return self._attend(tokens)
        batch, _count, width = tokens.shape
        (down, across), (high, wide) = self.grid, self.sides
        below, right = -down % high, -across % wide
        maps = F.pad(tokens.unflatten(1, self.grid), (0, 0, 0, right, 0, below))
        rows, columns = (down + below) // high, (across + right) // wide
        windows = maps.reshape(batch, rows, high, columns, wide, width).transpose(2, 3)
        mixed = self._attend(windows.reshape(-1, high * wide, width))
        mixed = mixed.reshape(batch, rows, columns, high, wide, width).transpose(2, 3)
        return mixed.reshape(batch, rows * high, columns * wide, width)[:, :down, :across].flatten(1, 2)

    def _attend(self, tokens: Tensor) -> Tensor:
        """Attention over all tokens [n, down * across, D]."""
        count, places, width = tokens.shape
        query, key, value = self.qkv(tokens).reshape(count, places, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        scale = query.shape[-1] ** -0.5
        if self.relative:
            query, key = self._add_positions(query, key, scale)
            scale = 1.0
        mixed = F.scaled_dot_product_attention(query, key, value, scale=scale)
        return self.proj(mixed.transpose(1, 2).reshape(count, places, width))

    def _add_positions(self, query: Tensor, key: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Queries and keys whose product is the scaled one with the biases added."""
        down, across = self.sides
        maps = query.unflatten(2, self.sides)
        rows = torch.einsum("nhyxe,yke->nhyxk", maps, _spread(self.steps_down, down).to(query.dtype))
        columns = torch.einsum("nhyxe,xke->nhyxk", maps, _spread(self.steps_across, across).to(query.dtype))
        biases = torch.cat((rows, columns), dim=-1).flatten(2, 3).to(query.dtype)
        query = torch.cat((query * scale, biases), dim=-1)
        key = torch.cat((key, self.places.to(key.dtype).expand(*key.shape[:2], -1, -1)), dim=-1)
        missing = (0, -query.shape[-1] % _ALIGNED)
        return F.pad(query, missing), F.pad(key, missing)


def _spread(steps: Tensor, side: int) -> Tensor:
    """The vector of every query and key along a side: [2 side - 1, e] -> [side, side, e], (i, j) of step i - j."""
    places = torch.arange(side, device=steps.device)
    return steps[places[:, None] - places + side - 1]
