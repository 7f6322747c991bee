"""LSMAE against the public code's outputs and against a plain reference: MAE with masks of whole units."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pixmim_eval.models.checkpoints.checkpoint import split_decoder
from pixmim_eval.models.checkpoints.reading import find_tensors, read_checkpoint
from pixmim_eval.models.vit import Architecture
from pretrain.autoencoder import MaskedAutoencoder
from tests.references.gradients import check_gradients
from tests.references.lsmae import noise_of, order_patches
from tests.references.mae import ReferenceMAE

TINY = Architecture(patch=8, dim=48, depth=3, heads=3)


def build_tiny(tensors: dict[str, torch.Tensor], *, normalised: bool) -> MaskedAutoencoder:
    model = MaskedAutoencoder(64, TINY, (24, 2, 3), mask_unit=2, normalise_target=normalised)
    encoder, decoder = split_decoder(tensors)
    model.encoder.load_state_dict(encoder)
    model.decoder.load_state_dict({key.removeprefix("decoder_"): value for key, value in decoder.items()})
    return model


def find_units(shuffle: torch.Tensor) -> torch.Tensor:
    """The units [B, 16] of 2 x 2 patches in the order in which their first patches come in a shuffle of 8 x 8."""
    first = shuffle[:, ::4]
    return first // 8 // 2 * 4 + first % 8 // 2


@pytest.mark.parametrize("normalised", [True, False])
def test_loss_and_predictions_equal_the_public_code(shared_data: Path, normalised: bool) -> None:
    folder = shared_data / "golden"
    model = build_tiny(find_tensors(read_checkpoint(folder / "lsmae_tiny.pth")[0]), normalised=normalised)
    with np.load(folder / "lsmae_expected.npz") as arrays:
        golden = {key: torch.from_numpy(arrays[key]) for key in arrays}
    images = golden["images"]
    noise = find_units(golden["ids_restore"].argsort(dim=1)).argsort(dim=1).float()
    with torch.no_grad():
        masking = model.draw_mask(noise)
        latent = model.encoder(images, masking.visible)
        assert torch.equal(masking.visible, golden["ids_keep"])
        assert torch.equal(masking.restore(), golden["ids_restore"])
        assert torch.equal(masking.mask(), golden["mask"])
        torch.testing.assert_close(latent, golden["latent"], rtol=0, atol=1e-4)
        torch.testing.assert_close(model.decoder.predict_all(latent, masking), golden["pred"], rtol=0, atol=1e-4)
        torch.testing.assert_close(model(images, noise), golden[f"loss_norm_pix_{normalised}"], rtol=1e-5, atol=0)


@pytest.mark.parametrize("normalised", [True, False])
def test_loss_and_gradients_equal_the_plain_reference(normalised: bool) -> None:
    torch.manual_seed(0)
    reference = ReferenceMAE(64, 8, 48, 3, 3, 24, 2, 3)
    with torch.no_grad():
        for parameter in reference.parameters():  # biases and norms away from 0 and 1, so that each one counts
            parameter.add_(0.05 * torch.randn_like(parameter))
    model = build_tiny(reference.state_dict(), normalised=normalised)
    images, noise = torch.randn(3, 3, 64, 64), torch.rand(3, 16)
    orders = [order_patches(units.tolist(), 4, 2) for units in noise.argsort(dim=1)]
    wanted = reference(images, noise_of(orders), normalise_target=normalised).loss
    loss = model(images, noise)
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=0)
    check_gradients(model, loss, reference, wanted)
