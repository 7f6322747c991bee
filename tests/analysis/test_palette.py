"""The palette holds for the colour-blind: colours stay apart as they see them, and nothing rests on colour alone."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb

from analysis.layout import HUES, MARKERS, ON_DARK_PAGE, choose_looks, darken, lighten
from analysis.subjects import Subject

# Machado, Oliveira and Fernandes, IEEE TVCG 2009, severity 1.0, on linear RGB.
SIGHTS = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
WHITE = np.array([0.95047, 1.0, 1.08883])
APART = 15.0  # of CIE 1976; a just noticeable difference is 2.3


def linearise(colour: str) -> np.ndarray:
    levels = np.array(to_rgb(colour))
    return np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)


def see(colour: str, sight: str) -> np.ndarray:
    """CIE L*a*b* of a colour as that person sees it."""
    ratio = TO_XYZ @ np.clip(SIGHTS[sight] @ linearise(colour), 0, 1) / WHITE
    bent = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * bent[1] - 16, 500 * (bent[0] - bent[1]), 200 * (bent[1] - bent[2])])


def measure_distance(first: str, second: str, sight: str) -> float:
    return float(np.linalg.norm(see(first, sight) - see(second, sight)))


def test_the_distance_is_that_of_the_standard() -> None:
    """sRGB's red and green: their published L*a*b* values, whose distance is 170.6."""
    np.testing.assert_allclose(see("#ff0000", "normal"), (53.24, 80.09, 67.20), atol=0.02)
    np.testing.assert_allclose(see("#00ff00", "normal"), (87.73, -86.18, 83.18), atol=0.02)
    assert measure_distance("#ff0000", "#00ff00", "normal") == pytest.approx(170.6, abs=0.1)
    assert (
        measure_distance("#c00000", "#507000", "deuteranopia") < 25 < measure_distance("#c00000", "#507000", "normal")
    )


@pytest.mark.parametrize("sight", SIGHTS)
def test_families_stay_apart(sight: str) -> None:
    assert min(measure_distance(*pair, sight) for pair in combinations(HUES, 2)) > APART


@pytest.mark.parametrize("sight", SIGHTS)
@pytest.mark.parametrize("shade", [darken, lighten])
def test_a_pixmim_version_stays_apart_from_its_base(sight: str, shade: object) -> None:
    assert callable(shade)
    assert min(measure_distance(hue, shade(hue), sight) for hue in HUES) > APART


def test_every_colour_is_seen_on_a_dark_page() -> None:
    """At least 4.5 to 1, as is asked of text; of the palest on white nothing is: hatches and outlines carry those."""
    for colour in [to_hex(hue) for hue in HUES] + [darken(hue) for hue in HUES]:
        assert measure_contrast(ON_DARK_PAGE.get(colour, colour), "#16171a") >= 4.5, colour


def measure_contrast(first: str, second: str) -> float:
    """Web Content Accessibility Guidelines 2.1, contrast ratio."""
    dark, light = sorted(float(TO_XYZ[1] @ linearise(colour)) for colour in (first, second))
    return (light + 0.05) / (dark + 0.05)


def test_without_colour_markers_lines_and_hatches_tell_models_apart() -> None:
    subjects = [
        Subject(f"{prefix}{family}", "", "", "", f"{prefix}{family}", None, 0, family, "")
        for family in range(len(HUES))
        for prefix in ("", "pixmim-")
    ]
    bases, versions = choose_looks(tuple(subjects))[::2], choose_looks(tuple(subjects))[1::2]
    assert len({look.marker for look in bases}) == len(MARKERS) == len(HUES)
    for base, version in zip(bases, versions, strict=True):
        assert version.marker not in {look.marker for look in bases}
        assert base.line == "-" and version.line != "-"
        assert not base.hatch and version.hatch
