"""The pretraining methods, by the name that recipes give: one file each, and one line here."""

from collections.abc import Callable

from pretrain.methods import mae
from pretrain.recipes import Recipe

METHODS: dict[str, Callable[[Recipe], mae.MaskedAutoencoder]] = {"mae": mae.build}
