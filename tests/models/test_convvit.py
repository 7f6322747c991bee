"""ConvMAE's encoder computes only visible cells, and gives what the dense definition gives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pixmim_eval.errors import InputError
from pixmim_eval.models.convvit import ConvArchitecture, ConvVisionTransformer, Places
from tests.references.convmae import ReferenceConvMAE, enlarge

SIZE, SIDE = 64, 4
SMALL = ConvArchitecture(strides=(4, 2, 2), dims=(8, 12, 24), depths=(1, 2, 2), heads=3)
FINE = ConvArchitecture(strides=(2, 2, 4), dims=(8, 12, 24), depths=(2, 1, 1), heads=2)


@pytest.fixture(autouse=True)
def _double_precision() -> object:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def make_reference(sizes: ConvArchitecture = SMALL, image_size: int = SIZE) -> ReferenceConvMAE:
    """The definition with every weight at random: initial zeros and ones would hide what is mixed up."""
    torch.manual_seed(0)
    model = ReferenceConvMAE(image_size, sizes.strides, sizes.dims, sizes.depths, sizes.heads, 16, 1, 2).double()
    with torch.no_grad():
        for key, value in model.named_parameters():
            if "pos_embed" not in key:
                value.copy_((1 if "norm" in key and "weight" in key else 0) + 0.2 * torch.randn_like(value))
    return model


def copy_encoder(
    reference: ReferenceConvMAE, sizes: ConvArchitecture = SMALL, *, fusion: bool = True
) -> ConvVisionTransformer:
    network = ConvVisionTransformer(reference.side * reference.patch, sizes, fusion=fusion).double()
    state = reference.state_dict()
    wanted = {key: value for key, value in state.items() if not key.startswith(("decoder", "mask"))}
    if not fusion:
        wanted = {key: value for key, value in wanted.items() if not key.startswith("stage")}
    network.load_state_dict(wanted, strict=True)
    return network


def draw_images(count: int = 2, height: int = SIZE, width: int = SIZE) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def draw_noise(count: int = 2, cells: int = SIDE * SIDE) -> Tensor:
    return torch.rand(count, cells, generator=torch.Generator().manual_seed(2))


def cover(visible: Tensor, cells: int = SIDE * SIDE) -> Tensor:
    """The mask [B, N] that leaves these cells: 1 where hidden."""
    return torch.ones(len(visible), cells).scatter(1, visible, 0)


def cut(images: Tensor, cell: int) -> Tensor:
    """A view of the pixels of one cell of the grid of 4 x 4."""
    top, left = cell // SIDE * 16, cell % SIDE * 16
    return images[:, :, top : top + 16, left : left + 16]


# --- equal to the definition ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [SMALL, FINE])
@pytest.mark.parametrize("fusion", [True, False])
def test_tokens_of_a_whole_image_are_those_of_the_definition(sizes: ConvArchitecture, fusion: bool) -> None:
    """With or without the fusion, which pretraining alone uses."""
    reference = make_reference(sizes)
    tokens = copy_encoder(reference, sizes, fusion=fusion).eval().tokens(draw_images())
    assert (tokens.cls, tokens.grid) == (None, (4, 4))
    torch.testing.assert_close(tokens.patches, reference.encode_all(draw_images()), rtol=0, atol=1e-10)


@pytest.mark.parametrize("sizes", [SMALL, FINE])
@pytest.mark.parametrize("ratio", [0.25, 0.75, 0.9])
def test_tokens_of_visible_cells_are_those_of_the_dense_masked_definition(
    sizes: ConvArchitecture, ratio: float
) -> None:
    reference, noise = make_reference(sizes), draw_noise()
    wanted = reference(draw_images(), noise, mask_ratio=ratio)
    visible = noise.argsort(dim=1)[:, : int(16 * (1 - ratio))]
    found = copy_encoder(reference, sizes)(draw_images(), visible)
    torch.testing.assert_close(found, wanted.latent, rtol=0, atol=1e-10)


def test_images_of_a_batch_do_not_see_each_other() -> None:
    network, images = copy_encoder(make_reference()), draw_images(3)
    visible = draw_noise(3).argsort(dim=1)[:, :5]
    together = network(images, visible)
    for row in range(3):
        alone = network(images[row : row + 1], visible[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone, rtol=0, atol=1e-12)


def test_gradients_are_those_of_the_definition() -> None:
    """Of every weight and every pixel, through masked convolutions and fusion."""
    reference, noise = make_reference(), draw_noise()
    network, visible = copy_encoder(reference), noise.argsort(dim=1)[:, :4]
    factor = torch.randn(2, 4, 24)
    ours, theirs = draw_images().requires_grad_(), draw_images().requires_grad_()
    (network(ours, visible) * factor).sum().backward()
    (reference(theirs, noise).latent * factor).sum().backward()
    assert ours.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-10)
    wanted = dict(reference.named_parameters())
    for key, value in network.named_parameters():
        assert value.grad is not None, key
        torch.testing.assert_close(value.grad, wanted[key].grad, rtol=1e-9, atol=1e-9, msg=key)


# --- masks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [4, 2])
def test_masks_are_enlarged_by_repetition(factor: int) -> None:
    """On the grids of stages 1 and 2 a cell is a square of 4 x 4 and of 2 x 2 positions."""
    visible = draw_noise().argsort(dim=1)[:, :6]
    places = Places(visible, (SIDE, SIDE), factor)
    ones = torch.ones(2 * 6, factor, factor, 3)
    assert torch.equal(places.spread(ones)[:, :1], 1 - enlarge(cover(visible), SIDE, factor))


def test_positions_go_to_the_grid_and_come_back() -> None:
    """The row of a cell's positions holds its square, line by line."""
    visible = torch.tensor([[5, 0], [3, 10]])
    places = Places(visible, (3, 4), 2)
    cells = torch.arange(2 * 2 * 2 * 2, dtype=torch.float64).reshape(4, 2, 2, 1)
    image = places.spread(cells)
    assert torch.equal(places.collect(image), cells)
    for batch in range(2):
        for order, cell in enumerate(visible[batch].tolist()):
            top, left = cell // 4 * 2, cell % 4 * 2
            assert torch.equal(image[batch, 0, top : top + 2, left : left + 2], cells[2 * batch + order, :, :, 0])
    assert (image != 0).sum() == 15  # all but the one value that is 0


