"""timm networks of convolutions: faster, and still the network that timm made."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from pixmim_eval.models.timm_models import _fold_norms


def make_network(name: str) -> nn.Module:
    """A network with random statistics, which a wrong fold would not survive."""
    torch.manual_seed(0)
    network = timm.create_model(name).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.weight, mean=1.0, std=0.2)
            nn.init.normal_(module.bias, std=0.2)
    return network


def count_norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize(
    ("name", "left"), [("tf_efficientnet_lite0", 0), ("resnet18", 0), ("densenet121", 62), ("vit_tiny_patch16_224", 0)]
)
def test_folding_norms_into_convolutions_changes_no_output(name: str, left: int) -> None:
    network = make_network(name)
    before = count_norms(network)
    folded = _fold_norms(network, 64 if "vit" not in name else 224)
    images = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(folded(images), network(images), rtol=1e-4, atol=1e-4)
    assert count_norms(folded) == left and count_norms(network) == before


class Residual(nn.Module):
    """A convolution that is read twice: with and without the norm."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.norm.running_mean.fill_(0.7)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.convolution(images)
        return (features + self.norm(features)).mean(dim=(2, 3))


def test_a_convolution_that_something_else_reads_is_left_alone() -> None:
    network = Residual().eval()
    assert _fold_norms(network, 16) is network
