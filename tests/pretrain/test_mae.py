"""MAE against the public code's outputs and against a plain reference with the same weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pixmim_eval.models.checkpoints.checkpoint import split_decoder
from pixmim_eval.models.checkpoints.reading import find_tensors, read_checkpoint
from pixmim_eval.models.vit import Architecture
from pretrain.autoencoder import MaskedAutoencoder
from pretrain.masking import mask_randomly
from pretrain.targets import LowFrequency, normalise_patches, patchify
from tests.references import low_frequency
from tests.references.gradients import check_gradients
from tests.references.mae import ReferenceMAE

TINY = Architecture(patch=8, dim=48, depth=3, heads=3)


def build_tiny(tensors: dict[str, torch.Tensor], **settings: object) -> MaskedAutoencoder:
    model = MaskedAutoencoder(64, TINY, (32, 2, 2), **settings)  # type: ignore[arg-type]
    encoder, decoder = split_decoder(tensors)
    model.encoder.load_state_dict(encoder)
    model.decoder.load_state_dict({key.removeprefix("decoder_"): value for key, value in decoder.items()})
    return model


@pytest.fixture
def reference() -> ReferenceMAE:
    torch.manual_seed(0)
    model = ReferenceMAE(64, 8, 48, 3, 3, 32, 2, 2)
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms away from 0 and 1, so that each one counts
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.fixture
def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, 3, 64, 64, generator=generator), torch.rand(3, 64, generator=generator)


@pytest.mark.parametrize("normalised", [True, False])
def test_loss_and_predictions_equal_the_public_code(shared_data: Path, normalised: bool) -> None:
    folder = shared_data / "golden"
    tensors = find_tensors(read_checkpoint(folder / "mae_tiny_full.pth")[0])
    model = build_tiny(tensors, normalise_target=normalised)
    with np.load(folder / "mae_expected.npz") as arrays:
        golden = {key: torch.from_numpy(arrays[key]) for key in arrays}
    images, noise = golden["images"], golden["noise"]
    with torch.no_grad():
        masking = mask_randomly(noise, 0.75)
        latent = model.encoder(images, masking.visible)
        torch.testing.assert_close(model.encoder.pos_embed, golden["encoder_pos_embed"], rtol=0, atol=1e-7)
        torch.testing.assert_close(model.decoder.pos_embed, golden["decoder_pos_embed"], rtol=0, atol=1e-7)
        torch.testing.assert_close(latent, golden["latent"], rtol=0, atol=1e-4)
        assert torch.equal(masking.mask(), golden["mask"])
        assert torch.equal(masking.restore(), golden["ids_restore"])
        torch.testing.assert_close(model.decoder.predict_all(latent, masking), golden["pred"], rtol=0, atol=1e-4)
        torch.testing.assert_close(model(images, noise), golden[f"loss_norm_pix_{normalised}"], rtol=1e-5, atol=0)
        torch.testing.assert_close(model.encoder(images), golden["tokens_after_norm"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("normalised", [True, False])
def test_loss_and_gradients_equal_the_plain_reference(
    reference: ReferenceMAE, inputs: tuple[torch.Tensor, torch.Tensor], normalised: bool
) -> None:
    model = build_tiny(reference.state_dict(), normalise_target=normalised)
    wanted = reference(*inputs, normalise_target=normalised).loss
    loss = model(*inputs)
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=0)
    check_gradients(model, loss, reference, wanted)


def test_the_loss_of_a_low_frequency_target_reads_filtered_pixels_and_unfiltered_input(
    reference: ReferenceMAE, inputs: tuple[torch.Tensor, torch.Tensor]
) -> None:
    model = build_tiny(reference.state_dict(), low_frequency=LowFrequency(11.43))
    filtered = low_frequency.published(inputs[0], 11.43).float()
    wanted = reference(*inputs, normalise_target=True, target_images=filtered).loss
    torch.testing.assert_close(model(*inputs), wanted, rtol=1e-5, atol=0)


def test_a_perfect_prediction_has_the_picture_of_its_target(inputs: tuple[torch.Tensor, torch.Tensor]) -> None:
    torch.manual_seed(0)
    model = MaskedAutoencoder(64, TINY, (32, 2, 2), normalise_target=True)
    target = patchify(inputs[0], 8)
    model.decoder.predict_all = lambda latent, masking: normalise_patches(target)  # type: ignore[method-assign]
    picture = model.reconstruct(*inputs)
    torch.testing.assert_close(picture.prediction, target, rtol=0, atol=1e-4)
    assert picture.loss.max() < 1e-8


def test_public_tensors_carry_the_official_names(reference: ReferenceMAE) -> None:
    tensors = build_tiny(reference.state_dict()).public_tensors()
    assert tensors.keys() == reference.state_dict().keys()
    assert all(torch.equal(tensors[key], value) for key, value in reference.state_dict().items())


def test_new_weights_follow_the_published_initialisation() -> None:
    torch.manual_seed(0)
    model = MaskedAutoencoder(64, Architecture(8, 192, 2, 3), (96, 1, 3))
    qkv = model.encoder.blocks[0].attn.qkv
    bound = (6 / (192 + 3 * 192)) ** 0.5
    assert 0.95 * bound < qkv.weight.abs().max() <= bound
    assert not qkv.bias.any()
    patch = model.encoder.patch_embed.proj
    bound = (6 / (192 + 3 * 64)) ** 0.5
    assert 0.95 * bound < patch.weight.abs().max() <= bound
    assert abs(model.encoder.cls_token.std().item() - 0.02) < 0.004
    assert abs(model.decoder.mask_token.std().item() - 0.02) < 0.005


def test_a_compiled_model_gives_the_same_loss(inputs: tuple[torch.Tensor, torch.Tensor]) -> None:
    torch.manual_seed(0)
    model = MaskedAutoencoder(64, TINY, (32, 2, 2), low_frequency=LowFrequency(11.43))
    compiled = torch.compile(model, backend="aot_eager")
    torch.testing.assert_close(compiled(*inputs), model(*inputs), rtol=1e-5, atol=0)
