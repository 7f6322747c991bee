"""Loading public code: a stand-in for a checkout, written for these tests in the dialect of the public repositories."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.references.public_code import load_public, run_public, write_attention_out

MODEL = """
import numpy as np
import torch
from timm.models.vision_transformer import Block
from util.scale import scale

class Model(torch.nn.Module):
    def __init__(self, norm_pix_loss, **settings):
        super().__init__()
        self.block = Block(8, 2, 4.0, qkv_bias=True, qk_scale=None)
        self.factor = np.arange(1, 2, dtype=np.float)[0] * scale()
        self.norm_pix_loss, self.settings = norm_pix_loss, settings

    def forward(self, images, ids_keep=None, ids_restore=None):
        if ids_keep is None:
            return torch.rand(len(images), 4).sum() * self.factor, None, None
        return ids_keep, ids_restore, None

def {function}(**settings):
    return Model(**settings)
"""


def write_checkout(folder: Path, module: str, function: str, factor: int = 3) -> Path:
    (folder / "util").mkdir(parents=True)
    (folder / "util" / "scale.py").write_text(f"def scale():\n    return {factor}\n")
    (folder / f"{module}.py").write_text(MODEL.replace("{function}", function))
    return folder


def test_old_code_runs_and_draws_our_noise(tmp_path: Path) -> None:
    folder = write_checkout(tmp_path, "models_mae", "mae_vit_base_patch16")
    model = load_public("mae", folder, normalise_target=False)
    noise = torch.tensor([[0.5, 0.25, 0.125, 0.0]])
    loss, _, _ = run_public("mae", model, torch.zeros(1, 3, 8, 8), noise)
    assert loss.item() == 3 * 0.875
    assert model.norm_pix_loss is False
    assert torch.rand(1, 4).shape == (1, 4)  # the generator is itself again
    assert not hasattr(np, "float")


def test_repositories_with_the_same_names_of_modules_do_not_mix(tmp_path: Path) -> None:
    first = load_public("mae", write_checkout(tmp_path / "one", "models_mae", "mae_vit_base_patch16", factor=1))
    second = load_public("convmae", write_checkout(tmp_path / "two", "models_convmae", "convmae_convvit_base_patch16"))
    assert (first.factor, second.factor) == (1, 3)
    assert not {"models_mae", "models_convmae", "util.scale"} & sys.modules.keys()
    assert not any(str(tmp_path) in entry for entry in sys.path)


def test_long_sequences_get_the_shuffle_of_whole_units(tmp_path: Path) -> None:
    model = load_public("lsmae", write_checkout(tmp_path, "models_mae", "mae_vit_base_patch16_dec384d12h8b"))
    assert model.settings["img_size"] == 448
    noise = torch.rand(2, 196, generator=torch.Generator().manual_seed(0))
    keep, restore, _ = run_public("lsmae", model, torch.zeros(2, 3, 448, 448), noise)
    assert keep.shape == (2, 196)
    row, column = divmod(int(noise[0].argmin()), 14)
    corner = 2 * row * 28 + 2 * column
    assert keep[0, :4].tolist() == [corner, corner + 28, corner + 1, corner + 29]  # column by column
    assert torch.equal(restore.gather(1, keep), torch.arange(196).expand(2, -1))


def test_attention_written_out_is_the_same_function(tmp_path: Path) -> None:
    model = load_public("mae", write_checkout(tmp_path, "models_mae", "mae_vit_base_patch16"))
    tokens = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        fused = model.block(tokens)
        torch.testing.assert_close(write_attention_out(model).block(tokens), fused, rtol=0, atol=1e-6)
    assert not model.block.attn.fused_attn


def test_another_folder_is_an_error_that_names_the_repository(tmp_path: Path) -> None:
    with pytest.raises(ImportError, match="facebookresearch/mae"):
        load_public("mae", tmp_path)
