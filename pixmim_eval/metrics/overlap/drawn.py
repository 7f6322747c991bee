"""Overlap with crops that were drawn: for distributions, for patches, and as a check of expectations."""

from __future__ import annotations

import numpy as np

from pixmim_eval.metrics.overlap.rectangles import Cells, sum_by_image

_VALUES_AT_ONCE = 1 << 21


def measure_crops(cells: Cells, crops: np.ndarray) -> np.ndarray:
    """Area of the objects that each crop keeps.

    Args:
        cells: of N images.
        crops: float64 [N, D, 4], top, left, height, width of D crops an image, in pixels of the source; what they reach
            beyond the image holds nothing.

    Returns:
        float64 [N, D], square pixels of the source.
    """
    kept = np.zeros(crops.shape[:2])
    block = max(1, _VALUES_AT_ONCE // crops.shape[1])
    for first in range(0, len(crops), block):
        part = slice(*np.searchsorted(cells.image, (first, first + block)))
        edges, of = cells.edges[part, :, None], cells.image[part]
        chosen = crops[of]  # [C, D, 4]
        area = _share(edges[:, 0], edges[:, 2], chosen[..., 0], chosen[..., 2])
        area *= _share(edges[:, 1], edges[:, 3], chosen[..., 1], chosen[..., 3])
        kept[first : first + block] = sum_by_image(area, of - first, len(crops[first : first + block]))
    return kept


def _share(low: np.ndarray, high: np.ndarray, start: np.ndarray, extent: np.ndarray) -> np.ndarray:
    """Length of the intervals that lies in [start, start + extent]."""
    return np.maximum(np.minimum(high, start + extent) - np.maximum(low, start), 0)


def measure_patches(cells: Cells, crops: np.ndarray, grid: int) -> np.ndarray:
    """Area of the objects in each patch of each crop.

    Args:
        cells: of N images.
        crops: float64 [N, D, 4], as in measure_crops.
        grid: patches across, and down, a crop.

    Returns:
        float64 [N, D, grid, grid], square pixels of the source; their sum over a crop is measure_crops.
    """
    chosen = crops[cells.image]
    down, across = (
        _share(
            cells.edges[:, axis, None, None],
            cells.edges[:, axis + 2, None, None],
            chosen[..., axis, None] + np.arange(grid) * (chosen[..., axis + 2, None] / grid),
            chosen[..., axis + 2, None] / grid,
        )
        for axis in (0, 1)
    )
    return sum_by_image(down[..., :, None] * across[..., None, :], cells.image, len(crops))


def count_visible(covered: np.ndarray, noise: np.ndarray, ratio: float) -> np.ndarray:
    """Area of the objects in the patches that a random mask leaves visible: each counts by its covered area.

    Args:
        covered: float64 [N, D, G, G], as measure_patches gives it.
        noise: [N, D, U, U], one random number a unit of (G / U) x (G / U) patches; the lowest stay visible.
        ratio: share of the units that is masked; of n units int(n x (1 - ratio)) stay visible.

    Returns:
        float64 [N, D].

    Source: MAE (arXiv 2111.06377) section 3; LSMAE (arXiv 2210.07224), which decouples the mask's size from the
        patch's, for units of several patches.
    """
    images, draws, units = noise.shape[:3]
    side = covered.shape[2] // units
    by_unit = covered.reshape(images, draws, units, side, units, side).sum(axis=(3, 5)).reshape(images, draws, -1)
    keep = int(units * units * (1 - ratio))
    order = np.argsort(noise.reshape(images, draws, -1), axis=-1, kind="stable")[..., :keep]
    return np.asarray(np.take_along_axis(by_unit, order, axis=-1).sum(axis=-1))


def measure_pixels(mask: np.ndarray, crops: np.ndarray, grid: int = 1) -> np.ndarray:
    """Area of an object, given by its pixels, in each patch of each crop of its image.

    Args:
        mask: bool [H, W].
        crops: float64 [D, 4], as in measure_crops.
        grid: patches across, and down, a crop.

    Returns:
        float64 [D, grid, grid], pixels.
    """
    below = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1))  # [y, x]: pixels above y and left of x
    np.cumsum(np.cumsum(mask, axis=0), axis=1, out=below[1:, 1:])
    steps = np.arange(grid + 1) / grid
    lines = [np.clip(crops[:, axis, None] + crops[:, axis + 2, None] * steps, 0, mask.shape[axis]) for axis in (0, 1)]
    whole = [
        np.minimum(np.floor(line), side - 1).astype(np.int64) for line, side in zip(lines, mask.shape, strict=True)
    ]
    (down, across), (row, column) = (line - place for line, place in zip(lines, whole, strict=True)), whole
    down, across = down[:, :, None], across[:, None, :]
    row, column = row[:, :, None], column[:, None, :]
    upper = below[row, column] * (1 - across) + below[row, column + 1] * across
    lower = below[row + 1, column] * (1 - across) + below[row + 1, column + 1] * across
    counted = upper * (1 - down) + lower * down  # exact: inside a pixel the sum is linear in both
    return np.asarray(np.diff(np.diff(counted, axis=1), axis=2))
