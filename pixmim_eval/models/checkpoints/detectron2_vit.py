"""Backbones in detectron2's names (ViTDet): timm's, under backbone.net."""

from __future__ import annotations

from pixmim_eval.models.checkpoints.checkpoint import Contents, Source, name_method
from pixmim_eval.models.checkpoints.keys import Names, translate
from pixmim_eval.models.checkpoints.mae import PLAIN

LAYOUT = "detectron2 (ViTDet)"
NAMES = Names((key, f"backbone.net.{key}") for key in PLAIN)
UNUSED = {
    "backbone.simfp_*": "the feature pyramid of a detector",
    "proposal_generator.*": "a detector's proposals",
    "roi_heads.*": "a detector's heads",
    **{f"pixel_{name}": "normalisation of images, which the loader does here" for name in ("mean", "std")},
}


def recognises(source: Source) -> bool:
    """Whether these are the keys of a ViT inside a detector."""
    return {"backbone.net.pos_embed", "backbone.net.blocks.0.attn.qkv.weight"} <= source.tensors.keys()


def convert(source: Source) -> Contents:
    """See Contents."""
    tensors, keys = translate(source.tensors, NAMES, unused=UNUSED, where=source.path, layout=LAYOUT)
    return Contents(layout=LAYOUT, tensors=tensors, keys=keys, method=name_method(tensors), backbone=True)
