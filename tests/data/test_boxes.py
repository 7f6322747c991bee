"""Boxes and masks of every format are those that an independent reader finds."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.dom import minidom

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from pixmim_eval.data.boxes import BoxSet, ilsvrc_xml, open_boxes
from pixmim_eval.data.boxes.outlines import check_outline, decode_outline
from pixmim_eval.data.shapes16 import render
from tests.data.box_files import (
    EDGES,
    ROWS,
    make_coco,
    make_xml,
    write_box_parquet,
    write_csv,
    write_image,
    write_json,
    write_wsol,
    write_xml_folder,
    write_xml_tar,
)
from tests.data.files import encode, pixels, write

# pycocotools 2.0.11 has not followed NumPy's word on `copy` yet
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

WRITERS: dict[str, Callable[[Path], Path]] = {
    "csv": lambda folder: write_csv(folder / "set.csv"),
    "csv.gz": lambda folder: write_csv(folder / "set.csv.gz"),
    "parquet": lambda folder: write_box_parquet(folder / "set.parquet"),
    "xml": lambda folder: write_xml_folder(folder / "set"),
    "tar": lambda folder: write_xml_tar(folder / "set.tar"),
    "tar.gz": lambda folder: write_xml_tar(folder / "set.tar.gz"),
    "wsol": lambda folder: write_wsol(folder / "set"),
    "coco": lambda folder: write_json(folder / "set.json", make_coco()),
}


def edges_of(found: BoxSet, row: int) -> list[tuple[float, ...]]:
    """Left, top, right, bottom of the boxes of an image."""
    boxes = found.boxes[found.image == row].tolist()
    return [(left, top, left + width, top + height) for top, left, height, width in boxes]


def all_edges(found: BoxSet) -> dict[str, list[tuple[float, ...]]]:
    return {str(key): edges_of(found, row) for row, key in enumerate(found.keys)}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_gives_the_same_boxes(kind: str, tmp_path: Path) -> None:
    found = open_boxes(str(WRITERS[kind](tmp_path)))
    expected = defaultdict[str, list[tuple[float, ...]]](list)
    sizes = {}
    for key, width, height, *corners in ROWS:
        sizes[key] = [height, width]
        expected[key] += [(corners[0], corners[1], corners[2] + 1, corners[3] + 1)] if corners[0] != "" else []
    assert all_edges(found) == expected
    assert found.sizes.tolist() == [sizes[key] for key in found.keys]
    assert [(problem.kind, problem.key) for problem in found.problems] == [("no box", "b/four")]
    assert (found.boxes.dtype, found.image.dtype, found.sizes.dtype) == (np.float64, np.int64, np.int64)
    assert len(found) == 5 and len(found.boxes) == len(EDGES)
    assert (found.masks, found.manifest) == (None, None)


def test_the_digest_is_of_the_content_whatever_the_format(tmp_path: Path) -> None:
    found = {}
    for kind, make in WRITERS.items():
        (tmp_path / kind).mkdir()
        found[kind] = open_boxes(str(make(tmp_path / kind)))
    in_file_order = {found[kind].digest for kind in ("csv", "csv.gz", "parquet", "wsol", "coco", "tar", "tar.gz")}
    assert len(in_file_order) == 1
    moved = [list(row) for row in ROWS]
    moved[0][3] += 1
    assert open_boxes(str(write_csv(tmp_path / "moved.csv", moved))).digest not in in_file_order
    renamed = [[row[0].replace("five", "six"), *row[1:]] for row in ROWS]
    assert open_boxes(str(write_csv(tmp_path / "renamed.csv", renamed))).digest not in in_file_order


def test_boxes_of_mixed_rows_are_sorted_by_image(tmp_path: Path) -> None:
    mixed = [ROWS[place] for place in (5, 1, 7, 0, 4, 2, 3, 6)]
    found = open_boxes(str(write_csv(tmp_path / "mixed.csv", mixed)))
    assert found.keys.tolist() == ["b/five", "a/two", "a/one", "b/four", "b/three"]
    assert found.image.tolist() == [0, 0, 0, 1, 1, 2, 4]
    assert edges_of(found, 0) == [(5, 6, 8, 9), (0, 20, 33, 21), (4, 6, 8, 9)]


def test_xml_is_read_as_another_parser_reads_it(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    expected = {}
    for number in range(40):
        left, top = generator.integers(0, 250, (2, number % 4)).tolist()
        right, bottom = generator.integers(250, 300, (2, number % 4)).tolist()
        boxes = list(zip(left, top, right, bottom, strict=True))
        write(tmp_path / f"val/ILSVRC2012_val_{number:08d}.xml", make_xml(300, 320, boxes).encode())
    for file in (tmp_path / "val").glob("*.xml"):
        expected[file.stem] = []
        for element in minidom.parse(str(file)).getElementsByTagName("object"):
            box = next(node for node in element.childNodes if node.nodeName == "bndbox")
            x0, y0, x1, y1 = (
                int(box.getElementsByTagName(tag)[0].firstChild.data) for tag in ("xmin", "ymin", "xmax", "ymax")
            )
            expected[file.stem].append((x0, y0, x1 + 1, y1 + 1))
    found = open_boxes(str(tmp_path / "val"))
    assert all_edges(found) == expected
    assert found.keys.tolist() == sorted(expected)
    assert found.name.endswith("-val")


@pytest.mark.parametrize("layout", ["beside", "Data"])
def test_images_beside_xml_are_found_and_their_own_size_counts(layout: str, tmp_path: Path) -> None:
    annotations = tmp_path / ("ILSVRC/Annotations/CLS-LOC/train" if layout == "Data" else "train")
    images = tmp_path / "ILSVRC/Data/CLS-LOC/train" if layout == "Data" else annotations
    for key, size in {"n1/a": (50, 40), "n1/b": (100, 80), "n2/c": (40, 50)}.items():
        write(annotations / f"{key}.xml", make_xml(50, 40, [(0, 0, 24, 9), (25, 10, 49, 39)]).encode())
        write_image(images / f"{key}.JPEG", *size)
    found = open_boxes(str(annotations))
    assert found.sizes.tolist() == [[40, 50], [80, 100], [50, 40]]
    assert all_edges(found) == {
        "n1/a": [(0, 0, 25, 10), (25, 10, 50, 40)],
        "n1/b": [(0, 0, 50, 20), (50, 20, 100, 80)],
        "n2/c": [],
    }
    kinds = {(problem.kind, problem.key) for problem in found.problems}
    assert kinds == {("rescaled", "n1/b"), ("resolution", "n2/c"), ("no box", "n2/c")}
    assert found.manifest is not None
    assert [image.shape[:2] for image in found.manifest.source.read([0, 1, 2])] == [(40, 50), (80, 100), (50, 40)]
    (images / "n1/b.JPEG").unlink()
    found = open_boxes(str(annotations))
    assert found.manifest is None
    assert [problem.key for problem in found.problems if problem.kind == "no image"] == ["n1/b"]


def test_images_beside_a_table_are_found(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "set.csv", [("i/b.png", 50, 40, 0, 0, 24, 9), ("i/a.png", 50, 40, 25, 10, 49, 39)])
    write_image(tmp_path / "i/b.png", 25, 20)
    write_image(tmp_path / "i/a.png", 50, 40)
    found = open_boxes(str(table))
    assert found.manifest is not None and found.manifest.keys.tolist() == found.keys.tolist() == ["i/b.png", "i/a.png"]
    assert all_edges(found) == {"i/b.png": [(0, 0, 12.5, 5)], "i/a.png": [(25, 10, 50, 40)]}
    assert found.sizes.tolist() == [[20, 25], [40, 50]]


def test_scaling_alone_clips_nothing(tmp_path: Path) -> None:
    rows = [(f"{size}.png", 3 * size, 3 * size, 0, 0, 3 * size - 1, 3 * size - 1) for size in range(7, 60)]
    for name, side, *_ in rows:
        write_image(tmp_path / name, side // 3, side // 3)
    found = open_boxes(str(write_csv(tmp_path / "set.csv", rows)))
    assert {problem.kind for problem in found.problems} == {"rescaled"}
    assert np.array_equal(found.boxes[:, 2:], found.sizes)


@pytest.fixture
def many_files(tmp_path: Path) -> Path:
    for number in range(600):
        write(
            tmp_path / f"train/n{number % 3}/n{number % 3}_{number}.xml",
            make_xml(99, 99, [(0, 0, 9, number % 50)]).encode(),
        )
    return tmp_path / "train"


def test_many_files_are_read_once_and_again_when_one_changes(many_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_boxes(str(many_files))
    read = ilsvrc_xml._read_file
    monkeypatch.setattr(ilsvrc_xml, "_read_file", lambda *_: pytest.fail("read again"))
    assert open_boxes(str(many_files)).digest == first.digest
    monkeypatch.setattr(ilsvrc_xml, "_read_file", read)
    write(many_files / "n0/n0_0.xml", make_xml(99, 99, [(0, 0, 9, 98), (0, 0, 1, 1)]).encode())
    assert edges_of(open_boxes(str(many_files)), 0) == [(0, 0, 10, 99), (0, 0, 2, 2)]


def test_many_workers_give_the_boxes_of_one(many_files: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    alone = open_boxes(str(many_files))
    monkeypatch.setenv("PIXMIM_CACHE", str(tmp_path / "other"))
    monkeypatch.setattr(ilsvrc_xml, "_MANY", 1)
    monkeypatch.setattr(ilsvrc_xml, "_CHUNK", 7)
    pool = lambda workers, mp_context: ThreadPoolExecutor(workers)  # noqa: E731
    monkeypatch.setattr(ilsvrc_xml, "ProcessPoolExecutor", pool)
    together = open_boxes(str(many_files))
    assert (together.digest, together.keys.tolist()) == (alone.digest, alone.keys.tolist())


def test_parquet_of_images_gives_boxes_sizes_and_images(tmp_path: Path) -> None:
    images = [{"bytes": encode(pixels(n, 20 + n, 30)), "path": f"{n}.png"} for n in range(4)]
    boxes = [[0, 0, 29, 19], None, [3, 4, 3, 4], [1, 2, 12, 22]]
    image = pyarrow.array(images, pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()}))
    table = pyarrow.table({"image": image, "box": pyarrow.array(boxes, pyarrow.list_(pyarrow.int32()))})
    pyarrow.parquet.write_table(table, tmp_path / "val.parquet", row_group_size=3)
    found = open_boxes(str(tmp_path / "val.parquet"))
    assert found.sizes.tolist() == [[20, 30], [21, 30], [22, 30], [23, 30]]
    assert all_edges(found) == {
        "0.png": [(0, 0, 30, 20)],
        "1.png": [],
        "2.png": [(3, 4, 4, 5)],
        "3.png": [(1, 2, 13, 23)],
    }
    assert found.manifest is not None and np.array_equal(found.manifest.source.read([2])[0], pixels(2, 22, 30))


def test_an_unreadable_image_leaves_the_rows_of_boxes_and_images_together(tmp_path: Path) -> None:
    files = [b"no image", encode(pixels(1)), encode(pixels(2))]
    image = pyarrow.array([{"bytes": data, "path": None} for data in files])
    table = pyarrow.table({"image": image, "box": [[0, 0, 1, 1], [0, 0, 2, 2], [0, 0, 3, 3]]})
    pyarrow.parquet.write_table(table, tmp_path / "val.parquet")
    found = open_boxes(str(tmp_path / "val.parquet"))
    assert found.manifest is not None and found.manifest.keys.tolist() == found.keys.tolist() == ["val/1", "val/2"]
    assert np.array_equal(found.manifest.source.read([1, 0])[0], pixels(2))
    assert found.boxes[:, 2].tolist() == [3, 4] and found.problems[0].kind == "no size"


def test_shapes16_boxes_lie_tight_around_its_masks() -> None:
    found = open_boxes("builtin:shapes16:hard@32")
    assert found.masks is not None and found.manifest is not None and len(found) == len(found.boxes) == 768
    for row in range(0, 768, 97):
        (mask,) = found.masks.of(row)
        down, across = np.nonzero(mask)
        tight = [down.min(), across.min(), np.ptp(down) + 1, np.ptp(across) + 1]
        assert found.boxes[row].tolist() == tight
        assert np.array_equal(mask, render([row], "hard", 32).masks[0])
        assert np.array_equal(found.manifest.source.read([row])[0], render([row], "hard", 32).images[0])


def random_mask(seed: int, height: int = 37, width: int = 23) -> np.ndarray:
    noise = np.random.default_rng(seed).random((height, width))
    return np.asfortranarray(noise < (0.02, 0.5, 0.97)[seed % 3], dtype=np.uint8)


@pytest.mark.parametrize("seed", range(6))
def test_run_lengths_are_read_as_pycocotools_writes_them(seed: int) -> None:
    mask = random_mask(seed)
    compressed = coco_mask.encode(mask)
    compressed["counts"] = compressed["counts"].decode()
    ends = np.flatnonzero(np.diff(mask.T.ravel(), prepend=0)).tolist()
    lengths = {"size": [37, 23], "counts": np.diff([0, *ends, mask.size]).tolist()}
    for outline in (compressed, lengths):
        assert check_outline(outline, 37, 23) == ""
        assert np.array_equal(decode_outline(outline, 37, 23), mask.astype(bool))
        assert check_outline(outline, 23, 37)
    for cut in range(len(compressed["counts"])):
        assert check_outline({"size": [37, 23], "counts": compressed["counts"][:cut]}, 37, 23)
    longest = np.zeros((3000, 2000), dtype=np.uint8, order="F")
    longest[1500, seed] = 1
    text = coco_mask.encode(longest)["counts"].decode()
    assert check_outline({"size": [3000, 2000], "counts": text}, 3000, 2000) == ""


def test_masks_follow_their_boxes_through_what_is_dropped(tmp_path: Path) -> None:
    content = make_coco()
    for place, entry in enumerate(content["annotations"]):
        left, top, width, height = entry["bbox"]
        right, bottom = left + width, top + height
        entry["segmentation"] = [[left, top, right, top, right, bottom, left, bottom]]
        entry["iscrowd"] = int(place == 5)
    content["annotations"][1]["bbox"] = [1, 1, 0, 5]
    content["images"][0]["width"] = 0
    content["annotations"].reverse()
    found = open_boxes(str(write_json(tmp_path / "set.json", content)))
    assert found.keys.tolist() == ["a/two", "b/three", "b/four", "b/five"] and found.masks is not None
    assert found.image.tolist() == [0, 1, 3, 3]
    for row, (height, width) in enumerate(found.sizes.tolist()):
        masks = found.masks.of(row)
        assert len(masks) == len(edges_of(found, row))
        for mask, edges in zip(masks, edges_of(found, row), strict=True):
            left, top, right, bottom = map(int, edges)
            expected = np.zeros((height, width), dtype=bool)
            expected[top:bottom, left:right] = True
            assert np.array_equal(mask, expected)


# Shared data


def test_the_boxes_of_the_validation_images_are_all_there(shared_data: Path) -> None:
    file = shared_data / "boxes" / "imagenet_val_boxes.csv.gz"
    found = open_boxes(str(file))
    expected = defaultdict[str, list[tuple[float, ...]]](list)
    with gzip.open(file, "rt") as text:
        for row in csv.DictReader(text):
            x0, y0, x1, y1 = (int(row[column]) for column in ("x_min", "y_min", "x_max", "y_max"))
            expected[row["image"]].append((y0, x0, y1 + 1 - y0, x1 + 1 - x0))
    assert (len(found), len(found.boxes)) == (50_000, 80_477)
    assert found.keys.tolist() == list(expected)
    assert np.array_equal(found.boxes, np.array([box for boxes in expected.values() for box in boxes]))
    assert np.array_equal(np.bincount(found.image), [len(boxes) for boxes in expected.values()])
    assert [problem.kind for problem in found.problems] == ["duplicate"] * 4


@pytest.mark.parametrize(("split", "images", "boxes"), [("train", 100, 746), ("val", 50, 363)])
def test_coco_boxes_and_masks_are_those_of_pycocotools(split: str, images: int, boxes: int, shared_data: Path) -> None:
    file = shared_data / "coco_mini" / "annotations" / f"instances_{split}2017.json"
    found = open_boxes(str(file))
    assert (len(found), len(found.boxes)) == (images, boxes)
    assert found.masks is not None and found.manifest is not None
    reference = COCO()
    reference.dataset = json.loads(file.read_text())
    reference.createIndex()
    for row, (number, image) in enumerate(reference.imgs.items()):
        entries = reference.loadAnns(reference.getAnnIds(number))
        assert found.keys[row] == image["file_name"] and found.sizes[row].tolist() == [image["height"], image["width"]]
        assert found.manifest.source.read([row])[0].shape[:2] == (image["height"], image["width"])
        flat = [[entry["bbox"][place] for place in (1, 0, 3, 2)] for entry in entries]
        assert found.boxes[found.image == row].tolist() == flat
        for mask, entry in zip(found.masks.of(row), entries, strict=True):
            assert np.array_equal(mask, reference.annToMask(entry))


def test_tiny_imagenet_has_one_box_an_image(shared_data: Path) -> None:
    file = shared_data / "tiny_imagenet_100" / "val-00000-of-00001.parquet"
    found = open_boxes(str(file))
    table = pyarrow.parquet.read_table(file, columns=["box", "image"])
    corners = np.array(table["box"].to_pylist())
    assert found.image.tolist() == list(range(5000)) and (found.sizes == 64).all() and not found.problems
    expected = np.stack((corners[:, 1], corners[:, 0], *(corners[:, 2:] + 1 - corners[:, :2]).T[::-1]), axis=1)
    assert np.array_equal(found.boxes, expected)
    assert found.manifest is not None
    stored = Image.open(io.BytesIO(table["image"][4321].as_py()["bytes"])).convert("RGB")
    assert np.array_equal(found.manifest.source.read([4321])[0], np.array(stored))


def test_names_are_short_and_say_what_it_is(tmp_path: Path) -> None:
    names = {kind: open_boxes(os.fspath(make(tmp_path))).name for kind, make in WRITERS.items() if kind != "wsol"}
    assert set(names.values()) == {"set"}
