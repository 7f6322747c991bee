"""The picture of the suite `foreground`: images with their boxes, and what crops and masks leave of the object."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pixmim_eval.data.boxes import BoxSet
from pixmim_eval.files import write_atomic
from pixmim_eval.metrics import overlap
from pixmim_eval.suites.crop_names import NamedCrop, sample_boxes
from pixmim_eval.suites.foreground_measures import ForegroundOptions, Objects, draw_noise, select_objects
from pixmim_eval.types import SuiteConfig

IMAGES, CROPS = 4, 6  # of a picture
_WIDTH, _MARGIN, _GAP, _LINE = 7.0, 0.06, 0.06, 0.128  # inches
_OBJECT, _INK = "#c6ff00", "#222222"
_HUES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
_STYLE: dict[Any, Any] = {"font.size": 7, "font.family": "DejaVu Sans", "text.parse_math": False, "pdf.fonttype": 42}


def draw_crops(
    boxes: BoxSet, crops: Sequence[NamedCrop], options: ForegroundOptions, config: SuiteConfig, stem: Path
) -> list[Path]:
    """One row an image: the image with its boxes and all crops, then each crop with its masked patches greyed.

    Args:
        boxes: with a manifest.
        crops: drawn as the suite draws its first; six are shown, in the order and hues of the figures of the rows.
        options: of the suite.
        config: of the run.
        stem: path of the files without ending.

    Returns:
        A PNG and a PDF.
    """
    if boxes.manifest is None:
        raise ValueError("draw_crops needs images")
    crops, objects = sorted(crops, key=_rank)[:CROPS], _pick(select_objects(boxes, config.limit))
    images = boxes.manifest.source.read(objects.rows.tolist())
    side = (_WIDTH - 2 * _MARGIN - len(crops) * _GAP) / (len(crops) + 1)
    caption = textwrap.wrap(_describe(boxes, options), 130)
    row_height = side + _LINE + _GAP
    height = _LINE * 1.5 + len(images) * row_height + (len(caption) + 1) * _LINE
    with rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, height))

        def place(column: int, row: int) -> Axes:
            left, top = _MARGIN + column * (side + _GAP), 1.5 * _LINE + row * row_height
            axes = figure.add_axes((left / _WIDTH, 1 - (top + side) / height, side / _WIDTH, side / height))
            axes.set_axis_off()
            return axes

        def write(text: str, left: float, top: float, **style: Any) -> None:
            figure.text(left / _WIDTH, 1 - top / height, text, va="top", **style)

        for column, title in enumerate(("image", *(crop.name for crop in crops))):
            colour = _HUES[(column - 1) % len(_HUES)] if column else _INK
            write(title, _MARGIN + column * (side + _GAP), 0.03, color=colour, weight="bold")
        for row, image in enumerate(images):
            axes = place(0, row)
            _show_image(axes, image, objects, row)
            for column, crop in enumerate(crops):
                drawn = sample_boxes(crop.crop, objects.sizes, objects.rows, 1, config.seed)
                box = drawn[row, 0]
                _outline(axes, box, _HUES[column % len(_HUES)])
                kept, visible = _show_crop(place(column + 1, row), image, box, crop, objects, row, options, config.seed)
                left, top = _MARGIN + (column + 1) * (side + _GAP), 1.5 * _LINE + row * row_height + side + 0.03
                write(f"{100 * kept:.0f} %, visible {100 * visible:.0f} %", left, top, color=_INK)
        write("\n".join(caption), _MARGIN, height - (len(caption) + 0.5) * _LINE, color="#444444", linespacing=1.2)
        return _save(figure, stem)


def _rank(crop: NamedCrop) -> tuple[int, str]:
    """RRC, SRC, CC, others."""
    kinds = ("rrc", "src", "cc")
    kind = crop.name.partition("-")[0]
    return (kinds.index(kind) if kind in kinds else len(kinds), crop.name)


def _pick(objects: Objects) -> Objects:
    """A few of the images, evenly spaced."""
    count = min(IMAGES, len(objects.rows))
    places = (2 * np.arange(count) + 1) * len(objects.rows) // (2 * count)
    held = np.isin(objects.image, places)
    image, edges = np.searchsorted(places, objects.image[held]), objects.edges[held]
    return Objects(objects.rows[places], objects.sizes[places], edges, image, overlap.unite(edges, image), 0)


def _show_image(axes: Axes, image: np.ndarray, objects: Objects, row: int) -> None:
    axes.imshow(image, interpolation="nearest" if max(image.shape) < 128 else "antialiased")
    for top, left, bottom, right in objects.edges[objects.image == row]:
        axes.add_patch(Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False, ec=_OBJECT, lw=1.2))


def _outline(axes: Axes, box: np.ndarray, colour: str) -> None:
    top, left, height, width = box - np.array([0.5, 0.5, 0, 0])
    axes.add_patch(Rectangle((left, top), width, height, fill=False, ec=colour, lw=0.8, ls="--"))


def _show_crop(
    axes: Axes,
    image: np.ndarray,
    box: np.ndarray,
    crop: NamedCrop,
    objects: Objects,
    row: int,
    options: ForegroundOptions,
    seed: int,
) -> tuple[float, float]:
    """Draw a crop with its mask and the object's boxes, and return the shares of the object that both leave."""
    shown = crop.crop.apply(image, box).astype(np.float64)
    size = len(shown)
    own = objects.cells.image == row
    cells = overlap.Cells(objects.cells.edges[own], np.zeros(own.sum(), dtype=np.int64))
    covered = overlap.measure_patches(cells, box[None, None], options.grid)
    noise = draw_noise(objects.rows[row : row + 1], 1, options, seed)
    whole = cells.areas().sum()
    visible = float(overlap.count_visible(covered, noise, options.mask_ratio)[0, 0] / whole)
    ranks = noise.ravel().argsort(kind="stable").argsort(kind="stable").reshape(noise.shape[2:])
    masked = ranks >= options.kept * options.units**2
    lines = np.arange(size) * options.units // size
    shown[masked[lines][:, lines]] = 0.25 * shown[masked[lines][:, lines]] + 0.75 * 150
    axes.imshow(shown.round().astype(np.uint8), interpolation="nearest" if size < 128 else "antialiased")
    scale = size / box[2:]
    for edges in objects.edges[objects.image == row]:
        (top, left), (bottom, right) = ((edges.reshape(2, 2) - box[:2]) * scale).clip(0, size)
        if bottom > top and right > left:
            corner = (left - 0.5, top - 0.5)
            axes.add_patch(Rectangle(corner, right - left, bottom - top, fill=False, ec=_OBJECT, lw=1.2))
    axes.set_xlim(-0.5, size - 0.5)
    axes.set_ylim(size - 0.5, -0.5)
    return float(covered.sum() / whole), visible


def _describe(boxes: BoxSet, options: ForegroundOptions) -> str:
    blocks = f" in blocks of {options.mask_unit} x {options.mask_unit}" if options.mask_unit > 1 else ""
    return (
        f"Data: {boxes.name}. Lime: boxes of the object; dashed: one drawn crop of each kind. Below a crop: how much "
        f"of the object (the union of its boxes) it keeps, and how much of it lies in visible patches when "
        f"{100 * options.mask_ratio:g} % of {options.grid} x {options.grid} patches are masked{blocks} (grey)."
    )


def _save(figure: Figure, stem: Path) -> list[Path]:
    written = []
    for ending, metadata in (("png", {"Software": None}), ("pdf", {"CreationDate": None})):  # the same bytes every time
        buffer = io.BytesIO()
        figure.savefig(buffer, format=ending, dpi=200, metadata=metadata)
        written.append(stem.with_name(f"{stem.name}.{ending}"))
        write_atomic(written[-1], buffer.getvalue())
    return written
