"""ConvMAE (arXiv 2205.03892): two stages of masked convolutions before the ViT, mask drawn on the last stage's grid."""

from __future__ import annotations

from pixmim_eval.models.convvit import ConvArchitecture
from pretrain.autoencoder import MaskedAutoencoder, build_autoencoder
from pretrain.recipes import Recipe


def build(recipe: Recipe) -> MaskedAutoencoder:
    """The model of a recipe, with random weights from torch's global generator.

    The grids of stages 1 and 2 are four times and twice as fine as the last one, as published.
    """
    architecture = ConvArchitecture(
        strides=(recipe.patch // 4, 2, 2),
        dims=(recipe.stage1_dim, recipe.stage2_dim, recipe.dim),
        depths=(recipe.stage1_depth, recipe.stage2_depth, recipe.depth),
        heads=recipe.heads,
    )
    return build_autoencoder(recipe, architecture)
