"""ConvMAE files (Alpha-VL/ConvMAE), pretrained, fine-tuned and probed: three stages, the first two of convolutions, no
class token."""

from __future__ import annotations

from pixmim_eval.models.checkpoints.checkpoint import (
    Contents,
    Source,
    count_epochs,
    explain_normalised,
    infer_decoder_heads,
    name_method,
)
from pixmim_eval.models.checkpoints.keys import CONVVIT, DECODER, Names, same_names, translate
from pixmim_eval.models.checkpoints.mae import HEADS

LAYOUT = "the official ConvMAE code"
NAMES = Names([*same_names(CONVVIT, DECODER), *HEADS])


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
        normalised=explain_normalised(source.content, "the published command normalises pixels"),
        decoder_heads=infer_decoder_heads(tensors),
    )
