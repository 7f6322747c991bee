"""Segmentation sets: labels are the values of the masks, and whatever does not fit is named."""

from __future__ import annotations

import io
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixmim_eval.data import segmentation
from pixmim_eval.data.segmentation import IGNORED, SegmentationSet, open_segmentation
from pixmim_eval.data.shapes16 import SHAPES, render
from pixmim_eval.errors import BadImageError, InputError
from tests.data.box_files import write_image
from tests.data.files import encode, write


def mask(seed: int, values: tuple[int, ...] = (0, 1, 2, 5, 255)) -> np.ndarray:
    return np.random.default_rng(seed).choice(np.array(values, dtype=np.uint8), (30, 40))


def write_set(root: Path, masks: dict[str, np.ndarray], folder: str = "annotations", split: str = "validation") -> Path:
    for name, values in masks.items():
        write_image(root / "images" / split / f"{name}.jpg", 40, 30)
        write(root / folder / split / f"{name}.png", encode(values))
    return root


def kinds(found: SegmentationSet) -> Counter[str]:
    return Counter(problem.kind for problem in found.problems)


@pytest.mark.parametrize("folder", ["annotations", "semantic_masks", "masks", "labels"])
@pytest.mark.parametrize("side", ["images", "masks"])
def test_masks_are_found_from_either_side(folder: str, side: str, tmp_path: Path) -> None:
    masks = {"b": mask(1), "a": mask(0)}
    root = write_set(tmp_path / "ade", masks, folder)
    found = open_segmentation(str(root / (folder if side == "masks" else side) / "validation"))
    assert (found.name, found.classes) == ("ade-validation", ("value-1", "value-2", "value-5"))
    assert found.manifest.keys.tolist() == ["a.jpg", "b.jpg"] and not found.problems
    table = {0: IGNORED, 1: 0, 2: 1, 5: 2, 255: IGNORED}
    for row, name in enumerate("ab"):
        labels = found.labels.read([row])[0]
        assert labels.dtype == np.uint8
        assert labels.tolist() == [[table[value] for value in line] for line in masks[name].tolist()]
    assert pickle.loads(pickle.dumps(found)).labels.read([1])[0].tolist() == labels.tolist()


def test_named_classes_decide_what_counts(tmp_path: Path) -> None:
    root = write_set(tmp_path, {"a": mask(0, (0, 1, 2, 5, 9, 255)), "b": mask(1, (0, 2))})
    write(root / "classes.csv", b"value,name\n2,tree\n0,sky\n7,sea\n")
    found = open_segmentation(str(root / "annotations/validation"))
    assert found.classes == ("sky", "tree", "sea")
    values = mask(0, (0, 1, 2, 5, 9, 255))
    expected = np.select([values == 0, values == 2], [0, 1], IGNORED)
    assert np.array_equal(found.labels.read([0])[0], expected)
    assert [(problem.kind, problem.key) for problem in found.problems] == [
        ("mask value", "a.jpg"),
        ("empty class", "sea"),
    ]
    strange = int(np.isin(values, (1, 5, 9)).sum())
    assert found.problems[0].detail == f"{strange} pixels of value 1, 5, 9"


def test_ade20k_names_its_classes_by_its_own_file(tmp_path: Path) -> None:
    root = write_set(tmp_path, {"a": mask(0, (0, 1, 3))})
    header = "Idx\tRatio\tTrain\tVal\tName    \n"
    write(
        root / "objectInfo150.txt",
        f"{header}1\t0.2\t9\t9\twall\n2\t0.1\t9\t9\tbuilding, edifice\n3\t0.1\t9\t9\tsky   \n".encode(),
    )
    found = open_segmentation(str(root / "annotations/validation"))
    assert found.classes == ("wall", "building, edifice", "sky") and kinds(found) == {"empty class": 1}


