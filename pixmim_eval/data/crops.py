"""Crops as geometry: (image size, random numbers) -> box in source pixels; and cutting a box out, one image or a batch.

`apply` gives what torchvision gives on PIL images, to the bit. `apply_batch` does the same for a batch on any device:
resampling is linear and separable, so a crop is two matrix products with one weight matrix an image and axis.
A flip reverses the columns of the weights, and a reflected border repeats rows of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pixmim_eval.errors import InputError
from pixmim_eval.seeds import uniform

_TRIES = 10  # of RandomResizedCrop before it falls back to the central crop


class Crop(Protocol):
    """A distribution of square crops of `size` pixels.

    Boxes are float64 [n, 4] (top, left, height, width) in pixels of the source image.
    """

    @property
    def size(self) -> int: ...

    def sample(self, heights: Tensor, widths: Tensor, *, seed: int, index: Tensor) -> Tensor:
        """One box an image.

        Args:
            heights, widths: int64 [n], of the source images, on index's device.
            seed: see seeds.derive_seed.
            index: int64 [n]; box i depends on (seed, index[i]) and the image's size only.
        """
        ...

    def apply(self, image: np.ndarray, box: Sequence[float] | np.ndarray | Tensor) -> np.ndarray:
        """The crop of one image, uint8 [H, W, 3] -> uint8 [size, size, 3], as torchvision on PIL (see `resize`)."""
        ...

    def apply_batch(self, images: Tensor, boxes: Tensor, flip: Tensor) -> Tensor:
        """The crops of a batch on its device, within one grey level of `apply`.

        Args:
            images: uint8 [B, 3, H, W].
            boxes: float64 [B, 4].
            flip: bool [B], mirror left to right.

        Returns:
            uint8 [B, 3, size, size].
        """
        ...


def sample_flips(seed: int, index: Tensor) -> Tensor:
    """Which images to mirror left to right: bool [n], each with probability 1/2; item i depends on (seed, index[i])."""
    return uniform(seed, index, 1)[:, 0] < 0.5


@dataclass(frozen=True)
class RandomResizedCrop:
    """RRC: a random area and aspect ratio at a random place, resized to a square.

    Args:
        size: pixels of the output.
        scale: range of the crop's area as a fraction of the image's.
        ratio: range of width / height, drawn log-uniformly.

    Source: torchvision's RandomResizedCrop; MAE (He et al. 2022) pretrains with scale (0.2, 1) and bicubic.
    """

    size: int
    scale: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def sample(self, heights: Tensor, widths: Tensor, *, seed: int, index: Tensor) -> Tensor:
        numbers = uniform(seed, index, 4 * _TRIES, dtype=torch.float64).reshape(-1, _TRIES, 4)
        image_height, image_width = heights.double()[:, None], widths.double()[:, None]
        log_low, log_high = math.log(self.ratio[0]), math.log(self.ratio[1])
        area = image_height * image_width * (self.scale[0] + numbers[..., 0] * (self.scale[1] - self.scale[0]))
        ratio = torch.exp(log_low + numbers[..., 1] * (log_high - log_low))
        width, height = torch.sqrt(area * ratio).round(), torch.sqrt(area / ratio).round()
        fits = (width > 0) & (width <= image_width) & (height > 0) & (height <= image_height)
        top = (numbers[..., 2] * (image_height - height + 1)).floor()
        left = (numbers[..., 3] * (image_width - width + 1)).floor()
        tries = torch.stack((top, left, height, width), dim=-1)
        first = fits.to(torch.uint8).argmax(dim=1)
        chosen = tries[torch.arange(len(tries), device=tries.device), first]
        return torch.where(fits.any(dim=1)[:, None], chosen, self._central(image_height[:, 0], image_width[:, 0]))

    def _central(self, height: Tensor, width: Tensor) -> Tensor:
        """The fall-back: as much of the middle as the aspect ratio allows."""
        low, high = min(self.ratio), max(self.ratio)
        ratio = width / height
        crop_height = torch.where(ratio < low, (width / low).round(), height)
        crop_width = torch.where(ratio > high, (height * high).round(), width)
        top, left = ((height - crop_height) / 2).floor(), ((width - crop_width) / 2).floor()
        return torch.stack((top, left, crop_height, crop_width), dim=-1)

    def apply(self, image: np.ndarray, box: Sequence[float] | np.ndarray | Tensor) -> np.ndarray:
        top, left, height, width = (int(value) for value in box)
        return resize(image[top : top + height, left : left + width], (self.size, self.size))

    def apply_batch(self, images: Tensor, boxes: Tensor, flip: Tensor) -> Tensor:
        boxes = boxes.to(images.device)
        rows = _resize_weights(boxes[:, 0], boxes[:, 2], self.size, images.shape[2])
        columns = _resize_weights(boxes[:, 1], boxes[:, 3], self.size, images.shape[3])
        return _resample(images, rows, columns, flip)


@dataclass(frozen=True)
class SingleTryResizedCrop(RandomResizedCrop):
    """RRC without a second try: a side that exceeds the image's is cut off, and the aspect ratio with it.

    Args:
        size, scale, ratio: as RandomResizedCrop.

    Source: MAE, official code, util/crop.py (after BYOL's TensorFlow code), of which its linear probe is trained.
    """

    scale: tuple[float, float] = (0.08, 1.0)

    def sample(self, heights: Tensor, widths: Tensor, *, seed: int, index: Tensor) -> Tensor:
        numbers = uniform(seed, index, 4, dtype=torch.float64)
        image_height, image_width = heights.double(), widths.double()
        log_low, log_high = math.log(self.ratio[0]), math.log(self.ratio[1])
        area = image_height * image_width * (self.scale[0] + numbers[:, 0] * (self.scale[1] - self.scale[0]))
        ratio = torch.exp(log_low + numbers[:, 1] * (log_high - log_low))
        width = torch.minimum(torch.sqrt(area * ratio).round(), image_width)
        height = torch.minimum(torch.sqrt(area / ratio).round(), image_height)
        top = (numbers[:, 2] * (image_height - height + 1)).floor()
        left = (numbers[:, 3] * (image_width - width + 1)).floor()
        return torch.stack((top, left, height, width), dim=-1)


@dataclass(frozen=True)
class SimpleResizedCrop:
    """SRC: short side to `size`, a reflected border of `padding`, then a crop of `size` at a uniform position.

    Boxes may be fractional, and may reach beyond the image, which means reflection.

    Args:
        size: pixels of the output.
        padding: pixels of the border, after the resize.

    Source: DeiT III (Touvron et al. 2022) section 3.2, "simple random crop"; PixMIM (Liu et al. 2023) section 3.2.
    Differs: bicubic, as DeiT III and PixMIM's experiments; the released PixMIM configuration leaves the resize at
        torchvision's default, bilinear.
    """

    size: int
    padding: int = 4

    def __post_init__(self) -> None:
        if not 0 <= self.padding < self.size:
            raise InputError(
                "padding of the simple resized crop",
                expected=f"0 to {self.size - 1} pixels (less than the crop)",
                found=str(self.padding),
                where="SimpleResizedCrop",
                fix="Choose a smaller padding.",
            )

    def sample(self, heights: Tensor, widths: Tensor, *, seed: int, index: Tensor) -> Tensor:
        new_heights, new_widths = resized_sides(heights, widths, self.size)
        numbers = uniform(seed, index, 2, dtype=torch.float64)
        choices = torch.stack((new_heights, new_widths), dim=-1) + (2 * self.padding - self.size + 1)
        offsets = (numbers * choices).floor() - self.padding
        return _source_boxes(offsets, heights, widths, self.size, self.size)

    def apply(self, image: np.ndarray, box: Sequence[float] | np.ndarray | Tensor) -> np.ndarray:
        return _resize_and_cut(image, box, self.size, self.size)

    def apply_batch(self, images: Tensor, boxes: Tensor, flip: Tensor) -> Tensor:
        return _resize_and_cut_batch(images, boxes, flip, self.size, self.size)


@dataclass(frozen=True)
class CenterCrop:
    """CC: short side to `resize`, then the central square of `size`. Boxes do not depend on seed or index.

    Args:
        size: pixels of the output.
        resize: short side in pixels before the crop; None for `size`.

    Source: torchvision's Resize and CenterCrop.
    """

    size: int
    resize: int | None = None

    def __post_init__(self) -> None:
        if self._short_side < self.size:
            raise InputError(
                "resize of the centre crop",
                expected=f"at least the crop, {self.size} pixels",
                found=str(self.resize),
                where="CenterCrop",
                fix="Choose a larger resize.",
            )

    @property
    def _short_side(self) -> int:
        return self.size if self.resize is None else self.resize

    def sample(self, heights: Tensor, widths: Tensor, *, seed: int, index: Tensor) -> Tensor:
        sides = torch.stack(resized_sides(heights, widths, self._short_side), dim=-1)
        offsets = ((sides - self.size).double() / 2).round()  # half to even, as Python's round in torchvision
        return _source_boxes(offsets, heights, widths, self._short_side, self.size)

    def apply(self, image: np.ndarray, box: Sequence[float] | np.ndarray | Tensor) -> np.ndarray:
        return _resize_and_cut(image, box, self._short_side, self.size)

    def apply_batch(self, images: Tensor, boxes: Tensor, flip: Tensor) -> Tensor:
        return _resize_and_cut_batch(images, boxes, flip, self._short_side, self.size)


def resized_sides(heights: Tensor, widths: Tensor, short_side: int) -> tuple[Tensor, Tensor]:
    """Heights and widths [n] after the short side went to `short_side`; the long side is cut off to an integer.

    Source: torchvision's Resize.
    """
    short, long = torch.minimum(heights, widths), torch.maximum(heights, widths)
    new_long = (short_side * long).double().div(short).floor().to(torch.int64)
    new_short = torch.full_like(new_long, short_side)
    portrait = widths <= heights
    return torch.where(portrait, new_long, new_short), torch.where(portrait, new_short, new_long)


def resize(image: np.ndarray, shape: tuple[int, int], interpolation: str = "bicubic") -> np.ndarray:
    """PIL's resize (antialiased) of uint8 [H, W, 3] to `shape` (height, width): the width first, then the height.

    Differs: Pillow 13 does the height first where it shrinks by more than twice as many pixels as the width. Both
        passes round to grey levels, so the order shows; fixed as it was in every earlier Pillow, it keeps numbers
        equal across versions and to published ones.
    """
    if image.shape[:2] == shape:
        return image
    kernel = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}[interpolation]
    wide = Image.fromarray(image).resize((shape[1], image.shape[0]), kernel)
    return np.array(wide.resize((shape[1], shape[0]), kernel))


def resize_short_side(image: np.ndarray, short_side: int, interpolation: str = "bicubic") -> np.ndarray:
    """torchvision's Resize on PIL (see `resize`): uint8 [H, W, 3] -> [H', W', 3] with min(H', W') = short_side."""
    height, width = resized_sides(torch.tensor(image.shape[0]), torch.tensor(image.shape[1]), short_side)
    return resize(image, (int(height), int(width)), interpolation)


def _source_boxes(offsets: Tensor, heights: Tensor, widths: Tensor, short_side: int, size: int) -> Tensor:
    """Boxes in source pixels [n, 4] from integer offsets [n, 2] in the image resized to `short_side`."""
    sides = torch.stack((heights, widths), dim=-1).double()
    scales = sides / torch.stack(resized_sides(heights, widths, short_side), dim=-1)
    return torch.cat((offsets * scales, size * scales), dim=-1)


def _reflect(positions: Tensor, length: int | Tensor) -> Tensor:
    """Positions outside 0…length-1 mirrored at the first and the last pixel, which are not repeated."""
    return (length - 1) - ((length - 1) - positions.abs()).abs()


def _resize_and_cut(
    image: np.ndarray, box: Sequence[float] | np.ndarray | Tensor, short_side: int, size: int
) -> np.ndarray:
    resized = resize_short_side(image, short_side)
    for axis in (0, 1):
        offset = round(float(box[axis]) * resized.shape[axis] / image.shape[axis])
        positions = _reflect(offset + torch.arange(size), resized.shape[axis])
        resized = resized.take(positions.numpy(), axis=axis)
    return resized


def _resize_and_cut_batch(images: Tensor, boxes: Tensor, flip: Tensor, short_side: int, size: int) -> Tensor:
    lengths = torch.tensor(images.shape[2:])
    weights = []
    for axis, side in enumerate(resized_sides(lengths[:1], lengths[1:], short_side)):
        length, new_length = int(lengths[axis]), int(side)
        offsets = (boxes[:, axis].to(images.device) * (new_length / length)).round().to(torch.int64)
        positions = _reflect(offsets[:, None] + torch.arange(size, device=images.device), new_length)
        whole = torch.tensor([[0.0], [length]], dtype=torch.float64, device=images.device)
        weights.append(_resize_weights(whole[0], whole[1], new_length, length)[0, positions])
    return _resample(images, weights[0], weights[1], flip)


def _resize_weights(start: Tensor, extent: Tensor, size: int, length: int) -> Tensor:
    """What each of `length` source pixels counts in each of `size` output pixels, along one axis.

    Args:
        start, extent: float64 [B], of the box that is resized; pixels outside it count nothing.

    Returns:
        float32 [B, size, length], rows sum to one.

    Source: PIL's resize: Keys' bicubic kernel with a = -0.5, widened by the scale where it shrinks.
    """
    scale = extent / size
    steps = torch.arange(size, device=start.device, dtype=torch.float64) + 0.5
    centers = (start[:, None] + steps * scale[:, None]).float()[..., None]
    pixels = torch.arange(length, device=start.device, dtype=torch.float32) + 0.5
    distance = ((pixels - centers) / scale.clamp(min=1).float()[:, None, None]).abs()
    near = (1.5 * distance - 2.5) * distance.square() + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))
    inside = (pixels > start[:, None].float()) & (pixels < (start + extent)[:, None].float())
    weights = weights * inside[:, None]
    return weights / weights.sum(dim=-1, keepdim=True)


def _resample(images: Tensor, rows: Tensor, columns: Tensor, flip: Tensor) -> Tensor:
    """Weighted sums along the width, then along the height, each rounded to grey levels as PIL does.

    Args:
        images: uint8 [B, 3, H, W].
        rows, columns: float32 [B, S, H] and [B, S, W].
        flip: bool [B].
    """
    columns = torch.where(flip.to(images.device)[:, None, None], columns.flip(1), columns)
    wide = torch.bmm(images.flatten(1, 2).float(), columns.transpose(1, 2)).unflatten(1, images.shape[1:3])
    return torch.matmul(rows[:, None], _round_levels(wide)).add_(0.5).clamp_(0, 255).to(torch.uint8)


def _round_levels(values: Tensor) -> Tensor:
    return values.add_(0.5).floor_().clamp_(0, 255)
