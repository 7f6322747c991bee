"""The 16 textures: functions of texture coordinates (period 1) that say how much of the second colour shows, 0 to 1.

Regular textures are signed distances to the edges of their pattern, cut at one pixel, so that they are crisp at every
size; irregular ones threshold or bend noise. Every texture takes
u, v [h, w] (texture coordinates), sharp (pixels a period) and two kinds of noise [h, w]: soft (blobs) and rough (1/f).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch

from pixmim_eval.seeds import derive_seed, uniform

Array = np.ndarray
Texture = Callable[[Array, Array, float, Array, Array], Array]

_TILE = 3  # sides of a scene in one side of the noise tile
_LARGEST = 224


@lru_cache(maxsize=6)  # three kinds at two sizes
def noise_tile(size: int, lowest: float = 0.5, highest: float = math.inf) -> Array:
    """Noise like that of natural images (amplitude 1/frequency), to be cut into windows.

    The same waves at every size, as far as the pixels can carry them: a window of a scene holds the same clouds at 64
    and at 224 pixels, with finer detail at 224.

    Args:
        size: pixels of a side of the scene.
        lowest, highest: frequencies that take part, in cycles a side of the scene.

    Returns:
        float32 [T, T] of mean 0 and standard deviation 1 (less what is too fine for the pixels), T = 4 * size: three
        sides that repeat seamlessly, and the first once more so that any window of one side can be cut from it.

    Source: Field, "Relations between the statistics of natural images …", JOSA A 1987 (the 1/f amplitude).
    """
    full, side = _TILE * _LARGEST, _TILE * size
    rows = torch.arange(-(full // 2), full // 2)
    phases = uniform(derive_seed("shapes16", "noise"), rows, full // 2, dtype=torch.float64).numpy()
    down, across = np.meshgrid(rows.numpy(), np.arange(full // 2), indexing="ij")
    radius = np.hypot(down, across)
    wanted = (radius >= _TILE * lowest) & (radius <= _TILE * highest)
    kept = wanted & (np.abs(down) < side / 2) & (across < side / 2)
    spectrum = np.zeros((side, side // 2 + 1), dtype=np.complex128)
    phases += (down + across) * (0.5 / side)  # pixel centres lie half a pixel in, at every size
    spectrum[down[kept], across[kept]] = np.exp(2j * math.pi * phases[kept]) / radius[kept]
    noise = np.fft.irfft2(spectrum, s=(side, side), norm="forward")
    deviation = math.sqrt(2 * (1 / radius[wanted] ** 2).sum())
    return np.pad((noise / deviation).astype(np.float32), (0, size), mode="wrap")


def step(distance: Array, sharp: float) -> Array:
    """Coverage in [0, 1] of what lies at positive distance, with an edge of one pixel (1 / sharp)."""
    distance = distance * sharp
    distance += 0.5
    return distance.clip(0.0, 1.0, out=distance)


def _offset(x: Array) -> Array:
    """Signed distance to the nearest integer, in [-0.5, 0.5]."""
    return x - np.rint(x)


def _gap(x: Array) -> Array:
    """Distance to the nearest integer, in [0, 0.5]."""
    x = x - np.rint(x)
    return np.abs(x, out=x)


def _sine(x: Array) -> Array:
    """A sine of period 1 made of parabolas: no library's last digit decides a pixel."""
    x = _offset(x)
    return x * (8.0 - 16.0 * np.abs(x))


def _stripes(u: Array, v: Array, sharp: float, soft: Array, rough: Array) -> Array:
    return step(_gap(u) - 0.25, sharp)


def _checks(u: Array, v: Array, sharp: float, soft: Array, rough: Array) -> Array:
    a, b = step(_gap(u * 0.7) - 0.25, sharp / 0.7), step(_gap(v * 0.7) - 0.25, sharp / 0.7)
    return np.abs(a - b)


def _dots(u: Array, v: Array, sharp: float, soft: Array, rough: Array) -> Array:
    u, v = _offset(u), _offset(v)
    return step(0.31 - np.sqrt(u * u + v * v), sharp)


def _waves(u: Array, v: Array, sharp: float, soft: Array, rough: Array) -> Array:
    return step(_gap(u + 0.42 * _sine(v * 0.45)) - 0.25, sharp * 0.7)


