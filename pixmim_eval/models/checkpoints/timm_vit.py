"""State dicts of timm's plain vision transformers (vit_*, deit_*, deit3_*), with or without classifier."""

from __future__ import annotations

from typing import Any

from pixmim_eval.models.checkpoints.checkpoint import Contents, Source, name_method
from pixmim_eval.models.checkpoints.keys import VIT, Names, same_names, translate
from pixmim_eval.models.checkpoints.reading import read_beside

LAYOUT = "timm"
NAMES = Names(same_names(VIT, ["fc_norm.@", "head.@"]))


def recognises(source: Source) -> bool:
    """Whether these are a timm ViT's keys."""
    return {
        "cls_token",
        "pos_embed",
        "patch_embed.proj.weight",
        "blocks.0.attn.qkv.weight",
    } <= source.tensors.keys()


def convert(source: Source) -> Contents:
    """See Contents. timm's config.json beside the file tells how images are normalised."""
    tensors, keys = translate(source.tensors, NAMES, unused={}, where=source.path, layout=LAYOUT)
    settings = read_beside(source.path, "config.json").get("pretrained_cfg")
    settings = settings if isinstance(settings, dict) else {}
    method = "deit3" if "blocks.0.ls1.gamma" in tensors else name_method(tensors)
    return Contents(
        layout=LAYOUT,
        tensors=tensors,
        keys=keys,
        method=method,
        normalised=(None, "timm's files carry no training settings"),
        mean=read_triple(settings.get("mean")),
        std=read_triple(settings.get("std")),
    )


def read_triple(values: Any) -> tuple[float, float, float] | None:
    """Three numbers of a configuration; None where there are none."""
    if isinstance(values, list) and len(values) == 3 and all(isinstance(value, int | float) for value in values):
        return float(values[0]), float(values[1]), float(values[2])
    return None
