"""The PNG files that suites drew of images into run folders."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd
from PIL import Image

from analysis.report.parts import Picture
from pixmim_eval.errors import InputError

DRAWN = re.compile(r"(reconstruction|segmentation|detection|foreground)(?:-part-(\d+))?")
TITLES = {
    "reconstruction": "Reconstructions of masked images",
    "segmentation": "Segmentation: images, masks and answers",
    "detection": "Detection: objects in the truth and as found",
    "foreground": "Crops, boxes and masks",
}

CAPTIONED = ("reconstruction", "foreground")  # whose files hold their protocol themselves
WIDEST = 1400  # pixels: as many as a column of a page shows
QUALITY = {"WEBP": {"quality": 85}, "JPEG": {"quality": 85, "subsampling": 0}}
_END = b"IEND\xaeB`\x82"  # the last part of a PNG file
_BROKEN = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # what Pillow says of files


@dataclass(frozen=True)
class Encoded:
    """A picture as a report holds it: its bytes, their format, and its size in pixels."""

    data: bytes
    kind: str
    size: tuple[int, int]


def find_pictures(rows: pd.DataFrame, others: Sequence[Path] = ()) -> list[Picture]:
    """The pictures in DIR/reports/figures of run folders, by suite, and others after them.

    Args:
        rows: ResultRow columns, which say what the pictures are of, and `folder`, where to look for them.
        others: PNG files, such as those that pretraining draws.

    Raises:
        InputError: one of `others` is not there, or no PNG.
    """
    for path in others:
        if not path.is_file():
            raise InputError(
                "a picture of a report",
                expected="a PNG file",
                found="none",
                where=f"--pictures {path}",
                fix="Name a file that is there, e.g. reconstruction-0020.png of a pretraining run's folder.",
            )
        read_picture(path)
    found = []
    for folder in map(Path, dict.fromkeys(rows["folder"])):
        for path in sorted((folder / "reports" / "figures").glob("*.png")):
            if match := DRAWN.fullmatch(path.stem):
                own = rows[(rows["folder"] == str(folder)) & (rows["suite"] == match[1])]
                found.append((match[1], path, _describe(match[1], own, folder)))
    titles = [*TITLES]
    found.sort(key=lambda one: titles.index(one[0]))
    found += [("", path, f"Given by hand: {path}. No row says what it shows.") for path in others]
    stems = _name_stems([path for _, path, _ in found])
    return [
        Picture(stem, _name_title(suite, path), path, caption)
        for stem, (suite, path, caption) in zip(stems, found, strict=True)
    ]


def _name_title(suite: str, path: Path) -> str:
    match = DRAWN.fullmatch(path.stem)
    part = f" (part {match[2]})" if match and match[2] else ""
    return f"{TITLES[suite]}{part}" if suite else path.stem


def _describe(suite: str, rows: pd.DataFrame, folder: Path) -> str:
    """What a picture shows, as far as the rows of its run folder tell."""
    examples = "Examples, chosen evenly from the data set and not for how they look; nothing is measured on them."
    if rows.empty:
        return f"Drawn by the suite {suite} into {folder}, which holds no rows of it. {examples}"
    models, sets = (", ".join(dict.fromkeys(rows[name])) for name in ("model", "dataset"))
    protocols = [text.replace(";", ", ") for text in dict.fromkeys(rows["protocol"])]
    protocol = f" Protocol: {protocols[0]}." if len(protocols) == 1 and suite not in CAPTIONED else ""
    return f"Drawn by the suite {suite} into {folder}. Models: {models}. Data: {sets}.{protocol} {examples}"


def _name_stems(paths: Sequence[Path]) -> list[str]:
    """Unique names: a picture's own, with a number where several run folders drew one of that name."""
    names = ["picture-" + re.sub(r"[^A-Za-z0-9_.]+", "-", path.stem)[:80] for path in paths]
    return [
        f"{name}-run-{names[: place + 1].count(name)}" if names.count(name) > 1 else name
        for place, name in enumerate(names)
    ]


def read_picture(path: Path) -> Image.Image:
    """A PNG file as RGB, on white.

    Raises:
        InputError: it cannot be read to its end.
    """
    try:
        if _END not in path.read_bytes():
            raise ValueError("it is cut off")  # of which Pillow makes what it can
        with Image.open(path, formats=["PNG"]) as found:
            picture = found.convert("RGBA")
    except _BROKEN as error:
        raise InputError(
            "a picture of a report",
            expected="a PNG file",
            found=f"{type(error).__name__}: {error}".replace(str(path), path.name),
            where=str(path),
            fix="Delete the file and run the command that drew it again.",
        ) from error
    paper = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(paper, picture).convert("RGB")


def encode_picture(path: Path, kind: Literal["WEBP", "JPEG"]) -> Encoded:
    """A PNG file as small as eyes allow: no wider than a column, and as PNG where that is smaller still.

    Args:
        path: of the file.
        kind: WEBP for pages; JPEG, which a PDF holds as it is.

    Raises:
        InputError: see read_picture.
    """
    picture = read_picture(path)
    width, height = picture.size
    if width > WIDEST:
        picture = picture.resize((WIDEST, max(1, round(WIDEST * height / width))), Image.Resampling.LANCZOS)
    encoded = _save(picture, kind, **QUALITY[kind])
    if width <= WIDEST and path.stat().st_size <= len(encoded.data):
        return _save(picture, "PNG")  # and not the file itself, whose faults other readers may not forgive
    return encoded


def _save(picture: Image.Image, kind: str, **options: int) -> Encoded:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return Encoded(buffer.getvalue(), kind.lower(), picture.size)
