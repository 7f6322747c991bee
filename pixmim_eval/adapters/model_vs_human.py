"""A checkpoint as a model of the package model-vs-human, for who wants its own loaders and plots.

    from pixmim_eval.adapters.model_vs_human import register
    from pixmim_eval.models.catalog import load_models
    name = register(load_models(["CHECKPOINT"])[0])
    modelvshuman.Evaluate()([name], ["cue-conflict"], batch_size=16, print_predictions=True, num_workers=4)

The package must be importable as `modelvshuman`; nothing else of it is needed here, and nothing is downloaded.
"""

from __future__ import annotations

import importlib
import re

import numpy as np
import torch
from torch import Tensor

from pixmim_eval.data.imagenet import imagenet_space
from pixmim_eval.data.transforms import denormalize
from pixmim_eval.errors import InputError
from pixmim_eval.types import Model, Preprocessing

_THEIRS = Preprocessing(224, 224)  # the normalisation that its loaders apply is that of ImageNet


class PublicModel:
    """What model-vs-human asks of a model: batches in, NumPy out.

    Args:
        model: has a classifier of ImageNet-1k's 1000 classes; it is moved to the GPU where there is one, as are the
            package's batches.

    Raises:
        InputError: the model has no such classifier, or takes images of another size than 224 px.
    """

    def __init__(self, model: Model) -> None:
        space = model.label_space
        if model.classify is None or space is None or space.classes != imagenet_space().classes:
            raise _input_error(
                "a classifier of ImageNet-1k's 1000 classes", space.name if space else "an encoder without a classifier"
            )
        if model.preprocessing.size != _THEIRS.size:
            raise _input_error(f"a model of {_THEIRS.size} px images", f"{model.preprocessing.size} px")
        self.model, self._classify = model, model.classify
        model.encoder.to("cuda" if torch.cuda.is_available() else "cpu")

    def forward_batch(self, images: Tensor) -> np.ndarray:
        """Images float [B, 3, 224, 224] with ImageNet's mean and std -> logits float32 [B, 1000]."""
        own = self.model.preprocessing
        with torch.inference_mode():
            pixels = denormalize(images, _THEIRS.mean, _THEIRS.std)
            mean, std = (torch.tensor(values, device=images.device)[:, None, None] for values in (own.mean, own.std))
            logits: np.ndarray = self._classify((pixels - mean) / std).float().cpu().numpy()
        return logits

    def softmax(self, logits: np.ndarray) -> np.ndarray:
        """Logits -> probabilities, [B, 1000]."""
        return torch.from_numpy(logits).softmax(dim=1).numpy()

    def to_numpy(self, values: Tensor) -> np.ndarray:
        """A tensor as an array."""
        return values.detach().cpu().numpy()


def register(model: Model) -> str:
    """Make a model known to the package, and return the name by which it is evaluated.

    Raises:
        InputError: the package is not installed, or as PublicModel.
    """
    name = re.sub(r"\W+", "_", model.name)
    public = PublicModel(model)
    try:
        zoo = importlib.import_module("modelvshuman.models").pytorch_model_zoo
        registry = importlib.import_module("modelvshuman.models.registry")
    except ImportError as error:
        raise InputError(
            "package model-vs-human",
            expected="that it can be imported as modelvshuman",
            found=str(error),
            where="this environment",
            fix="Install it as its README says, or stay with ours: python -m pixmim_eval.run --suite model_vs_human.",
        ) from error

    def build(model_name: str, *arguments: object) -> PublicModel:
        return public

    build.__name__ = name  # the package finds a model by the name of the function that builds it
    setattr(zoo, name, build)
    registry.register_model("pytorch")(build)
    return name


def _input_error(expected: str, found: str) -> InputError:
    return InputError(
        "a model for model-vs-human",
        expected=expected,
        found=found,
        where="adapters.model_vs_human",
        fix="Its package maps 1000 classes to categories by itself; for other models: --suite shape_bias.",
    )
