"""Window attention and relative positions against loops over windows, places and heads."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pixmim_eval.models.vit import build_block
from pixmim_eval.transfer.detection.attention import WindowedAttention

DIM, HEADS = 8, 2


def attend_by_loops(module: WindowedAttention, tokens: Tensor, grid: tuple[int, int], window: int) -> Tensor:
    """ViTDet's definition written out: maps continued by zeros, window after window, place after place."""
    down, across = grid
    high, wide = math.ceil(down / window) * window, math.ceil(across / window) * window
    width = DIM // HEADS
    result = torch.zeros_like(tokens)
    for image, sequence in enumerate(tokens):
        canvas = torch.zeros(high, wide, DIM, dtype=tokens.dtype)
        canvas[:down, :across] = sequence.reshape(down, across, DIM)
        mixed = torch.zeros_like(canvas)
        for top in range(0, high, window):
            for left in range(0, wide, window):
                places = [(y, x) for y in range(top, top + window) for x in range(left, left + window)]
                parts = {place: module.qkv(canvas[place]).reshape(3, HEADS, width) for place in places}
                for y, x in places:
                    heads = []
                    for head in range(HEADS):
                        query = parts[y, x][0, head]
                        logits = []
                        for v, u in places:
                            logit = query @ parts[v, u][1, head] / math.sqrt(width)
                            if module.relative:
                                logit = logit + query @ module.steps_down[y - v + window - 1]
                                logit = logit + query @ module.steps_across[x - u + window - 1]
                            logits.append(logit)
                        weights = torch.stack(logits).softmax(0)
                        heads.append(sum(w * parts[p][2, head] for w, p in zip(weights, places, strict=True)))
                    mixed[y, x] = module.proj(torch.cat(heads))
        result[image] = mixed[:down, :across].reshape(-1, DIM)
    return result


def make_attention(grid: tuple[int, int], window: int, *, relative: bool) -> WindowedAttention:
    torch.manual_seed(3)
    module = WindowedAttention(build_block(DIM, HEADS).attn, grid, window, relative=relative).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize(("grid", "window"), [((4, 4), 2), ((3, 5), 2), ((4, 5), 3)])
def test_windows_are_those_of_a_loop(grid: tuple[int, int], window: int, relative: bool) -> None:
    module = make_attention(grid, window, relative=relative)
    tokens = torch.randn(2, grid[0] * grid[1], DIM, dtype=torch.float64)
    torch.testing.assert_close(module(tokens), attend_by_loops(module, tokens, grid, window), rtol=0, atol=1e-12)


def test_global_attention_is_one_window_of_all_places() -> None:
    module = make_attention((3, 3), 0, relative=True)
    tokens = torch.randn(1, 9, DIM, dtype=torch.float64)
    torch.testing.assert_close(module(tokens), attend_by_loops(module, tokens, (3, 3), 3), rtol=0, atol=1e-12)


@pytest.mark.parametrize("window", [0, 4, 9])
def test_a_pretrained_block_gives_what_it_gave_before_positions_are_learned(window: int) -> None:
    torch.manual_seed(0)
    block = build_block(DIM, HEADS)
    tokens = torch.randn(2, 16, DIM)
    before = block(tokens)
    block.attn = WindowedAttention(block.attn, (4, 4), window, relative=True)
    torch.testing.assert_close(block(tokens), before, rtol=0, atol=1e-5)


def test_steps_are_learned_and_places_are_not() -> None:
    module = make_attention((4, 4), 2, relative=True)
    module(torch.randn(1, 16, DIM, dtype=torch.float64)).square().sum().backward()
    assert module.steps_down.shape == (3, DIM // HEADS)
    assert all(parameter.grad is not None for parameter in module.parameters())
    assert "places" not in module.state_dict()
