"""Draws scenes by lot: from (seed, variant, row) and from nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch

from pixmim_eval.data.shapes16.labels import PLAIN, STYLES, VERSION, shapes, stream_seed, styles, textures
from pixmim_eval.data.shapes16.scenes import (
    Backdrop,
    Coat,
    Colour,
    Distractor,
    Light,
    Pencil,
    Pose,
    Scene,
    Stroke,
    Thing,
)
from pixmim_eval.data.shapes16.shapes import BAR, SHAPES
from pixmim_eval.data.shapes16.textures import TEXTURES
from pixmim_eval.seeds import derive_seed, uniform

_NUMBERS = 288  # random numbers an image: more than the busiest scene uses
_HUES = tuple(tuple(math.cos(math.tau * (k / 64 + third / 3)) for third in (0, 1, -1)) for k in range(64))
_SMALL, _LARGE = 192, 64  # distractors of each kind
_PEBBLE, _SHARD = list(SHAPES).index("circle"), list(SHAPES).index("triangle")


class Dice:
    """Random numbers of one image, used up in order."""

    def __init__(self, numbers: Iterator[float]) -> None:
        self._numbers = numbers

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * next(self._numbers)

    def about(self, reach: float) -> float:
        return self.between(-reach, reach)

    def ratio(self, most: float) -> float:
        """Log-uniform in [1 / most, most]."""
        return math.exp(self.about(math.log(most)))

    def chance(self, share: float) -> bool:
        return next(self._numbers) < share

    def pick(self, count: int) -> int:
        return int(next(self._numbers) * count)


def _colour(dice: Dice, lightness: float) -> Colour:
    """A colour of this lightness (0 to 1) and of any hue, more or less saturated."""
    level, strength = 255.0 * lightness, dice.between(0.0, 90.0)
    red, green, blue = _HUES[dice.pick(len(_HUES))]
    return level + strength * red, level + strength * green, level + strength * blue


def _pose(
    dice: Dice, x: float, y: float, radius: float, turn: float, aspect: float, shear: float, tilt: float, bend: float
) -> Pose:
    """A pose at (x, y) of this radius and aspect; turn, shear, perspective and bend are drawn up to these limits."""
    angle, flip = dice.about(turn), -1.0 if dice.chance(0.5) else 1.0
    cosine, sine, shear, stretch = math.cos(angle), math.sin(angle), dice.about(shear), math.sqrt(aspect)
    across, down = flip / (radius * stretch), stretch / radius
    return Pose(
        x,
        y,
        ((cosine + shear * sine) * across, (sine - shear * cosine) * across, -sine * down, cosine * down),
        (dice.about(tilt) / radius, dice.about(tilt) / radius),
        dice.about(bend),
        radius,
    )


def _corner(dice: Dice) -> tuple[int, int]:
    """Corner of a window of the noise tile, which is three sides wide."""
    return dice.pick(3 * 64), dice.pick(3 * 64)


def _coat(dice: Dice, texture: int, radius: float, first: float, second: float) -> Coat:
    """Colours of two lightnesses, and a texture of random turn (up to 26 degrees in the object), period and phase."""
    angle, period = dice.about(0.45), dice.between(0.18, 0.28)
    cosine, sine = math.cos(angle) * radius / period, math.sin(angle) * radius / period
    return Coat(
        texture,
        _colour(dice, first),
        _colour(dice, second),
        (cosine, -sine, sine, cosine),
        (dice.about(0.5), dice.about(0.5)),
        period,
        _corner(dice),
        _corner(dice),
    )


def _lightnesses(dice: Dice, low: float, high: float) -> tuple[float, float]:
    """Two lightnesses that differ by low or more, up to high: both may take any value."""
    first = dice.between(0.0, 1.0)
    return first, (first + dice.between(low, high)) % 1.0


def _light(dice: Dice) -> Light:
    return Light(
        (dice.about(0.28), dice.about(0.28)),
        dice.about(0.3),
        dice.between(0.0, 0.6),
        (dice.pick(9) - 4, dice.pick(9) - 2),
    )


def _backdrop(dice: Dice, avoided: tuple[float, float]) -> Backdrop:
    """A background; of three lightnesses, that farthest from the two avoided ones."""
    drawn = (dice.between(0.1, 0.9), dice.between(0.1, 0.9), dice.between(0.1, 0.9))
    lightness = max(drawn, key=lambda level: min(abs(level - avoided[0]), abs(level - avoided[1])))
    spread = dice.between(0.06, 0.18)
    coat = _coat(dice, dice.pick(len(TEXTURES)), 1.0, lightness - spread, lightness + spread)
    angle = dice.between(0.0, math.tau) if dice.chance(0.3) else math.pi / 2 + dice.about(0.2)
    return Backdrop(
        coat,
        dice.between(0.15, 0.45),
        (dice.about(0.25), dice.about(0.25)),
        (math.cos(angle), math.sin(angle), dice.about(0.7), dice.about(0.9) if dice.chance(0.5) else 0.0),
        dice.between(0.15, 0.5) if dice.chance(0.2) else 0.0,
    )


@lru_cache(maxsize=1)
def distractor_forms() -> tuple[Thing, ...]:
    """Pebbles, shards and straight or bent bars, three in ten of them textured: never the silhouette of a class.

    All lie at the centre of the scene. They are the same in every data set, because images share them: only place,
    mirroring and colours are drawn for each image, which costs a tenth of drawing each anew.
    """
    numbers = uniform(derive_seed("shapes16", VERSION, "distractors"), torch.arange(_SMALL + _LARGE), 64).tolist()
    forms = []
    for k, row in enumerate(numbers):
        dice = Dice(iter(row))
        radius = dice.between(0.09, 0.2) if k < _SMALL else dice.between(0.2, 0.36)
        shape = (_PEBBLE, _SHARD, BAR, BAR)[k % 4]
        aspect, bend = (dice.ratio(1.3), 0.7) if shape == BAR else (dice.between(1.6, 2.4), 0.1)
        pose = _pose(dice, 0.0, 0.0, radius, math.pi, aspect, 0.5, 0.1, bend)
        texture = dice.pick(len(TEXTURES)) if dice.chance(0.3) else PLAIN
        forms.append(Thing(shape, pose, _coat(dice, texture, radius, 0.0, 1.0), None))
    return tuple(forms)


def _distractor(dice: Dice, form: int, x: float, y: float) -> Distractor:
    first, second = _lightnesses(dice, 0.25, 0.75)
    quarter = dice.pick(4)
    mirror = 1 - 2 * (quarter & 1), 1 - (quarter & 2)
    place = math.floor(32.0 * (x + 1.0)), math.floor(32.0 * (y + 1.0))
    return Distractor(form, mirror, *place, _colour(dice, first), _colour(dice, second))


def _behind(dice: Dice, count: int, forms: int) -> tuple[Distractor, ...]:
    return tuple(_distractor(dice, dice.pick(forms), dice.about(1.0), dice.about(1.0)) for _ in range(count))


def _compose_plain(dice: Dice, shape: int, texture: int) -> Scene:
    """A scene of train, val or cue-conflict; sketch and rendition begin with one, too."""
    lightnesses = _lightnesses(dice, 0.32, 0.68)
    backdrop, behind = _backdrop(dice, lightnesses), _behind(dice, 3 + dice.pick(4), _SMALL)
    radius = dice.between(0.48, 0.8)
    x, y = dice.about(1.02 - radius), dice.about(1.02 - radius)
    pose = _pose(dice, x, y, radius, math.radians(35.0), dice.ratio(1.3), 0.18, 0.15, 0.08)
    thing = Thing(shape, pose, _coat(dice, texture, radius, *lightnesses), _light(dice))
    return Scene(backdrop, behind, thing, (), grain=dice.between(2.0, 9.0))


def _compose_hard(dice: Dice, shape: int, texture: int) -> Scene:
    """Small or large, turned and tilted by any amount, of low contrast, among clutter and behind two to four things."""
    lightnesses = _lightnesses(dice, 0.2, 0.45)
    backdrop, behind = _backdrop(dice, lightnesses), _behind(dice, 5 + dice.pick(5), _SMALL + _LARGE)
    small = dice.chance(0.6)
    radius = dice.between(0.38, 0.52) if small else dice.between(0.8, 1.05)
    x, y = dice.about(0.95 - radius if small else 0.3), dice.about(0.95 - radius if small else 0.3)
    pose = _pose(dice, x, y, radius, math.pi, dice.ratio(1.6), 0.35, 0.3, 0.15)
    thing = Thing(shape, pose, _coat(dice, texture, radius, *lightnesses), _light(dice))
    front = []
    for _ in range(2 + dice.pick(3)):
        angle, away = dice.between(0.0, math.tau), dice.between(0.3, 0.95) * radius
        form = dice.pick(_SMALL) if small else _SMALL + dice.pick(_LARGE)
        front.append(_distractor(dice, form, x + away * math.cos(angle), y + away * math.sin(angle)))
    return Scene(backdrop, behind, thing, tuple(front), grain=dice.between(6.0, 16.0))


def _render_in_style(scene: Scene, style: str, dice: Dice) -> Scene:
    """The same scene as a picture: flat colours, few levels, brush strokes, or flat with dark outlines."""
    stroke = Stroke(dice.between(0.0, math.pi), dice.between(0.1, 0.17), dice.between(0.045, 0.065))
    scene = replace(scene, style=style, stroke=stroke, grain=0.0)
    if style not in ("flat", "cartoon"):
        return scene
    backdrop = replace(scene.backdrop, cloud=0.0, slope=(0.0, 0.0), relief=0.0)
    behind = tuple(replace(thing, second=thing.first) for thing in scene.behind)
    return replace(scene, backdrop=backdrop, behind=behind, thing=replace(scene.thing, light=None))


def _sketch(scene: Scene, dice: Dice) -> Scene:
    """The same objects in pencil on paper, or now and then in chalk on a board."""
    paper, line = dice.between(205.0, 250.0), dice.between(15.0, 90.0)
    if dice.chance(0.15):
        paper, line = 255.0 - paper, 255.0 - line
    pencil = Pencil(paper, line, dice.between(0.018, 0.034), dice.between(0.0, 0.012))
    return replace(scene, behind=scene.behind[:2], pencil=pencil, grain=dice.between(2.0, 6.0))


def compose(rows: np.ndarray, variant: str, seed: int) -> list[Scene]:
    """The scenes of rows, one each. Args as in `shapes`."""
    rows = np.asarray(rows, dtype=np.int64)
    numbers = uniform(stream_seed("scene", variant, seed), torch.from_numpy(rows), _NUMBERS)
    labels, coats = shapes(rows, variant, seed).tolist(), textures(rows, variant, seed).tolist()
    chosen = styles(rows, seed).tolist() if variant == "rendition" else None
    found = []
    for i, row in enumerate(numbers.tolist()):
        dice = Dice(iter(row))
        scene = (_compose_hard if variant == "hard" else _compose_plain)(dice, labels[i], coats[i])
        if variant == "sketch":
            scene = _sketch(scene, dice)
        if chosen is not None:
            scene = _render_in_style(scene, STYLES[chosen[i]], dice)
        found.append(scene)
    return found
