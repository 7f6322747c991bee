"""Zoom blur against SciPy's zoom, one enlargement after the other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from pixmim_eval.corruptions import SEVERITIES, corrupt, zoom

Maker = Callable[..., Tensor]


def enlarge_plainly(line: np.ndarray, factor: float) -> np.ndarray:
    size = len(line)
    part = int(np.ceil(size / factor))
    first = (size - part) // 2
    large = ndimage.zoom(line[first : first + part], factor, order=1)
    trim = (len(large) - size) // 2
    return large[trim : trim + size]


def blur_plainly(image: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """The published function on an image [H, W, 3], each axis cut by its own size, on [0, 255] but not truncated."""
    unit = (image / 255.0).astype(np.float32)
    total = np.zeros_like(unit)
    for factor in factors:
        parts = [int(np.ceil(size / factor)) for size in unit.shape[:2]]
        top, left = ((size - part) // 2 for size, part in zip(unit.shape[:2], parts, strict=True))
        large = ndimage.zoom(unit[top : top + parts[0], left : left + parts[1]], (factor, factor, 1), order=1)
        top, left = ((a - b) // 2 for a, b in zip(large.shape[:2], unit.shape[:2], strict=True))
        total += large[top : top + unit.shape[0], left : left + unit.shape[1]]
    return np.clip((unit + total) / (len(factors) + 1), 0, 1) * 255


def test_zoom_taps_equal_scipys_zoom_at_every_size() -> None:
    random = np.random.default_rng(0)
    dark = []
    for size in range(1, 240, 3):
        line = random.normal(size=size)
        for factor in (*np.arange(1, 1.31, 0.03), 2.0, 2.5, 3.0, 4.0, 4.5):
            index, weights = zoom.zoom_taps(size, float(factor))
            result = (torch.from_numpy(line)[index] * weights).sum(0).numpy()
            np.testing.assert_allclose(result, enlarge_plainly(line, factor), atol=1e-9)
            dark.append((weights.sum(0) == 0).any())
    assert any(dark)  # sizes where SciPy leaves the last pixel black are among them


@pytest.mark.parametrize(
    ("parameters", "size"),
    [("imagenet-c", (112, 112)), ("imagenet-c", (90, 141)), ("tiny-imagenet-c", (64, 64)), ("cifar-c", (32, 32))],
)
@pytest.mark.parametrize("severity", SEVERITIES)
def test_zoom_blur_equals_the_published_function(
    severity: int, parameters: str, size: tuple[int, int], make_images: Maker
) -> None:
    images = make_images(2, *size)
    result = corrupt(images, "zoom_blur", severity, seed=0, index=torch.arange(2), parameters=parameters)
    factors = np.arange(1, *zoom.ZOOM_BLUR[parameters][severity - 1])
    for image, blurred in zip(images.permute(0, 2, 3, 1).numpy(), result.permute(0, 2, 3, 1).numpy(), strict=True):
        difference = np.abs(blurred.astype(int) - np.uint8(blur_plainly(image, factors) + 1e-3))
        assert difference.max() <= 1
        assert difference.mean() <= 0.01


def test_factors_are_the_published_ones() -> None:
    counts = [[len(np.arange(1, *values)) for values in sets] for sets in zoom.ZOOM_BLUR.values()]
    assert counts == [[12, 16, 11, 13, 11], [7, 12, 16, 21, 26], [7, 12, 16, 21, 26]]


@pytest.mark.parametrize("severity", [1, 5])
def test_flat_images_stay_as_they_are(severity: int) -> None:
    levels = torch.arange(256, dtype=torch.uint8)[:, None, None, None].expand(256, 3, 17, 23)
    assert torch.equal(corrupt(levels, "zoom_blur", severity, seed=0, index=torch.arange(256)), levels)


def test_bands_make_no_difference(make_images: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    images = make_images(3, 50, 40)
    whole = zoom.zoom_blur(images, (1.31, 0.03), iter(()))
    monkeypatch.setattr(zoom, "_BAND_PIXELS", 40 * 7)
    assert torch.equal(zoom.zoom_blur(images, (1.31, 0.03), iter(())), whole)


def test_no_sum_rounds(make_images: Maker) -> None:
    """A batch is summed in another order than one image; with float64 sums it is the same to the bit."""
    images = make_images(5, 60, 44)
    result = zoom.zoom_blur(images, (1.26, 0.02), iter(()))
    index, offsets, weights = zoom._zoom_operator(60, 44, (1.26, 0.02), 0, 60, torch.device("cpu"))
    pixels = torch.repeat_interleave(torch.arange(60 * 44), torch.diff(offsets, append=torch.tensor([len(index)])))
    lines = images.flatten(2).double()
    sums = torch.zeros_like(lines).index_add_(2, pixels, lines[..., index] * weights)
    assert torch.equal(result, sums.add(2.0**-10).view(images.shape).floor().to(torch.uint8))
    for row in range(5):
        assert torch.equal(zoom.zoom_blur(images[row : row + 1], (1.26, 0.02), iter(()))[0], result[row])
