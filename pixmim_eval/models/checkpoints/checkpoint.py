"""What every checkpoint format is converted to, and what formats share in reading evidence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pixmim_eval.errors import InputError
from pixmim_eval.models.checkpoints.keys import KeyUse, name_part
from pixmim_eval.models.vit import Classifier, sincos_positions
from pixmim_eval.types import LabelSpace

_EPOCHS = 10**6  # more were never done, and a number may have more digits than Python prints
NO_TARGET = "trained with labels: there are no target pixels"


@dataclass(frozen=True)
class Source:
    """A file as it was read.

    Args:
        path: the file.
        tensors: its state dict.
        content: everything else in it (training arguments, epoch, header …), unknown objects inert.
        wrapper: the key that the state dict stood under ("model", "state_dict", …); "" where the file is the dict.
    """

    path: Path
    tensors: dict[str, Tensor]
    content: dict[str, Any]
    wrapper: str = ""


@dataclass(frozen=True)
class Contents:
    """What a format makes of a file.

    Args:
        layout: whose format it is, in words.
        tensors: by the names of `keys`.
        keys: what became of every key of the file.
        method: e.g. "mae"; "vit" where nothing tells.
        epoch: epochs done; None where the file does not tell.
        normalised: (trained on per-patch normalised pixels or None for unknown, the reason).
        architecture, image_size: None where they are to be inferred from the shapes.
        heads, decoder_heads: attention heads; None where the file does not tell.
        epsilon: of the LayerNorms.
        backbone: whether the format holds backbones of detectors and the like, which may lack the final norm.
        mean, std: of the normalisation of images; None where the file does not tell.
        label_space: what the outputs of the classifier mean; None where the file does not tell.
    """

    layout: str
    tensors: dict[str, Tensor]
    keys: list[KeyUse]
    method: str
    epoch: int | None = None
    normalised: tuple[bool | None, str] = (None, "the file carries no training settings")
    architecture: Any = None
    image_size: int | None = None
    heads: int | None = None
    decoder_heads: int | None = None
    epsilon: float = 1e-6
    backbone: bool = False
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    label_space: LabelSpace | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A pretrained encoder and what is known about it.

    Args:
        path: the file.
        format: name in FORMATS.
        digest: 16 hex digits of the tensors in the file.
        encoder: in eval mode, float32; see types.Encoder.
        architecture, image_size: of the encoder; image_size in pixels.
        method: e.g. "mae", "pixmim-mae".
        epoch: epochs done; None where the file does not tell.
        normalised_target: trained on per-patch normalised pixels; None where the file does not tell.
        decoder: the decoder's tensors by their public keys; empty where the file has none.
        decoder_heads: its attention heads; None where nothing tells.
        classifier: from the encoder's tokens to logits, in eval mode; None where the file has none.
        keys: what became of every key.
        mean, std: of the normalisation of images; None where the file does not tell.
        label_space: what the outputs of the classifier mean; None where the file does not tell.
        settings: of its training as the file has them: "recipe" in ours, "args" of the official trainers (see
            read_argument); empty where it has none.
    """

    path: Path
    format: str
    digest: str
    encoder: Any
    architecture: Any
    image_size: int
    method: str
    epoch: int | None
    normalised_target: bool | None
    decoder: dict[str, Tensor] = field(default_factory=dict)
    decoder_heads: int | None = None
    classifier: Classifier | None = None
    keys: tuple[KeyUse, ...] = ()
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    label_space: LabelSpace | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def require_decoder(self) -> dict[str, Tensor]:
        """The decoder's tensors. Raises InputError for an encoder-only file."""
        require_decoder(self.decoder, self.path)
        return self.decoder


def require_decoder(decoder: Mapping[str, Tensor], path: Path) -> None:
    """Raise InputError for an encoder-only file."""
    if not decoder:
        raise InputError(
            "checkpoint",
            expected="a decoder (decoder_* and mask_token)",
            found="an encoder only",
            where=str(path),
            fix="Take the file with decoder: mae_pretrain_*_full or mae_visualize_* of MAE, or one written by "
            "pretrain.run.",
        )


def split_decoder(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(encoder, decoder) tensors of a file with MAE's public keys."""
    encoder, decoder, _ = split_parts(tensors)
    return encoder, decoder


def split_parts(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """(encoder, decoder, classifier) tensors."""
    parts: dict[str, dict[str, Tensor]] = {"encoder": {}, "decoder": {}, "classifier": {}}
    for key, value in tensors.items():
        parts[name_part(key)][key] = value
    return parts["encoder"], parts["decoder"], parts["classifier"]


def infer_decoder_heads(tensors: Mapping[str, Tensor]) -> int | None:
    """Attention heads of a decoder of published size: MAE's 512 x 8 blocks and LSMAE's 384 x 8 blocks."""
    if "mask_token" not in tensors:
        return None
    depth = len({key.split(".")[1] for key in tensors if key.startswith("decoder_blocks.")})
    return {(512, 8): 16, (384, 8): 12}.get((tensors["mask_token"].shape[-1], depth))


def follow_sincos(tensors: Mapping[str, Tensor]) -> float:
    """How much of a position table is the fixed sin-cos table: their cosine similarity, in either order of halves."""
    table = tensors["pos_embed"].float()
    side, dim = math.isqrt(table.shape[1]), table.shape[2]
    if dim % 4 or not side:
        return 0.0
    fixed = sincos_positions(dim, side)[:, 1:]
    patches = table[:, -side * side :]
    swapped = torch.cat(fixed.chunk(2, dim=2)[::-1], dim=2)
    return max(float(torch.cosine_similarity(patches.flatten(), other.flatten(), dim=0)) for other in (fixed, swapped))


def name_method(tensors: Mapping[str, Tensor], pretraining: str = "mae") -> str:
    """What the weights tell of their training: only masked autoencoders have a decoder; they fix their positions to a
    sin-cos table, fine-tuning moves it a little, and other ViTs learn theirs from noise."""
    likeness = follow_sincos(tensors)
    if "mask_token" in tensors:
        return pretraining
    if "head.weight" not in tensors:
        return pretraining if likeness > 0.9999 else "vit"
    if likeness < 0.9:
        return "vit"
    return f"{pretraining}-linear" if "head_norm.running_mean" in tensors else f"{pretraining}-finetuned"


def read_argument(content: Mapping[str, Any], name: str) -> Any:
    """A training argument kept in a file (an argparse.Namespace, inert here, or a dict); None where absent."""
    arguments = content.get("args")
    return arguments.get(name) if isinstance(arguments, dict) else getattr(arguments, name, None)


def read_epoch(content: Mapping[str, Any]) -> int | None:
    """The epoch that a file names; None where it names none, or none that can be."""
    epoch = content.get("epoch")
    return epoch if type(epoch) is int and 0 <= epoch < _EPOCHS else None


def count_epochs(content: Mapping[str, Any]) -> int | None:
    """Epochs done in a file of the official trainers, which save the index of the last one."""
    epoch = read_epoch(content)
    return None if epoch is None else epoch + 1


def explain_normalised(content: Mapping[str, Any], published: str) -> tuple[bool | None, str]:
    """Whether the target was normalised, from the arguments of the official trainers; what is known of the published
    files is said where the file does not tell."""
    value = read_argument(content, "norm_pix_loss")
    if isinstance(value, bool):
        return value, f"the training arguments say norm_pix_loss={value}"
    found = "training arguments without norm_pix_loss" if content.get("args") is not None else "no training arguments"
    return None, f"the file carries {found}, and weights do not tell ({published})"
