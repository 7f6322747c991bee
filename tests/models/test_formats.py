"""Every public format opens to the tokens and logits of the network that wrote it, and accounts for every key."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer as TimmViT
from torch import Tensor, nn

from pixmim_eval.errors import InputError
from pixmim_eval.models.catalog import load_models
from pixmim_eval.models.checkpoints import load, ours
from pixmim_eval.models.checkpoints.checkpoint import Checkpoint
from pixmim_eval.models.convvit import ConvArchitecture, ConvVisionTransformer
from pixmim_eval.models.vit import Architecture, interpolate_positions
from tests.references.mae import ReferenceMAE

TINY = Architecture(patch=8, dim=48, depth=3, heads=3)
TINY_CONV = ConvArchitecture(strides=(4, 2, 2), dims=(16, 24, 48), depths=(1, 2, 2), heads=3)
SIZE, CLASSES = 64, 10
Tensors = dict[str, Tensor]


@pytest.fixture(scope="module")
def reference() -> ReferenceMAE:
    """A plain MAE whose norms are no identities."""
    torch.manual_seed(0)
    model = ReferenceMAE(SIZE, 8, 48, 3, 3, 32, 2, 2)
    for key, value in model.state_dict().items():
        if "norm" in key or key.endswith("bias"):
            value.add_(0.1 * torch.randn_like(value))
    return model


@pytest.fixture(scope="module")
def tensors(reference: ReferenceMAE) -> Tensors:
    return dict(reference.state_dict())


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def randomise(module: nn.Module) -> Any:
    """Every weight of a network at random: initial zeros and ones would hide what is mixed up."""
    torch.manual_seed(2)
    with torch.no_grad():
        for key, value in module.state_dict().items():
            if value.is_floating_point():
                value.copy_((1 if "norm" in key and "weight" in key else 0) + 0.1 * torch.randn_like(value))
            if key.endswith("running_var"):
                value.add_(1)
    return module.eval()


def save(path: Path, content: dict[str, Any]) -> Path:
    torch.save(content, path)
    return path


def encode(reference: ReferenceMAE, images: Tensor) -> Tensor:
    return reference.encode(images, torch.arange(64).expand(len(images), -1)).detach()


def count_uses(checkpoint: Checkpoint) -> dict[str, int]:
    uses = [use.use for use in checkpoint.keys]
    return {use: uses.count(use) for use in ("used", "renamed", "unused") if use in uses}


def make_vit(**settings: Any) -> TimmViT:
    sizes = {"img_size": SIZE, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 3}
    return randomise(TimmViT(**{**sizes, "num_classes": CLASSES, **settings}))  # type: ignore[arg-type]


# --- official MAE -----------------------------------------------------------------------------------------------------


def test_the_golden_lsmae_file_gives_the_public_latent(shared_data: Path) -> None:
    checkpoint = load(shared_data / "golden" / "lsmae_tiny.pth", arch=TINY)
    assert (checkpoint.format, checkpoint.method, checkpoint.epoch) == ("lsmae", "lsmae", 800)
    with np.load(shared_data / "golden" / "lsmae_expected.npz") as golden:
        images, kept = torch.from_numpy(golden["images"]), torch.from_numpy(golden["ids_keep"])
        np.testing.assert_allclose(checkpoint.encoder(images, kept), golden["latent"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("wanted", [True, False])
def test_the_target_is_said_where_the_arguments_say_it(tmp_path: Path, tensors: Tensors, wanted: bool) -> None:
    path = save(tmp_path / "x.pth", {"model": tensors, "args": argparse.Namespace(norm_pix_loss=wanted)})
    assert load(path, arch=TINY).normalised_target is wanted
    assert load(save(path, {"model": tensors}), arch=TINY).normalised_target is None


def test_a_fine_tuned_file_classifies_as_timm_with_mean_pooling(tmp_path: Path, images: Tensor) -> None:
    """The official fine-tuning model is timm's with norm moved behind the mean of the patch tokens."""
    network = make_vit(global_pool="avg", class_token=True, fc_norm=True)
    checkpoint = load(save(tmp_path / "x.pth", {"model": network.state_dict()}), arch=TINY)
    assert checkpoint.format == "mae"
    assert {use.key for use in checkpoint.keys if use.key.startswith("fc_norm")} == {"fc_norm.weight", "fc_norm.bias"}
    tokens = checkpoint.encoder.tokens(images)
    assert checkpoint.classifier is not None
    torch.testing.assert_close(tokens.patches, network.forward_features(images)[:, 1:], rtol=0, atol=1e-5)
    torch.testing.assert_close(checkpoint.classifier(tokens), network(images), rtol=0, atol=1e-5)


