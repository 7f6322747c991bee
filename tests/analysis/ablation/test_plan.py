"""The arms of an ablation are these commands and no others, and bad wishes are refused by name."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.ablation.basis import SHARED_FLAGS, Basis, find_counterpart, split_recipe, split_suite
from analysis.ablation.plan import Plan, make_plan
from analysis.ablation.state import FREE_FIELDS
from pixmim_eval.errors import InputError
from pretrain.recipes import MASKED_FIELDS, RECIPES, SUPERVISED
from pretrain.run import FREE_FIELDS as FREE_OF_PRETRAINING
from pretrain.run import parse_options

Make = Callable[..., Basis]
SUITES = [("linear_probe", "--views", "0"), ("knn",)]


def list_commands(plan: Plan) -> list[str]:
    return [shlex.join(step.command) for arm in plan.arms for step in arm.steps]


def test_bandwidth_is_a_target_at_each_radius_and_the_plain_one(make_basis: Make) -> None:
    basis = make_basis("pixmim-mae-64px --epochs 3", crop="src", target="lowfreq")
    plan = make_plan("bandwidth", Path("out"), [basis], data="DATA", suites=SUITES, radii=[64, 5, 5.0])
    begin = "python -m pretrain.run --recipe pixmim-mae-64px --epochs 3 --target"
    probe, knn = "python -m pixmim_eval.run --suite linear_probe --views 0", "python -m pixmim_eval.run --suite knn"
    assert list_commands(plan) == [
        f"{begin} lowfreq --radius 5 --data DATA --out out/pretrain/r5",
        f"{probe} --checkpoint out/pretrain/r5/epoch-0003.safetensors --data DATA --out out/evaluation/r5",
        f"{knn} --checkpoint out/pretrain/r5/epoch-0003.safetensors --data DATA --out out/evaluation/r5",
        f"{begin} lowfreq --radius 64 --data DATA --out out/pretrain/r64",
        f"{probe} --checkpoint out/pretrain/r64/epoch-0003.safetensors --data DATA --out out/evaluation/r64",
        f"{knn} --checkpoint out/pretrain/r64/epoch-0003.safetensors --data DATA --out out/evaluation/r64",
        f"{begin} normalised --data DATA --out out/pretrain/plain",
        f"{probe} --checkpoint out/pretrain/plain/epoch-0003.safetensors --data DATA --out out/evaluation/plain",
        f"{knn} --checkpoint out/pretrain/plain/epoch-0003.safetensors --data DATA --out out/evaluation/plain",
    ]
    assert {arm.settings["crop"] for arm in plan.arms} == {"src"}
    assert plan.arms[0].label == "r = 5 cycles per image, 0.078 of Nyquist"


@pytest.mark.parametrize(
    ("size", "names"),
    [
        (224, ["r5", "r10", "r20", "r40", "r80", "r112", "plain"]),
        (64, ["r1.43", "r2.86", "r5.71", "r11.43", "r22.86", "r32", "plain"]),
    ],
)
def test_default_radii_are_the_same_shares_of_every_band(make_basis: Make, size: int, names: list[str]) -> None:
    plan = make_plan("bandwidth", Path("out"), [make_basis(image_size=size)], data="DATA", suites=[])
    assert [arm.name for arm in plan.arms] == names


def test_crop_is_three_crops_of_both_recipes(make_basis: Make) -> None:
    bases = [make_basis("mae-64px"), make_basis("deit3-64px", method="deit3", supervised=True)]
    plan = make_plan("crop", Path("out"), bases, data="DATA", suites=[("knn",)], evaluation_data=["train=T", "val=V"])
    expected = []
    for method, recipe in (("mae", "mae-64px"), ("deit3", "deit3-64px")):
        for crop in ("rrc", "src", "cc"):
            arm = f"{method}-{crop}"
            expected.append(
                f"python -m pretrain.run --recipe {recipe} --crop {crop} --data DATA --out out/pretrain/{arm}"
            )
            expected.append(
                f"python -m pixmim_eval.run --suite knn --checkpoint out/pretrain/{arm}/epoch-0003.safetensors "
                f"--data train=T val=V --out out/evaluation/{arm}"
            )
    assert list_commands(plan) == expected
    assert [arm.label for arm in plan.arms][::3] == ["MAE, RRC", "DeiT III, RRC"]


def test_components_are_target_and_crop_each_alone_and_both(make_basis: Make) -> None:
    plan = make_plan("components", Path("out"), [make_basis("pixmim-mae-64px")], data="DATA", suites=[], gpus=4)
    begin = "torchrun --standalone --nproc-per-node 4 -m pretrain.run --recipe pixmim-mae-64px"
    assert list_commands(plan) == [
        f"{begin} --target normalised --crop rrc --data DATA --out out/pretrain/base",
        f"{begin} --target lowfreq --crop rrc --data DATA --out out/pretrain/target",
        f"{begin} --target normalised --crop src --data DATA --out out/pretrain/crop",
        f"{begin} --target lowfreq --crop src --data DATA --out out/pretrain/both",
    ]


def test_a_suite_may_take_part_twice_and_paths_are_no_patterns(make_basis: Make) -> None:
    suites = [("knn",), ("knn", "--pooling", "mean")]
    plan = make_plan("components", Path("o[1]"), [make_basis()], data="DATA", suites=suites)
    assert [step.name for step in plan.arms[0].steps] == ["pretraining", "knn", "knn#2"]
    assert "o[[]1]/pretrain/base/epoch-0003.safetensors" in plan.arms[0].steps[1].command


def test_the_counterpart_of_a_masked_recipe_takes_over_what_both_have() -> None:
    words = (
        "pixmim-mae-64px",
        "--epochs",
        "8",
        "--base-lr=1e-3",
        "--decoder-depth",
        "2",
        "--image-size=128",
        "--compile",
    )
    assert find_counterpart(words) == ("deit3-64px", "--epochs", "8", "--image-size=128", "--compile")
    assert all("deit3-" + name.partition("-")[2] in RECIPES for name in ("mae-64px", "mae-vit-b16"))
    known = {*vars(parse_options([])), *RECIPES["deit3-64px"].__dataclass_fields__} - {*MASKED_FIELDS}
    assert {flag.removeprefix("--").removeprefix("no-").replace("-", "_") for flag in SHARED_FLAGS} <= known
    assert SUPERVISED == ("deit3",)


def test_what_may_change_is_what_pretraining_lets_change() -> None:
    assert FREE_FIELDS == FREE_OF_PRETRAINING


@pytest.mark.parametrize(
    ("short_side", "size", "said", "not_said"),
    [
        (64, 64, ["nothing above 32 cycles", "shrunk", "r32 therefore takes hardly anything away"], ["enlarged"]),
        (64, 128, ["nothing above 32 cycles", "enlarged to 128 px", "r45.71, r64 therefore"], ["r22.86"]),
        (128, 128, ["up to 64 cycles"], ["Warning"]),
        (375, 224, ["up to 112 cycles"], ["Warning"]),
    ],
)
def test_images_without_detail_are_warned_of(
    make_basis: Make, short_side: int, size: int, said: list[str], not_said: list[str]
) -> None:
    basis = make_basis(image_size=size, short_side=short_side)
    notes = " ".join(make_plan("bandwidth", Path("out"), [basis], data="DATA", suites=[]).notes)
    assert all(words in notes for words in said)
    assert not any(words in notes for words in not_said)


@pytest.mark.parametrize(
    ("name", "changes", "radii", "words"),
    [
        ("bandwidth", {}, [65.0], ["at most Nyquist's 64 cycles of 128 px", "found 65"]),
        ("bandwidth", {}, [0.0], ["found 0"]),
        ("bandwidth", {}, [float("nan")], ["found nan"]),
        ("bandwidth", {"supervised": True}, [], ["learns from labels", "--recipe mae-64px"]),
        ("components", {"supervised": True}, [], ["learns from labels"]),
        ("crop", {"supervised": True}, [], ["learns from labels", "--supervised"]),
        ("components", {"radius": 65.0}, [], ["found 65", "--radius 22.86"]),
        ("crop", {"steps": 0, "images": 9}, [], ["at least the 10 images", "found 9 images"]),
    ],
)
def test_what_cannot_be_is_refused(
    make_basis: Make, name: str, changes: dict[str, object], radii: list[float], words: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        make_plan(name, Path("out"), [make_basis(**changes)], data="DATA", suites=[], radii=radii)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    ("text", "found"),
    [("mae-64px --target pixels", "--target"), ("mae-64px --out=x", "--out=x"), ("--epochs 3", "--epochs"), ("'", "'")],
)
def test_flags_that_the_ablation_sets_are_refused(text: str, found: str) -> None:
    with pytest.raises(InputError, match=found):
        split_recipe(text, ("target", "radius"))


def test_suites_leave_models_and_data_to_the_ablation() -> None:
    assert split_suite("linear_probe --views 0") == ("linear_probe", "--views", "0")
    with pytest.raises(InputError, match="--checkpoint"):
        split_suite("knn --checkpoint x")
