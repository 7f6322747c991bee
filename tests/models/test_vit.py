"""The encoder against the plain reference, and its position tables against a loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pixmim_eval.errors import InputError
from pixmim_eval.models.vit import Architecture, VisionTransformer, sincos_positions
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
