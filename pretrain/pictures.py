"""Pictures of what masked autoencoders reconstruct: of one while it trains, and of several side by side."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

from pixmim_eval.data.transforms import denormalize
from pixmim_eval.files import replace_atomically, write_atomic
from pretrain.autoencoder import Reconstruction
from pretrain.targets import IMAGENET_MEAN, IMAGENET_STD, patchify, unpatchify

GAP = 4  # pixels between pictures
HEADER = 18  # pixels for the titles
TITLES = ("input", "masked input", "prediction", "target")
SCALE_TO = 128  # small images are enlarged to about this many pixels
SIDE_BY_SIDE = 192  # the same, in the picture of several models
MODELS = 4  # of one picture
PREDICTIONS = (
    "Predictions stand in the masked patches, the image in the others; of normalised targets they are shown with the "
    "true mean and deviation of each patch of the target."
)
DPI, LETTER, LINE = 200, 12, 26  # of that picture: pixels an inch, a letter and a line of text
STYLE: dict[Any, Any] = {"font.size": 7, "font.family": "DejaVu Sans", "text.parse_math": False, "pdf.fonttype": 42}


@dataclass(frozen=True)
class Pictured:
    """A model and what it made of some images.

    Args:
        name: of the model.
        images: float [B, 3, S, S], normalised; the same B images for all models.
        reconstruction: of these images.
        patch, grid: side of a patch in pixels; patches (down, across).
        filtered: whether the target holds low frequencies alone.
        mean, std: of the normalisation of images.
    """

    name: str
    images: Tensor
    reconstruction: Reconstruction
    patch: int
    grid: tuple[int, int]
    filtered: bool
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD


def draw_reconstructions(
    images: Tensor, reconstruction: Reconstruction, patch: int, grid: tuple[int, int], path: Path
) -> Tensor:
    """One row an image: input, masked input, prediction in the masked patches, target.

    Args:
        images: float [B, 3, H, W], normalised.
        reconstruction: of these images.
        patch, grid: side of a patch in pixels; patches (down, across).
        path: of the PNG.

    Returns:
        The picture, uint8 [3, height, width].
    """
    factor = max(1, SCALE_TO // images.shape[-1])
    columns = _render_columns(Pictured("", images, reconstruction, patch, grid, filtered=False))
    picture = _lay_out([_enlarge(column, factor * images.shape[-1]) for column in columns])
    picture = torch.cat((_draw_titles(picture.shape[2]), picture), dim=1)
    with replace_atomically(path) as temporary:
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(temporary, format="PNG")
    return picture


def draw_comparison(pictured: Sequence[Pictured], stem: Path, caption: str) -> list[Path]:
    """One row an image: input, masked input, then the prediction and the target of each model.

    The masked input stands again where a model's mask is another than that of the model before.

    Args:
        pictured: at least one model; more than MODELS go to several pictures.
        stem: path of the files without ending, "-part-N" where there are several pictures.
        caption: what else to say below.

    Returns:
        A PNG and a PDF of each picture.
    """
    written = []
    for start in range(0, len(pictured), MODELS):
        part = f"-part-{start // MODELS + 1}" if len(pictured) > MODELS else ""
        figure = _draw_page(pictured[start : start + MODELS], caption)
        for ending, metadata in (("png", {"Software": None}), ("pdf", {"CreationDate": None})):  # the same bytes
            buffer = io.BytesIO()
            with rc_context(STYLE):
                figure.savefig(buffer, format=ending, dpi=DPI, metadata=metadata)
            written.append(stem.with_name(f"{stem.name}{part}.{ending}"))
            write_atomic(written[-1], buffer.getvalue())
    return written


@dataclass(frozen=True)
class _Column:
    """One column of a comparison: uint8 [B, 3, side, side], what stands above it, and its model ("" for inputs)."""

    panels: Tensor
    title: str
    model: str = ""


def _list_columns(pictured: Sequence[Pictured], side: int) -> list[_Column]:
    columns: list[_Column] = []
    masked_before = None
    for one in pictured:
        seen, masked, prediction, target = (_enlarge(panels, side) for panels in _render_columns(one))
        if not columns:
            columns.append(_Column(seen, "input"))
        if masked_before is None or not torch.equal(masked, masked_before):
            columns.append(_Column(masked, "masked input"))
        masked_before = masked
        columns.append(_Column(prediction, "prediction", one.name))
        columns.append(_Column(target, f"target:\n{'low' if one.filtered else 'all'} frequencies", one.name))
    return columns


def _draw_page(pictured: Sequence[Pictured], caption: str) -> Figure:
    """The panels pixel by pixel, a header with the models' names above them and a caption below."""
    largest = max(one.images.shape[-1] for one in pictured)
    side = max(1, SIDE_BY_SIDE // largest) * largest
    columns = _list_columns(pictured, side)
    picture = _lay_out([column.panels for column in columns])
    _, height, width = picture.shape
    names = {
        place: textwrap.wrap(column.model, 2 * (side + GAP) // LETTER)
        for place, column in enumerate(columns)
        if column.model and column.title == "prediction"
    }
    below = textwrap.wrap(f"{caption} {PREDICTIONS}", width // LETTER)
    top = (max(map(len, names.values())) + 2) * LINE + 2 * GAP
    total = top + height + (len(below) + 1) * LINE
    with rc_context(STYLE):
        figure = Figure(figsize=(width / DPI, total / DPI))
        axes = figure.add_axes((0, 1 - (top + height) / total, 1, height / total))
        axes.imshow(picture.permute(1, 2, 0).numpy(), interpolation="nearest", aspect="auto")
        axes.axis("off")

        def write(text: str, left: int, above: int, **style: Any) -> None:
            figure.text(left / width, 1 - above / total, text, va="top", **style)

        for place, column in enumerate(columns):
            for number, line in enumerate(column.title.split("\n")):
                write(line, place * (side + GAP), top + (number - 2) * LINE - GAP)
        for place, lines in names.items():
            write("\n".join(lines), place * (side + GAP), GAP, weight="bold")
        write("\n".join(below), 0, top + height + LINE // 2, color="#444444")
    return figure


def _render_columns(pictured: Pictured) -> list[Tensor]:
    """The columns of TITLES, uint8 [B, 3, S, S] each."""
    patch, found = pictured.patch, pictured.reconstruction
    seen = patchify(pictured.images.float(), patch)
    masked = found.mask[:, :, None].bool()
    columns = [
        seen,
        torch.where(masked, torch.zeros_like(seen), seen),  # 0 is the mean colour
        torch.where(masked, found.prediction, seen),
        found.target,
    ]
    images = [denormalize(unpatchify(column, patch, pictured.grid), pictured.mean, pictured.std) for column in columns]
    return [(image.clamp(0, 1) * 255).round().to(torch.uint8).cpu() for image in images]


def _enlarge(panels: Tensor, side: int) -> Tensor:
    """Panels [B, 3, S, S] at side pixels, without new colours."""
    return F.interpolate(panels, size=(side, side), mode="nearest-exact")


def _lay_out(columns: Sequence[Tensor]) -> Tensor:
    """Columns of panels, uint8 [B, 3, side, side] each, as one picture with gaps: uint8 [3, height, width]."""
    rows = torch.stack([_pad(column) for column in columns])  # [columns, B, 3, side + GAP, side + GAP]
    count, images, channels, height, width = rows.shape
    return rows.permute(2, 1, 3, 0, 4).reshape(channels, images * height, count * width)


def _draw_titles(width: int) -> Tensor:
    """The strip above the columns, uint8 [3, HEADER, width]."""
    strip = Image.new("RGB", (width, HEADER), "white")
    pen = ImageDraw.Draw(strip)
    for column, title in enumerate(TITLES):
        pen.text((column * width // len(TITLES) + 2, 3), title, fill="black")
    return torch.from_numpy(np.array(strip)).permute(2, 0, 1)


def _pad(panel: Tensor) -> Tensor:
    return F.pad(panel, (0, GAP, 0, GAP), value=255)
