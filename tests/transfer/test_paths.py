"""Stochastic depth: timm's places and rates, and decisions that belong to an image."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.layers import DropPath
from torch import nn

from pixmim_eval.errors import InputError
from pixmim_eval.transfer.paths import CALLS, RowDropPath, place_paths
from tests.transfer.encoders import CONVVIT, make_convvit, make_vit


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_convnext", "swin_tiny_patch4_window7_224"])
def test_timm_models_get_the_rates_that_timm_gives_them(name: str) -> None:
    theirs = timm.create_model(name, drop_path_rate=0.3)
    wanted = {key: module.drop_prob for key, module in theirs.named_modules() if isinstance(module, DropPath)}
    network = timm.create_model(name)
    place_paths(network, 0.3)
    ours = {key: module.rate for key, module in network.named_modules() if isinstance(module, RowDropPath)}
    assert {key: rate for key, rate in ours.items() if rate} == pytest.approx(wanted)
    assert wanted


@pytest.mark.parametrize(("model", "depth"), [(make_vit(), 3), (make_convvit(), sum(CONVVIT.depths))])
def test_our_blocks_drop_both_branches_at_a_rate_linear_in_depth(model: object, depth: int) -> None:
    paths = place_paths(model.encoder, 0.2)  # type: ignore[attr-defined]
    rates = [0.2 * block / (depth - 1) for block in range(depth) for _ in range(2)]
    assert [path.rate for path in paths] == pytest.approx(rates)


def test_a_dropped_image_skips_the_branch_and_the_others_are_scaled() -> None:
    path = RowDropPath(0.25).train()
    numbers = torch.rand(4000, CALLS)
    path.begin(numbers)
    branch = torch.randn(8000, 3)  # two rows an image
    found = path(branch)
    kept = (numbers[:, 0] >= 0.25).repeat_interleave(2)[:, None]
    torch.testing.assert_close(found, torch.where(kept, branch / 0.75, 0.0))
    assert float(kept.float().mean()) == pytest.approx(0.75, abs=0.03)
    again = path(branch)  # a second branch of the same block decides anew
    assert not torch.equal(found == 0, again == 0)
    assert torch.equal(path.eval()(branch), branch)


@pytest.mark.parametrize("make", [make_vit, make_convvit])
def test_what_an_image_skips_does_not_depend_on_its_batch(make: object) -> None:
    model = make()  # type: ignore[operator]
    paths = place_paths(model.encoder, 0.5)
    model.encoder.train()
    images, numbers = torch.randn(6, 3, 16, 16), torch.rand(6, len(paths) * CALLS)

    def run(rows: slice) -> torch.Tensor:
        for place, path in enumerate(paths):
            path.begin(numbers[rows, place * CALLS : (place + 1) * CALLS])
        return model.encoder.tokens(images[rows]).patches

    whole = run(slice(None))
    torch.testing.assert_close(whole[2:5], run(slice(2, 5)))
    model.encoder.eval()
    assert not torch.allclose(whole, run(slice(None)))


def test_a_rate_of_zero_leaves_the_network_as_it_is() -> None:
    network = make_vit().encoder
    before = repr(network)
    assert place_paths(network, 0.0) == []
    assert repr(network) == before


def test_a_network_without_residual_branches_says_so() -> None:
    with pytest.raises(InputError, match="Give --drop-path 0"):
        place_paths(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), 0.1)
