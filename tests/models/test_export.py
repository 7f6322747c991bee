"""Exports load in the code they are for, compute the same there, and come back to the bit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer as TimmViT
from torch import Tensor

from pixmim_eval.errors import InputError
from pixmim_eval.models.checkpoints import load, ours
from pixmim_eval.models.checkpoints.export import EXPORTS, export_checkpoint
from pixmim_eval.models.vit import Architecture
from tests.references.mae import ReferenceMAE

TINY = Architecture(patch=8, dim=48, depth=3, heads=3)
RECIPE = {"decoder_heads": 2, "normalise_target": True, "mask_ratio": 0.75}
FILES = {name: "out.safetensors" if name == "timm" else "out.pth" for name in EXPORTS} | {"transformers": "out"}


@pytest.fixture(scope="module")
def reference() -> ReferenceMAE:
    torch.manual_seed(0)
    model = ReferenceMAE(64, 8, 48, 3, 3, 32, 2, 2)
    for key, value in model.state_dict().items():
        if "norm" in key or key.endswith("bias"):
            value.add_(0.1 * torch.randn_like(value))
    return model


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def write(path: Path, tensors: dict[str, Tensor], recipe: dict[str, Any] = RECIPE, **more: Any) -> Path:
    settings = {"architecture": TINY, "image_size": 64, "method": "mae", "epoch": 3, "recipe": recipe}
    ours.write(path, tensors, **settings, **more)
    return path


def find(out: Path) -> Path:
    return out / "model.safetensors" if out.is_dir() else out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", EXPORTS)
def test_export_and_import_give_every_bit_back(
    tmp_path: Path, reference: ReferenceMAE, layout: str, dtype: torch.dtype
) -> None:
    tensors = dict(reference.state_dict())
    path = write(tmp_path / "x.safetensors", tensors, dtype=dtype)
    uses = export_checkpoint(path, layout, tmp_path / FILES[layout])
    before, after = load(path), load(find(tmp_path / FILES[layout]), arch=TINY)
    assert after.format == ("mmpretrain" if layout == "mmseg" else layout)
    assert all(
        torch.equal(value, before.encoder.state_dict()[key]) for key, value in after.encoder.state_dict().items()
    )
    if layout in ("transformers", "mmpretrain"):
        assert after.decoder.keys() == before.decoder.keys()
        assert all(torch.equal(value, before.decoder[key]) for key, value in after.decoder.items())
    else:
        assert not after.decoder
        left = [use for use in uses if use.use == "unused"]
        assert {use.key for use in left} == before.decoder.keys()
        assert all("no decoder" in use.reason for use in left)


def test_a_timm_vit_loads_the_export_and_gives_our_tokens(
    tmp_path: Path, reference: ReferenceMAE, images: Tensor
) -> None:
    path = write(tmp_path / "x.safetensors", dict(reference.state_dict()))
    export_checkpoint(path, "timm", tmp_path / "timm.safetensors")
    network = TimmViT(img_size=64, patch_size=8, embed_dim=48, depth=3, num_heads=3, num_classes=0).eval()
    network.load_state_dict(load_file(tmp_path / "timm.safetensors"), strict=True)
    torch.testing.assert_close(network.forward_features(images), load(path).encoder(images), rtol=0, atol=1e-5)


def test_transformers_loads_the_export_whole_and_gives_our_tokens_and_predictions(
    tmp_path: Path, reference: ReferenceMAE, images: Tensor
) -> None:
    transformers = pytest.importorskip("transformers")
    path = write(tmp_path / "x.safetensors", dict(reference.state_dict()))
    export_checkpoint(path, "transformers", tmp_path / "full")
    network, info = transformers.ViTMAEForPreTraining.from_pretrained(tmp_path / "full", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert network.config.norm_pix_loss is True
    noise = torch.rand(2, 64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        output = network.eval()(images, noise=noise)
        latent = reference.encode(images, noise.argsort(dim=1)[:, :16])
    encoder = load(path).encoder
    torch.testing.assert_close(encoder(images, noise.argsort(dim=1)[:, :16]), latent, rtol=0, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(network.vit(images, noise=noise).last_hidden_state, latent, rtol=0, atol=1e-5)
    assert output.logits.shape == (2, 64, 192)

    bare = {key: value for key, value in reference.state_dict().items() if not re.match("decoder|mask", key)}
    export_checkpoint(write(tmp_path / "y.safetensors", bare), "transformers", tmp_path / "encoder")
    _, info = transformers.ViTMAEModel.from_pretrained(tmp_path / "encoder", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))


def test_a_classifier_of_the_class_token_becomes_transformers_own(tmp_path: Path, images: Tensor) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    source = TimmViT(img_size=64, patch_size=8, embed_dim=48, depth=3, num_heads=3, num_classes=7).eval()
    export_checkpoint(write(tmp_path / "x.safetensors", dict(source.state_dict())), "transformers", tmp_path / "out")
    network = transformers.ViTForImageClassification.from_pretrained(tmp_path / "out").eval()
    torch.testing.assert_close(network(images).logits, source(images), rtol=0, atol=1e-5)


def test_the_published_converter_of_mmselfsup_reads_the_export(tmp_path: Path, reference: ReferenceMAE) -> None:
    """Its six replacements, in its order, from mmcls's names to timm's."""
    export_checkpoint(write(tmp_path / "x.safetensors", dict(reference.state_dict())), "mmpretrain", tmp_path / "x.pth")
    state = torch.load(tmp_path / "x.pth", weights_only=True)["state_dict"]
    found = {key.removeprefix("backbone."): value for key, value in state.items() if key.startswith("backbone.")}
    steps = [("projection", "proj"), ("ffn.layers.0.0", "mlp.fc1"), ("ffn.layers.1", "mlp.fc2")]
    for old, new in (*steps, ("layers", "blocks"), ("ln", "norm")):
        found = {key.replace(old, new): value for key, value in found.items()}
    found = {re.sub("^norm1", "norm", key): value for key, value in found.items()}
    wanted = {key: value for key, value in reference.state_dict().items() if not re.match("decoder|mask", key)}
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], value) for key, value in wanted.items())


def test_detectron2_and_mmseg_get_the_names_of_their_modules(tmp_path: Path, reference: ReferenceMAE) -> None:
    path = write(tmp_path / "x.safetensors", dict(reference.state_dict()))
    export_checkpoint(path, "detectron2", tmp_path / "d.pth")
    export_checkpoint(path, "mmseg", tmp_path / "m.pth")
    net = torch.load(tmp_path / "d.pth", weights_only=True)["model"]
    assert {key for key in net if ".blocks." not in key} == {
        *(f"backbone.net.{key}" for key in ("cls_token", "pos_embed", "norm.weight", "norm.bias")),
        *("backbone.net.patch_embed.proj.weight", "backbone.net.patch_embed.proj.bias"),
    }
    parts = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    assert {key for key in net if ".blocks.2." in key} == {
        f"backbone.net.blocks.2.{part}.{kind}" for part in parts for kind in ("weight", "bias")
    }
    backbone = torch.load(tmp_path / "m.pth", weights_only=True)["state_dict"]
    parts = ("ln1", "attn.qkv", "attn.proj", "ln2", "ffn.layers.0.0", "ffn.layers.1")
    assert {key for key in backbone if key.startswith("layers.0.")} == {
        f"layers.0.{part}.{kind}" for part in parts for kind in ("weight", "bias")
    }
    assert {"ln1.weight", "patch_embed.projection.weight", "pos_embed"} <= backbone.keys()


def test_layer_scale_goes_where_it_has_a_place_and_nowhere_else(tmp_path: Path) -> None:
    network = TimmViT(64, 8, embed_dim=48, depth=3, num_heads=3, num_classes=5, init_values=0.1, no_embed_class=True)
    path = write(tmp_path / "x.safetensors", dict(network.state_dict()))
    for layout in ("timm", "mmpretrain"):
        export_checkpoint(path, layout, tmp_path / "out.pth")
        after = load(tmp_path / "out.pth", arch=TINY)
        assert torch.equal(after.encoder.blocks[0].ls1.gamma, network.blocks[0].ls1.gamma)
        assert after.classifier is not None
    for layout in ("transformers", "detectron2"):
        with pytest.raises(InputError, match=r"found blocks\.0\.ls1\.gamma, which it has no place for"):
            export_checkpoint(path, layout, tmp_path / "other")


def test_half_a_classifier_is_not_exported(tmp_path: Path) -> None:
    """A batch norm that timm has no place for takes the linear layer behind it along."""
    network = TimmViT(img_size=64, patch_size=8, embed_dim=48, depth=3, num_heads=3, num_classes=5)
    state = dict(network.state_dict()) | {
        "head_norm.running_mean": torch.zeros(48),
        "head_norm.running_var": torch.ones(48),
        "head_norm.num_batches_tracked": torch.tensor(1),
    }
    uses = export_checkpoint(write(tmp_path / "x.safetensors", state), "timm", tmp_path / "out.safetensors")
    assert {use.key for use in uses if use.use == "unused"} == {key for key in state if key.startswith("head")}
    assert load(tmp_path / "out.safetensors", arch=TINY).classifier is None


def test_what_cannot_be_written_is_said(tmp_path: Path, reference: ReferenceMAE) -> None:
    path = write(tmp_path / "x.safetensors", dict(reference.state_dict()), recipe={})
    with pytest.raises(InputError, match=r"expected one of timm, transformers, .* found 'keras'"):
        export_checkpoint(path, "keras", tmp_path / "out")
    with pytest.raises(InputError, match=r"expected a \.pth file"):
        export_checkpoint(path, "detectron2", tmp_path / "out.safetensors")
    with pytest.raises(InputError, match="no number of heads"):  # of the decoder: the recipe does not tell
        export_checkpoint(path, "transformers", tmp_path / "out")
    assert not (tmp_path / "out").exists()
