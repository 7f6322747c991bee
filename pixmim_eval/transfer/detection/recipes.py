"""What can be set of training Mask R-CNN, and the published settings."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, make_dataclass, replace
from typing import Any, Literal

from pixmim_eval.devices import Precision
from pixmim_eval.transfer.settings import PRECISION, Rule, check_rules, fill_recipe, list_options, list_rules, say


@dataclass(frozen=True)
class DetectionRecipe:
    """Every setting of a training; the defaults are ViTDet's for ViT-B.

    Source: ViTDet (arXiv 2203.16527) and detectron2, projects/ViTDet and configs/common. What is not here is as there:
        three anchors of 8 strides a place, 256 of them trained on an image, thresholds 0.7 and 0.3 for anchors and 0.5
        for regions, suppression at 0.7 and 0.5, 100 detections an image.
    """

    image_size: int = say(1024, "pixels a side of crops and test images; 0 for the model's own input size")
    iterations: int = say(184_375, "optimizer steps")
    train_batch_size: int = say(64, "images an optimizer step, over all processes")
    accumulate: int = say(1, "micro-batches a step on each process; changes no result")
    learning_rate: float = say(1e-4, "of AdamW, at its peak")
    schedule: Literal["steps", "cosine"] = say("steps", "a tenth after 8/9 and 26/27 of the training, or half a cosine")
    warmup_iterations: int = say(250, "linear from 0")
    weight_decay: float = say(0.1, "of all weights but positions and the encoder's norms")
    layer_decay: float = say(0.7, "learning rate of a layer over that of the next; 1 for none")
    drop_path: float = say(0.1, "chance that an image skips a branch of the last block; linear in depth from 0")
    least_scale: float = say(0.1, "least long side of an image before its crop, in crops")
    most_scale: float = say(2.0, "greatest long side of an image before its crop, in crops")
    window: int = say(14, "patches a side of the windows that attention is kept to; 0 for global attention alone")
    global_blocks: tuple[int, ...] = say((), "blocks, from 0, with global attention (default the last of each quarter)")
    relative_positions: bool = say(True, "a learned bias of attention, from 0, for every step between patches")
    pyramid: Literal["auto", "simple", "stages"] = say(
        "auto", "simple feature pyramid on the last map, or FPN on the stages; auto is stages where there are some"
    )
    channels: int = say(256, "width of pyramid and heads")
    box_width: int = say(1024, "width of the layer that boxes are read from")
    proposals: int = say(1000, "regions an image that are looked at")
    roi_samples: int = say(512, "regions an image that heads are trained on")
    least_score: float = say(0.05, "below which a detection is dropped")
    precision: Precision = field(default="auto", metadata=PRECISION)


_CONVMAE = DetectionRecipe(
    iterations=92_187,
    train_batch_size=32,
    learning_rate=8e-5,
    schedule="cosine",
    warmup_iterations=461,
    layer_decay=1.0,
    window=16,
    global_blocks=(0, 3, 6, 10),
    pyramid="stages",
)
RECIPES = {
    "vitdet-b": DetectionRecipe(),
    "vitdet-l": DetectionRecipe(layer_decay=0.8, drop_path=0.4),
    # ConvMAE's own code, DET/configs of 25 epochs. Its global blocks are those that it computes, not those that it
    # lists (0, 4, 8 and 10) and never reads. Differs: layer norms where it has batch norms over all GPUs; relative
    # positions as ViTDet has them, where it has one table of biases for all windows and one for all global blocks;
    # positions are trained, where it keeps them.
    "convmae-b": _CONVMAE,
    # OpenGVLab/Official-ConvMAE-Det, 25 epochs: ViTDet's parts on the last map.
    "convmae-vitdet-b": DetectionRecipe(train_batch_size=16, layer_decay=0.8, pyramid="simple"),
    # Narrow heads at the model's own size, for minutes: hundreds to thousands of small images on one machine.
    "short": DetectionRecipe(
        image_size=0,
        iterations=1000,
        train_batch_size=16,
        learning_rate=5e-4,
        warmup_iterations=50,
        weight_decay=0.05,
        layer_decay=0.8,
        drop_path=0.0,
        least_scale=0.75,
        most_scale=1.5,
        channels=32,
        box_width=128,
        proposals=200,
        roi_samples=32,
    ),
}

DetectionOptions: type[Any] = make_dataclass(
    "DetectionOptions",
    [
        (
            "recipe",
            Literal["vitdet-b", "vitdet-l", "convmae-b", "convmae-vitdet-b", "short"],
            say("short", "settings to start from (default short); the others are COCO's, for a cluster"),
        ),
        *list_options(DetectionRecipe),
    ],
    frozen=True,
)


def resolve_recipe(options: Any, *, size: int, patch: int, depth: int) -> DetectionRecipe:
    """The recipe that DetectionOptions name, with the fields that they give, for one encoder.

    Args:
        options: DetectionOptions.
        size: of the images that the model takes.
        patch: side of its patches in pixels.
        depth: number of its transformer blocks.

    Raises:
        InputError: a number out of range, or images that the pyramid cannot halve.
    """
    recipe = fill_recipe(RECIPES[options.recipe], options)
    chosen = recipe.global_blocks or choose_global_blocks(depth)
    recipe = replace(recipe, image_size=recipe.image_size or size, global_blocks=chosen)
    check_rules("Mask R-CNN", recipe, _list_rules(recipe, 2 * patch, depth))
    return recipe


def _list_rules(recipe: DetectionRecipe, side: int, depth: int) -> list[Rule]:
    return [
        *list_rules(
            recipe,
            counts=("iterations", "train_batch_size", "accumulate", "channels", "box_width", "proposals"),
            natural=("weight_decay", "warmup_iterations", "window"),
            positive=("learning_rate", "layer_decay", "least_scale"),
            below_one=("drop_path", "least_score"),
        ),
        Rule("layer_decay", "at most 1", recipe.layer_decay <= 1),
        Rule("most_scale", "at least --least-scale, and finite", recipe.least_scale <= recipe.most_scale < math.inf),
        Rule("roi_samples", "at least 4", recipe.roi_samples >= 4),
        Rule("image_size", f"a multiple of {side}", recipe.image_size > 0 and recipe.image_size % side == 0),
        Rule("global_blocks", f"0 to {depth - 1}", all(0 <= block < depth for block in recipe.global_blocks)),
    ]


def choose_global_blocks(depth: int) -> tuple[int, ...]:
    """The last block of each quarter: 2, 5, 8, 11 of 12."""
    return tuple(block for block in (depth * quarter // 4 - 1 for quarter in (1, 2, 3, 4)) if block >= 0)
