"""Features of several layers and of augmented views."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from pixmim_eval.data.crops import RandomResizedCrop, sample_flips
from pixmim_eval.data.loader import TrainingLoader
from pixmim_eval.data.transforms import normalize
from pixmim_eval.errors import InputError
from pixmim_eval.extract import extract_features, store
from pixmim_eval.models.convvit import ConvArchitecture, ConvVisionTransformer
from pixmim_eval.models.timm_models import TimmEncoder
from pixmim_eval.models.vit import Architecture, VisionTransformer
from pixmim_eval.seeds import derive_seed
from pixmim_eval.types import Model, Preprocessing, SuiteConfig
from tests.fakes import make_manifest, make_model

CONFIG = SuiteConfig(data={}, workers=0, batch_size=7)
CROP = RandomResizedCrop(16, scale=(0.2, 1.0))


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIXMIM_CACHE", str(tmp_path / "cache"))


def make_vit(depth: int = 3) -> Any:
    torch.manual_seed(0)
    return VisionTransformer(16, Architecture(8, 24, depth, 2)).eval()


def make_convvit() -> Any:
    torch.manual_seed(0)
    return ConvVisionTransformer(16, ConvArchitecture((4, 2, 1), (8, 12, 24), (1, 1, 3), 2)).eval()


def collect_outputs(blocks: list[nn.Module], run: Any) -> list[Tensor]:
    """What modules gave in a run, in order."""
    outputs: list[Tensor] = []
    hooks = [block.register_forward_hook(lambda _, __, output: outputs.append(output)) for block in blocks]
    run()
    for hook in hooks:
        hook.remove()
    return outputs


def encode(encoder: nn.Module) -> Model:
    return make_model(space=None, encoder=encoder.requires_grad_(False))


@torch.no_grad()
@pytest.mark.parametrize(("build", "blocks"), [(make_vit, "blocks"), (make_convvit, "blocks3")])
def test_layers_are_the_outputs_of_the_last_blocks_through_the_final_norm(build: Any, blocks: str) -> None:
    encoder, images = build(), torch.randn(2, 3, 16, 16)
    outputs = collect_outputs(list(getattr(encoder, blocks)), lambda: encoder(images))
    layers = encoder.layer_tokens(images, 3)
    first = 0 if layers[0].cls is None else 1
    for tokens, output in zip(layers, reversed(outputs), strict=True):
        centred = output.double() - output.double().mean(-1, keepdim=True)
        wanted = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()  # a LayerNorm as it is initialised
        torch.testing.assert_close(tokens.patches.double(), wanted[:, first:], atol=1e-5, rtol=0)
        if tokens.cls is not None:
            torch.testing.assert_close(tokens.cls.double(), wanted[:, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(layers[0].patches, encoder.tokens(images).patches, atol=1e-6, rtol=0)


@torch.no_grad()
def test_layers_of_a_timm_transformer_are_its_blocks_through_its_norm() -> None:
    network: Any = timm.create_model("test_vit", pretrained=False).eval()
    encoder, images = TimmEncoder(network, 160), torch.randn(2, 3, 160, 160)
    outputs = collect_outputs(list(network.blocks), lambda: network(images))
    for tokens, output in zip(encoder.layer_tokens(images, 3), reversed(outputs[-3:]), strict=True):
        wanted = network.norm(output)
        assert tokens.cls is not None
        torch.testing.assert_close(tokens.cls, wanted[:, 0], atol=1e-5, rtol=0)
        torch.testing.assert_close(tokens.patches, wanted[:, 1:], atol=1e-5, rtol=0)
        assert tokens.grid == (10, 10)


@torch.no_grad()
def test_layers_of_a_timm_network_of_convolutions_are_its_stages() -> None:
    network: Any = timm.create_model("test_efficientnet", pretrained=False).eval()
    encoder, images = TimmEncoder(network, 64), torch.randn(2, 3, 64, 64)
    last, before = encoder.layer_tokens(images, 2)
    torch.testing.assert_close(last.patches, encoder.tokens(images).patches)
    stages = collect_outputs(list(network.blocks), lambda: network(images))
    wanted = [stage for stage in stages if stage.shape[1] == before.patches.shape[2]][-1]
    torch.testing.assert_close(before.patches, wanted.flatten(2).transpose(1, 2))


@pytest.mark.parametrize("build", [make_vit, make_convvit])
@pytest.mark.parametrize("count", [0, 4])
def test_more_layers_than_there_are_is_bad_input(build: Any, count: int) -> None:
    with pytest.raises(InputError, match=f"expected 1 to 3, found {count}"):
        build().layer_tokens(torch.zeros(1, 3, 16, 16), count)


def test_the_poolings_of_each_layer_stand_beside_each_other() -> None:
    encoder, manifest = make_vit(), make_manifest()
    features = extract_features(encode(encoder), manifest, config=CONFIG, layers=2)
    assert set(features) == {"cls", "mean", "cls-2", "mean-2"}
    images = torch.from_numpy(np.stack(manifest.source.read(range(30)))).permute(0, 3, 1, 2)
    settings = Preprocessing(16, 16)
    layers = encoder.layer_tokens(normalize(images, settings.mean, settings.std), 2)
    np.testing.assert_allclose(features["cls-2"].features, layers[1].cls, atol=1e-5)
    np.testing.assert_allclose(features["mean-2"].features, layers[1].patches.mean(dim=1), atol=1e-5)
    np.testing.assert_allclose(features["mean"].features, layers[0].patches.mean(dim=1), atol=1e-5)


def test_a_stored_pass_with_more_layers_serves_one_with_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    model, manifest = encode(make_vit()), make_manifest()
    stored = extract_features(model, manifest, config=CONFIG, layers=3)
    for name in ("forward", "layer_tokens"):
        monkeypatch.setattr(VisionTransformer, name, None)  # nothing may be computed
    found = extract_features(model, manifest, config=CONFIG)
    assert set(found) == {"cls", "mean"}
    np.testing.assert_array_equal(found["mean"].features, stored["mean"].features)


def test_a_view_is_the_image_cropped_and_mirrored_by_seed_view_and_row() -> None:
    model, manifest = make_model(), make_manifest()
    rows = np.array([3, 4, 20])
    features = extract_features(model, manifest, config=replace(CONFIG, seed=5), rows=rows, crop=CROP, view=2)
    index, sides = torch.from_numpy(rows), torch.full((3,), 16)
    boxes = CROP.sample(sides, sides, seed=derive_seed(5, "crop", 2), index=index).numpy()
    flips = sample_flips(derive_seed(5, "flip", 2), index).tolist()
    crops = [CROP.apply(image, box) for image, box in zip(manifest.source.read(rows.tolist()), boxes, strict=True)]
    images = np.stack([crop[:, ::-1] if flip else crop for crop, flip in zip(crops, flips, strict=True)])
    settings = model.preprocessing
    tokens = model.encoder.tokens(
        normalize(torch.from_numpy(images).permute(0, 3, 1, 2), settings.mean, settings.std)
    ).patches.mean(dim=1)
    np.testing.assert_allclose(features["mean"].features, tokens.detach(), atol=1e-5)


def test_views_are_what_training_shows_in_that_epoch() -> None:
    model, manifest = make_model(), make_manifest()
    loader = TrainingLoader(manifest, CROP, batch_size=30, seed=0, in_memory="no", workers=0)
    (batch,) = loader.batches(epoch=3)
    settings = model.preprocessing
    shown = model.encoder.tokens(normalize(batch.images, settings.mean, settings.std)).patches.mean(dim=1).detach()
    features = extract_features(model, manifest, config=CONFIG, crop=CROP, view=3)["mean"].features
    np.testing.assert_allclose(features, shown[batch.index.argsort()], atol=1e-5)


def test_views_differ_from_each_other_and_from_the_plain_image() -> None:
    model, manifest = make_model(), make_manifest()
    found = [extract_features(model, manifest, config=CONFIG, crop=CROP, view=view)["mean"].features for view in (0, 1)]
    found.append(extract_features(model, manifest, config=CONFIG)["mean"].features)
    for one, other in combinations(found, 2):
        assert np.abs(one - other).max() > 0.1


def test_features_that_are_not_finite_are_counted_and_the_layer_that_they_come_from_is_named() -> None:
    encoder = make_vit()
    encoder.blocks[1].mlp.fc2.bias.data[5] = float("nan")
    message = (
        r"^cls of model tiny: 168 of 168 numbers are not finite, in 7 of 7 images; the first is row 0 of colours, "
        r"where layer blocks\.1\.mlp\.fc2 is the first to give such"
    )
    with pytest.raises(FloatingPointError, match=message):
        extract_features(encode(encoder), make_manifest(), config=CONFIG, layers=2)
    assert not any(module._forward_hooks for module in encoder.modules())


def test_only_images_with_bad_features_are_counted() -> None:
    model, manifest = make_model(space=None), make_manifest()
    model.encoder.activation.register_forward_hook(  # of bright corners
        lambda _, inputs, output: torch.where(inputs[0] > 6, torch.nan, output)
    )
    images = torch.from_numpy(np.stack(manifest.source.read(range(30)))).permute(0, 3, 1, 2)
    settings = Preprocessing(16, 16)
    embedded = model.encoder.embed(normalize(images, settings.mean, settings.std)).flatten(1)[:7]
    bad = (embedded > 6).any(dim=1)
    assert 0 < bad.sum() < 7
    first = int(bad.int().argmax())
    with pytest.raises(
        FloatingPointError, match=f"in {int(bad.sum())} of 7 images; the first is row {first} of.*activ"
    ):
        extract_features(model, manifest, config=CONFIG)


def test_features_of_which_some_images_were_skipped_stay_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, config = make_manifest(30, bad=(0, 13, 29)), replace(CONFIG, on_bad_image="skip")
    expected = extract_features(make_model(), manifest, config=config)["mean"]
    assert not isinstance(expected.features.base, np.memmap) and len(expected.index) == 27
    monkeypatch.setattr(store, "_RESIDENT_BYTES", 0)
    monkeypatch.setattr(store, "_COPIED_ROWS", 4)
    found = extract_features(make_model(), manifest, config=config)["mean"]
    assert isinstance(found.features, np.memmap) and not found.features.flags.writeable
    np.testing.assert_array_equal(found.features, expected.features)
    np.testing.assert_array_equal(found.index, np.setdiff1d(np.arange(30), (0, 13, 29)))
