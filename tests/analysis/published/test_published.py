"""The published numbers that the project keeps."""

from __future__ import annotations

import csv
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest

from analysis.foreground.numbers import PUBLISHED, PUBLISHED_MASKED, PUBLISHED_NOTE
from analysis.published import NAMES, PublicWeights, read_checkpoints, read_published, read_recipes
from analysis.tables import build_published
from pixmim_eval.transfer.detection.recipes import RECIPES as DETECTION
from pixmim_eval.transfer.recipes import RECIPES as FINETUNING
from pixmim_eval.transfer.segmentation.recipes import RECIPES as SEGMENTATION

COMMON = ["method", "backbone", "epochs", "dataset", "metric", "value", "printed", "source", "confidence", "note"]


@pytest.mark.parametrize("name", NAMES)
def test_every_number_has_a_source_and_a_confidence(name: str) -> None:
    published = read_published(name)
    assert [column for column in published if column in COMMON] == COMMON
    assert set(published["confidence"]) <= {"exact", "secondary", "approximate"}
    assert (published["source"].str.len() > 0).all() and (published["printed"].str.len() > 0).all()
    assert published["value"].dropna().between(0, 100).all()
    assert not published.duplicated().any()
    no_numbers = published["value"].isna()
    assert not no_numbers.any() or name == "ablations"


def test_known_numbers_are_there() -> None:
    robustness = read_published("robustness")
    base = robustness[(robustness["backbone"] == "ViT-B/16") & (robustness["metric"] == "mce_15")]
    assert base["value"].tolist() == [51.7]
    main = read_published("main_results")
    pixmim = main[(main["method"] == "PixMIM-MAE") & (main["epochs"] == 800)]
    assert dict(zip(pixmim["metric"], pixmim["value"], strict=True)) == {"ft_top1": 83.5, "lin_top1": 67.5}
    bias = read_published("shape_bias").set_index(["method", "backbone"])["value"]
    golden = {("people, trials pooled", ""): 95.869, ("supervised, Caffe", "VGG-16"): 17.219}
    golden |= {("supervised, Caffe", "AlexNet"): 42.944, ("supervised, Caffe", "GoogLeNet"): 31.19}
    assert {key: bias[key] for key in golden} == golden
    assert bias["supervised", "ResNet-50"].tolist() == [22.071, 21.39]
    overlaps = read_published("foreground_overlap")
    mean_box = overlaps[overlaps["metric"] == "overlap_mean_box"].set_index("method")["value"]
    assert mean_box.to_dict() == {"rrc-0.2": 64.3, "rrc-0.08": 56.58, "src": 86.3, "cc-224": 88.49, "cc-256-224": 78.62}


@pytest.mark.parametrize("name", NAMES)
def test_no_number_differs_from_the_facts_beside_the_project(name: str, shared_data: Path) -> None:
    facts = shared_data.parent / "facts" / f"{name}.csv"
    if not facts.is_file():
        pytest.skip(f"no facts at {facts}")
    with facts.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("metric") != "pass_bins"]  # of no publication's results
    values = [row.get("value") or row.get("shape_bias") or row.get("foreground_percent") for row in rows]
    ours = read_published(name)
    assert sorted(ours["printed"]) == sorted(str(value) for value in values)
    assert sorted(ours["confidence"]) == sorted(row["confidence"] for row in rows)


def test_digits_are_kept_and_unknown_epochs_are_empty() -> None:
    main = read_published("main_results")
    assert "68.0" in set(main["printed"])
    assert read_published("robustness")["epochs"].dtype == pd.Int64Dtype()
    assert read_published("robustness")["epochs"].isna().any()


def test_what_is_no_number_is_kept_as_text() -> None:
    ablations = read_published("ablations")
    texts = ablations[ablations["value"].isna()].set_index("metric")["printed"]
    assert texts["top1_direction"] == "lower" and texts["lin_top1_direction"] == "higher"
    assert texts["radius_px"] == "0..112 (= min(h,w)/2)" and len(texts) == 4


@pytest.mark.parametrize("name", NAMES)
def test_a_table_shows_every_number_as_printed_and_numbers_its_notes(name: str) -> None:
    published, table = read_published(name), build_published(name)
    values = [row[table.head.index("value")].text for row in table.rows]
    assert values == published["printed"].tolist()
    for row, note in zip(table.rows, published["note"], strict=True):
        assert not note or f"{row[-1].text} {note}" in table.notes
    assert ("setting" in table.head) == (name == "ablations")


def test_overlaps_beside_ours_come_from_the_table() -> None:
    assert PUBLISHED == {"rrc-0.2": 0.683, "src": 0.884} and PUBLISHED_MASKED == {"rrc-0.2": 0.171, "src": 0.221}
    assert "RRC 68.3, with a 75 % mask 17.1; SRC with the mask 22.1, from which 88.4 follows." in PUBLISHED_NOTE


def test_published_recipes_are_those_that_we_offer() -> None:
    """Read from the releases for the tables; typed from them again where the recipes are."""
    ours = {f"finetune-{name}": asdict(recipe) | {"train": 1281167} for name, recipe in FINETUNING.items()}
    ours["segmentation-mae-b"] = asdict(SEGMENTATION["published"])
    ours["segmentation-convmae-b"] = asdict(SEGMENTATION["published-convmae"])
    ours |= {f"detection-{name}": asdict(recipe) for name, recipe in DETECTION.items()}
    recipes = read_recipes()
    checked = 0
    for name in recipes.keys() & ours.keys():
        for setting, published in recipes[name].items():
            if setting in ours[name] and setting not in ("train", "global_blocks"):
                found = ours[name][setting]
                same = {str(found)} | ({str(float(found))} if isinstance(found, float | int) else set())
                read = {str(float(value)) if _is_number(value) else value for value in published.split("|")}
                assert same & (read | set(published.split("|"))), (name, setting)
                checked += 1
    assert checked > 120
    linear = recipes["linear-mae-b"]
    assert (linear["base_lr"], linear["batch"], linear["epochs"], linear["warmup"]) == ("0.1", "16384", "90", "10")
    assert recipes["detection-convmae-b"]["global_blocks"] == "0+3+6+10"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def test_every_recipe_that_a_number_names_is_there() -> None:
    named = set(read_published("main_results")["recipe"]) - {"", "own"}
    assert named == set(read_recipes())


def test_public_weights_are_of_methods_with_published_numbers() -> None:
    checkpoints = read_checkpoints()
    assert checkpoints["mae_pretrain_vit_base"] == PublicWeights("MAE", "ViT-B/16", 1600)
    assert checkpoints["resnet50.tv_in1k"].epochs is None
    known = {*read_published("main_results")["method"], *read_published("shape_bias")["method"]}
    assert {weights.method for weights in checkpoints.values()} <= known
