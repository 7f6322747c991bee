"""Scenes as plain numbers. Nothing here knows about pixels, so a scene is the same at every size.

Scene coordinates run from -1 to 1 over the image, x to the right and y downwards.
"""

from __future__ import annotations

from dataclasses import dataclass

Colour = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Pose:
    """Where a silhouette lies.

    Args:
        x, y: centre.
        matrix: (a, b, c, d): from a step (dx, dy) in the scene to the silhouette, u = a dx + b dy, v = c dx + d dy.
        tilt: (tx, ty): perspective, u and v are divided by 1 + tx dx + ty dy.
        bend: then u gains bend * v * v.
        radius: half the span in scene units, the geometric mean over directions.
    """

    x: float
    y: float
    matrix: tuple[float, float, float, float]
    tilt: tuple[float, float]
    bend: float
    radius: float


@dataclass(frozen=True, slots=True)
class Coat:
    """How a surface is painted.

    Args:
        texture: index into TEXTURES, or -1 for the first colour only.
        first, second: colours, 0 to 255 (a little beyond where saturated); the texture says how much of the second
            shows.
        matrix: (p, q, r, s): from silhouette to texture coordinates (period 1).
        phase: added to texture coordinates.
        period: of the texture, in scene units.
        soft, rough: corners of the noise windows, in 64ths of a side.
    """

    texture: int
    first: Colour
    second: Colour
    matrix: tuple[float, float, float, float]
    phase: tuple[float, float]
    period: float
    soft: tuple[int, int]
    rough: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Light:
    """Shading of an object: 1 + slope . (u, v) + rim near the edge; and its shadow (shift in 64ths of a side)."""

    slope: tuple[float, float]
    rim: float
    shadow: float
    shift: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Thing:
    """A silhouette in its pose and coat; light is None for flat ones."""

    shape: int
    pose: Pose
    coat: Coat
    light: Light | None


@dataclass(frozen=True, slots=True)
class Distractor:
    """One of `distractor_forms`, laid somewhere.

    Args:
        form: which one.
        mirror: left to right and top to bottom, each 1 or -1.
        x, y: centre, in 64ths of a side.
        first, second: colours.
    """

    form: int
    mirror: tuple[int, int]
    x: int
    y: int
    first: Colour
    second: Colour


@dataclass(frozen=True, slots=True)
class Backdrop:
    """The background: a mixture of two colours by noise, a slope, perhaps a horizon and perhaps a faint texture.

    Args:
        coat: its colours, noise and texture.
        cloud: strength of the noise.
        slope: change from the centre to the right and lower border.
        horizon: (nx, ny, offset, strength) of a step across a line, strength 0 for none.
        relief: strength of the texture, 0 for none.
    """

    coat: Coat
    cloud: float
    slope: tuple[float, float]
    horizon: tuple[float, float, float, float]
    relief: float


@dataclass(frozen=True, slots=True)
class Pencil:
    """How a sketch is drawn: grey values of paper and line, half the line's width in scene units, wobble likewise."""

    paper: float
    line: float
    width: float
    wobble: float


@dataclass(frozen=True, slots=True)
class Stroke:
    """Brush strokes of a painted image: their angle, and length and breadth in scene units."""

    angle: float
    length: float
    breadth: float


@dataclass(frozen=True, slots=True)
class Scene:
    """One image.

    Args:
        backdrop, behind, thing, front: drawn in this order; thing is the one that the label names.
        grain: strength of fine noise over the whole image, in grey levels.
        pencil: of a sketch, else None.
        style, stroke: of a rendition, else None.
    """

    backdrop: Backdrop
    behind: tuple[Distractor, ...]
    thing: Thing
    front: tuple[Distractor, ...]
    grain: float
    pencil: Pencil | None = None
    style: str | None = None
    stroke: Stroke | None = None
