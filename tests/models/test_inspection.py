"""What `inspect` says of a file of each format, and that it says it of every key."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pixmim_eval.errors import InputError
from pixmim_eval.models.checkpoints import ours
from pixmim_eval.models.checkpoints.inspection import format_report, inspect_checkpoint
from pixmim_eval.models.vit import Architecture
from tests.references.convmae import ReferenceConvMAE
from tests.references.mae import ReferenceMAE


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return dict(ReferenceMAE(64, 8, 48, 3, 3, 32, 2, 2).state_dict())


def save(path: Path, content: dict[str, Any]) -> Path:
    torch.save(content, path)
    return path


def test_a_pretraining_file_is_described_from_its_shapes_and_arguments(
    tmp_path: Path, tensors: dict[str, Tensor]
) -> None:
    content = {"model": tensors, "epoch": 7, "args": argparse.Namespace(norm_pix_loss=True), "optimizer": {}}
    report = inspect_checkpoint(save(tmp_path / "x.pth", content))
    assert (report.format, report.method, report.epoch) == ("mae", "mae", 8)
    assert (report.patch, report.dims, report.depths, report.image_size, report.heads) == (8, (48,), (3,), 64, None)
    assert (report.decoder, report.classifier, report.positions) == ((32, 2, None), None, "fixed sin-cos")
    assert report.normalised_target is True
    assert report.normalised_reason == "the training arguments say norm_pix_loss=True"
    assert report.parameters == sum(value.numel() for value in tensors.values())
    assert dict(report.beside)["optimizer"] == "state of the optimiser, for resuming"
    text = format_report(report)
    for part in (
        "patch 8, width 48, 3 blocks",
        "yes: width 32, 2 blocks",
        "epoch              8",
        "blocks.#.norm1.@ ×6",
    ):
        assert part in text


def test_every_key_of_the_file_is_on_exactly_one_list_with_a_reason(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    state = {f"backbone.{key}": value for key, value in tensors.items() if not re.match("decoder|mask", key)}
    names = (
        ("blocks.", "layers."),
        ("patch_embed.proj", "patch_embed.projection"),
        ("backbone.norm", "backbone.norm1"),
    )
    for old, new in (*names, ("mlp.fc1", "ffn.layers.0.0"), ("mlp.fc2", "ffn.layers.1")):
        state = {key.replace(old, new): value for key, value in state.items()}
    state |= {
        "backbone.proj_weights": torch.ones(6, 1, 1, 1),
        "target_generator.low_pass_filter": torch.ones(3, 64, 64),
    }
    report = inspect_checkpoint(save(tmp_path / "x.pth", {"state_dict": state, "meta": {"epoch": 300}}))
    listed = [use.key for use in report.keys if use.use != "missing"]
    assert sorted(listed) == sorted(state)
    assert all(use.reason for use in report.keys)
    assert {use.key for use in report.keys if use.use == "unused"} == {
        "backbone.proj_weights",
        "target_generator.low_pass_filter",
    }
    assert {use.key for use in report.keys if use.use == "missing"} == {"decoder_*, mask_token", "head.@"}
    assert "backbone.layers.#.ffn.layers.0.0.@ → blocks.#.mlp.fc1.@ ×6" in format_report(report)
    assert report.normalised_target is None


def test_a_classifier_says_how_it_pools(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    encoder = {key: value for key, value in tensors.items() if not re.match("decoder|mask|norm", key)}
    head = {"fc_norm.weight": torch.ones(48), "fc_norm.bias": torch.zeros(48)}
    head |= {"head.weight": torch.zeros(10, 48), "head.bias": torch.zeros(10)}
    report = inspect_checkpoint(save(tmp_path / "x.pth", {"model": encoder | head}))
    assert report.classifier == (10, "mean of patch tokens", "LayerNorm")
    missing = {use.key: use.reason for use in report.keys if use.use == "missing"}
    assert missing["norm.@"] == "fine-tuned with mean pooling: fc_norm takes its place"
    assert "a file without decoder" in missing["decoder_*, mask_token"]


def test_what_fine_tuning_leaves_in_a_file_is_not_taken_for_pretraining(
    tmp_path: Path, tensors: dict[str, Tensor]
) -> None:
    """Its arguments say nothing of the target, and it moves the positions a little."""
    encoder = {key: value for key, value in tensors.items() if not re.match("decoder|mask|norm", key)}
    encoder["pos_embed"] = encoder["pos_embed"] + 0.1 * torch.randn(1, 65, 48)
    head = {"fc_norm.weight": torch.ones(48), "fc_norm.bias": torch.zeros(48)}
    head |= {"head.weight": torch.zeros(10, 48), "head.bias": torch.zeros(10)}
    content = {"model": encoder | head, "epoch": 99, "args": argparse.Namespace(nb_classes=10)}
    report = inspect_checkpoint(save(tmp_path / "x.pth", content))
    assert (report.method, report.positions, report.epoch) == ("mae-finetuned", "sin-cos, moved by training", 100)
    assert report.normalised_target is None
    assert "training arguments without norm_pix_loss" in report.normalised_reason
    assert [key for key, _ in report.beside] == ["args", "epoch"]


def test_networks_trained_with_labels_have_no_target(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    encoder = {key: value for key, value in tensors.items() if not re.match("decoder|mask", key)}
    encoder |= {"head.weight": torch.zeros(10, 48), "head.bias": torch.zeros(10)}
    settings = {"image_size": 64, "method": "deit3", "epoch": 3, "recipe": {"crop": "src"}}
    ours.write(tmp_path / "x.safetensors", encoder, architecture=Architecture(8, 48, 3, 3), **settings)  # type: ignore[arg-type]
    scales = {f"blocks.{block}.gamma_{number}": torch.ones(48) for block in range(3) for number in (1, 2)}
    for path in (tmp_path / "x.safetensors", save(tmp_path / "x.pth", {"model": encoder | scales})):
        report = inspect_checkpoint(path)
        assert (report.method, report.normalised_target) == ("deit3", None)
        assert "normalised target  trained with labels: there are no target pixels" in format_report(report)


def test_only_numbers_of_blocks_are_left_out_of_the_list(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    encoder = {key: value for key, value in tensors.items() if not re.match("decoder|mask", key)}
    probe = {"head.0.running_mean": torch.zeros(48), "head.0.running_var": torch.ones(48)}
    probe |= {"head.0.num_batches_tracked": torch.tensor(1)}
    probe |= {"head.1.weight": torch.zeros(10, 48), "head.1.bias": torch.zeros(10)}
    report = inspect_checkpoint(save(tmp_path / "x.pth", {"model": encoder | probe}))
    assert report.classifier == (10, "class token", "BatchNorm")
    text = format_report(report)
    assert "head.0.running_mean → head_norm.running_mean" in text
    assert "head.1.@ → head.@ ×2" in text


def test_our_own_files_tell_the_heads(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    settings = {"image_size": 64, "method": "pixmim-mae", "epoch": 3, "recipe": {"decoder_heads": 2, "radius": 11.4}}
    ours.write(tmp_path / "x.safetensors", tensors, architecture=Architecture(8, 48, 3, 3), **settings)  # type: ignore[arg-type]
    report = inspect_checkpoint(tmp_path / "x.safetensors")
    assert (report.heads, report.decoder, report.method) == (3, (32, 2, 2), "pixmim-mae")


def test_an_incomplete_file_is_described_with_what_it_lacks(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    less_keys = {"blocks.1.norm1.weight", "decoder_pred.bias"}
    less = {key: value for key, value in tensors.items() if key not in less_keys}
    report = inspect_checkpoint(save(tmp_path / "x.pth", {"model": less}))
    missing = {use.key: use.reason for use in report.keys if use.use == "missing"}
    assert missing.keys() == less_keys | {"head.@"}
    assert missing["blocks.1.norm1.weight"] == "the encoder needs it: the file is incomplete"
    assert missing["decoder_pred.bias"] == "the decoder needs it: the file is incomplete"


def test_the_golden_files_are_what_they_are(shared_data: Path) -> None:
    reports = {name: inspect_checkpoint(shared_data / "golden" / f"{name}.pth") for name in GOLDEN}
    assert {name: (r.method, r.dims, r.depths, r.image_size, r.decoder) for name, r in reports.items()} == GOLDEN
    assert all(report.normalised_target is True for report in reports.values())
    assert "ConvViT, patch 16, width 16 / 24 / 48, 1 / 2 / 2 blocks" in format_report(reports["convmae_tiny"])


GOLDEN = {
    "mae_tiny_full": ("mae", (48,), (3,), 64, (32, 2, None)),
    "lsmae_tiny": ("lsmae", (48,), (3,), 64, (24, 2, None)),
    "convmae_tiny": ("convmae", (16, 24, 48), (1, 2, 2), 224, (32, 2, None)),
}


def test_a_foreign_file_says_what_was_looked_for(tmp_path: Path) -> None:
    save_file({"conv.weight": torch.zeros(2)}, tmp_path / "x.safetensors", metadata={"format": json.dumps("pt")})
    with pytest.raises(
        InputError, match=r"expected the keys of a known format \(pixmim-eval, convmae.* found conv\.weight"
    ):
        inspect_checkpoint(tmp_path / "x.safetensors")


# --- one file of each format ------------------------------------------------------------------------------------------


def drop(tensors: dict[str, Tensor], pattern: str) -> dict[str, Tensor]:
    return {key: value for key, value in tensors.items() if not re.match(pattern, key)}


def make_formats(tensors: dict[str, Tensor]) -> dict[str, tuple[dict[str, Any], tuple[Any, ...]]]:
    """File -> (content, (format, method, epoch, decoder?, classes, normalised target))."""
    encoder, arguments = drop(tensors, "decoder|mask"), argparse.Namespace(norm_pix_loss=True, mask_downsampling=1)
    head = {"head.weight": torch.zeros(10, 48), "head.bias": torch.zeros(10)}
    mean = {"fc_norm.weight": torch.ones(48), "fc_norm.bias": torch.zeros(48)}
    statistics = {"running_mean": torch.zeros(48), "running_var": torch.ones(48)}
    statistics |= {"num_batches_tracked": torch.tensor(1)}
    probe = {f"head.0.{key}": value for key, value in statistics.items()}
    probe |= {f"head.1.{key[5:]}": value for key, value in head.items()}
    conv = dict(ReferenceConvMAE(64, (4, 2, 2), (8, 12, 48), (1, 1, 2), 3, 32, 1, 2).state_dict())
    conv_encoder = drop(conv, "decoder|mask|stage")
    scales = {f"blocks.{block}.gamma_{number}": torch.ones(48) for block in range(3) for number in (1, 2)}
    mm = {rename_to_mmcls(key): value for key, value in tensors.items()}
    mm_encoder = {key: value for key, value in mm.items() if key.startswith("backbone.")}
    bare = {key.removeprefix("backbone."): value for key, value in mm_encoder.items()}
    low_pass = {"target_generator.low_pass_filter": torch.ones(3, 64, 64)}
    fusion = {"backbone.proj_layers.0.weight": torch.eye(48), "backbone.proj_weights": torch.ones(2, 1, 1, 1)}
    mm_linear = {f"neck.bn.{key}": value for key, value in statistics.items()}
    mm_linear |= {f"head.layers.{key}": value for key, value in head.items()}
    mm_tuned = drop(mm_encoder, r"backbone\.ln1") | {"backbone.ln2.weight": torch.ones(48)}
    mm_tuned |= {"backbone.ln2.bias": torch.zeros(48), "head.fc.weight": torch.zeros(10, 48)}
    mm_tuned |= {"head.fc.bias": torch.zeros(10)}
    meta = {"epoch": 300, "cfg": "head=dict(type='MAEPretrainHead', norm_pix=True)"}
    trained, long = {"epoch": 7, "args": arguments}, argparse.Namespace(norm_pix_loss=True, mask_downsampling=2)
    return {
        "MAE, encoder": ({"model": encoder}, ("mae", "mae", None, False, 0, None)),
        "MAE, whole": ({"model": tensors} | trained, ("mae", "mae", 8, True, 0, True)),
        "MAE, fine-tuned": (
            {"model": drop(encoder, "norm") | mean | head, "epoch": 99},
            ("mae", "mae-finetuned", 100, False, 10, None),
        ),
        "MAE, probed": ({"model": encoder | probe}, ("mae", "mae-linear", None, False, 10, None)),
        "ConvMAE": ({"model": conv} | trained, ("convmae", "convmae", 8, True, 0, True)),
        "ConvMAE, fine-tuned": (
            {"model": drop(conv_encoder, "norm") | mean | head},
            ("convmae", "convmae-finetuned", None, False, 10, None),
        ),
        "ConvMAE, probed": ({"model": conv_encoder | probe}, ("convmae", "convmae-linear", None, False, 10, None)),
        "LSMAE": ({"model": tensors, "epoch": 7, "args": long}, ("lsmae", "lsmae", 8, True, 0, True)),
        "mmselfsup MAE": ({"state_dict": mm, "meta": meta}, ("mmpretrain", "mae", 300, True, 0, True)),
        "PixMIM": ({"state_dict": mm | low_pass}, ("mmpretrain", "pixmim-mae", None, True, 0, None)),
        "MFF": ({"state_dict": mm | fusion, "meta": meta}, ("mmpretrain", "mff", 300, True, 0, True)),
        "mmselfsup, linear": (
            {"state_dict": mm_encoder | mm_linear},
            ("mmpretrain", "mae-linear", None, False, 10, None),
        ),
        "mmselfsup, fine-tuned": ({"state_dict": mm_tuned}, ("mmpretrain", "mae-finetuned", None, False, 10, None)),
        "mmseg": ({"state_dict": bare}, ("mmpretrain", "mae", None, False, 0, None)),
        "timm": (encoder, ("timm", "mae", None, False, 0, None)),
        "DeiT III": (
            {"model": encoder | scales | head | {"pos_embed": torch.randn(1, 64, 48)}},
            ("deit3", "deit3", None, False, 10, None),
        ),
        "detectron2": (
            {"model": {f"backbone.net.{key}": value for key, value in encoder.items()}, "__author__": "somebody"},
            ("detectron2", "mae", None, False, 0, None),
        ),
        "transformers": (
            {split: value for key, whole in tensors.items() for split, value in rename_to_transformers(key, whole)},
            ("transformers", "mae", None, True, 0, None),
        ),
    }


def rename_to_mmcls(key: str) -> str:
    """The name of one of MAE's keys in mmselfsup."""
    key = re.sub(
        r"\.norm(\d)\.", r".ln\1.", key.replace("mlp.fc1", "ffn.layers.0.0").replace("mlp.fc2", "ffn.layers.1")
    )
    if key.startswith(("decoder", "mask")):
        return "neck." + key.replace("decoder_norm", "ln1")
    key = key.replace("blocks.", "layers.").replace("patch_embed.proj", "patch_embed.projection")
    return "backbone." + re.sub("^norm", "ln1", key)


