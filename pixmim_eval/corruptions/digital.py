"""Digital: contrast, saturation, resolution and compression."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pixmim_eval.corruptions.pixels import change_hsv, truncate

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
    return change_hsv(images, factor=factor, addend=addend)


def pixelate(images: Tensor, factor: float, _: Iterator[torch.Generator]) -> Tensor:
    """Makes the image smaller and large again with a box filter: to the bit what PIL does.

    Source: Hendrycks and Dietterich, ICLR 2019, section 4.1; hendrycks/robustness `pixelate`.
    """
    height, width = images.shape[-2:]
    small = _shrink(_shrink(images, 3, max(1, int(width * factor))), 2, max(1, int(height * factor)))
    rows, columns = (_find_boxes(small.shape[d], images.shape[d], images.device)[0] for d in (2, 3))
    return _pick(small, 3, columns).index_select(2, rows)


def _shrink(images: Tensor, dimension: int, size: int) -> Tensor:
    """Means over boxes along one dimension (2 or 3), in PIL's fixed-point arithmetic: differences of running sums."""
    starts, ends, weights = _find_boxes(images.shape[dimension], size, images.device)
    sums = F.pad(images, (1, 0) if dimension == 3 else (0, 0, 1, 0)).cumsum(dimension, dtype=torch.int32)
    totals = _pick(sums, dimension, ends).sub_(_pick(sums, dimension, starts))
    totals.mul_(weights if dimension == 3 else weights[:, None]).add_(1 << (_WEIGHT_BITS - 1))
    return totals.bitwise_right_shift_(_WEIGHT_BITS).to(torch.uint8)


def _pick(values: Tensor, dimension: int, index: Tensor) -> Tensor:
    if dimension == 2:
        return values.index_select(2, index)
    return values.gather(3, index.expand(*values.shape[:3], -1))  # twice as fast as index_select along rows


@lru_cache(maxsize=256)
def _find_boxes(source: int, target: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Start, end and fixed-point weight (int32 [target]) of each box: whole pixels, those whose centre is in it."""
    scale = source / target
    width = max(scale, 1.0)
    centres = (np.arange(target) + 0.5) * scale
    positions = np.maximum((centres - width / 2 + 0.5).astype(int), 0) + np.arange(int(np.ceil(width)) + 1)[:, None]
    distance = (positions - centres + 0.5) * (1 / width)
    inside = (distance > -0.5) & (distance <= 0.5) & (positions < source)
    counts = inside.sum(axis=0)
    starts = positions[inside.argmax(axis=0), np.arange(target)]
    weights = np.floor((1 << _WEIGHT_BITS) / counts + 0.5).astype(np.int32)
    starts, ends, weights = (torch.from_numpy(array).to(device) for array in (starts, starts + counts, weights))
    return starts, ends, weights


def jpeg_compression(images: Tensor, quality: int, _: Iterator[torch.Generator]) -> Tensor:
    """Stores and reads the image as JPEG.

    Source: Hendrycks and Dietterich, ICLR 2019, section 4.1; hendrycks/robustness `jpeg_compression`.
    """
    return store_as_jpeg(images, quality)


def store_as_jpeg(images: Tensor, quality: int = 85) -> Tensor:
    """What images uint8 [B, 3, H, W] are once they were stored as JPEG files of a quality (1 … 100) and read again.

    Source: hendrycks/robustness, ImageNet-C/create_c/make_imagenet_c.py, which saves every corrupted image by PIL with
        quality 85 (4:2:0, libjpeg's default).
    Differs: the published `optimize=True` makes smaller files of the same pixels.
    """

    def store(channels: np.ndarray) -> np.ndarray:
        buffer = io.BytesIO()
        Image.merge("RGB", [Image.fromarray(channel) for channel in channels]).save(buffer, "JPEG", quality=quality)
        return np.stack([np.asarray(channel) for channel in Image.open(buffer).split()])

    arrays = images.cpu().numpy()
    threads = min(torch.get_num_threads(), len(arrays))
    if threads == 1:  # a pool of one costs as much as the compression of a small image
        stored = [store(array) for array in arrays]
    else:
        with ThreadPoolExecutor(threads) as pool:
            stored = list(pool.map(store, arrays))
    return torch.from_numpy(np.stack(stored)).to(images.device)
