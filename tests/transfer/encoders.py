"""Encoders with random weights, small enough to be fine-tuned in a test."""

from __future__ import annotations

import timm
import torch

from pixmim_eval.models.checkpoints.reading import digest_tensors
from pixmim_eval.models.convvit import ConvArchitecture, ConvVisionTransformer
from pixmim_eval.models.timm_models import TimmEncoder
from pixmim_eval.models.vit import Architecture, VisionTransformer
from pixmim_eval.types import Model, Preprocessing

VIT = Architecture(patch=8, dim=16, depth=3, heads=2)
CONVVIT = ConvArchitecture(strides=(2, 2, 2), dims=(8, 12, 16), depths=(1, 2, 3), heads=2)


def make_vit(size: int = 16) -> Model:
    """A ViT of three blocks."""
    torch.manual_seed(0)
    return wrap(VisionTransformer(size, VIT), size)


def make_convvit(size: int = 16) -> Model:
    """A ConvViT as pretraining leaves it, with the fusion."""
    torch.manual_seed(0)
    return wrap(ConvVisionTransformer(size, CONVVIT, fusion=True), size)


def make_timm(name: str, size: int = 32, **settings: int) -> Model:
    """A timm model with random weights."""
    torch.manual_seed(0)
    return wrap(TimmEncoder(timm.create_model(name, **settings), size), size)


def wrap(encoder: torch.nn.Module, size: int) -> Model:
    encoder.eval().requires_grad_(False)
    digest = digest_tensors(encoder.state_dict())
    return Model("tiny", digest, encoder, Preprocessing(size, size), method="mae", epoch=5)
