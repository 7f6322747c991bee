"""Corruptions as published, written out plainly in float64, for those that no installable package has as published.

hendrycks/robustness, ImageNet-C/create_c/make_imagenet_c.py, needs ImageMagick and libraries of 2018; the packages
made from it draw other elastic transforms, rescale the frost photographs, do not round what ImageMagick rounds, and
zoom snow without centring it. Every function takes images uint8 [N, H, W, 3], a severity and a NumPy generator.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage


def to_bytes(unit: np.ndarray) -> np.ndarray:
    """Values on [0, 1] as the published files hold them: clipped, then truncated."""
    return (np.clip(unit, 0, 1) * 255).astype(np.uint8)


def impulse_noise(images: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    amount = (0.03, 0.06, 0.09, 0.17, 0.27)[severity - 1]
    hit, white = random.random(images.shape) < amount, random.random(images.shape) < 0.5
    return np.where(hit, np.where(white, 255, 0), images).astype(np.uint8)


def glass_blur(images: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    """The published exchange of two pixels assigns views of one array: the first is overwritten, the second stays."""
    deviation, reach, rounds = ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))[severity - 1]
    levels = to_bytes(smooth(images / 255, deviation))
    count, height, width, _ = images.shape
    every = np.arange(count)
    for _ in range(rounds):
        shifts = random.integers(-reach, reach, (height, width, 2, count))
        for row in range(height - reach, reach, -1):
            for column in range(width - reach, reach, -1):
                right, down = shifts[row, column]
                levels[:, row, column] = levels[every, row + down, column + right]
    return to_bytes(smooth(levels / 255, deviation))


def smooth(unit: np.ndarray, deviation: float) -> np.ndarray:
    return ndimage.gaussian_filter(unit, (0, deviation, deviation, 0), mode="nearest", truncate=4)


def motion_blur(images: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    radius, deviation = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))[severity - 1]
    angles = random.uniform(-45, 45, len(images))
    pairs = zip(images, angles, strict=True)
    return np.stack([blur_along(image.astype(float), radius, deviation, angle) for image, angle in pairs])


def blur_along(levels: np.ndarray, radius: int, deviation: float, angle: float) -> np.ndarray:
    """ImageMagick's motion blur of an image [H, W, C] on the scale of bytes: it repeats edges, and rounds."""
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * deviation**2))
    weights /= weights.sum()
    down = np.ceil(steps * np.sin(np.deg2rad(angle)) - 0.5).astype(int)
    right = np.ceil(steps * np.cos(np.deg2rad(angle)) - 0.5).astype(int)
    rows, columns = np.arange(levels.shape[0]), np.arange(levels.shape[1])
    total = np.zeros_like(levels)
    for weight, row, column in zip(weights, down, right, strict=True):
        source = np.clip(rows + row, 0, rows[-1])[:, None], np.clip(columns + column, 0, columns[-1])
        total += weight * levels[source]
    return np.floor(total + 0.5).astype(np.uint8)


def snow(images: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    mean, spread, zoom, threshold, radius, deviation, kept = (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    )[severity - 1]
    result = np.empty_like(images)
    for number, image in enumerate(images):
        flakes = zoom_centre(random.normal(mean, spread, image.shape[:2]), zoom)
        flakes[flakes < threshold] = 0
        angle = random.uniform(-135, -45)
        layer = blur_along(to_bytes(flakes)[..., None].astype(float), radius, deviation, angle) / 255
        unit = image / 255
        grey = unit @ np.array([0.299, 0.587, 0.114])
        pale = kept * unit + (1 - kept) * np.maximum(unit, grey[..., None] * 1.5 + 0.5)
        result[number] = to_bytes(pale + layer + np.rot90(layer, 2))
    return result


def zoom_centre(plane: np.ndarray, factor: float) -> np.ndarray:
    """The centre of [H, W], enlarged to H x W."""
    height, width = plane.shape
    high, wide = int(np.ceil(height / factor)), int(np.ceil(width / factor))
    top, left = (height - high) // 2, (width - wide) // 2
    large = ndimage.zoom(plane[top : top + high, left : left + wide], factor, order=1)
    top, left = (large.shape[0] - height) // 2, (large.shape[1] - width) // 2
    return large[top : top + height, left : left + width]


def frost(
    images: np.ndarray, severity: int, random: np.random.Generator, photographs: Sequence[np.ndarray]
) -> np.ndarray:
    """photographs: the published six, uint8 [h, w, 3] in their order; the published code never draws the last."""
    of_image, of_frost = ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))[severity - 1]
    height, width = images.shape[1:3]
    result = np.empty_like(images)
    for number, image in enumerate(images):
        photograph = photographs[int(random.integers(5))]
        top = random.integers(photograph.shape[0] - height)
        left = random.integers(photograph.shape[1] - width)
        crop = photograph[top : top + height, left : left + width]
        result[number] = to_bytes((of_image * image.astype(float) + of_frost * crop) / 255)
    return result


def elastic_transform(images: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    """The published constants hold 244 where 224 was meant."""
    reach, deviation, jitter = (
        244 * np.array(((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)))
    )[severity - 1]
    height, width = images.shape[1:3]
    rows, columns = np.mgrid[:height, :width].astype(float)
    middle, size = np.array([height // 2, width // 2]), min(height, width) // 3
    corners = np.array([middle + size, [middle[0] + size, middle[1] - size], middle - size], dtype=float)
    smoothing = [
        ndimage.gaussian_filter1d(np.eye(side), deviation, axis=0, mode="reflect", truncate=3)
        for side in (height, width)
    ]
    result = np.empty_like(images)
    for number, image in enumerate(images):
        moved = corners + random.uniform(-jitter, jitter, (3, 2))
        # The affine map takes corners to moved; the picture at a place comes from where the inverse map leads.
        back = np.linalg.solve(np.c_[moved, np.ones(3)], corners)
        across, along = (np.stack([columns, rows, np.ones_like(rows)], axis=-1) @ back).transpose(2, 0, 1)
        channels = np.moveaxis(image / 255, -1, 0)
        affine = [ndimage.map_coordinates(c, (along, across), order=1, mode="mirror") for c in channels]
        right, down = (reach * (smoothing[0] @ random.uniform(-1, 1, (height, width)) @ smoothing[1].T) for _ in "xy")
        places = (rows + down, columns + right)
        warped = [ndimage.map_coordinates(c, places, order=1, mode="reflect") for c in affine]
        result[number] = to_bytes(np.stack(warped, axis=-1))
    return result
