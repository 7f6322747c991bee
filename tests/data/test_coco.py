"""Detection sets: what pycocotools knows of the same file, round trips, and every bad annotation by its name."""

from __future__ import annotations

import json
import math
import pickle
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pixmim_eval.data.coco import DetectionSet, open_detection
from pixmim_eval.data.shapes16 import SHAPES, render
from pixmim_eval.errors import InputError
from tests.data.box_files import write_image, write_json

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools


def square(left: float, top: float, side: float) -> list[list[float]]:
    return [[left, top, left + side, top, left + side, top + side, left, top + side]]


def make_content() -> dict[str, list[Any]]:
    """Three images of 40 x 30 with four objects of two classes, one of them a crowd."""
    names = ("a.png", "b.png", "c.png")
    images = [{"id": 10 * n, "file_name": name, "width": 40, "height": 30} for n, name in enumerate(names)]
    places = [(0, 7, 2, 3, 10), (20, 3, 5, 6, 8), (0, 3, 0, 0, 20), (0, 3, 20, 10, 12)]
    annotations: list[Any] = [
        {
            "id": n,
            "image_id": image,
            "category_id": category,
            "bbox": [left, top, side, side],
            "area": side * side,
            "iscrowd": 0,
            "segmentation": square(left, top, side),
        }
        for n, (image, category, left, top, side) in enumerate(places)
    ]
    crowd = {"size": [30, 40], "counts": [0, 600, 600]}
    annotations.append(
        {"id": 9, "image_id": 20, "category_id": 7, "bbox": [0, 0, 20, 30], "iscrowd": 1, "segmentation": crowd}
    )
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
    }


def write_set(root: Path, content: dict[str, Any], absent: tuple[str, ...] = ()) -> str:
    for name in ("a.png", "b.png", "c.png"):
        if name not in absent:
            write_image(root / "images/val2017" / name, 40, 30)
    return str(write_json(root / "annotations/instances_val2017.json", content))


def load(content: dict[str, Any]) -> COCO:
    reference = COCO()
    reference.dataset = json.loads(json.dumps(content))
    reference.createIndex()
    return reference


def kinds(found: DetectionSet) -> Counter[str]:
    return Counter(problem.kind for problem in found.problems)


def test_objects_are_sorted_by_image_and_keep_class_and_crowd(tmp_path: Path) -> None:
    found = open_detection(write_set(tmp_path, make_content()))
    assert (found.classes, found.categories.tolist(), len(found)) == (("dog", "cat"), [3, 7], 3)
    assert found.objects(0).boxes.tolist() == [[2, 3, 12, 13], [0, 0, 20, 20], [20, 10, 32, 22]]
    assert found.objects(0).labels.tolist() == [1, 0, 0] and not found.problems
    assert found.objects(1).boxes.shape == (0, 4) and found.masks(1).shape == (0, 30, 40)
    assert found.objects(2).crowd.tolist() == [False, True]
    assert [mask.sum() for mask in found.masks(2)] == [64, 600]
    assert found.entries[-1]["area"] == 600  # the mask's, as the file states none
    assert found.manifest.source.read([1])[0].shape == (30, 40, 3)
    assert pickle.loads(pickle.dumps(found)).digest == found.digest


def test_a_round_trip_through_coco_json_is_exact(tmp_path: Path) -> None:
    found = open_detection(write_set(tmp_path, make_content()))
    again = open_detection(write_set(tmp_path / "again", found.to_coco()))
    assert again.to_coco() == found.to_coco()
    for row in range(len(found)):
        one, two = found.objects(row), again.objects(row)
        assert np.array_equal(one.boxes, two.boxes) and np.array_equal(one.labels, two.labels)
        assert np.array_equal(one.crowd, two.crowd) and np.array_equal(found.masks(row), again.masks(row))


def test_objects_take_the_memory_of_their_text(tmp_path: Path) -> None:
    """COCO's training set as objects of Python would take gigabytes, in every process that reads images."""
    content = make_content()
    entry = {**content["annotations"][0], "segmentation": [[1.25, 2.5, 30.75, 2.5, 30.75, 20.125] * 20]}
    content["annotations"] = [{**entry, "id": number} for number in range(1, 501)]
    file = write_set(tmp_path, content)
    open_detection(file)  # what is loaded once
    tracemalloc.start()
    found = open_detection(file)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken < 1.5 * Path(file).stat().st_size
    assert found.entries[499] == found.entries[-1] == found.entries[0] and len(found.entries[5:9]) == 4
    with pytest.raises(IndexError):
        found.entries[500]


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_the_truth_found_again_scores_one(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = open_detection(write_set(tmp_path, make_content()))
    truth = load(found.to_coco())
    answers = [entry | {"score": 0.5} for entry in found.to_coco()["annotations"] if not entry["iscrowd"]]
    for answer in answers:
        answer["segmentation"] = truth.annToRLE(answer)
    score = COCOeval(truth, truth.loadRes(answers), kind)
    score.evaluate()
    score.accumulate()
    score.summarize()
    assert score.stats[0] == pytest.approx(1.0)


def test_a_part_of_the_images_numbers_its_annotations_from_one(tmp_path: Path) -> None:
    part = open_detection(write_set(tmp_path, make_content())).to_coco([2])
    assert [image["id"] for image in part["images"]] == [3]
    assert [(entry["id"], entry["image_id"]) for entry in part["annotations"]] == [(1, 3), (2, 3)]


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"image_id": 5}, "no entry"),
        ({"category_id": 1}, "no class"),
        ({"category_id": "7"}, "no class"),
        ({"bbox": [2, 3, 0, 10]}, "empty"),
        ({"bbox": [2, 3, 10, -1]}, "empty"),
        ({"bbox": [2, 3, math.inf, 10]}, "not finite"),
        ({"bbox": "box"}, "not finite"),
        ({"bbox": [40, 3, 10, 10]}, "outside"),
        ({"segmentation": [[0, 0]]}, "mask"),
        ({"segmentation": {"size": [40, 30], "counts": [1200]}}, "mask"),
    ],
)
def test_a_bad_annotation_is_dropped_and_named(change: dict[str, Any], kind: str, tmp_path: Path) -> None:
    content = make_content()
    content["annotations"][2] |= change
    found = open_detection(write_set(tmp_path, content))
    assert kinds(found) == {kind: 1} and len(found.entries) == 4
    assert found.objects(0).labels.tolist() == [1, 0]


