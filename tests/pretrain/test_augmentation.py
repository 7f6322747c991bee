"""3-Augment against PIL, mixing against its definition written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from pixmim_eval.seeds import uniform
from pretrain.augmentation import (
    Mixing,
    augment_three,
    blur,
    draw_mixing,
    jitter_colours,
    mix,
    solarise,
    to_grey,
)

COUNT = 24


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """Half noise, half smooth, one of them white, one with an edge; height and width differ."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (COUNT, 21, 30, 3), dtype=np.uint8)
    for number in range(COUNT // 2, COUNT):
        coarse = Image.fromarray(pixels[number]).resize((6, 5))
        pixels[number] = np.asarray(coarse.resize((30, 21), Image.Resampling.BICUBIC))
    pixels[0] = 255
    pixels[1, :, :15] = 255
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def to_pil(images: torch.Tensor) -> list[Image.Image]:
    return [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]


def stack(pictures: list[Image.Image]) -> torch.Tensor:
    return torch.stack([torch.from_numpy(np.array(picture)).permute(2, 0, 1) for picture in pictures])


def pil_grey(picture: Image.Image) -> Image.Image:
    return picture.convert("L").convert("RGB")


def test_grey_and_solarised_images_are_pil_s_to_the_bit(images: torch.Tensor) -> None:
    pictures = to_pil(images)
    assert torch.equal(to_grey(images).expand(-1, 3, -1, -1), stack([pil_grey(one) for one in pictures]).int())
    assert torch.equal(solarise(images), stack([ImageOps.solarize(one, 128) for one in pictures]))


@pytest.mark.parametrize(("low", "high"), [(0.1, 0.3), (0.5, 1.5), (1.5, 2.0)])
def test_blurred_images_are_pil_s_to_the_bit(images: torch.Tensor, low: float, high: float) -> None:
    radius = np.linspace(low, high, COUNT)
    wanted = [one.filter(ImageFilter.GaussianBlur(float(r))) for one, r in zip(to_pil(images), radius, strict=True)]
    assert torch.equal(blur(images, torch.from_numpy(radius)), stack(wanted))


def test_colour_jitter_is_pil_s_to_the_bit_in_any_order(images: torch.Tensor) -> None:
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    generator = torch.Generator().manual_seed(0)
    factors = 0.7 + 0.6 * torch.rand(COUNT, 3, generator=generator, dtype=torch.float64)
    order = torch.rand(COUNT, 3, generator=generator).argsort(dim=1)
    wanted = []
    for picture, factor, places in zip(to_pil(images), factors.tolist(), order.tolist(), strict=True):
        for place in places:
            picture = enhancers[place](picture).enhance(factor[place])
        wanted.append(picture)
    assert len({tuple(places) for places in order.tolist()}) == 6
    assert torch.equal(jitter_colours(images, factors, order), stack(wanted))


def recognise(image: torch.Tensor, made: torch.Tensor) -> list[str]:
    """Which of the three each result was made by: the one that explains its pixels best.

    Colour jitter is affine in the pixels and the luma of an image, so each candidate is fitted by least squares.

    Args:
        image: uint8 [3, H, W].
        made: uint8 [n, 3, H, W], from that image.
    """
    picture = to_pil(image[None])[0]
    candidates = {"grey": pil_grey(picture), "solarised": ImageOps.solarize(picture, 128)}
    for number, radius in enumerate(np.linspace(0.1, 2, 40)):
        candidates[f"blurred {number}"] = picture.filter(ImageFilter.GaussianBlur(float(radius)))
    wanted = made.double().flatten(1).T
    residuals = []
    for candidate in candidates.values():
        pixels = stack([candidate])[0].double().flatten(1)
        luma = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64) @ pixels
        terms = [pixels.flatten(), torch.ones(pixels.numel(), dtype=torch.float64)]
        if (pixels[0] != pixels[1]).any():
            terms.append(luma.repeat(3))
        basis = torch.linalg.qr(torch.stack(terms, dim=1)).Q
        residuals.append((wanted - basis @ (basis.T @ wanted)).square().sum(dim=0))
    names = [name.split()[0] for name in candidates]
    return [names[best] for best in torch.stack(residuals).argmin(dim=0).tolist()]


def test_each_of_the_three_is_chosen_as_often_and_no_image_is_left_alone() -> None:
    generator = np.random.default_rng(1)
    pixels = generator.integers(90, 166, (12, 12, 3), dtype=np.uint8)  # jittered, it stays clear of 0 and 255
    count = 300
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    made = augment_three(image.expand(count, -1, -1, -1), seed=5, index=torch.arange(count))
    found = recognise(image, made)
    for name in ("grey", "solarised", "blurred"):  # binomial: 100 ± 8.2
        assert abs(found.count(name) - count / 3) < 4 * math.sqrt(count * 2 / 9), name


