"""Crops against torchvision on PIL images."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binomtest, kstest
from torchvision.transforms import InterpolationMode, RandomResizedCrop, v2
from torchvision.transforms.v2 import functional

from pixmim_eval.data import crops
from pixmim_eval.errors import InputError

SHAPES = [(64, 64), (97, 150), (333, 70)]
CROPS = [
    crops.RandomResizedCrop(48),
    crops.RandomResizedCrop(96, scale=(0.05, 0.3)),
    crops.SingleTryResizedCrop(48),
    crops.SimpleResizedCrop(48),
    crops.SimpleResizedCrop(96, padding=9),
    crops.CenterCrop(48),
    crops.CenterCrop(40, resize=57),
]


def random_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Noise beside black and white stripes, so that the bicubic kernel overshoots and is clipped."""
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image[:, : width // 2] = 255 * (np.arange(height)[:, None, None] // 3 % 2)
    return image


def resize_in_pil(image: Image.Image, height: int, width: int) -> Image.Image:
    """torchvision on PIL; in two calls where Pillow 13 would turn the order of its passes round."""
    if image.height - height > max(0, 2 * (image.width - width)):
        image = functional.resize(image, [image.height, width], interpolation=InterpolationMode.BICUBIC)
    return functional.resize(image, [height, width], interpolation=InterpolationMode.BICUBIC)


def sample(crop: crops.Crop, height: int, width: int, count: int, seed: int = 0) -> torch.Tensor:
    return crop.sample(torch.full((count,), height), torch.full((count,), width), seed=seed, index=torch.arange(count))


@pytest.mark.parametrize(("height", "width"), [(375, 500), (64, 64), (900, 200)])
def test_random_resized_crop_draws_the_distribution_of_torchvision(height: int, width: int) -> None:
    torch.manual_seed(1)
    reference = RandomResizedCrop(1, scale=(0.2, 1.0))
    blank = torch.empty(3, height, width)
    theirs = np.array([reference.get_params(blank, reference.scale, reference.ratio) for _ in range(3000)])
    ours = sample(crops.RandomResizedCrop(1), height, width, 6000).numpy()
    derived = [np.c_[boxes, boxes[:, 2] * boxes[:, 3], boxes[:, 3] / boxes[:, 2]] for boxes in (ours, theirs)]
    for column in (4, 5, 0, 1):  # area, ratio, top, left
        assert kstest(derived[0][:, column], derived[1][:, column]).pvalue > 0.001


def test_random_resized_crop_falls_back_to_the_central_crop_of_torchvision() -> None:
    reference = RandomResizedCrop(1, scale=(0.9, 1.0))
    for height, width in [(10, 100), (100, 10), (11, 40)]:
        expected = reference.get_params(torch.empty(3, height, width), reference.scale, reference.ratio)
        boxes = sample(crops.RandomResizedCrop(1, scale=(0.9, 1.0)), height, width, 20)
        assert torch.equal(boxes, torch.tensor(expected, dtype=torch.float64).expand(20, 4))


def draw_single_try(generator: np.random.Generator, height: int, width: int) -> tuple[int, int, int, int]:
    """MAE's crop for the linear probe as it is defined: one draw of area and aspect ratio, sides cut off to fit."""
    area = generator.uniform(0.08, 1.0) * height * width
    ratio = math.exp(generator.uniform(math.log(3 / 4), math.log(4 / 3)))
    crop_width = min(round(math.sqrt(area * ratio)), width)
    crop_height = min(round(math.sqrt(area / ratio)), height)
    top = int(generator.integers(0, height - crop_height, endpoint=True))
    return top, int(generator.integers(0, width - crop_width, endpoint=True)), crop_height, crop_width


@pytest.mark.parametrize(("height", "width"), [(375, 500), (64, 64), (900, 200)])
def test_single_try_crop_draws_the_distribution_of_its_definition(height: int, width: int) -> None:
    generator = np.random.default_rng(6)
    theirs = np.array([draw_single_try(generator, height, width) for _ in range(9000)])
    ours = sample(crops.SingleTryResizedCrop(1), height, width, 9000).numpy()
    derived = [np.c_[boxes, boxes[:, 2] * boxes[:, 3], boxes[:, 3] / boxes[:, 2]] for boxes in (ours, theirs)]
    for column in range(6):  # top, left, height, width, area, ratio
        assert kstest(derived[0][:, column], derived[1][:, column]).pvalue > 0.001
    whole = [np.mean((boxes[:, 2] == height) | (boxes[:, 3] == width)) for boxes in (ours, theirs)]
    assert whole[0] == pytest.approx(whole[1], abs=0.03)  # how often a side was cut off
    assert (ours[:, 0] + ours[:, 2] <= height).all()
    assert (ours[:, 1] + ours[:, 3] <= width).all()


def keys_resize(lines: np.ndarray, size: int) -> np.ndarray:
    """Antialiased bicubic resize of [N, length] to [N, size] in float64, by its definition, rounded to grey levels."""
    length = lines.shape[1]
    result = np.empty((len(lines), size))
    for out in range(size):
        center, width = (out + 0.5) * length / size, max(length / size, 1.0)
        total, weights = np.zeros(len(lines)), 0.0
        for pixel in range(length):
            x = abs(pixel + 0.5 - center) / width
            weight = 1.5 * x**3 - 2.5 * x**2 + 1 if x < 1 else -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0
            total, weights = total + weight * lines[:, pixel], weights + weight
        result[:, out] = np.clip(np.floor(total / weights + 0.5), 0, 255)
    return result


@pytest.mark.parametrize("shape", [(10, 9), (60, 30), (10, 20)])
def test_resizing_does_the_width_first_in_every_version_of_pillow(shape: tuple[int, int]) -> None:
    image = random_image(40, 12)
    wide = np.stack([keys_resize(image[..., channel], shape[1]) for channel in range(3)])
    expected = np.stack([keys_resize(channel.T, shape[0]).T for channel in wide], axis=-1)
    difference = np.abs(crops.resize(image, shape).astype(int) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.002


def test_random_resized_crop_equals_torchvision_on_pil() -> None:
    for height, width in SHAPES:
        image = random_image(height, width)
        for box in sample(crops.RandomResizedCrop(48), height, width, 8):
            expected = resize_in_pil(functional.crop(Image.fromarray(image), *(int(v) for v in box)), 48, 48)
            assert np.array_equal(crops.RandomResizedCrop(48).apply(image, box), np.asarray(expected))


@pytest.mark.parametrize("padding", [0, 4, 20])
def test_simple_resized_crop_equals_torchvision_on_pil(padding: int) -> None:
    crop = crops.SimpleResizedCrop(48, padding)
    for height, width in SHAPES:
        image = random_image(height, width)
        sides = (48, int(48 * width / height)) if height < width else (int(48 * height / width), 48)
        resized = resize_in_pil(Image.fromarray(image), *sides)
        padded = functional.pad(resized, [padding], padding_mode="reflect")
        for box in sample(crop, height, width, 8):
            top = round(float(box[0]) * resized.height / height) + padding
            left = round(float(box[1]) * resized.width / width) + padding
            assert 0 <= top <= padded.height - 48
            assert 0 <= left <= padded.width - 48
            assert np.array_equal(crop.apply(image, box), np.asarray(functional.crop(padded, top, left, 48, 48)))


def test_simple_resized_crop_takes_every_position_equally_often() -> None:
    boxes = sample(crops.SimpleResizedCrop(64), 128, 160, 9000)  # resized to 64 x 80: 9 x 25 positions
    tops, counts = np.unique(boxes[:, 0].numpy(), return_counts=True)
    assert tops.tolist() == [2.0 * offset for offset in range(-4, 5)]
    assert all(binomtest(int(count), 9000, 1 / 9).pvalue > 1e-4 for count in counts)
    lefts, counts = np.unique(boxes[:, 1].numpy(), return_counts=True)
    assert lefts.tolist() == [2.0 * offset for offset in range(-4, 21)]
    assert all(binomtest(int(count), 9000, 1 / 25).pvalue > 1e-4 for count in counts)
    assert boxes[:, 2:].unique().tolist() == [128.0]


@pytest.mark.parametrize(("size", "resize"), [(48, None), (48, 57), (33, 64)])
def test_center_crop_equals_torchvision_on_pil(size: int, resize: int | None) -> None:
    crop = crops.CenterCrop(size, resize)
    reference = v2.Compose([v2.Resize(resize or size, interpolation=InterpolationMode.BICUBIC), v2.CenterCrop(size)])
    for height, width in [(64, 64), (97, 150), (101, 60), (60, 101), (75, 58)]:
        image = random_image(height, width)
        (box,) = sample(crop, height, width, 1)
        assert np.array_equal(crop.apply(image, box), np.asarray(reference(Image.fromarray(image))))


@pytest.mark.parametrize("crop", CROPS, ids=repr)
@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_a_batch_is_within_one_grey_level_of_single_images(crop: crops.Crop, height: int, width: int) -> None:
    images = np.stack([random_image(height, width, seed) for seed in range(10)])
    boxes = sample(crop, height, width, 10, seed=3)
    flip = crops.sample_flips(3, torch.arange(10))
    assert 0 < flip.sum() < 10
    expected = np.stack([crop.apply(image, box) for image, box in zip(images, boxes, strict=True)])
    expected = np.where(flip.numpy()[:, None, None, None], expected[:, :, ::-1], expected)
    batch = crop.apply_batch(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), boxes, flip)
    assert batch.dtype == torch.uint8
    difference = np.abs(batch.permute(0, 2, 3, 1).numpy().astype(int) - expected.astype(int))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.002


def test_an_identity_crop_changes_nothing() -> None:
    image = torch.from_numpy(random_image(64, 64)).permute(2, 0, 1)[None]
    whole, keep = torch.tensor([[0.0, 0.0, 64.0, 64.0]], dtype=torch.float64), torch.tensor([False])
    for crop in (crops.RandomResizedCrop(64), crops.SimpleResizedCrop(64), crops.CenterCrop(64)):
        assert torch.equal(crop.apply_batch(image, whole, keep), image)


def test_a_box_depends_on_seed_and_item_alone() -> None:
    for crop in (crops.RandomResizedCrop(48), crops.SimpleResizedCrop(48)):
        many = sample(crop, 100, 140, 50)
        alone = crop.sample(torch.tensor([100]), torch.tensor([140]), seed=0, index=torch.tensor([37]))
        assert torch.equal(many[37:38], alone)
        assert not torch.equal(many, sample(crop, 100, 140, 50, seed=1))


def test_half_the_images_are_flipped() -> None:
    flips = crops.sample_flips(5, torch.arange(10000))
    assert binomtest(int(flips.sum()), 10000).pvalue > 0.001
    assert torch.equal(flips[40:50], crops.sample_flips(5, torch.arange(40, 50)))


def test_impossible_geometry_is_refused() -> None:
    with pytest.raises(InputError, match="padding"):
        crops.SimpleResizedCrop(4, padding=4)
    with pytest.raises(InputError, match="resize"):
        crops.CenterCrop(224, resize=192)
