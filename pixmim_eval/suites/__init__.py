"""The catalogue of suites, and what makes two results of one the same.

A new suite is one file and one line in SUITES: a class with the members of EvaluationSuite, such as robustness.py's.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from pixmim_eval.errors import InputError
from pixmim_eval.extract import digest_code, identify_model
from pixmim_eval.results import hash_parts
from pixmim_eval.types import Model, Suite, SuiteConfig

SUITES: dict[str, str] = {  # name -> import path; found by name, as a suite may live in a package above this one
    "robustness": "pixmim_eval.suites.robustness:Robustness",
    "reconstruction": "pretrain.reconstruction:ReconstructionSuite",
}


class EvaluationSuite(Suite, Protocol):
    """A suite as the command line runs it.

    Args:
        version: raised with every change of what a row means or holds; rows of other versions are computed anew.
        needs: roles of data that must be there.
        accepts: roles that may be there besides.
    """

    version: int
    accepts: tuple[str, ...]

    def roles(self, model: Model, condition: str, config: SuiteConfig) -> tuple[str, ...]:
        """Roles of the data sets that the rows of a condition depend on."""
        ...

    def settings(self, model: Model, condition: str, config: SuiteConfig) -> tuple[object, ...]:
        """What the rows of a condition depend on besides the model's encoder, data, limit, seed, device and code."""
        ...

    def count_images(self, model: Model, condition: str, config: SuiteConfig) -> Mapping[str, int]:
        """Forward passes that a condition needs where nothing is cached: name of the pass -> images.

        Passes of the same name are shared by the conditions that need them.
        """
        ...

    def measure_images(self, model: Model, config: SuiteConfig) -> tuple[str, int]:
        """A name for the decoded images that are kept on disk for this model, and their bytes."""
        ...


@runtime_checkable
class PictureSuite(Protocol):
    """A suite that also shows images, which rows do not hold."""

    def draw(self, models: Sequence[Model], config: SuiteConfig, folder: Path) -> list[Path]:
        """Draw all models side by side, after they were measured, and return the files written to the folder."""
        ...


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
    """16 hex digits of all that the rows of a condition depend on: where they are equal, the work is done."""
    data = [(role, config.data[role]) for role in sorted(suite.roles(model, condition, config))]
    described = tuple((role, set_.name, set_.digest, set_.ready_size, set_.label_space) for role, set_ in data)
    settings = (config.limit, config.seed, config.on_bad_image, torch.device(config.device).type, digest_code())
    own = suite.settings(model, condition, config)
    return hash_parts(suite.name, suite.version, model.name, identify_model(model), condition, described, settings, own)
