"""One pass of images through a model: what identifies it, which images go in, what comes out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pixmim_eval.corruptions import corrupt
from pixmim_eval.corruptions.frost import frost_source
from pixmim_eval.data.crops import Crop
from pixmim_eval.data.loader import evaluation_batches, view_batches
from pixmim_eval.data.transforms import name_transform, normalize
from pixmim_eval.extract.processes import MODEL_VALUES, one_thread, split_over_threads
from pixmim_eval.extract.store import Shape, load_entry
from pixmim_eval.results import hash_parts
from pixmim_eval.types import Batch, Encoder, Manifest, Model, Preprocessing, SuiteConfig

_CODE = ("corruptions/**/*.py", "data/**/*.py", "models/**/*.py", "extract/*.py", "metrics/*.py", "seeds.py")
_KEPT_BYTES = 2**28  # of corrupted images, for the other models of a run
_HALF_ABOVE_BYTES = 2**30
_kept: dict[str, list[Batch]] = {}  # the corrupted images of one condition at most


@dataclass(frozen=True)
class DecodedImages:
    """Images after evaluation geometry, decoded once and kept on disk: what is corrupted in many ways starts here.

    Args:
        manifest, rows: which; rows int64, sorted.
        preprocessing: which geometry.
        config: seed, device, batch size, workers and what to do about bad images.
    """

    manifest: Manifest
    preprocessing: Preprocessing
    rows: np.ndarray
    config: SuiteConfig
    kind = "images"

    @property
    def key(self) -> str:
        """16 hex digits that name the images before normalisation."""
        transform = name_transform(self.preprocessing, self.manifest)
        rows = hashlib.blake2b(self.rows.tobytes(), digest_size=8).hexdigest()
        return hash_parts(self.manifest.digest, transform, rows, self.config.on_bad_image, digest_code())

    @property
    def description(self) -> str:
        return f"decoding {self.manifest.name}"

    def shapes(self) -> dict[str, Shape]:
        size = self.preprocessing.size
        return {"images": ((3, size, size), np.dtype(np.uint8))}

    def prepare(self) -> None:
        """Nothing: the data set is there."""

    def run(self, rows: np.ndarray) -> Iterator[tuple[Batch, dict[str, np.ndarray]]]:
        for batch in self.decode(rows):
            yield batch, {"images": batch.images.numpy()}

    def decode(self, rows: np.ndarray) -> Iterator[Batch]:
        """Batches of uint8 images, straight from the data set."""
        return evaluation_batches(
            self.manifest,
            self.preprocessing,
            rows=rows,
            batch_size=self.config.batch_size,
            workers=self.config.workers,
            on_bad_image=self.config.on_bad_image,
        )

    def read(self, rows: np.ndarray) -> Iterator[Batch]:
        """The same batches from disk, where they are put first if they are not there."""
        entry = load_entry(self)
        places = np.searchsorted(self.rows, rows)
        places = places[entry.table["present"][places]]
        for start in range(0, len(places), self.config.batch_size):
            part = places[start : start + self.config.batch_size]
            images, table = entry.arrays["images"][part], entry.table[part]
            yield Batch(*(torch.from_numpy(values.copy()) for values in (images, table["row"], table["label"])))

    def corrupt(self, rows: np.ndarray, name: str, severity: int) -> Iterator[Batch]:
        """Corrupted batches, on the run's device."""
        config, device = self.config, torch.device(self.config.device)

        def apply(images: Tensor, index: Tensor) -> Tensor:
            return corrupt(images.to(device), name, severity, seed=config.seed, index=index, jpeg_step=config.jpeg_step)

        for batch in self.read(rows):
            parts = split_over_threads(apply, batch.images, batch.index, device=device)
            yield replace(batch, images=torch.cat(parts))


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
        keep_images: other passes need these images too; corrupted passes always keep theirs before corruption.
        view: (crop, number) of augmented images (see data.loader.view_batches) in place of those with evaluation
            geometry; they are neither corrupted nor kept.
    """

    model: Model
    manifest: Manifest
    rows: np.ndarray
    config: SuiteConfig
    forward: Callable[[Tensor], dict[str, Tensor]]
    output: str
    corruption: tuple[str, int] | None = None
    keep_images: bool = False
    view: tuple[Crop, int] | None = None
    kind = "outputs"

    @property
    def images_key(self) -> str:
        """16 hex digits that name the images that go in, before normalisation."""
        corruption: tuple[object, ...] | None = None
        if self.corruption is not None:
            photographs = frost_source() if self.corruption[0] == "frost" else ""
            corruption = (*self.corruption, self.config.seed, self.config.jpeg_step, photographs)
        view = self.view and (*self.view, self.config.seed)
        return hash_parts(self._decoded.key, corruption, view)

    @property
    def key(self) -> str:
        """16 hex digits that name the outputs: content and code, never a file's name.

        Precision is not in it, as it follows from the kind of device (float32, on a GPU bfloat16 autocast) and from the
        size of the outputs.
        """
        device = torch.device(self.config.device).type
        return hash_parts(identify_model(self.model), self.images_key, self.output, device)

    @property
    def description(self) -> str:
        return f"{self.manifest.name} through {self.model.name}"

    @property
    def _decoded(self) -> DecodedImages:
        return DecodedImages(self.manifest, self.model.preprocessing, self.rows, self.config)

    def shapes(self) -> dict[str, Shape]:
        """Shape of a row and dtype of each output; from a blank image."""
        size = self.model.preprocessing.size
        with one_thread():
            outputs = self._compute(torch.zeros(1, 3, size, size, dtype=torch.uint8))
        widest = max(values.shape[1] for values in outputs.values())
        half = 4 * len(self.rows) * widest > _HALF_ABOVE_BYTES
        dtype = np.dtype(np.float16 if half else np.float32)
        return {name: (values.shape[1:], dtype) for name, values in outputs.items()}

    def prepare(self) -> None:
        """Decode the images, where they are to be kept and are not there yet."""
        if self.keep_images or self.corruption is not None:
            load_entry(self._decoded)

    def run(self, rows: np.ndarray) -> Iterator[tuple[Batch, dict[str, np.ndarray]]]:
        """Each batch with its outputs, float32 [B, width]. Raises FloatingPointError where they are not finite."""
        device = torch.device(self.config.device)
        for batch in self._read_images(rows):
            parts = split_over_threads(self._compute, batch.images, batch.index, device=device, values=MODEL_VALUES)
            outputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
            self._check_finite(batch, outputs)
            yield batch, outputs

    def _read_images(self, rows: np.ndarray) -> Iterator[Batch]:
        """Batches of uint8 images after geometry and corruption."""
        if self.view is not None:
            (crop, view), config = self.view, self.config
            return view_batches(
                self.manifest,
                crop,
                view=view,
                seed=config.seed,
                rows=rows,
                batch_size=config.batch_size,
                workers=config.workers,
                on_bad_image=config.on_bad_image,
            )
        if self.corruption is None:
            return self._decoded.read(rows) if self.keep_images else self._decoded.decode(rows)
        if 3 * self.model.preprocessing.size**2 * len(rows) > _KEPT_BYTES:
            return self._decoded.corrupt(rows, *self.corruption)
        key = hash_parts(self.images_key, self.config.batch_size, rows.tobytes())
        if key not in _kept:
            batches = list(self._decoded.corrupt(rows, *self.corruption))
            _kept.clear()
            _kept[key] = batches
        return iter(_kept[key])

    def _compute(self, images: Tensor, _: Tensor | None = None) -> dict[str, np.ndarray]:
        device, preprocessing = torch.device(self.config.device), self.model.preprocessing
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            normal = normalize(images.to(device), preprocessing.mean, preprocessing.std)
            return {name: values.float().cpu().numpy() for name, values in self.forward(normal).items()}

    def _check_finite(self, batch: Batch, outputs: dict[str, np.ndarray]) -> None:
        """Raises FloatingPointError where outputs are not: which, how many, and the layer that they come from."""
        for name, values in outputs.items():
            bad = ~np.isfinite(values)
            if not bad.any():
                continue
            images = bad.any(axis=1)
            first = images.argmax()
            layer = find_bad_layer(self.model.encoder, partial(self._compute, batch.images[first : first + 1]))
            raise FloatingPointError(
                f"{name} of model {self.model.name}: {bad.sum()} of {bad.size} numbers are not finite, in "
                f"{images.sum()} of {len(bad)} images; the first is row {int(batch.index[first])} of "
                f"{self.manifest.name}, where layer {layer} is the first to give such"
            )


def pool_tokens(encoder: Encoder, images: Tensor, layers: int = 1) -> dict[str, Tensor]:
    """The poolings of an encoder's tokens, each [B, D]: "cls" where there is a class token, "mean" of the patches;
    those of the layer before the last as "cls-2" and "mean-2", and so on for as many layers as are asked for."""
    pooled = {}
    for place, tokens in enumerate(encoder.layer_tokens(images, layers) if layers > 1 else [encoder.tokens(images)]):
        suffix = f"-{place + 1}" if place else ""
        if tokens.cls is not None:
            pooled[f"cls{suffix}"] = tokens.cls
        pooled[f"mean{suffix}"] = tokens.patches.mean(dim=1)
    return pooled


def find_bad_layer(encoder: nn.Module, run: Callable[[], object]) -> str:
    """The first module of an encoder that gives a tensor with NaN or infinity in a run; "(none)" where each is finite.

    Args:
        encoder: no other thread may use it meanwhile.
        run: puts images through it.
    """
    found: list[str] = []

    def look(name: str, _: nn.Module, __: object, output: object) -> None:
        if isinstance(output, Tensor) and not output.isfinite().all():
            found.append(name)

    hooks = [module.register_forward_hook(partial(look, name)) for name, module in encoder.named_modules() if name]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else "(none)"


def identify_model(model: Model) -> str:
    """16 hex digits of what a model's outputs depend on: two models with the same ones may share results.

    The digest of the weights alone would not do: the same weights can be used with another structure (number of heads,
    activation, norm), geometry or normalisation, or for other classes.
    """
    if model.encoder is None:  # no network: the digest is of the answers
        return hash_parts(model.digest)
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
