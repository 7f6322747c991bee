"""Random numbers that depend on (seed, item) alone: never on batch size, workers, device or number of processes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor

_GAMMA = -0x61C8864680B583EB  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX_1 = -0x40A7B892E31B1A47  # 0xBF58476D1CE4E5B9
_MIX_2 = -0x6B2FB644ECCEEE15  # 0x94D049BB133111EB


def derive_seed(*parts: int | str | float) -> int:
    """A 63-bit seed from any mixture of integers, floats and strings, e.g. derive_seed(seed, "crop", epoch)."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _mix(state: Tensor) -> Tensor:
    """SplitMix64's finaliser on int64 tensors; products wrap, and the masks make the right shifts logical."""
    state = (state ^ ((state >> 30) & 0x3FFFFFFFF)) * _MIX_1
    state = (state ^ ((state >> 27) & 0x1FFFFFFFFF)) * _MIX_2
    return state ^ ((state >> 31) & 0x1FFFFFFFF)


def _bits(seed: int, index: Tensor, count: int) -> Tensor:
    """Random 64-bit words [n, count]: stream `index[i]` of `seed`, words 1…count."""
    keys = _mix(_mix(index.to(torch.int64)) ^ seed)
    steps = torch.arange(1, count + 1, device=index.device) * _GAMMA
    return _mix(keys[:, None] + steps)


def uniform(seed: int, index: Tensor, count: int, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Uniform numbers in [0, 1), one row an item.

    Args:
        seed: see derive_seed.
        index: int64 [n], the items; row i of the result depends on (seed, index[i]) only, on any device.
        count: numbers an item.
        dtype: float32 (24 random bits) or float64 (53).

    Returns:
        [n, count] of dtype on index's device.

    Source: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), used as a counter-based generator.
    """
    if dtype == torch.float64:
        return ((_bits(seed, index, count) >> 11) & 0x1FFFFFFFFFFFFF).to(dtype) * 2.0**-53
    words = _bits(seed, index, (count + 1) // 2)  # two 24-bit numbers from each 64-bit word
    pairs = torch.stack((words & 0xFFFFFF, (words >> 40) & 0xFFFFFF), dim=-1)
    return pairs.flatten(1)[:, :count].to(dtype) * 2.0**-24


def generators(seed: int, index: Tensor, device: torch.device | str = "cpu") -> Iterator[torch.Generator]:
    """One generator an item, for bulk noise (torch's own generators make 100,000 numbers much faster than `uniform`).

    Args:
        seed: see derive_seed.
        index: int64 [n], the items; the generator of item i depends on (seed, index[i]) and on the kind of device.

    Yields:
        The same torch.Generator object on `device`, seeded anew for each item: use it before asking for the next.
    """
    generator = torch.Generator(device)
    for word in _bits(seed, index.cpu(), 1)[:, 0].tolist():
        yield generator.manual_seed(word)
