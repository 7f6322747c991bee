"""Published and small pretraining settings, by name. Every field is a flag of `python -m pretrain.run`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Literal

from pixmim_eval.data.crops import CenterCrop, Crop, RandomResizedCrop, SimpleResizedCrop
from pixmim_eval.devices import Precision
from pixmim_eval.errors import InputError


@dataclass(frozen=True)
class Recipe:
    """All settings of a pretraining run.

    Args:
        method: name in pretrain.methods.METHODS.
        image_size, patch: pixels a side.
        dim, depth, heads: of the encoder.
        decoder_dim, decoder_depth, decoder_heads: of the decoder.
        mask_ratio: share of patches masked.
        normalise_target: per-patch normalised pixels as target, else pixels.
        radius: low-pass of the target in frequency bins (cycles per image); 0 keeps all frequencies.
        crop: "rrc" (random resized crop), "src" (simple resized crop) or "cc" (centre crop).
        crop_scale_min: least area of a random resized crop.
        epochs: passes over the data.
        batch_size: images an optimizer step, over all devices and accumulated micro-batches.
        accumulate: micro-batches a step.
        base_lr: learning rate = base_lr * batch_size / 256.
        min_lr: absolute, at the end of the cosine.
        warmup_epochs: linear from 0.
        weight_decay: AdamW's; biases and norms are exempt.
        decay_tokens: decay class and mask token too (official MAE does, mmselfsup does not).
        beta1, beta2: AdamW's.
        precision: "auto", "fp32", "bf16" or "fp16".
        compile: torch.compile.
        seed: of everything random.
        save_every: epochs between checkpoints.
        save_dtype: type of the numbers in checkpoints, "float32" or "float16" (half the size; state.pt stays exact).
        draw_every: epochs between reconstruction pictures; 0 for none.
        state_minutes: minutes between full training states.
        in_memory: keep images decoded in memory, on the GPU where there is one: "auto" (when they fit), "yes", "no".
        workers: processes that decode images which are not kept in memory.
    """

    method: str = "mae"
    image_size: int = 224
    patch: int = 16
    dim: int = 768
    depth: int = 12
    heads: int = 12
    decoder_dim: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16
    mask_ratio: float = 0.75
    normalise_target: bool = True
    radius: float = 0.0
    crop: Literal["rrc", "src", "cc"] = "rrc"
    crop_scale_min: float = 0.2
    epochs: int = 800
    batch_size: int = 4096
    accumulate: int = 1
    base_lr: float = 1.5e-4
    min_lr: float = 0.0
    warmup_epochs: float = 40.0
    weight_decay: float = 0.05
    decay_tokens: bool = True
    beta1: float = 0.9
    beta2: float = 0.95
    precision: Precision = "auto"
    compile: bool = False
    seed: int = 0
    save_every: int = 20
    save_dtype: Literal["float32", "float16"] = "float32"
    draw_every: int = 100
    state_minutes: float = 10.0
    in_memory: Literal["auto", "yes", "no"] = "auto"
    workers: int = 10


# What turns any method into its PixMIM version: a low-frequency target and a conservative crop.
# Source: PixMIM (arXiv 2303.02416) and its released configuration, which also exempts the tokens from weight decay.
# Differs: the released configuration warms up from 1e-4 (300 epochs) or 1e-9 (800) of the peak instead of 0, and
# resizes bilinearly (see SimpleResizedCrop).
PIXMIM: dict[str, Any] = {"radius": 40.0, "crop": "src", "decay_tokens": False}

MAE_B16 = Recipe()
MAE_L16 = replace(MAE_B16, dim=1024, depth=24, heads=16)
MAE_H14 = replace(MAE_B16, patch=14, dim=1280, depth=32, heads=16)

# Small enough to train on two CPU cores. At 64 px the published radius of 40 lies above the Nyquist limit of 32 and
# would change almost nothing; 40 / 112 of Nyquist, the same share of the band as at 224 px, is 11.4 bins.
SMALL_RADIUS = 40 * 64 / 224
MAE_64 = Recipe(
    image_size=64,
    patch=8,
    dim=96,
    depth=4,
    heads=3,
    decoder_dim=64,
    decoder_depth=1,
    decoder_heads=2,
    epochs=24,
    batch_size=64,
    base_lr=4e-3,
    warmup_epochs=1.0,
    save_every=4,
    draw_every=8,
    workers=2,
)

RECIPES: dict[str, Recipe] = {
    "mae-vit-b16": MAE_B16,
    "mae-vit-l16": MAE_L16,
    "mae-vit-h14": MAE_H14,
    "pixmim-mae-vit-b16": replace(MAE_B16, **PIXMIM),
    "pixmim-mae-vit-l16": replace(MAE_L16, **PIXMIM),
    "mae-64px": MAE_64,
    "pixmim-mae-64px": replace(MAE_64, **{**PIXMIM, "radius": round(SMALL_RADIUS, 2)}),
}


def get_recipe(name: str) -> Recipe:
    """A recipe by name.

    Raises:
        InputError: unknown name; close matches are named.
    """
    if name not in RECIPES:
        near = get_close_matches(name, RECIPES, n=3, cutoff=0.4)
        raise InputError(
            "recipe",
            expected=f"one of {', '.join(RECIPES)}",
            found=repr(name),
            where="--recipe",
            fix=f"Did you mean {', '.join(near)}?" if near else "Take one of these, and change its fields by flags.",
        )
    return RECIPES[name]


def check_recipe(recipe: Recipe) -> None:
    """Whether a recipe's numbers make sense together.

    Raises:
        InputError: naming the first that does not.
    """
    patches = (recipe.image_size // recipe.patch) ** 2
    visible = int(patches * (1 - recipe.mask_ratio))
    rules = {
        "epochs": (recipe.epochs >= 1, "at least 1"),
        "batch_size": (recipe.batch_size >= 1, "at least 1"),
        "accumulate": (recipe.accumulate >= 1, "at least 1"),
        "save_every": (recipe.save_every >= 1, "at least 1"),
        "draw_every": (recipe.draw_every >= 0, "0 for no pictures, or more"),
        "mask_ratio": (0 < visible < patches, f"a share that leaves 1 to {patches - 1} of {patches} patches visible"),
        "decoder_depth": (recipe.decoder_depth >= 1, "at least 1"),
        "decoder_dim": (
            recipe.decoder_dim % 4 == 0 and recipe.decoder_dim % recipe.decoder_heads == 0,
            f"a multiple of 4 and of the {recipe.decoder_heads} heads",
        ),
        "crop_scale_min": (0 < recipe.crop_scale_min <= 1, "a share of the area in (0, 1]"),
    }
    for field, (holds, expected) in rules.items():
        if not holds:
            raise InputError(
                "recipe",
                expected=f"{field} {expected}",
                found=str(getattr(recipe, field)),
                where="--" + field.replace("_", "-"),
                fix="Leave the flag out for the recipe's own value.",
            )


def build_crop(recipe: Recipe) -> Crop:
    """The recipe's crop; "src" pads by 4 pixels as published, "cc" cuts the centre of the resized image."""
    if recipe.crop == "rrc":
        return RandomResizedCrop(recipe.image_size, scale=(recipe.crop_scale_min, 1.0))
    return SimpleResizedCrop(recipe.image_size) if recipe.crop == "src" else CenterCrop(recipe.image_size)


def describe_method(recipe: Recipe) -> str:
    """The name that goes on checkpoints and rows: "mae", "pixmim-mae" (low-frequency target and SRC), or the parts
    that differ from the method's own, e.g. "mae+low-frequency", "mae+src"."""
    if recipe.radius and recipe.crop == "src":
        return f"pixmim-{recipe.method}"
    parts = [recipe.method, "low-frequency" if recipe.radius else "", recipe.crop if recipe.crop != "rrc" else ""]
    return "+".join(part for part in parts if part)
