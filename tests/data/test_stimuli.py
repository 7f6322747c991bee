from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pixmim_eval.data import open_manifest, shapes16
from pixmim_eval.data.categories import CATEGORIES
from pixmim_eval.data.stimuli import EXPERIMENTS, LEFT_OUT, name_levels, open_stimuli, read_stimuli, shorten_name
from pixmim_eval.errors import InputError
from tests.data.files import encode, pixels, write


def write_images(root: Path, names: list[str]) -> Path:
    for number, name in enumerate(names):
        write(root / name, encode(pixels(number)))
    return root


def test_folder_and_file_name_tell_shape_and_texture(tmp_path: Path) -> None:
    names = ["cat/cat1-dog2.png", "cat/cat10-cat3.png", "truck/truck2-keyboard1.png"]
    found = read_stimuli(open_manifest(write_images(tmp_path, names)), "cue-conflict")
    assert found.categories == CATEGORIES
    assert [CATEGORIES[k] for k in found.shapes] == ["cat", "cat", "truck"]
    assert [CATEGORIES[k] for k in found.textures] == ["dog", "cat", "keyboard"]
    assert found.images.tolist() == [name.split("/")[1] for name in names]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cat/cat1-dgo2.png", "cat1-dgo2.png"),
        ("cat/dog1-cat2.png", "dog1-cat2.png"),
        ("cat/cat1.png", "cat1.png"),
        ("cat/cat-dog.png", "cat-dog.png"),
    ],
)
def test_a_file_name_with_an_unknown_category_or_another_shape_is_refused(
    tmp_path: Path, name: str, message: str
) -> None:
    manifest = open_manifest(write_images(tmp_path, ["dog/dog1-cat1.png", "cat/cat3-dog1.png", name]))
    with pytest.raises(InputError, match=f"found 1: {message}"):
        read_stimuli(manifest, "cue-conflict")


def test_a_folder_that_is_no_category_is_refused(tmp_path: Path) -> None:
    manifest = open_manifest(write_images(tmp_path, ["dog/dog1-cat1.png", "catt/catt3-dog1.png"]))
    with pytest.raises(InputError, match="found 1: catt"):
        read_stimuli(manifest, "cue-conflict")


def test_a_set_with_categories_of_its_own_is_read_by_its_folders(tmp_path: Path) -> None:
    manifest = open_manifest(write_images(tmp_path, ["oak/oak1-elm1.png", "elm/elm1-oak7.png"]))
    found = read_stimuli(manifest, "cue-conflict")
    assert found.categories == ("elm", "oak")
    assert (found.shapes != found.textures).all()


def test_names_in_folders_of_sessions_tell_condition_and_category(tmp_path: Path) -> None:
    names = [
        "contrast/dnn/session-1/0001_cop_dnn_c30_knife_10_n03041632_7380.png",
        "contrast/dnn/session-1/0002_cop_dnn_c100_bird_10_n01601694_10802.png",
        "sketch/session-1/0001_ske_dnn_0_boat_00_boat-0068-sketch-23.png",
        "edge/oven/oven10.png",
    ]
    found = open_stimuli(str(write_images(tmp_path, names)))
    assert list(found.sets) == ["edge", "contrast", "sketch"]
    contrast, sketch = found.sets["contrast"], found.sets["sketch"]
    assert [CATEGORIES[k] for k in contrast.shapes] == ["knife", "bird"]
    assert contrast.levels.tolist() == contrast.conditions.tolist() == ["c30", "c100"]
    assert contrast.images.tolist() == [name.split("/")[-1] for name in names[:2]]
    assert (sketch.levels.tolist(), sketch.conditions.tolist()) == ([""], ["0"])
    assert found.sets["edge"].conditions.tolist() == ["NaN"]
    assert len(found) == 4
    assert list(open_stimuli(str(tmp_path / "edge")).sets) == ["edge"]


def test_a_name_that_does_not_tell_its_condition_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path, ["contrast/session-1/0001_cop_knife.png"])
    with pytest.raises(InputError, match=r"found 1: 0001_cop_knife\.png"):
        open_stimuli(str(tmp_path))


def test_a_folder_without_experiments_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="called like an experiment"):
        open_stimuli(str(write_images(tmp_path, ["cats/cat/1.png"])))


def test_shapes16_knows_shapes_and_textures_of_its_rows() -> None:
    manifest = shapes16.manifest("cue-conflict", count=32)
    found = read_stimuli(manifest, "cue-conflict")
    rendered = shapes16.render(range(32), "cue-conflict")
    np.testing.assert_array_equal(found.shapes, rendered.shapes)
    np.testing.assert_array_equal(found.textures, rendered.textures)
    assert len(set(found.images.tolist())) == 32
    plain = read_stimuli(shapes16.manifest("sketch", count=16), "sketch")
    assert not any("-" in name.replace("half-disc", "") for name in plain.images.tolist())


def test_names_of_one_image_are_the_same_without_what_stands_before() -> None:
    assert shorten_name("0000_cl_s01_bw_boat_40_n02951358_5952.JPEG") == "n02951358_5952.JPEG"
    assert shorten_name("0001_s5n_dnn_0_airplane_00_airplane1-bicycle2.png") == "airplane1-bicycle2.png"
    for own in ("airplane1-bicycle2.png", "my_cat_1.png", "oven_10.png"):
        assert shorten_name(own) == own


def test_conditions_that_mean_the_same_are_one_level() -> None:
    assert name_levels(["3.0", "3", "inf", "0.55"], "high-pass").tolist() == ["3", "3", "inf", "0.55"]
    assert name_levels(["0.00", "0.90", "True", "false", "c05"], "uniform-noise").tolist() == [
        "0", "0.9", "true", "false", "c05",
    ]  # fmt: skip
    assert name_levels(["0", "NaN"], "edge").tolist() == ["", ""]


def test_the_benchmark_has_seventeen_experiments_of_which_twelve_have_levels() -> None:
    assert len(EXPERIMENTS) == 17 and len(LEFT_OUT) == 12
    for experiment, levels in LEFT_OUT.items():
        assert name_levels(levels, experiment).tolist() == list(levels)
