"""Pictures of what a masked autoencoder reconstructs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from pixmim_eval.data.transforms import denormalize
from pixmim_eval.files import replace_atomically
from pretrain.autoencoder import Reconstruction
from pretrain.targets import IMAGENET_MEAN, IMAGENET_STD, patchify, unpatchify

GAP = 4  # pixels between pictures
HEADER = 18  # pixels for the titles
TITLES = ("input", "masked input", "prediction", "target")
SCALE_TO = 128  # small images are enlarged to about this many pixels


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
    seen = patchify(images.float(), patch)
    masked = reconstruction.mask[:, :, None].bool()
    columns = [
        seen,
        torch.where(masked, torch.zeros_like(seen), seen),  # 0 is the mean colour
        torch.where(masked, reconstruction.prediction, seen),
        reconstruction.target,
    ]
    panels = [denormalize(unpatchify(column, patch, grid), IMAGENET_MEAN, IMAGENET_STD) for column in columns]
    pixels = (torch.stack(panels, dim=1).clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    factor = max(1, SCALE_TO // pixels.shape[-1])
    pixels = pixels.repeat_interleave(factor, dim=-1).repeat_interleave(factor, dim=-2)
    rows = [torch.cat([_pad(panel) for panel in row], dim=2) for row in pixels]
    picture = torch.cat(rows, dim=1)
    picture = torch.cat((_draw_titles(picture.shape[2]), picture), dim=1)
    with replace_atomically(path) as temporary:
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(temporary, format="PNG")
    return picture


def _draw_titles(width: int) -> Tensor:
    """The strip above the columns, uint8 [3, HEADER, width]."""
    strip = Image.new("RGB", (width, HEADER), "white")
    pen = ImageDraw.Draw(strip)
    for column, title in enumerate(TITLES):
        pen.text((column * width // len(TITLES) + 2, 3), title, fill="black")
    return torch.from_numpy(np.array(strip)).permute(2, 0, 1)


def _pad(panel: Tensor) -> Tensor:
    return torch.nn.functional.pad(panel, (0, GAP, 0, GAP), value=255)
