"""One pass of images through a model: what identifies it, which images go in, what comes out."""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pixmim_eval.corruptions import corrupt
from pixmim_eval.data.loader import evaluation_batches
from pixmim_eval.data.transforms import name_transform, normalize
from pixmim_eval.extract.processes import one_thread, split_over_threads
from pixmim_eval.results import hash_parts
from pixmim_eval.types import Batch, Encoder, Manifest, Model, SuiteConfig

_CODE = ("corruptions/**/*.py", "data/**/*.py", "models/**/*.py", "extract/*.py", "metrics/*.py", "seeds.py")
_MEMORY_BYTES = 2**30
_memory: OrderedDict[str, list[Batch]] = OrderedDict()  # images of small data sets, the oldest first


@dataclass(frozen=True)
class ImagePass:
    """One pass of images through a model.

    Args:
        model, manifest: which.
        rows: int64, sorted rows of the manifest.
        config: seed, device, batch size, workers and what to do about bad images.
        forward: normalised images [B, 3, S, S] -> named outputs [B, width].
        output: a name for what forward computes from the model.
        corruption: (name, severity), or None.
    """

    model: Model
    manifest: Manifest
    rows: np.ndarray
    config: SuiteConfig
    forward: Callable[[Tensor], dict[str, Tensor]]
    output: str
    corruption: tuple[str, int] | None = None

    @property
    def images_key(self) -> str:
        """16 hex digits that name the images that go in, before normalisation."""
        transform = name_transform(self.model.preprocessing, self.manifest)
        rows = hashlib.blake2b(self.rows.tobytes(), digest_size=8).hexdigest()
        noise = None if self.corruption is None else (*self.corruption, self.config.seed)
        return hash_parts(self.manifest.digest, transform, rows, noise, self.config.on_bad_image)

    @property
    def key(self) -> str:
        """16 hex digits that name the outputs: content and code, never a file's name.

        Precision is not in it, as it follows from the kind of device (float32, on a GPU bfloat16 autocast) and from the
        size of the outputs.
        """
        device = torch.device(self.config.device).type
        return hash_parts(identify_model(self.model), self.images_key, self.output, device, digest_code())

    def run(self) -> Iterator[tuple[Batch, dict[str, np.ndarray]]]:
        """Each batch with its outputs, float32 [B, width]. Raises FloatingPointError where they are not finite."""
        batches = _read_images(self)
        with split_over_threads(torch.device(self.config.device)) as split:
            for batch in batches:
                parts = split(self._compute, batch.images, batch.index)
                yield batch, {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def measure_widths(self) -> dict[str, int]:
        """Width of each output, from a blank image."""
        size = self.model.preprocessing.size
        with one_thread():
            outputs = self._compute(torch.zeros(1, 3, size, size, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))
        return {name: values.shape[1] for name, values in outputs.items()}

    def _compute(self, images: Tensor, index: Tensor) -> dict[str, np.ndarray]:
        device, preprocessing = torch.device(self.config.device), self.model.preprocessing
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            normal = normalize(images.to(device), preprocessing.mean, preprocessing.std)
            outputs = {name: values.float().cpu().numpy() for name, values in self.forward(normal).items()}
        for name, values in outputs.items():
            if not np.isfinite(values).all():
                row = int(index[np.flatnonzero(~np.isfinite(values).all(axis=1))[0]])
                raise FloatingPointError(
                    f"{name} of model {self.model.name} are not finite in row {row} of {self.manifest.name}"
                )
        return outputs


def pool_tokens(encoder: Encoder, images: Tensor) -> dict[str, Tensor]:
    """The poolings of an encoder's tokens, each [B, D]: "cls" where there is a class token, "mean" of the patches."""
    tokens = encoder.tokens(images)
    pooled = {} if tokens.cls is None else {"cls": tokens.cls}
    return pooled | {"mean": tokens.patches.mean(dim=1)}


def identify_model(model: Model) -> str:
    """16 hex digits of what a model's outputs depend on: two models with the same ones may share results.

    The digest of the weights alone would not do: the same weights can be used with another structure (number of heads,
    activation, norm), geometry or normalisation, or for other classes.
    """
    structure = re.sub(r" at 0x[0-9a-f]+", "", repr(model.encoder))
    settings = tuple((name, _list_settings(module)) for name, module in model.encoder.named_modules())
    classifier = getattr(model.classify, "__qualname__", type(model.classify).__qualname__)
    encoder = (type(model.encoder).__qualname__, structure, settings)
    return hash_parts(model.digest, encoder, classifier, model.label_space, model.preprocessing)


def _list_settings(module: nn.Module) -> tuple[tuple[str, object], ...]:
    """Plain public attributes of a module: its repr need not tell them all (attention leaves out its heads)."""
    plain = (bool, int, float, str, tuple)
    return tuple(
        (name, value)
        for name, value in sorted(vars(module).items())
        if isinstance(value, plain) and name != "training" and not name.startswith("_")
    )


@cache
def digest_code() -> str:
    """Digest of the source between images and outputs, so that no stored number outlives a change of it."""
    root = Path(__file__).parents[1]
    files = sorted(file for pattern in _CODE for file in root.glob(pattern))
    sources = tuple((str(file.relative_to(root)), hashlib.blake2b(file.read_bytes()).hexdigest()) for file in files)
    return hash_parts(sources, version("timm"))


def _read_images(images: ImagePass) -> Iterable[Batch]:
    """Batches of uint8 images after geometry and corruption; small sets stay in memory for other models."""
    key = hash_parts(images.images_key, images.config.batch_size)
    if key in _memory:
        _memory.move_to_end(key)
        return _memory[key]
    if images.corruption is None:
        batches: Iterable[Batch] = _decode_images(images)
    else:
        batches = _corrupt_images(images, *images.corruption)
    size = 3 * images.model.preprocessing.size**2 * len(images.rows)
    if 4 * size > _MEMORY_BYTES:
        return batches
    _memory[key] = list(batches)
    while sum(batch.images.nbytes for kept in _memory.values() for batch in kept) > _MEMORY_BYTES:
        _memory.popitem(last=False)
    return _memory[key]


def _decode_images(images: ImagePass) -> Iterator[Batch]:
    return iter(
        evaluation_batches(
            images.manifest,
            images.model.preprocessing,
            rows=images.rows,
            batch_size=images.config.batch_size,
            workers=images.config.workers,
            on_bad_image=images.config.on_bad_image,
        )
    )


def _corrupt_images(images: ImagePass, name: str, severity: int) -> Iterator[Batch]:
    device = torch.device(images.config.device)
    function = partial(_corrupt, name=name, severity=severity, seed=images.config.seed, device=device)
    batches = _read_images(replace(images, corruption=None))
    with split_over_threads(device) as split:
        for batch in batches:
            yield replace(batch, images=torch.cat(split(function, batch.images, batch.index)))


def _corrupt(images: Tensor, index: Tensor, *, name: str, severity: int, seed: int, device: torch.device) -> Tensor:
    return corrupt(images.to(device), name, severity, seed=seed, index=index)
