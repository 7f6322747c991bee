"""MAE (arXiv 2111.06377) and LSMAE (arXiv 2210.07224): a ViT that sees a quarter of the image's patches.

LSMAE is MAE on long sequences (448 px, 784 patches) where whole units of 2 x 2 patches are masked: Recipe.mask_unit.
"""

from __future__ import annotations

from pixmim_eval.models.vit import Architecture
from pretrain.autoencoder import MaskedAutoencoder, build_autoencoder
from pretrain.recipes import Recipe


def build(recipe: Recipe) -> MaskedAutoencoder:
    """The model of a recipe, with random weights from torch's global generator."""
    return build_autoencoder(recipe, Architecture(recipe.patch, recipe.dim, recipe.depth, recipe.heads))
