"""ImageNet-A, -R, -Sketch and -V2: nothing else is scored under their names."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from pixmim_eval.data.imagenet import imagenet_space, subset_classes
from pixmim_eval.data.sources import published
from pixmim_eval.data.sources.published import PublishedSet, open_published
from pixmim_eval.errors import InputError
from tests.data.files import TENCH, class_names, encode, pixels, write, write_parquet, write_tar

IMAGENET, ADVERSARIAL, RENDITIONS = imagenet_space().classes, subset_classes("imagenet-a"), subset_classes("imagenet-r")


def write_folders(root: Path, classes: Iterable[str], count: int = 1) -> Path:
    for number, name in enumerate(classes):
        for image in range(count):
            write(root / name / f"{image}.jpg", number.to_bytes(2, "little") + bytes([image]))  # nothing is decoded
    return root


@pytest.fixture
def publish_small(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, tuple[str, ...], int], None]:
    """Stands a set with few images in for a published one."""

    def publish(role: str, classes: tuple[str, ...], images: int) -> None:
        monkeypatch.setitem(published.PUBLISHED, role, PublishedSet(lambda: classes, images))

    return publish


def test_the_published_sets_are_what_was_published() -> None:
    described = {role: (len(set_.classes()), set_.images) for role, set_ in published.PUBLISHED.items()}
    assert described == {
        "imagenet-a": (200, 7_500),
        "imagenet-r": (200, 30_000),
        "imagenet-sketch": (1000, 50_889),
        "imagenet-v2": (1000, 10_000),
    }


@pytest.mark.parametrize(("role", "classes"), [("imagenet-a", ADVERSARIAL), ("imagenet-r", RENDITIONS)])
def test_a_published_folder_opens_under_its_name(
    role: str, classes: tuple[str, ...], tmp_path: Path, publish_small: Callable[..., None]
) -> None:
    publish_small(role, classes, 400)
    root = write_folders(tmp_path / "unpacked", classes, 2)
    write(root / "README.txt", b"classes by WordNet id")
    write(root / classes[0] / "._0.jpg", b"left by macOS")
    write(root / ".DS_Store", b"left by macOS")
    manifest = open_published(str(root), role)
    assert (manifest.name, len(manifest), manifest.ready_size) == (role, 400, None)
    assert class_names(manifest) == [key.split("/")[0] for key in manifest.keys]
    assert open_published(f"{root}@224", role).ready_size == 224


def test_a_part_is_named_and_announced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "pixmim_eval"):
        manifest = open_published(str(write_folders(tmp_path / "a", ADVERSARIAL[:41], 3)), "imagenet-a")
    assert manifest.name == "imagenet-a-part-123-of-7500"
    assert "123 of the 7500 published images of imagenet-a" in caplog.text


def test_more_images_than_were_published_are_refused(tmp_path: Path, publish_small: Callable[..., None]) -> None:
    publish_small("imagenet-a", ADVERSARIAL, 200)
    root = write_folders(tmp_path / "a", ADVERSARIAL)
    write(root / ADVERSARIAL[3] / "copy.jpg", b"x")
    with pytest.raises(InputError, match="expected 200, as published, found 201"):
        open_published(str(root), "imagenet-a")


def test_all_images_without_all_classes_are_refused(tmp_path: Path, publish_small: Callable[..., None]) -> None:
    publish_small("imagenet-a", ADVERSARIAL, 200)
    root = write_folders(tmp_path / "a", ADVERSARIAL)
    shutil.move(root / ADVERSARIAL[0] / "0.jpg", root / ADVERSARIAL[1] / "1.jpg")
    (root / ADVERSARIAL[0]).rmdir()
    with pytest.raises(InputError, match="the 200 published ones, as WordNet ids, found 199 of them"):
        open_published(str(root), "imagenet-a")


@pytest.mark.parametrize("role", ["imagenet-a", "imagenet-r", "imagenet-sketch", "imagenet-v2"])
def test_classes_outside_the_published_set_are_refused(role: str, tmp_path: Path) -> None:
    known = published.PUBLISHED[role].classes()
    strange = "n00000001" if len(known) == 1000 else next(name for name in IMAGENET if name not in known)
    root = write_folders(tmp_path / "set", [*known[:5], strange])
    with pytest.raises(
        InputError, match=f"{len(known)} published ones, as WordNet ids, found 1 others, e.g. {strange}"
    ):
        open_published(str(root), role)
    with pytest.raises(InputError, match=r"found 2 others, e\.g\. apple, pear"):
        open_published(str(write_folders(tmp_path / "fruit", ["apple", "pear"])), role)


def test_the_numbers_of_v2_are_places_in_imagenet_and_not_in_the_order_of_strings(
    tmp_path: Path, publish_small: Callable[..., None]
) -> None:
    publish_small("imagenet-v2", IMAGENET, 1000)
    root = write_folders(tmp_path / "imagenetv2-matched-frequency-format-val", map(str, range(1000)))
    manifest = open_published(str(root), "imagenet-v2")
    assert (manifest.name, manifest.label_space) == ("imagenet-v2-matched-frequency", imagenet_space())
    folders = [int(key.split("/")[0]) for key in manifest.keys]
    assert folders[:4] == [0, 1, 10, 100]  # the order of strings, in which a class's place is another
    assert manifest.labels.tolist() == folders


def test_a_part_of_v2_keeps_its_numbers(tmp_path: Path) -> None:
    manifest = open_published(str(write_folders(tmp_path / "v2", ["2", "10", "999", "207"])), "imagenet-v2")
    assert manifest.name == "imagenet-v2-part-4-of-10000"
    assert dict(zip((key.split("/")[0] for key in manifest.keys), class_names(manifest), strict=True)) == {
        number: IMAGENET[int(number)] for number in ("2", "10", "999", "207")
    }
    with pytest.raises(InputError, match="numbers from 0 to 999, found integers: 1000"):
        open_published(str(write_folders(tmp_path / "v2", ["1000"])), "imagenet-v2")


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("imagenetv2-threshold0.7-format-val", "imagenet-v2-threshold-0.7"),
        ("imagenetv2-top-images-format-val", "imagenet-v2-top-images"),
        ("ImageNetV2", "imagenet-v2"),
    ],
)
def test_a_variant_of_v2_is_named(folder: str, name: str, tmp_path: Path, publish_small: Callable[..., None]) -> None:
    publish_small("imagenet-v2", IMAGENET[:3], 3)
    assert open_published(str(write_folders(tmp_path / folder, "012")), "imagenet-v2").name == name


@pytest.mark.parametrize("role", ["imagenet-a", "imagenet-r", "imagenet-sketch"])
def test_numbers_are_refused_everywhere_else(role: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"integers: 0, 1, 10.*Rename them to WordNet ids"):
        open_published(str(write_folders(tmp_path, ["0", "1", "10", "2"])), role)


def test_parquet_and_tar_hold_published_sets_too(tmp_path: Path) -> None:
    ids = [ADVERSARIAL[5], ADVERSARIAL[0], ADVERSARIAL[5]]
    write_parquet(tmp_path / "parquet" / "test-00000-of-00001.parquet", [5, 0, 5], wnid=ids)
    manifest = open_published(str(tmp_path / "parquet"), "imagenet-a")
    assert (manifest.name, class_names(manifest)) == ("imagenet-a-part-3-of-7500", ids)
    write_tar(
        tmp_path / "sketch.tar",
        {f"sketch/{name}/sketch_{row}.JPEG": encode(pixels(row)) for row, name in enumerate(IMAGENET[:4])},
    )
    assert class_names(open_published(str(tmp_path / "sketch.tar"), "imagenet-sketch")) == list(IMAGENET[:4])
    write_parquet(tmp_path / "other.parquet", [0, 0], wnid=[TENCH, TENCH])
    with pytest.raises(InputError, match=f"1 others, e.g. {TENCH}"):
        open_published(str(tmp_path / "other.parquet"), "imagenet-a")
