"""ConvMAE against the public code's outputs and against a plain reference with the same weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pixmim_eval.models.checkpoints.reading import find_tensors, read_checkpoint
from pixmim_eval.models.convvit import ConvArchitecture
from pretrain.autoencoder import MaskedAutoencoder
from pretrain.targets import LowFrequency
from tests.references import low_frequency
from tests.references.convmae import ReferenceConvMAE
from tests.references.gradients import check_gradients

GOLDEN = ConvArchitecture(strides=(4, 2, 2), dims=(16, 24, 48), depths=(1, 2, 2), heads=3)
SMALL = ConvArchitecture(strides=(2, 2, 2), dims=(8, 12, 24), depths=(2, 1, 1), heads=2)


def fill(model: MaskedAutoencoder, tensors: dict[str, Tensor]) -> MaskedAutoencoder:
    """The model with weights of the public names, all of them used."""
    decoder = {key: value for key, value in tensors.items() if key.startswith("decoder_") or key == "mask_token"}
    model.encoder.load_state_dict({key: value for key, value in tensors.items() if key not in decoder})
    model.decoder.load_state_dict({key.removeprefix("decoder_"): value for key, value in decoder.items()})
    return model


@pytest.fixture
def reference() -> ReferenceConvMAE:
    torch.manual_seed(0)
    model = ReferenceConvMAE(64, SMALL.strides, SMALL.dims, SMALL.depths, SMALL.heads, 16, 2, 2)
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms away from 0 and 1, so that each one counts
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, 3, 64, 64, generator=generator), torch.rand(3, 64, generator=generator)


@pytest.mark.parametrize("normalised", [True, False])
def test_loss_and_predictions_equal_the_public_code(shared_data: Path, normalised: bool) -> None:
    folder = shared_data / "golden"
    model = MaskedAutoencoder(224, GOLDEN, (32, 2, 2), normalise_target=normalised)
    fill(model, find_tensors(read_checkpoint(folder / "convmae_tiny.pth")[0]))
    with np.load(folder / "convmae_expected.npz") as arrays:
        golden = {key: torch.from_numpy(arrays[key]) for key in arrays}
    images, noise = golden["images"].float(), golden["noise"]
    with torch.no_grad():
        masking = model.draw_mask(noise)
        latent = model.encoder(images, masking.visible)
        assert torch.equal(masking.mask(), golden["mask"])
        assert torch.equal(masking.restore(), golden["ids_restore"])
        torch.testing.assert_close(latent, golden["latent"], rtol=0, atol=1e-4)
        torch.testing.assert_close(model.decoder.predict_all(latent, masking), golden["pred"], rtol=0, atol=1e-4)
        torch.testing.assert_close(model(images, noise), golden[f"loss_norm_pix_{normalised}"], rtol=1e-5, atol=0)


@pytest.mark.parametrize("normalised", [True, False])
def test_loss_and_gradients_equal_the_plain_reference(
    reference: ReferenceConvMAE, inputs: tuple[Tensor, Tensor], normalised: bool
) -> None:
    model = fill(MaskedAutoencoder(64, SMALL, (16, 2, 2), normalise_target=normalised), reference.state_dict())
    wanted = reference(*inputs, normalise_target=normalised).loss
    loss = model(*inputs)
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=0)
    check_gradients(model, loss, reference, wanted)


def test_the_loss_of_a_low_frequency_target_reads_filtered_pixels_and_unfiltered_input(
    reference: ReferenceConvMAE, inputs: tuple[Tensor, Tensor]
) -> None:
    model = fill(MaskedAutoencoder(64, SMALL, (16, 2, 2), low_frequency=LowFrequency(11.43)), reference.state_dict())
    filtered = low_frequency.published(inputs[0], 11.43).float()
    torch.testing.assert_close(model(*inputs), reference(*inputs, target_images=filtered).loss, rtol=1e-5, atol=0)


def test_public_tensors_carry_the_official_names(reference: ReferenceConvMAE) -> None:
    tensors = fill(MaskedAutoencoder(64, SMALL, (16, 2, 2)), reference.state_dict()).public_tensors()
    assert tensors.keys() == reference.state_dict().keys()
    assert all(torch.equal(tensors[key], value) for key, value in reference.state_dict().items())


def test_new_position_tables_are_those_of_mae_without_a_class_token() -> None:
    model = MaskedAutoencoder(64, SMALL, (16, 2, 2))
    torch.manual_seed(0)
    reference = ReferenceConvMAE(64, SMALL.strides, SMALL.dims, SMALL.depths, SMALL.heads, 16, 2, 2)
    torch.testing.assert_close(model.encoder.pos_embed, reference.pos_embed.data, rtol=0, atol=1e-6)
    torch.testing.assert_close(model.decoder.pos_embed, reference.decoder_pos_embed.data, rtol=0, atol=1e-6)
