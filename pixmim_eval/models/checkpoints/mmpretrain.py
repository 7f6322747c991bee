"""mmselfsup, mmpretrain and mmcls files: MAE, PixMIM and MFF pretraining, linear and fine-tuned classifiers; and bare
backbones as mmseg loads them."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

from pixmim_eval.models.checkpoints.checkpoint import Contents, Source, infer_decoder_heads, name_method, read_epoch
from pixmim_eval.models.checkpoints.keys import BATCH_NORM, LAYER_SCALE, Names, translate

LAYOUT = "mmselfsup / mmpretrain"
BARE_LAYOUT = "mmseg, or a bare backbone of mmpretrain"


def _list_block(ours: str, theirs: str) -> list[tuple[str, str]]:
    pairs = {"attn.qkv.@": "attn.qkv.@", "attn.proj.@": "attn.proj.@"}
    pairs |= {"mlp.fc1.@": "ffn.layers.0.0.@", "mlp.fc2.@": "ffn.layers.1.@"}
    listed = [(f"{ours}.#.{a}", f"{theirs}.#.{b}") for a, b in pairs.items()]
    for norm in ("ln", "norm"):  # names of the norms changed between versions
        listed += [(f"{ours}.#.norm{number}.@", f"{theirs}.#.{norm}{number}.@") for number in (1, 2)]
    return listed


def _list_backbone(prefix: str) -> list[tuple[str, str]]:
    """Pairs of a backbone: mmcls's VisionTransformer and mmseg's MAE, which have the same names."""
    scales = (f"{prefix}layers.#.attn.gamma1.weight", f"{prefix}layers.#.ffn.gamma2.weight")
    pairs = [
        ("cls_token", f"{prefix}cls_token"),
        ("pos_embed", f"{prefix}pos_embed"),
        ("patch_embed.proj.@", f"{prefix}patch_embed.projection.@"),
        *_list_block("blocks", f"{prefix}layers"),
        *zip(LAYER_SCALE, scales, strict=True),
    ]
    for norm in ("ln", "norm"):  # after mean pooling the second norm takes the place of the first
        pairs += [("norm.@", f"{prefix}{norm}1.@"), ("fc_norm.@", f"{prefix}{norm}2.@")]
    return pairs


_NECK = [
    *((key, f"neck.{key}") for key in ("mask_token", "decoder_pos_embed", "decoder_embed.@", "decoder_pred.@")),
    *_list_block("decoder_blocks", "neck.decoder_blocks"),
    *(("decoder_norm.@", f"neck.{name}.@") for name in ("ln1", "norm1", "decoder_norm")),
]
_HEAD = [
    *((key, key.replace("head_norm", "neck.bn")) for key in BATCH_NORM),
    *(("head.@", f"head.{name}.@") for name in ("fc", "layers.head")),
]
NAMES = Names([*_list_backbone("backbone."), *_NECK, *_HEAD])
# Its head on the class token is VisionTransformerClsHead, on the mean of the patch tokens LinearClsHead.
CLASS_TOKEN_NAMES = Names([("head.@", "head.layers.head.@"), *_list_backbone("backbone."), *_NECK, *_HEAD])
# mmseg's MAE holds LayerScale in the block itself.
_MMSEG_SCALES = zip(LAYER_SCALE, ("layers.#.gamma_1", "layers.#.gamma_2"), strict=True)
BARE_NAMES = Names([*_MMSEG_SCALES, *_list_backbone("")])
_FUSION = "MFF's fusion of shallow layers, which only its decoder reads"
UNUSED = {
    "target_generator.low_pass_filter": "PixMIM's low-pass filter: a constant, computed from the radius here",
    "backbone.proj_layers.#.@": _FUSION,
    "backbone.proj_weights": _FUSION,
    "data_preprocessor.*": "normalisation of images, which the loader does here",
}


def recognises(source: Source) -> bool:
    """Whether these are mmcls's names of a ViT, with or without the prefix of a whole model."""
    return any(_probe(prefix) <= source.tensors.keys() for prefix in ("backbone.", ""))


def _probe(prefix: str) -> set[str]:
    return {f"{prefix}{key}" for key in ("patch_embed.projection.weight", "layers.0.attn.qkv.weight", "pos_embed")}


def convert(source: Source) -> Contents:
    """See Contents. The halves of mmselfsup's position tables are swapped; the table comes from the file, so that
    nothing needs to know."""
    names = NAMES if _probe("backbone.") <= source.tensors.keys() else BARE_NAMES
    tensors, keys = translate(source.tensors, names, unused=UNUSED, where=source.path, layout=LAYOUT)
    meta = source.content.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    settings = str(next((meta[key] for key in ("cfg", "config") if isinstance(meta.get(key), str)), ""))
    return Contents(
        layout=LAYOUT if names is NAMES else BARE_LAYOUT,
        tensors=tensors,
        keys=keys,
        method=name_method(tensors, _name_pretraining(source.tensors, settings)),
        epoch=read_epoch(meta),  # mmengine saves how many are done
        normalised=_explain_normalised(settings),
        decoder_heads=infer_decoder_heads(tensors),
        backbone=names is BARE_NAMES,
    )


def _name_pretraining(tensors: dict[str, Tensor], settings: str) -> str:
    if "target_generator.low_pass_filter" in tensors or "pixmim" in settings.lower():
        return "pixmim-mae"
    return "mff" if "backbone.proj_weights" in tensors else "mae"


def _explain_normalised(settings: str) -> tuple[bool | None, str]:
    found: Any = re.search(r"norm_pix(?:_loss)?\s*=\s*(True|False)", settings)
    if found:
        return found[1] == "True", f"its configuration says {found[0]}"
    return None, "the file carries no configuration that says norm_pix (the published ones all say True)"
