"""Bytes, grey levels and HSV."""

from __future__ import annotations

import torch
from torch import Tensor


def truncate(levels: Tensor, tie: float = 2.0**-10) -> Tensor:
    """Grey levels as bytes: clipped to [0, 255] and truncated, as the published code leaves its images.

    Args:
        levels: float, any shape, on the scale of bytes; overwritten.
        tie: a value less than this below a whole grey level counts as that level.

    Returns:
        uint8 of the same shape.

    Source: hendrycks/robustness, ImageNet-C/create_c: `np.uint8(np.clip(x, 0, 1) * 255)`.
    Differs: where exact arithmetic gives a whole grey level, rounding errors decide in the published float64 code: a
        flat region that is blurred may come out one level darker. Here it keeps its level.
    """
    return _to_bytes(levels.add_(tie).clamp_(0, 255))


def _to_bytes(levels: Tensor) -> Tensor:
    return levels.to(torch.int16).to(torch.uint8)  # twice as fast on a processor as straight to uint8


def change_hsv(images: Tensor, *, factor: float = 1.0, addend: float = 0.0, added: float = 0.0) -> Tensor:
    """Images whose saturation S and value V of HSV become S · factor + addend and V + added, clipped to [0, 1].

    The hue stays; grey has hue 0, so an addend turns it red. The largest of red, green and blue becomes V, the smallest
    V(1 - S), and the one between them V(1 - wS), where w falls from 1 at the smallest to 0 at the largest.

    Args:
        images: uint8 [B, 3, H, W].
        factor, addend: of the saturation.
        added: to the value, on [0, 1].

    Returns:
        uint8 [B, 3, H, W], truncated.

    Source: scikit-image `rgb2hsv` and `hsv2rgb`. Every float64 operation that they round is made here with the same
        operands, so that values which are whole grey levels in exact arithmetic come out alike too.
    """
    red, green, blue = images.unbind(1)
    highest, lowest = images.amax(1), images.amin(1)
    middle = red ^ green ^ blue ^ highest ^ lowest
    value, between, smallest = torch.stack((highest, middle, lowest)).double().div_(255).unbind()
    span = value - smallest
    saturation = span / value.clamp(min=1e-3)  # black has saturation 0
    fraction = between.sub_(smallest).div_(span.clamp_(min=1e-3))
    weight = _weigh_middle(images, highest, fraction)
    saturation.mul_(factor).add_(addend).clamp_(0, 1)
    value.add_(added).clamp_(0, 1)
    levels = (value, weight.mul_(saturation).neg_().add_(1).mul_(value), saturation.neg_().add_(1).mul_(value))
    return _replace_levels(images, (highest, lowest), [_to_bytes(level.mul_(255)) for level in levels])


def _weigh_middle(images: Tensor, highest: Tensor, fraction: Tensor) -> Tensor:
    """The weight w of the middle channel, 1 - fraction but for the rounding of the published detour by the hue.

    Going round the circle of hues from a main colour (0, 2 or 4 sixths), the next channel rises, or the one before
    falls, by `fraction`: the hue is start ± fraction sixths, and w its distance from the secondary colour there.

    Args:
        images: uint8 [B, 3, H, W].
        highest: uint8 [B, H, W], the largest channel.
        fraction: float64 [B, H, W], (middle - smallest) / (largest - smallest); overwritten.
    """
    red, green, blue = images.unbind(1)
    is_blue = blue == highest
    is_red = (green != highest) > is_blue  # neither green nor blue
    rises = ((red < green) ^ (green < blue) ^ (blue < red)).view(torch.uint8)
    wraps = (is_red.view(torch.uint8) > rises).view(torch.uint8)  # a hue below 0
    start = 2 - is_red.view(torch.uint8) * 2 + is_blue.view(torch.uint8) * 2
    secondary = start + rises * 2 + wraps * 6 - 1
    hue = fraction.mul_(rises.double().mul_(2).sub_(1)).add_(start.double()).div_(6).add_(wraps.double())
    return hue.mul_(6).sub_(secondary.double()).abs_()


def _replace_levels(images: Tensor, old: tuple[Tensor, Tensor], new: list[Tensor]) -> Tensor:
    """New bytes [B, H, W] for the largest, the middle and the smallest channel, given the old (largest, smallest)."""
    highest, middle, lowest = (level[:, None] for level in new)
    at_highest, at_lowest = ((images == level[:, None]).view(torch.uint8).neg_() for level in old)  # 255 where equal
    result = middle ^ ((middle ^ highest) & at_highest)
    result ^= (result ^ lowest).bitwise_and_(at_lowest)
    red = result[:, :1]  # grey is its own largest and smallest: red takes the one, green and blue the other
    red ^= (red ^ highest).bitwise_and_(at_highest[:, :1])
    return result