def rename_to_transformers(key: str, value: Tensor) -> list[tuple[str, Tensor]]:
    """The names of one of MAE's keys in transformers' files, and its parts."""
    steps = {"attn.proj": "attention.output.dense", "norm1": "layernorm_before", "norm2": "layernorm_after"}
    steps |= {"mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense"}
    for old, new in steps.items():
        key = key.replace(old, new)
    if key.startswith(("decoder", "mask")):
        key = "decoder." + key.replace("decoder_blocks", "decoder_layers")
    else:
        key = re.sub("^(cls_token)", r"embeddings.\1", key).replace("blocks.", "encoder.layer.")
        key = key.replace("pos_embed", "embeddings.position_embeddings").replace("norm.", "layernorm.")
        key = "vit." + key.replace("patch_embed.proj", "embeddings.patch_embeddings.projection")
    if "attn.qkv" not in key:
        return [(key, value)]
    parts = zip(("query", "key", "value"), value.chunk(3), strict=True)
    return [(key.replace("attn.qkv", f"attention.attention.{part}"), third.clone()) for part, third in parts]


def test_one_file_of_each_format_is_what_it_is_and_every_key_is_listed(
    tmp_path: Path, tensors: dict[str, Tensor]
) -> None:
    for number, (name, (content, wanted)) in enumerate(make_formats(tensors).items()):
        path = save(tmp_path / f"{number}.pth", content)
        report = inspect_checkpoint(path)
        classes = report.classifier[0] if report.classifier else 0
        found = (report.format, report.method, report.epoch, report.decoder is not None, classes)
        assert (*found, report.normalised_target) == wanted, name
        state = next((content[key] for key in ("model", "state_dict") if key in content), content)
        assert sorted(use.key for use in report.keys if use.use != "missing") == sorted(state), name
        assert all(use.reason for use in report.keys), name
        assert not [use.key for use in report.keys if "incomplete" in use.reason], name
        lacking = {use.key for use in report.keys if use.use == "missing"}
        assert ("decoder_*, mask_token" in lacking) == (report.decoder is None), name
        assert ("head.@" in lacking) == (report.classifier is None), name
        assert format_report(report).startswith(str(path))


def test_what_a_stranger_wrote_commands_no_terminal(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    path = save(
        tmp_path / "x.pth", {"model": tensors, "\x1b[2J": "\x1b]0;owned\x07", "number": 10**6000, "epoch": 10**6000}
    )
    report = inspect_checkpoint(path)
    assert report.epoch is None
    text = format_report(report)
    assert all(line.isprintable() for line in text.splitlines())
    assert "?[2J: not needed: ?]0;owned?" in text
    with pytest.raises(InputError, match=r"names of tensors that can be printed, found '\\x1b\[2Jnorm'"):
        inspect_checkpoint(save(path, {"model": tensors | {"\x1b[2Jnorm": torch.zeros(1)}}))
