"""The adapter against a stand-in that calls models exactly as the package does."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable

import numpy as np
import pytest
import torch

from pixmim_eval.adapters.model_vs_human import PublicModel, register
from pixmim_eval.data.imagenet import imagenet_space
from pixmim_eval.data.transforms import normalize
from pixmim_eval.errors import InputError
from pixmim_eval.types import Model, Preprocessing
from tests.fakes import make_model

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)


def imagenet_model(**changes: object) -> Model:
    preprocessing = Preprocessing(224, 256, mean=HALF, std=HALF)
    return make_model(**{"space": imagenet_space(), "preprocessing": preprocessing, "name": "mae-800:a/b", **changes})  # type: ignore[arg-type]


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """`modelvshuman.models` and its registry: a model is built by the function of its name in the zoo."""
    known: dict[str, list[str]] = {"pytorch": []}

    def register_model(framework: str) -> Callable[[Callable[..., object]], Callable[..., object]]:
        def keep(build: Callable[..., object]) -> Callable[..., object]:
            known[framework].append(build.__name__)
            return build

        return keep

    models, registry = types.ModuleType("modelvshuman.models"), types.ModuleType("modelvshuman.models.registry")
    zoo = types.ModuleType("modelvshuman.models.pytorch.model_zoo")
    models.pytorch_model_zoo = zoo  # type: ignore[attr-defined]
    registry.register_model = register_model  # type: ignore[attr-defined]
    for name, module in (("modelvshuman", types.ModuleType("modelvshuman")), (models.__name__, models),
                         (registry.__name__, registry)):  # fmt: skip
        monkeypatch.setitem(sys.modules, name, module)
    return types.SimpleNamespace(zoo=zoo, known=known)


def test_a_registered_model_is_built_and_asked_as_any_other(package: types.SimpleNamespace) -> None:
    model = imagenet_model()
    name = register(model)
    assert name == "mae_800_a_b" and package.known["pytorch"] == [name]
    theirs = getattr(package.zoo, name)(name)
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 3, 224, 224), dtype=np.uint8))
    logits = theirs.forward_batch(normalize(pixels, IMAGENET_MEAN, IMAGENET_STD))
    assert model.classify is not None
    with torch.inference_mode():
        expected = model.classify(normalize(pixels, HALF, HALF)).numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    probabilities = theirs.softmax(logits)
    np.testing.assert_allclose(probabilities, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), rtol=1e-5)
    assert theirs.to_numpy(torch.arange(3)).tolist() == [0, 1, 2]


def test_the_batch_of_the_package_is_left_as_it_is() -> None:
    images = torch.rand(1, 3, 224, 224)
    before = images.clone()
    PublicModel(imagenet_model()).forward_batch(images)
    assert torch.equal(images, before)


def test_a_model_of_other_classes_or_size_is_refused() -> None:
    with pytest.raises(InputError, match="1000 classes, found names-3"):
        PublicModel(make_model())
    with pytest.raises(InputError, match="encoder without a classifier"):
        PublicModel(make_model(space=None))
    with pytest.raises(InputError, match="found 384 px"):
        PublicModel(imagenet_model(preprocessing=Preprocessing(384, 384)))


def test_without_the_package_the_message_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modelvshuman", None)
    with pytest.raises(InputError, match="imported as modelvshuman"):
        register(imagenet_model())
