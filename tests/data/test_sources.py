"""Opening data sets of every format, and decoding every kind of image."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
import tarfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from pixmim_eval.data import open_manifest
from pixmim_eval.data.imagenet import imagenet_space
from pixmim_eval.data.sources.decode import decode
from pixmim_eval.errors import BadImageError, InputError
from pixmim_eval.types import Manifest
from tests.data.files import (
    GOLDFISH,
    SHARK,
    TENCH,
    class_names,
    encode,
    pixels,
    write,
    write_classes,
    write_parquet,
    write_tar,
)

# Image kinds


def test_a_grey_image_becomes_rgb() -> None:
    grey = pixels(0)[..., 0]
    assert np.array_equal(decode(encode(grey), "x"), np.repeat(grey[..., None], 3, axis=2))


def test_alpha_is_dropped() -> None:
    image = np.dstack((pixels(0), pixels(1)[..., 0]))
    assert np.array_equal(decode(encode(image), "x"), image[..., :3])
    grey = Image.fromarray(np.ascontiguousarray(image[..., :2]), "LA")
    assert np.array_equal(decode(encode(grey), "x"), np.repeat(image[..., :1], 3, axis=2))


@pytest.mark.parametrize("transparency", [{}, {"transparency": 3}, {"transparency": bytes(range(16))}], ids=repr)
@pytest.mark.filterwarnings("error")
def test_a_palette_image_gets_its_colours(transparency: dict[str, Any]) -> None:
    codes, palette = pixels(0)[..., 0] % 16, pixels(1, 16, 1)[:, 0]
    image = Image.fromarray(codes, "P")
    image.putpalette(palette.tobytes())
    assert np.array_equal(decode(encode(image, **transparency), "x"), palette[codes])


def test_cmyk_becomes_rgb() -> None:
    image = Image.fromarray(pixels(0)).convert("CMYK")
    data = encode(image, "tiff")
    assert np.array_equal(decode(data, "x"), 255 - np.array(image)[..., :3])  # no black in this conversion
    assert decode(encode(image, "jpeg"), "x").shape == (9, 12, 3)


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(kind: str) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (9, 12), dtype=np.uint16)
    expected = np.repeat((values // 256).astype(np.uint8)[..., None], 3, axis=2)
    assert np.array_equal(decode(encode(values, kind), "x"), expected)
    if kind == "tiff":
        assert np.array_equal(decode(encode(Image.fromarray(values.astype(">u2")), kind), "x"), expected)
        assert np.array_equal(decode(encode(Image.fromarray(values.astype(np.int32)), kind), "x"), expected)


def test_exif_rotation_is_ignored() -> None:
    image = Image.fromarray(pixels(0))
    exif = image.getexif()
    exif[0x0112] = 6  # rotate by 90 degrees
    for kind in ("jpeg", "png"):
        plain, rotated = decode(encode(image, kind), "x"), decode(encode(image, kind, exif=exif.tobytes()), "x")
        assert np.array_equal(plain, rotated)


def test_black_and_white_becomes_rgb() -> None:
    image = Image.fromarray(pixels(0)[..., 0] > 127)
    assert set(decode(encode(image), "x").ravel().tolist()) == {0, 255}


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff", "bmp"])
def test_a_truncated_image_is_reported(kind: str) -> None:
    data = encode(pixels(0, 64, 64), kind)
    for length in (len(data) // 2, 20):
        with pytest.raises(BadImageError, match=r"photos/broken.*--on-bad-image skip"):
            decode(data[:length], "photos/broken")


@pytest.mark.parametrize(
    "data",
    [b"", b"not an image", encode(Image.fromarray(np.ones((4, 4), np.float32)), "tiff")],
    ids=["empty", "text", "F"],
)
def test_an_unreadable_image_is_reported(data: bytes) -> None:
    with pytest.raises(BadImageError, match="photos/broken"):
        decode(data, "photos/broken")


# Folders


@pytest.mark.parametrize("names", [(GOLDFISH, TENCH), ("apple", "pear")])
def test_a_folder_of_class_folders_opens(tmp_path: Path, names: tuple[str, ...]) -> None:
    write_classes(tmp_path / "fruit", names)
    write(tmp_path / "fruit" / names[0] / "deeper" / "9.png", encode(pixels(9)))
    write(tmp_path / "fruit" / names[0] / "notes.txt", b"no image")
    write(tmp_path / "fruit" / ".hidden" / "x.png", encode(pixels(9)))
    manifest = open_manifest(tmp_path / "fruit")
    assert manifest.name == "fruit"
    kind = "wordnet" if names[0] == GOLDFISH else "names"
    assert manifest.label_space.name == f"{kind}-2"
    assert manifest.label_space.classes == tuple(sorted(names))
    paths = [tmp_path / "fruit" / key for key in manifest.keys]
    assert len(paths) == 7
    assert class_names(manifest) == [path.relative_to(tmp_path / "fruit").parts[0] for path in paths]
    for image, path in zip(manifest.source.read(range(7)), paths, strict=True):
        assert np.array_equal(image, np.array(Image.open(path)))


def test_a_flat_folder_is_labelled_by_its_file_names(tmp_path: Path) -> None:
    for name in (f"{TENCH}_tench.JPEG", f"{GOLDFISH}-7.png", f"{TENCH}.jpg"):
        write(tmp_path / name, encode(pixels(0)))
    manifest = open_manifest(tmp_path)
    assert manifest.label_space.classes == (TENCH, GOLDFISH)
    assert class_names(manifest) == [key[:9] for key in manifest.keys]


def test_the_role_picks_the_part(tmp_path: Path) -> None:
    write_classes(tmp_path / "set" / "train", count=5)
    write_classes(tmp_path / "set" / "validation", count=2)
    train, val = open_manifest(tmp_path / "set", role="train"), open_manifest(tmp_path / "set")
    assert (train.name, len(train)) == ("set-train", 10)
    assert (val.name, len(val)) == ("set-validation", 4)
    with pytest.raises(InputError, match="expected test"):
        open_manifest(tmp_path / "set", role="test")


def test_all_of_imagenet_is_called_imagenet(tmp_path: Path) -> None:
    for name in imagenet_space().classes:
        write(tmp_path / f"{name}.png", b"")
    assert open_manifest(tmp_path).label_space == imagenet_space()


def test_integer_class_folders_are_refused_with_the_way_out(tmp_path: Path) -> None:
    write_classes(tmp_path, ("0", "1", "10"))
    with pytest.raises(InputError, match=r"integers: 0, 1, 10.*Rename them to WordNet ids"):
        open_manifest(tmp_path)
    assert len(open_manifest(tmp_path, labelled=False)) == 9


def test_numbers_are_places_in_a_list_where_the_data_set_is_published_so(tmp_path: Path) -> None:
    write_classes(tmp_path, ("0", "2", "10", "11"), count=1)
    numbered = [f"class-{chr(ord('l') - number)}" for number in range(12)]  # 0 is the last in order of names
    manifest = open_manifest(tmp_path, numbered=numbered)
    assert [key.split("/")[0] for key in manifest.keys] == ["0", "10", "11", "2"]  # strings sort so
    assert class_names(manifest) == [numbered[0], numbered[10], numbered[11], numbered[2]]
    assert manifest.label_space.classes == ("class-a", "class-b", "class-j", "class-l")
    with pytest.raises(InputError, match="numbers from 0 to 10, found integers: 11"):
        open_manifest(tmp_path, numbered=numbered[:11])
    write_classes(tmp_path, ("00",), count=1)
    with pytest.raises(InputError, match="declared more than once: class-l"):
        open_manifest(tmp_path, numbered=numbered)


def test_a_role_that_is_no_split_takes_val_or_the_only_part(tmp_path: Path) -> None:
    write_classes(tmp_path / "one" / "test", count=1)
    assert len(open_manifest(tmp_path / "one", role="rendition")) == 2
    write_classes(tmp_path / "two" / "train", count=1)
    write_classes(tmp_path / "two" / "val", count=2)
    assert len(open_manifest(tmp_path / "two", role="rendition")) == 4
    write_parquet(tmp_path / "three" / "test-00000-of-00001.parquet", [0, 0], wnid=[TENCH, TENCH])
    assert open_manifest(tmp_path / "three", role="rendition").name == "three-test"
    write_parquet(tmp_path / "three" / "train-00000-of-00001.parquet", [0], wnid=[TENCH])
    with pytest.raises(InputError, match=r"val, or one part only, found test-00000-of-00001\.parquet, train-"):
        open_manifest(tmp_path / "three", role="rendition")


def test_unlabelled_images_serve_pretraining_only(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / f"{number}.png", encode(pixels(number)))
    with pytest.raises(InputError, match=r"3 of 3 without, e\.g\. 0\.png"):
        open_manifest(tmp_path)
    manifest = open_manifest(tmp_path, labelled=False)
    assert manifest.labels.tolist() == [-1, -1, -1]
    assert manifest.label_space.name == "none"
    assert manifest.label_space.classes == ()


def test_mixed_layouts_are_refused(tmp_path: Path) -> None:
    write_classes(tmp_path)
    write(tmp_path / "loose.png", encode(pixels(0)))
    with pytest.raises(InputError, match=r"both: folders such as .*, images such as loose.png"):
        open_manifest(tmp_path)
    write_parquet(tmp_path / "val.parquet", [0])
    with pytest.raises(InputError, match="several of them"):
        open_manifest(tmp_path)


@pytest.mark.parametrize("labelled", [True, False])
def test_an_empty_data_set_is_refused(tmp_path: Path, labelled: bool) -> None:
    with pytest.raises(InputError, match="no images"):
        open_manifest(tmp_path, labelled=labelled)
    write_parquet(tmp_path / "parquet" / "val.parquet", [])
    write_tar(tmp_path / "shard.tar", {})
    for name in ("parquet", "shard.tar"):
        with pytest.raises(InputError, match="no images"):
            open_manifest(tmp_path / name, labelled=labelled)


def test_an_empty_class_folder_is_refused(tmp_path: Path) -> None:
    write_classes(tmp_path)
    (tmp_path / SHARK).mkdir()
    with pytest.raises(InputError, match=f"none in {SHARK}"):
        open_manifest(tmp_path)


def test_a_missing_path_names_what_resembles_it(tmp_path: Path) -> None:
    write_classes(tmp_path / "flowers" / "val")
    with pytest.raises(InputError, match="Did you mean flowers"):
        open_manifest(tmp_path / "flower" / "val")
    with pytest.raises(InputError, match="no imagenet in"):
        open_manifest(tmp_path / "imagenet")


def test_a_broken_link_and_a_vanished_file_are_reported(tmp_path: Path) -> None:
    write_classes(tmp_path / "a")
    manifest = open_manifest(tmp_path / "a")
    (tmp_path / "a" / TENCH / "1.png").unlink()
    with pytest.raises(BadImageError, match=f"a/{TENCH}/1.png"):
        manifest.source.read(range(6))
    (tmp_path / "a" / TENCH / "1.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(InputError, match=r"1\.png"):
        open_manifest(tmp_path / "a")


def test_a_size_after_the_path_declares_the_images_ready(tmp_path: Path) -> None:
    write_classes(tmp_path / "set")
    assert open_manifest(tmp_path / "set").ready_size is None
    ready = open_manifest(f"{tmp_path / 'set'}@224")
    assert (ready.ready_size, ready.name) == (224, "set")


# Digest


@pytest.mark.parametrize("change", ["label", "key", "size", "pixel"])
def test_the_digest_changes_with_the_content(tmp_path: Path, change: str) -> None:
    write_classes(tmp_path / "a")
    first = open_manifest(tmp_path / "a").digest
    assert len(first) == 16
    shutil.copytree(tmp_path / "a", tmp_path / "elsewhere" / "b", copy_function=shutil.copyfile)  # other path and times
    assert open_manifest(tmp_path / "elsewhere" / "b").digest == first
    file = tmp_path / "a" / TENCH / "1.png"
    if change == "label":
        file.rename(tmp_path / "a" / GOLDFISH / "3.png")
    elif change == "key":
        file.rename(file.with_name("7.png"))
    else:
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data if change == "pixel" else data + b"\0")
    assert open_manifest(tmp_path / "a").digest != first


# Parquet


CLASS_LABEL = json.dumps({"info": {"features": {"label": {"names": ["pear", "apple"], "_type": "ClassLabel"}}}})


def test_parquet_names_come_from_the_metadata(tmp_path: Path) -> None:
    write_parquet(tmp_path / "fruit.parquet", [0, 1, 1, 0, 1, 0], {"huggingface": CLASS_LABEL})
    manifest = open_manifest(tmp_path / "fruit.parquet")
    assert manifest.label_space.classes == ("apple", "pear")
    assert class_names(manifest) == ["pear", "apple", "apple", "pear", "apple", "pear"]
    assert manifest.blocks is not None
    assert manifest.blocks.tolist() == [0, 0, 0, 0, 1, 1]
    for row, image in zip((5, 0, 4, 1), manifest.source.read([5, 0, 4, 1]), strict=True):
        assert np.array_equal(image, pixels(row))


def test_parquet_names_come_from_the_wordnet_ids(tmp_path: Path) -> None:
    ids = [SHARK, TENCH, SHARK, TENCH, TENCH]
    write_parquet(tmp_path / "a.parquet", [0, 5, 0, 5, 5], wnid=ids)
    manifest = open_manifest(tmp_path / "a.parquet")
    assert class_names(manifest) == ids
    assert manifest.label_space.name == "wordnet-2"
    write_parquet(tmp_path / "a.parquet", [0, 5, 0, 5, 0], wnid=ids)
    with pytest.raises(InputError, match=f"label 0 with {SHARK}, {TENCH}|label 0 with {TENCH}, {SHARK}"):
        open_manifest(tmp_path / "a.parquet")


def test_parquet_names_come_from_the_file_beside(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [0, 1, 1])
    with pytest.raises(InputError, match=r"classes\.csv"):
        open_manifest(tmp_path / "a.parquet")
    (tmp_path / "classes.csv").write_text(f"label,wnid,name\n1,{TENCH},tench\n0,{SHARK},shark\n")
    assert class_names(open_manifest(tmp_path / "a.parquet")) == [SHARK, TENCH, TENCH]
    (tmp_path / "classes.csv").write_text(f"label,wnid,name\n0,{SHARK},shark\n")
    with pytest.raises(InputError, match="expected 0 to 0, the declared classes, found 1"):
        open_manifest(tmp_path / "a.parquet")


def test_a_folder_of_parquet_files_is_read_by_role(tmp_path: Path) -> None:
    for name in ("train-00000-of-00002", "train-00001-of-00002", "validation-00000-of-00001"):
        write_parquet(tmp_path / "fruit" / "data" / f"{name}.parquet", [0, 1, 0], {"huggingface": CLASS_LABEL})
    train = open_manifest(tmp_path / "fruit", role="train")
    assert (train.name, len(train), len(set(train.keys))) == ("fruit-train", 6, 6)
    assert open_manifest(tmp_path / "fruit").keys.tolist() == [
        f"validation-00000-of-00001-{row}.png" for row in range(3)
    ]
    matched = open_manifest(f"{tmp_path}/fruit/data/train-*.parquet")
    assert matched.digest == train.digest
    with pytest.raises(InputError, match="expected test"):
        open_manifest(tmp_path / "fruit", role="test")


def test_parquet_of_another_layout_is_refused(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"image": [b"x"], "label": [0]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a struct column image\{bytes, path\}, found image: binary"):
        open_manifest(tmp_path / "a.parquet")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match="a complete Parquet file"):
        open_manifest(tmp_path / "a.parquet")


def test_parquet_without_labels_serves_pretraining(tmp_path: Path) -> None:
    table = pyarrow.table({"image": [{"bytes": encode(pixels(row))} for row in range(3)]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InputError, match="a column label or wnid"):
        open_manifest(tmp_path / "a.parquet")
    assert open_manifest(tmp_path / "a.parquet", labelled=False).keys.tolist() == ["a/0", "a/1", "a/2"]


# Tar shards


def test_tar_shards_open_with_numbers_and_a_class_file(tmp_path: Path) -> None:
    for shard in range(2):
        members = {}
        for row in range(3):
            members[f"{row:03d}.jpg"] = encode(pixels(3 * shard + row), "jpeg")
            members[f"{row:03d}.cls"] = str(row % 2).encode()
        write_tar(tmp_path / f"fruit-{shard:04d}.tar", members)
    with pytest.raises(InputError, match=r"classes\.txt"):
        open_manifest(f"{tmp_path}/fruit-{{0000..0001}}.tar")
    (tmp_path / "classes.txt").write_text("pear\napple\n")
    manifest = open_manifest(f"{tmp_path}/fruit-{{0000..0001}}.tar")
    assert manifest.name == "fruit"
    assert manifest.keys.tolist() == [f"fruit-{shard:04d}/{row:03d}" for shard in range(2) for row in range(3)]
    assert class_names(manifest) == ["pear", "apple", "pear"] * 2
    for row, image in zip((5, 1, 0), manifest.source.read([5, 1, 0]), strict=True):
        assert np.array_equal(image, decode(encode(pixels(row), "jpeg"), "x"))
    assert open_manifest(f"{tmp_path}/fruit-*.tar").digest == manifest.digest
    assert len(open_manifest(tmp_path, role="sketch")) == 6
    with pytest.raises(InputError, match=r"no fruit-0002.tar"):
        open_manifest(f"{tmp_path}/fruit-{{0000..0003}}.tar")


@pytest.mark.parametrize(
    "members",
    [
        {f"train/{TENCH}/a.JPEG": None, f"train/{SHARK}/b.png": None},
        {f"{TENCH}_1.JPEG": None, f"{SHARK}_1.webp": None},
        {"a.png": None, "a.json": {"wnid": TENCH, "label": 3}, "b.png": None, "b.json": {"wnid": SHARK}},
        {"a.png": None, "a.cls": TENCH, "b.png": None, "b.cls": SHARK},
    ],
    ids=["folder", "file name", "json", "cls"],
)
def test_tar_labels_come_from_names_and_members(tmp_path: Path, members: dict[str, object]) -> None:
    data = {
        name: encode(pixels(0)) if value is None else (value if isinstance(value, str) else json.dumps(value)).encode()
        for name, value in members.items()
    }
    write_tar(tmp_path / "a.tar", data)
    assert class_names(open_manifest(tmp_path / "a.tar")) == [TENCH, SHARK]


def test_the_tar_index_is_kept_until_the_shard_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tar(tmp_path / "a.tar", {f"{TENCH}_1.png": encode(pixels(0))})
    first = open_manifest(tmp_path / "a.tar")
    with monkeypatch.context() as patch:
        patch.setattr(tarfile, "open", None)
        assert open_manifest(tmp_path / "a.tar").digest == first.digest
    write_tar(tmp_path / "a.tar", {f"{TENCH}_1.png": encode(pixels(0)), f"{TENCH}_2.png": encode(pixels(1))})
    assert len(open_manifest(tmp_path / "a.tar")) == 2


def test_compressed_damaged_and_unlabelled_tars_are_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {"1.png": encode(pixels(0))}, mode="w:gz")
    with pytest.raises(InputError, match="uncompressed"):
        open_manifest(tmp_path / "a.tar")
    (tmp_path / "a.tar").rename(tmp_path / "a.tar.gz")
    with pytest.raises(InputError, match="unpack"):
        open_manifest(tmp_path / "a.tar.gz")
    write_tar(tmp_path / "b.tar", {"1.png": encode(pixels(0))})
    with pytest.raises(InputError, match="1 of 1 images without"):
        open_manifest(tmp_path / "b.tar")
    assert len(open_manifest(tmp_path / "b.tar", labelled=False)) == 1
    (tmp_path / "b.tar").write_bytes((tmp_path / "b.tar").read_bytes()[:600])
    with pytest.raises((InputError, BadImageError)):
        open_manifest(tmp_path / "b.tar", labelled=False).source.read([0])


# Every source


@pytest.fixture(params=["folder", "parquet", "tar"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Manifest:
    if request.param == "folder":
        write_classes(tmp_path / "a")
        return open_manifest(tmp_path / "a")
    if request.param == "parquet":
        write_parquet(tmp_path / "a.parquet", [0] * 6, wnid=[TENCH] * 6)
        return open_manifest(tmp_path / "a.parquet")
    write_tar(tmp_path / "a.tar", {f"{TENCH}_{row}.png": encode(pixels(row)) for row in range(6)})
    return open_manifest(tmp_path / "a.tar")


def test_a_source_reads_the_same_after_pickling(opened: Manifest) -> None:
    expected = opened.source.read(range(6))
    copied = pickle.loads(pickle.dumps(opened)).source.read(np.arange(6))
    assert all(np.array_equal(first, second) for first, second in zip(expected, copied, strict=True))


# Hub


def test_a_hub_id_without_datasets_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"pip install 'pixmim-eval\[hub\]'"):
        open_manifest("hub:someone/fruit")


@pytest.fixture
def stand_in_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """The part of `datasets` that is used, over two images; the real package is not a test dependency."""

    class FeatureOfImage:
        def __init__(self, decode: bool = True) -> None:
            self.decode = decode

    class FeatureOfLabel:
        names: tuple[str, ...] = ("pear", "apple")

    class Rows:
        features: dict[str, object] = {"image": FeatureOfImage(), "label": FeatureOfLabel()}  # noqa: RUF012

        def __len__(self) -> int:
            return 2

        def select_columns(self, columns: list[str]) -> Rows:
            assert columns == ["label"]
            return self

        def with_format(self, kind: str) -> dict[object, pyarrow.Table]:
            assert kind == "arrow"
            return type("All", (), {"__getitem__": lambda self, rows: pyarrow.table({"label": [0, 1]})})()

        def cast_column(self, column: str, feature: FeatureOfImage) -> Rows:
            assert (column, feature.decode) == ("image", False)
            return self

        def __getitem__(self, rows: list[int]) -> dict[str, list[dict[str, object]]]:
            return {"image": [{"bytes": encode(pixels(row)), "path": None} for row in rows]}

    load: Callable[..., Rows] = lambda name, split: Rows()  # noqa: E731
    module = types.SimpleNamespace(
        Image=FeatureOfImage, ClassLabel=FeatureOfLabel, load_dataset=load,
        get_dataset_split_names=lambda name: ["train", "validation"],
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "datasets", module)


def test_a_hub_id_opens_through_datasets(stand_in_hub: None) -> None:
    manifest = open_manifest("hub:someone/fruit@64")
    assert (manifest.name, manifest.ready_size) == ("fruit-validation", 64)
    assert class_names(manifest) == ["pear", "apple"]
    assert np.array_equal(manifest.source.read([1])[0], pixels(1))
    with pytest.raises(InputError, match="hub:someone/fruit:train"):
        open_manifest("hub:someone/fruit", role="test")
    with pytest.raises(InputError, match="expected fog_3, found train, validation"):
        open_manifest("hub:someone/fruit:fog_3")
    assert len(open_manifest("hub:someone/fruit:train[:2]")) == 2


# Real data


def test_tiny_imagenet_opens(shared_data: Path) -> None:
    train, val = (open_manifest(shared_data / "tiny_imagenet_100", role=role) for role in ("train", "val"))
    assert (len(train), len(val)) == (50_000, 5_000)
    assert train.label_space == val.label_space
    assert (train.label_space.name, len(train.label_space.classes)) == ("wordnet-100", 100)
    assert np.bincount(train.labels).tolist() == [500] * 100
    assert np.bincount(val.labels).tolist() == [50] * 100
    assert val.name == "tiny_imagenet_100-val"
    assert train.digest != val.digest
    assert {image.shape for image in val.source.read(range(0, 5000, 500))} == {(64, 64, 3)}


def test_the_photos_open(shared_data: Path) -> None:
    manifest = open_manifest(shared_data / "photos")
    assert len(manifest) == 300
    assert manifest.label_space.name == "wordnet-300"
    assert class_names(manifest) == [key[:9] for key in manifest.keys]
