"""The encoder against the plain reference, and its position tables against a loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pixmim_eval.errors import InputError
from pixmim_eval.models.vit import (
    Architecture,
    Classifier,
    VisionTransformer,
    interpolate_positions,
    sincos_positions,
)
from pixmim_eval.types import Tokens
from tests.references.mae import ReferenceMAE, position_table


@pytest.mark.parametrize(("dim", "side"), [(768, 14), (96, 8), (512, 14)])
def test_positions_equal_the_published_table(dim: int, side: int) -> None:
    np.testing.assert_allclose(sincos_positions(dim, side), position_table(side, dim), rtol=0, atol=1e-6)


def test_tokens_of_all_patches_equal_the_plain_reference() -> None:
    torch.manual_seed(0)
    reference = ReferenceMAE(64, 8, 48, 3, 3, 32, 1, 2)
    encoder = VisionTransformer(64, Architecture(8, 48, 3, 3))
    encoder.load_state_dict({key: reference.state_dict()[key] for key in encoder.state_dict()})
    images = torch.randn(2, 3, 64, 64)
    order = torch.arange(64).expand(2, -1)
    wanted = reference.encode(images, order)
    tokens = encoder.tokens(images)
    assert tokens.cls is not None
    assert tokens.grid == (8, 8)
    torch.testing.assert_close(torch.cat((tokens.cls[:, None], tokens.patches), 1), wanted, rtol=0, atol=1e-5)
    torch.testing.assert_close(encoder(images, order), wanted, rtol=0, atol=1e-5)


def test_another_resolution_interpolates_the_positions_as_the_official_code_does() -> None:
    encoder = VisionTransformer(64, Architecture(8, 48, 0, 3))
    with torch.no_grad():
        encoder.patch_embed.proj.weight.zero_()
        encoder.patch_embed.proj.bias.zero_()
        tokens = encoder.tokens(torch.zeros(1, 3, 96, 128))
    table = encoder.pos_embed[:, 1:].reshape(1, 8, 8, 48).permute(0, 3, 1, 2)
    wanted = F.interpolate(table, size=(12, 16), mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)
    assert tokens.grid == (12, 16)
    torch.testing.assert_close(tokens.patches, F.layer_norm(wanted, (48,), eps=1e-6), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("size", "architecture"), [(60, Architecture(8, 48, 1, 3)), (64, Architecture(8, 48, 1, 5))])
def test_sizes_that_do_not_divide_are_refused(size: int, architecture: Architecture) -> None:
    with pytest.raises(InputError, match="multiple of"):
        VisionTransformer(size, architecture)


@pytest.mark.parametrize("grid", [(12, 12), (5, 7), (8, 8)])
def test_interpolated_positions_are_those_of_the_published_function(grid: tuple[int, int]) -> None:
    """Cubic convolution (a = -0.75) at (i + 1/2) · from / to - 1/2, edge rows repeated, written out in float64."""

    def weigh(distance: np.ndarray) -> np.ndarray:
        d, a = np.abs(distance), -0.75
        near = (a + 2) * d**3 - (a + 3) * d**2 + 1
        return np.where(d <= 1, near, np.where(d < 2, a * (d**3 - 5 * d**2 + 8 * d - 4), 0))

    def axis(old: int, new: int) -> np.ndarray:
        matrix = np.zeros((new, old))
        for i in range(new):
            at = (i + 0.5) * old / new - 0.5
            for tap in range(int(np.floor(at)) - 1, int(np.floor(at)) + 3):
                matrix[i, min(max(tap, 0), old - 1)] += weigh(np.array(at - tap))
        return matrix

    table = torch.randn(1, 1 + 64, 12, generator=torch.Generator().manual_seed(0))
    found = interpolate_positions(table, (8, 8), grid)
    image = table[0, 1:].double().numpy().reshape(8, 8, 12)
    wanted = np.einsum("yr,xc,rcd->yxd", axis(8, grid[0]), axis(8, grid[1]), image).reshape(-1, 12)
    np.testing.assert_allclose(found[0, 1:], wanted, rtol=0, atol=1e-5)
    assert torch.equal(found[:, :1], table[:, :1])


def test_layer_scale_starts_at_its_value_and_scales_every_branch() -> None:
    encoder = VisionTransformer(64, Architecture(8, 48, 2, 3), layer_scale=1e-4)
    assert all(torch.equal(block.ls1.gamma, torch.full((48,), 1e-4)) for block in encoder.blocks)
    with torch.no_grad():
        for block in encoder.blocks:
            block.ls1.gamma.zero_()
            block.ls2.gamma.zero_()
    images = torch.randn(2, 3, 64, 64)
    embedded = encoder.patch_embed(images) + encoder.pos_embed[:, 1:]
    torch.testing.assert_close(encoder.tokens(images).patches, F.layer_norm(embedded, (48,), eps=1e-6))


@pytest.mark.parametrize(("pooling", "norm"), [("cls", None), ("cls", "batch"), ("mean", "layer")])
def test_a_classifier_pools_then_normalises_then_multiplies(pooling: str, norm: str | None) -> None:
    torch.manual_seed(0)
    classifier = Classifier(12, 5, pooling=pooling, norm=norm).eval()
    tokens = Tokens(torch.randn(4, 12), torch.randn(4, 9, 12), (3, 3))
    assert tokens.cls is not None
    pooled = (tokens.cls if pooling == "cls" else tokens.patches.mean(1)).double()
    if norm == "batch":
        classifier.head_norm.running_mean.copy_(torch.randn(12))
        classifier.head_norm.running_var.copy_(torch.rand(12))
        pooled = (pooled - classifier.head_norm.running_mean) / (
            classifier.head_norm.running_var.double() + 1e-6
        ).sqrt()
    if norm == "layer":
        pooled = (pooled - pooled.mean(1, keepdim=True)) / (pooled.var(1, unbiased=False, keepdim=True) + 1e-6).sqrt()
    wanted = pooled @ classifier.head.weight.double().T + classifier.head.bias
    torch.testing.assert_close(classifier(tokens).double(), wanted, rtol=0, atol=1e-5)
