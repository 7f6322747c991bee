"""The masks of LSMAE, written out: whole units of patches, drawn as a permutation of the units.

Source: Hu et al., "Exploring Long-Sequence Masked Autoencoders", arXiv 2210.07224, section 3. Everything else of
LSMAE is MAE: feed the shuffle as noise to ReferenceMAE (`noise_of`).
"""

from __future__ import annotations

import torch
from torch import Tensor


def order_patches(permutation: list[int], units_across: int, side: int) -> list[int]:
    """Patches in the order in which units of side x side patches come; in a unit, column by column."""
    order = []
    for unit in permutation:
        top, left = unit // units_across * side, unit % units_across * side
        for x in range(side):
            for y in range(side):
                order.append((top + y) * units_across * side + left + x)
    return order


def noise_of(orders: list[list[int]]) -> Tensor:
    """Noise [B, N] whose argsort are these orders."""
    return torch.tensor(orders).argsort(dim=1).float()
