"""The elastic transform against its published definition, written out in NumPy and SciPy, with the same draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from torch import Tensor

from pixmim_eval.corruptions import PARAMETER_SETS, SEVERITIES, corrupt, elastic
from pixmim_eval.corruptions.elastic import ELASTIC_TRANSFORM, elastic_transform, smooth_noise
from pixmim_eval.seeds import generators


def draws(seed: int, count: int) -> Iterator[torch.Generator]:
    return generators(seed, torch.arange(count))


def solve_affine(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Matrix [2, 3] of the affine map that takes three points to three others."""
    return np.linalg.solve(np.c_[start, np.ones(3)], end).T


def warp(image: np.ndarray, forward: np.ndarray) -> np.ndarray:
    """OpenCV 3's warpAffine, bilinear, BORDER_REFLECT_101: image float [H, W, 3]."""
    height, width = image.shape[:2]
    back = np.linalg.inv(np.vstack([forward, [0, 0, 1]]))[:2]
    x, y = np.arange(width), np.arange(height)[:, None]
    across, down = (  # in 1/32 pixel
        (np.rint((m[1] * y + m[2]) * 1024).astype(int) + 16 + np.rint(m[0] * x * 1024).astype(int)) >> 5 for m in back
    )
    warped = np.zeros(image.shape)
    for right in (0, 1):
        for lower in (0, 1):
            share = np.abs(1 - right - across % 32 / 32) * np.abs(1 - lower - down % 32 / 32)
            there = image[mirror(down // 32 + lower, height), mirror(across // 32 + right, width)]
            warped += share[..., None] * there
    return warped


def mirror(positions: np.ndarray, size: int) -> np.ndarray:
    period = 2 * (size - 1)
    return np.minimum(positions % period, period - positions % period)


def transform(image: np.ndarray, moves: np.ndarray, noise: np.ndarray, parameters: tuple[float, ...]) -> np.ndarray:
    """The published function on an image uint8 [H, W, 3]."""
    amount, deviation, _ = parameters
    height, width = image.shape[:2]
    centre, half = np.array((height // 2, width // 2)), min(height, width) // 3
    start = np.array([centre + half, [centre[0] + half, centre[1] - half], centre - half], dtype=np.float32)
    forward = solve_affine(start.astype(float), (start + moves).astype(float))
    image = warp(image / 255, forward)
    if amount:
        right, down = (ndimage.gaussian_filter(n, deviation, mode="reflect", truncate=3) * amount for n in noise)
        rows, columns = np.mgrid[:height, :width]
        places = (rows + down, columns + right)
        channels = [ndimage.map_coordinates(image[..., c], places, order=1, mode="reflect") for c in range(3)]
        image = np.stack(channels, axis=-1)
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize(
    ("parameters", "height", "width"),
    [("imagenet-c", 128, 128), ("tiny-imagenet-c", 64, 64), ("cifar-c", 32, 32), ("imagenet-c", 70, 121)],
)
def test_equals_the_published_definition_within_one_grey_level(
    parameters: str, height: int, width: int, severity: int, make_images: Callable[..., Tensor]
) -> None:
    images = make_images(1, height, width)
    values = ELASTIC_TRANSFORM[parameters][severity - 1]
    moves, noise = elastic._draw(images, values[2], draws(severity, 1))
    expected = transform(images[0].permute(1, 2, 0).numpy(), moves[0].numpy(), noise[0].numpy(), values)
    result = elastic_transform(images, values, draws(severity, 1))[0].permute(1, 2, 0).numpy()
    difference = np.abs(result.astype(int) - expected)
    assert difference.max() <= 1 and difference.mean() <= 0.1
    assert (result != images[0].permute(1, 2, 0).numpy()).mean() > 0.3


def test_noise_is_uniform_and_independent(make_images: Callable[..., Tensor]) -> None:
    moves, noise = elastic._draw(make_images(40, 64, 48), 5.0, draws(0, 40))
    assert stats.kstest(moves.numpy().ravel(), stats.uniform(-5, 10).cdf).pvalue > 1e-3
    values = noise.numpy()
    assert stats.kstest(values.ravel(), stats.uniform(-1, 2).cdf).pvalue > 1e-3
    for shifted in (np.roll(values, 1, axis) for axis in range(4)):
        assert abs((values * shifted).mean() * 3) < 5 / np.sqrt(values.size)


def test_an_odd_number_of_pixels_has_noise_of_its_own_for_every_image(make_images: Callable[..., Tensor]) -> None:
    images = make_images(3, 5, 3)
    _, together = elastic._draw(images, 1.0, draws(4, 3))
    _, alone = elastic._draw(images[:1], 1.0, generators(4, torch.tensor([2])))
    assert together.shape == (3, 2, 5, 3) and torch.equal(together[2], alone[0])


@pytest.mark.parametrize("shape", [(3, 50, 37), (2, 2, 97, 120), (1, 1, 1)])
@pytest.mark.parametrize(("border", "mode"), [("reflect", "reflect"), ("repeat", "nearest")])
def test_smoothing_is_scipys(shape: tuple[int, ...], border: str, mode: str) -> None:
    whole = torch.randint(-(2**23), 2**23 + 1, shape, generator=torch.Generator().manual_seed(1))
    numbers = whole.double() * 2.0**-23
    for deviation, truncate in ((0.5, 4.0), (2.44, 3.0), (19.52, 3.0), (170.8, 3.0)):
        result = smooth_noise(numbers, deviation, border=border, truncate=truncate)
        axes = (-2, -1)
        expected = ndimage.gaussian_filter(numbers.numpy(), deviation, mode=mode, truncate=truncate, axes=axes)
        np.testing.assert_allclose(result.numpy(), expected, atol=1e-7 if deviation < 100 else 4e-7)


def test_smoothing_adds_without_rounding() -> None:
    whole = torch.randint(-(2**23), 2**23 + 1, (1, 60, 60), generator=torch.Generator().manual_seed(2))
    flipped = smooth_noise(whole.flip(1, 2).double() * 2.0**-23, 19.52, border="reflect", truncate=3).flip(1, 2)
    result = smooth_noise(whole.double() * 2.0**-23, 19.52, border="reflect", truncate=3)
    assert torch.equal(result, flipped)  # the same terms in the opposite order
    assert torch.equal(result * 2.0**52, (result * 2.0**52).round())


@pytest.mark.parametrize("severity", SEVERITIES)
def test_a_pixel_depends_on_its_image_and_draws_alone(severity: int, make_images: Callable[..., Tensor]) -> None:
    images, index = make_images(6, 96, 70), torch.tensor([5, 0, 9, 2, 7, 1])
    together = corrupt(images, "elastic_transform", severity, seed=3, index=index, parameters="imagenet-c")
    threads = torch.get_num_threads()
    for row in (0, 4):
        torch.set_num_threads(1 + row % 3)
        one = slice(row, row + 1)
        alone = corrupt(images[one], "elastic_transform", severity, seed=3, index=index[one], parameters="imagenet-c")
        torch.set_num_threads(threads)
        assert torch.equal(alone[0], together[row])
    other = corrupt(images, "elastic_transform", severity, seed=4, index=index, parameters="imagenet-c")
    assert not torch.equal(other, together)


def test_nothing_moves_where_nothing_is_drawn(
    make_images: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = make_images(2, 41, 56)
    nothing = (torch.zeros(2, 3, 2), torch.zeros(2, 2, 41, 56, dtype=torch.float64))
    monkeypatch.setattr(elastic, "_draw", lambda *_: nothing)
    assert torch.equal(elastic_transform(images, (488, 19.52, 48.8), draws(0, 2)), images)


def test_flat_images_stay_flat() -> None:
    levels = torch.arange(0, 256, 15, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 24, 20).contiguous()
    for parameters in PARAMETER_SETS:
        for severity in SEVERITIES:
            result = corrupt(
                levels, "elastic_transform", severity, seed=0, index=torch.arange(len(levels)), parameters=parameters
            )
            assert torch.equal(result, levels)
