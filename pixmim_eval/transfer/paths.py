"""Stochastic depth that depends on the image alone: not on the batch that it is in, nor on the process."""

from __future__ import annotations

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from pixmim_eval.errors import InputError

CALLS = 4  # branches that one module may drop in a forward pass; timm's blocks call theirs once, XCiT's three times
_NAMES = ("drop_path", "drop_path1", "drop_path2")  # of timm's blocks and ours


class RowDropPath(nn.Module):
    """Drops a residual branch for some images, and scales it up for the others.

    Args:
        rate: chance that an image is without the branch.

    Source: Huang et al., arXiv 1603.09382, as in timm's DropPath, which draws its random numbers batch by batch.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self._numbers: Tensor | None = None
        self._calls = 0

    def begin(self, numbers: Tensor) -> None:
        """Take the random numbers of the next forward pass, float [B, CALLS] in [0, 1)."""
        self._numbers, self._calls = numbers, 0

    def forward(self, branch: Tensor) -> Tensor:
        """The branch [n, …], where n / B rows in turn belong to an image; as it is in eval mode."""
        if not self.training or self.rate == 0 or self._numbers is None:
            return branch
        column = self._numbers[:, self._calls % CALLS]
        self._calls += 1
        scale = (column >= self.rate).to(branch.dtype) / (1 - self.rate)
        scale = scale.repeat_interleave(len(branch) // len(column))
        return branch * scale.reshape(-1, *[1] * (branch.ndim - 1))


def place_paths(network: nn.Module, rate: float) -> list[RowDropPath]:
    """Give every residual block a RowDropPath on each of its branches, in the place of timm's own or of none.

    Args:
        network: of timm's blocks or ours, changed in place.
        rate: of the last block; it rises linearly from 0 in the first.

    Returns:
        All of them, in order of depth; none where the rate is 0, which leaves the network as it is.

    Raises:
        InputError: there is no residual block, and the rate is not 0.
    """
    if not rate:
        return []
    owners = [module for module in network.modules() if any(_has_place(module, name) for name in _NAMES)]
    if not owners:
        raise InputError(
            "drop path",
            expected="0 for a network without residual branches that can be dropped",
            found=f"{rate:g}",
            where="--drop-path",
            fix="Give --drop-path 0.",
        )
    paths = []
    for owner, own_rate in zip(owners, torch.linspace(0, rate, len(owners)).tolist(), strict=True):
        for name in _NAMES:
            if _has_place(owner, name):
                paths.append(RowDropPath(own_rate))
                setattr(owner, name, paths[-1])
    return paths


def _has_place(module: nn.Module, name: str) -> bool:
    """Whether a block drops a path by this name: timm leaves an identity, or None, where the rate is 0."""
    return hasattr(module, name) and isinstance(getattr(module, name), nn.Identity | DropPath | None)
