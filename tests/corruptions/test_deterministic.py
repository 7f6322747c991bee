"""Light and digital corruptions against the published definitions, in float64 or by PIL."""

from __future__ import annotations

import colorsys
import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pixmim_eval.corruptions import CORRUPTIONS, PARAMETER_SETS, SEVERITIES, corrupt
from pixmim_eval.corruptions.digital import store_as_jpeg

Maker = Callable[..., Tensor]
each_case = pytest.mark.parametrize(
    ("parameters", "severity"), [(name, severity) for name in PARAMETER_SETS for severity in SEVERITIES]
)


def run(images: Tensor, name: str, severity: int, parameters: str) -> np.ndarray:
    """Corrupted images [B, H, W, 3]."""
    index = torch.arange(len(images))
    return corrupt(images, name, severity, seed=0, index=index, parameters=parameters).permute(0, 2, 3, 1).numpy()


def values_of(name: str, severity: int, parameters: str) -> tuple[float, ...]:
    value = CORRUPTIONS[name].parameters[parameters][severity - 1]
    return value if isinstance(value, tuple) else (value,)


def to_unit(images: Tensor) -> np.ndarray:
    return images.permute(0, 2, 3, 1).numpy() / 255.0


def assert_published(result: np.ndarray, unit: np.ndarray) -> None:
    """The bytes are those of the reference on [0, 1], clipped and truncated, but for ties that rounding decides."""
    exact = np.clip(unit, 0, 1) * 255
    difference = np.abs(result.astype(np.float64) - np.uint8(exact))
    assert difference.max() <= 1
    assert difference.mean() <= 0.1
    assert (result <= exact + 2e-3).all() and (result > exact - 1 - 1e-9).all()


def change_hsv(unit: np.ndarray, change: Callable[[float, float], tuple[float, float]]) -> np.ndarray:
    def convert(pixel: np.ndarray) -> np.ndarray:
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        return np.array(colorsys.hsv_to_rgb(hue, *change(saturation, value)), dtype=np.float64)

    return np.apply_along_axis(convert, -1, unit)


@each_case
def test_brightness_adds_to_the_value_of_hsv(parameters: str, severity: int, make_images: Maker) -> None:
    images = make_images(1, 32, 24)
    (added,) = values_of("brightness", severity, parameters)
    expected = change_hsv(to_unit(images), lambda s, v: (s, min(v + added, 1.0)))
    assert_published(run(images, "brightness", severity, parameters), expected)


@each_case
def test_saturate_scales_the_saturation_of_hsv(parameters: str, severity: int, make_images: Maker) -> None:
    images = make_images(1, 32, 24)
    factor, addend = values_of("saturate", severity, parameters)
    expected = change_hsv(to_unit(images), lambda s, v: (min(s * factor + addend, 1.0), v))
    result = run(images, "saturate", severity, parameters)
    exact = expected * 255
    # Whole levels are common here (factors 0.3 and 2), and colorsys rounds otherwise than scikit-image.
    assert (np.abs(result - exact + 0.5) <= 0.5 + 1e-9).all()


def test_saturate_turns_grey_red() -> None:
    grey = torch.full((1, 3, 4, 4), 100, dtype=torch.uint8)
    assert run(grey, "saturate", 5, "imagenet-c")[0, 0, 0].tolist() == [100, 80, 80]
    assert run(grey, "saturate", 1, "imagenet-c")[0, 0, 0].tolist() == [100, 100, 100]


