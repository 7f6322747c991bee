"""Small encoders and a recipe to train UperNet with."""

from __future__ import annotations

import torch
from torch import nn

from pixmim_eval.models.convvit import ConvArchitecture, ConvVisionTransformer
from pixmim_eval.models.vit import Architecture, VisionTransformer
from pixmim_eval.transfer.segmentation.recipes import UperNetRecipe
from pixmim_eval.types import Model, Preprocessing

SMALL = UperNetRecipe(
    crop=32,
    iterations=4,
    train_batch_size=4,
    channels=8,
    auxiliary_channels=4,
    stride=16,
    drop_path=0.2,
    precision="fp32",
)


def make_model(encoder: nn.Module | None = None, size: int = 32) -> Model:
    torch.manual_seed(0)
    encoder = encoder or VisionTransformer(size, Architecture(patch=8, dim=24, depth=4, heads=3))
    return Model("tiny", "0" * 16, encoder.eval(), Preprocessing(size, size), method="mae")


def make_conv() -> ConvVisionTransformer:
    torch.manual_seed(1)
    architecture = ConvArchitecture(strides=(4, 2, 2), dims=(8, 12, 24), depths=(1, 1, 2), heads=3)
    return ConvVisionTransformer(32, architecture, fusion=True).eval()