def test_parts_of_a_set_share_their_classes(tmp_path: Path) -> None:
    write_set(tmp_path, {"a": mask(0, (1, 7))}, split="training")
    root = write_set(tmp_path, {"a": mask(0, (3, 7))}, split="validation")
    for split, absent in (("training", "value-3"), ("validation", "value-1")):
        found = open_segmentation(str(root / "images" / split))
        assert found.classes == ("value-1", "value-3", "value-7")
        assert [problem.key for problem in found.problems] == [absent]


def test_images_and_masks_that_do_not_fit_are_dropped_and_named(tmp_path: Path) -> None:
    root = write_set(tmp_path, {name: mask(0) for name in ("good", "small", "alone", "torn", "colour", "void", "over")})
    masks = root / "annotations/validation"
    write(masks / "small.png", encode(mask(0)[:, :-1]))
    (masks / "alone.png").unlink()
    write(masks / "torn.png", encode(mask(0))[:-30])
    write(masks / "colour.png", encode(np.dstack([mask(0)] * 3)))
    write(masks / "void.png", encode(np.where(mask(0) == 0, 0, 255).astype(np.uint8)))
    (root / "images/validation/over.jpg").unlink()
    found = open_segmentation(str(masks))
    assert found.manifest.keys.tolist() == ["good.jpg"] and len(found) == 1
    named = {(problem.kind, problem.key) for problem in found.problems}
    assert named == {
        ("mask size", "small.jpg"),
        ("no mask", "alone.jpg"),
        ("broken", "torn.jpg"),
        ("broken", "colour.jpg"),
        ("no label", "void.jpg"),
        ("no image", "over"),
    }
    assert np.array_equal(found.labels.read([0])[0] == IGNORED, np.isin(mask(0), (0, 255)))


def test_none_left_is_an_error_that_says_why(tmp_path: Path) -> None:
    root = write_set(tmp_path, {"a": mask(0, (0, 255))})
    write(root / "classes.csv", b"value,name\n1,x\n")
    with pytest.raises(InputError, match="1 masks without a pixel of any class"):
        open_segmentation(str(root / "annotations/validation"))
    (root / "classes.csv").unlink()
    with pytest.raises(InputError, match="at least one image with a mask"):
        open_segmentation(str(root / "annotations/validation"))
    with pytest.raises(InputError, match="no such pair"):
        open_segmentation(str(root))


@pytest.mark.parametrize(
    "table",
    [
        "",
        "value,name\n",
        "value,name\n1,a\n1,b\n",
        "value,name\n1,a\n2,a\n",
        "name\na\n",
        "value,name\n99999999,a\n",
        "value,name\n1,void\n",
        "value,name\n1,\udcff\n",
    ],
)
def test_class_files_that_are_not_clear_are_errors(table: str, tmp_path: Path) -> None:
    root = write_set(tmp_path, {"a": mask(0)})
    write(root / "classes.csv", table.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match="classes of masks"):
        open_segmentation(str(root / "annotations/validation"))


YAML = """
train: {images: ../images/train, masks: masks/train}
classes:
  0: unlabeled
  2: tree
  5: no
  7: Void
  9: sea
  10: lake
ignore_classes: [9]
"""


@pytest.mark.parametrize("place", ["", "annotations"])
def test_yaml_names_classes_and_what_is_none(place: str, tmp_path: Path) -> None:
    values = mask(0, (0, 2, 5, 7, 9, 11, 255))
    root = write_set(tmp_path, {"a": values})
    write(root / place / "classes.yaml", YAML.encode())
    found = open_segmentation(str(root / "annotations/validation"))
    assert found.classes == ("tree", "no", "lake")
    wanted = np.select([values == 2, values == 5], [0, 1], IGNORED)
    assert np.array_equal(found.labels.read([0])[0], wanted)
    strange = f"{(values == 11).sum()} pixels of value 11"  # 7 and 9 are said to be no class
    assert [(problem.kind, problem.detail) for problem in found.problems] == [
        ("mask value", strange),
        ("empty class", "value 10"),
    ]


