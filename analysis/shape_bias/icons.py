"""Small pictures of categories, drawn by us: the 16 of people's experiments, and shapes16's own.

An icon is a list of parts, each painted over those before it, in a square from -10 to 10 with y upwards. A part is a
string of commands: M, L, Q and Z as in SVG, "O x y a b" an ellipse about (x, y), "B left bottom right top" a box,
"S width x y x y …" straight strokes. "-" before the first command paints it in the colour of the paper.
"""

from __future__ import annotations

import math
import re
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.transforms import Affine2D

_WHEELS = ("-O-5.8 -4 3.1 3.1", "-O5.8 -4 3.1 3.1", "O-5.8 -4 2.3 2.3", "O5.8 -4 2.3 2.3")


def _turn(radii: tuple[float, ...], points: int, start: float = 90.0) -> str:
    """A closed polygon about the origin whose corners take the radii in turn, a whole turn in `points` steps."""
    corners = []
    for place in range(points):
        angle = math.radians(start + 360 * place / points)
        radius = radii[place % len(radii)]
        corners.append(f"{radius * math.cos(angle):.3f} {radius * math.sin(angle):.3f}")
    return "M" + " L".join(corners) + " Z"


ICONS: dict[str, tuple[str, ...]] = {
    "airplane": (
        "M-9 0 Q-9 -1.3 -6 -1.3 L6 -1.3 Q10 -1 10 0 Q10 1 6 1.3 L-6 1.3 Q-9 1.3 -9 0 Z",
        "M3 0 L-2.6 9.5 L-4.8 9.5 L-2.8 0 L-4.8 -9.5 L-2.6 -9.5 Z",
        "M-6 0 L-8.6 4.4 L-10 4.4 L-9 0 L-10 -4.4 L-8.6 -4.4 Z",
    ),
    "bear": (
        "O-6 6 3.4 3.4",
        "O6 6 3.4 3.4",
        "-O-6 6 1.5 1.5",
        "-O6 6 1.5 1.5",
        "O0 -1 8.4 7.8",
        "-O0 -4.2 4 3.2",
        "O0 -3 1.7 1.2",
        "-O-3.2 1.6 1 1",
        "-O3.2 1.6 1 1",
    ),
    "bicycle": (
        "O-5.6 -3.4 4.4 4.4",
        "-O-5.6 -3.4 3.2 3.2",
        "O5.6 -3.4 4.4 4.4",
        "-O5.6 -3.4 3.2 3.2",
        "S1.1 -5.6 -3.4 -2.4 2.6 4 2.6 0 -3.4 -5.6 -3.4",
        "S1.1 0 -3.4 -3 4.4",
        "S1.1 5.6 -3.4 3.4 5.4 6 5.8",
        "S1.3 -4.8 4.6 -1.2 4.6",
    ),
    "bird": (
        "M-10 -3.4 L-4 .4 Q-2.6 4.8 2 5 Q3 8 5.8 7.8 Q8 7.6 8.2 5.8 L10 5 L8.2 4.2 Q8.6 -2.6 2 -4 Q-3 -4.8 -10 -3.4 Z",
        "-M-1.8 2.2 Q4.6 2.4 4.4 -1.6 Q1 -.2 -1.8 2.2 Z",
        "-O5.9 5.9 .8 .8",
        "S1 0 -3.6 -.8 -8.4 1.4 -8.4",
        "S1 3 -3.4 2.4 -8.4 4.6 -8.4",
    ),
    "boat": (
        "M-10 -3.2 L10 -3.2 L6.6 -8.6 L-7.4 -8.6 Z",
        "S1 0 -3.4 0 9.6",
        "M1.2 9 L8.8 -1.8 L1.2 -1.8 Z",
        "M-1.2 6.6 L-7 -1.8 L-1.2 -1.8 Z",
    ),
    "bottle": (
        "M-1.7 9.8 L1.7 9.8 L1.7 4.6 Q4.3 3 4.3 .4 L4.3 -8.6 Q4.3 -9.8 3.2 -9.8 L-3.2 -9.8 Q-4.3 -9.8 -4.3 -8.6 "
        "L-4.3 .4 Q-4.3 3 -1.7 4.6 Z",
        "-B-2.9 -6.4 2.9 -1",
        "-B-1.8 6.9 1.8 7.7",
    ),
    "car": (
        "M-10 -4 L-10 -.6 Q-9.6 .7 -7 1.1 L-4.6 4.9 Q-4.1 5.6 -3.1 5.6 L3 5.6 Q4 5.6 4.6 4.9 L7.2 1.1 Q9.9 .7 10 -1 "
        "L10 -4 Z",
        "-M-5 1.2 L-3.1 4.3 L-.6 4.3 L-.6 1.2 Z",
        "-M.6 1.2 L.6 4.3 L3.1 4.3 L5.2 1.2 Z",
        *_WHEELS,
    ),
    "cat": (
        "M-7.6 0 L-7.9 9.6 L-1 5 Z",
        "M7.6 0 L7.9 9.6 L1 5 Z",
        "O0 -1.6 7.9 7",
        "-O-3.1 -.4 1.1 1.8",
        "-O3.1 -.4 1.1 1.8",
        "-M-1.2 -3.4 L1.2 -3.4 L0 -4.8 Z",
        "S.7 -6 -3.4 -9.7 -2.4",
        "S.7 -6 -4.8 -9.5 -5.6",
        "S.7 6 -3.4 9.7 -2.4",
        "S.7 6 -4.8 9.5 -5.6",
    ),
    "chair": ("B-5.6 -9.6 -3.8 9.6", "B-5.6 -1.6 5.6 .6", "B3.8 -9.6 5.6 -1"),
    "clock": ("O0 0 9.4 9.4", "-O0 0 7.6 7.6", "S1.4 0 -.4 0 5.8", "S1.4 -.4 .3 4 -2.4", "O0 0 1.2 1.2"),
    "dog": (
        "M-9.8 6 L-8.6 6.6 L-6.2 2.2 L2.6 2.2 L3.4 6.6 Q3.8 8.6 6 8.4 L7.4 6.6 L10 5.6 Q10 3.4 8 3.2 L6.6 2.8 "
        "L5.8 -1.4 L5.8 -8.8 L3.4 -8.8 L3 -2.8 L-3.6 -2.8 L-4.6 -5 L-4.6 -8.8 L-7 -8.8 L-7.4 -.6 L-7.6 2 Z",
        "-M4.4 6.8 Q2.6 4.6 3.6 2.6 Q5 3.2 5 6.2 Z",
        "-O6.5 6 .6 .6",
    ),
    "elephant": (
        "O-2.4 1.6 7 5.4",
        "M-9 1 L-8 -8.6 L-4.6 -8.6 L-4.2 -3 L-.8 -3 L-.4 -8.6 L3 -8.6 L3.4 0 Z",
        "O4.6 3 4 4.2",
        "M6 5.6 Q10.2 3.4 9.4 -3 Q9.2 -6.4 6.4 -6.6 L6.2 -4.8 Q7.6 -4.6 7.4 -2.4 Q7.2 .4 4.4 -.4 Z",
        "-O2 3 3 3.8",
        "O1.8 3.2 2.2 3",
        "-O6.3 4.2 .7 .7",
        "S.9 -8.4 3.4 -9.4 -1.6",
    ),
    "keyboard": (
        "M-10 -4.4 Q-10 -5.4 -9 -5.4 L9 -5.4 Q10 -5.4 10 -4.4 L10 4.4 Q10 5.4 9 5.4 L-9 5.4 Q-10 5.4 -10 4.4 Z",
        *(f"-B{left} {level} {left + 2} {level + 2}" for level in (1.9, -0.9) for left in (-8.5, -5.25, -2, 1.25, 4.5)),
        "-B7.2 1.9 8.6 3.9",
        "-B7.2 -.9 8.6 1.1",
        "-B-5.6 -3.8 5.6 -2",
    ),
    "knife": (
        "M-10 2.2 L2.4 2.2 L2.4 -2.4 Q-6.6 -2.4 -10 2.2 Z",
        "M3.2 2 L8.8 2 Q10 2 10 .8 L10 -.6 Q10 -1.8 8.8 -1.8 L3.2 -1.8 Z",
        "-O5 .1 .6 .6",
        "-O8 .1 .6 .6",
    ),
    "oven": (
        "B-8.4 -9.4 8.4 9.4",
        "-B-6.8 3.8 6.8 4.8",
        "-B-6 -7.4 6 1.6",
        "B-4.6 -6 4.6 .2",
        *(f"-O{place} 7 1.1 1.1" for place in (-5.4, -1.8, 1.8, 5.4)),
    ),
    "truck": (
        "B-10 -4 2.6 6.4",
        "M3.4 -4 L3.4 3.8 L7 3.8 L10 0 L10 -4 Z",
        "-M4.8 .4 L4.8 2.6 L6.4 2.6 L8.2 .4 Z",
        *_WHEELS,
    ),
    "circle": ("O0 0 8.8 8.8",),
    "square": ("B-7.8 -7.8 7.8 7.8",),
    "triangle": ("M-9.6 -7.4 L9.6 -7.4 L0 9.6 Z",),
    "star": (_turn((9.9, 4.2), 10),),
    "cross": ("B-2.9 -9.2 2.9 9.2", "B-9.2 -2.9 9.2 2.9"),
    "heart": ("M0 -9.2 L-8.4 -.6 Q-11 4 -8 7.2 Q-3.6 10.4 0 5.2 Q3.6 10.4 8 7.2 Q11 4 8.4 -.6 Z",),
    "crescent": ("O.7 0 9.3 9.3", "-O5.3 0 7.4 7.4"),
    "arrow": ("B-9.5 -2.7 1 2.7", "M-.2 -8.2 L9.7 0 L-.2 8.2 Z"),
    "ring": ("O0 0 9.1 9.1", "-O0 0 4.1 4.1"),
    "half-disc": ("M9.7 -4.8 Q9.7 -.8 6.9 2.1 Q4 4.9 0 4.9 Q-4 4.9 -6.9 2.1 Q-9.7 -.8 -9.7 -4.8 Z",),
    "corner": ("B-7.8 -9.2 -2.2 9.2", "B-7.8 -9.2 8.2 -3.6"),
    "tee": ("B-9.2 3 9.2 8.6", "B-2.8 -9.2 2.8 8.6"),
    "hourglass": ("M-8 9.2 L8 9.2 L1 0 L8 -9.2 L-8 -9.2 L-1 0 Z",),
    "lightning": ("M4.2 9.8 L-6.6 -1.6 L-.8 -1.6 L-4.2 -9.8 L6.6 1.6 L.8 1.6 Z",),
    "gear": (_turn((9.7, 9.7, 7, 7), 32, 84.4), "-O0 0 2.7 2.7"),
    "drop": ("O0 -3.6 5.8 5.8", "M-5.3 -1.2 L0 9.8 L5.3 -1.2 Z"),
}


