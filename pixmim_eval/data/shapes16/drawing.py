"""Scenes to pixels: one image at a time, so that it is the same alone and in any batch, and fits the cache."""

from __future__ import annotations

import math
import threading
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from pixmim_eval.data.shapes16.composition import distractor_forms
from pixmim_eval.data.shapes16.labels import PLAIN
from pixmim_eval.data.shapes16.scenes import Backdrop, Coat, Distractor, Light, Pencil, Pose, Scene, Stroke, Thing
from pixmim_eval.data.shapes16.shapes import SILHOUETTES, outline_hull
from pixmim_eval.data.shapes16.textures import FUNCTIONS, noise_tile, step

Array = np.ndarray
Window = tuple[slice, slice]  # rows, columns

_RIM = 6.0  # the rim of an object is 1 / _RIM of its radius wide
_INK = 0.15  # brightness of a cartoon's outlines


class CutOut(NamedTuple):
    """A distractor, ready to be laid anywhere, each [h, w], as many pixels as it may touch.

    Args:
        distance: to its edge, in scene units.
        cover: 0 to 1.
        tone: how much of its second colour shows; None where it is plain.
    """

    distance: Array
    cover: Array
    tone: Array | None


class Canvas:
    """Draws scenes of one size. Its buffer is reused, so that a canvas belongs to one thread.

    Args:
        size: pixels of a side.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        centres = ((np.arange(size) + 0.5) * (2.0 / size) - 1.0).astype(np.float32)
        self._x, self._y = centres[None, :], centres[:, None]
        self._soft, self._rough = noise_tile(size, 3.0, 9.0), noise_tile(size)
        self._fine = noise_tile(size, 14.0)
        self._image = np.empty((3, size, size), dtype=np.float32)
        self._cut_outs = [self._cut(form) for form in distractor_forms()]

    def draw(self, scene: Scene) -> tuple[Array, Array]:
        """Draws one scene.

        Returns:
            The image, uint8 [S, S, 3], and the mask of the visible part of the object, bool [S, S].
        """
        mask = self._draw_things(scene) if scene.pencil is None else self._draw_sketch(scene, scene.pencil)
        if scene.style == "poster":
            self._posterise()
        if scene.stroke is not None and scene.style == "painted":
            self._paint_over(scene.stroke, scene.backdrop.coat.soft)
        if scene.grain:
            self._image += scene.grain * self._noise(self._fine, scene.thing.coat.rough)
        red, green, blue = self._image.clip(0.0, 255.0, out=self._image).astype(np.uint8)
        return np.stack((red, green, blue), axis=-1), mask

    def _draw_things(self, scene: Scene) -> Array:
        """Draws everything, from the back to the front; returns the object's mask."""
        self._draw_backdrop(scene.backdrop)
        for distractor in scene.behind:
            self._draw_distractor(distractor)
        mask = np.zeros((self.size, self.size), dtype=bool)
        window, cover = self._draw_thing(scene.thing, inked=scene.style == "cartoon")
        mask[window] = cover >= 0.5
        for distractor in scene.front:
            window, cover = self._draw_distractor(distractor)
            mask[window] &= cover < 0.5
        return mask

    def _noise(self, tile: Array, corner: tuple[int, int], window: Window = (slice(None), slice(None))) -> Array:
        """A window of a noise tile, whose corner is given in 64ths of a side so that it scales with the size."""
        top, left = (place * self.size // 64 for place in corner)
        return tile[top : top + self.size, left : left + self.size][window]

    def _window(self, thing: Thing, margin: float = 0.0) -> Window:
        """The pixels that a silhouette and a margin (scene units) around it may touch: its octagon, in the scene."""
        pose = thing.pose
        a, b, c, d = pose.matrix
        determinant = a * d - b * c
        across, down = [], []
        for u, v in outline_hull(thing.shape):
            u -= pose.bend * v * v
            x, y = (d * u - b * v) / determinant, (a * v - c * u) / determinant
            nearer = 1.0 / (1.0 - pose.tilt[0] * x - pose.tilt[1] * y)
            across.append(pose.x + x * nearer)
            down.append(pose.y + y * nearer)
        return self._span(min(down) - margin, max(down) + margin), self._span(
            min(across) - margin, max(across) + margin
        )

    def _span(self, low: float, high: float) -> slice:
        """Pixels from low to high (scene units), and two more on either side for soft edges, inside the image."""
        first, last = math.floor((low + 1.0) * self.size / 2) - 2, math.floor((high + 1.0) * self.size / 2) + 3
        return slice(min(max(first, 0), self.size), max(min(last, self.size), 0))

    def _locate(self, pose: Pose, window: Window) -> tuple[Array, Array]:
        """Silhouette coordinates of the pixels of a window."""
        a, b, c, d = pose.matrix
        x, y = self._x[:, window[1]] - pose.x, self._y[window[0]] - pose.y
        u, v = a * x + b * y, c * x + d * y
        distance = 1.0 / ((pose.tilt[0] * x + 1.0) + pose.tilt[1] * y)
        u *= distance
        v *= distance
        u += pose.bend * (v * v)
        return u, v

    def _tone(self, coat: Coat, u: Array, v: Array, window: Window) -> Array:
        """How much of the coat's second colour shows."""
        p, q, r, s = coat.matrix
        across, down = u * p + v * q, u * r + v * s
        across += coat.phase[0]
        down += coat.phase[1]
        soft, rough = self._noise(self._soft, coat.soft, window), self._noise(self._rough, coat.rough, window)
        return FUNCTIONS[coat.texture](across, down, coat.period * self.size / 2, soft, rough)

    def _draw_thing(self, thing: Thing, inked: bool) -> tuple[Window, Array]:
        """Draws a thing over the image; returns its window and coverage."""
        window = self._window(thing)
        u, v = self._locate(thing.pose, window)
        distance = SILHOUETTES[thing.shape](u, v)
        sharp = thing.pose.radius * self.size / 2
        cover = step(-distance, sharp)
        if thing.light is not None and thing.light.shadow:
            self._cast_shadow(thing.light, distance, window)
        colour = np.empty((3, *cover.shape), dtype=np.float32)
        if thing.coat.texture == PLAIN:
            colour[:] = _column(thing.coat.first)
        else:
            first, second = _column(thing.coat.first), _column(thing.coat.second)
            np.multiply(self._tone(thing.coat, u, v, window), second - first, out=colour)
            colour += first
        if thing.light is not None:
            colour *= self._shade(thing, thing.light, u, v, distance, window)
        if inked:
            colour *= 1.0 - (1.0 - _INK) * step(distance + 0.04 / thing.pose.radius, sharp)
        region = self._image[:, window[0], window[1]]
        colour -= region
        colour *= cover
        region += colour
        return window, cover

    def _cut(self, form: Thing) -> CutOut:
        window = self._window(form)
        u, v = self._locate(form.pose, window)
        distance = SILHOUETTES[form.shape](u, v) * np.float32(form.pose.radius)
        tone = None if form.coat.texture == PLAIN else self._tone(form.coat, u, v, window)
        return CutOut(distance, step(-distance, self.size / 2), tone)

    def _lay(self, distractor: Distractor) -> tuple[Window, CutOut]:
        """Where a distractor lies, and what of its cut-out is inside the image (perhaps nothing)."""
        across, down = distractor.mirror
        height, width = self._cut_outs[distractor.form].cover.shape
        top = distractor.y * self.size // 64 - height // 2
        left = distractor.x * self.size // 64 - width // 2
        first_row, first_column = max(top, 0), max(left, 0)
        rows = slice(first_row, max(min(top + height, self.size), first_row))
        columns = slice(first_column, max(min(left + width, self.size), first_column))
        part = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
        distance, cover, tone = self._cut_outs[distractor.form]
        return (rows, columns), CutOut(
            distance[::down, ::across][part],
            cover[::down, ::across][part],
            None if tone is None else tone[::down, ::across][part],
        )

    def _draw_distractor(self, distractor: Distractor) -> tuple[Window, Array]:
        """Draws a distractor over the image; returns its window and coverage."""
        window, cut_out = self._lay(distractor)
        first = _column(distractor.first)
        region = self._image[:, window[0], window[1]]
        if cut_out.tone is None:
            colour = first - region
        else:
            colour = cut_out.tone * (_column(distractor.second) - first)
            colour += first
            colour -= region
        colour *= cut_out.cover
        region += colour
        return window, cut_out.cover

    def _shade(self, thing: Thing, light: Light, u: Array, v: Array, distance: Array, window: Window) -> Array:
        shade = (distance * _RIM + 1.0).clip(0.0, 1.0)
        shade *= light.rim
        shade += u * light.slope[0]
        shade += v * light.slope[1]
        shade += 0.13 * self._noise(self._rough, thing.coat.soft, window)
        shade += 1.0
        return shade

    def _cast_shadow(self, light: Light, distance: Array, window: Window) -> None:
        """Darkens what lies beside the object: its own soft silhouette, shifted."""
        right, down = (shift * self.size // 64 for shift in light.shift)
        rows, columns = window
        top, left = max(rows.start + down, 0), max(columns.start + right, 0)
        region = self._image[:, top : rows.stop + down, left : columns.stop + right]
        height, width = region.shape[1:]
        above, before = top - rows.start - down, left - columns.start - right
        shadow = step(-distance[above : above + height, before : before + width], 9.0)
        shadow *= -light.shadow
        shadow += 1.0
        region *= shadow

    def _draw_backdrop(self, backdrop: Backdrop) -> None:
        coat = backdrop.coat
        field = self._x * backdrop.slope[0] + (self._y * backdrop.slope[1] + 0.5)
        if backdrop.cloud:
            field += backdrop.cloud * self._noise(self._rough, coat.rough)
        across, down, offset, strength = backdrop.horizon
        if strength:
            field += strength * step(self._x * across + (self._y * down - offset), self.size / 2)
        if backdrop.relief:
            everywhere = (slice(0, self.size), slice(0, self.size))
            u, v = np.broadcast_arrays(self._x, self._y)
            field += backdrop.relief * self._tone(coat, u, v, everywhere)
        first, second = _column(coat.first), _column(coat.second)
        np.multiply(field, second - first, out=self._image)
        self._image += first

    def _draw_sketch(self, scene: Scene, pencil: Pencil) -> Array:
        """Outlines on paper, those of the distractors fainter; the mask is the object's whole silhouette."""
        self._image[:] = pencil.paper
        mask = np.zeros((self.size, self.size), dtype=bool)
        for distractor in scene.behind:
            window, cut_out = self._lay(distractor)
            self._draw_line(window, cut_out.distance + pencil.width, pencil, 0.45)  # inside, where the cut-out ends
        thing = scene.thing
        window = self._window(thing, margin=pencil.width + 4.0 * pencil.wobble)
        distance = SILHOUETTES[thing.shape](*self._locate(thing.pose, window)) * thing.pose.radius
        mask[window] = distance <= 0
        self._image[:, mask] = pencil.paper
        distance += pencil.wobble * self._noise(self._rough, thing.coat.rough, window)
        self._draw_line(window, distance, pencil, 1.0)
        return mask

    def _draw_line(self, window: Window, distance: Array, pencil: Pencil, strength: float) -> None:
        line = step(pencil.width - np.abs(distance), self.size / 2)
        line *= strength
        region = self._image[:, window[0], window[1]]
        region += line * (pencil.line - region)

    def _posterise(self, levels: int = 4) -> None:
        self._image *= levels / 256.0
        np.floor(self._image, out=self._image)
        self._image *= 255.0 / (levels - 1)

    def _paint_over(self, stroke: Stroke, corner: tuple[int, int]) -> None:
        """Gives all pixels of a brush stroke the colour under its centre, a little lighter or darker."""
        cosine, sine = math.cos(stroke.angle), math.sin(stroke.angle)
        row = np.floor((self._y * cosine - self._x * sine) / stroke.breadth)
        along = (self._x * cosine + self._y * sine) / stroke.length + row * 0.382
        u = (np.floor(along) + 0.5 - row * 0.382) * stroke.length
        v = (row + 0.5) * stroke.breadth
        half = self.size / 2
        x = ((u * cosine - v * sine + 1.0) * half).astype(np.intp).clip(0, self.size - 1)
        y = ((u * sine + v * cosine + 1.0) * half).astype(np.intp).clip(0, self.size - 1)
        self._image[:] = self._image[:, y, x]
        self._image += 14.0 * self._noise(self._fine, corner)[y, x]


def _column(colour: tuple[float, float, float]) -> Array:
    return np.array(colour, dtype=np.float32)[:, None, None]


def canvas(size: int) -> Canvas:
    """The calling thread's canvas of a size; its grids, noise and distractors are made once."""
    return _canvas(size, threading.get_ident())


@lru_cache(maxsize=4)
def _canvas(size: int, thread: int) -> Canvas:
    return Canvas(size)
