"""What every checkpoint format is converted to."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from pixmim_eval.errors import InputError
from pixmim_eval.models.vit import Architecture, VisionTransformer


@dataclass(frozen=True)
class Checkpoint:
    """A pretrained encoder and what is known about it.

    Args:
        path: the file.
        format: name in FORMATS.
        digest: 16 hex digits of the tensors in the file.
        encoder: in eval mode, float32.
        architecture, image_size: of the encoder; image_size in pixels.
        decoder: the decoder's tensors by their public keys; empty where the file has none.
        method: e.g. "mae", "pixmim-mae".
        epoch: epochs done; None where the file does not tell.
        normalised_target: trained on per-patch normalised pixels; None where the file does not tell.
    """

    path: Path
    format: str
    digest: str
    encoder: VisionTransformer
    architecture: Architecture
    image_size: int
    method: str
    epoch: int | None
    normalised_target: bool | None
    decoder: dict[str, Tensor] = field(default_factory=dict)


def build_encoder(
    path: Path, tensors: dict[str, Tensor], architecture: Architecture, image_size: int
) -> VisionTransformer:
    """A ViT with these weights (any float type, taken to float32), in eval mode.

    Raises:
        InputError: a key is missing, unknown, or has another shape than the architecture's.
    """
    with torch.device("meta"):  # no time lost on random weights that are replaced at once
        encoder = VisionTransformer(image_size, architecture)
    wanted = {key: tuple(value.shape) for key, value in encoder.state_dict().items()}
    given = {key: tuple(value.shape) for key, value in tensors.items()}
    faults = [f"{key} missing" for key in wanted if key not in given]
    faults += [f"{key} unknown" for key in given if key not in wanted]
    faults += [
        f"{key} {given[key]} instead of {wanted[key]}" for key in wanted if given.get(key, wanted[key]) != wanted[key]
    ]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise InputError(
            "checkpoint",
            expected=f"the encoder of {architecture}",
            found="; ".join(faults[:3]) + more,
            where=str(path),
            fix="The file is of another architecture, is fine-tuned (not read yet), or is incomplete.",
        )
    encoder.load_state_dict({key: value.float() for key, value in tensors.items()}, assign=True)
    return encoder.requires_grad_(False).eval()


def split_decoder(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(encoder, decoder) tensors of a file with MAE's public keys."""
    decoder = {key: value for key, value in tensors.items() if key.startswith("decoder_") or key == "mask_token"}
    return {key: value for key, value in tensors.items() if key not in decoder}, decoder
