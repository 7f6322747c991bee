"""From the bytes of an image file to RGB, as ImageNet practice has it."""

from __future__ import annotations

import io
import struct
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from PIL import Image

from pixmim_eval.errors import BadImageError

# What Pillow's readers raise on damaged files; the bomb is an image of absurd size.
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    struct.error,
    Image.DecompressionBombError,
)


class EncodedSource(ABC):
    """An ImageSource that finds the bytes of image files, and decodes them.

    Args:
        keys: [N], the manifest's.
    """

    def __init__(self, keys: np.ndarray) -> None:
        self.keys = keys

    @abstractmethod
    def read_bytes(self, rows: Sequence[int]) -> list[bytes]:
        """The encoded images of these rows. Raises BadImageError where one cannot be read."""

    def locate(self, row: int) -> str:
        """Where a person finds this image; holds its key."""
        return str(self.keys[row])

    def read(self, rows: Sequence[int]) -> list[np.ndarray]:
        """Decoded images, each uint8 [H, W, 3] RGB. Raises BadImageError naming the first bad row."""
        return [decode(data, self.locate(row)) for data, row in zip(self.read_bytes(rows), rows, strict=True)]


def decode(data: bytes, where: str) -> np.ndarray:
    """The pixels of an image file, uint8 [H, W, 3] RGB.

    The stored orientation is kept (EXIF rotation ignored), alpha is dropped, grey, palette and CMYK images become RGB
    as Pillow converts them, the first frame of an animation counts, and 16-bit grey is divided by 256.

    Args:
        data: the whole file.
        where: for the error message.

    Raises:
        BadImageError: empty, truncated, damaged or of a kind that has no agreed conversion (floating point, LAB).

    Source: torchvision's ImageFolder (Image.open, convert("RGB")).
    Differs: Pillow clips 16-bit grey at 255, which leaves a white image.
    """
    if not data:
        raise bad_image("an empty file", where)
    try:
        with Image.open(io.BytesIO(data)) as image:
            return _convert(image)
    except _DECODE_ERRORS as error:
        raise bad_image(f"{type(error).__name__}: {error}", where) from error


def bad_image(found: str, where: str) -> BadImageError:
    """The error for an image that cannot be read or decoded."""
    return BadImageError(
        "image",
        expected="a readable image",
        found=found,
        where=where,
        fix="Replace or remove it, or leave such images out, and have them counted, with --on-bad-image skip.",
    )


def _convert(image: Image.Image) -> np.ndarray:
    if image.mode == "RGB":
        return np.array(image)
    if image.mode == "F":
        raise ValueError("floating-point pixels, whose range is unknown")
    if image.mode == "I" or image.mode.startswith("I;16"):
        grey = (np.asarray(image).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode in ("P", "PA"):  # by way of RGBA, the way Pillow asks for where a palette has transparent colours
        return np.array(image.convert("RGBA").convert("RGB"))
    return np.array(image.convert("RGB"))
