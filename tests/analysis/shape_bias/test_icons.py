"""Every category has its own small picture, inside its square; those of shapes16 are its shapes."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from matplotlib.figure import Figure

from analysis.shape_bias.icons import ICONS, draw_icon, parse_part
from pixmim_eval.data.categories import CATEGORIES
from pixmim_eval.data.shapes16 import SHAPES

TICKS = np.linspace(-9.95, 9.95, 80)
GRID = np.stack(np.meshgrid(TICKS, TICKS), axis=-1).reshape(-1, 2)


def fill(name: str) -> np.ndarray:
    """bool [80, 80]: where the icon is ink, row by row from its lower edge."""
    inked = np.zeros(len(GRID), dtype=bool)
    for part in ICONS[name]:
        inside = np.zeros(len(GRID), dtype=bool)
        for polygon in parse_part(part.removeprefix("-")).to_polygons():
            inside |= _contains(np.asarray(polygon))
        inked[inside] = not part.startswith("-")
    return inked.reshape(80, 80)


def _contains(polygon: np.ndarray) -> np.ndarray:
    """bool: which grid points are inside, by the number of edges that a ray to the right crosses."""
    x, y = GRID.T
    crossed = np.zeros(len(GRID), dtype=int)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if y0 != y1:
            crossed += ((y0 > y) != (y1 > y)) & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    return crossed % 2 == 1


def test_every_category_has_an_icon_of_its_own() -> None:
    assert set(ICONS) == {*CATEGORIES, *SHAPES}
    pictures = {name: fill(name) for name in ICONS}
    for first, second in combinations(ICONS, 2):
        assert (pictures[first] != pictures[second]).mean() > 0.05, (first, second)


@pytest.mark.parametrize("name", ICONS)
def test_no_icon_leaves_its_square(name: str) -> None:
    for part in ICONS[name]:
        corners = parse_part(part.removeprefix("-")).get_extents()
        limit = 13 if part.startswith("-") else 10.1  # paper may reach into the margin
        assert np.abs(corners.get_points()).max() <= limit


@pytest.mark.parametrize("name", SHAPES)
def test_the_icons_of_shapes16_are_its_silhouettes(name: str) -> None:
    across, down = np.meshgrid(TICKS / 10, -TICKS / 10)
    silhouette, icon = SHAPES[name](across, down) <= 0, fill(name)
    assert (silhouette & icon).sum() / (silhouette | icon).sum() > 0.8


@pytest.mark.parametrize("upwards", [True, False])
def test_an_icon_stands_upright_where_it_is_put(upwards: bool) -> None:
    axes = Figure().add_axes((0, 0, 1, 1))
    axes.set_ylim(*((0, 5) if upwards else (5, 0)))
    assert draw_icon(axes, "triangle", 1, 3, 2, ink="black")
    (patch,) = axes.patches
    box = patch.get_path().get_extents()
    assert 1 <= box.x0 < box.x1 <= 3
    apex = patch.get_path().vertices[2]  # its last corner points upwards
    assert apex[1] == pytest.approx(box.y1 if upwards else box.y0)
    assert (box.y0 >= 1 and box.y1 <= 3) if upwards else (box.y0 >= 3 and box.y1 <= 5)


def test_a_category_without_an_icon_is_told() -> None:
    axes = Figure().add_axes((0, 0, 1, 1))
    assert not draw_icon(axes, "zebra", 0, 1, 1, ink="black")
    assert not axes.patches
