"""Corruptions of ImageNet-C as batched functions of uint8 images, on any device and at any size.

Images are corrupted after evaluation geometry (resize and crop), as in the published sets. Most of those were stored
as JPEG of quality 85 besides, which is a step of its own here (see STORAGE), and rows say whether it was taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor

from pixmim_eval.corruptions import blur, digital, elastic, frost, glass, motion, noise, spatter, weather, zoom
from pixmim_eval.errors import InputError
from pixmim_eval.seeds import derive_seed, generators

SEVERITIES = (1, 2, 3, 4, 5)
PARAMETER_SETS = {"imagenet-c": 224, "tiny-imagenet-c": 64, "cifar-c": 32}  # name -> pixels of the published images
# How the files of each published set were stored. JPEG of quality 85 is what digital.store_as_jpeg does.
STORAGE = {"imagenet-c": "jpeg-85", "tiny-imagenet-c": "jpeg-85", "cifar-c": "lossless"}

# Values worked on at a time, to stay in a core's cache or in a small part of a GPU's memory; no result depends on it.
_CORE_VALUES, _GPU_VALUES = 1 << 18, 1 << 24


@dataclass(frozen=True)
class Corruption:
    """One corruption.

    Args:
        group: "noise", "blur", "weather" or "digital"; "extra" for the four that are for validation.
        function: (images uint8 [B, 3, H, W], parameters of one severity, one generator an image) -> uint8.
        parameters: parameter set -> one entry for each of the five severities.
        in_mce15: one of the fifteen that a mean corruption error averages over, all but the extra ones.
        together: images of 224 px worked on at a time on a processor: more than one where they share work.
    """

    group: str
    function: Callable[..., Tensor]
    parameters: Mapping[str, tuple[Any, ...]]
    in_mce15: bool = True
    together: int = 1


CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": Corruption("noise", noise.gaussian_noise, noise.GAUSSIAN_NOISE),
    "shot_noise": Corruption("noise", noise.shot_noise, noise.SHOT_NOISE),
    "impulse_noise": Corruption("noise", noise.impulse_noise, noise.IMPULSE_NOISE),
    "defocus_blur": Corruption("blur", blur.defocus_blur, blur.DEFOCUS_BLUR),
    "glass_blur": Corruption("blur", glass.glass_blur, glass.GLASS_BLUR),
    "motion_blur": Corruption("blur", motion.motion_blur, motion.MOTION_BLUR),
    "zoom_blur": Corruption("blur", zoom.zoom_blur, zoom.ZOOM_BLUR, together=16),
    "snow": Corruption("weather", weather.snow, weather.SNOW),
    "frost": Corruption("weather", frost.frost, frost.FROST),
    "fog": Corruption("weather", weather.fog, weather.FOG),
    "brightness": Corruption("weather", weather.brightness, weather.BRIGHTNESS),
    "contrast": Corruption("digital", digital.contrast, digital.CONTRAST),
    "elastic_transform": Corruption("digital", elastic.elastic_transform, elastic.ELASTIC_TRANSFORM),
    "pixelate": Corruption("digital", digital.pixelate, digital.PIXELATE),
    "jpeg_compression": Corruption("digital", digital.jpeg_compression, digital.JPEG_COMPRESSION),
    "speckle_noise": Corruption("extra", noise.speckle_noise, noise.SPECKLE_NOISE, in_mce15=False),
    "gaussian_blur": Corruption("extra", blur.gaussian_blur, blur.GAUSSIAN_BLUR, in_mce15=False),
    "spatter": Corruption("extra", spatter.spatter, spatter.SPATTER, in_mce15=False),
    "saturate": Corruption("extra", digital.saturate, digital.SATURATE, in_mce15=False),
}

# The published fifteen that an mCE averages over.
STANDARD = tuple(name for name, corruption in CORRUPTIONS.items() if corruption.in_mce15)


def corrupt(
    images: Tensor,
    name: str,
    severity: int,
    *,
    seed: int,
    index: Tensor,
    parameters: str = "auto",
    jpeg_step: bool = False,
) -> Tensor:
    """Corrupted images.

    A pixel depends on its image and on (seed, index of the image, name, severity), and on nothing else in the batch.
    Noise differs between kinds of device (their generators do); everything else is the same to the bit.

    Args:
        images: uint8 [B, 3, H, W] at evaluation size, on any device.
        name: a key of CORRUPTIONS.
        severity: 1 (mild) … 5.
        seed: of the run.
        index: int64 [B], the row of each image in its data set.
        parameters: a key of PARAMETER_SETS, or "auto" (see resolve_parameters).
        jpeg_step: give images as the published files of the parameter set decode: stored as JPEG of quality 85, but for
            "cifar-c", whose files are lossless.

    Returns:
        uint8 [B, 3, H, W] on the images' device, clipped and truncated (not rounded) as the published code does.

    Raises:
        InputError: unknown name, severity or parameter set; images or index of another dtype or shape.

    Source: Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and Perturbations,
        ICLR 2019; parameters: hendrycks/robustness, ImageNet-C/create_c/make_{imagenet,tinyimagenet,cifar}_c.py.
    """
    corruption = _find_corruption(name)
    if severity not in SEVERITIES:
        raise InputError(
            "severity", expected="1, 2, 3, 4 or 5", found=repr(severity), where=f"corruption {name}", fix="Choose one."
        )
    severity = int(severity)  # NumPy's integers would name another seed
    _check_images(images, index)
    parameters = resolve_parameters(parameters, min(images.shape[-2:]))
    values = corruption.parameters[parameters][severity - 1]
    numbers = generators(derive_seed(seed, name, severity), index, images.device)
    values_at_a_time = _CORE_VALUES * corruption.together if images.device.type == "cpu" else _GPU_VALUES
    piece = max(1, values_at_a_time // images[0].numel())
    corrupted = torch.cat([corruption.function(part, values, numbers) for part in images.split(piece)])
    return corrupted if describe_storage(parameters, jpeg_step) == "lossless" else digital.store_as_jpeg(corrupted)


def describe_storage(parameters: str, jpeg_step: bool) -> str:
    """How corrupted images were stored before a model sees them, for a result row: "jpeg-85" or "lossless".

    Args:
        parameters: a key of PARAMETER_SETS, as resolve_parameters gives it.
        jpeg_step: whether images were given as the published files decode.

    Raises:
        InputError: another name.
    """
    if parameters not in STORAGE:
        raise _complain_about_parameters(parameters, expected=", ".join(STORAGE))
    return STORAGE[parameters] if jpeg_step else "lossless"


def resolve_names(words: Sequence[str]) -> tuple[str, ...]:
    """Names of corruptions in the catalogue's order: of "standard" (the published fifteen), "all", or names.

    Raises:
        InputError: an unknown name.
    """
    groups = {"standard": STANDARD, "all": tuple(CORRUPTIONS)}
    chosen = {name for word in words for name in groups.get(word, (word,))}
    for name in sorted(chosen):
        _find_corruption(name)
    return tuple(name for name in CORRUPTIONS if name in chosen)


def resolve_parameters(parameters: str, size: int) -> str:
    """The parameter set that a name stands for: this is what goes on a result row.

    Args:
        parameters: a key of PARAMETER_SETS (returned as it is), or "auto": the set published for the nearest size.
        size: short side of the images in pixels: "imagenet-c" from 128, "tiny-imagenet-c" from 48, "cifar-c" below.

    Raises:
        InputError: another name.
    """
    if parameters in PARAMETER_SETS:
        return parameters
    if parameters != "auto":
        raise _complain_about_parameters(parameters, expected=", ".join(("auto", *PARAMETER_SETS)))
    if size >= 128:
        return "imagenet-c"
    return "tiny-imagenet-c" if size >= 48 else "cifar-c"


def _complain_about_parameters(parameters: str, expected: str) -> InputError:
    return InputError(
        "parameters of the corruptions",
        expected=expected,
        found=repr(parameters),
        where="parameters",
        fix="Choose one of them.",
    )


def _find_corruption(name: str) -> Corruption:
    if name not in CORRUPTIONS:
        close = get_close_matches(name, CORRUPTIONS, n=3)
        raise InputError(
            "name of a corruption",
            expected="one of " + ", ".join(CORRUPTIONS),
            found=repr(name),
            where="corruptions",
            fix=f"Did you mean {' or '.join(close)}?" if close else "Choose one of them.",
        )
    return CORRUPTIONS[name]


def _check_images(images: Tensor, index: Tensor) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise InputError(
            "images to corrupt",
            expected="uint8 [B, 3, H, W], none of them 0",
            found=f"{images.dtype} {list(images.shape)}",
            where="corrupt",
            fix="Corrupt images before they are normalised.",
        )
    if index.dtype != torch.int64 or index.shape != images.shape[:1]:
        raise InputError(
            "index of the images to corrupt",
            expected=f"int64 [{len(images)}]",
            found=f"{index.dtype} {list(index.shape)}",
            where="corrupt",
            fix="Pass Batch.index.",
        )
