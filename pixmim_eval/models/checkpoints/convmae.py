"""ConvMAE files (Alpha-VL/ConvMAE): three stages, the first two of convolutions, no class token."""

from __future__ import annotations

from pixmim_eval.models.checkpoints.checkpoint import (
    Contents,
    Source,
    count_epochs,
    explain_normalised,
    infer_decoder_heads,
    name_method,
)
from pixmim_eval.models.checkpoints.keys import BLOCK, DECODER, Names, same_names, translate

LAYOUT = "the official ConvMAE code"
FUSION = ("stage1_output_decode.@", "stage2_output_decode.@")  # of stages 1 and 2 into the last norm, in pretraining
_CONVOLUTIONS = ("norm1.@", "conv1.@", "attn.@", "conv2.@", "norm2.@", "mlp.fc1.@", "mlp.fc2.@")
CONVVIT = (
    "pos_embed",
    *(f"patch_embed{stage}.{part}.@" for stage in (1, 2, 3) for part in ("proj", "norm")),
    "patch_embed4.@",
    *(f"blocks{stage}.#.{key}" for stage in (1, 2) for key in _CONVOLUTIONS),
    *(f"blocks3.#.{key}" for key in BLOCK),
    *FUSION,
    "norm.@",
)
NAMES = Names(same_names(CONVVIT, DECODER, ["fc_norm.@", "head.@"]))


def recognises(source: Source) -> bool:
    """Whether these are ConvMAE's keys."""
    return {"pos_embed", "patch_embed4.weight", "blocks1.0.conv1.weight"} <= source.tensors.keys()


def convert(source: Source) -> Contents:
    """See Contents."""
    tensors, keys = translate(source.tensors, NAMES, unused={}, where=source.path, layout=LAYOUT)
    return Contents(
        layout=LAYOUT,
        tensors=tensors,
        keys=keys,
        method=name_method(tensors, "convmae"),
        epoch=count_epochs(source.content),
        normalised=explain_normalised(source.content),
        decoder_heads=infer_decoder_heads(tensors),
    )
