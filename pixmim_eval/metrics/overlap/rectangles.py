"""The union of boxes as disjoint rectangles, for many images at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_PAIRS_AT_ONCE = 1 << 22  # of boxes of an image that are compared in one block


@dataclass(frozen=True)
class Cells:
    """Disjoint rectangles that cover the objects of images.

    Args:
        edges: float64 [C, 4], top, left, bottom, right.
        image: int64 [C], the image of each, sorted.
    """

    edges: np.ndarray
    image: np.ndarray

    def areas(self) -> np.ndarray:
        """float64 [C]."""
        return (self.edges[:, 2] - self.edges[:, 0]) * (self.edges[:, 3] - self.edges[:, 1])


def sum_by_image(values: np.ndarray, image: np.ndarray, count: int) -> np.ndarray:
    """Sums over what belongs to an image: values [M, …] with image int64 [M] sorted -> float64 [count, …]."""
    totals = np.zeros((count, *values.shape[1:]))
    if len(image):
        first = np.flatnonzero(np.diff(image, prepend=-1))
        totals[image[first]] = np.add.reduceat(values, first, axis=0)
    return totals


def unite(edges: np.ndarray, image: np.ndarray) -> Cells:
    """Disjoint rectangles whose union is that of the boxes of each image.

    A box that overlaps no other stays as it is. The others of an image are cut along all their edges; runs of what is
    covered in a row of that grid are rectangles, joined with equal ones below them.

    Args:
        edges: float64 [M, 4], top, left, bottom, right, of positive area.
        image: int64 [M], sorted.
    """
    counts = np.unique(image, return_counts=True)[1]
    firsts = np.cumsum(counts) - counts
    alone = np.ones(len(edges), dtype=bool)
    parts: list[np.ndarray] = []
    owners: list[np.ndarray] = []
    for count in np.unique(counts[counts > 1]).tolist():
        block = max(1, _PAIRS_AT_ONCE // (4 * count * count))
        starts = firsts[counts == count]
        for group in np.split(starts, np.arange(block, len(starts), block)):
            rows = group[:, None] + np.arange(count)
            meets = _find_overlaps(edges[rows])
            alone[rows[meets]] = False
            touched = meets.any(axis=1)
            if not touched.any():
                continue
            found, owner = _cut(edges[rows[touched]], meets[touched])
            parts.append(found)
            owners.append(image[group[touched]][owner])
    cells = np.concatenate([edges[alone], *parts])
    of = np.concatenate([image[alone], *owners])
    order = np.argsort(of, kind="stable")
    return Cells(cells[order], of[order])


def _find_overlaps(boxes: np.ndarray) -> np.ndarray:
    """Which boxes [G, k, 4] share area with another of their group: bool [G, k]."""
    low = np.maximum(boxes[:, :, None, :2], boxes[:, None, :, :2])
    high = np.minimum(boxes[:, :, None, 2:], boxes[:, None, :, 2:])
    return np.asarray((low < high).all(axis=-1).sum(axis=-1) > 1)  # one is itself


def _cut(boxes: np.ndarray, taken: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The union of the taken boxes of each group.

    Args:
        boxes: float64 [G, k, 4]; taken: bool [G, k].

    Returns:
        Rectangles float64 [C, 4] and the group of each, int64 [C].
    """
    groups, count = taken.shape
    lines = [np.sort(boxes[:, :, axis::2].reshape(groups, 2 * count), axis=1) for axis in (0, 1)]  # [G, 2k]
    difference = np.zeros((groups, 2 * count + 1, 2 * count + 1), dtype=np.int32)
    group, box = np.nonzero(taken)
    corners = [_find_lines(lines[edge % 2][group], boxes[group, box, edge]) for edge in range(4)]
    for row, column, sign in ((0, 1, 1), (0, 3, -1), (2, 1, -1), (2, 3, 1)):
        np.add.at(difference, (group, corners[row], corners[column]), sign)
    covered = difference.cumsum(axis=1).cumsum(axis=2) > 0  # [G, 2k + 1, 2k + 1]: slab by slab
    before, after = np.zeros_like(covered), np.zeros_like(covered)
    before[:, :, 1:], after[:, :, :-1] = covered[:, :, :-1], covered[:, :, 1:]
    group, down, left = (places.astype(np.int64) for places in np.nonzero(covered & ~before))
    right = np.nonzero(covered & ~after)[2] + 1
    order = np.lexsort((down, right, left, group))
    group, down, left, right = (places[order] for places in (group, down, left, right))
    same = [np.diff(places) == 0 for places in (group, left, right)]
    joined = same[0] & same[1] & same[2] & (np.diff(down) == 1)
    first, last = (np.flatnonzero(ends) for ends in (np.append(True, ~joined), np.append(~joined, True)))
    rows, columns = lines
    group, left, right = group[first], left[first], right[first]
    ends = (rows[group, down[first]], columns[group, left], rows[group, down[last] + 1], columns[group, right])
    found = np.stack(ends, axis=-1)
    there = (found[:, :2] < found[:, 2:]).all(axis=1)  # equal edges leave rows of no height
    return found[there], group[there]


def _find_lines(lines: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Position of each value [n] among its sorted lines [n, 2k]: the first that is not below it."""
    return np.asarray((lines < values[:, None]).sum(axis=1))
