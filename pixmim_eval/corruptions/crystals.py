"""Ice on glass, grown by rule, for where the published photographs of frost are not installed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Window:
    """How one window freezes. The statistics are those of the published photograph that it stands for.

    Args:
        count: crystals.
        length: of the shortest crystal's spine, relative to the window's height; longer ones are rarer.
        branch: length of the side branches, relative to the spine.
        spread: angle between spine and side branches, radians.
        bend: largest turn of a spine, radians.
        mean: of red, green and blue, on [0, 255].
        shade: how far one standard deviation of light and dark moves red, green and blue.
        tint: how far one standard deviation of a hue that changes slowly moves them.
        quantiles: of light and dark, in standard deviations, at _PROBABILITIES.
        power: log2 of the power of light and dark at _FREQUENCIES, up to an addend; chosen so that squares of 224
            pixels measure alike.
    """

    count: int
    length: float
    branch: float
    spread: float
    bend: float
    mean: tuple[float, ...]
    shade: tuple[float, ...]
    tint: tuple[float, ...]
    quantiles: tuple[float, ...]
    power: tuple[float, ...]


_PROBABILITIES = (0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1)
_FREQUENCIES = tuple(f / 224 for f in (1.4, 2.4, 3.9, 6.3, 10.2, 16.1, 25.3, 40, 63, 95))  # cycles a pixel

_SILK = Window(
    260, 0.15, 0.25, 0.35, 2.6,
    mean=(77.7, 149.1, 165.7), shade=(26, 15.6, 12), tint=(-7.5, 5.1, 9.5),
    quantiles=(-2.2, -1.88, -1.49, -1.22, -0.73, -0.1, 0.64, 1.36, 1.81, 2.59, 3.6),
    power=(19.9, 17.7, 15.5, 13.8, 12.3, 11, 10.5, 10.1, 9.5, 7.7),
)  # fmt: skip
_PLATES = Window(
    700, 0.10, 0.22, 0.45, 0.5,
    mean=(200.8, 205.4, 214.5), shade=(21.3, 22.1, 22.4), tint=(-1.5, -0.2, 1.6),
    quantiles=(-4.9, -2.98, -1.86, -1.35, -0.54, 0.16, 0.7, 1.11, 1.34, 1.74, 2),
    power=(16.5, 14.2, 14.3, 12.7, 12.3, 11.2, 9.6, 8.6, 7.5, 5.4),
)  # fmt: skip
_STARS = Window(
    1500, 0.03, 0.5, 1.05, 0.6,
    mean=(137.6, 152.8, 165.2), shade=(28.5, 28.5, 29.5), tint=(-1.5, -1, 2.3),
    quantiles=(-3.7, -2.42, -1.66, -1.24, -0.62, 0, 0.59, 1.18, 1.62, 2.83, 3.5),
    power=(16.9, 13.5, 16.1, 14.7, 14.5, 13.3, 12.6, 11.8, 10.8, 8.9),
)  # fmt: skip
_FEATHERS = Window(
    520, 0.08, 0.4, 0.7, 0.7,
    mean=(112.4, 123.4, 134.8), shade=(44, 43.3, 41.8), tint=(-1.4, -0.1, 1.6),
    quantiles=(-2.1, -1.82, -1.47, -1.23, -0.74, -0.1, 0.63, 1.38, 1.85, 2.65, 3.05),
    power=(16, 13.7, 15.1, 13.5, 12.2, 11, 9.7, 8.4, 7.1, 6.1),
)  # fmt: skip
_HEIGHT, _WIDTH = 400, 600


def grow_crystals() -> tuple[Tensor, ...]:
    """Five windows of frost, uint8 [3, 400, 600] each, always the same; the second is the third, as it is published.

    Source: our own. Spines with side branches are drawn and lit from one side; then spectrum and distribution of light
        and dark are made those of a published photograph.
    """
    silk, plates, stars, feathers = map(_freeze, (_SILK, _PLATES, _STARS, _FEATHERS))
    return silk, plates, plates, stars, feathers


def _freeze(window: Window) -> Tensor:
    generator = torch.Generator().manual_seed(window.count)
    light = _draw_branches(window, generator)
    tint = torch.randn(_HEIGHT, _WIDTH, dtype=torch.float64, generator=generator)
    for _ in range(2):  # each of the two spoils the other a little
        light = _set_distribution(_set_power(light, window.power), window.quantiles)
    tint = _set_power(tint, tuple(-2.3 * math.log2(f) for f in _FREQUENCIES))
    tint = (tint - tint.mean()) / tint.std()
    mean, shade, hue = (
        torch.tensor(colour, dtype=torch.float64)[:, None, None] for colour in (window.mean, window.shade, window.tint)
    )
    return (mean + shade * light + hue * tint).round_().clamp_(0, 255).to(torch.uint8)


def _draw_branches(window: Window, generator: torch.Generator) -> Tensor:
    """Crystals [H, W], drawn at twice the size; what leaves the window comes in again on the other side."""
    height, width, steps, reach = 2 * _HEIGHT, 2 * _WIDTH, round(40 + 400 * window.length), 24
    numbers = torch.rand(5, window.count, 1, generator=generator)
    along, out = torch.linspace(0, 1, steps), torch.linspace(0, 1, reach)
    length = window.length * height * (1 - 0.98 * numbers[0]).rsqrt()
    heading = 2 * math.pi * numbers[1] + window.bend * (2 * numbers[2] - 1) * along
    down = numbers[3] * height + (heading.sin() * length / steps).cumsum(1)
    right = numbers[4] * width + (heading.cos() * length / steps).cumsum(1)
    uneven = 0.3 + torch.rand(window.count, steps, generator=generator)
    side_length = window.branch * length * (1 - along) * uneven
    canvas = torch.zeros(height * width)
    for side in (-1, 1):
        direction = heading + side * window.spread
        rows = down[..., None] + (side_length * direction.sin())[..., None] * out
        columns = right[..., None] + (side_length * direction.cos())[..., None] * out
        lit = (0.6 + 0.4 * (direction - 0.8).cos())[..., None] * (1 - 0.7 * out)
        place = rows.floor().long() % height * width + columns.floor().long() % width
        canvas.scatter_reduce_(0, place.flatten(), lit.flatten(), "amax")
    return canvas.view(_HEIGHT, 2, _WIDTH, 2).mean((1, 3)).double()


def _set_power(levels: Tensor, power: tuple[float, ...]) -> Tensor:
    """Levels [H, W] whose power, averaged over directions, has the given log2 at _FREQUENCIES."""
    vertical = torch.fft.fftfreq(_HEIGHT, dtype=torch.float64)[:, None]
    horizontal = torch.fft.rfftfreq(_WIDTH, dtype=torch.float64)
    octave = torch.hypot(vertical, horizontal).clamp_(min=1 / _WIDTH).log2_()
    spectrum = torch.fft.rfft2(levels - levels.mean())
    rings = ((octave - octave.min()) * 6).long()  # a sixth of an octave wide
    sums, counts = (
        torch.zeros(int(rings.max()) + 1, dtype=torch.float64).index_add_(0, rings.flatten(), values.flatten())
        for values in (spectrum.abs().square(), torch.ones_like(octave))
    )
    wanted = _interpolate(octave, [math.log2(f) for f in _FREQUENCIES], power)
    return torch.fft.irfft2(
        spectrum * ((wanted * math.log(2)).exp() * counts[rings] / sums[rings]).sqrt(), s=levels.shape
    )


def _set_distribution(levels: Tensor, quantiles: tuple[float, ...]) -> Tensor:
    """Levels [H, W] in the same order from dark to light, with the given quantiles at _PROBABILITIES."""
    ranks = torch.empty(levels.numel(), dtype=torch.float64)
    ranks[levels.flatten().argsort()] = torch.linspace(0, 1, levels.numel(), dtype=torch.float64)
    return _interpolate(ranks, _PROBABILITIES, quantiles).view_as(levels)


def _interpolate(at: Tensor, positions: list[float] | tuple[float, ...], values: tuple[float, ...]) -> Tensor:
    """Straight lines between the points (positions, values), continued beyond the ends."""
    x, y = torch.tensor(positions, dtype=torch.float64), torch.tensor(values, dtype=torch.float64)
    piece = torch.bucketize(at, x[1:-1])
    return y[piece] + (at - x[piece]) * ((y[1:] - y[:-1]) / (x[1:] - x[:-1]))[piece]
