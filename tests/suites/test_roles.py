"""Roles of data sets on the command line: which set stands for what, and nothing scored for what it is not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pixmim_eval.data.imagenet import imagenet_space, subset_classes
from pixmim_eval.errors import InputError
from pixmim_eval.metrics.corruption_error import ALEXNET_ERRORS
from pixmim_eval.suites.roles import open_data, open_files
from tests.data.files import TENCH, class_names, encode, pixels, write, write_classes

PUBLISHED = ("imagenet-a", "imagenet-r", "imagenet-sketch", "imagenet-v2", "imagenet-c")
SUITE: Any = SimpleNamespace(
    openers={}, needs=("val",), accepts=("train", "cue-conflict", "sketch", "rendition", "hard", *PUBLISHED)
)
BUILT_IN = "val=builtin:shapes16@16"


def open_roles(*texts: str, with_train: bool = False, corruptions: tuple[str, ...] = ()) -> dict[str, Any]:
    return open_data([*texts, BUILT_IN], SUITE, with_train=with_train, corruptions=corruptions)


def write_cells(root: Path, corruptions: tuple[str, ...]) -> Path:
    for number, name in enumerate(corruptions):
        for severity in range(1, 6):
            write(root / name / str(severity) / TENCH / "1.png", encode(pixels(10 * number + severity)))
    return root


def test_each_cell_of_imagenet_c_is_a_data_set(tmp_path: Path) -> None:
    root = write_cells(tmp_path / "ImageNet-C", ("fog", "spatter", "snow"))
    data = open_roles(f"imagenet-c={root}@64", corruptions=("fog", "spatter"))
    cells = {f"imagenet-c/{name}/{severity}" for name in ("fog", "spatter") for severity in range(1, 6)}
    assert set(data) == {"val", *cells}
    assert {(data[cell].name, data[cell].ready_size) for cell in cells} == {("ImageNet-C", 64)}
    assert data["imagenet-c/fog/3"].source.locate(0) == f"{root}/fog/3/{TENCH}/1.png"
    assert {
        manifest.ready_size for manifest in open_roles(f"imagenet-c={root}@files", corruptions=("fog",)).values()
    } == {
        None,
        16,
    }


def test_imagenet_c_means_the_published_fifteen_where_nothing_else_is_said(tmp_path: Path) -> None:
    root = write_cells(tmp_path / "ImageNet-C", (*ALEXNET_ERRORS, "saturate"))
    assert len(open_roles(f"imagenet-c={root}")) == 75 + 1
    (root / "snow").rename(root / "sleet")
    with pytest.raises(
        InputError, match=r"75 of 15 .*found 70: no snow/1…5.*mean_error_14, never as mCE: --corruptions"
    ):
        open_roles(f"imagenet-c={root}")


def test_published_sets_are_held_to_what_was_published(tmp_path: Path) -> None:
    adversarial_only = sorted({*subset_classes("imagenet-a")} - {*subset_classes("imagenet-r")})
    write_classes(tmp_path / "a", tuple(adversarial_only[:2]))
    write_classes(tmp_path / "v2", ("10", "9"))
    data = open_roles(f"imagenet-a={tmp_path / 'a'}", f"imagenet-v2={tmp_path / 'v2'}@224")
    assert data["imagenet-a"].name == "imagenet-a-part-6-of-7500"
    assert (data["imagenet-v2"].name, data["imagenet-v2"].ready_size) == ("imagenet-v2-part-6-of-10000", 224)
    assert class_names(data["imagenet-v2"]) == [imagenet_space().classes[number] for number in (10, 10, 10, 9, 9, 9)]
    with pytest.raises(InputError, match="200 published ones"):
        open_roles(f"imagenet-r={tmp_path / 'a'}")
    for role in ("sketch", "imagenet-sketch", "rendition"):
        with pytest.raises(InputError, match="integers: 10, 9"):
            open_roles(f"{role}={tmp_path / 'v2'}")


def test_a_scored_role_never_takes_the_training_part_of_a_set_that_has_others(tmp_path: Path) -> None:
    write_classes(tmp_path / "set" / "train", count=4)
    write_classes(tmp_path / "set" / "val", count=2)
    assert len(open_roles(f"rendition={tmp_path / 'set'}")["rendition"]) == 4
    write_classes(tmp_path / "other" / "train", count=4)
    write_classes(tmp_path / "other" / "test", count=2)
    with pytest.raises(InputError, match="val, or one part only, found test, train"):
        open_roles(f"rendition={tmp_path / 'other'}")


def test_a_folder_with_train_and_val_is_all_that_a_suite_of_both_needs(tmp_path: Path) -> None:
    for number, part in enumerate(("train", "val")):
        write(tmp_path / part / TENCH / "1.png", encode(pixels(number)))
    suite: Any = SimpleNamespace(openers={}, needs=("val", "train"), accepts=())
    data = open_data([str(tmp_path)], suite, with_train=True)
    assert set(data) == {"val", "train"} and data["val"].digest != data["train"].digest
    assert not open_files([str(tmp_path)], suite)


def test_cells_may_not_be_the_training_images(tmp_path: Path) -> None:
    root = write_cells(tmp_path / "ImageNet-C", ("fog",))
    with pytest.raises(InputError, match=r"apart .*train= and imagenet-c/fog/2="):
        open_roles(f"imagenet-c={root}", f"train={root / 'fog' / '2'}", with_train=True, corruptions=("fog",))


def test_a_role_that_a_suite_does_not_know_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"one of val, train, cue-conflict.*imagenet-c, found 'imagenet-p'"):
        open_roles(f"imagenet-p={tmp_path}")
    with pytest.raises(InputError, match="one PATH of role imagenet-c"):
        open_roles(f"imagenet-c={tmp_path}", "imagenet-c=elsewhere")


def test_photographs_and_tiny_imagenet_open_as_val_and_train(shared_data: Path) -> None:
    photos = open_data([str(shared_data / "photos")], SUITE, with_train=False)
    assert set(photos) == {"val"} and (photos["val"].name, len(photos["val"])) == ("photos", 300)
    tiny = open_data([f"{shared_data / 'tiny_imagenet_100'}@64"], SUITE, with_train=True)
    assert {role: (manifest.name, len(manifest), manifest.ready_size) for role, manifest in tiny.items()} == {
        "val": ("tiny_imagenet_100-val", 5_000, 64),
        "train": ("tiny_imagenet_100-train", 50_000, 64),
    }
