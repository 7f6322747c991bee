"""Glass blur against the published loop, which visits one pixel after the other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from torch import Tensor

from pixmim_eval.corruptions import PARAMETER_SETS, glass
from pixmim_eval.seeds import generators

Maker = Callable[..., Tensor]


def exchange_plainly(image: np.ndarray, moves: np.ndarray, reach: int) -> None:
    """The published loop on an image [H, W, 3], with its moves given as steps in the flattened image."""
    height, width = image.shape[:2]
    for h in range(height - reach, reach, -1):
        for w in range(width - reach, reach, -1):
            # The middle of the table keeps |across| <= width / 2, so that a step has one reading.
            down = round(moves[h - reach - 1, w - reach - 1] / width)
            across = moves[h - reach - 1, w - reach - 1] - down * width
            x, y = h + down, w + across
            image[h, w], image[x, y] = image[x, y], image[h, w]  # pixels are views: this copies


def blur_plainly(image: np.ndarray, deviation: float) -> np.ndarray:
    return ndimage.gaussian_filter(image / 255.0, (deviation, deviation, 0), mode="nearest", truncate=4.0)


@pytest.mark.parametrize("size", [(224, 224), (40, 25), (10, 12), (9, 9), (8, 30), (3, 5)])
@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_chains_of_copies_equal_the_loop_to_the_bit(severity: int, size: tuple[int, int], make_images: Maker) -> None:
    _, reach, _ = glass.GLASS_BLUR["imagenet-c"][severity - 1]
    image = make_images(1, *size)[0].permute(1, 2, 0).contiguous().numpy()
    moves = glass.draw_moves(*size, reach, torch.Generator().manual_seed(severity))
    source = glass.follow_copies(moves, *size, reach).numpy()
    expected = image.copy()
    exchange_plainly(expected, moves.numpy(), reach)
    assert np.array_equal(image.reshape(-1, 3)[source].reshape(image.shape), expected)


def test_the_loop_copies_and_does_not_exchange() -> None:
    image = np.arange(6).reshape(1, 2, 3)
    image[0, 0], image[0, 1] = image[0, 1], image[0, 0]
    assert image.tolist() == [[[3, 4, 5], [3, 4, 5]]]


def test_copies_all_from_the_right_end_at_the_last_column() -> None:
    """The longest chains there can be."""
    moves = torch.ones(36, 36, dtype=torch.int32)
    source = glass.follow_copies(moves, 40, 40, 2).view(40, 40)
    assert (source[3:39, 3:] == torch.arange(3, 39)[:, None] * 40 + 39).all()
    assert torch.equal(source[:, :3], torch.arange(1600, dtype=torch.int32).view(40, 40)[:, :3])


@pytest.mark.parametrize("reach", [1, 2, 3, 4])
def test_moves_are_uniform_and_independent(reach: int) -> None:
    moves = glass.draw_moves(300, 300, reach, torch.Generator().manual_seed(reach)).numpy()
    assert moves.shape == (300 - 2 * reach, 300 - 2 * reach)
    down = np.rint(moves / 300).astype(int)
    across = moves - 300 * down
    assert {down.min(), across.min()} == {-reach} and {down.max(), across.max()} == {reach - 1}
    counts = np.unique(moves, return_counts=True)[1]
    assert len(counts) == (2 * reach) ** 2
    assert stats.chisquare(counts).pvalue > 1e-3
    for first, second in ((moves[:, 1:], moves[:, :-1]), (moves[1:], moves[:-1])):
        assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.015


@pytest.mark.parametrize(
    ("parameters", "size"), [("imagenet-c", (100, 80)), ("tiny-imagenet-c", (64, 64)), ("cifar-c", (32, 32))]
)
@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_glass_blur_equals_the_published_function(
    severity: int, parameters: str, size: tuple[int, int], make_images: Maker
) -> None:
    assert set(glass.GLASS_BLUR) == set(PARAMETER_SETS)
    deviation, reach, rounds = glass.GLASS_BLUR[parameters][severity - 1]
    images = make_images(2, *size)
    result = glass.glass_blur(images, (deviation, reach, rounds), generators(3, torch.tensor([5, 6])))
    plain = images.permute(0, 2, 3, 1).numpy()
    for row, generator in enumerate(generators(3, torch.tensor([5, 6]))):
        image = np.uint8(blur_plainly(plain[row], deviation) * 255 + 1e-9)
        for _ in range(rounds):
            exchange_plainly(image, glass.draw_moves(*size, reach, generator).numpy(), reach)
        exact = np.clip(blur_plainly(image, deviation), 0, 1) * 255
        difference = np.abs(result[row].permute(1, 2, 0).numpy().astype(int) - np.uint8(exact + 1e-9))
        assert difference.max() <= 1
        # The narrowest blurs leave most values within a thousandth of a whole level: either may be one lower.
        assert difference.mean() <= (0.06 if deviation < 0.5 else 0.02)
