"""From a checkpoint, ours or a stranger's, to the masked autoencoder that it was trained as."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn

from pixmim_eval.errors import InputError
from pixmim_eval.models.checkpoints.building import fill
from pixmim_eval.models.checkpoints.checkpoint import Checkpoint, read_argument
from pretrain.autoencoder import MaskedAutoencoder
from pretrain.recipes import read_settings
from pretrain.targets import LowFrequency

logger = logging.getLogger("pixmim_eval")

PUBLISHED_RATIO, PUBLISHED_RADIUS = 0.75, 40.0
PUBLISHED_UNITS = {"lsmae": 2}  # by format; all others mask single patches


@dataclass(frozen=True)
class Objective:
    """What a masked autoencoder was trained to do.

    Args:
        mask_ratio: share of patches masked.
        mask_unit: patches a side of what is masked as a whole.
        radius: of the low-frequency target, in cycles per image; None where all frequencies are the target.
        normalised: each patch of the target less its mean, over its deviation.
    """

    mask_ratio: float
    mask_unit: int
    radius: float | None
    normalised: bool


def read_objective(checkpoint: Checkpoint) -> Objective:
    """What a checkpoint was trained to do: from our recipe, else from the official trainers' arguments, else published.

    Raises:
        InputError: settings that do not fit the model.

    Source: MAE, ConvMAE and LSMAE mask 0.75, LSMAE in units of 2 x 2 patches; PixMIM's radius is 40. All published
        files were trained on normalised pixels but MAE's mae_visualize_*, which the weights do not tell.
    """
    normalised = checkpoint.normalised_target
    if checkpoint.format == "pixmim-eval":
        recipe = read_settings(dict(checkpoint.settings.get("recipe", {})))
        target, ratio, unit, radius = (recipe[key] for key in ("target", "mask_ratio", "mask_unit", "radius"))
        low_frequency = str(target).startswith("lowfreq")
        normalised = target != "pixels" if normalised is None else normalised
    else:
        given = {name: read_argument(checkpoint.settings, name) for name in ("mask_ratio", "mask_downsampling")}
        ratio = PUBLISHED_RATIO if given["mask_ratio"] is None else given["mask_ratio"]
        unit = given["mask_downsampling"] or PUBLISHED_UNITS.get(checkpoint.format, 1)
        low_frequency, radius = checkpoint.method.startswith("pixmim-"), PUBLISHED_RADIUS
    if normalised is None:
        normalised = "visualize" not in checkpoint.path.stem
        _warn(checkpoint.path.name, "normalised pixels" if normalised else "pixels as they are")
    objective = Objective(ratio, unit, radius if low_frequency else None, normalised)
    _check_objective(objective, checkpoint)
    return objective


@cache
def _warn(name: str, target: str) -> None:
    """Say once what was assumed of a file."""
    logger.warning("%s does not tell its target: taken as %s, as the published file was", name, target)


def _check_objective(objective: Objective, checkpoint: Checkpoint) -> None:
    side, unit, ratio, radius = checkpoint.encoder.grid[0], objective.mask_unit, objective.mask_ratio, objective.radius
    numbers = type(ratio) in (int, float) and type(unit) is int and type(radius) in (int, float, type(None))
    if numbers and unit > 0 and side % unit == 0 and 0 < int((side // unit) ** 2 * (1 - ratio)) < (side // unit) ** 2:
        return
    raise InputError(
        "training settings of a checkpoint",
        expected=f"a mask ratio and a mask unit that fit {side} x {side} patches, and a radius",
        found=str(objective),
        where=str(checkpoint.path),
        fix="Make the file again.",
    )


def require_decoder(checkpoint: Checkpoint | None, name: str) -> Checkpoint:
    """The checkpoint, where it has a decoder that can be built.

    Args:
        checkpoint: of the model; None where it has none.
        name: of the model, for the message.

    Raises:
        InputError: no checkpoint, an encoder-only one, MFF's decoder, or a number of heads that nothing tells.
    """
    if checkpoint is None:
        raise InputError(
            f"model {name}",
            expected="a pretraining checkpoint with a decoder",
            found="a timm model, which has none",
            where="--model",
            fix="Give such a file: --checkpoint FILE, one of pretrain.run or a public one with its decoder.",
        )
    checkpoint.require_decoder()
    if checkpoint.decoder_heads is not None and not checkpoint.method.startswith("mff"):
        return checkpoint
    fused = checkpoint.method.startswith("mff")
    raise InputError(
        "decoder of a checkpoint",
        expected="a decoder of the encoder's last tokens" if fused else "a number of attention heads",
        found="MFF's, which reads a fusion of shallow layers" if fused else "nothing that tells it",
        where=str(checkpoint.path),
        fix="Take a file of MAE, ConvMAE, LSMAE or PixMIM, of published size or with its settings in it.",
    )


def load_autoencoder(checkpoint: Checkpoint) -> MaskedAutoencoder:
    """The masked autoencoder of a checkpoint: its encoder itself, and its decoder, in eval mode.

    Sizes are read off the shapes, the decoder's heads off the recipe or the published size.

    Raises:
        InputError: as require_decoder and read_objective, or a decoder that is incomplete or does not fit.
    """
    tensors: Any = require_decoder(checkpoint, checkpoint.method).decoder
    objective = read_objective(checkpoint)
    depth = len({key.split(".")[1] for key in tensors if key.startswith("decoder_blocks.")})
    with torch.device("meta"):  # no time lost on random weights that are replaced at once
        model = MaskedAutoencoder(
            checkpoint.image_size,
            checkpoint.architecture,
            (tensors["mask_token"].shape[-1], depth, checkpoint.decoder_heads or 1),
            mask_ratio=objective.mask_ratio,
            mask_unit=objective.mask_unit,
            low_frequency=None if objective.radius is None else LowFrequency(objective.radius),
            normalise_target=objective.normalised,
        )
    model.encoder = checkpoint.encoder
    own = {key.removeprefix("decoder_"): value for key, value in tensors.items()}
    fill(model.decoder, own, checkpoint.path, f"a decoder of {checkpoint.architecture}", list(checkpoint.keys))
    for module in model.decoder.modules():  # transformers has one eps for both parts
        if isinstance(module, nn.LayerNorm):
            module.eps = checkpoint.encoder.norm.eps
    return model.eval()
