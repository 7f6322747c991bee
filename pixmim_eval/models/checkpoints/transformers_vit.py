"""ViTMAE and ViT of the transformers library: query, key and value apart, three generations of names."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pixmim_eval.models.checkpoints.checkpoint import Contents, Source, infer_decoder_heads, name_method
from pixmim_eval.models.checkpoints.keys import KeyUse, Names, name_part, translate
from pixmim_eval.models.checkpoints.reading import read_beside
from pixmim_eval.models.checkpoints.timm_vit import read_triple

LAYOUT = "transformers"
PARTS = ("query", "key", "value")  # in the order of the joint matrix
_FILES = {  # in files, of every version
    "norm1.@": "layernorm_before.@",
    **{f"attn.{part}.@": f"attention.attention.{part}.@" for part in PARTS},
    "attn.proj.@": "attention.output.dense.@",
    "norm2.@": "layernorm_after.@",
    "mlp.fc1.@": "intermediate.dense.@",
    "mlp.fc2.@": "output.dense.@",
}
_MEMORY = {  # in the modules of version 5
    "norm1.@": "layernorm_before.@",
    **{f"attn.{part}.@": f"attention.{part[0]}_proj.@" for part in PARTS},
    "attn.proj.@": "attention.o_proj.@",
    "norm2.@": "layernorm_after.@",
    "mlp.fc1.@": "mlp.fc1.@",
    "mlp.fc2.@": "mlp.fc2.@",
}


def _list_pairs() -> list[tuple[str, str]]:
    pairs = [("head.@", "classifier.@"), ("mask_token", "decoder.mask_token")]
    pairs += [(key, f"decoder.{key}") for key in ("decoder_pos_embed", "decoder_embed.@", "decoder_norm.@")]
    pairs += [("decoder_pred.@", "decoder.decoder_pred.@")]
    for prefix in ("vit.", ""):  # a model saved alone has no prefix
        pairs += [
            ("cls_token", f"{prefix}embeddings.cls_token"),
            ("pos_embed", f"{prefix}embeddings.position_embeddings"),
            ("patch_embed.proj.@", f"{prefix}embeddings.patch_embeddings.projection.@"),
            ("norm.@", f"{prefix}layernorm.@"),
        ]
        pairs += [(f"blocks.#.{ours}", f"{prefix}encoder.layer.#.{theirs}") for ours, theirs in _FILES.items()]
        pairs += [(f"blocks.#.{ours}", f"{prefix}layers.#.{theirs}") for ours, theirs in _MEMORY.items()]
    # Version 5 writes decoder_encoder.layer where all others write decoder_layers.
    for stem in ("decoder.decoder_layers", "decoder.decoder_encoder.layer"):
        pairs += [(f"decoder_blocks.#.{ours}", f"{stem}.#.{theirs}") for ours, theirs in _FILES.items()]
    pairs += [(f"decoder_blocks.#.{ours}", f"decoder.decoder_layers.#.{theirs}") for ours, theirs in _MEMORY.items()]
    return pairs


NAMES = Names(_list_pairs())
UNUSED = {
    **{
        f"{prefix}pooler.dense.@": "the pooler after the class token, no part of the encoder" for prefix in ("vit.", "")
    },
    **{f"{prefix}embeddings.mask_token": "for masked images, which an encoder never sees" for prefix in ("vit.", "")},
}


def recognises(source: Source) -> bool:
    """Whether these are ViT's or ViTMAE's keys."""
    stems = ("vit.embeddings.patch_embeddings.projection.weight", "embeddings.patch_embeddings.projection.weight")
    return any(stem in source.tensors for stem in stems)


def convert(source: Source) -> Contents:
    """See Contents. config.json beside the file tells the heads, LayerNorm's eps and the target; without it, eps is the
    library's own 1e-12 (MAE's is 1e-6)."""
    tensors, keys = translate(source.tensors, NAMES, unused=UNUSED, where=source.path, layout=LAYOUT)
    tensors, keys = merge_attention(tensors, keys)
    config = read_beside(source.path, "config.json")
    if config.get("hidden_size") != tensors["patch_embed.proj.weight"].shape[0]:  # of another file
        config = {}
    images = read_beside(source.path, "preprocessor_config.json") if config else {}
    decoder_heads = _read_int(config, "decoder_num_attention_heads") if "mask_token" in tensors else None
    return Contents(
        layout=LAYOUT,
        tensors=tensors,
        keys=keys,
        method=name_method(tensors),
        normalised=_explain_normalised(config),
        heads=_read_int(config, "num_attention_heads"),
        decoder_heads=decoder_heads or infer_decoder_heads(tensors),
        epsilon=_read_epsilon(config),
        mean=read_triple(images.get("image_mean")),
        std=read_triple(images.get("image_std")),
    )


def merge_attention(tensors: dict[str, Tensor], keys: list[KeyUse]) -> tuple[dict[str, Tensor], list[KeyUse]]:
    """Query, key and value of each block as one qkv tensor; an incomplete set stays as it is, and is found unknown."""
    merged, names = dict(tensors), dict[str, str]()
    for name in tensors:
        thirds = [name.replace(".attn.query.", f".attn.{part}.") for part in PARTS]
        if ".attn.query." in name and all(third in tensors for third in thirds):
            target = name.replace(".attn.query.", ".attn.qkv.")
            merged[target] = torch.cat([merged.pop(third) for third in thirds])
            names |= dict.fromkeys(thirds, target)
    return merged, [
        KeyUse(use.key, "renamed", f"{name_part(names[use.target])}, a third of the joint tensor", names[use.target])
        if use.target in names
        else use
        for use in keys
    ]


def split_attention(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of merge_attention."""
    split: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if ".attn.qkv." in name:
            split |= {name.replace("qkv", part): third for part, third in zip(PARTS, value.chunk(3), strict=True)}
        else:
            split[name] = value
    return split


def _read_int(config: dict[str, Any], name: str) -> int | None:
    value = config.get(name)
    return value if type(value) is int and value > 0 else None


def _read_epsilon(config: dict[str, Any]) -> float:
    value = config.get("layer_norm_eps")
    return float(value) if isinstance(value, int | float) else 1e-12


def _explain_normalised(config: dict[str, Any]) -> tuple[bool | None, str]:
    value = config.get("norm_pix_loss")
    if not isinstance(value, bool):
        return None, "no config.json beside the file says norm_pix_loss"
    return value, f"config.json beside the file says norm_pix_loss={value} (its default is False, whatever was trained)"