def test_a_linear_probe_classifies_the_normalised_class_token(tmp_path: Path, images: Tensor) -> None:
    network = make_vit()
    network.head = nn.Sequential(nn.BatchNorm1d(48, affine=False, eps=1e-6), network.head)
    randomise(network)
    checkpoint = load(save(tmp_path / "x.pth", {"model": network.state_dict(), "epoch": 89}), arch=TINY)
    assert (checkpoint.format, checkpoint.epoch) == ("mae", 90)
    assert checkpoint.classifier is not None
    logits = checkpoint.classifier(checkpoint.encoder.tokens(images))
    torch.testing.assert_close(logits, network(images), rtol=0, atol=1e-5)


def test_the_method_is_read_off_the_positions_and_the_head(tmp_path: Path, tensors: Tensors) -> None:
    encoder = {key: value for key, value in tensors.items() if not re.match("decoder|mask", key)}
    head = {"head.weight": torch.zeros(CLASSES, 48), "head.bias": torch.zeros(CLASSES)}
    probe = {f"head.1.{key[5:]}": value for key, value in head.items()}
    probe |= {"head.0.running_mean": torch.zeros(48), "head.0.running_var": torch.ones(48)}
    probe |= {"head.0.num_batches_tracked": torch.tensor(7)}
    moved = {"pos_embed": tensors["pos_embed"] + 0.1 * torch.randn(1, 65, 48)}
    learned = {"pos_embed": torch.randn(1, 65, 48)}
    files = {"mae": {}, "mae-finetuned": head | moved, "mae-linear": probe, "vit": head | learned}
    for method, more in files.items():
        assert load(save(tmp_path / "x.pth", {"model": encoder | more}), arch=TINY).method == method


# --- long sequences ---------------------------------------------------------------------------------------------------


def test_lsmae_is_told_by_its_784_patches_where_no_arguments_are_kept(tmp_path: Path) -> None:
    model = ReferenceMAE(448, 16, 48, 1, 3, 24, 1, 3)
    checkpoint = load(save(tmp_path / "x.pth", {"model": model.state_dict()}), arch=Architecture(16, 48, 1, 3))
    assert (checkpoint.format, checkpoint.method, checkpoint.image_size) == ("lsmae", "lsmae", 448)


def test_attention_without_key_bias_gets_zeros_for_it(tmp_path: Path, reference: ReferenceMAE, images: Tensor) -> None:
    apart: Tensors = {}
    for key, value in reference.state_dict().items():
        if key.endswith("qkv.bias"):
            query, middle, last = value.chunk(3)
            middle.zero_()
            apart |= {key.replace("qkv.bias", "q_bias"): query, key.replace("qkv.bias", "v_bias"): last}
        else:
            apart[key] = value
    checkpoint = load(save(tmp_path / "x.pth", {"model": apart}), arch=TINY)
    assert checkpoint.format == "lsmae"
    torch.testing.assert_close(checkpoint.encoder(images), encode(reference, images), rtol=0, atol=1e-5)
    assert count_uses(checkpoint) == {"used": len(apart) - 10, "renamed": 10}


# --- ConvMAE ----------------------------------------------------------------------------------------------------------


def test_the_golden_convmae_file_gives_the_public_tokens_and_latent(shared_data: Path) -> None:
    checkpoint = load(shared_data / "golden" / "convmae_tiny.pth", arch=TINY_CONV)
    assert (checkpoint.format, checkpoint.method, checkpoint.epoch, checkpoint.image_size) == (
        *("convmae", "convmae"),
        *(8, 224),
    )
    with np.load(shared_data / "golden" / "convmae_expected.npz") as golden:
        images = torch.from_numpy(golden["images"]).float()
        visible = torch.from_numpy(golden["noise"]).argsort(dim=1)[:, :49]
        tokens = checkpoint.encoder.tokens(images)
        np.testing.assert_allclose(tokens.patches, golden["tokens_after_norm"], rtol=0, atol=1e-4)
        np.testing.assert_allclose(checkpoint.encoder(images, visible), golden["latent"], rtol=0, atol=1e-4)


