"""Encoders as backbones give the published maps, and what is added to them starts as nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixmim_eval.models.vit import Architecture, VisionTransformer
from pixmim_eval.transfer.segmentation.backbone import (
    BiasedAttention,
    ConvBackbone,
    build_backbone,
    choose_blocks,
    number_steps,
)
from tests.transfer.segmenters import SMALL, make_conv, make_model


def run_blocks(encoder: VisionTransformer, images: Tensor) -> list[Tensor]:
    """The output of every block, the plain way."""
    patches = encoder.patch_embed.proj(images).flatten(2).transpose(1, 2)
    tokens = torch.cat((encoder.cls_token.expand(len(images), -1, -1), patches), dim=1) + encoder.pos_embed
    outputs = []
    for block in encoder.blocks:
        query, key, value = block.attn.qkv(block.norm1(tokens)).reshape(*tokens.shape[:2], 3, 3, -1).unbind(2)
        weights = torch.einsum("bnhd,bmhd->bhnm", query, key) / math.sqrt(query.shape[-1])
        mixed = torch.einsum("bhnm,bmhd->bnhd", weights.softmax(dim=-1), value).flatten(2)
        tokens = tokens + block.attn.proj(mixed)
        hidden = F.gelu(block.mlp.fc1(block.norm2(tokens)))
        tokens = tokens + block.mlp.fc2(hidden)
        outputs.append(tokens)
    return outputs


def upsample(convolution: nn.ConvTranspose2d, maps: Tensor) -> Tensor:
    """A deconvolution whose stride is its kernel: every place becomes a square of products with a matrix."""
    weight, bias = convolution.weight, convolution.bias
    products = torch.einsum("bchw,coyx->bohywx", maps, weight).flatten(4).flatten(2, 3)
    return products + bias[:, None, None]  # type: ignore[index]


@pytest.mark.parametrize("patch", [8, 16])
def test_necks_make_the_published_pyramid_of_the_published_blocks(patch: int) -> None:
    torch.manual_seed(0)
    encoder = VisionTransformer(64, Architecture(patch=patch, dim=24, depth=12, heads=3))
    backbone = build_backbone(make_model(encoder, 64), replace(SMALL, crop=64)).eval()
    images = torch.randn(2, 3, 64, 64)
    found = backbone(images)
    outputs = [run_blocks(encoder, images)[block] for block in (3, 5, 7, 11)]
    maps = [tokens[:, 1:].transpose(1, 2).unflatten(2, (64 // patch,) * 2) for tokens in outputs]
    necks: list[nn.Module] = list(backbone.necks)  # type: ignore[arg-type]
    if patch == 16:
        first, norm, _, second = necks[0]  # type: ignore[misc]
        inner = F.gelu(upsample(first, maps[0]) / math.sqrt(1 + norm.eps))
        expected = [upsample(second, inner), upsample(necks[1], maps[1]), maps[2], maps[3].unfold(2, 2, 2)]  # type: ignore[arg-type]
        expected[3] = expected[3].unfold(3, 2, 2).flatten(4).amax(dim=4)
    else:
        pooled = [maps[place].unfold(2, side, side).unfold(3, side, side) for place, side in ((2, 2), (3, 4))]
        expected = [upsample(necks[0], maps[0]), maps[1], *(values.flatten(4).amax(dim=4) for values in pooled)]  # type: ignore[arg-type]
    assert [values.shape[2] for values in found] == [16, 8, 4, 2]
    for values, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(values, wanted, rtol=1e-4, atol=1e-5)


def test_a_convvit_gives_its_own_stages() -> None:
    encoder = make_conv()
    backbone = build_backbone(make_model(encoder), replace(SMALL, relative_positions=False)).eval()
    assert isinstance(backbone, ConvBackbone)
    images = torch.randn(2, 3, 32, 32)
    maps = backbone(images)
    assert [tuple(values.shape[1:]) for values in maps] == [(8, 8, 8), (12, 4, 4), (24, 2, 2), (24, 1, 1)]
    dense = images  # the same stages, as convolutions over the whole image
    for embed, blocks, found in (
        (encoder.patch_embed1, encoder.blocks1, maps[0]),
        (encoder.patch_embed2, encoder.blocks2, maps[1]),
    ):
        dense = F.gelu(embed.norm(embed.proj(dense).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        for block in blocks:
            inner = block.norm1(dense.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            dense = dense + block.conv2(block.attn(block.conv1(inner)))
            inner = block.norm2(dense.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            dense = dense + block.mlp["fc2"](F.gelu(block.mlp["fc1"](inner)))
        torch.testing.assert_close(found, dense, rtol=1e-4, atol=1e-5)
    last = maps[2].flatten(2).transpose(1, 2)
    torch.testing.assert_close(encoder.norm(last), encoder.tokens(images).patches, rtol=1e-4, atol=1e-5)


def test_layer_scale_and_relative_positions_start_as_nothing() -> None:
    for encoder in (make_model().encoder, make_conv()):
        model = make_model(encoder)
        plain = build_backbone(model, replace(SMALL, layer_scale=False, relative_positions=False)).eval()
        rich = build_backbone(model, SMALL).eval()
        rich.load_state_dict(plain.state_dict(), strict=False)
        images = torch.randn(2, 3, 32, 32)
        assert sum(map(torch.numel, rich.parameters())) > sum(map(torch.numel, plain.parameters()))
        for one, other in zip(rich(images), plain(images), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_steps_between_patches_are_numbered_as_published() -> None:
    down, across = 2, 3
    places = [(y, x) for y in range(down) for x in range(across)]
    numbers = number_steps((down, across), class_token=True)
    for i, (y, x) in enumerate(places):
        for j, (other_y, other_x) in enumerate(places):
            step = (y - other_y + down - 1) * (2 * across - 1) + (x - other_x + across - 1)
            assert numbers[i + 1, j + 1] == step
    table = (2 * down - 1) * (2 * across - 1)
    assert numbers[0, 1:].tolist() == [table] * 6 and numbers[1:, 0].tolist() == [table + 1] * 6
    assert numbers[0, 0] == table + 2
    assert torch.equal(number_steps((down, across), class_token=False), numbers[1:, 1:])


def test_biases_are_added_to_the_products_of_queries_and_keys() -> None:
    attention = make_model().encoder.blocks[0].attn
    biased = BiasedAttention(attention, (2, 2), class_token=True)
    nn.init.normal_(biased.bias_table)
    tokens = torch.randn(2, 5, 24)
    query, key, value = attention.qkv(tokens).reshape(2, 5, 3, 3, 8).unbind(2)
    products = torch.einsum("bnhd,bmhd->bhnm", query, key) / math.sqrt(8)
    for i in range(5):
        for j in range(5):
            products[:, :, i, j] += biased.bias_table[biased.steps[i, j]]
    mixed = torch.einsum("bhnm,bmhd->bnhd", products.softmax(dim=-1), value).flatten(2)
    torch.testing.assert_close(biased(tokens), attention.proj(mixed), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [32, 64])
def test_positions_are_interpolated_to_the_crop_and_become_weights(size: int) -> None:
    """From the encoder's own table: LSMAE's is of 448 pixels, MAE's of 224."""
    model = make_model(VisionTransformer(size, Architecture(patch=8, dim=24, depth=4, heads=3)), size)
    encoder = build_backbone(model, replace(SMALL, crop=96)).encoder
    assert encoder.grid == (12, 12)
    assert isinstance(encoder.pos_embed, nn.Parameter)
    table = model.encoder.pos_embed[:, 1:].unflatten(1, (size // 8, size // 8)).permute(0, 3, 1, 2)
    wanted = F.interpolate(table, size=(12, 12), mode="bicubic", align_corners=False).permute(0, 2, 3, 1).flatten(1, 2)
    torch.testing.assert_close(encoder.pos_embed[:, 1:], wanted)
    assert not isinstance(model.encoder.pos_embed, nn.Parameter)  # the model itself is as it was


def test_depths_are_cut_at_a_third_a_half_and_two_thirds() -> None:
    assert choose_blocks(12) == (3, 5, 7, 11)
    assert choose_blocks(24) == (7, 11, 15, 23)
    assert choose_blocks(2) == (0, 0, 0, 1)
