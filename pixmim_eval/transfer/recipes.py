"""What can be set of fine-tuning, and the published settings."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, make_dataclass
from typing import Any, Literal

from pixmim_eval.devices import Precision
from pixmim_eval.transfer.settings import PRECISION, Rule, check_rules, fill_recipe, list_options, say


@dataclass(frozen=True)
class FinetuneRecipe:
    """Every setting of a fine-tuning; the defaults are MAE's for ViT-B.

    Source: MAE, official code, main_finetune.py and FINETUNE.md. ConvMAE's are the same as for ViT-B.
    """

    epochs: int = say(100, "passes over the training set")
    train_batch_size: int = say(1024, "images an optimizer step, over all processes")
    micro_batch: int = say(128, "at most so many images at a time on each process; changes no result")
    base_lr: float = say(5e-4, "learning rate for 256 images")
    min_lr: float = say(1e-6, "learning rate at the end")
    warmup_epochs: float = say(5.0, "linear from 0")
    weight_decay: float = say(0.05, "of matrices; none of vectors, class token and positions")
    layer_decay: float = say(0.65, "learning rate of a layer over that of the next; 1 for none")
    drop_path: float = say(0.1, "chance that an image skips a branch of the last block; linear in depth from 0")
    pooling: Literal["mean", "cls"] = say("mean", "mean of the patch tokens with a norm of its own, or class token")
    crop_scale: float = say(0.08, "least area of a crop, as a fraction of the image's")
    rand_augment: str = say("rand-m9-mstd0.5-inc1", "RandAugment in timm's notation; 'none' for none")
    random_erasing: float = say(0.25, "chance that a rectangle becomes noise")
    mixup: float = say(0.8, "alpha of mixup; 0 for none")
    cutmix: float = say(1.0, "alpha of CutMix; 0 for none")
    mixup_switch_prob: float = say(0.5, "chance of CutMix where there is mixup too")
    mix_images: int = say(32, "images that are mixed in one way, as one GPU of the published runs had")
    label_smoothing: float = say(0.1, "share of the target that all classes share")
    ema: float = say(0.0, "decay of an average of the weights, which is scored too; 0 for none")
    precision: Precision = field(default="auto", metadata=PRECISION)


RECIPES = {
    "mae-b": FinetuneRecipe(),
    "mae-l": FinetuneRecipe(base_lr=1e-3, layer_decay=0.75, drop_path=0.2, epochs=50),
    "mae-h": FinetuneRecipe(base_lr=1e-3, layer_decay=0.75, drop_path=0.3, epochs=50),
    # For thousands of small images and minutes: the peak rate of mae-b at an eighth of its batch, and gentle
    # augmentation, as little would be learnt from much of it so soon.
    "short": FinetuneRecipe(
        epochs=20,
        train_batch_size=128,
        base_lr=4e-3,
        warmup_epochs=2.0,
        layer_decay=0.75,
        drop_path=0.0,
        crop_scale=0.35,
        random_erasing=0.0,
        mixup=0.0,
        cutmix=0.0,
    ),
}

_POLICY = re.compile(r"none|rand(-(m|n|p|mstd|mmax|inc)\d+(\.\d+)?)*")
_Range = tuple[Callable[[Any], bool], str]
_COUNT: _Range = (lambda value: value >= 1, "a whole number from 1 on")
_POSITIVE: _Range = (lambda value: value > 0, "a number above 0")
_NATURAL: _Range = (lambda value: value >= 0, "a number from 0 on")
_SHARE: _Range = (lambda value: 0 <= value <= 1, "a number from 0 to 1")
_PART: _Range = (lambda value: 0 < value <= 1, "a number above 0 and at most 1")
_BELOW_ONE: _Range = (lambda value: 0 <= value < 1, "a number from 0 on and below 1")
_RANGES: dict[str, _Range] = {
    **dict.fromkeys(("epochs", "train_batch_size", "micro_batch"), _COUNT),
    **dict.fromkeys(("base_lr",), _POSITIVE),
    **dict.fromkeys(("min_lr", "warmup_epochs", "weight_decay", "mixup", "cutmix"), _NATURAL),
    **dict.fromkeys(("random_erasing", "mixup_switch_prob"), _SHARE),
    **dict.fromkeys(("layer_decay", "crop_scale"), _PART),
    **dict.fromkeys(("drop_path", "label_smoothing", "ema"), _BELOW_ONE),
    "mix_images": (lambda value: value >= 2 and value % 2 == 0, "an even number, as images are mixed in pairs"),
    "rand_augment": (
        lambda value: bool(_POLICY.fullmatch(value)),
        f"'none', or timm's notation such as {FinetuneRecipe().rand_augment}",
    ),
}
FinetuneOptions: type[Any] = make_dataclass(
    "FinetuneOptions",
    [
        (
            "recipe",
            Literal["mae-b", "mae-l", "mae-h", "short"],
            say("mae-b", "settings to start from (default mae-b)"),
        ),
        *list_options(FinetuneRecipe),
    ],
    frozen=True,
)


def resolve_recipe(options: Any) -> FinetuneRecipe:
    """The recipe that FinetuneOptions name, with the fields that they give. Raises InputError for what cannot be."""
    recipe = fill_recipe(RECIPES[options.recipe], options)
    ranges = _RANGES.items()
    rules = (Rule(name, expected, is_right(getattr(recipe, name))) for name, (is_right, expected) in ranges)
    check_rules("fine-tuning", recipe, rules)
    return recipe
