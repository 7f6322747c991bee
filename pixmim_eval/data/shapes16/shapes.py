"""The 16 silhouettes, as signed distances: negative inside, zero on the edge, in units of about half the object's span.

Coordinates are x to the right and y downwards, and every silhouette fits in [-1, 1] x [-1, 1]. Shapes are built from
half-planes and circles by maximum (intersection) and minimum (union): exact near the edge, which is all that
anti-aliasing and outlines need, and a few array operations each.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

Array = np.ndarray
Silhouette = Callable[[Array, Array], Array]


def _length(x: Array, y: Array) -> Array:
    return np.sqrt(x * x + y * y)


def _box(x: Array, y: Array, left: float, top: float, right: float, bottom: float) -> Array:
    across = np.abs(x - (left + right) / 2) - (right - left) / 2
    down = np.abs(y - (top + bottom) / 2) - (bottom - top) / 2
    return np.maximum(across, down)


def _side(x: Array, y: Array, start: tuple[float, float], end: tuple[float, float]) -> Array:
    """Distance to the line from start to end: negative to the left of someone who walks it on the screen."""
    dx, dy = start[0] - end[0], start[1] - end[1]
    length = math.hypot(dx, dy)
    return x * (dy / length) + (y * (-dx / length) - (start[0] * dy - start[1] * dx) / length)


def _circle(x: Array, y: Array) -> Array:
    return _length(x, y) - 0.88


def _square(x: Array, y: Array) -> Array:
    return np.maximum(np.abs(x), np.abs(y)) - 0.78


def _triangle(x: Array, y: Array) -> Array:
    return np.maximum(_side(np.abs(x), y, (0.98, 0.74), (0.0, -0.96)), y - 0.74)


def _star(x: Array, y: Array) -> Array:
    """Five points: folded onto half of the upper one, which a single line bounds."""
    x, y = np.abs(x), y - 0.06
    sine, cosine = math.sin(math.pi / 5), math.cos(math.pi / 5)
    for across in (cosine, -cosine):  # mirrors between neighbouring points, given by their normals
        fold = np.maximum(x * across + y * sine, 0.0) * 2.0
        x, y = x - fold * across, y - fold * sine
    return _side(np.abs(x), y, (0.42 * sine, -0.42 * cosine), (0.0, -1.0))


def _cross(x: Array, y: Array) -> Array:
    x, y = np.abs(x), np.abs(y)
    return np.maximum(np.maximum(x, y) - 0.92, np.minimum(x, y) - 0.29)


def _heart(x: Array, y: Array) -> Array:
    """A wedge with its point below, tangent to two round lobes."""
    x, y = np.abs(x), y - 0.02
    centre_x, centre_y, radius, tip = 0.45, -0.36, 0.49, 0.92
    reach = math.hypot(centre_x, tip - centre_y)
    angle = math.acos(-radius / reach) - math.atan2(tip - centre_y, centre_x)
    cosine, sine = math.cos(angle), math.sin(angle)
    lobe = _length(x - centre_x, y - centre_y) - radius
    flank = x * cosine + (y - tip) * sine
    above = np.maximum(centre_y - y, (x - centre_x) * sine - (y - centre_y) * cosine)
    return np.minimum(lobe, np.maximum(flank, above))


def _crescent(x: Array, y: Array) -> Array:
    x = x - 0.1
    return np.maximum(_length(x, y) - 0.93, 0.74 - _length(x - 0.46, y))


def _arrow(x: Array, y: Array) -> Array:
    """Points to the right."""
    y = np.abs(y)
    head = np.maximum(-0.02 - x, _side(x, y, (-0.02, 0.82), (0.97, 0.0)))
    return np.minimum(head, np.maximum(np.abs(x + 0.225) - 0.725, y - 0.27))


def _ring(x: Array, y: Array) -> Array:
    return np.abs(_length(x, y) - 0.66) - 0.25


def _half_disc(x: Array, y: Array) -> Array:
    y = y - 0.48
    return np.maximum(_length(x, y) - 0.97, y)


def _corner(x: Array, y: Array) -> Array:
    return np.minimum(_box(x, y, -0.78, -0.92, -0.22, 0.92), _box(x, y, -0.78, 0.36, 0.82, 0.92))


def _tee(x: Array, y: Array) -> Array:
    return np.minimum(_box(x, y, -0.92, -0.86, 0.92, -0.3), _box(x, y, -0.28, -0.86, 0.28, 0.92))


def _hourglass(x: Array, y: Array) -> Array:
    y = np.abs(y)
    return np.maximum(y - 0.92, _side(np.abs(x), y, (0.8, 0.92), (0.1, 0.0)))


def _lightning(x: Array, y: Array) -> Array:
    """Two overlapping triangles, one the other turned by half a turn."""
    halves = []
    for sign in (1.0, -1.0):
        u, v = x * sign, y * sign
        left = _side(u, v, (0.42, -0.98), (-0.66, 0.16))
        right = _side(u, v, (0.14, 0.16), (0.42, -0.98))
        halves.append(np.maximum(np.maximum(left, right), v - 0.16))
    return np.minimum(halves[0], halves[1])


def _gear(x: Array, y: Array) -> Array:
    """Eight teeth and a hole, folded onto one eighth."""
    x, y = np.abs(x), np.abs(y)
    far, near = np.maximum(x, y), np.minimum(x, y)
    straight = np.maximum(far - 0.97, near - 0.16)
    slanted = np.maximum((x + y) * math.sqrt(0.5) - 0.97, (far - near) * math.sqrt(0.5) - 0.16)
    radius = _length(x, y)
    return np.maximum(np.minimum(np.minimum(straight, slanted), radius - 0.7), 0.27 - radius)


def _drop(x: Array, y: Array) -> Array:
    """A round belly below and a wedge above, tangent to it, that ends in a point."""
    belly, radius, tip = 0.36, 0.58, -0.98
    sine = radius / (belly - tip)
    cosine = math.sqrt(1 - sine * sine)
    x = np.abs(x)
    wedge = x * cosine - (y - tip) * sine
    below = x * sine + (y - tip) * cosine - (belly - tip) * cosine
    return np.minimum(_length(x, y - belly) - radius, np.maximum(wedge, below))


def _bar(x: Array, y: Array) -> Array:
    return np.maximum(np.abs(x) - 0.2, np.abs(y) - 0.98)


SHAPES: dict[str, Silhouette] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "heart": _heart,
    "crescent": _crescent,
    "arrow": _arrow,
    "ring": _ring,
    "half-disc": _half_disc,
    "corner": _corner,
    "tee": _tee,
    "hourglass": _hourglass,
    "lightning": _lightning,
    "gear": _gear,
    "drop": _drop,
}
"""Silhouettes by class name, in the order of the labels."""

SILHOUETTES: tuple[Silhouette, ...] = (*SHAPES.values(), _bar)
"""The 16 classes and, last, the bar: clutter only."""

BAR = len(SHAPES)


@lru_cache(maxsize=len(SILHOUETTES))
def outline_hull(shape: int) -> tuple[tuple[float, float], ...]:
    """The octagon around a silhouette, which decides what pixels need to be drawn: its corners and mid-sides.

    Mid-sides matter where a pose bends a side outwards.
    """
    ticks = np.linspace(-1.1, 1.1, 221, dtype=np.float32)
    rows, columns = np.nonzero(SILHOUETTES[shape](ticks[None, :], ticks[:, None]) <= 0)
    angles = [math.pi / 4 * k for k in range(8)]
    reach = [float((ticks[columns] * math.cos(a) + ticks[rows] * math.sin(a)).max()) + 0.02 for a in angles]
    corners = []
    for k, angle in enumerate(angles):  # where side k meets side k + 1, an eighth of a turn apart
        along = (reach[(k + 1) % 8] - reach[k] * math.cos(math.pi / 4)) / math.sin(math.pi / 4)
        corners.append(
            (reach[k] * math.cos(angle) - along * math.sin(angle), reach[k] * math.sin(angle) + along * math.cos(angle))
        )
    middles = [((a + c) / 2, (b + d) / 2) for (a, b), (c, d) in zip(corners, corners[1:] + corners[:1], strict=True)]
    return (*corners, *middles)
