"""ImageNet-C from files: every layout it is published in, and every way to hold something else."""

from __future__ import annotations

import json
import logging
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from pixmim_eval.data.imagenet import imagenet_space
from pixmim_eval.data.loader import evaluation_batches
from pixmim_eval.data.sources import corrupted
from pixmim_eval.data.sources.corrupted import open_corrupted
from pixmim_eval.data.transforms import name_transform
from pixmim_eval.errors import InputError
from pixmim_eval.types import Preprocessing
from tests.data.files import GOLDFISH, SHARK, TENCH, class_names, encode, pixels, write, write_parquet, write_tar

NAMES = ("fog", "gaussian_noise", "zoom_blur")
CELLS = [(name, severity) for name in NAMES for severity in range(1, 6)]
IMAGES = (
    (TENCH, "ILSVRC2012_val_00000236"),
    (GOLDFISH, "ILSVRC2012_val_00000293"),
    (GOLDFISH, "ILSVRC2012_val_00002138"),
)


def write_cell(folder: Path, seed: int, size: int = 224, ending: str = ".JPEG") -> None:
    for row, (kind, name) in enumerate(IMAGES):
        write(folder / kind / (name + ending), encode(pixels(10 * seed + row, size, size), "jpeg"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three corruptions in the layout of the paper's repository."""
    for number, (name, severity) in enumerate(CELLS):
        write_cell(tmp_path / "ImageNet-C" / name / str(severity), number, 8)
    return tmp_path / "ImageNet-C"


# Layouts


def test_a_folder_of_corruptions_opens(root: Path) -> None:
    cells = open_corrupted(str(root), NAMES)
    assert list(cells) == CELLS
    for (name, severity), manifest in cells.items():
        assert (manifest.name, manifest.ready_size, len(manifest)) == ("ImageNet-C", 224, 3)
        assert class_names(manifest) == [TENCH, GOLDFISH, GOLDFISH]
        file = root / name / str(severity) / TENCH / "ILSVRC2012_val_00000236.JPEG"
        assert manifest.source.read_bytes([0]) == [file.read_bytes()]  # type: ignore[attr-defined]
    assert len({manifest.digest for manifest in cells.values()}) == 15
    assert set(open_corrupted(str(root), ["fog"])) == {("fog", severity) for severity in range(1, 6)}


def test_the_groups_that_the_archives_unpack_to_are_found(root: Path) -> None:
    plain = open_corrupted(str(root), NAMES)
    for group, name in (("weather", "fog"), ("noise", "gaussian_noise"), ("blur", "zoom_blur")):
        (root / group).mkdir()
        (root / name).rename(root / group / name)
    grouped = open_corrupted(str(root), NAMES)
    assert {cell: grouped[cell].digest for cell in CELLS} == {cell: plain[cell].digest for cell in CELLS}
    write_cell(root / "fog" / "1", 99, 8)
    with pytest.raises(InputError, match=r"ImageNet-C/fog and .*/weather/fog"):
        open_corrupted(str(root), NAMES)


def test_what_macos_and_people_leave_behind_is_no_image(root: Path) -> None:
    expected = open_corrupted(str(root), NAMES)
    write(root / "fog" / "3" / GOLDFISH / "._ILSVRC2012_val_00000293.JPEG", b"\0\5\26\7")
    write(root / "fog" / "3" / GOLDFISH / "Thumbs.db", b"x")
    write(root / "fog" / "3" / ".DS_Store", b"x")
    write(root / "README.txt", b"x")
    (root / ".cache").mkdir()
    assert open_corrupted(str(root), NAMES)["fog", 3].digest == expected["fog", 3].digest


def test_a_cell_may_be_parquet_or_tar(tmp_path: Path) -> None:
    for number, (name, severity) in enumerate(CELLS):
        place = tmp_path / "set" / name / str(severity)
        if name == "fog":
            names, kinds = [f"{n}.JPEG" for _, n in IMAGES], [kind for kind, _ in IMAGES]
            write_parquet(place / "test-00000-of-00001.parquet", [1, 0, 0], seed=number, paths=names, wnid=kinds)
        else:
            write_tar(place / "0.tar", {f"{kind}/{n}.JPEG": encode(pixels(3 * number)) for kind, n in IMAGES})
    cells = open_corrupted(str(tmp_path / "set"), NAMES)
    assert all(class_names(manifest) == [TENCH, GOLDFISH, GOLDFISH] for manifest in cells.values())
    assert {manifest.name for manifest in cells.values()} == {"set"}


def test_a_pattern_finds_the_cells(tmp_path: Path) -> None:
    for number, (name, severity) in enumerate(CELLS):
        for shard in range(2):
            members = {
                f"{kind}_{n}.png": encode(pixels(3 * number + shard))
                for kind, n in IMAGES[shard : 2 + shard : 2 - shard]
            }
            write_tar(tmp_path / "shards" / f"{name}-{severity}-{shard:04d}.tar", members)
    glob = open_corrupted(f"{tmp_path}/shards/{{corruption}}-{{severity}}-*.tar", NAMES)
    braces = open_corrupted(f"{tmp_path}/shards/{{corruption}}-{{severity}}-{{0000..0001}}.tar@64", NAMES)
    assert [manifest.digest for manifest in glob.values()] == [manifest.digest for manifest in braces.values()]
    assert (glob["fog", 1].name, glob["fog", 1].ready_size, braces["fog", 1].ready_size) == ("shards", 224, 64)
    (tmp_path / "shards" / "zoom_blur-4-0000.tar").unlink()
    (tmp_path / "shards" / "zoom_blur-4-0001.tar").unlink()
    with pytest.raises(InputError, match=r"found 14: no zoom_blur/4 .*mean_error_2, never as mCE"):
        open_corrupted(f"{tmp_path}/shards/{{corruption}}-{{severity}}-*.tar", NAMES)


@pytest.mark.parametrize("pattern", ["hub:someone/imagenet-c", "x/{corruption}.tar", "hub:a/b:{severity}"])
def test_half_a_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(InputError, match=r"both \{corruption\} and \{severity\}"):
        open_corrupted(pattern, NAMES)


def test_a_hub_pattern_names_the_splits_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    splits = [f"{name}_{severity}" for name, severity in CELLS if (name, severity) != ("fog", 2)]
    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(get_dataset_split_names=lambda name: splits))
    with pytest.raises(InputError, match="found 14: no fog/2 "):
        open_corrupted("hub:someone/imagenet-c:{corruption}_{severity}", NAMES)


# Geometry


@pytest.mark.parametrize(
    ("suffix", "ready_size", "transform"),
    [("", 224, "ready-224"), ("@64", 64, "pil-bicubic-64-to-224"), ("@files", None, "pil-bicubic-256-crop-224")],
)
def test_the_second_resize_is_a_protocol_of_its_own(
    suffix: str, ready_size: int | None, transform: str, root: Path
) -> None:
    cells = open_corrupted(f"{root}{suffix}", NAMES)
    assert {manifest.ready_size for manifest in cells.values()} == {ready_size}
    assert name_transform(Preprocessing(224, 256), cells["fog", 1]) == transform


def test_images_of_another_size_are_refused_when_they_are_read(root: Path) -> None:
    manifest = open_corrupted(str(root), NAMES)["fog", 1]
    with pytest.raises(InputError, match=rf"224 x 224 pixels, found 8 x 8 \(in ImageNet-C, {TENCH}/ILSVRC.*PATH@64"):
        next(evaluation_batches(manifest, Preprocessing(224, 256), rows=np.arange(3), batch_size=3, workers=0))
    small = open_corrupted(f"{root}@8", NAMES)["fog", 1]
    batch = next(evaluation_batches(small, Preprocessing(8, 8), rows=np.arange(3), batch_size=3, workers=0))
    assert np.array_equal(batch.images.permute(0, 2, 3, 1), small.source.read(range(3)))


# Missing cells


def test_missing_cells_are_named_with_what_becomes_of_the_metric(root: Path) -> None:
    shutil.rmtree(root / "fog" / "2")
    shutil.rmtree(root / "fog" / "5")
    shutil.rmtree(root / "zoom_blur")
    with pytest.raises(InputError) as caught:
        open_corrupted(str(root), NAMES)
    error = caught.value
    assert error.expected == "15 of 3 corruptions x 5 severities"
    assert error.found == "8: no fog/2, 5; no zoom_blur/1…5"
    assert "mean_error_3 needs all 15 cells" in error.fix
    assert "mean_error_1, never as mCE: --corruptions gaussian_noise" in error.fix
    assert list(open_corrupted(str(root), ["gaussian_noise"])) == CELLS[5:10]


def test_a_misspelt_corruption_is_recognised(root: Path) -> None:
    (root / "gaussian_noise").rename(root / "gausian_noise")
    (root / "holidays").mkdir()
    with pytest.raises(
        InputError, match=r"no gaussian_noise/1…5, but 'gausian_noise'.*Rename the folder gausian_noise to"
    ):
        open_corrupted(str(root), NAMES)


def test_a_folder_that_is_no_imagenet_c_is_recognised(root: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"found 0: no fog/1…5; no gaussian_noise/1…5; .*holds a folder for each corruption"
    ):
        open_corrupted(str(root / "fog" / "1"), NAMES)
    with pytest.raises(InputError, match="Did you mean ImageNet-C"):
        open_corrupted(str(tmp_path / "ImagNet-C"), NAMES)


# Other images


def test_an_empty_cell_is_refused(root: Path) -> None:
    shutil.rmtree(root / "fog" / "2")
    (root / "fog" / "2").mkdir()
    with pytest.raises(InputError, match=r"no images .*fog/2"):
        open_corrupted(str(root), NAMES)


def test_integer_class_folders_are_refused(root: Path) -> None:
    for number, kind in enumerate((TENCH, GOLDFISH)):
        (root / "fog" / "4" / kind).rename(root / "fog" / "4" / str(number))
    with pytest.raises(InputError, match=r"integers: 0, 1 .*fog/4"):
        open_corrupted(str(root), NAMES)


def spoil_count(root: Path) -> None:
    (root / "fog/2" / GOLDFISH / "ILSVRC2012_val_00000293.JPEG").unlink()


def spoil_name(root: Path) -> None:
    file = root / "fog/2" / GOLDFISH / "ILSVRC2012_val_00000293.JPEG"
    file.rename(file.with_stem("ILSVRC2012_val_00000294"))


def spoil_label(root: Path) -> None:
    name = "ILSVRC2012_val_00000293.JPEG"
    (root / "fog/2" / GOLDFISH / name).rename(root / "fog/2" / TENCH / name)


def spoil_class(root: Path) -> None:
    (root / "fog/2" / TENCH).rename(root / "fog/2" / SHARK)


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (spoil_count, f"2 images instead of 3, without {GOLDFISH}/ILSVRC2012_val_00000293"),
        (spoil_name, f"without {GOLDFISH}/ILSVRC2012_val_00000293, with {GOLDFISH}/ILSVRC2012_val_00000294"),
        (spoil_label, f"without {GOLDFISH}/ILSVRC2012_val_00000293, with {TENCH}/ILSVRC2012_val_00000293"),
        (spoil_class, f"1 classes that are not there, e.g. {SHARK}"),
    ],
    ids=["count", "name", "label", "class"],
)
@pytest.mark.parametrize("first", ["fog", "zoom_blur"])
def test_a_cell_with_other_images_is_found_wherever_it_stands(root: Path, spoil, found: str, first: str) -> None:  # type: ignore[no-untyped-def]
    spoil(root)
    names = sorted(NAMES, key=lambda name: name != first)
    (root / first / "1").rename(root / "kept")
    (root / "fog" / "2").rename(root / first / "1")  # the odd one is the very first, or in the middle
    (root / "kept").rename(root / "fog" / "2")
    with pytest.raises(InputError) as caught:
        open_corrupted(str(root), names)
    assert caught.value.found.startswith(f"{first}/1 unlike ") and found in caught.value.found
    assert "the same images, labels and order" in caught.value.expected