@pytest.mark.parametrize(
    "text",
    ["", "a: [", "- 1", "classes: [a, b]", "classes: {1: a, 1: b}", "classes: {1: {name: a}}", "classes: {x: a}"],
)
def test_yaml_that_is_not_clear_is_an_error(text: str, tmp_path: Path) -> None:
    root = write_set(tmp_path, {"a": mask(0)})
    write(root / "classes.yaml", text.encode())
    with pytest.raises(InputError, match=r"classes of masks.*(?s:.)*classes\.yaml"):
        open_segmentation(str(root / "annotations/validation"))


@pytest.mark.parametrize("mode", ["P", "I;16", "1"])
def test_masks_of_other_modes_keep_their_values(mode: str, tmp_path: Path) -> None:
    values = mask(0, (0, 1) if mode == "1" else (0, 1, 2))
    root = write_set(tmp_path, {"a": values})
    image = Image.fromarray(
        values.astype(bool) if mode == "1" else values.astype(np.uint16 if mode == "I;16" else np.uint8)
    )
    if mode == "P":
        image.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "png")
    write(root / "annotations/validation/a.png", buffer.getvalue())
    found = open_segmentation(str(root / "annotations/validation"))
    assert np.array_equal(found.labels.read([0])[0], np.where(values == 0, IGNORED, values - 1))


def test_masks_are_read_once_and_again_when_one_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_set(tmp_path, {"a": mask(0), "b": mask(1)})
    first = open_segmentation(str(root / "images/validation"))
    scan = segmentation._scan_mask
    monkeypatch.setattr(segmentation, "_scan_mask", lambda *_: pytest.fail("read again"))
    assert open_segmentation(str(root / "annotations/validation")).digest == first.digest
    monkeypatch.setattr(segmentation, "_scan_mask", scan)
    write(root / "annotations/validation/b.png", encode(mask(7)))
    assert open_segmentation(str(root / "annotations/validation")).digest != first.digest


def test_a_mask_that_goes_missing_is_named(tmp_path: Path) -> None:
    root = write_set(tmp_path, {"a": mask(0)})
    found = open_segmentation(str(root / "annotations/validation"))
    (root / "annotations/validation/a.png").unlink()
    with pytest.raises(BadImageError, match=r"a\.png"):
        found.labels.read([0])


def test_two_masks_of_one_image_are_an_error(tmp_path: Path) -> None:
    root = write_set(tmp_path, {"a": mask(0)})
    write(root / "annotations/validation/a.tif", encode(mask(1), "tiff"))
    with pytest.raises(InputError, match="several for a"):
        open_segmentation(str(root / "annotations/validation"))


def test_shapes16_has_a_background_and_its_shapes() -> None:
    found = open_segmentation("builtin:shapes16:hard@32")
    assert (found.classes, len(found)) == (("background", *SHAPES), 768)
    drawn = render([5, 700], "hard", 32)
    for labels, drawn_mask, shape in zip(found.labels.read([5, 700]), drawn.masks, drawn.shapes, strict=True):
        assert np.array_equal(labels, np.where(drawn_mask, shape + 1, 0))


def test_coco_mini_masks_have_the_classes_of_its_file(shared_data: Path) -> None:
    root = shared_data / "coco_mini"
    lines = (root / "semantic_masks" / "classes.yaml").read_text().split("classes:\n")[1].splitlines()
    names = {int(value): name for value, name in (line.strip().split(": ") for line in lines)}
    found = open_segmentation(str(root / "semantic_masks" / "val2017"))
    assert names.pop(0) == "unlabeled"
    assert (len(found), found.classes, kinds(found).keys()) == (50, tuple(names.values()), {"empty class"})
    for row in range(0, 50, 7):
        values = np.array(Image.open(root / "semantic_masks/val2017" / found.manifest.keys[row].replace("jpg", "png")))
        labels = found.labels.read([row])[0]
        assert np.array_equal(np.where(labels == IGNORED, 0, np.array([*names, *[0] * 256])[labels]), values)
        assert labels.shape == found.manifest.source.read([row])[0].shape[:2]