def publish_hsv(
    images: Tensor, change: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    """Saturation and value changed with the operations of scikit-image's rgb2hsv and hsv2rgb, in their order."""
    unit = to_unit(images)
    red, green, blue = np.moveaxis(unit, -1, 0)
    value = unit.max(-1)
    delta = value - unit.min(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        saturation = np.where(delta == 0, 0.0, delta / value)
        sixth = np.select(
            [blue == value, green == value],
            [4 + (red - green) / delta, 2 + (blue - red) / delta],
            (green - blue) / delta,
        )
    hue = np.where(delta == 0, 0.0, sixth / 6 % 1.0)
    saturation, value = change(saturation, value)
    sector = np.floor(hue * 6)
    fraction = hue * 6 - sector
    p, q, t = (value * (1 - share * saturation) for share in (1.0, fraction, 1 - fraction))
    order = [(value, t, p), (q, value, p), (p, value, t), (p, q, value), (t, p, value), (value, p, q)]
    choices = np.stack([np.stack(channels, axis=-1) for channels in order])
    result = np.take_along_axis(choices, sector[None, ..., None].astype(int) % 6, axis=0)[0]
    return (np.clip(result, 0, 1) * 255).astype(np.uint8)


@each_case
def test_saturate_equals_the_published_operations_to_the_bit(
    parameters: str, severity: int, make_images: Maker
) -> None:
    images = make_images(2, 100, 80)
    images[1] = images[1] // 51 * 51  # whole levels nearly everywhere, and colours of which two channels are equal
    factor, addend = values_of("saturate", severity, parameters)
    expected = publish_hsv(images, lambda s, v: (np.clip(s * factor + addend, 0, 1), v))
    assert np.array_equal(run(images, "saturate", severity, parameters), expected)


@each_case
def test_brightness_equals_the_published_operations_but_for_rare_ties(
    parameters: str, severity: int, make_images: Maker
) -> None:
    images = make_images(2, 100, 80)
    (added,) = values_of("brightness", severity, parameters)
    expected = publish_hsv(images, lambda s, v: (s, np.clip(v + added, 0, 1)))
    difference = run(images, "brightness", severity, parameters).astype(int) - expected
    channels = images.permute(0, 2, 3, 1).numpy()
    in_between = (channels > channels.min(-1, keepdims=True)) & (channels < channels.max(-1, keepdims=True))
    assert np.abs(difference).max() <= 1 and (difference != 0).mean() < 0.01
    assert (difference[~in_between] == 0).all()


@each_case
def test_contrast_scales_about_the_mean_of_each_channel(parameters: str, severity: int, make_images: Maker) -> None:
    images = make_images(3, 56, 40)
    (factor,) = values_of("contrast", severity, parameters)
    unit = to_unit(images)
    means = unit.mean(axis=(1, 2), keepdims=True)
    assert_published(run(images, "contrast", severity, parameters), (unit - means) * factor + means)


@pytest.mark.parametrize("size", [(224, 224), (64, 64), (32, 32), (61, 97)])
@each_case
def test_pixelate_equals_pils_box_filter(
    parameters: str, severity: int, size: tuple[int, int], make_images: Maker
) -> None:
    images = make_images(2, *size)
    (factor,) = values_of("pixelate", severity, parameters)
    small = (int(size[1] * factor), int(size[0] * factor))
    result = run(images, "pixelate", severity, parameters)
    for image, pixelated in zip(images.permute(0, 2, 3, 1).numpy(), result, strict=True):
        resized = Image.fromarray(image).resize(small, Image.Resampling.BOX).resize(size[::-1], Image.Resampling.BOX)
        assert np.array_equal(pixelated, np.asarray(resized))


@each_case
def test_jpeg_compression_equals_pils(parameters: str, severity: int, make_images: Maker) -> None:
    images = make_images(3, 61, 40)
    (quality,) = values_of("jpeg_compression", severity, parameters)
    for image, compressed in zip(
        images.permute(0, 2, 3, 1).numpy(), run(images, "jpeg_compression", severity, parameters), strict=True
    ):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=int(quality))
        assert np.array_equal(compressed, np.asarray(Image.open(buffer)))


@pytest.mark.parametrize("threads", [1, 3])
def test_the_jpeg_step_equals_the_published_files(threads: int, make_images: Maker) -> None:
    images, before = make_images(3, 61, 40), torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        stored = store_as_jpeg(images)
    finally:
        torch.set_num_threads(before)
    for image, result in zip(images.permute(0, 2, 3, 1).numpy(), stored.permute(0, 2, 3, 1).numpy(), strict=True):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=85, optimize=True)
        assert np.array_equal(result, np.asarray(Image.open(buffer)))
