"""What every image of shapes16 shows, known without rendering: shape, texture and style of each row."""

from __future__ import annotations

import difflib

import numpy as np
import torch

from pixmim_eval.data.shapes16.shapes import SHAPES
from pixmim_eval.errors import InputError
from pixmim_eval.seeds import derive_seed, uniform

VERSION = 1  # part of every seed and digest: raise it when any pixel changes
VARIANTS = ("train", "val", "cue-conflict", "sketch", "rendition", "hard")
STYLES = ("flat", "poster", "painted", "cartoon")
SHARE = 0.8  # of images whose texture is that of their class
PLAIN = -1  # the texture of what has none

_CLASSES = len(SHAPES)


def check_variant(variant: str) -> None:
    """Raises InputError, with the nearest names, when there is no such variant."""
    if variant not in VARIANTS:
        close = difflib.get_close_matches(variant, VARIANTS, n=3, cutoff=0.4)
        raise InputError(
            "variant of shapes16",
            expected="one of " + ", ".join(VARIANTS),
            found=repr(variant),
            where="builtin:shapes16:VARIANT",
            fix=f"Did you mean {' or '.join(close)}?" if close else "Choose one of these names.",
        )


def stream_seed(purpose: str, variant: str, seed: int) -> int:
    """Seed of one kind of random numbers of a variant."""
    check_variant(variant)
    return derive_seed("shapes16", VERSION, purpose, variant, seed)


def shapes(rows: np.ndarray, variant: str, seed: int) -> np.ndarray:
    """Labels of rows, without rendering: every 16 rows from a multiple of 16 hold each shape once, in a random order.

    Args:
        rows: int64 [n], from 0.
        variant: one of VARIANTS.
        seed: of the data set.

    Returns:
        int64 [n], indices into SHAPES.
    """
    blocks, inverse = np.unique(np.asarray(rows, dtype=np.int64) // _CLASSES, return_inverse=True)
    draws = uniform(stream_seed("order", variant, seed), torch.from_numpy(blocks), _CLASSES).numpy()
    return np.argsort(draws, axis=1, kind="stable")[inverse, np.asarray(rows) % _CLASSES]


def textures(rows: np.ndarray, variant: str, seed: int) -> np.ndarray:
    """Textures of rows, without rendering.

    With shape s, the texture is s in 80 % of the images and any of the 15 others in the rest; in cue-conflict it is
    always one of the others. A sketch has none, and neither have the flat images of rendition.

    Args and shapes as in `shapes`. Returns int64 [n], indices into TEXTURES, -1 for none.
    """
    draws = uniform(
        stream_seed("texture", variant, seed), torch.from_numpy(np.asarray(rows, dtype=np.int64)), 2
    ).numpy()
    own = shapes(rows, variant, seed)
    other = (own + 1 + (draws[:, 1] * (_CLASSES - 1)).astype(np.int64)) % _CLASSES
    found = np.where((draws[:, 0] < SHARE) & (variant != "cue-conflict"), own, other)
    if variant == "sketch":
        return np.full_like(found, PLAIN)
    if variant == "rendition":
        return np.where(styles(rows, seed) == STYLES.index("flat"), PLAIN, found)
    return found


def styles(rows: np.ndarray, seed: int) -> np.ndarray:
    """Styles of the rows of rendition: int64 [n], indices into STYLES."""
    draws = uniform(
        stream_seed("style", "rendition", seed), torch.from_numpy(np.asarray(rows, dtype=np.int64)), 1
    ).numpy()
    return (draws[:, 0] * len(STYLES)).astype(np.int64)
