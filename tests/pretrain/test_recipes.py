"""Published settings, number by number."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pixmim_eval.data.crops import CenterCrop, RandomResizedCrop, SimpleResizedCrop
from pixmim_eval.data.shapes16 import manifest
from pixmim_eval.errors import InputError
from pixmim_eval.models.convvit import CONV_ARCHITECTURES
from pixmim_eval.training import scale_learning_rate
from pretrain.methods import METHODS, SUPERVISED_METHODS
from pretrain.recipes import (
    RECIPES,
    Recipe,
    build_crop,
    check_recipe,
    describe_method,
    get_recipe,
    read_settings,
)
from pretrain.task import MaskedImageModeling


@pytest.mark.parametrize(
    ("name", "parameters"), [("mae-vit-b16", 111_907_840), ("mae-vit-l16", 329_541_888), ("mae-vit-h14", 657_074_508)]
)
def test_models_have_the_published_number_of_parameters(name: str, parameters: int) -> None:
    with torch.device("meta"):
        model = METHODS["mae"](get_recipe(name))
    counted = sum(tensor.numel() for tensor in model.public_tensors().values())
    assert counted == parameters


def test_the_mae_recipe_holds_the_published_settings() -> None:
    recipe = get_recipe("mae-vit-b16")
    assert (recipe.patch, recipe.dim, recipe.depth, recipe.heads) == (16, 768, 12, 12)
    assert (recipe.decoder_dim, recipe.decoder_depth, recipe.decoder_heads) == (512, 8, 16)
    assert (recipe.batch_size, recipe.epochs, recipe.warmup_epochs, recipe.min_lr) == (4096, 800, 40, 0)
    assert (recipe.beta1, recipe.beta2, recipe.weight_decay, recipe.mask_ratio) == (0.9, 0.95, 0.05, 0.75)
    assert scale_learning_rate(recipe.base_lr, recipe.batch_size) == pytest.approx(2.4e-3)
    assert build_crop(recipe) == RandomResizedCrop(224, scale=(0.2, 1.0))
    assert recipe.target == "normalised"


def test_the_convmae_recipe_holds_the_published_settings() -> None:
    recipe = get_recipe("convmae-vit-b16")
    with torch.device("meta"):
        model = METHODS["convmae"](recipe)
    assert model.architecture == CONV_ARCHITECTURES["convvit-b16"]
    changed = {key: value for key, value in vars(recipe).items() if value != vars(get_recipe("mae-vit-b16"))[key]}
    assert changed == {"method": "convmae", "depth": 11, "epochs": 1600, "batch_size": 3072}
    assert scale_learning_rate(recipe.base_lr, recipe.batch_size) == pytest.approx(1.8e-3)


def test_the_lsmae_recipe_holds_the_published_settings() -> None:
    recipe = get_recipe("lsmae-vit-b16")
    changed = {key: value for key, value in vars(recipe).items() if value != vars(get_recipe("mae-vit-b16"))[key]}
    assert changed == {
        **{"method": "lsmae", "image_size": 448, "mask_unit": 2},
        **{"decoder_dim": 384, "decoder_heads": 12},
    }
    with torch.device("meta"):
        model = METHODS["lsmae"](recipe)
    masking = model.draw_mask(torch.rand(1, model.units))
    assert (model.units, masking.visible.shape[1], masking.masked.shape[1]) == (196, 196, 588)


def test_pixmim_is_a_target_and_a_crop() -> None:
    mae, pixmim = vars(get_recipe("mae-vit-b16")), vars(get_recipe("pixmim-mae-vit-b16"))
    changed = {key: value for key, value in pixmim.items() if value != mae[key]}
    assert changed == {"target": "lowfreq", "crop": "src", "decay_tokens": False}
    assert pixmim["radius"] == 40
    assert build_crop(get_recipe("pixmim-mae-vit-b16")) == SimpleResizedCrop(224, padding=4)


def test_the_small_radius_is_the_same_share_of_the_band() -> None:
    assert get_recipe("pixmim-mae-64px").radius / 32 == pytest.approx(40 / 112, abs=1e-3)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "mae"),
        ({"target": "lowfreq", "crop": "src"}, "pixmim-mae"),
        ({"target": "lowfreq"}, "mae+low-frequency"),
        ({"crop": "src"}, "mae+src"),
        ({"crop": "cc", "target": "lowfreq"}, "mae+low-frequency+cc"),
        ({"target": "pixels"}, "mae+pixels"),
        ({"method": "lsmae", "target": "lowfreq", "crop": "src"}, "pixmim-lsmae"),
    ],
)
def test_methods_are_named_by_what_differs(changes: dict[str, object], name: str) -> None:
    assert describe_method(Recipe(**changes)) == name  # type: ignore[arg-type]


def test_a_centre_crop_is_a_crop() -> None:
    assert build_crop(Recipe(crop="cc")) == CenterCrop(224)


def test_every_recipe_builds() -> None:
    for recipe in RECIPES.values():
        with torch.device("meta"):
            if recipe.method in SUPERVISED_METHODS:
                SUPERVISED_METHODS[recipe.method](recipe, 1000)
            else:
                METHODS[recipe.method](recipe)
        check_recipe(recipe)
        build_crop(recipe)


@pytest.mark.parametrize(("name", "tokens_decayed"), [("mae-64px", True), ("pixmim-mae-64px", False)])
def test_vectors_and_biases_are_not_decayed_and_tokens_as_published(name: str, tokens_decayed: bool) -> None:
    data = manifest(variant="train", count=256)
    task = MaskedImageModeling(get_recipe(name), data, device=torch.device("cpu"))
    decayed, exempt = task.parameter_groups()
    names = {id(parameter): key for key, parameter in task.model.named_parameters()}
    assert len(decayed["params"]) + len(exempt["params"]) == len(names)
    assert (decayed["weight_decay"], exempt["weight_decay"]) == (0.05, 0.0)
    for parameter in decayed["params"]:
        assert parameter.ndim >= 2
    in_decayed = {names[id(parameter)] for parameter in decayed["params"]}
    assert ("encoder.cls_token" in in_decayed) == ("decoder.mask_token" in in_decayed) == tokens_decayed
    assert "encoder.blocks.0.attn.qkv.bias" not in in_decayed


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"save_every": 0}, "save-every"),
        ({"accumulate": 0}, "accumulate"),
        ({"mask_ratio": 0.0}, "mask-ratio"),
        ({"mask_ratio": 0.999}, "mask-ratio"),
        ({"decoder_heads": 3}, "decoder-dim"),
        ({"epochs": 0}, "epochs"),
        ({"mask_unit": 0}, "mask-unit"),
        ({"mask_unit": 3}, "mask-unit"),
        ({"method": "convmae", "patch": 14}, "patch"),
    ],
)
def test_numbers_that_make_no_sense_are_refused_before_anything_runs(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError, match=f"--{field}"):
        check_recipe(Recipe(**changes))


@pytest.mark.parametrize(
    ("before", "target"),
    [
        ({"normalise_target": True, "radius": 0.0}, "normalised"),
        ({"normalise_target": False, "radius": 0.0}, "pixels"),
        ({"normalise_target": True, "radius": 11.43}, "lowfreq"),
        ({"target": "pixels", "radius": 11.43}, "pixels"),
    ],
)
def test_settings_of_earlier_runs_are_read_in_today_s_terms(before: dict[str, Any], target: str) -> None:
    settings = read_settings(before)
    assert (settings["target"], settings["radius"]) == (target, before["radius"])
    assert settings.keys() == vars(Recipe()).keys()


def test_settings_that_no_recipe_has_today_equal_none_of_them() -> None:
    before = read_settings({"normalise_target": False, "radius": 11.43})
    assert before["target"] not in ("pixels", "normalised", "lowfreq")
