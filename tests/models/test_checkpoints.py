"""Checkpoints open by their keys, execute nothing, and every fault is named."""

from __future__ import annotations

import argparse
import collections
from pathlib import Path

import numpy as np
import pytest
import torch

from pixmim_eval.errors import InputError
from pixmim_eval.models.checkpoints import load, ours
from pixmim_eval.models.checkpoints.building import Geometry, infer_heads
from pixmim_eval.models.checkpoints.reading import digest_tensors, find_tensors, read_checkpoint
from pixmim_eval.models.vit import Architecture
from tests.references.mae import ReferenceMAE

TINY = Architecture(patch=8, dim=48, depth=3, heads=3)


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return dict(ReferenceMAE(64, 8, 48, 3, 3, 32, 2, 2).state_dict())


def save_official(path: Path, tensors: dict[str, torch.Tensor], **more: object) -> Path:
    arguments = argparse.Namespace(norm_pix_loss=True, mask_ratio=0.75)
    torch.save({"model": tensors, "epoch": 7, "args": arguments, **more}, path)
    return path


def test_an_official_checkpoint_gives_its_encoder(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    checkpoint = load(save_official(tmp_path / "mae.pth", tensors), arch=TINY)
    assert (checkpoint.format, checkpoint.image_size, checkpoint.epoch) == ("mae", 64, 8)
    assert checkpoint.normalised_target is True
    assert "decoder_pred.weight" in checkpoint.decoder
    assert all(torch.equal(value, tensors[key]) for key, value in checkpoint.encoder.state_dict().items())


def test_the_golden_checkpoint_gives_the_public_tokens(shared_data: Path) -> None:
    checkpoint = load(shared_data / "golden" / "mae_tiny_full.pth", arch=TINY)
    with np.load(shared_data / "golden" / "mae_expected.npz") as golden:
        tokens = checkpoint.encoder(torch.from_numpy(golden["images"]))
        np.testing.assert_allclose(tokens, golden["tokens_after_norm"], rtol=0, atol=1e-4)


def test_published_sizes_need_no_architecture(tmp_path: Path) -> None:
    with torch.device("meta"):
        shapes = ReferenceMAE(32, 16, 192, 12, 3, 32, 1, 2).state_dict()
    weights = {key: torch.zeros(value.shape) for key, value in shapes.items()}
    assert load(save_official(tmp_path / "ti16.pth", weights)).architecture == Architecture(16, 192, 12, 3)
    sizes = [((768,), (12,)), ((1024,), (24,)), ((1280,), (32,)), ((256, 384, 768), (2, 2, 11)), ((48,), (3,))]
    assert [infer_heads(Geometry((16,), *size, 14, True)) for size in sizes] == [12, 16, 16, 12, None]


def test_our_checkpoints_come_back_whole(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "epoch-0003.safetensors"
    recipe = {"normalise_target": False, "radius": 11.4}
    settings = {"architecture": TINY, "image_size": 64, "method": "pixmim-mae", "epoch": 3, "recipe": recipe}
    ours.write(path, tensors, **settings)  # type: ignore[arg-type]
    checkpoint = load(path)
    assert (checkpoint.method, checkpoint.epoch, checkpoint.architecture) == ("pixmim-mae", 3, TINY)
    assert checkpoint.normalised_target is False
    assert checkpoint.digest == digest_tensors(tensors)
    assert all(torch.equal(value, tensors[key]) for key, value in checkpoint.encoder.state_dict().items())
    with pytest.raises(InputError, match=r"expected Architecture.*dim=64"):
        load(path, arch=Architecture(8, 64, 3, 4))


def test_half_precision_weights_are_computed_in_float32(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "half.safetensors"
    settings = {"architecture": TINY, "image_size": 64, "method": "mae", "epoch": 1, "recipe": {}}
    ours.write(path, tensors, dtype=torch.float16, **settings)  # type: ignore[arg-type]
    encoder = load(path).encoder
    assert {value.dtype for value in encoder.state_dict().values()} == {torch.float32}
    torch.testing.assert_close(encoder.norm.weight, tensors["norm.weight"].half().float())


def test_parameters_with_attributes_and_default_dicts_are_read(tmp_path: Path) -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    parameter.note = "kept by torch.save"  # type: ignore[attr-defined]
    tensors = collections.defaultdict(list, {"weight": parameter, "buffer": torch.zeros(2, dtype=torch.float8_e5m2)})
    torch.save({"state_dict": tensors, "range": range(3), "get": getattr}, tmp_path / "x.pth")
    found = find_tensors(read_checkpoint(tmp_path / "x.pth")[0])
    assert set(found) == {"weight", "buffer"}
    assert torch.equal(found["weight"], torch.ones(3))


def test_a_vit_with_learned_positions_is_not_called_mae(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    assert load(save_official(tmp_path / "mae.pth", tensors), arch=TINY).method == "mae"
    learned = tensors | {"pos_embed": torch.randn(1, 65, 48)}
    assert load(save_official(tmp_path / "whole.pth", learned), arch=TINY).method == "mae"  # what else has a decoder
    bare = {key: value for key, value in learned.items() if not key.startswith(("decoder", "mask"))}
    assert load(save_official(tmp_path / "dino.pth", bare), arch=TINY).method == "vit"


def test_objects_of_unknown_classes_are_inert(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    path = save_official(tmp_path / "mae.pth", tensors, scale=np.float64(3.0), where=Path("somewhere"))
    content, _ = read_checkpoint(path)
    assert type(content["args"]).__name__ == "Namespace"
    assert not isinstance(content["args"], argparse.Namespace)
    assert content["args"].mask_ratio == 0.75


def test_another_architecture_is_named_by_its_first_keys(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    path = save_official(tmp_path / "mae.pth", tensors)
    with pytest.raises(InputError, match=r"cls_token \(1, 1, 48\) instead of \(1, 1, 64\).* and \d+ more"):
        load(path, arch=Architecture(8, 64, 3, 4))
    tensors = {key: value for key, value in tensors.items() if key != "blocks.1.norm1.weight"}
    with pytest.raises(InputError, match=r"blocks\.1\.norm1\.weight missing"):
        load(save_official(path, tensors), arch=TINY)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {"conv.weight": torch.zeros(1)}}, r"known format .* found conv\.weight"),
        ({"epoch": 3}, "no tensors"),
        (torch.zeros(2), "expected a dict of tensors, found Tensor"),
    ],
)
def test_a_foreign_file_is_refused(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(InputError, match=message):
        load(tmp_path / "x.pth")


def test_the_number_of_heads_is_asked_for_where_nothing_tells_it(
    tmp_path: Path, tensors: dict[str, torch.Tensor]
) -> None:
    with pytest.raises(InputError, match="keys do not tell the number of heads"):
        load(save_official(tmp_path / "mae.pth", tensors))


def test_an_absent_file_names_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "epoch-0010.safetensors").touch()
    with pytest.raises(InputError, match=r"no such file .*epoch-0010\.safetensors"):
        load(tmp_path / "epoch-0001.safetensors")
