"""Foreground overlap by its definition: sums over every whole-numbered size and position of a crop; pixel by pixel."""

from __future__ import annotations

import math

import numpy as np


def rrc_probabilities(height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]) -> np.ndarray:
    """Probability [height + 1, width + 1] that one try of RandomResizedCrop rounds to this height and width.

    For each log ratio on a fine grid (midpoints), areas are uniform; sizes that do not fit are left out, so that the
    sum is the probability that a try succeeds.
    """
    found = np.zeros((height + 1, width + 1))
    steps = 4000
    logs = math.log(ratio[0]) + (np.arange(steps) + 0.5) / steps * math.log(ratio[1] / ratio[0])
    for value in np.exp(logs):
        # Areas where the rounded width or height changes: between two of them the size is constant.
        columns = (np.arange(width + 1) + 0.5) ** 2 / value
        rows = (np.arange(height + 1) + 0.5) ** 2 * value
        bounds = np.array(scale) * height * width
        cuts = np.sort(np.clip(np.concatenate((columns, rows, bounds)), *bounds))
        middle, share = (cuts[1:] + cuts[:-1]) / 2, np.diff(cuts) / (bounds[1] - bounds[0])
        x, y = np.round(np.sqrt(middle * value)).astype(int), np.round(np.sqrt(middle / value)).astype(int)
        fits = (x > 0) & (x <= width) & (y > 0) & (y <= height)
        np.add.at(found, (y[fits], x[fits]), share[fits] / steps)
    return found


def rrc_expectation(
    height: int, width: int, edges: np.ndarray, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Expected area of each box [R, 4] (top, left, bottom, right) in the crop, and share of the crop's own area."""
    once = rrc_probabilities(height, width, scale, ratio)
    fails = (1 - once.sum()) ** 10
    law = once / once.sum() * (1 - fails)
    aspect = width / height
    central_height = round(width / ratio[0]) if aspect < ratio[0] else height
    central_width = round(height * ratio[1]) if aspect > ratio[1] else width
    area, share = [], []
    sizes = np.maximum(np.arange(height + 1), 1)[:, None] * np.maximum(np.arange(width + 1), 1)
    for top, left, bottom, right in edges:
        kept = np.outer(_cover_side(height, top, bottom), _cover_side(width, left, right))
        middle = _intersect(top, bottom, (height - central_height) // 2, central_height)
        middle *= _intersect(left, right, (width - central_width) // 2, central_width)
        area.append((law * kept).sum() + fails * middle)
        share.append((law * kept / sizes).sum() + fails * middle / (central_height * central_width))
    return np.array(area), np.array(share)


def _cover_side(side: int, low: float, high: float) -> np.ndarray:
    """Mean length of [low, high] in an interval of each length 0 … side, over all its whole-numbered places."""
    covered = np.zeros(side + 1)
    for extent in range(1, side + 1):
        covered[extent] = np.mean([_intersect(low, high, start, extent) for start in range(side - extent + 1)])
    return covered


def _intersect(low: float, high: float, start: float, extent: float) -> float:
    return max(0.0, min(high, start + extent) - max(low, start))


def paint(edges: np.ndarray, shape: tuple[int, int], times: int = 1) -> np.ndarray:
    """Boxes [R, 4] with whole-numbered edges as pixels: how many of them cover each, [H x times, W x times]."""
    picture = np.zeros((shape[0] * times, shape[1] * times), dtype=np.int64)
    for top, left, bottom, right in np.round(edges * times).astype(int):
        picture[top:bottom, left:right] += 1
    return picture


def slide_mean(mask: np.ndarray, size: int, padding: int) -> float:
    """Mean number of object pixels in a square of `size`, over all its places in the image with a reflected border."""
    padded = np.pad(mask.astype(float), padding, mode="reflect")
    places = [
        padded[top : top + size, left : left + size].sum()
        for top in range(padded.shape[0] - size + 1)
        for left in range(padded.shape[1] - size + 1)
    ]
    return float(np.mean(places))
