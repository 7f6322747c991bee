"""What every checkpoint format is converted to, and how an encoder is built from that."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pixmim_eval.errors import InputError
from pixmim_eval.models.checkpoints.keys import KeyUse, name_part
from pixmim_eval.models.checkpoints.reading import digest_tensors
from pixmim_eval.models.vit import (
    ARCHITECTURES,
    Architecture,
    Classifier,
    VisionTransformer,
    interpolate_positions,
    sincos_positions,
)


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
        mean, std: of the normalisation of images; None where the file does not tell.
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
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None


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

    def require_decoder(self) -> dict[str, Tensor]:
        """The decoder's tensors. Raises InputError for an encoder-only file."""
        if not self.decoder:
            raise InputError(
                "checkpoint",
                expected="a decoder (decoder_* and mask_token)",
                found="an encoder only",
                where=str(self.path),
                fix="Take the file with decoder: mae_pretrain_*_full or mae_visualize_* of MAE, or one written by "
                "pretrain.run.",
            )
        return self.decoder


@dataclass(frozen=True)
class Geometry:
    """What shapes tell of a ViT: patch, width, blocks, patches a side, and whether the table has a class row."""

    patch: int
    dim: int
    depth: int
    side: int
    class_row: bool


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


def measure_geometry(tensors: Mapping[str, Tensor], where: Path) -> Geometry:
    """Read the sizes of a ViT off its tensors.

    Raises:
        InputError: a table that is not of a square grid.
    """
    kernel, rows = tensors["patch_embed.proj.weight"], tensors["pos_embed"].shape[1]
    side = math.isqrt(rows - 1)
    class_row = side * side == rows - 1 and rows > 1
    if not class_row:
        side = math.isqrt(rows)
    if side * side + class_row != rows:
        raise InputError(
            "checkpoint",
            expected="positions [1, n² or 1 + n², width]",
            found=f"pos_embed {tuple(tensors['pos_embed'].shape)}",
            where=str(where),
            fix="Grids that are not square and position tables with further tokens are not read.",
        )
    depth = len({key.split(".")[1] for key in tensors if key.startswith("blocks.")})
    return Geometry(kernel.shape[-1], kernel.shape[0], depth, side, class_row)


def infer_heads(dim: int, depth: int) -> int | None:
    """Attention heads of a published size; they leave no trace in the shapes."""
    heads = {(size.dim, size.depth): size.heads for size in ARCHITECTURES.values()}
    return heads.get((dim, depth))


def infer_decoder_heads(tensors: Mapping[str, Tensor]) -> int | None:
    """Attention heads of a decoder of published size: MAE's 512 x 8 blocks and LSMAE's 384 x 8 blocks."""
    if "mask_token" not in tensors:
        return None
    depth = len({key.split(".")[1] for key in tensors if key.startswith("decoder_blocks.")})
    return {(512, 8): 16, (384, 8): 12}.get((tensors["mask_token"].shape[-1], depth))