def _rings(u: Array, v: Array, sharp: float, soft: Array, rough: Array) -> Array:
    return step(_gap(np.sqrt(u * u + v * v)) - 0.25, sharp)


def _clouds(u: Array, v: Array, sharp: float, soft: Array, rough: Array) -> Array:
    return (rough * 0.5 + 0.5).clip(0.0, 1.0)


def _bricks(u: Array, v: Array, sharp: float, soft: Array, rough: Array) -> Array:
    course = np.floor(v)
    return step(np.minimum(_gap(u * 0.5 + course * 0.5) * 2.0, 0.5 - np.abs(v - course - 0.5)) - 0.12, sharp)


def _grid(u: Array, v: Array, sharp: float, soft: Array, rough: Array) -> Array:
    return step(0.13 - np.minimum(_gap(u), _gap(v)), sharp)


def _zigzag(u: Array, v: Array, sharp: float, soft: Array, rough: Array) -> Array:
    return step(_gap(u + 2.0 * _gap(v * 0.5)) - 0.25, sharp * 0.7)


def _rays(u: Array, v: Array, sharp: float, soft: Array, rough: Array) -> Array:
    count = 9
    radius = np.sqrt(u * u + v * v)
    return step((_gap(np.arctan2(u, v) * (count / math.tau)) - 0.25) * radius, sharp * math.tau / count)


def _triangles(u: Array, v: Array, sharp: float, soft: Array, rough: Array) -> Array:
    u, v = u * 0.6, v * 0.6
    a, b = step(_gap(u) - 0.25, sharp / 0.6), step(_gap(u * 0.5 + v * 0.866) - 0.25, sharp / 0.6)
    c = step(_gap(u * 0.5 - v * 0.866) - 0.25, sharp / 0.6)
    return np.abs(np.abs(a - b) - c)


def _marble(u: Array, v: Array, sharp: float, soft: Array, rough: Array) -> Array:
    return (4.5 * _gap(u * 0.45 + soft * 0.4)).clip(0.0, 1.0)


def _speckle(u: Array, v: Array, sharp: float, soft: Array, rough: Array) -> Array:
    """Dots strewn unevenly: each cell of a lattice has one at a place and of a size that its number scrambles."""
    u, v = u * 1.25, v * 1.25
    row, column = np.rint(v), np.rint(u)
    scramble = _offset((column * 0.7548777 + row * 0.5698403) * 5.0)
    u, v = u - column + scramble * 0.5, v - row + _offset(scramble * 7.3) * 0.5
    return step(0.14 + 0.28 * np.abs(scramble) - np.sqrt(u * u + v * v), sharp / 1.25)


def _weave(u: Array, v: Array, sharp: float, soft: Array, rough: Array) -> Array:
    upright = np.abs(np.rint(u * 0.5) - u * 0.5) < 0.25
    upright ^= np.abs(np.rint(v * 0.5) - v * 0.5) < 0.25
    return step(_gap(np.where(upright, u, v) * 2.0) - 0.22, sharp / 2.0)


def _honeycomb(u: Array, v: Array, sharp: float, soft: Array, rough: Array) -> Array:
    """Distance to the edges of hexagons, whose centres lie on two interleaved lattices."""
    u, v = u * 0.75, v * (0.75 / math.sqrt(3))
    radii = []
    for shift in (0.0, 0.5):
        x, y = _gap(u + shift), _gap(v + shift)
        radii.append(np.maximum(x, x * 0.5 + y * 1.5))
    return step(0.4 - np.minimum(radii[0], radii[1]), sharp / 0.75)


def _patches(u: Array, v: Array, sharp: float, soft: Array, rough: Array) -> Array:
    return (step(soft + 0.5, 8.0) + step(soft - 0.5, 8.0)) * 0.5


TEXTURES: dict[str, Texture] = {
    "stripes": _stripes,
    "checks": _checks,
    "dots": _dots,
    "waves": _waves,
    "rings": _rings,
    "clouds": _clouds,
    "bricks": _bricks,
    "grid": _grid,
    "zigzag": _zigzag,
    "rays": _rays,
    "triangles": _triangles,
    "marble": _marble,
    "speckle": _speckle,
    "weave": _weave,
    "honeycomb": _honeycomb,
    "patches": _patches,
}
"""Textures by name; in train and val, texture k goes with shape k most of the time."""

FUNCTIONS: tuple[Texture, ...] = tuple(TEXTURES.values())
