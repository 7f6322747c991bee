"""Models by file, glob and timm name."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from pixmim_eval.errors import InputError
from pixmim_eval.models.catalog import FEW, LazyModels, load_models
from pixmim_eval.models.checkpoints import ours
from pixmim_eval.models.checkpoints.building import name_backbone
from pixmim_eval.models.convvit import CONV_ARCHITECTURES
from pixmim_eval.models.timm_models import load_timm
from pixmim_eval.models.vit import ARCHITECTURES, Architecture, VisionTransformer

TINY = Architecture(patch=8, dim=24, depth=1, heads=2)
CONVOLUTIONAL, TRANSFORMER = "test_efficientnet", "test_vit"


def write(path: Path, method: str, epoch: int) -> Path:
    torch.manual_seed(epoch + len(method))
    tensors = VisionTransformer(32, TINY).state_dict()
    ours.write(path, tensors, architecture=TINY, image_size=32, method=method, epoch=epoch, recipe={})
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("timm") / "weights.pth"
    torch.save(timm.create_model(CONVOLUTIONAL).state_dict(), path)
    return path


def test_a_glob_gives_every_file_once_under_a_name_of_its_own(tmp_path: Path) -> None:
    for epoch in (10, 20):
        write(tmp_path / "mae" / f"epoch-{epoch:04d}.safetensors", "mae", epoch)
    write(tmp_path / "pixmim" / "epoch-0020.safetensors", "pixmim-mae", 20)
    models = load_models([f"{tmp_path}/*/epoch-*.safetensors", f"{tmp_path}/mae/epoch-0010.safetensors"])
    assert [model.name for model in models] == ["mae-10", "mae-20", "pixmim-mae-20"]
    assert len({model.digest for model in models}) == 3
    assert [model.epoch for model in models] == [10, 20, 20]
    assert models[0].preprocessing.size == models[0].preprocessing.resize == 32


def test_runs_of_one_method_are_told_apart_by_their_folder(tmp_path: Path) -> None:
    paths = [write(tmp_path / run / "epoch-0005.safetensors", "mae", 5) for run in ("a", "b")]
    names = [model.name for model in load_models([str(path) for path in paths])]
    assert names == ["mae-5:a/epoch-0005", "mae-5:b/epoch-0005"]


def test_runs_in_folders_of_one_name_are_told_apart_by_their_weights(tmp_path: Path) -> None:
    paths = [write(tmp_path / seed / "mae" / "epoch-0005.safetensors", "mae", 5) for seed in ("a", "b")]
    tensors = VisionTransformer(32, TINY).state_dict()
    ours.write(paths[1], tensors, architecture=TINY, image_size=32, method="mae", epoch=5, recipe={})
    assert len({model.name for model in load_models([str(path) for path in paths])}) == 2


def test_epochs_that_only_one_run_of_a_method_has_are_told_apart_too(tmp_path: Path) -> None:
    """A name less its epoch names a run: curves are drawn by it."""
    paths = [
        write(tmp_path / run / f"epoch-{e:04d}.safetensors", "mae", e) for run, e in (("a", 5), ("a", 10), ("b", 7))
    ]
    paths.append(write(tmp_path / "c" / "epoch-0007.safetensors", "pixmim-mae", 7))
    names = [model.name for model in load_models([str(path) for path in paths])]
    assert names == ["mae-5:a/epoch-0005", "mae-10:a/epoch-0010", "mae-7:b/epoch-0007", "pixmim-mae-7"]


def test_as_much_of_a_folder_is_named_as_tells_runs_apart(tmp_path: Path) -> None:
    paths = [write(tmp_path / run / "seed-0" / "epoch-0005.safetensors", "mae", 5) for run in ("slow", "fast")]
    names = [model.name for model in load_models([str(path) for path in paths])]
    assert names == ["mae-5:slow/seed-0/epoch-0005", "mae-5:fast/seed-0/epoch-0005"]


def test_of_many_models_each_is_loaded_when_it_is_asked_for_under_the_name_it_has_among_all(tmp_path: Path) -> None:
    for run in ("a", "b"):
        for epoch in range(1, 1 + FEW):
            write(tmp_path / run / f"epoch-{epoch:04d}.safetensors", "mae", epoch)
    models = load_models([f"{tmp_path}/*/*.safetensors"])
    assert isinstance(models, LazyModels) and len(models) == 2 * FEW
    assert [model.name for model in models][FEW - 1 : FEW + 1] == [f"mae-{FEW}:a/epoch-000{FEW}", "mae-1:b/epoch-0001"]
    assert models[0] is not models[0] and models[-1].epoch == FEW
    assert [model.epoch for model in models[1:3]] == [2, 3]
    more = models + models[:1]
    assert len(more) == 2 * FEW + 1 and more[-1] is more[2 * FEW] and more[-1].epoch == 1
    with pytest.raises(IndexError):
        more[2 * FEW + 1]


def test_weights_of_one_architecture_in_two_folders_have_two_names(tmp_path: Path, weights: Path) -> None:
    for run in ("a", "b"):
        (tmp_path / run).mkdir()
        shutil.copy(weights, tmp_path / run / "last.pth")
    models = load_models([f"{tmp_path}/*/last.pth"], [CONVOLUTIONAL])
    assert [model.name for model in models] == [f"{CONVOLUTIONAL}:last:a/last", f"{CONVOLUTIONAL}:last:b/last"]


def test_a_glob_without_files_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected at least one file, found none"):
        load_models([f"{tmp_path}/*.safetensors"])


def test_an_unknown_timm_name_gets_close_matches() -> None:
    with pytest.raises(InputError, match=r"Did you mean .*resnet50"):
        load_models(names=["resnet5O"])


def test_a_timm_classifier_with_weights_of_a_file_gives_its_own_logits(weights: Path) -> None:
    (model,) = load_models([str(weights)], [CONVOLUTIONAL])
    network = timm.create_model(CONVOLUTIONAL)
    network.load_state_dict(torch.load(weights, weights_only=True))
    images = torch.randn(2, 3, 160, 160)
    assert model.classify is not None
    assert model.label_space is not None
    assert (model.label_space.name, model.label_space.classes[0]) == ("imagenet-1k", "n01440764")
    torch.testing.assert_close(model.classify(images), network.eval()(images))
    settings = timm.data.resolve_data_config(model=network)
    assert model.preprocessing.size == settings["input_size"][-1]
    assert model.preprocessing.mean == settings["mean"]


def test_weights_under_other_names_are_taken_in_order_where_kind_and_shape_agree(tmp_path: Path, weights: Path) -> None:
    tensors = torch.load(weights, weights_only=True)
    renamed = {f"_layer.{i}.{key.rsplit('.', 1)[-1]}": value for i, (key, value) in enumerate(tensors.items())}
    torch.save(renamed, tmp_path / "renamed.pth")
    assert load_timm(CONVOLUTIONAL, tmp_path / "renamed.pth").digest == load_timm(CONVOLUTIONAL, weights).digest
    swapped = dict(reversed(renamed.items()))
    torch.save(swapped, tmp_path / "swapped.pth")
    with pytest.raises(InputError, match=r"expected the .* tensors of timm's"):
        load_timm(CONVOLUTIONAL, tmp_path / "swapped.pth")


def test_weights_of_another_architecture_are_refused(weights: Path) -> None:
    with pytest.raises(InputError, match=r"missing .*; unknown"):
        load_timm(TRANSFORMER, weights)


@pytest.mark.parametrize("name", [CONVOLUTIONAL, TRANSFORMER])
def test_tokens_of_a_timm_model_are_its_last_features(tmp_path: Path, name: str) -> None:
    torch.save(timm.create_model(name).state_dict(), tmp_path / "w.pth")
    model = load_timm(name, tmp_path / "w.pth")
    images = torch.randn(2, 3, 160, 160)
    tokens = model.encoder.tokens(images)
    features = model.encoder.network.forward_features(images)
    if name == TRANSFORMER:
        assert torch.equal(tokens.cls, features[:, 0])
        assert torch.equal(tokens.patches, features[:, 1:])
    else:
        assert tokens.cls is None
        torch.testing.assert_close(tokens.patches.mean(1), features.mean((2, 3)))
    rows, columns = tokens.grid
    assert tokens.patches.shape == (2, rows * columns, model.encoder.dim)
    assert 160 // model.encoder.patch == rows


@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        *((ARCHITECTURES[key], name) for key, name in {"vit-b16": "ViT-B/16", "vit-h14": "ViT-H/14"}.items()),
        (replace(ARCHITECTURES["vit-l16"], patch=14), "ViT/14 24x1024"),
        (CONV_ARCHITECTURES["convvit-b16"], "ConvViT-B"),
        (replace(CONV_ARCHITECTURES["convvit-b16"], depths=(1, 2, 3)), "ConvViT/16 1x256, 2x384, 3x768"),
    ],
)
def test_a_backbone_is_called_what_papers_call_it(architecture: Any, name: str) -> None:
    assert name_backbone(architecture) == name


def test_models_say_what_their_backbone_is(weights: Path) -> None:
    assert {model.backbone for model in load_models()} == {"ViT/8 4x96"}
    assert load_timm(CONVOLUTIONAL, weights).backbone == CONVOLUTIONAL
