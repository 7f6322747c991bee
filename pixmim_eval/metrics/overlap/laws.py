"""How the boxes of a crop lie, for an image size: few nodes with weights, rows and columns independent in each."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache
from typing import Protocol

import numpy as np

_TRIES = 10  # of RandomResizedCrop before it falls back to the central crop
_HEIGHT_NODES, _WIDTH_NODES = 5, 4  # of a panel; widths as many as cubics need
# Ends of the panels of widths, as shares of their range counted from the widest: a box of nearly the image's width has
# few places, so that what it covers changes fast there.
_GRADED = (1.0, 0.7, 0.45, 0.25, 0.1, 0.03, 0.0)


@dataclass(frozen=True)
class Axis:
    """How a crop lies along one axis: at start, start + 1, … start + count - 1 with equal probability.

    Args:
        start, extent, count: float [S, K], for S image sizes and K nodes, in pixels of the resized image.
        scale: float [S], its pixels per pixel of the source.
        whole: extents are whole numbers, so that a sum over positions is exact for any interval. Else extents stand for
            whole numbers around them, and the sum is the parabola through its values at whole numbers.
    """

    start: np.ndarray
    extent: np.ndarray
    count: np.ndarray
    scale: np.ndarray
    whole: bool

    def cover(self, low: np.ndarray, high: np.ndarray, size: np.ndarray) -> np.ndarray:
        """Expected pixels of intervals (of the source) that are in the crop.

        Args:
            low, high: float64 [P, R], R intervals for each of P images.
            size: int64 [P], which of the S image sizes each has.

        Returns:
            float [P, R, K], in pixels of the resized image.
        """
        scale, start = self.scale[size, None, None], self.start[size, None]
        extent, count = self.extent[size, None], self.count[size, None]
        covered, part = (
            self._reach((ends[..., None] * scale - start).astype(start.dtype), extent, count) for ends in (high, low)
        )
        covered -= part
        covered /= count
        return covered

    def _reach(self, position: np.ndarray, extent: np.ndarray, count: np.ndarray) -> np.ndarray:
        """Sum over t = 0 … count - 1 of what of [t, t + extent] lies below the position."""
        reached = self._sum_ramps(position, count)
        position -= extent
        reached -= self._sum_ramps(position, count)
        return reached

    def _sum_ramps(self, position: np.ndarray, count: np.ndarray) -> np.ndarray:
        """Sum over t = 0 … count - 1 of max(position - t, 0), of which `terms` are above 0."""
        terms = np.maximum(np.ceil(position) if self.whole else position, 0)
        np.minimum(terms, count, out=terms)
        total = 0.5 - 0.5 * terms
        total += position
        total *= terms
        return total


@dataclass(frozen=True)
class Nodes:
    """The law of a crop for S image sizes.

    Args:
        rows, columns: the two axes, of Q and K nodes.
        weights: float64 [S, Q, K], probabilities; their sum is 1.
    """

    rows: Axis
    columns: Axis
    weights: np.ndarray


class CropLaw(Protocol):
    """A distribution of crops."""

    @property
    def padding(self) -> int:
        """Pixels of a reflected border, after the resize."""
        ...

    def nodes(self, sizes: np.ndarray) -> Nodes:
        """The law for image sizes int64 [S, 2] (height, width)."""
        ...


@dataclass(frozen=True)
class CenterCropLaw:
    """CC: the short side to `resize`, then the central square of `size`; one node. As data.crops.CenterCrop."""

    size: int
    resize: int
    padding: int = field(default=0, init=False)

    def nodes(self, sizes: np.ndarray) -> Nodes:
        resized = resize_sides(sizes, self.resize)
        start = np.round((resized - self.size) / 2)  # half to even, as Python's round in torchvision
        axes = [_one_node(start[:, axis], self.size, 1, resized[:, axis] / sizes[:, axis]) for axis in (0, 1)]
        return Nodes(axes[0], axes[1], np.ones((len(sizes), 1, 1)))


@dataclass(frozen=True)
class SimpleResizedCropLaw:
    """SRC: the short side to `size`, a reflected border, a square of `size` anywhere; one node.

    As data.crops.SimpleResizedCrop.
    """

    size: int
    padding: int = 4

    def nodes(self, sizes: np.ndarray) -> Nodes:
        resized = resize_sides(sizes, self.size)
        count = resized + (2 * self.padding - self.size + 1)
        axes = [
            _one_node(np.full(len(sizes), -self.padding), self.size, count[:, axis], resized[:, axis] / sizes[:, axis])
            for axis in (0, 1)
        ]
        return Nodes(axes[0], axes[1], np.ones((len(sizes), 1, 1)))


def resize_sides(sizes: np.ndarray, short_side: int) -> np.ndarray:
    """Sizes int64 [S, 2] after the short side went to `short_side`; the long side is cut off to an integer."""
    short = sizes.min(axis=1, keepdims=True)
    return np.asarray(np.where(sizes == short, short_side, short_side * sizes // short))


def _one_node(start: np.ndarray, extent: int, count: np.ndarray | int, scale: np.ndarray) -> Axis:
    whole = np.ones((len(scale), 1))
    return Axis(start[:, None] * whole, extent * whole, np.reshape(count, (-1, 1)) * whole, scale, whole=True)


@dataclass(frozen=True)
class RandomResizedCropLaw:
    """RRC: a random area and aspect ratio at a random place, ten tries, else the central crop.

    Width x and height y before rounding are uniformly distributed where scale[0] HW <= xy <= scale[1] HW and
    ratio[0] <= x / y <= ratio[1], because (area, log ratio) -> (x, y) has a constant Jacobian. Of that region a try
    keeps what rounds to at most the image. Heights are integrated by Gauss-Legendre quadrature between the corners of
    the region; widths, given a height, exactly for functions that are cubic on each of a few panels.

    Tries, fall-back, whole-numbered positions, and what is rounded to the image's sides are exact; other sizes stand
    for the whole numbers they round to. For images from 64 px on, what is expected of a box of at least 8 % of each
    side is within 2e-4 of the sum over all whole-numbered sizes; means over boxes are within 1e-4, and within 1e-5
    from 300 px (tests/metrics/test_overlap.py).

    Args:
        scale: range of the crop's area as a fraction of the image's.
        ratio: range of width / height, drawn log-uniformly.

    Source: torchvision's RandomResizedCrop; data.crops.RandomResizedCrop draws from the same law.
    """

    scale: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    padding: int = field(default=0, init=False)

    def nodes(self, sizes: np.ndarray) -> Nodes:
        heights, widths = sizes[:, 0].astype(np.float64), sizes[:, 1].astype(np.float64)
        y, y_weights = self._split_heights(heights, widths)
        low, high = self._bound_widths(y, heights, widths)
        least = np.where(high > low, low, np.inf).min(axis=1)
        most = np.where(high > low, high, -np.inf).max(axis=1)
        possible = most > least
        least, most = np.where(possible, least, 0.5), np.where(possible, most, 1.0)
        x, masses = _spread(low, np.maximum(high, low), least, most, widths)
        masses *= y_weights[:, :, None]
        kept = masses.sum(axis=(1, 2))
        region = heights * widths * (self.scale[1] - self.scale[0]) * math.log(self.ratio[1] / self.ratio[0]) / 2
        fallen_back = np.clip(1 - kept / region, 0, 1) ** _TRIES
        masses *= ((1 - fallen_back) / np.where(kept > 0, kept, 1))[:, None, None]
        weights = np.zeros((len(sizes), y.shape[1] + 1, x.shape[1] + 1))
        weights[:, :-1, :-1] = masses
        weights[:, -1, -1] = np.where(kept > 0, fallen_back, 1.0)
        crop_heights, crop_widths = self._central(heights, widths)
        rows = _place(_round_highest(y, heights), heights, crop_heights)
        columns = _place(_round_highest(x, widths), widths, crop_widths)
        return Nodes(rows, columns, weights.astype(np.float32))

    def _split_heights(self, heights: np.ndarray, widths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Nodes and weights of heights [S, Q]: the bounds of widths are smooth between these ends of panels."""
        area = heights * widths
        highest, widest = heights + 0.5, widths + 0.5
        (scale_0, scale_1), (ratio_0, ratio_1) = self.scale, self.ratio
        ends = [
            np.sqrt(scale_0 * area / ratio_1),
            np.sqrt(scale_0 * area / ratio_0),
            np.sqrt(scale_1 * area / ratio_1),
            np.sqrt(scale_1 * area / ratio_0),
            widest / ratio_1,
            widest / ratio_0,
            scale_1 * area / widest,
            scale_0 * area / widest,
            # Near the image's height a crop has few places, as near its width.
            *(heights - heights * share for share in (0.2, 0.04)),
            heights - 0.5,  # beyond it all are rounded to the image's height
            highest,
        ]
        lower, upper = np.maximum(ends[0], 0.5), np.minimum(ends[3], highest)
        panels = np.sort(np.clip(np.stack(ends, axis=1), lower[:, None], np.maximum(upper, lower)[:, None]), axis=1)
        lengths = np.diff(panels, axis=1)
        # Only the longest, as many as some size needs: the others have no length.
        used = np.argsort(-lengths, axis=1, kind="stable")[:, : max((lengths > 0).sum(axis=1).max(), 1)]
        lengths = np.take_along_axis(lengths, used, axis=1)[:, :, None]
        nodes, weights = np.polynomial.legendre.leggauss(_HEIGHT_NODES)
        y = np.take_along_axis(panels, used, axis=1)[:, :, None] + lengths * (nodes + 1) / 2
        return y.reshape(len(heights), -1), (lengths * weights / 2).reshape(len(heights), -1)

    def _bound_widths(self, y: np.ndarray, heights: np.ndarray, widths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Least and greatest width before rounding at each height [S, Q] that a try keeps."""
        area = (heights * widths)[:, None]
        low = np.maximum(np.maximum(self.scale[0] * area / y, self.ratio[0] * y), 0.5)
        high = np.minimum(np.minimum(self.scale[1] * area / y, self.ratio[1] * y), widths[:, None] + 0.5)
        return low, high

    def _central(self, heights: np.ndarray, widths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The fall-back: as much of the middle as the aspect ratio allows."""
        ratio = widths / heights
        crop_heights = np.where(ratio < self.ratio[0], np.round(widths / self.ratio[0]), heights)
        return crop_heights, np.where(ratio > self.ratio[1], np.round(heights * self.ratio[1]), widths)


def _round_highest(extent: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """Extents [S, K], those that round to the image's side [S] as the side."""
    return np.where(extent > sides[:, None] - 0.5, sides[:, None], extent)


def _place(extent: np.ndarray, sides: np.ndarray, central: np.ndarray) -> Axis:
    """Extents [S, K] anywhere in sides [S], and one more node: the central extent [S] in the middle."""
    middle = np.floor((sides - central) / 2)[:, None]
    start = np.concatenate((np.zeros_like(extent), middle), axis=1)
    count = np.concatenate((sides[:, None] - extent + 1, np.ones_like(middle)), axis=1)
    extent = np.concatenate((extent, central[:, None]), axis=1)
    start, extent, count = (part.astype(np.float32) for part in (start, extent, count))
    return Axis(start, extent, count, np.ones(len(sides), dtype=np.float32), whole=False)


@cache
def _panel_basis() -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes on [0, 1] and the integrals from 0 of cubics, each 1 at its node and 0 at the others.

    Returns:
        float64 [4], and for each node (columns) coefficients float64 [4, 4] of the powers 1…4.
    """
    nodes = (np.polynomial.legendre.leggauss(_WIDTH_NODES)[0] + 1) / 2
    cubics = np.linalg.inv(np.vander(nodes, increasing=True))  # [power, node]
    return nodes, cubics / np.arange(1, _WIDTH_NODES + 1)[:, None]


def _spread(
    low: np.ndarray, high: np.ndarray, least: np.ndarray, most: np.ndarray, sides: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Widths that stand for all between low and high, and how much each stands for.

    Args:
        low, high: float64 [S, Q], intervals of widths.
        least, most: float64 [S], range of all of them.
        sides: float64 [S], of the images; the last panel is what rounds to them.

    Returns:
        Widths [S, K] and masses [S, Q, K], which sum to high - low over K.
    """
    nodes, integrals = _panel_basis()
    last = np.maximum(np.minimum(most, sides - 0.5), least)
    ends = np.concatenate((last[:, None] - (last - least)[:, None] * np.array(_GRADED), most[:, None]), axis=1)
    lengths = np.maximum(np.diff(ends, axis=1), 1e-9)  # a panel may be empty
    x = ends[:, :-1, None] + lengths[:, :, None] * nodes
    # The integral over an interval is the difference of two polynomials: first of their powers, then one product.
    powers = np.zeros((*low.shape, lengths.shape[1], _WIDTH_NODES))
    for bound, sign in ((high, 1.0), (low, -1.0)):
        inside = np.clip((bound[:, :, None] - ends[:, None, :-1]) / lengths[:, None, :], 0, 1)
        power = sign * lengths[:, None, :] * inside
        for degree in range(_WIDTH_NODES):
            powers[..., degree] += power
            power *= inside
    return x.reshape(len(low), -1), (powers.reshape(-1, _WIDTH_NODES) @ integrals).reshape(*low.shape, -1)
