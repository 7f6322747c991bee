"""The pretraining methods, by the name that recipes give: one file each, and one line here."""

from collections.abc import Callable

from pretrain.autoencoder import MaskedAutoencoder
from pretrain.methods import convmae, mae
from pretrain.recipes import Recipe

METHODS: dict[str, Callable[[Recipe], MaskedAutoencoder]] = {
    "mae": mae.build,
    "lsmae": mae.build,
    "convmae": convmae.build,
}