def test_factors_cover_the_published_range() -> None:
    batch = torch.full((4000, 3, 1, 1), 100, dtype=torch.uint8)  # one grey pixel: only brightness changes it
    levels = augment_three(batch, seed=0, index=torch.arange(4000))[:, 0, 0, 0].double()
    assert (levels.min(), levels.max()) == (70, 129)  # 100 x [0.7, 1.3), cut off to whole levels
    spread = torch.histc(levels, bins=6, min=70, max=130)
    assert (spread - 4000 / 6).abs().max() < 4 * math.sqrt(4000 * 5 / 36)


def test_what_happens_to_an_image_depends_on_seed_and_image_alone(images: torch.Tensor) -> None:
    index = torch.arange(COUNT)
    whole = augment_three(images, 3, index)
    order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(0))
    assert torch.equal(augment_three(images[order], 3, index[order]), whole[order])
    parts = [augment_three(images[start : start + 5], 3, index[start : start + 5]) for start in range(0, COUNT, 5)]
    assert torch.equal(torch.cat(parts), whole)
    again = augment_three(images, 4, index)
    assert (again != whole).flatten(1).any(dim=1).float().mean() > 0.9
    assert images.shape == whole.shape
    assert images[0].eq(255).all()  # the input is left as it was


def test_mixing_draws_follow_their_laws() -> None:
    from scipy import stats

    size, count = 224, 2000
    drawn = [draw_mixing(size, seed) for seed in range(count)]
    cuts = [mixing for mixing in drawn if mixing.box]
    weights = [mixing.weight for mixing in drawn if not mixing.box]
    assert abs(len(cuts) - count / 2) < 4 * math.sqrt(count / 4)
    assert stats.kstest(weights, stats.beta(0.8, 0.8).cdf).pvalue > 1e-3
    inner = []
    for mixing in cuts:
        assert mixing.box is not None
        top, bottom, left, right = mixing.box
        assert 0 <= top <= bottom <= size
        assert 0 <= left <= right <= size
        assert mixing.weight == pytest.approx(1 - (bottom - top) * (right - left) / size**2, abs=1e-12)
        if top > 0 and bottom < size and left > 0 and right < size:  # not clipped: a square of side √(1 - weight)
            assert bottom - top == right - left
            inner.append(bottom - top)
    # A side before clipping is size · √(uniform); a box of side s fits with probability about ((size - s) / size)².
    sides = np.arange(0.5, size) / size
    expected = np.average(sides, weights=2 * sides * (1 - sides) ** 2) * size
    assert np.mean(inner) == pytest.approx(expected, abs=4 * np.std(inner) / math.sqrt(len(inner)) + 1)


def test_mixed_images_and_targets_are_those_of_the_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(5, 3, 6, 6, generator=generator)
    labels = torch.tensor([0, 3, 3, 1, 2])
    for mixing in (Mixing(0.3), Mixing(1 - 8 / 36, (1, 5, 4, 6))):
        mixed, targets = mix(images, labels, 4, mixing)
        wanted, shares = np.zeros((5, 3, 6, 6)), np.zeros((5, 4))
        for number in range(5):
            partner = 4 - number
            for row in range(6):
                for column in range(6):
                    share = mixing.weight
                    if mixing.box is not None:
                        top, bottom, left, right = mixing.box
                        share = 0.0 if top <= row < bottom and left <= column < right else 1.0
                    for channel in range(3):
                        place = (channel, row, column)
                        own, other = images[number][place].item(), images[partner][place].item()
                        wanted[number, *place] = share * own + (1 - share) * other
            shares[number, labels[number]] += mixing.weight
            shares[number, labels[partner]] += 1 - mixing.weight
        np.testing.assert_allclose(mixed, wanted, atol=1e-6)
        np.testing.assert_allclose(targets, shares, atol=1e-7)


def test_the_draws_of_an_image_are_uniform_numbers_of_the_project() -> None:
    index = torch.arange(300)
    choice = (uniform(5, index, 8, dtype=torch.float64)[:, 0] * 3).long()
    grey = torch.randint(90, 166, (1, 3, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    made = augment_three(grey.expand(300, -1, -1, -1), 5, index).int()
    is_grey = (made == made[:, :1]).flatten(1).all(dim=1)
    assert torch.equal(is_grey, choice == 0)
