"""The suite `reconstruction`: what checkpoints make of the masked part of images, in pixels and by frequency."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pixmim_eval.data.loader import evaluation_batches
from pixmim_eval.data.transforms import name_transform, normalize
from pixmim_eval.extract import select_rows
from pixmim_eval.extract.processes import MODEL_VALUES, split_over_threads
from pixmim_eval.metrics.ratios import ratio_interval
from pixmim_eval.results import format_protocol, make_rows
from pixmim_eval.seeds import derive_seed, uniform
from pixmim_eval.suites import EvaluationSuite
from pixmim_eval.types import Batch, Manifest, Model, Outcome, SuiteConfig
from pretrain.autoencoder import MaskedAutoencoder
from pretrain.pictures import Pictured, draw_comparison
from pretrain.pretrained import PUBLISHED_RADIUS, load_autoencoder, read_objective, require_decoder
from pretrain.spectrum import RadialBands
from pretrain.targets import LowFrequency, patchify, unpatchify

PICTURED = 6  # images of a picture
CONDITION = "masked"
ERRORS = {"loss": "loss", "mse_pixels": "squared deviations", "mse_lowfreq": "squared deviations"}  # metric -> unit
ERROR_POWER = "error_power/"


class ReconstructionSuite(EvaluationSuite):
    """The suite `reconstruction`.

    One condition, "masked": each image with a random mask that depends on the seed and the image alone, so that models
    with one grid of patches (or mask units) see the same parts of the same images.

    Metrics, over the masked patches of all images:

    - "loss": the model's own loss, as in pretraining; comparable between models with the same target only.
    - "mse_pixels": mean squared error of the prediction against the image, in units of normalised pixels.
    - "mse_lowfreq": the same when both are low-pass filtered as PixMIM's target is, at 40 cycles for 224 px and in
      proportion at other sizes ("lowpass_radius" of the protocol).
    - "error_power/LOW-HIGH": in a ring of the two-dimensional spectrum, LOW to HIGH cycles per image, the power of the
      error (the image with predictions in its masked patches, less the image) relative to that of the error where
      nothing is predicted, which is 1. A perfect prediction has 0. The edges of patches are sharp, so that a ring has
      also what leaks into it from coarser ones, above as below the line.

    Models of normalised pixels predict a patch up to its mean and deviation, which these errors take from the truth, as
    MAE's pictures do: "denormalised=16px-patch-statistics" in the protocol; for a low-frequency target they are those
    of the filtered image. Such models know the mean of every masked patch for nothing, so that nothing predicted is
    the image's patch means; to models of plain pixels ("denormalised=no") it is the mean colour of all images. Errors
    must not be compared between the two kinds, or between patches of different sizes: the protocols keep them apart.
    """

    name = "reconstruction"
    version = 1
    needs = ("val",)

    def conditions(self, config: SuiteConfig) -> list[str]:
        """The only one."""
        return [CONDITION]

    def roles(self, model: Model, condition: str, config: SuiteConfig) -> tuple[str, ...]:
        """The data set whose images are masked. Raises InputError for a model without a decoder."""
        require_decoder(model.checkpoint, model.name)
        return ("val",)

    def settings(self, model: Model, condition: str, config: SuiteConfig) -> tuple[object, ...]:
        """What else rows depend on: this package's code, and what the file says of its decoder and training."""
        checkpoint = require_decoder(model.checkpoint, model.name)
        return (_digest_sources(), read_objective(checkpoint), checkpoint.decoder_heads)

    def count_images(self, model: Model, condition: str, config: SuiteConfig) -> dict[str, int]:
        """Forward passes; see EvaluationSuite."""
        return {condition: len(select_rows(config.data["val"], config.limit))}

    def measure_images(self, model: Model, config: SuiteConfig) -> tuple[str, int]:
        """No images are kept on disk; see EvaluationSuite."""
        return name_transform(model.preprocessing, config.data["val"]), 0

    def run(self, model: Model, condition: str, config: SuiteConfig) -> Outcome:
        """The rows of one model.

        Raises:
            InputError: no decoder, or an image that cannot be read.
            FloatingPointError: predictions that are not finite.
        """
        manifest = config.data["val"]
        autoencoder = load_autoencoder(require_decoder(model.checkpoint, model.name)).to(config.device)
        rows = select_rows(manifest, config.limit)
        measured = _measure_all(autoencoder, model, manifest, rows, config)
        bands = RadialBands(model.preprocessing.size)
        estimates = {metric: ratio_interval(measured[metric], unit=unit) for metric, unit in ERRORS.items()}
        for place, name in enumerate(bands.names):
            powers = measured["error_power"][:, place], measured["hidden_power"][:, place]
            estimates[ERROR_POWER + name] = ratio_interval(*powers)
        protocol = format_protocol(**_describe(autoencoder, model, manifest))
        shared = {"suite": self.name, "condition": condition, "protocol": protocol}
        skipped = len(rows) - len(measured["loss"])
        return Outcome(make_rows(model, manifest, estimates, **shared, config=config, skipped=skipped), {})

    def draw(self, models: Sequence[Model], config: SuiteConfig, folder: Path) -> list[Path]:
        """A few images side by side: input, masked input, and each model's prediction and target.

        Args:
            models: to be shown, in this order.
            config: of the run.
            folder: where figures go.

        Returns:
            reconstruction.png and .pdf, in parts where models are too many for one; none where all images were skipped.
        """
        manifest = config.data["val"]
        rows = select_rows(manifest, min(config.limit or PICTURED, PICTURED))
        pictured = []
        for model in models:
            autoencoder = load_autoencoder(require_decoder(model.checkpoint, model.name)).to(config.device)
            for batch in _read_batches(model, manifest, rows, config):
                images, noise = _prepare(autoencoder, model, batch.images, batch.index, config)
                found = autoencoder.reconstruct(images, noise)
                pictured.append(
                    Pictured(
                        model.name,
                        images,
                        found,
                        autoencoder.encoder.patch,
                        autoencoder.encoder.grid,
                        filtered=autoencoder.low_frequency is not None,
                        mean=model.preprocessing.mean,
                        std=model.preprocessing.std,
                    )
                )
        return draw_comparison(pictured, folder / self.name, f"Data: {manifest.name}.") if pictured else []


