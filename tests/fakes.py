"""Small models and data sets whose right answers are easy to compute another way."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from pixmim_eval.errors import BadImageError
from pixmim_eval.types import LabelSpace, Manifest, Model, Preprocessing, Tokens

COLOURS = LabelSpace("names-3", ("blue", "green", "red"))


@dataclass(frozen=True)
class ArraySource:
    """Images in memory; rows in `bad` cannot be decoded."""

    images: np.ndarray
    bad: tuple[int, ...] = ()

    def read(self, rows: Sequence[int]) -> list[np.ndarray]:
        for row in rows:
            if int(row) in self.bad:
                raise BadImageError(
                    "image",
                    expected="an image",
                    found="noise",
                    where=f"image-{row}",
                    fix="--on-bad-image skip counts it.",
                )
        return [self.images[row] for row in rows]


def make_manifest(
    count: int = 30,
    size: int = 16,
    seed: int = 0,
    space: LabelSpace = COLOURS,
    bad: tuple[int, ...] = (),
    name: str = "colours",
) -> Manifest:
    """Random images of which one channel is brighter; labels cycle through the classes."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % len(space.classes)
    images = generator.integers(0, 200, (count, size, size, 3), dtype=np.uint8)
    images[np.arange(count), :, :, 2 - labels % 3] += np.uint8(55)
    digest = hashlib.blake2b(images.tobytes() + repr((space, bad)).encode(), digest_size=8).hexdigest()
    keys = np.array([f"image-{row}" for row in range(count)])
    return Manifest(name, keys, labels, space, digest, ArraySource(images, bad), ready_size=size)


class TinyEncoder(nn.Module):
    """Patches through one linear map and an activation; the class token, if any, is the largest of each feature."""

    def __init__(self, seed: int = 0, cls: bool = True, activation: nn.Module | None = None, size: int = 16) -> None:
        super().__init__()
        self.dim, self.patch, self.cls = 12, 8, cls
        self._seen: list[int] = []  # private, as it says nothing of what the model gives
        generator = torch.Generator().manual_seed(seed)
        self.embed = nn.Conv2d(3, self.dim, 8, 8)
        self.embed.weight.data = torch.randn(self.embed.weight.shape, generator=generator) / 8
        self.embed.bias.data = torch.randn(self.dim, generator=generator)  # type: ignore[union-attr]
        self.activation = activation or nn.ReLU()

    @property
    def calls(self) -> int:
        """Images so far."""
        return sum(self._seen)

    def tokens(self, images: Tensor) -> Tokens:
        self._seen.append(len(images))
        embedded = self.activation(self.embed(images))
        patches = embedded.flatten(2).transpose(1, 2)
        return Tokens(patches.amax(dim=1) if self.cls else None, patches, (embedded.shape[2], embedded.shape[3]))


@dataclass
class TinyClassifier:
    """A linear layer on the mean token."""

    encoder: TinyEncoder
    classes: int
    weight: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.weight = torch.randn(self.encoder.dim, self.classes, generator=torch.Generator().manual_seed(9))

    def __call__(self, images: Tensor) -> Tensor:
        return self.encoder.tokens(images).patches.mean(dim=1) @ self.weight


def make_model(
    seed: int = 0,
    space: LabelSpace | None = COLOURS,
    name: str = "tiny",
    size: int = 16,
    cls: bool = True,
    activation: nn.Module | None = None,
    **changes: object,
) -> Model:
    """A model with a classifier for `space`, or a bare encoder where space is None."""
    encoder = TinyEncoder(seed, cls, activation).eval()
    weights = b"".join(value.numpy().tobytes() for value in encoder.state_dict().values())
    fields: dict[str, object] = {
        "name": name,
        "digest": hashlib.blake2b(weights, digest_size=8).hexdigest(),
        "encoder": encoder,
        "preprocessing": Preprocessing(size, size),
        "classify": TinyClassifier(encoder, len(space.classes)) if space else None,
        "label_space": space,
        "method": "mae",
        "epoch": 5,
    }
    return Model(**{**fields, **changes})  # type: ignore[arg-type]
