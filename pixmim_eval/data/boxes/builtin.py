"""Boxes and masks of shapes16, the built-in data set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pixmim_eval.data.boxes.box_set import BoxSet, MaskSet, RawBoxes, check_boxes
from pixmim_eval.data.shapes16 import Shapes16Source, render
from pixmim_eval.data.sources import open_manifest
from pixmim_eval.progress import progress

_BLOCK = 256


@dataclass(frozen=True)
class _RenderedMasks:
    """Masks of shapes16, drawn when they are asked for."""

    source: Shapes16Source

    def of(self, row: int) -> list[np.ndarray]:
        source = self.source
        return list(render([row], source.variant, source.size, source.seed).masks)


def open_builtin(path: str) -> BoxSet:
    """The object of every image of builtin:shapes16[:VARIANT][@SIZE] (val by default), tight around its mask.

    Raises:
        InputError: another name, variant or size.
    """
    manifest = open_manifest(path, labelled=False)
    source = manifest.source
    assert isinstance(source, Shapes16Source)  # the only built-in data set
    blocks = [np.arange(start, min(start + _BLOCK, len(manifest))) for start in range(0, len(manifest), _BLOCK)]
    edges = [
        render(rows, source.variant, source.size, source.seed).boxes
        for rows in progress(blocks, description=f"drawing {manifest.name}", quiet=len(blocks) < 8)
    ]
    masks = _RenderedMasks(source)

    def select(_: list[np.ndarray]) -> tuple[MaskSet, str]:
        return masks, manifest.digest

    sizes, rows = np.full((len(manifest), 2), source.size), np.arange(len(manifest))
    return check_boxes(
        RawBoxes(
            manifest.name,
            path,
            manifest.keys.tolist(),
            sizes,
            rows,
            np.concatenate(edges),
            masks=select,
            manifest=manifest,
        )
    )
