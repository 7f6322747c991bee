"""Expected overlap of rectangles, and of objects by their pixels, with a crop: no random numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pixmim_eval.metrics.overlap.laws import Axis, CropLaw

_SIZES_AT_ONCE, _PACKS_AT_ONCE = 64, 128
_ABREAST = 8  # rectangles of one image size in a matrix product


@dataclass(frozen=True)
class Expected:
    """What of R rectangles a crop keeps, in expectation.

    Args:
        area: float64 [R], square pixels of the source that are in the crop.
        share: float64 [R], of the crop's own area that is the rectangle.
    """

    area: np.ndarray
    share: np.ndarray


def expect_rectangles(
    law: CropLaw, sizes: np.ndarray, edges: np.ndarray, image: np.ndarray, *, border: bool = False
) -> Expected:
    """The expected overlap of each rectangle with the crop of its image.

    The law is worked out once for each distinct image size.

    Args:
        law: of the crop.
        sizes: int64 [N, 2], height and width of the images.
        edges: float64 [R, 4], top, left, bottom, right, inside the image.
        image: int64 [R], row of sizes.
        border: count what the crop's reflected border shows of the rectangle too.
    """
    distinct, inverse = _find_sizes(sizes[image])
    order = np.argsort(inverse, kind="stable")
    area, share = np.empty(len(edges)), np.empty(len(edges))
    bounds = np.searchsorted(inverse[order], np.arange(len(distinct) + 1))
    first = 0
    while first < len(distinct):
        last = min(first + _SIZES_AT_ONCE, len(distinct))
        found = law.nodes(distinct[first:last])
        members = order[bounds[first] : bounds[last]]
        padding = law.padding if border else 0
        for rows in _pack(members, inverse[members] - first):
            size = inverse[rows[:, 0]] - first
            top, left, bottom, right = np.moveaxis(edges[rows], -1, 0)
            sides = distinct[first + size, :, None]
            down = _cover(found.rows, top, bottom, size, sides[:, 0], padding)
            across = _cover(found.columns, left, right, size, sides[:, 1], padding)
            weights, pixels = found.weights[size], found.rows.scale[size] * found.columns.scale[size]
            area[rows] = _contract(down, weights, across) / pixels[:, None]
            down /= found.rows.extent[size, None]
            across /= found.columns.extent[size, None]
            share[rows] = _contract(down, weights, across)
        first = last
    return Expected(area, share)


def _find_sizes(sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct rows of sizes int64 [R, 2], and the position of each row's among them."""
    base = int(sizes.max(initial=0)) + 1
    codes, inverse = np.unique(sizes[:, 0] * base + sizes[:, 1], return_inverse=True)
    return np.stack((codes // base, codes % base), axis=1), inverse


def _pack(members: np.ndarray, size: np.ndarray) -> list[np.ndarray]:
    """Members [R], sorted by size, in rows of _ABREAST of one size each; the last of a size is repeated to fill up."""
    counts = np.bincount(size)
    packs = -(-counts // _ABREAST)
    owner = np.repeat(np.arange(len(counts)), packs)
    within = (np.arange(len(owner)) - np.repeat(np.cumsum(packs) - packs, packs)) * _ABREAST
    ends = np.cumsum(counts)
    rows = (ends - counts)[owner, None] + within[:, None] + np.arange(_ABREAST)
    rows = members[np.minimum(rows, ends[owner, None] - 1)]
    return [rows[start : start + _PACKS_AT_ONCE] for start in range(0, len(rows), _PACKS_AT_ONCE)]


def _cover(
    axis: Axis, low: np.ndarray, high: np.ndarray, size: np.ndarray, sides: np.ndarray, padding: int
) -> np.ndarray:
    """Expected length of intervals [P, R] in the crop, [P, R, K]; with a padding also what its border repeats."""
    covered = axis.cover(low, high, size)
    if padding:
        pixel = 1 / axis.scale[size, None]  # pixel k of the border repeats pixel k of the inside, counted from 0
        last = 2 * sides - pixel
        covered += axis.cover(np.minimum(pixel - high, 0), np.minimum(pixel - low, 0), size)
        covered += axis.cover(np.maximum(last - high, sides), np.maximum(last - low, sides), size)
    return covered


def _contract(down: np.ndarray, weights: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Sums over both nodes of down [P, R, Q] x weights [P, Q, K] x across [P, R, K]: [P, R]."""
    partial = np.matmul(down, weights)
    partial *= across
    return np.asarray(partial.sum(axis=-1))


def expect_pixels(law: CropLaw, mask: np.ndarray) -> tuple[float, float]:
    """The expected overlap of an object, given by its pixels, with the crop.

    Args:
        law: of the crop.
        mask: bool [H, W], the object.

    Returns:
        Pixels of the object in the crop, and the share of the crop that they are.
    """
    found = law.nodes(np.array([mask.shape]))
    axes = (found.rows, found.columns)
    down, across = (
        axis.cover(np.arange(side)[None], np.arange(1, side + 1)[None], np.zeros(1, dtype=np.int64))[0]
        for axis, side in zip(axes, mask.shape, strict=True)
    )
    kept = (down.T @ mask.astype(np.float64) @ across) * found.weights[0]  # [Q, K]
    extents = found.rows.extent[0][:, None] * found.columns.extent[0]
    return float(kept.sum() / (found.rows.scale[0] * found.columns.scale[0])), float((kept / extents).sum())
