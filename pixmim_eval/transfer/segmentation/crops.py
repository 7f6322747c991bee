"""What training sees of an image and its mask: a crop at a random scale, perhaps mirrored, its colours changed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from pixmim_eval.data.crops import resize
from pixmim_eval.data.segmentation import IGNORED
from pixmim_eval.seeds import uniform
from pixmim_eval.transfer.segmentation.examples import shrink_labels
from pixmim_eval.transfer.segmentation.recipes import UperNetRecipe

_TRIES = 10
_LONGEST = 4  # the long side is at most so many times the greatest short side
_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = 32.0, (0.5, 1.5), (0.5, 1.5), 18
_NUMBERS = 2 + 2 * (_TRIES + 1) + 9  # scale, flip, places of the crops, colours


@dataclass(frozen=True)
class MaskedCrop:
    """Crops of images and their masks.

    Args:
        recipe: with its sizes resolved.
        fill: mean colour of the model's training images, uint8 [3], beyond the edges of images smaller than a crop.

    Source: mmsegmentation's pipeline as in implus/mae_segmentation: Resize with ratio_range, RandomCrop with
        cat_max_ratio (drawn again up to ten times), RandomFlip, PhotoMetricDistortion, Pad.
    Differs: PIL's antialiased bilinear resize in the place of OpenCV's; the hue moves in steps of 360/256 degrees, not
        2; the fill is 0 after normalisation up to the rounding of a grey level.
    """

    recipe: UperNetRecipe
    fill: tuple[int, int, int]

    def __call__(
        self, image: np.ndarray, labels: np.ndarray, *, seed: int, index: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """A crop that depends on (seed, index) and the image alone.

        Args:
            image: uint8 [H, W, 3].
            labels: uint8 [H, W].
            seed: see seeds.derive_seed.
            index: which crop.

        Returns:
            uint8 [S, S, 3] and uint8 [S, S].
        """
        numbers = uniform(seed, torch.tensor([index]), _NUMBERS, dtype=torch.float64)[0].tolist()
        scale, flip, places, colours = numbers[0], numbers[1], numbers[2 : 4 + 2 * _TRIES], numbers[4 + 2 * _TRIES :]
        shape = self._choose_shape(labels.shape[0], labels.shape[1], scale)
        image, labels = resize(image, shape, "bilinear"), shrink_labels(labels, shape)
        top, left = self._choose_place(labels, places)
        crop = self.recipe.crop
        image, labels = image[top : top + crop, left : left + crop], labels[top : top + crop, left : left + crop]
        if flip < 0.5:
            image, labels = image[:, ::-1], labels[:, ::-1]
        if self.recipe.distort:
            image = distort(image, colours)
        return self._pad(image, labels)

    def _choose_shape(self, height: int, width: int, number: float) -> tuple[int, int]:
        """Height and width at a random scale: the short side least_scale to most_scale crops, the long one at most four
        times the crop's share of that."""
        recipe = self.recipe
        ratio = recipe.least_scale + number * (recipe.most_scale - recipe.least_scale)
        short = int(recipe.crop * ratio)
        factor = min(short / min(height, width), int(_LONGEST * recipe.crop * ratio) / max(height, width))
        return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))

    def _choose_place(self, labels: np.ndarray, numbers: list[float]) -> tuple[int, int]:
        """Top and left of the first crop that no class fills too much; after ten tries the eleventh."""
        crop, most = self.recipe.crop, self.recipe.most_of_a_class
        margins = [max(side - crop, 0) + 1 for side in labels.shape]
        top, left = 0, 0
        for start in range(0, len(numbers), 2):
            top, left = int(numbers[start] * margins[0]), int(numbers[start + 1] * margins[1])
            if most >= 1:
                break
            counts = np.bincount(labels[top : top + crop, left : left + crop].ravel(), minlength=256)
            counts[IGNORED] = 0
            if np.count_nonzero(counts) > 1 and counts.max() < most * counts.sum():
                break
        return top, left

    def _pad(self, image: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Both in the upper left corner of a full crop."""
        crop, (height, width) = self.recipe.crop, labels.shape
        if (height, width) == (crop, crop):
            return np.ascontiguousarray(image), np.ascontiguousarray(labels)
        padded = np.empty((crop, crop, 3), np.uint8)
        padded[:] = self.fill
        padded[:height, :width] = image
        padded_labels = np.full((crop, crop), IGNORED, np.uint8)
        padded_labels[:height, :width] = labels
        return padded, padded_labels


def distort(image: np.ndarray, numbers: list[float]) -> np.ndarray:
    """Change brightness, contrast, saturation and hue, each half the time; contrast before or after the others.

    Args:
        image: uint8 [H, W, 3].
        numbers: nine in [0, 1): whether and how much of each, and the place of contrast.

    Source: mmsegmentation's PhotoMetricDistortion (after SSD): brightness by up to 32 levels, contrast and saturation
        by factors of 0.5 to 1.5, hue by up to 36 degrees; every step rounds down to grey levels.
    """
    (bright, brightness, early, has_contrast, contrast, saturated, saturation, turned, turn) = numbers
    if bright < 0.5:
        image = _convert(image, 1.0, _BRIGHTNESS * (2 * brightness - 1))
    factor = _CONTRAST[0] + contrast * (_CONTRAST[1] - _CONTRAST[0])
    if has_contrast < 0.5 and early < 0.5:
        image = _convert(image, factor, 0.0)
    if saturated < 0.5 or turned < 0.5:
        colour = np.array(Image.fromarray(np.ascontiguousarray(image)).convert("HSV"))
        if saturated < 0.5:
            colour[..., 1] = _convert(
                colour[..., 1], _SATURATION[0] + saturation * (_SATURATION[1] - _SATURATION[0]), 0.0
            )
        if turned < 0.5:
            steps = round((int(turn * 2 * _HUE) - _HUE) * 256 / 180)
            colour[..., 0] += np.uint8(steps % 256)  # wraps round the circle
        image = np.array(Image.fromarray(colour, "HSV").convert("RGB"))
    if has_contrast < 0.5 and early >= 0.5:
        image = _convert(image, factor, 0.0)
    return image


def _convert(image: np.ndarray, factor: float, offset: float) -> np.ndarray:
    return (image.astype(np.float32) * np.float32(factor) + np.float32(offset)).clip(0, 255).astype(np.uint8)
