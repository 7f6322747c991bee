"""Frosted glass: pixels change places with their neighbours between two blurs."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from pixmim_eval.corruptions.blur import SMOOTH_TIE, smooth
from pixmim_eval.corruptions.pixels import truncate

# Standard deviation of both blurs in pixels, farthest move in pixels, and how often all pixels move.
GLASS_BLUR = {
    "imagenet-c": ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    "tiny-imagenet-c": ((0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)),
    "cifar-c": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
}


def glass_blur(images: Tensor, parameters: tuple[float, int, int], generators: Iterator[torch.Generator]) -> Tensor:
    """Blurs, moves every pixel a little at random, and blurs again.

    Source: Hendrycks and Dietterich, ICLR 2019, section 4.1; hendrycks/robustness `glass_blur`. What is meant there as
        an exchange of two pixels copies one onto the other, because the pixels are views; so it does here.
    Differs: a move has the probability 1 / (2 * reach)^2 to within 0.03 % where that is not a power of two (reach 3).
    """
    deviation, reach, rounds = parameters
    height, width = images.shape[-2:]
    levels = smooth(images, deviation).add_(SMOOTH_TIE).floor_()
    for image, generator in zip(levels, generators, strict=False):  # the other generators are for later images
        sources = draw_sources(height, width, reach, generator)
        for _ in range(rounds - 1):
            sources = sources.index_select(0, draw_sources(height, width, reach, generator))
        for channel in image:  # one line at a time is gathered four times as fast as three
            channel.copy_(channel.flatten().index_select(0, sources).view_as(channel))
    return truncate(smooth(levels, deviation), tie=SMOOTH_TIE)


def draw_sources(height: int, width: int, reach: int, generator: torch.Generator) -> Tensor:
    """One round of moves, drawn and followed: see `draw_moves` and `follow_copies`."""
    return follow_copies(draw_moves(height, width, reach, generator), height, width, reach)


def draw_moves(height: int, width: int, reach: int, generator: torch.Generator) -> Tensor:
    """How far each pixel that can move looks for its new colour, down and to the right.

    Args:
        height: of the image in pixels; width: likewise.
        reach: moves are uniform on -reach … reach - 1, each way.
        generator: of this image.

    Returns:
        int32 [height - 2 * reach, width - 2 * reach] on the generator's device: down * width + right, for rows
        reach + 1 … height - reach and columns reach + 1 … width - reach; empty for small images.
    """
    rows, columns = max(0, height - 2 * reach), max(0, width - 2 * reach)
    choices = 2 * reach
    words = torch.empty((rows * columns + 3) // 4, dtype=torch.int64, device=generator.device)
    words.random_(-(2**63), None, generator=generator)  # all 64 bits: four numbers of 16
    numbers = words.view(torch.int16)[: rows * columns].to(torch.int32).bitwise_and_(0xFFFF)
    numbers.mul_(choices**2).bitwise_right_shift_(16)
    steps = torch.arange(-reach, reach, dtype=torch.int32, device=generator.device)
    return (steps[:, None] * width + steps).flatten().index_select(0, numbers).view(rows, columns)


def follow_copies(moves: Tensor, height: int, width: int, reach: int) -> Tensor:
    """The pixel whose colour each pixel has in the end, when one after the other copies from another.

    Pixels are visited from the last to the first, so a copy from a later pixel takes what that one has copied before:
    these chains are followed by doubling, all at once.

    Args:
        moves: int32 of draw_moves.
        height, width, reach: likewise.

    Returns:
        int32 [height * width], positions in the flattened image.
    """
    source = torch.arange(height * width, dtype=torch.int32, device=moves.device)
    pointer = source.clone()
    visited = (slice(reach + 1, reach + 1 + moves.shape[0]), slice(reach + 1, reach + 1 + moves.shape[1]))
    source.view(height, width)[visited] += moves
    if reach > 1:  # with a reach of 1 all copies are from earlier pixels
        pointer.view(height, width)[visited] += moves.clamp(min=0)
        for _ in range(4):  # enough for chains of 16, which are rare
            pointer = pointer.index_select(0, pointer)
        while not torch.equal(farther := pointer.index_select(0, pointer), pointer):
            pointer = farther
        source = source.index_select(0, pointer)
    return source
