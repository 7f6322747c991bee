"""Exports load in the code they are for, compute the same there, and come back to the bit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer as TimmViT
from torch import Tensor

from pixmim_eval.errors import InputError
from pixmim_eval.models.checkpoints import load, ours
from pixmim_eval.models.checkpoints.export import EXPORTS, export_checkpoint
from pixmim_eval.models.convvit import ConvArchitecture, ConvVisionTransformer
from pixmim_eval.models.vit import Architecture
from pixmim_eval.run import main
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
    export = export_checkpoint(path, layout, tmp_path / FILES[layout])
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
        left = [use for use in export.keys if use.use == "unused"]
        assert {use.key for use in left} == before.decoder.keys()
        assert all("no decoder" in use.reason for use in left)


def make_public_file(path: Path, kind: str, tensors: dict[str, Tensor]) -> Path:
    """A file of another public code base, in its own names."""
    encoder = {key: value for key, value in tensors.items() if not re.match("decoder|mask", key)}
    head = {"head.weight": torch.randn(7, 48), "head.bias": torch.randn(7)}
    mean = {"fc_norm.weight": torch.randn(48), "fc_norm.bias": torch.randn(48)}
    batch = {"head.0.running_mean": torch.randn(48), "head.0.running_var": torch.rand(48)}
    scales = {f"blocks.{block}.gamma_{number}": torch.randn(48) for block in range(3) for number in (1, 2)}
    biases = {key: value.chunk(3) for key, value in tensors.items() if key.endswith("qkv.bias")}
    files: dict[str, dict[str, Tensor]] = {
        "lsmae": {key: value for key, value in tensors.items() if key not in biases}
        | {key.replace("qkv", "q_"): thirds[0] for key, thirds in biases.items()}
        | {key.replace("qkv", "v_"): thirds[2] for key, thirds in biases.items()},
        "fine-tuned": {key: value for key, value in encoder.items() if not key.startswith("norm")} | mean | head,
        "probed": encoder
        | {f"head.1.{key[5:]}": value for key, value in head.items()}
        | batch
        | {"head.0.num_batches_tracked": torch.tensor(3)},
        "deit3": encoder | scales | head | {"pos_embed": tensors["pos_embed"][:, 1:]},
    }
    state = {key.replace("q_.bias", "q_bias").replace("v_.bias", "v_bias"): v for key, v in files[kind].items()}
    torch.save({"model": {key: value.clone() for key, value in state.items()}}, path)
    return path


@pytest.mark.parametrize(
    ("kind", "layouts", "with_classifier"),
    [
        ("lsmae", "timm mmpretrain mmseg detectron2", ""),
        ("fine-tuned", "timm mmpretrain mmseg detectron2", "timm mmpretrain"),
        ("probed", "timm mmpretrain mmseg detectron2", "mmpretrain"),
        ("deit3", "timm mmpretrain mmseg", "timm mmpretrain"),
    ],
)
def test_public_files_keep_every_bit_on_the_way_through_a_layout(
    tmp_path: Path, reference: ReferenceMAE, kind: str, layouts: str, with_classifier: str
) -> None:
    path = make_public_file(tmp_path / "x.pth", kind, dict(reference.state_dict()))
    before = load(path, arch=TINY)
    for layout in layouts.split():
        export_checkpoint(path, layout, tmp_path / f"{layout}.pth")
        after = load(tmp_path / f"{layout}.pth", arch=TINY)
        assert after.encoder.state_dict().keys() == before.encoder.state_dict().keys()
        assert all(torch.equal(v, before.encoder.state_dict()[key]) for key, v in after.encoder.state_dict().items())
        assert (after.classifier is not None) == (layout in with_classifier.split())
        if after.classifier is not None:
            assert before.classifier is not None
            assert after.classifier.pooling == before.classifier.pooling
            wanted = before.classifier.state_dict()
            assert all(torch.equal(value, wanted[key]) for key, value in after.classifier.state_dict().items())
        if kind == "lsmae" and layout == "mmpretrain":
            assert all(torch.equal(value, before.decoder[key]) for key, value in after.decoder.items())


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
    for layout in ("timm", "mmpretrain", "mmseg"):
        export_checkpoint(path, layout, tmp_path / f"{layout}.pth")
        after = load(tmp_path / f"{layout}.pth", arch=TINY)
        assert torch.equal(after.encoder.blocks[0].ls1.gamma, network.blocks[0].ls1.gamma)
        assert torch.equal(after.encoder.pos_embed, load(path).encoder.pos_embed)
        assert (after.classifier is None) == (layout == "mmseg")
    state = torch.load(tmp_path / "mmseg.pth", weights_only=True)["state_dict"]
    assert {"layers.2.gamma_1", "layers.2.gamma_2"} <= state.keys()  # parameters of mmseg's block itself
    assert state["pos_embed"].shape == (1, 65, 48)  # which mmseg's MAE always has a row for the class token in
    state = torch.load(tmp_path / "mmpretrain.pth", weights_only=True)["state_dict"]
    assert {"backbone.layers.2.attn.gamma1.weight", "backbone.layers.2.ffn.gamma2.weight"} <= state.keys()
    assert "head.layers.head.weight" in state  # of its head on the class token
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
    export = export_checkpoint(write(tmp_path / "x.safetensors", state), "timm", tmp_path / "out.safetensors")
    assert {use.key for use in export.keys if use.use == "unused"} == {key for key in state if key.startswith("head")}
    assert "num_classes=0" in export.loading
    assert load(tmp_path / "out.safetensors", arch=TINY).classifier is None


def test_what_cannot_be_written_is_said(tmp_path: Path, reference: ReferenceMAE) -> None:
    path = write(tmp_path / "x.safetensors", dict(reference.state_dict()), recipe={})
    with pytest.raises(InputError, match=r"expected one of timm, transformers, .* found 'keras'"):
        export_checkpoint(path, "keras", tmp_path / "out")
    with pytest.raises(InputError, match=r"expected a \.pth file"):
        export_checkpoint(path, "detectron2", tmp_path / "out.safetensors")
    with pytest.raises(InputError, match="no number of heads"):  # of the decoder: the recipe does not tell
        export_checkpoint(path, "transformers", tmp_path / "out")
    with pytest.raises(InputError, match=r"a layout with a decoder \(transformers, mmpretrain\), found mmseg"):
        export_checkpoint(path, "mmseg", tmp_path / "out", decoder=True)
    bare = {key: value for key, value in reference.state_dict().items() if not re.match("decoder|mask", key)}
    with pytest.raises(InputError, match=r"expected a decoder .* found an encoder only"):
        export_checkpoint(write(tmp_path / "y.safetensors", bare), "mmpretrain", tmp_path / "out", decoder=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("layout", EXPORTS)
def test_nothing_is_overwritten(tmp_path: Path, reference: ReferenceMAE, layout: str) -> None:
    path = write(tmp_path / "x.safetensors", dict(reference.state_dict()))
    there = tmp_path / FILES[layout]
    there.write_text("somebody's")
    with pytest.raises(InputError, match="expected nothing there yet"):
        export_checkpoint(path, layout, there)
    assert there.read_text() == "somebody's"
    if layout == "transformers":
        export_checkpoint(path, layout, tmp_path / "folder")
        with pytest.raises(InputError, match=r"expected nothing there yet, found config\.json"):
            export_checkpoint(path, layout, tmp_path / "folder")


@pytest.mark.parametrize("layout", EXPORTS)
def test_a_network_of_convolutions_has_no_names_elsewhere(tmp_path: Path, layout: str) -> None:
    sizes = ConvArchitecture(strides=(4, 2, 2), dims=(16, 24, 48), depths=(1, 1, 1), heads=3)
    settings = {"architecture": sizes, "image_size": 64, "method": "convmae", "epoch": 1, "recipe": {}}
    state = ConvVisionTransformer(64, sizes).state_dict()
    ours.write(tmp_path / "x.safetensors", state, **settings)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=rf"expected a ViT, which is all that {layout} has names for, found ConvMAE"):
        export_checkpoint(tmp_path / "x.safetensors", layout, tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists()


# --- the command ------------------------------------------------------------------------------------------------------


def run_convert(path: Path, layout: str, out: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[str, str]:
    """(what was printed, how it says that the file is loaded)."""
    assert main(["convert", str(path), "--to", layout, "--out", str(out), *more]) == 0
    text = capsys.readouterr().out
    return text, text.split("  load it   ")[1].strip()


@pytest.mark.parametrize("kind", ["encoder", "class token", "mean", "layer scale"])
def test_the_line_that_loads_it_by_timm_gives_our_tokens_and_logits(
    tmp_path: Path, images: Tensor, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """strict=True is what create_model loads with."""
    settings: dict[str, dict[str, Any]] = {
        "encoder": {"num_classes": 0},
        "class token": {"num_classes": 7},
        "mean": {"num_classes": 7, "global_pool": "avg"},
        "layer scale": {"num_classes": 7, "init_values": 0.5, "no_embed_class": True},
    }
    torch.manual_seed(3)
    source = TimmViT(64, 8, embed_dim=48, depth=3, num_heads=3, **settings[kind]).eval()
    for value in source.parameters():
        value.data.add_(0.05 * torch.randn_like(value))
    path = write(tmp_path / "x.safetensors", dict(source.state_dict()))
    text, line = run_convert(path, "timm", tmp_path / "out.safetensors", capsys)
    network = eval(line, {"timm": timm}).eval()
    with torch.no_grad():
        torch.testing.assert_close(network(images), source(images), rtol=0, atol=1e-5)
        tokens = load(path).encoder(images)
        torch.testing.assert_close(network.forward_features(images), tokens, rtol=0, atol=1e-5)
    numbers = sum(value.numel() for value in source.state_dict().values())
    size = (tmp_path / "out.safetensors").stat().st_size
    assert f"{len(source.state_dict())} tensors, {numbers:,} numbers, {size:,} bytes" in text


def test_the_line_that_loads_it_by_transformers_gives_a_model_with_our_weights(
    tmp_path: Path, reference: ReferenceMAE, images: Tensor, capsys: pytest.CaptureFixture[str]
) -> None:
    transformers = pytest.importorskip("transformers")
    path = write(tmp_path / "x.safetensors", dict(reference.state_dict()))
    _, line = run_convert(path, "transformers", tmp_path / "out", capsys, "--decoder")
    whole = eval(line, {"transformers": transformers})
    assert type(whole).__name__ == "ViTMAEForPreTraining"
    assert torch.equal(whole.decoder.decoder_pred.weight, reference.decoder_pred.weight)
    # The same folder as a plain ViT, which masks nothing.
    network, info = transformers.ViTModel.from_pretrained(
        tmp_path / "out", add_pooling_layer=False, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert all(key.startswith("decoder.") for key in info["unexpected_keys"])
    with torch.no_grad():
        tokens = network.eval()(images).last_hidden_state
    torch.testing.assert_close(tokens, load(path).encoder(images), rtol=0, atol=1e-5)


def test_lines_for_other_libraries_hold_the_sizes_that_they_need(
    tmp_path: Path, reference: ReferenceMAE, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "x.safetensors", dict(reference.state_dict()))
    wanted = {
        "mmpretrain": ("embed_dims=48, num_layers=3, num_heads=3, feedforward_channels=192", "img_size=64"),
        "mmseg": ('type="MAE"', "img_size=64, patch_size=8, embed_dims=48, num_layers=3, num_heads=3, init_values=1.0"),
        "detectron2": ("pretrain_img_size=64, patch_size=8, embed_dim=48, depth=3, num_heads=3", "init_checkpoint"),
    }
    for layout, parts in wanted.items():
        text, line = run_convert(path, layout, tmp_path / f"{layout}.pth", capsys)
        assert all(part in line for part in (*parts, f'"{tmp_path / layout}.pth"'))
        assert ("left out" in text) == (layout != "mmpretrain")


def test_bad_input_to_convert_has_its_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(tmp_path / "absent.pth"), "--to", "timm", "--out", str(tmp_path / "o.pth")]) == 2
    assert "no such file" in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "absent.pth"), "--to", "onnx", "--out", str(tmp_path / "o.pth")]) == 2
    assert "expected one of timm" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["convert", "--help"])
    text = capsys.readouterr().out
    assert all(layout in text for layout in EXPORTS)
