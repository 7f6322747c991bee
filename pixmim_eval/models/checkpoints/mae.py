"""Official MAE files: encoder only (mae_pretrain_*), with decoder (*_full, mae_visualize_*), fine-tuned, probed."""

from __future__ import annotations

from pixmim_eval.models.checkpoints.checkpoint import (
    Contents,
    Source,
    count_epochs,
    explain_normalised,
    infer_decoder_heads,
    name_method,
)
from pixmim_eval.models.checkpoints.keys import BATCH_NORM, DECODER, LAYER_SCALE, VIT, Names, same_names, translate

LAYOUT = "the official MAE code"
PLAIN = [key for key in VIT if key not in LAYER_SCALE]
# Linear probing puts the norm and the layer into one Sequential: head.0 and head.1.
PROBE = [(key, key.replace("head_norm", "head.0")) for key in BATCH_NORM]
HEADS = [("fc_norm.@", "fc_norm.@"), *PROBE, ("head.@", "head.@"), ("head.@", "head.1.@")]
NAMES = Names([*same_names(PLAIN, DECODER), *HEADS])
PUBLISHED = "of MAE's files, mae_pretrain_* were trained with normalised pixels, mae_visualize_* without"
ESSENTIAL = {"cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight"}


def recognises(source: Source) -> bool:
    """Whether these are MAE's public keys; timm's, which are the same for an encoder, stand under no "model"."""
    return source.tensors.keys() >= ESSENTIAL and (source.wrapper == "model" or "mask_token" in source.tensors)


def convert(source: Source) -> Contents:
    """See Contents."""
    tensors, keys = translate(source.tensors, NAMES, unused={}, where=source.path, layout=LAYOUT)
    return Contents(
        layout=LAYOUT,
        tensors=tensors,
        keys=keys,
        method=name_method(tensors),
        epoch=count_epochs(source.content),
        normalised=explain_normalised(source.content, PUBLISHED),
        decoder_heads=infer_decoder_heads(tensors),
    )
