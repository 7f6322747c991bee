"""Official MAE checkpoints: encoder only (mae_pretrain_*), or with decoder (*_full, mae_visualize_*)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pixmim_eval.errors import InputError
from pixmim_eval.models.checkpoints.checkpoint import Checkpoint, build_encoder, split_decoder
from pixmim_eval.models.checkpoints.reading import digest_tensors
from pixmim_eval.models.vit import ARCHITECTURES, Architecture, sincos_positions


def recognises(tensors: dict[str, Tensor], _metadata: dict[str, Any]) -> bool:
    """Whether these are MAE's public keys."""
    return {"cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight"} <= tensors.keys()


def convert(path: Path, tensors: dict[str, Tensor], content: dict[str, Any], arch: Architecture | None) -> Checkpoint:
    """The checkpoint as an encoder; see checkpoints.load."""
    encoder, decoder = split_decoder(tensors)
    architecture = arch or _infer_architecture(path, tensors)
    side = math.isqrt(tensors["pos_embed"].shape[1] - 1)
    positions = sincos_positions(architecture.dim, side)  # MAE's are fixed; other ViTs with these keys learn theirs
    image_size = side * architecture.patch
    epoch = content.get("epoch")
    return Checkpoint(
        path=path,
        format="mae",
        digest=digest_tensors(tensors),
        encoder=build_encoder(path, encoder, architecture, image_size),
        architecture=architecture,
        image_size=image_size,
        decoder=decoder,
        method="mae" if torch.allclose(encoder["pos_embed"].float(), positions, atol=1e-3) else "vit",
        epoch=epoch + 1 if isinstance(epoch, int) else None,  # the official trainer saves the index of the epoch
        normalised_target=getattr(content.get("args"), "norm_pix_loss", None),
    )


def _infer_architecture(path: Path, tensors: dict[str, Tensor]) -> Architecture:
    """Patch, width and depth are read off the shapes; the number of heads leaves no trace in them."""
    patch, dim = tensors["patch_embed.proj.weight"].shape[-1], tensors["cls_token"].shape[-1]
    depth = sum(key.startswith("blocks.") and key.endswith(".norm1.weight") for key in tensors)
    for architecture in ARCHITECTURES.values():
        if (architecture.patch, architecture.dim, architecture.depth) == (patch, dim, depth):
            return architecture
    raise InputError(
        "checkpoint",
        expected=f"a published architecture ({', '.join(ARCHITECTURES)}), since keys do not tell the number of heads",
        found=f"patch {patch}, width {dim}, depth {depth}",
        where=str(path),
        fix="Give it: checkpoints.load(path, arch=Architecture(patch, dim, depth, heads)).",
    )
