"""What rows say of a model's pretraining."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from pixmim_eval.models.catalog import load_models
from pixmim_eval.pretraining import describe_pretraining
from pixmim_eval.results import make_rows
from pixmim_eval.types import Estimate, LabelSpace, Manifest, SuiteConfig
from pretrain.recipes import DEIT3_64, MAE_64, MASKED_FIELDS, PIXMIM, Recipe


def describe(recipe: Recipe, **changes: object) -> str:
    return drop_others(describe_pretraining({"recipe": {**asdict(recipe), **changes}}))


def drop_others(text: str) -> str:
    return re.sub(r"others=[0-9a-f]{8};?", "", text)


def read_others(recipe: Recipe) -> str:
    found = re.search(r"others=([0-9a-f]{8})", describe_pretraining({"recipe": asdict(recipe)}))
    assert found
    return found[1]


def test_trainings_that_differ_in_nothing_else_share_the_digest_of_their_other_settings() -> None:
    same = [MAE_64, replace(MAE_64, target="lowfreq", radius=4), replace(MAE_64, crop="cc", seed=7, workers=9)]
    assert len({read_others(recipe) for recipe in same}) == 1
    changed = [
        replace(MAE_64, epochs=5),
        replace(MAE_64, mask_ratio=0.5),
        replace(MAE_64, crop_scale_min=0.1),
        DEIT3_64,
    ]
    assert len({read_others(recipe) for recipe in (MAE_64, *changed)}) == 5


def test_a_recipe_is_told_by_what_ablations_vary() -> None:
    pixmim = replace(MAE_64, **PIXMIM, seed=3)
    assert describe(pixmim) == "crop=src;image_size=64;radius=11.43;seed=3;target=lowfreq"
    assert describe(pixmim, radius=12) == "crop=src;image_size=64;radius=12;seed=3;target=lowfreq"


def test_the_size_of_the_images_is_told_and_tells_no_arms_apart() -> None:
    small, large = ({"recipe": {**asdict(MAE_64), "data_side": side}} for side in (64, 500))
    assert "data_side=64;image_size=64" in describe_pretraining(small)
    assert describe_pretraining(small).replace("=64;im", "=500;im") == describe_pretraining(large)
    assert "data_side" not in describe_pretraining({"recipe": {**asdict(MAE_64), "data_side": 0}})


def test_a_target_without_a_radius_names_none() -> None:
    assert describe(MAE_64) == "crop=rrc;image_size=64;seed=0;target=normalised"


def test_a_method_with_labels_has_no_target() -> None:
    kept = {key: value for key, value in asdict(replace(DEIT3_64, crop="cc")).items() if key not in MASKED_FIELDS}
    assert drop_others(describe_pretraining({"recipe": kept})) == "crop=cc;image_size=64;seed=0"


def test_recipes_from_before_targets_had_names_are_read() -> None:
    old = {"crop": "src", "image_size": 64, "seed": 0, "normalise_target": True, "radius": 11.43}
    start = "crop=src;image_size=64"
    assert drop_others(describe_pretraining({"recipe": old})) == f"{start};radius=11.43;seed=0;target=lowfreq"
    plain = describe_pretraining({"recipe": {**old, "radius": 0.0}})
    assert drop_others(plain) == f"{start};seed=0;target=normalised"
    raw = {**old, "radius": 0.0, "normalise_target": False}
    assert drop_others(describe_pretraining({"recipe": raw})) == f"{start};seed=0;target=pixels"


@pytest.mark.parametrize(
    "changes",
    [{"crop": "src;target=x"}, {"crop": ["src"]}, {"target": {}}, {"radius": float("nan")}, {"radius": "40;seed=9"}],
)
def test_what_is_in_no_words_of_ours_is_left_out(changes: dict[str, object]) -> None:
    found = describe(replace(MAE_64, **PIXMIM), **changes).split(";")
    whole = describe(replace(MAE_64, **PIXMIM)).split(";")
    assert set(found) < set(whole) and len(found) < len(whole)


@pytest.mark.parametrize("settings", [{}, {"args": {"norm_pix_loss": True}}, {"recipe": None}, {"recipe": "mae"}])
def test_files_that_are_not_ours_tell_nothing(settings: dict[str, object]) -> None:
    assert describe_pretraining(settings) == ""


def test_rows_of_a_checkpoint_tell_its_pretraining() -> None:
    space = LabelSpace("names-1", ("cat",))
    data = Manifest("pets", np.array(["a"]), np.array([0]), space, "d" * 16, source=None)  # type: ignore[arg-type]
    shared = {"suite": "robustness", "condition": "clean", "protocol": "", "config": SuiteConfig(data={}, out=Path())}
    found = [make_rows(model, data, {"top1": Estimate(0, 0, 1, 1)}, **shared)[0] for model in load_models()]  # type: ignore[arg-type]
    assert [drop_others(row.pretraining) for row in found] == [
        "crop=rrc;image_size=64;seed=0;target=normalised",
        "crop=src;image_size=64;radius=11.43;seed=0;target=lowfreq",
    ]