def test_a_convvit_comes_back_from_our_own_file_and_from_a_fine_tuned_one(tmp_path: Path) -> None:
    network = randomise(ConvVisionTransformer(SIZE, TINY_CONV, fusion=True))
    images = torch.randn(1, 3, SIZE, SIZE)
    settings = {"architecture": TINY_CONV, "image_size": SIZE, "method": "convmae", "epoch": 1, "recipe": {}}
    ours.write(tmp_path / "x.safetensors", network.state_dict(), **settings)  # type: ignore[arg-type]
    checkpoint = load(tmp_path / "x.safetensors")
    assert checkpoint.architecture == TINY_CONV
    assert torch.equal(checkpoint.encoder.tokens(images).patches, network.tokens(images).patches)
    tuned = {key: value for key, value in network.state_dict().items() if not re.match("norm|stage", key)}
    tuned |= {"fc_norm.weight": torch.rand(48), "fc_norm.bias": torch.rand(48)}
    tuned |= {"head.weight": torch.rand(CLASSES, 48), "head.bias": torch.rand(CLASSES)}
    checkpoint = load(save(tmp_path / "x.pth", {"model": tuned}), arch=TINY_CONV)
    network.norm = nn.Identity()
    pooled = network.tokens(images).patches.mean(dim=1)
    normed = nn.functional.layer_norm(pooled, (48,), tuned["fc_norm.weight"], tuned["fc_norm.bias"], 1e-6)
    assert checkpoint.classifier is not None
    logits = checkpoint.classifier(checkpoint.encoder.tokens(images))
    torch.testing.assert_close(logits, normed @ tuned["head.weight"].T + tuned["head.bias"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("mean", [True, False])
def test_a_convvit_probe_reads_what_the_public_code_reads(tmp_path: Path, mean: bool) -> None:
    """With --global_pool the normalised mean of the patch tokens, else the first patch token after the last norm; then
    batch norm without learned factors (its eps 1e-6) and one linear layer."""
    network = randomise(ConvVisionTransformer(SIZE, TINY_CONV))
    network.pos_embed.copy_(ConvVisionTransformer(SIZE, TINY_CONV).pos_embed)  # which training does not move
    images = torch.randn(3, 3, SIZE, SIZE)
    state: Tensors = dict(network.state_dict())
    tokens = network.tokens(images).patches
    pooled = tokens[:, 0]
    if mean:
        norm = {"fc_norm.weight": torch.rand(48), "fc_norm.bias": torch.rand(48)}
        state = {key: value for key, value in state.items() if not key.startswith("norm")} | norm
        network.norm = nn.Identity()
        pooled = network.tokens(images).patches.mean(dim=1)
        pooled = nn.functional.layer_norm(pooled, (48,), norm["fc_norm.weight"], norm["fc_norm.bias"], 1e-6)
    centre, spread, weight, bias = torch.randn(48), torch.rand(48), torch.randn(CLASSES, 48), torch.randn(CLASSES)
    state |= {
        "head.0.running_mean": centre,
        "head.0.running_var": spread,
        "head.0.num_batches_tracked": torch.tensor(1),
    }
    state |= {"head.1.weight": weight, "head.1.bias": bias}
    checkpoint = load(save(tmp_path / "x.pth", {"model": state, "epoch": 89}), arch=TINY_CONV)
    assert (checkpoint.format, checkpoint.method, checkpoint.epoch) == ("convmae", "convmae-linear", 90)
    assert checkpoint.classifier is not None
    wanted = (pooled - centre) / (spread + 1e-6).sqrt() @ weight.T + bias
    logits = checkpoint.classifier(checkpoint.encoder.tokens(images))
    torch.testing.assert_close(logits, wanted, rtol=1e-4, atol=1e-4)


def test_a_convvit_is_no_vit(tmp_path: Path, tensors: Tensors) -> None:
    state = ConvVisionTransformer(SIZE, TINY_CONV).state_dict()
    path = save(tmp_path / "x.pth", {"model": state})
    with pytest.raises(InputError, match=r"found patch 16, width 16/24/48, depth 1/2/2"):
        load(path, arch=TINY)
    with pytest.raises(InputError, match="keys do not tell the number of heads"):
        load(path)
    with pytest.raises(InputError, match=r"expected ConvArchitecture.* found patch 8, width 48, depth 3"):
        load(save(path, {"model": tensors}), arch=TINY_CONV)


# --- mmselfsup, mmpretrain, mmcls -------------------------------------------------------------------------------------


def to_mmcls(key: str, norm: str = "ln") -> str:
    """The name of one of MAE's keys in mmselfsup, written out from its modules."""
    key = key.replace("mlp.fc1", "ffn.layers.0.0").replace("mlp.fc2", "ffn.layers.1")
    key = re.sub(r"\.norm(\d)\.", rf".{norm}\1.", key)
    if key.startswith(("decoder", "mask")):
        return "neck." + key.replace("decoder_norm", f"{norm}1")
    key = key.replace("blocks.", "layers.").replace("patch_embed.proj", "patch_embed.projection")
    return "backbone." + re.sub("^norm", f"{norm}1", key)


@pytest.mark.parametrize("norm", ["ln", "norm"])
def test_mmselfsup_pretraining_gives_its_encoder(
    tmp_path: Path, reference: ReferenceMAE, tensors: Tensors, images: Tensor, norm: str
) -> None:
    state = {to_mmcls(key, norm): value for key, value in tensors.items()}
    meta = {"epoch": 300, "cfg": "model = dict(head=dict(type='MAEPretrainHead', norm_pix=True, patch_size=16))"}
    checkpoint = load(save(tmp_path / "x.pth", {"state_dict": state, "meta": meta, "message_hub": {}}), arch=TINY)
    assert (checkpoint.format, checkpoint.method, checkpoint.epoch) == ("mmpretrain", "mae", 300)
    assert checkpoint.normalised_target is True
    torch.testing.assert_close(checkpoint.encoder(images), encode(reference, images), rtol=0, atol=1e-5)
    decoder = {key: value for key, value in tensors.items() if re.match("decoder|mask", key)}
    assert checkpoint.decoder.keys() == decoder.keys()
    assert all(torch.equal(checkpoint.decoder[key], value) for key, value in decoder.items())


def test_the_position_table_comes_from_the_file_whichever_half_is_first(tmp_path: Path, tensors: Tensors) -> None:
    first, second = tensors["pos_embed"].chunk(2, dim=2)
    swapped = tensors | {"pos_embed": torch.cat((second, first), dim=2)}
    path = save(tmp_path / "x.pth", {"state_dict": {to_mmcls(key): value for key, value in swapped.items()}})
    checkpoint = load(path, arch=TINY)
    assert torch.equal(checkpoint.encoder.pos_embed, swapped["pos_embed"])
    assert checkpoint.method == "mae"


@pytest.mark.parametrize(
    ("more", "method", "unused"),
    [
        ({"target_generator.low_pass_filter": torch.ones(3, 64, 64)}, "pixmim-mae", 1),
        ({"backbone.proj_layers.0.weight": torch.eye(48), "backbone.proj_weights": torch.ones(6, 1, 1, 1)}, "mff", 2),
    ],
)
def test_pixmim_and_mff_are_told_by_what_they_add(
    tmp_path: Path, tensors: Tensors, more: Tensors, method: str, unused: int
) -> None:
    state = {to_mmcls(key): value for key, value in tensors.items()} | more
    checkpoint = load(save(tmp_path / "x.pth", {"state_dict": state}), arch=TINY)
    assert checkpoint.method == method
    assert count_uses(checkpoint) == {"renamed": len(tensors), "unused": unused}
    assert all(use.reason for use in checkpoint.keys)


def test_mmpretrain_classifiers_give_timm_logits(tmp_path: Path, images: Tensor) -> None:
    """Fine-tuned: ln2 behind the mean of the patch tokens; linear: batch norm of the class token after ln1."""
    tuned = make_vit(global_pool="avg", class_token=True, fc_norm=True)
    probed = make_vit()
    probed.head = nn.Sequential(nn.BatchNorm1d(48, affine=False, eps=1e-6), probed.head)
    randomise(probed)
    heads: list[tuple[TimmViT, Callable[[str], str]]] = [
        (tuned, lambda key: key.replace("backbone.fc_norm", "backbone.ln2").replace("backbone.head", "head.fc")),
        (probed, lambda key: key.replace("backbone.head.0", "neck.bn").replace("backbone.head.1", "head.layers.head")),
    ]
    for network, finish in heads:
        state = {finish(to_mmcls(key)): value for key, value in network.state_dict().items()}
        checkpoint = load(save(tmp_path / "x.pth", {"state_dict": state, "meta": {}}), arch=TINY)
        assert checkpoint.classifier is not None
        logits = checkpoint.classifier(checkpoint.encoder.tokens(images))
        torch.testing.assert_close(logits, network(images), rtol=0, atol=1e-5)


# --- timm and DeiT III ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_classes": 0},
        {"init_values": 0.1, "no_embed_class": True},
        {"global_pool": "avg", "class_token": True},
    ],
)
def test_timm_vits_give_their_own_tokens_and_logits(tmp_path: Path, images: Tensor, settings: dict[str, Any]) -> None:
    network = make_vit(**settings)
    save_file(network.state_dict(), tmp_path / "x.safetensors")
    checkpoint = load(tmp_path / "x.safetensors", arch=TINY)
    assert checkpoint.format == "timm"
    tokens = checkpoint.encoder.tokens(images)
    found = torch.cat((tokens.cls[:, None], tokens.patches), dim=1)
    torch.testing.assert_close(found, network.forward_features(images), rtol=0, atol=1e-5)
    if network.num_classes:
        assert checkpoint.classifier is not None
        torch.testing.assert_close(checkpoint.classifier(tokens), network(images), rtol=0, atol=1e-5)
    assert count_uses(checkpoint) == {"used": len(network.state_dict())}


