"""Digital: contrast, saturation, resolution and compression."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pixmim_eval.corruptions.pixels import from_hsv, to_hsv, truncate

# Factor about the mean of each channel.
CONTRAST = {
    "imagenet-c": (0.4, 0.3, 0.2, 0.1, 0.05),
    "tiny-imagenet-c": (0.4, 0.3, 0.2, 0.1, 0.05),
    "cifar-c": (0.75, 0.5, 0.4, 0.3, 0.15),
}
# Factor and addend of the saturation of HSV.
SATURATE = {
    "imagenet-c": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
    "tiny-imagenet-c": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (30, 0.2)),
    "cifar-c": ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
}
# Factor of both sides.
PIXELATE = {
    "imagenet-c": (0.6, 0.5, 0.4, 0.3, 0.25),
    "tiny-imagenet-c": (0.9, 0.8, 0.7, 0.6, 0.5),
    "cifar-c": (0.95, 0.9, 0.85, 0.75, 0.65),
}
# JPEG quality.
JPEG_COMPRESSION = {
    "imagenet-c": (25, 18, 15, 10, 7),
    "tiny-imagenet-c": (65, 58, 50, 40, 25),
    "cifar-c": (80, 65, 58, 50, 40),
}

_WEIGHT_BITS = 22  # PIL's precision for 8-bit images


def contrast(images: Tensor, factor: float, _: Iterator[torch.Generator]) -> Tensor:
    """Moves every value towards the mean of its channel over the image.

    Source: Hendrycks and Dietterich, ICLR 2019, section 4.1; hendrycks/robustness `contrast`.
    """
    means = images.sum((2, 3), keepdim=True).double() / images[0, 0].numel()
    return truncate(images.float().mul_(factor).add_((means * (1 - factor)).float()))


def saturate(images: Tensor, parameters: tuple[float, float], _: Iterator[torch.Generator]) -> Tensor:
    """Multiplies the saturation of HSV and adds to it; hue and value stay. Grey has hue 0, so an addend turns it red.

    Source: Hendrycks and Dietterich, ICLR 2019, appendix B; hendrycks/robustness `saturate`.
    """
    factor, addend = parameters
    hue, saturation, value = to_hsv(images)
    return from_hsv(hue, saturation.mul_(factor).add_(addend).clamp_(0, 1), value)


def pixelate(images: Tensor, factor: float, _: Iterator[torch.Generator]) -> Tensor:
    """Makes the image smaller and large again with a box filter: to the bit what PIL does.

    Source: Hendrycks and Dietterich, ICLR 2019, section 4.1; hendrycks/robustness `pixelate`.
    """
    height, width = images.shape[-2:]
    levels = images.to(torch.int32)
    for dimension, size in ((3, int(width * factor)), (2, int(height * factor)), (3, width), (2, height)):
        levels = _resample_box(levels, dimension, max(1, size))
    return levels.to(torch.uint8)


def _resample_box(levels: Tensor, dimension: int, size: int) -> Tensor:
    """Bytes in int32, resampled along one dimension in PIL's fixed-point arithmetic."""
    index, weights = (torch.from_numpy(a).to(levels.device) for a in _box_taps(levels.shape[dimension], size))
    if len(index) == 1:
        return levels.index_select(dimension, index[0])
    shape = [size if d == dimension else 1 for d in range(4)]
    total = torch.full((), 1 << (_WEIGHT_BITS - 1), dtype=torch.int32, device=levels.device)
    for taps, weight in zip(index, weights, strict=True):
        total = total + levels.index_select(dimension, taps) * weight.view(shape)
    return (total >> _WEIGHT_BITS).clamp_(max=255)


@cache
def _box_taps(source: int, target: int) -> tuple[np.ndarray, np.ndarray]:
    """Source positions and fixed-point weights [taps, target]: the box is whole pixels, those whose centre is in it."""
    scale = source / target
    width = max(scale, 1.0)
    centres = (np.arange(target) + 0.5) * scale
    first = np.maximum((centres - width / 2 + 0.5).astype(int), 0)
    positions = first + np.arange(int(np.ceil(width)) + 1)[:, None]
    distance = (positions - centres + 0.5) * (1 / width)
    inside = (distance > -0.5) & (distance <= 0.5) & (positions < source)
    counts = inside.sum(axis=0)
    weights = np.where(inside, np.floor((1 << _WEIGHT_BITS) / counts + 0.5), 0).astype(np.int32)
    used = inside.any(axis=1)
    if (counts == 1).all():
        return np.where(inside, positions, 0).sum(axis=0)[None], np.full((1, target), 1 << _WEIGHT_BITS, np.int32)
    return np.minimum(positions, source - 1)[used], weights[used]


def jpeg_compression(images: Tensor, quality: int, _: Iterator[torch.Generator]) -> Tensor:
    """Stores and reads the image as JPEG (libjpeg's default: 4:2:0).

    Source: Hendrycks and Dietterich, ICLR 2019, section 4.1; hendrycks/robustness `jpeg_compression`.
    """

    def compress(image: np.ndarray) -> np.ndarray:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=quality)
        return np.asarray(Image.open(buffer))

    arrays = images.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    threads = min(torch.get_num_threads(), len(arrays))
    if threads == 1:  # a pool of one costs as much as the compression of a small image
        compressed = [compress(array) for array in arrays]
    else:
        with ThreadPoolExecutor(threads) as pool:
            compressed = list(pool.map(compress, arrays))
    return torch.from_numpy(np.stack(compressed)).permute(0, 3, 1, 2).contiguous().to(images.device)
