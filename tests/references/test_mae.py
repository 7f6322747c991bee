"""The reference must itself be right: it is held against outputs of the public code."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.references.mae import ReferenceMAE, masked_loss, normalise, patchify, patchify_by_loop, position_table


@pytest.fixture(scope="module")
def tiny() -> ReferenceMAE:
    torch.manual_seed(0)
    return ReferenceMAE(64, 8, 48, 3, 3, 32, 2, 2).eval()


@pytest.fixture
def golden(shared_data: Path) -> dict[str, np.ndarray]:
    with np.load(shared_data / "golden" / "mae_expected.npz") as arrays:
        return dict(arrays)


@pytest.fixture
def public(tiny: ReferenceMAE, shared_data: Path) -> ReferenceMAE:
    with torch.serialization.safe_globals([argparse.Namespace]):
        checkpoint = torch.load(shared_data / "golden" / "mae_tiny_full.pth", weights_only=True)
    tiny.load_state_dict(checkpoint["model"], strict=True)
    return tiny


@pytest.mark.parametrize("normalised", [True, False])
def test_the_reference_computes_what_the_public_code_computed(
    public: ReferenceMAE, golden: dict[str, np.ndarray], normalised: bool
) -> None:
    with torch.no_grad():
        output = public(
            torch.from_numpy(golden["images"]), torch.from_numpy(golden["noise"]), normalise_target=normalised
        )
    np.testing.assert_array_equal(output.mask, golden["mask"])
    np.testing.assert_array_equal(output.ids_restore, golden["ids_restore"])
    np.testing.assert_allclose(output.latent, golden["latent"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(output.prediction, golden["pred"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(output.loss, golden[f"loss_norm_pix_{normalised}"], rtol=1e-5)


def test_position_tables_are_the_public_ones(golden: dict[str, np.ndarray]) -> None:
    np.testing.assert_allclose(position_table(8, 48), golden["encoder_pos_embed"], rtol=0, atol=1e-7)
    np.testing.assert_allclose(position_table(8, 32), golden["decoder_pos_embed"], rtol=0, atol=1e-7)


def test_patches_hold_rows_of_pixels_with_colour_innermost() -> None:
    images = torch.rand(2, 3, 12, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(patchify(images, 4), patchify_by_loop(images.numpy(), 4))


def test_the_loss_is_the_mean_over_masked_patches_of_normalised_pixels() -> None:
    generator = np.random.default_rng(0)
    patches, prediction = generator.random((2, 3, 12)), generator.random((2, 3, 12))
    mask = np.array([[1, 0, 1], [0, 0, 1]])
    errors = []
    for image, patch in np.argwhere(mask):
        target = (patches[image, patch] - patches[image, patch].mean()) / np.sqrt(
            patches[image, patch].var(ddof=1) + 1e-6
        )
        errors.append(np.mean((prediction[image, patch] - target) ** 2))
    loss = masked_loss(torch.from_numpy(prediction), normalise(torch.from_numpy(patches)), torch.from_numpy(mask))
    np.testing.assert_allclose(loss, np.mean(errors), rtol=1e-12)


def test_target_images_change_the_loss_and_nothing_else(tiny: ReferenceMAE) -> None:
    generator = torch.Generator().manual_seed(0)
    images, others = torch.randn(2, 2, 3, 64, 64, generator=generator)
    noise = torch.rand(2, 64, generator=generator)
    with torch.no_grad():
        own, foreign = tiny(images, noise), tiny(images, noise, target_images=others)
    assert torch.equal(own.prediction, foreign.prediction)
    torch.testing.assert_close(foreign.loss, masked_loss(own.prediction, normalise(patchify(others, 8)), own.mask))
    assert own.loss != foreign.loss
