"""Checkpoints written in the names of other code bases."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from pixmim_eval.errors import InputError
from pixmim_eval.files import write_atomic
from pixmim_eval.models.checkpoints import detectron2_vit, mmpretrain, open_source, timm_vit, transformers_vit
from pixmim_eval.models.checkpoints.building import count_blocks, infer_heads, measure_geometry
from pixmim_eval.models.checkpoints.checkpoint import Contents, Source, split_parts
from pixmim_eval.models.checkpoints.keys import KeyUse, Names


@dataclass(frozen=True)
class Target:
    """A layout to export to.

    Args:
        names: its table.
        wrap: state dict -> the object that torch.save writes.
        why: reason for what it has no place for.
        prepare: change of the tensors before they are renamed.
    """

    names: Names
    wrap: Callable[[dict[str, Tensor]], Any]
    why: str
    prepare: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict


EXPORTS = {
    "timm": Target(timm_vit.NAMES, dict, "timm's ViT has no decoder and no batch norm before its classifier"),
    "transformers": Target(
        transformers_vit.NAMES,
        dict,
        "transformers' ViT classifies by the class token alone, without a norm of its own",
        transformers_vit.split_attention,
    ),
    "mmpretrain": Target(mmpretrain.NAMES, lambda tensors: {"meta": {}, "state_dict": tensors}, "no place for it"),
    "mmseg": Target(
        mmpretrain.BARE_NAMES, lambda tensors: {"state_dict": tensors}, "mmseg's MAE is a backbone: no decoder, no head"
    ),
    "detectron2": Target(
        detectron2_vit.NAMES,
        lambda tensors: {"model": tensors, "__author__": "pixmim-eval", "matching_heuristics": False},
        "detectron2's ViT is a backbone: no decoder, no head",
    ),
}


def export_checkpoint(path: str | Path, layout: str, out: str | Path) -> tuple[KeyUse, ...]:
    """Write a checkpoint in another code base's names. Values keep their type and every bit.

    Args:
        path: any file that `load` opens.
        layout: name in EXPORTS. detectron2's ViT has neither class token nor final norm: they are written all the
            same (its loader says that it leaves them out), so that nothing is lost on the way back.
        out: file to write, .safetensors (timm) or .pth; for transformers a folder, which gets config.json and
            model.safetensors for from_pretrained: ViTMAEForPreTraining with decoder, ViTForImageClassification with a
            classifier of the class token, else ViTMAEModel.

    Returns:
        What became of each tensor: renamed, or unused with a reason.

    Raises:
        InputError: unknown layout, or an encoder that the layout cannot express.
    """
    if layout not in EXPORTS:
        raise InputError(
            "export", expected=f"one of {', '.join(EXPORTS)}", found=repr(layout), where="--format", fix="Take one."
        )
    path, out = Path(path), Path(out)
    _, source, contents = open_source(path)
    target = EXPORTS[layout]
    tensors, uses = _rename(contents.tensors, target, layout, path)
    if layout == "transformers":
        config = _describe_to_transformers(source, contents, has_classifier="classifier.weight" in tensors)
        write_atomic(out / "config.json", json.dumps(config, indent=2).encode())
        write_atomic(out / "model.safetensors", save(tensors, metadata={"format": "pt"}))
    elif out.suffix == ".safetensors" and layout == "timm":
        write_atomic(out, save(tensors, metadata={"format": "pt"}))
    elif out.suffix == ".safetensors":
        raise InputError(
            "export", expected="a .pth file", found=out.name, where="--out", fix=f"{layout} reads files of torch.save."
        )
    else:
        buffer = io.BytesIO()
        torch.save(target.wrap(tensors), buffer)
        write_atomic(out, buffer.getvalue())
    return tuple(uses)


def _rename(
    tensors: dict[str, Tensor], target: Target, layout: str, path: Path
) -> tuple[dict[str, Tensor], list[KeyUse]]:
    encoder, _, classifier = split_parts(tensors)
    needed = target.prepare(encoder)
    # half a classifier would be another one
    dropped = classifier if any(target.names.to_theirs(key) is None for key in classifier) else {}
    theirs: dict[str, Tensor] = {}
    uses: list[KeyUse] = []
    for key, value in target.prepare(tensors).items():
        name = target.names.to_theirs(key)
        if name is None and key in needed:
            raise InputError(
                "export",
                expected=f"an encoder that {layout} can express",
                found=f"{key}, which it has no place for",
                where=str(path),
                fix="LayerScale fits timm and mmpretrain; a network of convolutions fits none of these.",
            )
        if name is None or key in dropped:
            uses.append(KeyUse(key, "unused", target.why))
        else:
            theirs[name] = value.detach().clone(memory_format=torch.contiguous_format)
            uses.append(KeyUse(key, "used" if name == key else "renamed", target=name))
    return theirs, uses


def _describe_to_transformers(source: Source, contents: Contents, *, has_classifier: bool) -> dict[str, Any]:
    """config.json for from_pretrained."""
    encoder, decoder, classifier = split_parts(contents.tensors)
    geometry = measure_geometry(encoder, source.path)
    heads = contents.architecture.heads if contents.architecture else contents.heads
    heads = heads or infer_heads(geometry)
    if heads is None or (decoder and contents.decoder_heads is None) or "norm.weight" not in encoder:
        raise InputError(
            "export",
            expected="a final norm and the numbers of heads, which transformers needs",
            found="an encoder without final norm" if heads and "norm.weight" not in encoder else "no number of heads",
            where=str(source.path),
            fix="Export one of our own checkpoints, or one of published size.",
        )
    config: dict[str, Any] = {
        "architectures": ["ViTMAEForPreTraining" if decoder else "ViTMAEModel"],
        "model_type": "vit_mae",
        "hidden_size": geometry.dims[0],
        "num_hidden_layers": geometry.depths[0],
        "num_attention_heads": heads,
        "intermediate_size": encoder["blocks.0.mlp.fc1.weight"].shape[0],
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": contents.epsilon,
        "image_size": geometry.image_size,
        "patch_size": geometry.patch,
        "num_channels": 3,
        "qkv_bias": True,
    }
    if decoder:
        config |= {
            "decoder_hidden_size": decoder["mask_token"].shape[-1],
            "decoder_num_hidden_layers": count_blocks(decoder, "decoder_blocks."),
            "decoder_num_attention_heads": contents.decoder_heads,
            "decoder_intermediate_size": decoder["decoder_blocks.0.mlp.fc1.weight"].shape[0],
            "mask_ratio": source.content.get("recipe", {}).get("mask_ratio", 0.75),
            "norm_pix_loss": bool(contents.normalised[0]),
        }
    elif has_classifier:
        labels = range(len(classifier["head.bias"]))
        config |= {"architectures": ["ViTForImageClassification"], "model_type": "vit"}
        config |= {"id2label": {str(label): f"LABEL_{label}" for label in labels}}
    return config
