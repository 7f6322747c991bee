"""Loads the public packages that corrupt images, to stand beside ours in benchmarks and studies."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

MODULE = "imagecorruptions"


@dataclass(frozen=True)
class Peer:
    """One of the two packages.

    Args:
        name: "imagecorruptions" or "imagecorruptions-imaug". Both install the module `imagecorruptions`, so one
            environment holds only the one that was installed last.
        functions: name of the corruption -> (PIL image, severity) -> array on [0, 255] or PIL image.
        mended: names of the functions that fail with the installed numpy and scikit-image, and the errors. They run
            here because what those libraries have removed since is given back.
    """

    name: str
    functions: dict[str, Callable[..., Any]]
    mended: dict[str, str]

    def corrupt(self, image: np.ndarray, name: str, severity: int) -> np.ndarray:
        """uint8 [H, W, 3] -> the same, truncated as the package's own `corrupt` does."""
        return np.asarray(self.functions[name](Image.fromarray(image), severity)).astype(np.uint8)


def is_installed() -> bool:
    """Whether one of the packages can be imported."""
    return importlib.util.find_spec(MODULE) is not None


def load_peer(folder: Path | None = None) -> Peer:
    """The installed package, or the one in a folder made by `pip install --no-deps --target FOLDER NAME`.

    Raises:
        ImportError: it is not there, or something that it needs is not.
    """
    package = importlib.import_module(MODULE) if folder is None else _load_from(folder)
    functions: dict[str, Callable[..., Any]] = dict(package.corruption_dict)
    module = sys.modules[f"{package.__name__}.corruptions"]
    name = "imagecorruptions-imaug" if "seed" in inspect.signature(module.glass_blur).parameters else MODULE
    failing = _find_failing(functions)
    if failing:
        _give_back(module)
    return Peer(name, functions, failing)


def _load_from(folder: Path) -> ModuleType:
    name = f"{MODULE}_{len(sys.modules)}"  # a name of its own, beside the installed one
    source = folder / MODULE / "__init__.py"
    spec = importlib.util.spec_from_file_location(name, source, submodule_search_locations=[str(source.parent)])
    if spec is None or spec.loader is None or not source.is_file():
        raise ImportError(f"no package {MODULE} in {folder}")
    package = importlib.util.module_from_spec(spec)
    sys.modules[name] = package
    spec.loader.exec_module(package)
    return package


def _find_failing(functions: dict[str, Callable[..., Any]]) -> dict[str, str]:
    image, failing = Image.fromarray(np.full((32, 32, 3), 128, np.uint8)), {}
    for name, function in functions.items():
        try:
            function(image, 1)
        except (AttributeError, TypeError) as error:  # what a removed name and a removed argument raise
            failing[name] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return failing


def _give_back(module: ModuleType) -> None:
    """In this module alone: numpy.float_ (removed in 2.0), and scikit-image's gaussian(multichannel=)."""
    smooth = module.gaussian

    def gaussian(*args: Any, multichannel: bool = False, **options: Any) -> Any:
        return smooth(*args, channel_axis=-1 if multichannel else None, **options)

    module.gaussian = gaussian  # type: ignore[attr-defined]
    module.np = SimpleNamespace(**{**vars(np), "float_": np.float64})  # type: ignore[attr-defined]
