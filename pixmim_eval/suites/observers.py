"""People and networks side by side, by their files of trials alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

from pixmim_eval.data.panels import open_trials
from pixmim_eval.suites.model_vs_human import ModelVsHuman
from pixmim_eval.types import FileSet


class Observers(ModelVsHuman):
    """The suite `observers`, which needs no images and no models.

    Conditions and metrics as of `model_vs_human`, of every experiment that the files hold.
    """

    name = "observers"
    needs = ("trials",)
    accepts = ()
    openers: ClassVar[Mapping[str, Callable[[str], FileSet]]] = {"trials": open_trials}
    options = None
    takes_models = False