def test_many_odd_cells_are_counted(root: Path) -> None:
    for severity in range(1, 6):
        shutil.rmtree(root / "fog" / str(severity) / TENCH)
    with pytest.raises(
        InputError, match="found fog/1, fog/2, fog/3 and 2 more unlike gaussian_noise/1: 2 images instead"
    ):
        open_corrupted(str(root), NAMES)


def test_another_file_ending_is_no_other_image(root: Path) -> None:
    shutil.rmtree(root / "fog" / "2")
    write_cell(root / "fog" / "2", 50, 8, ".png")
    assert len(open_corrupted(str(root), NAMES)["fog", 2]) == 3


def test_another_order_is_refused(tmp_path: Path) -> None:
    for number, (name, severity) in enumerate(CELLS):
        images = IMAGES[::-1] if (name, severity) == ("zoom_blur", 5) else IMAGES
        members = {f"{kind}_{n}.png": encode(pixels(3 * number + row)) for row, (kind, n) in enumerate(images)}
        write_tar(tmp_path / name / f"{severity}.tar", members)
    with pytest.raises(InputError, match="zoom_blur/5 unlike fog/1: another order"):
        open_corrupted(f"{tmp_path}/{{corruption}}/{{severity}}.tar", NAMES)


def test_hub_rows_without_names_are_held_together_by_their_labels(tmp_path: Path) -> None:
    for number, (name, severity) in enumerate(CELLS):
        labels = [0, 1, 1, 0] if (name, severity) != ("fog", 3) else [0, 1, 0, 1]
        path = tmp_path / f"{name}_{severity}.parquet"
        write_parquet(path, labels, {"huggingface": CLASS_LABEL}, seed=number, paths=["image.jpg"] * 4)
    with pytest.raises(
        InputError, match=rf"fog/3 unlike fog/1: without {TENCH}/2, {GOLDFISH}/3, with {TENCH}/3, {GOLDFISH}/2"
    ):
        open_corrupted(f"{tmp_path}/{{corruption}}_{{severity}}.parquet", NAMES)


