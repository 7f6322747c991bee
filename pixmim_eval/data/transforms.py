"""The one evaluation path from a decoded image to a model's input: PIL geometry, then normalisation on the device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pixmim_eval.data.crops import resize, resize_short_side
from pixmim_eval.errors import InputError
from pixmim_eval.types import Manifest, Preprocessing


def apply_evaluation(
    image: np.ndarray, preprocessing: Preprocessing, ready_size: int | None, where: str = "data set"
) -> np.ndarray:
    """The evaluation geometry: resize the short side, cut the central square; to the bit as torchvision on PIL.

    Args:
        image: uint8 [H, W, 3] RGB.
        preprocessing: of the model.
        ready_size: the image already has evaluation geometry at this many pixels: it is only resized, where that is
            not the model's size. None: it has not.
        where: the image's place, for the error message.

    Returns:
        uint8 [size, size, 3].

    Raises:
        InputError: an image declared ready has another size, or preprocessing resizes to less than it crops.
    """
    size = preprocessing.size
    if ready_size is not None:
        if image.shape[:2] != (ready_size, ready_size):
            raise InputError(
                "size of an image that is ready for evaluation",
                expected=f"{ready_size} x {ready_size} pixels",
                found=f"{image.shape[0]} x {image.shape[1]}",
                where=where,
                fix="Write the size that all images have after the path (PATH@64), or have them resized and cropped: "
                "PATH without @SIZE, for imagenet-c PATH@files, for cue-conflict images --geometry resize256.",
            )
        return resize(image, (size, size), preprocessing.interpolation)
    if preprocessing.resize < size:
        raise InputError(
            "preprocessing",
            expected=f"resize of at least the crop, {size} pixels",
            found=str(preprocessing.resize),
            where="the model's preprocessing",
            fix="Raise resize, or lower size.",
        )
    resized = resize_short_side(image, preprocessing.resize, preprocessing.interpolation)
    top, left = (round((side - size) / 2) for side in resized.shape[:2])
    return resized[top : top + size, left : left + size]


def name_transform(preprocessing: Preprocessing, manifest: Manifest) -> str:
    """The evaluation geometry as it stands on a result row.

    Returns:
        "pil-bicubic-256-crop-224" for files; "ready-64" where nothing is done; "pil-bicubic-64-to-224" where ready
        images are resized.
    """
    if manifest.ready_size is None:
        return f"pil-{preprocessing.interpolation}-{preprocessing.resize}-crop-{preprocessing.size}"
    if manifest.ready_size == preprocessing.size:
        return f"ready-{preprocessing.size}"
    return f"pil-{preprocessing.interpolation}-{manifest.ready_size}-to-{preprocessing.size}"


def normalize(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 [B, 3, H, W] -> float32 (image / 255 - mean) / std a channel, on the images' device.

    Source: torchvision's ToTensor and Normalize.
    """
    return images.float().div_(255).sub_(_channels(mean, images)).div_(_channels(std, images))


def denormalize(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """The inverse of `normalize`, up to the scale: float [B, 3, H, W] -> the same on [0, 1]."""
    return images * _channels(std, images) + _channels(mean, images)


def _channels(values: Sequence[float], images: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=images.device)[:, None, None]