def test_what_is_hidden_reaches_no_visible_token() -> None:
    """In the definition too: depth-wise convolutions read zeros there, and all else stays inside a cell."""
    reference, noise = make_reference(), draw_noise()
    network, visible = copy_encoder(reference), noise.argsort(dim=1)[:, :4]
    images, others = draw_images(), draw_images()
    hidden = cover(visible)
    for row in range(2):
        for cell in hidden[row].nonzero().flatten().tolist():
            cut(others[row : row + 1], cell).mul_(-3).add_(7)
    assert torch.equal(network(images, visible), network(others, visible))
    torch.testing.assert_close(reference(images, noise).latent, reference(others, noise).latent, rtol=0, atol=1e-12)
    pixels = images.requires_grad_()
    network(pixels, visible).square().sum().backward()
    assert pixels.grad is not None
    for row in range(2):
        for cell in range(16):
            assert cut(pixels.grad[row : row + 1], cell).any() == (not hidden[row, cell])


def test_convolutions_see_visible_neighbours_and_nothing_behind_hidden_ones() -> None:
    """Without transformer blocks a token depends on its own cell and on visible ones beside it."""
    sizes = ConvArchitecture(strides=(4, 2, 2), dims=(8, 12, 24), depths=(1, 1, 0), heads=3)
    network = copy_encoder(make_reference(sizes), sizes)
    visible = torch.tensor([[0, 1, 3]])  # cell 2, between 1 and 3, is hidden
    images, others = draw_images(1), draw_images(1)
    cut(others, 1).add_(1)
    change = (network(images, visible) - network(others, visible)).abs().amax(dim=2)[0]
    assert change[0] > 1e-6
    assert change[1] > 1e-6
    assert change[2] == 0
    everything = torch.tensor([[0, 1, 2, 3]])
    change = (network(images, everything) - network(others, everything)).abs().amax(dim=2)[0]
    assert change[2] > 1e-6


def test_a_hidden_margin_is_the_same_as_the_end_of_the_image() -> None:
    """Both are zeros to a convolution; the grid need not be square."""
    network = copy_encoder(make_reference())
    network.pos_embed.zero_()
    wide = draw_images(1, SIZE, 96)
    left = torch.tensor([[row * 6 + column for row in range(4) for column in range(4)]])
    found = network(wide, left)
    wanted = network(wide[:, :, :, :SIZE])
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


# --- other sizes ------------------------------------------------------------------------------------------------------


def test_positions_are_interpolated_to_other_sizes() -> None:
    """Bicubic, as MAE's fine-tuning does it: the definition at the other size, with the same weights and that table."""
    reference, larger = make_reference(), make_reference(image_size=96)
    grid = reference.pos_embed.transpose(1, 2).reshape(1, 24, 4, 4)
    table = nn.functional.interpolate(grid, (6, 6), mode="bicubic").flatten(2).transpose(1, 2)
    larger.load_state_dict(reference.state_dict() | {"pos_embed": table, "decoder_pos_embed": larger.decoder_pos_embed})
    tokens = copy_encoder(reference).tokens(draw_images(1, 96, 96))
    assert tokens.grid == (6, 6)
    torch.testing.assert_close(tokens.patches, larger.encode_all(draw_images(1, 96, 96)), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("image_size", "change", "message"),
    [
        (72, {}, r"expected a multiple of the patch size 16, found 72 .* Take 64\."),
        (8, {}, r"found 8 .* Take 16\."),
        (64, {"heads": 5}, "found width 24, 5 heads"),
        (64, {"dims": (8, 12, 30)}, "found width 30, 3 heads"),
    ],
)
def test_sizes_that_do_not_divide_are_named(image_size: int, change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ConvVisionTransformer(image_size, ConvArchitecture(**(vars(SMALL) | change)))  # type: ignore[arg-type]
