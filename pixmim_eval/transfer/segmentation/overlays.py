"""Pictures of segmented images: each with its classes as colours, in the truth and as models answer."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from pixmim_eval.data.segmentation import IGNORED
from pixmim_eval.transfer.pictures import COLOURS, OTHER, choose_shown, parse_colour, write_pages

WIDTH = 1.6  # of a column in inches
_STRENGTH = 0.65  # of colours over the image
_LEAST_SHARE = 0.004  # of a picture that an area needs for a number


@dataclass(frozen=True)
class Overlay:
    """One image with what is known of its pixels.

    Args:
        image: uint8 [H, W, 3].
        truth: uint8 [H, W], IGNORED where there is no class.
        answers: name of a column -> uint8 [H, W]; the same names for all images.
    """

    image: np.ndarray
    truth: np.ndarray
    answers: dict[str, np.ndarray]


def draw_overlays(overlays: Sequence[Overlay], classes: Sequence[str], stem: Path, caption: str) -> list[Path]:
    """One row an image: the image, the truth, each answer; with a legend of the nine classes that cover most.

    Args:
        overlays: at least one.
        classes: names.
        stem: path of the files without ending, see pictures.write_pages.
        caption: what else to say below.

    Returns:
        A PNG and a PDF of each picture.
    """
    shown = _choose_shown(overlays, len(classes))
    return write_pages([*overlays[0].answers], stem, lambda names: _draw_page(overlays, names, classes, shown, caption))


def _choose_shown(overlays: Sequence[Overlay], count: int) -> list[int]:
    """The classes that have a colour: what covers most of the truth, then of the answers."""
    areas = np.zeros(count)
    for overlay in overlays:
        areas += np.bincount(overlay.truth[overlay.truth < count], minlength=count) / overlay.truth.size
        for answer in overlay.answers.values():
            areas += 1e-3 * np.bincount(answer.ravel(), minlength=count) / answer.size / len(overlay.answers)
    return choose_shown(areas)


def _draw_page(
    overlays: Sequence[Overlay], names: Sequence[str], classes: Sequence[str], shown: list[int], caption: str
) -> Figure:
    columns = 2 + len(names)
    heights = [WIDTH * overlay.truth.shape[0] / overlay.truth.shape[1] for overlay in overlays]
    titles = ["\n".join(textwrap.wrap(name, 22)) for name in ("image", "truth", *names)]
    above = 0.14 * (1 + max(title.count("\n") for title in titles))
    gap, below = 0.05, 0.62
    width = columns * (WIDTH + gap) + gap
    height = above + sum(heights) + gap * (len(heights) + 1) + below
    figure = Figure(figsize=(width, height))
    bottom = height - above
    for row, (overlay, size) in enumerate(zip(overlays, heights, strict=True)):
        bottom -= size + gap
        maps = [None, overlay.truth, *(overlay.answers[name] for name in names)]
        for column, labels in enumerate(maps):
            left = gap + column * (WIDTH + gap)
            axes = figure.add_axes((left / width, bottom / height, WIDTH / width, size / height))
            axes.set_axis_off()
            _draw_panel(axes, overlay.image, labels, shown)
            if row == 0:
                axes.set_title(titles[column], pad=2, fontsize=7)
    _draw_legend(figure, overlays, names, classes, shown)
    figure.text(0.5, 0.04 / height, caption, ha="center", va="bottom", fontsize=6, color="#333333", wrap=True)
    return figure


def _draw_panel(axes: Axes, image: np.ndarray, labels: np.ndarray | None, shown: list[int]) -> None:
    """The image, or its grey values under the colours of the classes, with a number in the middle of each."""
    if labels is None:
        axes.imshow(image, interpolation="antialiased")
        return
    grey = image.mean(axis=2, keepdims=True).repeat(3, axis=2) / 255
    for place, label in [*enumerate(shown), (-1, -1)]:
        area = labels == label if place >= 0 else (labels != IGNORED) & ~np.isin(labels, shown)
        grey[area] = (1 - _STRENGTH) * grey[area] + _STRENGTH * parse_colour(COLOURS[place] if place >= 0 else OTHER)
    axes.imshow(grey.clip(0, 1), interpolation="antialiased")
    for place, label in enumerate(shown):
        area = labels == label
        if area.mean() > _LEAST_SHARE:
            y, x = _find_middle(area)
            text = axes.text(x, y, str(place + 1), ha="center", va="center", fontsize=5.5, color="black")
            text.set_bbox({"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6})


def _draw_legend(
    figure: Figure, overlays: Sequence[Overlay], names: Sequence[str], classes: Sequence[str], shown: list[int]
) -> None:
    handles = [
        Patch(facecolor=COLOURS[place], alpha=_STRENGTH + 0.2, label=f"{place + 1} {classes[label]}")
        for place, label in enumerate(shown)
    ]
    maps = [values for overlay in overlays for values in (overlay.truth, *(overlay.answers[name] for name in names))]
    if any(((values != IGNORED) & ~np.isin(values, shown)).any() for values in maps):
        handles.append(Patch(facecolor=OTHER, label="other classes"))
    if any((overlay.truth == IGNORED).any() for overlay in overlays):
        handles.append(Patch(facecolor="white", edgecolor="#888888", label="no class (grey image)"))
    inches = figure.get_size_inches()[1]
    columns = max(2, min(6, int(figure.get_size_inches()[0] / 1.35)))
    figure.legend(
        handles=handles,
        loc="lower center",
        ncols=columns,
        bbox_to_anchor=(0.5, 0.16 / inches),
        frameon=False,
        fontsize=6,
        handlelength=1.2,
        columnspacing=1.0,
        labelspacing=0.3,
    )


def _find_middle(area: np.ndarray) -> tuple[float, float]:
    """The pixel of an area that is nearest to its centre of mass."""
    y, x = np.nonzero(area)
    nearest = ((y - y.mean()) ** 2 + (x - x.mean()) ** 2).argmin()
    return float(y[nearest]), float(x[nearest])
