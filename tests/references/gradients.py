"""Every gradient of an autoencoder against those of a plain reference with the same weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pretrain.autoencoder import MaskedAutoencoder


def check_gradients(model: MaskedAutoencoder, loss: Tensor, reference: nn.Module, wanted: Tensor) -> None:
    """Back from both losses: each parameter has a partner, under its public key, and the same gradient."""
    wanted.backward()
    loss.backward()
    gradients = {key: value.grad for key, value in reference.named_parameters() if value.grad is not None}
    compared = 0
    for name, parameter in model.named_parameters():
        part, key = name.split(".", 1)
        public = key if part == "encoder" or key == "mask_token" else f"decoder_{key}"
        torch.testing.assert_close(parameter.grad, gradients[public], rtol=1e-3, atol=1e-6)
        compared += 1
    assert compared == len(gradients)
