"""Frost: the published arithmetic on known windows, where windows come from, and what grown crystals look like."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pixmim_eval.corruptions import PARAMETER_SETS, SEVERITIES, corrupt, crystals, frost
from pixmim_eval.errors import InputError
from pixmim_eval.seeds import derive_seed, generators

Maker = Callable[..., Tensor]
# Heights and widths of the published photographs.
SIZES = ((600, 900), (315, 560), (315, 560), (350, 527), (495, 660))
WINDOWS = (crystals._SILK, crystals._PLATES, crystals._PLATES, crystals._STARS, crystals._FEATHERS)


@pytest.fixture
def forget() -> Iterator[None]:
    """What a process remembers about frost, forgotten before and after."""
    functions = (frost.frost_source, frost._read_windows, frost._resize_windows)
    for function in functions:
        function.cache_clear()
    yield
    for function in functions:
        function.cache_clear()


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch, forget: None) -> tuple[Tensor, ...]:
    """Random windows of the published sizes, in place of photographs."""
    source = torch.Generator().manual_seed(0)
    made = tuple(torch.randint(256, (3, *size), generator=source).to(torch.uint8) for size in SIZES)
    monkeypatch.setattr(frost, "_read_windows", lambda: made)
    return made


@pytest.fixture(scope="module")
def grown() -> tuple[Tensor, ...]:
    return crystals.grow_crystals()


def shrink_plainly(window: np.ndarray, scale: float) -> np.ndarray:
    """OpenCV's resize by a factor: two taps an axis, pixel centres at halves, borders repeated."""
    for axis in (0, 1):
        size = window.shape[axis]
        position = np.clip((np.arange(int(size * scale)) + 0.5) / scale - 0.5, 0, size - 1)
        below = np.floor(position).astype(int)
        weight = (position - below).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        near, far = window.take(below, axis), window.take(np.minimum(below + 1, size - 1), axis)
        window = (1 - weight) * near + weight * far
    return np.round(window)


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("parameters", PARAMETER_SETS)
def test_frost_of_the_same_numbers_is_the_published_frost(
    parameters: str, severity: int, make_images: Maker, windows: tuple[Tensor, ...]
) -> None:
    size = PARAMETER_SETS[parameters]
    images, index = make_images(4, size, size), torch.tensor([3, 1, 4, 15])
    results = corrupt(images, "frost", severity, seed=9, index=index, parameters=parameters)
    image_weight, frost_weight, scale = frost.FROST[parameters][severity - 1]
    numbers = generators(derive_seed(9, "frost", severity), index)
    for image, result, generator in zip(images, results, numbers, strict=True):
        which, down, right = torch.rand(3, dtype=torch.float64, generator=generator).tolist()
        window = windows[int(which * 5)].permute(1, 2, 0).numpy().astype(float)
        window = shrink_plainly(window, scale) if scale != 1 else window
        top, left = int(down * (window.shape[0] - size)), int(right * (window.shape[1] - size))
        part = window[top : top + size, left : left + size]
        exact = np.clip(image_weight * image.permute(1, 2, 0).numpy() + frost_weight * part, 0, 255)
        difference = np.abs(result.permute(1, 2, 0).numpy() - np.floor(exact + 1e-6))
        assert difference.max() <= 1 and difference.mean() < 0.005


def test_every_window_and_every_place_but_the_last_is_drawn(monkeypatch: pytest.MonkeyPatch, forget: None) -> None:
    codes = tuple(torch.arange(20).view(1, 4, 5).repeat(3, 1, 1).add(20 * i).to(torch.uint8) for i in range(5))
    monkeypatch.setattr(frost, "_read_windows", lambda: codes)
    black = torch.zeros(4000, 3, 2, 2, dtype=torch.uint8)
    parts = frost._draw_parts(black, 1.0, generators(0, torch.arange(4000)))
    which, place = parts[:, 0, 0, 0] // 20, parts[:, 0, 0, 0] % 20
    assert torch.equal(parts[:, 0, 1, 1], parts[:, 0, 0, 0] + 6)
    assert set(place.tolist()) == {0, 1, 2, 5, 6, 7}  # of 3 × 4 places, randint leaves out the last row and column
    assert (which.bincount() - 800).abs().max() < 5 * 800**0.5


