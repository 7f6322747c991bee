"""Classifiers on frozen features: one linear layer, however it was found."""

from pixmim_eval.models.heads.linear import LinearHead
from pixmim_eval.models.heads.logistic import L2_GRID, apply_solution, choose_pooling, fit_linear, minimise_loss

__all__ = ["L2_GRID", "LinearHead", "apply_solution", "choose_pooling", "fit_linear", "minimise_loss"]