def test_a_box_beyond_its_image_is_clipped_for_training_and_evaluated_as_it_is(tmp_path: Path) -> None:
    content = make_content()
    content["annotations"][0]["bbox"] = [-1, 25, 10, 10]
    found = open_detection(write_set(tmp_path, content))
    assert kinds(found) == {"clipped": 1}
    assert found.objects(0).boxes[0].tolist() == [0, 25, 9, 30]
    assert found.to_coco()["annotations"][0]["bbox"] == [-1, 25, 10, 10]


def test_annotations_of_absent_images_are_named(tmp_path: Path) -> None:
    found = open_detection(write_set(tmp_path, make_content(), absent=("c.png",)))
    assert found.manifest.keys.tolist() == ["a.png", "b.png"] and len(found.entries) == 3
    assert kinds(found) == {"no image": 1, "no entry": 2}


def test_an_image_of_another_size_is_dropped_and_named(tmp_path: Path) -> None:
    path = write_set(tmp_path, make_content())
    write_image(tmp_path / "images/val2017/a.png", 30, 40)
    found = open_detection(path)
    assert found.manifest.keys.tolist() == ["b.png", "c.png"]
    assert kinds(found)["image size"] == 1 and kinds(found)["no entry"] == 3
    assert found.objects(1).labels.tolist() == [0, 1]


def test_an_empty_category_is_named_and_crowds_do_not_fill_it(tmp_path: Path) -> None:
    content = make_content()
    content["categories"].append({"id": 4, "name": "unicorn"})
    content["annotations"].pop(0)  # the only cat that is not a crowd
    found = open_detection(write_set(tmp_path, content))
    assert [(problem.kind, problem.key) for problem in found.problems] == [
        ("empty class", "unicorn"),
        ("empty class", "cat"),
    ]
    assert found.classes == ("dog", "unicorn", "cat")


def test_none_left_is_an_error_that_says_why(tmp_path: Path) -> None:
    content = make_content()
    for entry in content["annotations"][:4]:
        entry["bbox"][2] = 0
    with pytest.raises(InputError, match="4 boxes that are empty"):
        open_detection(write_set(tmp_path, content))
    content = make_content()
    content["categories"][0]["name"] = "dog"
    with pytest.raises(InputError, match="dog more than once"):
        open_detection(write_set(tmp_path, content))
    content = make_content()
    with pytest.raises(InputError, match="images/val2017"):
        open_detection(write_set(tmp_path / "bare", content, absent=("a.png", "b.png", "c.png")))
    content["categories"] = []
    with pytest.raises(InputError, match="categories"):
        open_detection(write_set(tmp_path / "nameless", content))


def test_boxes_alone_make_a_set_without_masks(tmp_path: Path) -> None:
    content = make_content()
    for entry in content["annotations"]:
        del entry["segmentation"]
    found = open_detection(write_set(tmp_path, content))
    assert not found.with_masks and found.entries[-1]["area"] == 600 and "segmentation" not in found.entries[0]


def test_shapes16_is_a_detection_set() -> None:
    found = open_detection("builtin:shapes16:cue-conflict@32")
    assert (len(found), found.classes) == (768, tuple(SHAPES))
    drawn = render(np.arange(0, 768, 131), "cue-conflict", 32)
    for place, row in enumerate(range(0, 768, 131)):
        assert np.array_equal(found.masks(row), drawn.masks[place : place + 1])
        assert found.objects(row).boxes.tolist() == [drawn.boxes[place].tolist()]
        assert found.objects(row).labels.tolist() == [drawn.shapes[place]]
    truth = load(found.to_coco(range(8)))
    assert [truth.annToMask(entry).sum() for entry in truth.anns.values()] == [
        entry["area"] for entry in found.entries[:8]
    ]


def test_coco_mini_is_what_pycocotools_reads(shared_data: Path) -> None:
    file = shared_data / "coco_mini" / "annotations" / "instances_val2017.json"
    found, reference = open_detection(str(file)), load(json.loads(file.read_text()))
    assert (len(found), len(found.entries), len(found.classes)) == (50, 363, 80)
    assert {problem.kind for problem in found.problems} == {"empty class"}
    for row, number in enumerate(reference.imgs):
        entries = reference.loadAnns(reference.getAnnIds(number))
        x, y, width, height = np.array([entry["bbox"] for entry in entries]).T
        assert np.array_equal(found.objects(row).boxes, np.stack((x, y, x + width, y + height), axis=1))
        names = [reference.cats[entry["category_id"]]["name"] for entry in entries]
        assert [found.classes[label] for label in found.objects(row).labels] == names
        assert np.array_equal(found.masks(row), [reference.annToMask(entry) for entry in entries])
