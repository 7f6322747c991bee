"""The reference must itself be right: it is held against outputs of the public code."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.references.convmae import ReferenceConvMAE, enlarge


@pytest.mark.parametrize("normalised", [True, False])
def test_the_reference_computes_what_the_public_code_computed(shared_data: Path, normalised: bool) -> None:
    with torch.serialization.safe_globals([argparse.Namespace]):
        checkpoint = torch.load(shared_data / "golden" / "convmae_tiny.pth", weights_only=True)
    model = ReferenceConvMAE(224, (4, 2, 2), (16, 24, 48), (1, 2, 2), 3, 32, 2, 2)
    model.load_state_dict(checkpoint["model"], strict=True)
    with np.load(shared_data / "golden" / "convmae_expected.npz") as golden, torch.no_grad():
        images, noise = torch.from_numpy(golden["images"]).float(), torch.from_numpy(golden["noise"])
        output = model(images, noise, normalise_target=normalised)
        np.testing.assert_array_equal(output.mask, golden["mask"])
        np.testing.assert_array_equal(output.ids_restore, golden["ids_restore"])
        np.testing.assert_allclose(output.latent, golden["latent"], rtol=0, atol=1e-5)
        np.testing.assert_allclose(output.prediction, golden["pred"], rtol=0, atol=1e-5)
        np.testing.assert_allclose(output.loss, golden[f"loss_norm_pix_{normalised}"], rtol=1e-5)
        np.testing.assert_allclose(model.encode_all(images), golden["tokens_after_norm"], rtol=0, atol=1e-5)


def test_every_masked_patch_becomes_a_square() -> None:
    maps = enlarge(torch.tensor([[1.0, 0.0, 0.0, 1.0]]), 2, 2)
    assert maps[0, 0].tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
