"""Images of coloured blocks whose masks are known."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pixmim_eval.data.segmentation import IGNORED, SegmentationSet
from pixmim_eval.data.sources.assemble import NO_LABELS
from pixmim_eval.errors import BadImageError
from pixmim_eval.types import Manifest

NAMES = ("blue", "green", "red")


@dataclass(frozen=True)
class Arrays:
    """Arrays in memory; rows in `bad` cannot be decoded."""

    values: tuple[np.ndarray, ...]
    bad: tuple[int, ...] = ()

    def read(self, rows: Sequence[int]) -> list[np.ndarray]:
        for row in rows:
            if row in self.bad:
                raise BadImageError("image", expected="sound", found="damage", where=f"image-{row}", fix="None.")
        return [self.values[row] for row in rows]


def make_set(
    count: int,
    *,
    height: int = 24,
    width: int = 40,
    seed: int = 0,
    hidden: bool = False,
    bad: tuple[int, ...] = (),
    name: str = "blocks",
) -> SegmentationSet:
    """Noise of which one channel is brighter in every block of 8 pixels; `hidden` leaves the first block unlabelled."""
    random = np.random.default_rng(seed)
    images, labels = [], []
    for _ in range(count):
        blocks = random.integers(0, 3, (-(-height // 8), -(-width // 8)))
        mask = blocks.repeat(8, axis=0).repeat(8, axis=1)[:height, :width].astype(np.uint8)
        image = random.integers(0, 120, (height, width, 3), dtype=np.uint8)
        image[np.arange(height)[:, None], np.arange(width), 2 - mask] += np.uint8(120)
        if hidden:
            mask[:8, :8] = IGNORED
        images.append(image)
        labels.append(mask)
    content = b"".join(array.tobytes() for array in (*images, *labels)) + repr(bad).encode()
    digest = hashlib.blake2b(content, digest_size=8).hexdigest()
    keys = np.array([f"image-{row}" for row in range(count)])
    manifest = Manifest(name, keys, np.full(count, -1), NO_LABELS, digest, Arrays(tuple(images), bad))
    return SegmentationSet(name, digest, manifest, NAMES, Arrays(tuple(labels)))
