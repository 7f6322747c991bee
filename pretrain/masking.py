"""Which patches the encoder sees and which the decoder reconstructs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Masking:
    """A random split of N patches, for each of B images.

    Args:
        visible: int64 [B, V], patches that the encoder sees, in shuffled order.
        masked: int64 [B, N - V], patches to reconstruct, in shuffled order.
    """

    visible: Tensor
    masked: Tensor

    def split(self, units_across: int, side: int) -> Masking:
        """Units of side x side patches as patches: all of a unit, one after the other, where the unit was.

        Args:
            units_across: units in a row of the image.
            side: patches a side of a unit; 1 leaves everything as it is.

        Source: LSMAE (arXiv 2210.07224) section 3.2, "decoupled mask size"; the official code goes through the columns
            of a unit in the outer loop.
        """
        if side == 1:
            return self
        return Masking(*(_split_units(units, units_across, side) for units in (self.visible, self.masked)))

    def restore(self) -> Tensor:
        """int64 [B, N]: where each patch went in (visible, masked); undoes the shuffle with a gather."""
        return torch.cat((self.visible, self.masked), dim=1).argsort(dim=1)

    def mask(self) -> Tensor:
        """float [B, N]: 1 where a patch is masked, 0 where it is visible, in image order."""
        batch, count = self.visible.shape[0], self.visible.shape[1] + self.masked.shape[1]
        zeros = torch.zeros(batch, count, device=self.visible.device)
        return zeros.scatter_(1, self.masked, 1.0)


def mask_randomly(noise: Tensor, ratio: float) -> Masking:
    """Keep the patches (or whole units of patches, see Masking.split) with the smallest noise.

    Args:
        noise: float [B, N], one number a patch or unit; equal numbers keep their order.
        ratio: share to mask, in [0, 1); int(N * (1 - ratio)) stay visible.

    Source: MAE (arXiv 2111.06377) section 3, "simple implementation"; ConvMAE draws the same mask on its last grid.
        Differs: LSMAE's official code counts visible patches, not units, and would split one where they do not divide
        (at the published ratio they do); here the visible share is rounded down to whole units.
    """
    order = noise.argsort(dim=1, stable=True)
    keep = int(noise.shape[1] * (1 - ratio))
    return Masking(visible=order[:, :keep], masked=order[:, keep:])


def gather_rows(tokens: Tensor, rows: Tensor) -> Tensor:
    """tokens [B, N, D] or [1, N, D] at rows [B, M] -> [B, M, D]."""
    tokens = tokens.expand(rows.shape[0], -1, -1)
    return tokens.gather(1, rows[:, :, None].expand(-1, -1, tokens.shape[2]))


def _split_units(units: Tensor, units_across: int, side: int) -> Tensor:
    """Units [B, U] -> their patches [B, U * side * side]."""
    steps = torch.arange(side, device=units.device)
    rows = (units // units_across)[:, :, None, None] * side + steps  # inner: down a column
    columns = (units % units_across)[:, :, None, None] * side + steps[:, None]  # outer: from column to column
    return (rows * (units_across * side) + columns).flatten(1)
