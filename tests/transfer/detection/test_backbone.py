"""Backbones and pyramids against the published definitions, with convolutions by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixmim_eval.errors import InputError
from pixmim_eval.models.vit import interpolate_positions
from pixmim_eval.transfer.detection.backbone import (
    MapNorm,
    PlainBackbone,
    SimplePyramid,
    StageBackbone,
    StagePyramid,
    build_backbone,
)
from pixmim_eval.transfer.detection.recipes import RECIPES
from tests.transfer.encoders import make_convvit, make_timm, make_vit

GLOBAL = replace(RECIPES["short"], image_size=32, window=0, global_blocks=(0,), channels=4, pyramid="auto")


def convolve(values: Tensor, layer: nn.Conv2d) -> Tensor:
    """A convolution of stride 1 on one image [C, H, W], with zeros around it."""
    side = layer.kernel_size[0]
    framed = torch.zeros(values.shape[0], values.shape[1] + side - 1, values.shape[2] + side - 1, dtype=values.dtype)
    framed[:, side // 2 : side // 2 + values.shape[1], side // 2 : side // 2 + values.shape[2]] = values
    result = torch.zeros(layer.out_channels, *values.shape[1:], dtype=values.dtype)
    for y in range(values.shape[1]):
        for x in range(values.shape[2]):
            result[:, y, x] = (layer.weight * framed[:, y : y + side, x : x + side]).sum(dim=(1, 2, 3))
    return result


def enlarge(values: Tensor, layer: nn.ConvTranspose2d) -> Tensor:
    """A transposed convolution of 2 x 2 and stride 2 on one image: every place becomes a square of its own."""
    result = torch.zeros(layer.out_channels, 2 * values.shape[1], 2 * values.shape[2], dtype=values.dtype)
    for y in range(values.shape[1]):
        for x in range(values.shape[2]):
            square = torch.einsum("i,iokl->okl", values[:, y, x], layer.weight) + layer.bias[:, None, None]
            result[:, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2] = square
    return result


def norm(values: Tensor, layer: MapNorm) -> Tensor:
    mean = values.mean(dim=0)
    deviation = ((values - mean).square().mean(dim=0) + 1e-6).sqrt()
    return (values - mean) / deviation * layer.weight[:, None, None] + layer.bias[:, None, None]


def pool(values: Tensor) -> Tensor:
    top, bottom = values[:, 0::2], values[:, 1::2]
    return torch.stack((top[..., 0::2], top[..., 1::2], bottom[..., 0::2], bottom[..., 1::2])).amax(dim=0)


def randomise(module: nn.Module) -> nn.Module:
    torch.manual_seed(5)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module.double()


def test_simple_pyramid_is_the_published_one_by_hand() -> None:
    pyramid = randomise(SimplePyramid(8, 4))
    image = torch.randn(8, 4, 4, dtype=torch.float64)
    first, second, third, fourth = pyramid.levels
    up, middle, _, up_again = first[0]
    starts = (
        (first, enlarge(F.gelu(norm(enlarge(image, up), middle)), up_again)),
        (second, enlarge(image, second[0])),
        (third, image),
        (fourth, pool(image)),
    )
    expected = [
        norm(convolve(norm(convolve(start, level[1]), level[2]), level[3]), level[4]) for level, start in starts
    ]
    expected.append(expected[-1][:, ::2, ::2])
    found = pyramid([image[None]])
    assert [level.shape[-1] for level in found] == [16, 8, 4, 2, 1]
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine[0], theirs, rtol=0, atol=1e-10)


def test_stage_pyramid_adds_what_is_coarser_from_the_top_down() -> None:
    pyramid = randomise(StagePyramid((3, 5), 4))
    fine, coarse = torch.randn(3, 4, 4, dtype=torch.float64), torch.randn(5, 2, 2, dtype=torch.float64)
    inner, outer = pyramid.pyramid.inner_blocks, pyramid.pyramid.layer_blocks
    top = norm(convolve(coarse, inner[1][0]), inner[1][1])
    bottom = norm(convolve(fine, inner[0][0]), inner[0][1])
    bottom = bottom + top.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    expected = [
        norm(convolve(bottom, outer[0][0]), outer[0][1]),
        norm(convolve(top, outer[1][0]), outer[1][1]),
    ]
    found = pyramid([fine[None], coarse[None]])
    for mine, theirs in zip(found, [*expected, expected[1][:, ::2, ::2]], strict=True):
        torch.testing.assert_close(mine[0], theirs, rtol=0, atol=1e-10)


def test_a_plain_backbone_is_the_blocks_on_patches_without_class_token_and_norm() -> None:
    model = make_vit(32)
    backbone, pyramid = build_backbone(model, replace(GLOBAL, global_blocks=(0, 1, 2)))
    assert isinstance(backbone, PlainBackbone) and isinstance(pyramid, SimplePyramid)
    images = torch.randn(2, 3, 32, 32)
    tokens = model.encoder.patch_embed(images) + model.encoder.pos_embed[:, 1:]
    for block in model.encoder.blocks:
        tokens = block(tokens)
    expected = tokens.reshape(2, 4, 4, -1).permute(0, 3, 1, 2)
    torch.testing.assert_close(backbone(images)[0], expected, rtol=0, atol=1e-5)
    assert not any("cls" in name for name, _ in backbone.named_parameters())


@pytest.mark.parametrize("size", [16, 56])
def test_the_encoders_own_table_is_interpolated_to_the_images(size: int) -> None:
    """LSMAE's has the patches of 448 pixels, MAE's of 224: each goes on from its own."""
    model = make_vit(size)
    backbone, _ = build_backbone(model, GLOBAL)
    side = size // 8
    expected = interpolate_positions(model.encoder.pos_embed, (side, side), (4, 4))[:, 1:]
    assert torch.equal(backbone.pos_embed.detach(), expected)
    assert backbone.pos_embed.requires_grad


def test_stages_of_a_convvit_are_its_own_maps() -> None:
    model = make_convvit(32)
    backbone, pyramid = build_backbone(model, replace(GLOBAL, global_blocks=(0, 1, 2)))
    assert isinstance(backbone, StageBackbone) and isinstance(pyramid, StagePyramid)
    images = torch.randn(2, 3, 32, 32)
    last = model.encoder._encode(images, None, fuse=False)[-1].reshape(2, 4, 4, -1).permute(0, 3, 1, 2)
    maps = backbone(images)
    assert [tuple(level.shape[1:]) for level in maps] == [(8, 16, 16), (12, 8, 8), (16, 4, 4), (16, 2, 2)]
    torch.testing.assert_close(maps[2], last, rtol=0, atol=1e-5)
    torch.testing.assert_close(maps[3], F.max_pool2d(last, 2), rtol=0, atol=1e-5)
    assert [tuple(level.shape[2:]) for level in pyramid(maps)] == [(16, 16), (8, 8), (4, 4), (2, 2), (1, 1)]
    assert not any(name.endswith("output_decode.weight") for name, _ in backbone.named_parameters())


def test_a_convvit_may_have_the_simple_pyramid_on_its_last_map() -> None:
    backbone, pyramid = build_backbone(make_convvit(32), replace(GLOBAL, pyramid="simple"))
    maps = backbone(torch.randn(1, 3, 32, 32))
    assert isinstance(pyramid, SimplePyramid) and [level.shape[2] for level in pyramid(maps)] == [16, 8, 4, 2, 1]


def test_what_has_no_stages_or_no_blocks_of_ours_is_named() -> None:
    with pytest.raises(InputError, match="no stages"):
        build_backbone(make_vit(32), replace(GLOBAL, pyramid="stages"))
    with pytest.raises(InputError, match="TimmEncoder"):
        build_backbone(make_timm("test_vit", size=32, img_size=32), GLOBAL)


def test_the_model_itself_is_left_as_it_was() -> None:
    model = make_vit(32)
    before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    backbone, _ = build_backbone(model, GLOBAL)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(1)
    assert all(torch.equal(value, before[name]) for name, value in model.encoder.state_dict().items())
