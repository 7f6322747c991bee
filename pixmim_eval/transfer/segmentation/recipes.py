"""What can be set of training UperNet, and the published settings."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from pixmim_eval.devices import Precision
from pixmim_eval.transfer.settings import PRECISION, Rule, check_rules, list_rules, say


@dataclass(frozen=True)
class UperNetRecipe:
    """Every setting of a training; the defaults are those published for MAE's ViT-B on ADE20K.

    Source: implus/mae_segmentation, to which PixMIM's README points (48.15 mIoU with MAE's 1600 epochs), and
        mmsegmentation, whose parts it uses. ConvMAE's: its own code, SEG/configs.
    """

    crop: int = say(512, "pixels a side of training crops and of test windows; 0 for the model's own input size")
    iterations: int = say(160_000, "optimizer steps")
    train_batch_size: int = say(16, "images an optimizer step, over all processes")
    accumulate: int = say(1, "micro-batches a step on each process; batch norms see one at a time")
    learning_rate: float = say(1e-4, "of AdamW, at its peak")
    weight_decay: float = say(0.05, "of matrices and tokens; none of vectors")
    layer_decay: float = say(0.65, "learning rate of a layer over that of the next; 1 for none")
    drop_path: float = say(0.1, "chance that an image skips a branch of the last block; linear in depth from 0")
    warmup_iterations: int = say(1500, "linear from 0")
    power: float = say(1.0, "of the polynomial decay of the learning rate to 0")
    channels: int = say(768, "width of UperNet's head")
    auxiliary_channels: int = say(256, "width of the auxiliary FCN head")
    auxiliary_weight: float = say(0.4, "of the auxiliary head's loss; 0 for no such head")
    dropout: float = say(0.1, "chance that an image lacks a channel before a classifier")
    least_scale: float = say(0.5, "least short side of an image before its crop, in crops")
    most_scale: float = say(2.0, "greatest short side of an image before its crop, in crops")
    most_of_a_class: float = say(0.75, "share of a crop above which one class lets it be drawn again; 1 for never")
    distort: bool = say(True, "change brightness, contrast, saturation and hue at random")
    layer_scale: bool = say(True, "a learned factor, from 1, on every channel of every residual branch")
    relative_positions: bool = say(True, "a learned bias of attention, from 0, for every step between patches")
    inference: Literal["slide", "whole"] = say("slide", "average over windows, or the whole image at once")
    stride: int = say(341, "pixels between windows; 0 for two thirds of the crop")
    precision: Precision = field(default="auto", metadata=PRECISION)


RECIPES = {
    "published": UperNetRecipe(),
    "published-convmae": UperNetRecipe(layer_decay=0.75, drop_path=0.2),
    # A narrow head at the model's own size, for minutes: hundreds to thousands of images on one machine.
    "short": UperNetRecipe(
        crop=0,
        iterations=1000,
        learning_rate=1e-3,
        warmup_iterations=50,
        drop_path=0.0,
        channels=96,
        auxiliary_channels=48,
        dropout=0.0,
        least_scale=0.75,
        most_scale=1.5,
        stride=0,
    ),
}


def resolve_sizes(recipe: UperNetRecipe, size: int, patch: int) -> UperNetRecipe:
    """The recipe with crop and stride in pixels, for a model that takes images of `size`.

    Raises:
        InputError: a number out of range, a crop that is no multiple of the patch, or relative positions together with
            images of any size.
    """
    crop, least = recipe.crop or size, max(32, 2 * patch)
    recipe = replace(recipe, crop=crop, stride=recipe.stride or max(1, crop * 2 // 3))
    rules = [
        Rule("crop", f"a multiple of the patch, {patch}", crop % patch == 0),
        Rule("crop", f"at least {least}, so that a map of a 32nd of it is left", crop >= least),
        Rule("stride", f"1 to the crop, {crop}", 0 < recipe.stride <= crop),
        *list_rules(
            recipe,
            counts=("iterations", "accumulate", "channels", "auxiliary_channels"),
            natural=("weight_decay", "warmup_iterations", "power", "auxiliary_weight"),
            positive=("learning_rate", "layer_decay", "least_scale", "most_of_a_class"),
            below_one=("drop_path", "dropout"),
        ),
        Rule("layer_decay", "at most 1", recipe.layer_decay <= 1),
        Rule("most_scale", "at least --least-scale, and finite", recipe.least_scale <= recipe.most_scale < math.inf),
        Rule(
            "inference",
            "slide with relative positions, whose table is for windows of one size",
            recipe.inference == "slide" or not recipe.relative_positions,
        ),
    ]
    check_rules("UperNet", recipe, rules)
    return recipe
