"""What can be set of fine-tuning, and the published settings."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields, make_dataclass, replace
from typing import Any, Literal, get_type_hints

from pixmim_eval.devices import Precision
from pixmim_eval.errors import InputError


def _say(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class FinetuneRecipe:
    """Every setting of a fine-tuning; the defaults are MAE's for ViT-B.

    Source: MAE, official code, main_finetune.py and FINETUNE.md. ConvMAE's are the same as for ViT-B.
    """

    epochs: int = _say(100, "passes over the training set")
    train_batch_size: int = _say(1024, "images an optimizer step, over all processes")
    micro_batch: int = _say(128, "at most so many images at a time on each process; changes no result")
    base_lr: float = _say(5e-4, "learning rate for 256 images")
    min_lr: float = _say(1e-6, "learning rate at the end")
    warmup_epochs: float = _say(5.0, "linear from 0")
    weight_decay: float = _say(0.05, "of matrices; none of vectors, class token and positions")
    layer_decay: float = _say(0.65, "learning rate of a layer over that of the next; 1 for none")
    drop_path: float = _say(0.1, "chance that an image skips a branch of the last block; linear in depth from 0")
    pooling: Literal["mean", "cls"] = _say("mean", "mean of the patch tokens with a norm of its own, or class token")
    crop_scale: float = _say(0.08, "least area of a crop, as a fraction of the image's")
    rand_augment: str = _say("rand-m9-mstd0.5-inc1", "RandAugment in timm's notation; 'none' for none")
    random_erasing: float = _say(0.25, "chance that a rectangle becomes noise")
    mixup: float = _say(0.8, "alpha of mixup; 0 for none")
    cutmix: float = _say(1.0, "alpha of CutMix; 0 for none")
    mixup_switch_prob: float = _say(0.5, "chance of CutMix where there is mixup too")
    mix_images: int = _say(32, "images that are mixed in one way, as one GPU of the published runs had")
    label_smoothing: float = _say(0.1, "share of the target that all classes share")
    ema: float = _say(0.0, "decay of an average of the weights, which is scored too; 0 for none")
    precision: Precision = field(
        default="auto", metadata={"help": "of training; auto is bf16 where the device computes in it"}
    )


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
_Rule = tuple[Callable[[Any], bool], str]
_COUNT: _Rule = (lambda value: value >= 1, "a whole number from 1 on")
_POSITIVE: _Rule = (lambda value: value > 0, "a number above 0")
_NATURAL: _Rule = (lambda value: value >= 0, "a number from 0 on")
_SHARE: _Rule = (lambda value: 0 <= value <= 1, "a number from 0 to 1")
_PART: _Rule = (lambda value: 0 < value <= 1, "a number above 0 and at most 1")
_BELOW_ONE: _Rule = (lambda value: 0 <= value < 1, "a number from 0 on and below 1")
_RULES: dict[str, _Rule] = {
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
_KINDS = get_type_hints(FinetuneRecipe)
# The command line's: a recipe by name, and every field of one, which is the recipe's own unless it is given.
FinetuneOptions: type[Any] = make_dataclass(
    "FinetuneOptions",
    [
        (
            "recipe",
            Literal["mae-b", "mae-l", "mae-h", "short"],
            _say("mae-b", "settings to start from (default mae-b)"),
        ),
        *((f.name, _KINDS[f.name] | None, field(default=None, metadata=f.metadata)) for f in fields(FinetuneRecipe)),
    ],
    frozen=True,
)


def resolve_recipe(options: Any) -> FinetuneRecipe:
    """The recipe that FinetuneOptions name, with the fields that they give. Raises InputError as check_recipe."""
    given = {f.name: getattr(options, f.name) for f in fields(FinetuneRecipe)}
    recipe = replace(RECIPES[options.recipe], **{name: value for name, value in given.items() if value is not None})
    check_recipe(recipe)
    return recipe


def check_recipe(recipe: FinetuneRecipe) -> None:
    """Raise InputError for the first field that cannot be."""
    for name, (is_right, expected) in _RULES.items():
        value = getattr(recipe, name)
        if not is_right(value):
            flag = "--" + name.replace("_", "-")
            fix = "Leave it out for the recipe's own."
            raise InputError("recipe of fine-tuning", expected=expected, found=str(value), where=flag, fix=fix)