def test_deit3_files_give_the_logits_of_timms_port(tmp_path: Path, images: Tensor) -> None:
    sizes = {"img_size": SIZE, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 3, "num_classes": CLASSES}
    network = randomise(timm.create_model("deit3_small_patch16_224", **sizes))
    state = {re.sub(r"ls(\d).gamma", r"gamma_\1", key): value for key, value in network.state_dict().items()}
    assert state["pos_embed"].shape == (1, 64, 48)
    checkpoint = load(save(tmp_path / "x.pth", {"model": state}), arch=TINY)
    assert (checkpoint.format, checkpoint.method) == ("deit3", "deit3")
    assert checkpoint.classifier is not None
    logits = checkpoint.classifier(checkpoint.encoder.tokens(images))
    torch.testing.assert_close(logits, network(images), rtol=0, atol=1e-5)


def test_timms_own_normalisation_is_read_beside_the_file(tmp_path: Path) -> None:
    save_file(make_vit().state_dict(), tmp_path / "model.safetensors")
    assert load(tmp_path / "model.safetensors", arch=TINY).mean is None
    settings = {"pretrained_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert load(tmp_path / "model.safetensors", arch=TINY).mean == (0.5, 0.5, 0.5)
    (tmp_path / "config.json").write_text("not JSON")
    with pytest.raises(InputError, match="expected a JSON object"):
        load(tmp_path / "model.safetensors", arch=TINY)


def test_a_thousand_classes_are_those_of_imagenet_and_others_are_not_guessed(tmp_path: Path, images: Tensor) -> None:
    for classes in (1000, CLASSES):
        network = make_vit(num_classes=classes)
        settings = {"architecture": TINY, "image_size": SIZE, "method": "supervised", "epoch": 1, "recipe": {}}
        ours.write(tmp_path / "x.safetensors", dict(network.state_dict()), **settings)  # type: ignore[arg-type]
        (model,) = load_models([str(tmp_path / "x.safetensors")])
        if classes == CLASSES:
            assert model.classify is None
        else:
            assert model.classify is not None
            assert model.label_space is not None
            assert model.label_space.classes[0] == "n01440764"
            torch.testing.assert_close(model.classify(images), network(images), rtol=0, atol=1e-5)
            torch.testing.assert_close(model.encoder.tokens(images).cls, network.forward_features(images)[:, 0])


# --- transformers -----------------------------------------------------------------------------------------------------


def make_hugging_face(kind: str, **settings: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 192}
    sizes |= {"image_size": SIZE, "patch_size": 8}
    config = transformers.ViTMAEConfig if "MAE" in kind else transformers.ViTConfig
    return randomise(getattr(transformers, kind)(config(**sizes, **settings)))


@pytest.mark.parametrize("epsilon", [1e-12, 1e-3])
@pytest.mark.parametrize("saved", ["own", "memory"])
def test_transformers_vitmae_gives_its_own_tokens(tmp_path: Path, images: Tensor, saved: str, epsilon: float) -> None:
    decoder = {"decoder_hidden_size": 32, "decoder_num_hidden_layers": 2, "decoder_num_attention_heads": 2}
    decoder |= {"decoder_intermediate_size": 128, "norm_pix_loss": True}
    network = make_hugging_face("ViTMAEForPreTraining", mask_ratio=0.0, layer_norm_eps=epsilon, **decoder)
    network.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    if saved == "memory":  # names of the modules in memory, which differ from those in files
        path = save(tmp_path / "pytorch_model.bin", network.state_dict())
    checkpoint = load(path)  # heads from config.json
    assert (checkpoint.format, checkpoint.architecture) == ("transformers", TINY)
    assert (checkpoint.decoder_heads, checkpoint.normalised_target) == (2, True)
    noise = torch.rand(2, 64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        output = network.vit(images, noise=noise)
    order = output.ids_restore[:, :, None].expand(-1, -1, 48)
    wanted = torch.cat((output.last_hidden_state[:, :1], output.last_hidden_state[:, 1:].gather(1, order)), dim=1)
    torch.testing.assert_close(checkpoint.encoder(images), wanted, rtol=0, atol=1e-4)
    assert torch.equal(checkpoint.decoder["decoder_pred.weight"], network.decoder.decoder_pred.weight)
    assert "decoder_blocks.1.attn.qkv.weight" in checkpoint.decoder


@pytest.mark.parametrize("kind", ["ViTModel", "ViTForImageClassification"])
def test_transformers_vit_gives_its_own_tokens_and_logits(tmp_path: Path, images: Tensor, kind: str) -> None:
    network = make_hugging_face(kind, **({"num_labels": CLASSES} if kind != "ViTModel" else {}))
    network.save_pretrained(tmp_path)
    checkpoint = load(tmp_path / "model.safetensors")
    tokens = checkpoint.encoder.tokens(images)
    with torch.no_grad():
        output = network(images)
    if kind == "ViTModel":
        torch.testing.assert_close(tokens.patches, output.last_hidden_state[:, 1:], rtol=0, atol=1e-5)
        assert count_uses(checkpoint)["unused"] == 2  # the pooler
    else:
        assert checkpoint.classifier is not None
        torch.testing.assert_close(checkpoint.classifier(tokens), output.logits, rtol=0, atol=1e-5)


# --- what all formats promise -----------------------------------------------------------------------------------------


def test_a_key_that_nothing_reads_is_an_error_that_names_it(tmp_path: Path, tensors: Tensors) -> None:
    for more in ("blocks.0.attn.rel_pos_h", "register_tokens", "head.weight_v"):
        with pytest.raises(InputError, match=rf"only keys of the official MAE code, found {re.escape(more)} "):
            load(save(tmp_path / "x.pth", {"model": tensors | {more: torch.zeros(1)}}), arch=TINY)
    state = {to_mmcls(key): value for key, value in tensors.items()}
    twice = state | {"backbone.layers.0.norm1.weight": torch.ones(48)}
    with pytest.raises(InputError, match=r"backbone\.layers\.0\.norm1\.weight \(a second blocks\.0\.norm1\.weight\)"):
        load(save(tmp_path / "x.pth", {"state_dict": twice}), arch=TINY)


def test_a_shape_that_does_not_fit_is_named_by_the_key_of_the_file(tmp_path: Path, tensors: Tensors) -> None:
    state = {to_mmcls(key): value for key, value in tensors.items()}
    state["backbone.layers.1.ffn.layers.1.bias"] = torch.zeros(40)
    with pytest.raises(InputError, match=r"backbone\.layers\.1\.ffn\.layers\.1\.bias \(40,\) instead of \(48,\)"):
        load(save(tmp_path / "x.pth", {"state_dict": state}), arch=TINY)
    with pytest.raises(InputError, match=r"expected the encoder of Architecture\(patch=16.*patch_embed\.proj"):
        load(save(tmp_path / "x.pth", {"model": tensors}), arch="vit-b16")
    with pytest.raises(InputError, match=r"positions \[1, n² or 1 \+ n², width\]"):
        load(save(tmp_path / "x.pth", {"model": tensors | {"pos_embed": torch.zeros(1, 63, 48)}}), arch=TINY)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("pos_embed", torch.zeros(65, 48), r"pos_embed with 3 dimensions, found shape \(65, 48\)"),
        ("mask_token", torch.tensor(0.0), r"mask_token with 3 dimensions, found shape \(\)"),
        ("patch_embed.proj.weight", torch.zeros(48, 0, 8, 8), r"patch_embed\.proj\.weight with 4 dimensions"),
        ("norm.weight", torch.ones(48, dtype=torch.int64), r"norm\.weight of type torch\.int64"),
        ("blocks.1000000000.norm1.weight", torch.ones(48), r"blocks\.1000000000\.norm1\.weight unknown"),
    ],
)
def test_odd_tensors_are_named_and_size_nothing(
    tmp_path: Path, tensors: Tensors, key: str, value: Tensor, message: str
) -> None:
    path = save(tmp_path / "x.pth", {"model": tensors | {key: value}})
    with pytest.raises(InputError, match=message):
        load(path, arch=TINY)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 10**9}, "at 1000000000 px, as its header says, found patch 8, width 48, depth 3, 64 px"),
        ({"architecture": {"patch": 8, "dim": 48, "depth": 10**9, "heads": 3}}, "as its header says"),
        ({"architecture": {"patch": 8, "dim": 48, "depth": 3, "heads": 0}}, "a whole header, found architecture"),
        ({"architecture": {"patch": 8}}, "a whole header, found architecture"),
        ({"epoch": None}, "a whole header, found epoch"),
        ({"recipe": [1]}, "a whole header, found recipe"),
    ],
)
def test_a_header_is_not_believed_but_checked(
    tmp_path: Path, tensors: Tensors, change: dict[str, Any], message: str
) -> None:
    header = {"format": "pixmim-eval", "architecture": vars(TINY), "image_size": 64, "method": "mae", "epoch": 1}
    metadata = {key: json.dumps(value) for key, value in (header | {"recipe": {}} | change).items()}
    save_file({key: value.contiguous() for key, value in tensors.items()}, tmp_path / "x.safetensors", metadata)
    with pytest.raises(InputError, match=message):
        load(tmp_path / "x.safetensors")


