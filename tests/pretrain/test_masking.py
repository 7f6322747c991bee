"""Masks against the published definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pretrain.masking import gather_rows, mask_randomly
from tests.references.lsmae import order_patches


@pytest.mark.parametrize(("patches", "ratio", "visible"), [(196, 0.75, 49), (64, 0.75, 16), (10, 0.6, 4), (7, 0.0, 7)])
def test_the_patches_with_the_smallest_noise_stay_visible(patches: int, ratio: float, visible: int) -> None:
    noise = torch.rand(3, patches, generator=torch.Generator().manual_seed(0))
    masking = mask_randomly(noise, ratio)
    for row in range(3):
        ranked = np.argsort(noise[row].numpy(), kind="stable")
        np.testing.assert_array_equal(masking.visible[row], ranked[:visible])
        np.testing.assert_array_equal(masking.masked[row], ranked[visible:])
        mask = np.ones(patches)
        mask[ranked[:visible]] = 0
        np.testing.assert_array_equal(masking.mask()[row], mask)


def test_equal_noise_keeps_the_order_of_the_patches() -> None:
    assert mask_randomly(torch.zeros(1, 8), 0.5).visible.tolist() == [[0, 1, 2, 3]]


def test_restore_undoes_the_shuffle() -> None:
    tokens = torch.arange(2 * 9 * 3).reshape(2, 9, 3)
    masking = mask_randomly(torch.rand(2, 9, generator=torch.Generator().manual_seed(1)), 0.5)
    shuffled = torch.cat((gather_rows(tokens, masking.visible), gather_rows(tokens, masking.masked)), dim=1)
    assert torch.equal(gather_rows(shuffled, masking.restore()), tokens)


def test_every_patch_is_masked_equally_often() -> None:
    noise = torch.rand(20_000, 16, generator=torch.Generator().manual_seed(2))
    share = mask_randomly(noise, 0.75).mask().mean(0)
    assert (share - 0.75).abs().max() < 4 * (0.75 * 0.25 / 20_000) ** 0.5


@pytest.mark.parametrize(("across", "side"), [(4, 1), (4, 2), (3, 3), (14, 2)])
def test_units_become_their_patches_in_the_published_order(across: int, side: int) -> None:
    noise = torch.rand(2, across**2, generator=torch.Generator().manual_seed(3))
    masking = mask_randomly(noise, 0.75).split(across, side)
    together = torch.cat((masking.visible, masking.masked), dim=1)
    for row in range(2):
        assert together[row].tolist() == order_patches(noise[row].argsort().tolist(), across, side)
    assert masking.visible.shape[1] == int(across**2 * 0.25) * side**2


def test_a_unit_is_masked_as_a_whole() -> None:
    masking = mask_randomly(torch.rand(5, 196, generator=torch.Generator().manual_seed(4)), 0.75).split(14, 2)
    units = masking.mask().reshape(5, 14, 2, 14, 2)
    assert torch.equal(units.amin(dim=(2, 4)), units.amax(dim=(2, 4)))
    assert units.sum(dim=(1, 2, 3, 4)).tolist() == [588.0] * 5