def measure(
    autoencoder: MaskedAutoencoder, images: Tensor, noise: Tensor, low_pass: LowFrequency, bands: RadialBands
) -> dict[str, Tensor]:
    """What the suite averages, image by image.

    Args:
        autoencoder: in eval mode.
        images: float32 [B, 3, S, S], normalised.
        noise: float [B, units]; see MaskedAutoencoder.forward.
        low_pass: of "mse_lowfreq".
        bands: of the images' size.

    Returns:
        The metrics in ERRORS, float [B]; "error_power" and "hidden_power" (where nothing is predicted), float64
        [B, BANDS].
    """
    found, patch, grid = autoencoder.reconstruct(images, noise), autoencoder.encoder.patch, autoencoder.encoder.grid
    mask = found.mask[:, :, None]
    seen = patchify(images, patch)
    error = unpatchify((found.prediction - seen) * mask, patch, grid)
    filtered_error = patchify(low_pass(images + error) - low_pass(images), patch)
    squares = {
        "loss": found.loss,
        "mse_pixels": (found.prediction - seen).square().mean(dim=2),
        "mse_lowfreq": filtered_error.square().mean(dim=2),
    }
    masked = found.mask.sum(dim=1)
    means = {name: (values * found.mask).sum(dim=1) / masked for name, values in squares.items()}
    known = seen.mean(dim=2, keepdim=True) if autoencoder.normalise_target else 0.0
    hidden = unpatchify((seen - known) * mask, patch, grid)
    return means | {"error_power": bands.power(error), "hidden_power": bands.power(hidden)}


def _measure_all(
    autoencoder: MaskedAutoencoder, model: Model, manifest: Manifest, rows: np.ndarray, config: SuiteConfig
) -> dict[str, np.ndarray]:
    """`measure` of every image, in the order of rows, float64 [N] or [N, BANDS]."""
    preprocessing = model.preprocessing
    low_pass = LowFrequency(_scale_radius(preprocessing.size), mean=preprocessing.mean, std=preprocessing.std)
    bands = RadialBands(preprocessing.size, config.device)
    device, parts = torch.device(config.device), list[dict[str, Tensor]]()
    for batch in _read_batches(model, manifest, rows, config):
        prepared = _prepare(autoencoder, model, batch.images, batch.index, config)
        work = partial(measure, autoencoder, low_pass=low_pass, bands=bands)
        parts += split_over_threads(work, *prepared, device=device, values=MODEL_VALUES)
    names = parts[0] if parts else ()
    measured = {name: torch.cat([part[name] for part in parts]).double().cpu().numpy() for name in names}
    if not all(np.isfinite(values).all() for values in measured.values()):
        raise FloatingPointError(f"predictions of {model.name} are not finite")
    return measured


def _read_batches(model: Model, manifest: Manifest, rows: np.ndarray, config: SuiteConfig) -> Iterator[Batch]:
    return evaluation_batches(
        manifest,
        model.preprocessing,
        rows=rows,
        batch_size=config.batch_size,
        workers=config.workers,
        on_bad_image=config.on_bad_image,
    )


def _prepare(
    autoencoder: MaskedAutoencoder, model: Model, images: Tensor, index: Tensor, config: SuiteConfig
) -> tuple[Tensor, Tensor]:
    """Normalised images and the noise that masks them, on the run's device."""
    normalised = normalize(images.to(config.device), model.preprocessing.mean, model.preprocessing.std)
    noise = uniform(derive_seed(config.seed, "reconstruction"), index.to(config.device), autoencoder.units)
    return normalised, noise


def _scale_radius(size: int) -> float:
    """The published radius at 224 px, as the same share of the band at another size."""
    return PUBLISHED_RADIUS * size / 224


def _describe(autoencoder: MaskedAutoencoder, model: Model, manifest: Manifest) -> dict[str, str]:
    """What the protocol says. What differs from model to model, such as the target, stands on the row as its method."""
    return {
        "denormalised": f"{autoencoder.encoder.patch}px-patch-statistics" if autoencoder.normalise_target else "no",
        "lowpass_radius": f"{_scale_radius(model.preprocessing.size):.4g}",
        "masked": f"{autoencoder.mask_ratio:g}-of-{autoencoder.units_across}x{autoencoder.units_across}",
        "precision": "float32",
        "transform": name_transform(model.preprocessing, manifest),
    }


@cache
def _digest_sources() -> str:
    """Digest of this package's code, so that no stored number outlives a change of it."""
    files = sorted(Path(__file__).parent.rglob("*.py"))
    return hashlib.blake2b(b"".join(file.read_bytes() for file in files), digest_size=8).hexdigest()