def test_a_decoder_asked_of_an_encoder_is_an_error(tmp_path: Path, tensors: Tensors) -> None:
    encoder = {key: value for key, value in tensors.items() if not re.match("decoder|mask", key)}
    whole, part = save(tmp_path / "full.pth", {"model": tensors}), save(tmp_path / "x.pth", {"model": encoder})
    assert load(whole, arch=TINY).require_decoder().keys() == tensors.keys() - encoder.keys()
    with pytest.raises(InputError, match=r"expected a decoder .* found an encoder only"):
        load(part, arch=TINY).require_decoder()


def test_another_resolution_interpolates_both_tables_once(tmp_path: Path, tensors: Tensors) -> None:
    path = save(tmp_path / "x.pth", {"model": tensors})
    small, large = load(path, arch=TINY), load(path, arch=TINY, image_size=96)
    assert (large.image_size, large.encoder.grid) == (96, (12, 12))
    images = torch.randn(1, 3, 96, 96)
    torch.testing.assert_close(large.encoder(images), small.encoder(images), rtol=0, atol=1e-5)
    wanted = interpolate_positions(tensors["decoder_pos_embed"], (8, 8), (12, 12))
    assert torch.equal(large.decoder["decoder_pos_embed"], wanted)
    assert large.digest == small.digest


def test_weights_do_not_change_when_their_file_does(tmp_path: Path, tensors: Tensors) -> None:
    path = save(tmp_path / "x.pth", {"model": tensors})
    encoder = load(path, arch=TINY).encoder
    before = encoder.blocks[0].attn.qkv.weight.clone()
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert torch.equal(encoder.blocks[0].attn.qkv.weight, before)
