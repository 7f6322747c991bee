"""Checkpoints of runs that never were: small encoders with random weights, as pretraining writes them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from pixmim_eval.models.checkpoints import ours
from pixmim_eval.models.vit import Architecture, VisionTransformer
from pixmim_eval.types import Tokens

TINY = Architecture(patch=8, dim=24, depth=1, heads=2)


def write_recipe(run: Path, epochs: int) -> None:
    """The recipe.json of a run that will have so many epochs."""
    run.mkdir(parents=True, exist_ok=True)
    (run / "recipe.json").write_text(json.dumps({"epochs": epochs}))


def write_checkpoint(run: Path, epoch: int, *, method: str = "mae", seed: int = 0, size: int = 16) -> Path:
    """epoch-NNNN.safetensors with weights that depend on (epoch, seed) alone."""
    run.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(1000 * seed + epoch)
    tensors = {
        name: torch.randn(value.shape, generator=generator) / 4
        for name, value in VisionTransformer(size, TINY).state_dict().items()
    }
    path = run / f"epoch-{epoch:04d}.safetensors"
    ours.write(path, tensors, architecture=TINY, image_size=size, method=method, epoch=epoch, recipe={})
    return path


def replace_analysis(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw nothing at the end of an evaluation."""
    analysis = ModuleType("analysis.run")
    analysis.main = lambda arguments: 0  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "analysis.run", analysis)


def watch_passes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Work in an empty folder with an empty cache; gives the images of each forward pass from now on."""
    monkeypatch.setenv("PIXMIM_CACHE", str(folder / "cache"))
    monkeypatch.chdir(folder)
    replace_analysis(monkeypatch)
    seen: list[int] = []
    real = VisionTransformer.tokens

    def tokens(self: VisionTransformer, images: Tensor) -> Tokens:
        seen.append(len(images))
        return real(self, images)

    monkeypatch.setattr(VisionTransformer, "tokens", tokens)
    return seen