CLASS_LABEL = json.dumps({"info": {"features": {"label": {"names": [GOLDFISH, TENCH], "_type": "ClassLabel"}}}})


def test_a_cell_that_is_a_copy_of_another_is_refused(root: Path) -> None:
    shutil.rmtree(root / "fog" / "5")
    (root / "fog" / "5").symlink_to(root / "fog" / "4")
    with pytest.raises(InputError, match="fog/5 the same as fog/4"):
        open_corrupted(str(root), NAMES)


# Size


def test_the_cells_share_one_list_of_keys(root: Path) -> None:
    cells = list(open_corrupted(str(root), NAMES).values())
    assert all(cell.keys is cells[0].keys and cell.labels is cells[0].labels for cell in cells)
    assert all(cell.source.keys is cells[0].keys for cell in cells)  # type: ignore[attr-defined]


def test_all_classes_of_imagenet_without_all_images_are_a_named_part(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, severity in enumerate(range(1, 6)):
        for name in imagenet_space().classes:
            write(tmp_path / "set" / "fog" / str(severity) / f"{name}_1.JPEG", bytes([number]))
    with caplog.at_level(logging.WARNING, "pixmim_eval"):
        cells = open_corrupted(str(tmp_path / "set"), ["fog"])
    assert {manifest.name for manifest in cells.values()} == {"set-part-1000-of-50000"}
    assert len(caplog.records) == 1
    monkeypatch.setattr(corrupted, "_IMAGES", 1000)
    assert open_corrupted(str(tmp_path / "set"), ["fog"])["fog", 1].name == "set"
    monkeypatch.setattr(corrupted, "_IMAGES", 999)
    with pytest.raises(InputError, match="expected 999, as published, found 1000"):
        open_corrupted(str(tmp_path / "set"), ["fog"])
