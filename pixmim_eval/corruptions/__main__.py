"""Draw the contact sheet: python -m pixmim_eval.corruptions [IMAGE] [--all] [--size PIXELS] [--seed N] [--out FILE]."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, UnidentifiedImageError

from pixmim_eval.corruptions import CORRUPTIONS, SEVERITIES, corrupt, resolve_parameters
from pixmim_eval.corruptions.frost import frost_source
from pixmim_eval.data.shapes16.dataset import SIZES, render
from pixmim_eval.data.transforms import apply_evaluation
from pixmim_eval.errors import InputError
from pixmim_eval.progress import progress
from pixmim_eval.types import Preprocessing

ROW = 18  # of shapes16's val: a textured shape of middle tones on a ground of two colours

_CELL, _GAP, _LABEL, _HEAD, _MARGIN = 112, 4, 92, 52, 14  # pixels
_INK, _PALE = (30, 30, 30), (120, 120, 120)
_STEP = _CELL + _GAP
_BLOCK = _LABEL + len(SEVERITIES) * _STEP


def read_image(path: Path | None, size: int) -> np.ndarray:
    """The image to corrupt, in evaluation geometry.

    Args:
        path: an image file; None for one of shapes16.
        size: side in pixels; a file is resized to 8/7 of it (256 for 224), and its centre cut out.

    Returns:
        uint8 [size, size, 3], RGB.

    Raises:
        InputError: not a file that PIL reads, or a size that cannot be.
    """
    if path is None:
        return render([ROW], "val", size).images[0]
    if size < SIZES[0]:
        raise InputError(
            "size", expected=f"at least {SIZES[0]} pixels", found=str(size), where="--size", fix="Raise it."
        )
    try:
        with Image.open(path) as file:
            image = np.asarray(file.convert("RGB"))
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(
            "image",
            expected="an image file",
            found=f"{type(error).__name__}: {error}",
            where=str(path),
            fix="Name a JPEG or PNG file.",
        ) from error
    return apply_evaluation(image, Preprocessing(size=size, resize=size * 8 // 7), ready_size=None)


def draw_sheet(image: np.ndarray, *, seed: int = 0, every: bool = False, title: str = "") -> Image.Image:
    """All corruptions at all severities: a block a group, a row a corruption, and the clean image at the head.

    Args:
        image: uint8 [H, W, 3]. It is corrupted at this size; in the sheet each cell is at most 112 pixels wide, its
            pixels means over boxes.
        seed: of the corruptions; the image counts as row 0 of its data set.
        every: show the four corruptions that no mean corruption error counts, too.
        title: what the image is, written beside it.
    """
    blocks = _list_blocks(every)
    corners, size = _arrange([len(names) for names in blocks.values()])
    sheet = Image.new("RGB", size, "white")
    for (group, names), corner in zip(blocks.items(), corners, strict=True):
        _write_block(ImageDraw.Draw(sheet), group, names, corner)
    _paste_clean(sheet, image, title, seed)
    batch, index = torch.from_numpy(image.copy()).permute(2, 0, 1)[None], torch.zeros(1, dtype=torch.int64)
    cells = [
        (name, severity, (left + _LABEL + (severity - 1) * _STEP, top + _HEAD + row * _STEP))
        for names, (left, top) in zip(blocks.values(), corners, strict=True)
        for row, name in enumerate(names)
        for severity in SEVERITIES
    ]
    for name, severity, corner in progress(cells, description="corrupting", unit="image"):
        corrupted = corrupt(batch, name, severity, seed=seed, index=index)[0].permute(1, 2, 0)
        sheet.paste(_shrink(corrupted.numpy()), corner)
    return sheet


def _list_blocks(every: bool) -> dict[str, list[str]]:
    """Group -> names of its corruptions, those of the fifteen first."""
    blocks: dict[str, list[str]] = {}
    for name, corruption in sorted(CORRUPTIONS.items(), key=lambda item: not item[1].in_mce15):
        if every or corruption.in_mce15:
            blocks.setdefault(corruption.group, []).append(name)
    return blocks


def _arrange(rows: list[int]) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """Corners of blocks of so many rows, and width and height of the sheet; the clean image is above the first."""
    rows = [rows[0] + 1, *rows[1:]]
    columns = math.ceil(math.sqrt(len(rows)))
    heights = [_HEAD + _STEP * max(rows[start : start + columns]) for start in range(0, len(rows), columns)]
    corners = [
        (_MARGIN + number % columns * (_BLOCK + _MARGIN), _MARGIN + sum(heights[: number // columns]))
        for number in range(len(rows))
    ]
    corners[0] = (_MARGIN, _MARGIN + _STEP)
    return corners, (_MARGIN + columns * (_BLOCK + _MARGIN), 2 * _MARGIN + sum(heights))


def _write_block(draw: ImageDraw.ImageDraw, group: str, names: list[str], corner: tuple[int, int]) -> None:
    left, top = corner
    draw.text((left, top + _HEAD - 10), group.capitalize(), _INK, _font(20), anchor="ls")
    for severity in SEVERITIES:
        centre = left + _LABEL + (severity - 1) * _STEP + _CELL // 2
        text = f"severity {severity}" if severity == 1 else str(severity)
        draw.text((centre, top + _HEAD - 10), text, _PALE, _font(14), anchor="ms")
    for row, name in enumerate(names):
        _write_label(draw, name, (left, top + _HEAD + row * _STEP))


def _write_label(draw: ImageDraw.ImageDraw, name: str, corner: tuple[int, int]) -> None:
    middle = (corner[0] + _LABEL - 8, corner[1] + _CELL // 2)
    draw.multiline_text(middle, name.replace("_", "\n"), _INK, _font(14), anchor="rm", align="right", spacing=3)


def _paste_clean(sheet: Image.Image, image: np.ndarray, title: str, seed: int) -> None:
    draw = ImageDraw.Draw(sheet)
    _write_label(draw, "clean", (_MARGIN, _MARGIN))
    sheet.paste(_shrink(image), (_MARGIN + _LABEL, _MARGIN))
    height, width = image.shape[:2]
    parameters = resolve_parameters("auto", min(height, width))
    lines = f"{title}\n{width} x {height} pixels\nparameters: {parameters}\nseed {seed}, frost: {frost_source()}"
    draw.multiline_text((_MARGIN + _LABEL + _STEP + 8, _MARGIN), lines, _PALE, _font(14), spacing=6)


def _shrink(image: np.ndarray) -> Image.Image:
    cell = Image.fromarray(image)
    cell.thumbnail((_CELL, _CELL), Image.Resampling.BOX)
    return cell


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 2 bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m pixmim_eval.corruptions", description="Draw one image under every corruption and severity."
    )
    parser.add_argument("image", nargs="?", type=Path, metavar="IMAGE", help="a file (default: an image of shapes16)")
    parser.add_argument("--all", action="store_true", help="with the four that no mean corruption error counts")
    parser.add_argument("--size", type=int, default=224, metavar="PIXELS", help="of the corrupted image (default 224)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the corruptions")
    parser.add_argument("--out", type=Path, default=Path("reports/figures/corruptions.png"), metavar="FILE")
    options = parser.parse_args(arguments)
    try:
        image = read_image(options.image, options.size)
        title = options.image.name if options.image else f"shapes16, val, image {ROW}"
        sheet = draw_sheet(image, seed=options.seed, every=options.all, title=title)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    options.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(options.out, optimize=True)
    print(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
