from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor


@pytest.fixture(scope="session")
def make_images() -> Callable[..., Tensor]:
    """Images uint8 [count, 3, height, width] with gradients, edges, texture, white, black and grey."""

    def make(count: int, height: int, width: int) -> Tensor:
        random = np.random.default_rng(count * height * width)
        waves = random.normal(size=(count, 3, 4, 4)).repeat(-(-height // 4), 2).repeat(-(-width // 4), 3)
        slope = np.linspace(-60, 60, height)[:, None] + np.linspace(-40, 40, width)
        levels = 128 + 60 * waves[:, :, :height, :width] + slope + random.normal(size=(count, 3, height, width)) * 12
        levels[:, :, : height // 4, : width // 4] = 255
        levels[:, :, -height // 4 :, : width // 4] = 0
        levels[:, :, : height // 4, -width // 4 :] = levels[:, :1, : height // 4, -width // 4 :]
        return torch.from_numpy(levels.clip(0, 255).astype(np.uint8))

    return make
