"""The catalogue of suites, and what makes two results of one the same.

A new suite is one file and one line in SUITES: a subclass of EvaluationSuite, such as robustness.py's.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar

import torch

from pixmim_eval.errors import InputError
from pixmim_eval.extract import digest_code, identify_model
from pixmim_eval.results import hash_parts
from pixmim_eval.types import FileSet, Manifest, Model, Outcome, SuiteConfig

SUITES: dict[str, str] = {  # name -> import path; found by name, as a suite may live in a package above this one
    "robustness": "pixmim_eval.suites.robustness:Robustness",
    "linear_probe": "pixmim_eval.suites.linear_probe:LinearProbe",
    "knn": "pixmim_eval.suites.knn:Knn",
    "few_shot": "pixmim_eval.suites.few_shot:FewShot",
    "finetune": "pixmim_eval.suites.finetune:Finetune",
    "segmentation": "pixmim_eval.suites.segmentation:Segmentation",
    "detection": "pixmim_eval.suites.detection:Detection",
    "shape_bias": "pixmim_eval.suites.shape_bias:ShapeBias",
    "model_vs_human": "pixmim_eval.suites.model_vs_human:ModelVsHuman",
    "observers": "pixmim_eval.suites.observers:Observers",
    "foreground": "pixmim_eval.suites.foreground:ForegroundSuite",
    "reconstruction": "pretrain.reconstruction:ReconstructionSuite",
}


class EvaluationSuite(ABC):
    """A set of conditions that turn a model into result rows.

    Args:
        name: as `--suite` has it.
        version: raised with every change of what a row means or holds; rows of other versions are computed anew.
        needs: roles of data that must be there; a path without a role is the first of them.
        accepts: roles that may be there besides.
        openers: role -> what opens its path, for roles that are no sets of images; they are found in config.files.
        options: a frozen dataclass of the suite's own options, of which flags makes the command line's; None for none.
        takes_models: whether it measures the models of the command line.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    needs: ClassVar[tuple[str, ...]]
    accepts: ClassVar[tuple[str, ...]] = ()
    openers: ClassVar[Mapping[str, Callable[[str], FileSet]]] = {}
    options: ClassVar[type[Any] | None] = None
    takes_models: ClassVar[bool] = True

    @abstractmethod
    def conditions(self, config: SuiteConfig) -> list[str]:
        """Names of the units of resume: the rows of a condition are stored together or not at all."""

    @abstractmethod
    def roles(self, model: Model, condition: str, config: SuiteConfig) -> tuple[str, ...]:
        """Roles of the data sets and files that the rows of a condition depend on."""

    @abstractmethod
    def run(self, model: Model, condition: str, config: SuiteConfig) -> Outcome:
        """The rows of one condition, and how each image fared."""

    def settings(self, model: Model, condition: str, config: SuiteConfig) -> tuple[object, ...]:
        """What the rows of a condition depend on besides the model's encoder, data, limit, seed, device and code."""
        return (config.options,)

    def subjects(self, config: SuiteConfig) -> list[Model]:
        """What is measured besides the models of the command line, without a network: people by their answers."""
        return []

    def count_images(self, model: Model, condition: str, config: SuiteConfig) -> Mapping[str, int]:
        """Forward passes that a condition needs where nothing is cached: name of the pass -> images.

        Passes of the same name are shared by the conditions that need them.
        """
        return {}

    def measure_images(self, model: Model, config: SuiteConfig) -> tuple[str, int]:
        """A name for the decoded images that are kept on disk for this model, and their bytes."""
        return "", 0

    def draw(self, models: Sequence[Model], config: SuiteConfig, folder: Path) -> list[Path]:
        """Draw what rows do not hold, such as images, once all models were measured; the files written."""
        return []


def load_suite(name: str) -> EvaluationSuite:
    """The suite of this name. Raises InputError naming close matches."""
    if name not in SUITES:
        close = get_close_matches(name, SUITES, n=3, cutoff=0.4)
        raise InputError(
            "name of a suite",
            expected="one of " + ", ".join(SUITES),
            found=repr(name),
            where="--suite",
            fix=f"Did you mean {' or '.join(close)}?" if close else "Choose one of them.",
        )
    module, _, attribute = SUITES[name].partition(":")
    suite: EvaluationSuite = getattr(importlib.import_module(module), attribute)()
    return suite


def compute_key(suite: EvaluationSuite, model: Model, condition: str, config: SuiteConfig) -> str:
    """16 hex digits of all that the rows of a condition depend on: where they are equal, the work is done.

    A network's name is not among it: what tells two of them apart depends on which others the command line names.
    """
    who = (model.method, model.epoch) if model.encoder is not None else model.name
    roles = sorted(suite.roles(model, condition, config))
    data = tuple((role, *_describe(config.files.get(role) or config.data[role])) for role in roles)
    settings = (config.limit, config.seed, config.on_bad_image, torch.device(config.device).type, digest_code())
    own = suite.settings(model, condition, config)
    return hash_parts(suite.name, suite.version, who, identify_model(model), condition, data, settings, own)


def _describe(data: Manifest | FileSet) -> tuple[object, ...]:
    """What rows depend on of a data set."""
    of_images = (data.ready_size, data.label_space) if isinstance(data, Manifest) else ()
    return (data.name, data.digest, *of_images)
