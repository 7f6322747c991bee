"""Pictures of images with their objects: boxes and masks in the truth, and as models find them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke

from pixmim_eval.data.coco import DetectionSet
from pixmim_eval.transfer.detection.answers import Detections, paste_mask
from pixmim_eval.transfer.pictures import COLOURS, OTHER, choose_shown, parse_colour, write_pages

WIDTH, HIGHEST = 1.9, 1.7  # of a panel in inches
SHOWN = 0.3  # the least score that is drawn, but for an image's best
LETTERS = 4.0  # height of labels in points
_STRENGTH = 0.45  # of masks over the image


@dataclass(frozen=True)
class Overlay:
    """One image with what is known of its objects.

    Args:
        image: uint8 [H, W, 3].
        data, row: where its truth is.
        answers: name of a column -> what was found; the same names for all images.
    """

    image: np.ndarray
    data: DetectionSet
    row: int
    answers: dict[str, Detections]


@dataclass(frozen=True)
class _Mark:
    """One object of a panel: its box, what to say, its colour, and its pixels (bool [h, w] from top, left) if any."""

    box: np.ndarray
    text: str
    colour: str
    pixels: np.ndarray | None
    corner: tuple[int, int]


def draw_overlays(overlays: Sequence[Overlay], stem: Path, caption: str) -> list[Path]:
    """One row an image: the truth, then each model's detections of a score of SHOWN or more, or else its best; with a
    legend of the nine most frequent classes, whose numbers stand on the boxes. Other classes are grey, and named there.

    Args:
        overlays: at least one.
        stem: path of the files without ending, see pictures.write_pages.
        caption: what else to say below.

    Returns:
        A PNG and a PDF of each picture.
    """
    shown = _choose_shown(overlays)
    return write_pages([*overlays[0].answers], stem, lambda names: _draw_page(overlays, names, shown, caption))


def _choose_shown(overlays: Sequence[Overlay]) -> list[int]:
    """The classes that have a colour: the most frequent in the truth, then in the answers."""
    counts = np.zeros(len(overlays[0].data.classes))
    for overlay in overlays:
        counts += np.bincount(overlay.data.objects(overlay.row).labels, minlength=len(counts))
        for found in overlay.answers.values():
            counts += 1e-3 * np.bincount(found.labels[_choose_drawn(found)], minlength=len(counts))
    return choose_shown(counts)


def _draw_page(overlays: Sequence[Overlay], names: Sequence[str], shown: list[int], caption: str) -> Figure:
    heights = [min(HIGHEST, WIDTH * overlay.image.shape[0] / overlay.image.shape[1]) for overlay in overlays]
    titles = ["\n".join(textwrap.wrap(name, 26)) for name in ("truth", *names)]
    gap, below, above = 0.05, 0.62, 0.14 * (1 + max(title.count("\n") for title in titles))
    width = len(titles) * (WIDTH + gap) + gap
    height = above + sum(heights) + gap * (len(heights) + 1) + below
    figure = Figure(figsize=(width, height))
    bottom = height - above
    for row, (overlay, size) in enumerate(zip(overlays, heights, strict=True)):
        bottom -= size + gap
        found = [_mark_found(overlay, overlay.answers[name], shown) for name in names]
        for column, marks in enumerate([_mark_truth(overlay, shown), *found]):
            left = gap + column * (WIDTH + gap)
            axes = figure.add_axes((left / width, bottom / height, WIDTH / width, size / height))
            _draw_panel(axes, overlay.image, marks)
            if row == 0:
                axes.set_title(titles[column], pad=2, fontsize=7)
    _draw_legend(figure, overlays[0].data.classes, shown)
    drawn = f"Detections of {100 * SHOWN:.0f} or more are drawn, or else the best"
    caption = f"{caption} {drawn}; labels without room are left out."
    caption = "\n".join(textwrap.wrap(caption, int(26 * width)))
    figure.text(0.5, 0.05 / height, caption, ha="center", va="bottom", fontsize=6, color="#333333")
    return figure


def _draw_legend(figure: Figure, classes: Sequence[str], shown: list[int]) -> None:
    width, height = figure.get_size_inches()
    handles = [
        Patch(facecolor=COLOURS[place], label=f"{place + 1} {classes[label]}") for place, label in enumerate(shown)
    ]
    figure.legend(
        handles=handles,
        loc="lower center",
        ncols=max(2, min(5, int(width / 1.1))),
        bbox_to_anchor=(0.5, 0.22 / height),
        frameon=False,
        fontsize=6,
        handlelength=1.0,
        columnspacing=1.0,
        labelspacing=0.2,
    )


def _mark_truth(overlay: Overlay, shown: list[int]) -> list[_Mark]:
    objects, data = overlay.data.objects(overlay.row), overlay.data
    masks = data.masks(overlay.row) if data.with_masks else [None] * len(objects.boxes)
    return [
        _Mark(box, _name(data, label, shown) + (" (crowd)" if crowd else ""), _colour(label, shown), mask, (0, 0))
        for box, label, crowd, mask in zip(
            objects.boxes, objects.labels.tolist(), objects.crowd.tolist(), masks, strict=True
        )
    ]


def _choose_drawn(found: Detections) -> np.ndarray:
    """Positions of the detections that are drawn, the best first."""
    return np.flatnonzero((found.scores >= SHOWN) | (np.arange(len(found.scores)) == 0))


def _mark_found(overlay: Overlay, found: Detections, shown: list[int]) -> list[_Mark]:
    height, width = overlay.image.shape[:2]
    marks = []
    for place in _choose_drawn(found)[::-1].tolist():  # the best on top
        label, box = int(found.labels[place]), found.boxes[place]
        pixels, top, left = None, 0, 0
        if found.masks is not None:
            pixels, top, left = paste_mask(found.masks[place], box, height, width)
        text = f"{_name(overlay.data, label, shown)}: {100 * found.scores[place]:.0f}"
        marks.append(_Mark(box, text, _colour(label, shown), pixels, (top, left)))
    return marks


def _name(data: DetectionSet, label: int, shown: list[int]) -> str:
    return str(shown.index(label) + 1) if label in shown else data.classes[label]


def _colour(label: int, shown: list[int]) -> str:
    return COLOURS[shown.index(label)] if label in shown else OTHER


def _draw_panel(axes: Axes, image: np.ndarray, marks: Sequence[_Mark]) -> None:
    height, width = image.shape[:2]
    tinted = image / 255
    for mark in marks:
        if mark.pixels is None:
            continue
        (top, left), (high, wide) = mark.corner, mark.pixels.shape
        area = tinted[top : top + high, left : left + wide]
        area[mark.pixels] = (1 - _STRENGTH) * area[mark.pixels] + _STRENGTH * parse_colour(mark.colour)
    axes.imshow(tinted.clip(0, 1), extent=(0, width, height, 0), interpolation="antialiased")
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    for mark in marks:
        left, top, right, bottom = mark.box.tolist()
        frame = Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=mark.colour, linewidth=0.9)
        frame.set_path_effects([withStroke(linewidth=1.5, foreground="#000000", alpha=0.6)])
        axes.add_patch(frame)
    places = place_labels([(mark.box, mark.text) for mark in marks], height, width)
    for mark, place in zip(marks, places, strict=True):
        if place is None:
            continue
        text = axes.text(place[0], place[1], mark.text, ha="left", va="top", fontsize=LETTERS, color="black")
        text.set_bbox({"facecolor": "white", "alpha": 0.75, "edgecolor": mark.colour, "linewidth": 0.4, "pad": 0.5})


def place_labels(boxes: Sequence[tuple[np.ndarray, str]], height: int, width: int) -> list[tuple[float, float] | None]:
    """The upper left corner of each box's label, so that none covers another; None where there is no room.

    A label stands at a corner of its box, inside or outside, and in the image. The last boxes, which are drawn on top,
    choose first.

    Args:
        boxes: float [4], left, top, right, bottom in pixels, with what to say.
        height, width: of the image.
    """
    point = max(width / WIDTH, height / HIGHEST) / 72  # of the page, in pixels of the image
    high = (1.2 * LETTERS + 1) * point
    taken: list[tuple[float, float, float]] = []
    found: list[tuple[float, float] | None] = []
    for box, text in reversed(boxes):
        wide = (0.62 * LETTERS * len(text) + 2) * point
        corners = [
            (min(max(x, 0.0), max(width - wide, 0.0)), min(max(y, 0.0), max(height - high, 0.0)))
            for x in (box[0], box[2] - wide)
            for y in (box[1], box[1] - high, box[3], box[3] - high)
        ]
        free = [
            (float(x), float(y))
            for x, y in corners
            if not any(x < left + length and left < x + wide and abs(y - top) < high for left, top, length in taken)
        ]
        found.append(free[0] if free else None)
        taken += [(*place, wide) for place in free[:1]]
    return found[::-1]
