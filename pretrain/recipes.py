"""Published and small pretraining settings, by name. Every field is a flag of `python -m pretrain.run`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from typing import Any, Literal

from pixmim_eval.data.crops import CenterCrop, Crop, RandomResizedCrop, SimpleResizedCrop
from pixmim_eval.devices import Precision
from pixmim_eval.errors import InputError


@dataclass(frozen=True)
class Recipe:
    """All settings of a pretraining run.

    Args:
        method: name in pretrain.methods.METHODS, or in SUPERVISED_METHODS: those learn from labels, mask nothing and
            have no decoder.
        image_size, patch: pixels a side.
        dim, depth, heads: of the encoder; in ConvMAE, of its last stage.
        stage1_dim, stage1_depth, stage2_dim, stage2_depth: of ConvMAE's convolution stages; other methods have none.
        decoder_dim, decoder_depth, decoder_heads: of the decoder.
        mask_ratio: share of patches masked.
        mask_unit: patches a side of what is masked as a whole.
        target: "pixels", "normalised" (each patch less its mean, over its deviation) or "lowfreq" (the same of the
            image's low frequencies).
        radius: of the low-frequency target, in frequency bins (cycles per image); other targets do not read it.
        crop: "rrc" (random resized crop), "src" (simple resized crop) or "cc" (centre crop).
        crop_scale_min: least area of a random resized crop.
        epochs: passes over the data.
        batch_size: images an optimizer step, over all devices and accumulated micro-batches.
        accumulate: micro-batches a step.
        drop_path: probability that an image skips a residual branch; supervised methods only.
        base_lr: learning rate = base_lr * batch_size / 256.
        min_lr: absolute, at the end of the cosine.
        warmup_epochs: linear from 0.
        weight_decay: AdamW's, LAMB's in supervised methods; biases and norms are exempt.
        decay_tokens: decay class and mask token too (official MAE does, mmselfsup does not).
        beta1, beta2: of the optimiser.
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
    stage1_dim: int = 256
    stage1_depth: int = 2
    stage2_dim: int = 384
    stage2_depth: int = 2
    decoder_dim: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16
    mask_ratio: float = 0.75
    mask_unit: int = 1
    target: Literal["pixels", "normalised", "lowfreq"] = "normalised"
    radius: float = 40.0
    crop: Literal["rrc", "src", "cc"] = "rrc"
    crop_scale_min: float = 0.2
    epochs: int = 800
    batch_size: int = 4096
    accumulate: int = 1
    drop_path: float = 0.0
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


SUPERVISED = ("deit3",)  # methods that learn from labels
# Fields that mean nothing to them.
MASKED_FIELDS = (
    *("stage1_dim", "stage1_depth", "stage2_dim", "stage2_depth", "decoder_dim", "decoder_depth", "decoder_heads"),
    *("mask_ratio", "mask_unit", "target", "radius"),
)

# What turns any method into its PixMIM version: a low-frequency target and a crop that keeps most of the object.
# Source: PixMIM (arXiv 2303.02416) and its released configuration, which also exempts the tokens from weight decay.
# Differs: the released configuration warms up from 1e-4 (300 epochs) or 1e-9 (800) of the peak instead of 0, and
# resizes bilinearly (see SimpleResizedCrop). Of the radius at 448 px nothing is published: it stays 40 cycles an image.
PIXMIM: dict[str, Any] = {"target": "lowfreq", "crop": "src", "decay_tokens": False}

MAE_B16 = Recipe()
MAE_L16 = replace(MAE_B16, dim=1024, depth=24, heads=16)
MAE_H14 = replace(MAE_B16, patch=14, dim=1280, depth=32, heads=16)

LSMAE_B16 = replace(MAE_B16, method="lsmae", image_size=448, mask_unit=2, decoder_dim=384, decoder_heads=12)
LSMAE_L16 = replace(LSMAE_B16, dim=1024, depth=24, heads=16, decoder_dim=512, decoder_heads=16)

CONVMAE_B16 = replace(MAE_B16, method="convmae", depth=11, epochs=1600, batch_size=3072)

# Source: DeiT III (arXiv 2204.07118), README_revenge.md of its code: S is trained at 224 px with a rate of 4e-3; B at
# 192 px with 3e-3, and then, which is left out here, for 20 epochs at 224 px. The published rates are not scaled by the
# batch: they are given at its published size. LAMB's beta2 is apex's own.
DEIT3_S16 = Recipe(
    method="deit3",
    dim=384,
    heads=6,
    crop_scale_min=0.08,
    batch_size=2048,
    drop_path=0.05,
    base_lr=4e-3 / 8,
    min_lr=1e-5,
    warmup_epochs=5.0,
    decay_tokens=False,
    beta2=0.999,
    draw_every=0,
)
DEIT3_B16 = replace(DEIT3_S16, image_size=192, dim=768, heads=12, drop_path=0.2, base_lr=3e-3 / 8)

# Small enough to train on two CPU cores.
_AT_64_PX: dict[str, Any] = {
    "image_size": 64,
    "patch": 8,
    "dim": 96,
    "depth": 4,
    "heads": 3,
    "epochs": 24,
    "batch_size": 64,
    "warmup_epochs": 1.0,
    "save_every": 4,
    "workers": 2,
}
# At 64 px the published radius of 40 lies above the Nyquist limit of 32 and would change almost nothing; 40 / 112 of
# Nyquist, the same share of the band as at 224 px, is 11.4 bins.
MAE_64 = Recipe(**_AT_64_PX, radius=11.43, decoder_dim=64, decoder_depth=1, decoder_heads=2, base_lr=4e-3, draw_every=8)
LSMAE_64 = replace(MAE_64, method="lsmae", patch=4, mask_unit=2)  # 16 x 16 patches, in units as large as MAE_64's patch
# Strides 2/2/2: MAE_64's grid of 8 x 8 at the end, and before it, as published, grids of twice and four times that.
CONVMAE_64 = replace(MAE_64, method="convmae", depth=3, stage1_dim=32, stage1_depth=1, stage2_dim=48, stage2_depth=1)
DEIT3_64 = replace(DEIT3_S16, **_AT_64_PX, drop_path=0.0, base_lr=1.6e-2)

_BASES = {
    "mae-vit-b16": MAE_B16,
    "mae-vit-l16": MAE_L16,
    "mae-vit-h14": MAE_H14,
    "lsmae-vit-b16": LSMAE_B16,
    "lsmae-vit-l16": LSMAE_L16,
    "convmae-vit-b16": CONVMAE_B16,
    "mae-64px": MAE_64,
    "lsmae-64px": LSMAE_64,
    "convmae-64px": CONVMAE_64,
}
_PIXMIM = {f"pixmim-{name}": replace(recipe, **PIXMIM) for name, recipe in _BASES.items()}
_SUPERVISED = {"deit3-vit-s16": DEIT3_S16, "deit3-vit-b16": DEIT3_B16, "deit3-64px": DEIT3_64}
RECIPES = _BASES | _PIXMIM | _SUPERVISED


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
    rules = {
        "epochs": (recipe.epochs >= 1, "at least 1"),
        "batch_size": (recipe.batch_size >= 1, "at least 1"),
        "accumulate": (recipe.accumulate >= 1, "at least 1"),
        "save_every": (recipe.save_every >= 1, "at least 1"),
        "crop_scale_min": (0 < recipe.crop_scale_min <= 1, "a share of the area in (0, 1]"),
        **(_list_supervised_rules(recipe) if recipe.method in SUPERVISED else _list_masked_rules(recipe)),
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


def _list_masked_rules(recipe: Recipe) -> dict[str, tuple[bool, str]]:
    """Field -> whether it is in order, and what is expected of it."""
    unit = recipe.patch * recipe.mask_unit
    units = (recipe.image_size // max(unit, 1)) ** 2
    visible = int(units * (1 - recipe.mask_ratio))
    what = "patches" if recipe.mask_unit == 1 else "mask units"
    return {
        "draw_every": (recipe.draw_every >= 0, "0 for no pictures, or more"),
        "mask_unit": (
            recipe.mask_unit >= 1 and recipe.image_size % unit == 0,
            f"at least 1, such that {recipe.image_size} px are a multiple of a unit of {unit} px",
        ),
        "mask_ratio": (0 < visible < units, f"a share that leaves 1 to {units - 1} of {units} {what} visible"),
        "patch": (recipe.method != "convmae" or recipe.patch % 4 == 0, "a multiple of 4 in ConvMAE, for its stages"),
        "decoder_depth": (recipe.decoder_depth >= 1, "at least 1"),
        "decoder_dim": (
            recipe.decoder_dim % 4 == 0 and recipe.decoder_dim % recipe.decoder_heads == 0,
            f"a multiple of 4 and of the {recipe.decoder_heads} heads",
        ),
        "drop_path": (recipe.drop_path == 0, f"0 in {recipe.method}, whose branches are never skipped"),
    }


def _list_supervised_rules(recipe: Recipe) -> dict[str, tuple[bool, str]]:
    """Field -> whether it is in order, and what is expected of it."""
    defaults = asdict(Recipe())
    alone = f"left alone: {recipe.method} masks and predicts nothing"
    return {
        **{field: (getattr(recipe, field) == defaults[field], alone) for field in MASKED_FIELDS},
        "draw_every": (recipe.draw_every == 0, f"0: {recipe.method} has nothing to draw"),
        "patch": (recipe.image_size % recipe.patch == 0, f"a divisor of {recipe.image_size} px"),
        "dim": (
            recipe.dim % 4 == 0 and recipe.dim % recipe.heads == 0,
            f"a multiple of 4 and of the {recipe.heads} heads",
        ),
        "drop_path": (0 <= recipe.drop_path < 1, "a probability in [0, 1)"),
    }


def build_crop(recipe: Recipe) -> Crop:
    """The recipe's crop; "src" pads by 4 pixels as published, "cc" cuts the centre of the resized image."""
    if recipe.crop == "rrc":
        return RandomResizedCrop(recipe.image_size, scale=(recipe.crop_scale_min, 1.0))
    return SimpleResizedCrop(recipe.image_size) if recipe.crop == "src" else CenterCrop(recipe.image_size)


def describe_method(recipe: Recipe) -> str:
    """The name that goes on checkpoints and rows: "mae", "pixmim-mae" (low-frequency target and SRC), or the parts
    that differ from the method's own, e.g. "mae+low-frequency", "mae+src"."""
    if recipe.target == "lowfreq" and recipe.crop == "src":
        return f"pixmim-{recipe.method}"
    target = {"pixels": "pixels", "normalised": "", "lowfreq": "low-frequency"}[recipe.target]
    parts = [recipe.method, target, recipe.crop if recipe.crop != "rrc" else ""]
    return "+".join(part for part in parts if part)


def read_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of an earlier recipe.json in today's terms: fields that it lacks have their defaults, and the two
    fields that told the target before there was one (normalise_target, radius 0 for none) become one."""
    settings = dict(settings)
    if "target" not in settings:
        normalised = settings.pop("normalise_target", True)
        if settings.get("radius"):
            settings["target"] = "lowfreq" if normalised else "lowfreq, not normalised"
        else:
            settings["target"] = "normalised" if normalised else "pixels"
    return asdict(Recipe()) | settings
