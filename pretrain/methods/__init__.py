"""The pretraining methods, by the name that recipes give: one file each, and one line here."""

from collections.abc import Callable

from pretrain.autoencoder import MaskedAutoencoder
from pretrain.methods import convmae, mae, supervised
from pretrain.recipes import Recipe

METHODS: dict[str, Callable[[Recipe], MaskedAutoencoder]] = {
    "mae": mae.build,
    "lsmae": mae.build,
    "convmae": convmae.build,
}
# Methods that learn from labels also need the number of classes; recipes.SUPERVISED names them too.
SUPERVISED_METHODS: dict[str, Callable[[Recipe, int], supervised.SupervisedClassifier]] = {"deit3": supervised.build}