def draw_icon(axes: Axes, name: str, left: float, top: float, size: float, *, ink: str, paper: str = "white") -> bool:
    """Draws a category's icon where axes have an inch for their unit; whether there is one.

    Args:
        axes: with any direction of y.
        name: of the category.
        left, top: the square's corner of least x, and of greatest height on the page.
        size: of the square, in data units.
        ink, paper: colours.
    """
    if name not in ICONS:
        return False
    upwards = 1 if axes.get_ylim()[0] < axes.get_ylim()[1] else -1
    place = Affine2D().scale(size / 20, upwards * size / 20).translate(left + size / 2, top - upwards * size / 2)
    for order, part in enumerate(ICONS[name]):
        colour = paper if part.startswith("-") else ink
        path = place.transform_path(parse_part(part.removeprefix("-")))
        axes.add_patch(PathPatch(path, facecolor=colour, linewidth=0, zorder=3 + order / 100, clip_on=False))
    return True


def parse_part(text: str) -> Path:
    """The path of one part without its "-"."""
    paths = []
    for command, rest in re.findall(r"([OBS])([^OBSM]*)", text):
        numbers = [float(number) for number in rest.split()]
        if command == "O":
            x, y, a, b = numbers
            paths.append(Affine2D().scale(a, b).translate(x, y).transform_path(Path.unit_circle()))
        elif command == "B":
            left, bottom, right, top = numbers
            paths.append(_close([(left, bottom), (right, bottom), (right, top), (left, top)]))
        else:
            points = np.array(numbers[1:]).reshape(-1, 2)
            paths += [_stroke(*pair, numbers[0] / 2) for pair in pairwise(points)]
    vertices: list[tuple[float, float]] = []
    codes: list[int] = []
    kinds: dict[str, list[int]] = {"M": [int(Path.MOVETO)], "L": [int(Path.LINETO)], "Q": [int(Path.CURVE3)] * 2}
    for command, rest in re.findall(r"([MLQZ])([^MLQZOBS]*)", text):
        if command == "Z":
            vertices.append(vertices[0])
            codes.append(int(Path.CLOSEPOLY))
        else:
            vertices += [tuple(pair) for pair in np.array(rest.split(), dtype=float).reshape(-1, 2).tolist()]
            codes += kinds[command]
    return Path.make_compound_path(*paths, *([Path(vertices, codes)] if vertices else []))


def _close(corners: list[tuple[float, float]]) -> Path:
    return Path([*corners, corners[0]], closed=True)


def _stroke(start: np.ndarray, end: np.ndarray, half: float) -> Path:
    """A straight stroke, a little longer than its ends, so that strokes join."""
    along = (end - start) / np.hypot(*(end - start)) * half
    across = np.array([-along[1], along[0]])
    start, end = start - 0.5 * along, end + 0.5 * along
    return _close([tuple(corner) for corner in (start + across, end + across, end - across, start - across)])
