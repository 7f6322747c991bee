"""The public implementations of MAE, LSMAE and ConvMAE, imported from a checkout of their repositories."""

from __future__ import annotations

import importlib
import sys
import warnings
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import timm.models.vision_transformer
import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from pretrain.masking import mask_randomly

# of each method: its repository, and the module and function there that build the model of base size
SOURCES = {
    "mae": ("facebookresearch/mae", "models_mae", "mae_vit_base_patch16"),
    "lsmae": ("facebookresearch/long_seq_mae", "models_mae", "mae_vit_base_patch16_dec384d12h8b"),
    "convmae": ("Alpha-VL/ConvMAE", "models_convmae", "convmae_convvit_base_patch16"),
}
LSMAE_ARGUMENTS = Namespace(no_k_bias_in_vit=False, decoder_downsampling=1, pred_downsampling=1)


def load_public(method: str, folder: Path, *, normalise_target: bool = True) -> nn.Module:
    """The public model of base size, with random weights.

    Args:
        method: "mae", "lsmae" or "convmae".
        folder: a checkout of the method's repository, which is imported as it is: what timm and NumPy have removed
            since is given back meanwhile.
        normalise_target: per-patch normalisation of the target.

    Raises:
        ImportError: the folder is no such checkout.
    """
    repository, module, function = SOURCES[method]
    settings: dict[str, Any] = {"norm_pix_loss": normalise_target}
    if method == "lsmae":
        settings |= {"args": LSMAE_ARGUMENTS, "img_size": 448, "patch_size": 16}
    with _old_names(), _first_on_path(folder.resolve()):
        try:
            return getattr(importlib.import_module(module), function)(**settings)
        except ModuleNotFoundError as error:
            raise ImportError(f"no checkout of github.com/{repository}: {folder}") from error


def run_public(method: str, model: nn.Module, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(loss, prediction of every patch, mask) with the mask drawn from our noise; arguments as of MaskedAutoencoder.

    LSMAE takes its shuffle from the loader, the others draw noise themselves.
    """
    if method == "lsmae":
        masking = mask_randomly(noise, 0.75).split(14, 2)
        return model(images, masking.visible, masking.restore())
    with patch.object(torch, "rand", return_value=noise):
        return model(images)


def write_attention_out(model: nn.Module) -> nn.Module:
    """The same model with attention as in the timm that the repositories ask for (0.3.2, 0.4.12): matrix products and
    softmax. Today's timm takes PyTorch's fused attention where it can."""
    for attention in model.modules():
        if hasattr(attention, "fused_attn"):
            setattr(attention, "fused_attn", False)  # noqa: B010 (a Module's attributes are typed as tensors)
    return model


@contextmanager
def _old_names() -> Iterator[None]:
    """timm's Block with the argument qk_scale, and np.float; without warnings about other old names."""

    def build_block(*arguments: Any, qk_scale: None = None, **settings: Any) -> Block:
        return Block(*arguments, **settings)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with (
            patch.object(timm.models.vision_transformer, "Block", build_block),
            patch.object(np, "float", float, create=True),
        ):
            yield


@contextmanager
def _first_on_path(folder: Path) -> Iterator[None]:
    """Import from a folder first; what came from there is forgotten after, as repositories share names of modules."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None) or "").startswith(str(folder)):
                del sys.modules[name]