def test_a_window_that_is_too_small_is_enlarged(windows: tuple[Tensor, ...], make_images: Maker) -> None:
    for shape, parameters in (((400, 700), "imagenet-c"), ((64, 224), "tiny-imagenet-c"), ((32, 200), "cifar-c")):
        images = make_images(6, *shape)
        frosted = corrupt(images, "frost", 5, seed=0, index=torch.arange(6), parameters=parameters)
        scale = frost.FROST[parameters][0][2]
        for own, wanted in zip(windows, frost._find_scales(scale, *shape), strict=True):
            fits = int(own.shape[1] * scale) > shape[0] and int(own.shape[2] * scale) > shape[1]
            assert wanted == scale if fits else wanted > scale
        assert frosted.shape == images.shape


def test_photographs_are_found_without_importing_their_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget: None
) -> None:
    folder = tmp_path / "imagecorruptions" / "frost"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "imagecorruptions", raising=False)
    assert frost.frost_source() == "photographs"
    with pytest.raises(InputError, match=r"photograph of frost: expected the published file.*found no file"):
        frost._read_windows()
    Image.new("RGB", (900, 600)).save(folder / "frost1.png")
    with pytest.raises(InputError, match=r"SHA-256 ff9f90.*frost1\.png.*uninstall it to use crystals"):
        frost._read_windows()


def test_without_the_package_crystals_grow_always_the_same(
    grown: tuple[Tensor, ...], monkeypatch: pytest.MonkeyPatch, forget: None
) -> None:
    monkeypatch.setattr(frost, "_PACKAGE", "no_such_package_here")
    monkeypatch.setattr(frost, "grow_crystals", lambda: grown)
    assert frost.frost_source() == "crystals"
    assert frost._read_windows() is grown
    assert torch.equal(crystals._freeze(WINDOWS[3]), grown[3])


def test_crystals_have_the_colours_contrast_and_spectrum_of_the_photographs(grown: tuple[Tensor, ...]) -> None:
    for window, ice in zip(WINDOWS, grown, strict=True):
        levels = ice.permute(1, 2, 0).numpy().astype(float)
        deviation = np.hypot(window.shade, window.tint)
        np.testing.assert_allclose(levels.mean((0, 1)), window.mean, atol=1)
        np.testing.assert_allclose(levels.std((0, 1)), deviation, rtol=0.25)
        light = levels.mean(2)
        light = (light - light.mean()) / light.std()
        np.testing.assert_allclose(np.quantile(light, [0.1, 0.5, 0.9]), np.take(window.quantiles, [3, 5, 7]), atol=0.15)
        power = np.abs(np.fft.fft2(light)) ** 2
        frequency = np.hypot(np.fft.fftfreq(400)[:, None], np.fft.fftfreq(600))
        bands = np.array([3, 6, 12, 24, 48, 90]) / 224
        measured = [np.log2(power[(frequency > f / 1.1) & (frequency < f * 1.1)].mean()) for f in bands]
        wanted = np.interp(np.log(bands), np.log(crystals._FREQUENCIES), window.power)
        np.testing.assert_allclose(measured - np.mean(measured), wanted - np.mean(wanted), atol=0.7)


def test_the_installed_photographs_are_the_published_ones(forget: None) -> None:
    if frost.frost_source() == "crystals":
        pytest.skip("no photographs of frost here: pip install 'pixmim-eval[frost]'")
    read = frost._read_windows()
    assert [tuple(window.shape[1:]) for window in read] == list(SIZES)
    assert torch.equal(read[1], read[2])
    for photograph, window in zip(read, WINDOWS, strict=True):
        np.testing.assert_allclose(photograph.double().mean((1, 2)).numpy(), window.mean, atol=0.1)
