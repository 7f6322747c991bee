"""DeiT III files (facebookresearch/deit): timm's names, LayerScale as gamma_1 and gamma_2, no position for the class
token."""

from __future__ import annotations

from pixmim_eval.models.checkpoints.checkpoint import NO_TARGET, Contents, Source, count_epochs
from pixmim_eval.models.checkpoints.keys import LAYER_SCALE, Names, same_names, translate
from pixmim_eval.models.checkpoints.mae import PLAIN

LAYOUT = "the official DeiT III code"
NAMES = Names(
    [*same_names(PLAIN, ["head.@"]), *zip(LAYER_SCALE, ("blocks.#.gamma_1", "blocks.#.gamma_2"), strict=True)]
)


def recognises(source: Source) -> bool:
    """Whether these are timm's keys with LayerScale under DeiT III's names."""
    return {"cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.gamma_1"} <= source.tensors.keys()


def convert(source: Source) -> Contents:
    """See Contents."""
    tensors, keys = translate(source.tensors, NAMES, unused={}, where=source.path, layout=LAYOUT)
    return Contents(
        layout=LAYOUT,
        tensors=tensors,
        keys=keys,
        method="deit3",
        epoch=count_epochs(source.content),
        normalised=(None, NO_TARGET),
    )
