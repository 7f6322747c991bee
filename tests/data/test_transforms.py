"""Evaluation geometry and normalisation against torchvision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import Compose, InterpolationMode, Normalize, ToTensor, v2

from pixmim_eval.data.transforms import apply_evaluation, denormalize, name_transform, normalize
from pixmim_eval.errors import InputError
from pixmim_eval.types import LabelSpace, Manifest, Preprocessing


class NoImages:
    def read(self, rows: object) -> list[np.ndarray]:
        raise NotImplementedError


def manifest(ready_size: int | None) -> Manifest:
    return Manifest("x", np.array(["a"]), np.array([0]), LabelSpace("x", ("a",)), "0" * 16, NoImages(), ready_size)


def random_image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("resize", "size"), [(256, 224), (64, 64), (73, 64)])
def test_evaluation_equals_torchvision_to_the_bit(interpolation: str, resize: int, size: int) -> None:
    reference = v2.Compose([v2.Resize(resize, InterpolationMode(interpolation)), v2.CenterCrop(size)])
    for height, width in [(375, 500), (64, 64), (90, 41), (256, 301), (301, 256)]:
        image = random_image(height, width)
        ours = apply_evaluation(image, Preprocessing(size, resize, interpolation), ready_size=None)
        assert np.array_equal(ours, np.asarray(reference(Image.fromarray(image))))


def test_a_ready_image_of_the_right_size_is_left_alone() -> None:
    image = random_image(64, 64)
    assert apply_evaluation(image, Preprocessing(64, 73), ready_size=64) is image


def test_a_ready_image_is_resized_to_the_models_size_and_not_cropped() -> None:
    image = random_image(64, 64)
    ours = apply_evaluation(image, Preprocessing(224, 256), ready_size=64)
    assert np.array_equal(ours, np.asarray(Image.fromarray(image).resize((224, 224), Image.Resampling.BICUBIC)))


@pytest.mark.parametrize(("height", "width"), [(64, 80), (64, 64), (224, 223), (256, 256)])
def test_a_ready_image_of_another_size_than_declared_is_refused(height: int, width: int) -> None:
    with pytest.raises(InputError, match=rf"224 x 224 pixels, found {height} x {width} \(in fog/3, a.jpg\).*PATH@64"):
        apply_evaluation(random_image(height, width), Preprocessing(224, 256), ready_size=224, where="fog/3, a.jpg")


def test_a_resize_below_the_crop_is_refused() -> None:
    with pytest.raises(InputError, match="192"):
        apply_evaluation(random_image(64, 80), Preprocessing(224, 192), ready_size=None)


def test_the_row_says_what_was_done() -> None:
    assert name_transform(Preprocessing(224, 256), manifest(None)) == "pil-bicubic-256-crop-224"
    assert name_transform(Preprocessing(224, 224, "bilinear"), manifest(None)) == "pil-bilinear-224-crop-224"
    assert name_transform(Preprocessing(64, 73), manifest(64)) == "ready-64"
    assert name_transform(Preprocessing(224, 256), manifest(64)) == "pil-bicubic-64-to-224"


def test_normalisation_equals_torchvision_and_can_be_undone() -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    image = random_image(32, 48)
    reference = Compose([ToTensor(), Normalize(mean, std)])
    images = torch.from_numpy(image).permute(2, 0, 1)[None]
    ours = normalize(images, mean, std)
    assert torch.equal(ours[0], reference(Image.fromarray(image)))
    assert torch.allclose(denormalize(ours, mean, std), images / 255, atol=1e-6)
