"""Our own checkpoints: safetensors with MAE's public keys, and a header that tells everything else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from pixmim_eval.errors import InputError
from pixmim_eval.files import write_atomic
from pixmim_eval.models.checkpoints.checkpoint import Checkpoint, build_encoder, split_decoder
from pixmim_eval.models.checkpoints.reading import digest_tensors
from pixmim_eval.models.vit import Architecture


def write(
    path: Path,
    tensors: dict[str, Tensor],
    *,
    architecture: Architecture,
    image_size: int,
    method: str,
    epoch: int,
    recipe: dict[str, Any],
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a checkpoint that `checkpoints.load` opens.

    Args:
        path: ends in .safetensors; replaced atomically.
        tensors: by MAE's public keys (encoder without prefix, decoder_*, mask_token).
        architecture, image_size, method, epoch: see Checkpoint.
        recipe: every setting of the pretraining; JSON values.
        dtype: stored type of the floating-point tensors.
    """
    header = {
        "format": "pixmim-eval",
        "architecture": vars(architecture),
        "image_size": image_size,
        "method": method,
        "epoch": epoch,
        "recipe": recipe,
    }
    stored = {key: value.detach().to("cpu", dtype).contiguous() for key, value in tensors.items()}
    write_atomic(path, save(stored, metadata={key: json.dumps(value) for key, value in header.items()}))


def recognises(_tensors: dict[str, Tensor], metadata: dict[str, Any]) -> bool:
    """Whether the header is ours."""
    return metadata.get("format") == "pixmim-eval"


def convert(path: Path, tensors: dict[str, Tensor], content: dict[str, Any], arch: Architecture | None) -> Checkpoint:
    """The checkpoint as an encoder; see checkpoints.load."""
    missing = [key for key in ("architecture", "image_size", "method", "epoch", "recipe") if key not in content]
    if missing:
        raise InputError(
            "checkpoint", expected="a whole header", found=f"no {missing[0]}", where=str(path), fix="Make it again."
        )
    architecture = Architecture(**content["architecture"])
    if arch not in (None, architecture):
        raise InputError(
            "checkpoint", expected=str(arch), found=str(architecture), where=str(path), fix="Leave out arch."
        )
    encoder, decoder = split_decoder(tensors)
    return Checkpoint(
        path=path,
        format="pixmim-eval",
        digest=digest_tensors(tensors),
        encoder=build_encoder(path, encoder, architecture, content["image_size"]),
        architecture=architecture,
        image_size=content["image_size"],
        decoder=decoder,
        method=content["method"],
        epoch=content["epoch"],
        normalised_target=content["recipe"].get("normalise_target"),
    )
