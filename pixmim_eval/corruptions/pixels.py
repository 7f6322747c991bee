"""Bytes, grey levels and HSV."""

from __future__ import annotations

import torch
from torch import Tensor

# Which of (value, p, q, t) red, green and blue take in each sixth of the hue circle.
_SECTORS = ((0, 3, 1), (2, 0, 1), (1, 0, 3), (1, 2, 0), (3, 1, 0), (0, 1, 2))


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
    return levels.add_(tie).clamp_(0, 255).to(torch.uint8)


def to_hsv(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue, saturation and value of images uint8 [B, 3, H, W]: float64 [B, H, W], each on [0, 1]; grey has hue 0.

    Source: scikit-image `rgb2hsv`, operation by operation, so that float64 rounds alike.
    """
    red, green, blue = (images.double() / 255).unbind(1)
    value = torch.maximum(torch.maximum(red, green), blue)
    delta = value - torch.minimum(torch.minimum(red, green), blue)
    colour = delta.where(delta > 0, 1.0)
    hue = (red - green) / colour + 4
    hue = hue.where(blue == value, ((blue - red) / colour + 2).where(green == value, (green - blue) / colour))
    hue = (hue / 6).remainder(1.0).where(delta > 0, 0.0)
    return hue, delta / value.where(value > 0, 1.0), value


def from_hsv(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Bytes [B, 3, H, W], truncated, of hue, saturation and value float64 [B, H, W], each on [0, 1].

    Source: scikit-image `hsv2rgb`, operation by operation.
    """
    sixths = hue * 6
    sector = sixths.floor()
    fraction = sixths - sector
    p = value * (1 - saturation)
    q = value * (1 - fraction * saturation)
    t = value * (1 - (1 - fraction) * saturation)
    levels = torch.stack((value, p, q, t), dim=1).clamp_(0, 1).mul_(255).to(torch.uint8)
    choice = torch.tensor(_SECTORS, device=hue.device).T[:, sector.long() % 6].movedim(0, 1)
    return levels.gather(1, choice)