def build(
    name: str, source: Source, contents: Contents, arch: Architecture | None, image_size: int | None
) -> Checkpoint:
    """The checkpoint as an encoder; see checkpoints.load."""
    encoder, decoder, classifier = split_parts(contents.tensors)
    if "patch_embed.proj.weight" not in encoder:
        raise InputError(
            "checkpoint",
            expected="a plain ViT",
            found=f"{contents.layout}: recognised, but its encoder cannot be built yet",
            where=str(source.path),
            fix="`pixmim-eval inspect FILE` shows what it holds.",
        )
    geometry = measure_geometry(encoder, source.path)
    architecture = _choose_architecture(source.path, contents, geometry, arch)
    own_size = contents.image_size or geometry.side * geometry.patch
    size = image_size or own_size
    grids = ((geometry.side, geometry.side), (size // architecture.patch,) * 2)
    if not geometry.class_row:  # the class token has no position: the same as one of zeros
        encoder["pos_embed"] = torch.cat((torch.zeros_like(encoder["pos_embed"][:, :1]), encoder["pos_embed"]), dim=1)
    if size != own_size:
        encoder["pos_embed"] = interpolate_positions(encoder["pos_embed"], *grids)
        if "decoder_pos_embed" in decoder:
            decoder["decoder_pos_embed"] = interpolate_positions(decoder["decoder_pos_embed"], *grids)
    with torch.device("meta"):  # no time lost on random weights that are replaced at once
        network = VisionTransformer(
            size,
            architecture,
            layer_scale=1.0 if "blocks.0.ls1.gamma" in encoder else None,
            final_norm="fc_norm.weight" not in classifier or "norm.weight" in encoder,
            epsilon=contents.epsilon,
        )
    fill(network, encoder, source.path, f"the encoder of {architecture}", contents.keys)
    return Checkpoint(
        path=source.path,
        format=name,
        digest=digest_tensors(source.tensors),
        encoder=network,
        architecture=architecture,
        image_size=size,
        method=contents.method,
        epoch=contents.epoch,
        normalised_target=contents.normalised[0],
        decoder=decoder,
        decoder_heads=contents.decoder_heads,
        classifier=build_classifier(classifier, architecture.dim, source.path, contents),
        keys=tuple(contents.keys),
        mean=contents.mean,
        std=contents.std,
    )


def _choose_architecture(path: Path, contents: Contents, geometry: Geometry, arch: Architecture | None) -> Architecture:
    told: Architecture | None = contents.architecture
    found = (geometry.patch, geometry.dim, geometry.depth, geometry.side * geometry.patch)
    if told and found != (told.patch, told.dim, told.depth, contents.image_size):
        raise InputError(
            "checkpoint",
            expected=f"the tensors of {told} at {contents.image_size} px, as its header says",
            found=f"patch {found[0]}, width {found[1]}, depth {found[2]}, {found[3]} px",
            where=str(path),
            fix="Make the file again.",
        )
    if told and arch not in (None, told):
        raise InputError("checkpoint", expected=str(arch), found=str(told), where=str(path), fix="Leave out arch.")
    if arch or told:
        return arch or told  # type: ignore[return-value]
    heads = contents.heads or infer_heads(geometry.dim, geometry.depth)
    if heads:
        return Architecture(geometry.patch, geometry.dim, geometry.depth, heads)
    raise InputError(
        "checkpoint",
        expected=f"a published architecture ({', '.join(ARCHITECTURES)}), since keys do not tell the number of heads",
        found=f"patch {geometry.patch}, width {geometry.dim}, depth {geometry.depth}",
        where=str(path),
        fix="Give it: checkpoints.load(path, arch=Architecture(patch, dim, depth, heads)).",
    )


def build_classifier(tensors: dict[str, Tensor], dim: int, path: Path, contents: Contents) -> Classifier | None:
    """The classifier of a fine-tuned or linearly probed file; None where there is none."""
    if "head.weight" not in tensors:
        return None
    norm = "layer" if "fc_norm.weight" in tensors else "batch" if "head_norm.running_mean" in tensors else None
    pooling = "mean" if norm == "layer" else "cls"
    with torch.device("meta"):
        classifier = Classifier(
            dim, tensors["head.weight"].shape[0], pooling=pooling, norm=norm, epsilon=contents.epsilon
        )
    fill(classifier, tensors, path, f"a classifier on {dim} features", contents.keys)
    return classifier


def fill(module: nn.Module, tensors: dict[str, Tensor], path: Path, what: str, keys: list[KeyUse]) -> None:
    """Give a module its weights, as copies in float32, and put it in eval mode.

    Args:
        module: on the meta device.
        tensors: by its own names.
        path, what: file and module, for the message.
        keys: to name the keys of the file.

    Raises:
        InputError: a key is missing, unknown, or has another shape or kind of number than the module's.
    """
    origin = {use.target: use.key for use in keys if use.use == "renamed"}
    wanted = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    given = {key: tuple(value.shape) for key, value in tensors.items()}
    faults = [
        f"{origin.get(key, key)} {given[key]} instead of {wanted[key]}"
        for key in wanted
        if given.get(key, wanted[key]) != wanted[key]
    ]
    faults += [
        f"{origin.get(key, key)} of type {tensors[key].dtype}"
        for key, value in module.state_dict().items()
        if key in given and value.is_floating_point() != tensors[key].is_floating_point()
    ]
    faults += [f"{key} missing" for key in wanted if key not in given]
    faults += [f"{origin.get(key, key)} unknown" for key in given if key not in wanted]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise InputError(
            "checkpoint",
            expected=what,
            found="; ".join(faults[:3]) + more,
            where=str(path),
            fix="The file is incomplete or of another architecture: `pixmim-eval inspect FILE` shows what it holds.",
        )
    taken = {
        key: value.to(torch.float32 if value.is_floating_point() else value.dtype, copy=True)
        for key, value in tensors.items()
    }
    module.load_state_dict(taken, assign=True)
    module.requires_grad_(False).eval()


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
    """What the weights tell of their training: masked autoencoders fix their positions to a sin-cos table, fine-tuning
    moves it a little, and other ViTs learn theirs from noise."""
    likeness = follow_sincos(tensors)
    if "head.weight" not in tensors:
        return pretraining if likeness > 0.9999 else "vit"
    if likeness < 0.9:
        return "vit"
    return f"{pretraining}-linear" if "head_norm.running_mean" in tensors else f"{pretraining}-finetuned"


def read_argument(content: Mapping[str, Any], name: str) -> Any:
    """A training argument kept in a file (an argparse.Namespace, inert here, or a dict); None where absent."""
    arguments = content.get("args")
    return arguments.get(name) if isinstance(arguments, dict) else getattr(arguments, name, None)


def count_epochs(content: Mapping[str, Any]) -> int | None:
    """Epochs done in a file of the official trainers, which save the index of the last one."""
    epoch = content.get("epoch")
    return epoch + 1 if type(epoch) is int else None


def explain_normalised(content: Mapping[str, Any]) -> tuple[bool | None, str]:
    """Whether the target was normalised, from the arguments of the official trainers."""
    value = read_argument(content, "norm_pix_loss")
    if isinstance(value, bool):
        return value, f"the training arguments say norm_pix_loss={value}"
    return None, (
        "the file carries no training arguments, and weights do not tell (of MAE's files, mae_pretrain_* were "
        "trained with normalised pixels, mae_visualize_* without)"
    )
