"""Long-sequence MAE files (facebookresearch/long_seq_mae): MAE's keys, 784 tokens at 448 px, masks of 2 x 2 patches."""

from __future__ import annotations

import torch
from torch import Tensor

from pixmim_eval.models.checkpoints import mae
from pixmim_eval.models.checkpoints.checkpoint import (
    Contents,
    Source,
    count_epochs,
    explain_normalised,
    infer_decoder_heads,
    name_method,
    read_argument,
)
from pixmim_eval.models.checkpoints.keys import DECODER, KeyUse, Names, name_part, same_names, translate

LAYOUT = "the long-sequence MAE code"
BIASES = (
    "blocks.#.attn.q_bias",
    "blocks.#.attn.v_bias",
    "decoder_blocks.#.attn.q_bias",
    "decoder_blocks.#.attn.v_bias",
)
NAMES = Names([*same_names(mae.PLAIN, DECODER, BIASES)])
UNUSED = {
    f"decoder_{step}.@": "a learned change of resolution inside the decoder (off in the released files), not run here"
    for step in ("downsample", "upsample")
}


def recognises(source: Source) -> bool:
    """Whether these are MAE's keys with a trace of long sequences: the mask unit among the training arguments, an
    attention without key bias, or the table of 784 patches of 16 px."""
    tensors = source.tensors
    if not mae.recognises(source):
        return False
    long = tensors["pos_embed"].shape[1] == 785 and tensors["patch_embed.proj.weight"].shape[-1] == 16
    units = read_argument(source.content, "mask_downsampling")
    return "head.weight" not in tensors and (
        (type(units) is int and units > 1) or "blocks.0.attn.q_bias" in tensors or (long and "mask_token" in tensors)
    )


def convert(source: Source) -> Contents:
    """See Contents."""
    tensors, keys = translate(source.tensors, NAMES, unused=UNUSED, where=source.path, layout=LAYOUT)
    tensors, keys = _merge_biases(tensors, keys)
    return Contents(
        layout=LAYOUT,
        tensors=tensors,
        keys=keys,
        method=name_method(tensors, "lsmae"),
        epoch=count_epochs(source.content),
        normalised=explain_normalised(source.content, "the published command normalises pixels"),
        decoder_heads=infer_decoder_heads(tensors),
    )


def _merge_biases(tensors: dict[str, Tensor], keys: list[KeyUse]) -> tuple[dict[str, Tensor], list[KeyUse]]:
    """q_bias and v_bias (--no_k_bias_in_vit) as one qkv bias, with zeros for the key's."""
    merged, names = dict(tensors), dict[str, str]()
    for name in tensors:
        if name.endswith(".attn.q_bias") and (other := name.replace("q_bias", "v_bias")) in tensors:
            query, value = merged.pop(name), merged.pop(other)
            target = name.replace("q_bias", "qkv.bias")
            merged[target] = torch.cat((query, torch.zeros_like(query), value))
            names |= {name: target, other: target}
    return merged, [
        KeyUse(use.key, "renamed", f"{name_part(names[use.target])}, a third of the joint bias", names[use.target])
        if use.target in names
        else use
        for use in keys
    ]
