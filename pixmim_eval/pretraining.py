"""How a checkpoint was pretrained, in the few words that ablations are sorted by."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from math import isfinite
from typing import Any

CROPS = ("rrc", "src", "cc")
TARGETS = ("pixels", "normalised", "lowfreq")
TOLD = ("crop", "data_side", "image_size", "radius", "seed", "target", "normalise_target")  # by name
# What a training's result does not depend on, beyond the order in which numbers are added.
_INDIFFERENT = (
    *("accumulate", "compile", "in_memory", "workers"),
    *("draw_every", "save_every", "save_dtype", "state_minutes"),
)


def describe_pretraining(settings: Mapping[str, Any]) -> str:
    """What a checkpoint tells of its crop, sizes, target, radius and seed, as ResultRow.pretraining wants it.

    Args:
        settings: see models.checkpoints.Checkpoint; only "recipe", which pretrain.run writes, is read.

    Returns:
        E.g. "crop=src;data_side=500;image_size=224;others=1f0c4e2a;radius=40;seed=0;target=lowfreq": the radius of a
        low-frequency target alone, and no target of a method that has labels in its place. `data_side` is the usual
        short side of the images trained on, in pixels; `others` are 8 hex digits of all other settings, the same where
        two trainings differ in nothing else. What the file does not tell, or tells in no words of ours, is left out; ""
        of files that are not ours.
    """
    recipe = settings.get("recipe")
    if not isinstance(recipe, Mapping):
        return ""
    target, radius = _read_target(recipe), recipe.get("radius")
    side = recipe.get("data_side")
    has_radius = target == "lowfreq" and isinstance(radius, int | float) and isfinite(radius)
    found: dict[str, Any] = {
        "crop": recipe.get("crop") if recipe.get("crop") in CROPS else None,
        "data_side": side if type(side) is int and side > 0 else None,
        "image_size": recipe.get("image_size") if type(recipe.get("image_size")) is int else None,
        "others": _hash_others(recipe),
        "radius": f"{radius:g}" if has_radius else None,
        "seed": recipe.get("seed") if type(recipe.get("seed")) is int else None,
        "target": target,
    }
    return ";".join(f"{key}={value}" for key, value in found.items() if value is not None)


def _read_target(recipe: Mapping[str, Any]) -> str | None:
    """The target, also of recipes from before there was a field of that name; None where it is none of ours."""
    if "target" in recipe:
        return recipe["target"] if recipe["target"] in TARGETS else None
    normalised = recipe.get("normalise_target")
    if not isinstance(normalised, bool):
        return None
    if recipe.get("radius"):
        return "lowfreq" if normalised else None
    return "normalised" if normalised else "pixels"


def _hash_others(recipe: Mapping[str, Any]) -> str:
    told = sorted(f"{key}={value!r}" for key, value in recipe.items() if key not in (*TOLD, *_INDIFFERENT))
    return hashlib.blake2b(repr(told).encode(), digest_size=4).hexdigest()
