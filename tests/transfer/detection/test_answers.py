"""Masks of detections in whole images, and through COCO's JSON and back, to the bit."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from torch.nn import functional as F

from pixmim_eval.data.boxes.outlines import check_outline, decode_outline
from pixmim_eval.data.coco import DetectionSet, open_detection
from pixmim_eval.transfer.detection.answers import Detections, drop_boxes, encode_mask, paste_mask, to_results, unpack

HEIGHT, WIDTH = 37, 53
BOXES = [
    (3.2, 5.7, 30.1, 21.4),
    (-0.0, 0.0, 53.0, 37.0),
    (50.5, 30.2, 53.0, 37.0),
    (10.3, 0.0, 12.1, 37.0),
    (7, 8, 9, 9),
]


def paste_by_grid(mask: np.ndarray, box: tuple[float, ...]) -> np.ndarray:
    """Every pixel of the image asks for the mask at its own middle, with zeros around it."""
    left, top, right, bottom = box
    y = torch.from_numpy((np.arange(HEIGHT) + 0.5 - top) / (bottom - top) * 2 - 1)
    x = torch.from_numpy((np.arange(WIDTH) + 0.5 - left) / (right - left) * 2 - 1)
    grid = torch.stack((x.expand(HEIGHT, -1), y[:, None].expand(-1, WIDTH)), dim=-1)[None]
    values = torch.from_numpy(mask.astype(np.float64))[None, None]
    return F.grid_sample(values, grid, align_corners=False)[0, 0].numpy() >= 0.5


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("kind", ["random", "full", "columns"])
def test_a_mask_is_that_of_every_pixel_asking_for_itself(box: tuple[float, ...], kind: str) -> None:
    random = np.random.default_rng(1)
    mask = {
        "random": random.random((28, 28)),
        "full": np.full((28, 28), 0.99),
        "columns": np.tile(np.arange(28) % 3 > 0, (28, 1)).astype(float),
    }[kind].astype(np.float16)
    expected = paste_by_grid(mask, box)
    pixels, top, left = paste_mask(mask, np.array(box), HEIGHT, WIDTH)
    whole = np.zeros((HEIGHT, WIDTH), dtype=bool)
    whole[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    assert np.array_equal(whole, expected)
    encoded = encode_mask(mask, np.array(box), HEIGHT, WIDTH)
    assert encoded["counts"] == coco_mask.encode(np.asfortranarray(expected, dtype=np.uint8))["counts"].decode()
    assert encoded["size"] == [HEIGHT, WIDTH] and check_outline(encoded, HEIGHT, WIDTH) == ""
    assert np.array_equal(decode_outline(json.loads(json.dumps(encoded)), HEIGHT, WIDTH), expected)


@pytest.fixture(scope="module")
def shapes() -> DetectionSet:
    return open_detection("builtin:shapes16:hard@32")


def test_objects_go_through_json_and_back_unchanged(shapes: DetectionSet) -> None:
    data = shapes
    rows = list(range(20))
    truth = json.loads(json.dumps(data.to_coco(rows)))
    for row, entry in zip(rows, truth["annotations"], strict=True):
        left, top, width, height = entry["bbox"]
        assert [left, top, left + width, top + height] == data.objects(row).boxes[0].tolist()
        assert np.array_equal(decode_outline(entry["segmentation"], 32, 32), data.masks(row)[0])


def test_detections_go_through_json_and_back_to_the_bit(shapes: DetectionSet) -> None:
    data = shapes
    random = np.random.default_rng(0)
    corners = random.random((6, 2)) * 16
    boxes = np.concatenate((corners, corners + 2 + 10 * random.random((6, 2))), axis=1).astype(np.float32)
    labels, scores = random.integers(0, 16, 6), np.sort(random.random(6).astype(np.float32))[::-1].copy()
    found = Detections(boxes, scores, labels, random.random((6, 28, 28)).astype(np.float16))
    results = json.loads(json.dumps(to_results(data, 7, found)))
    for place, result in enumerate(results):
        left, top, width, height = result["bbox"]
        assert np.array_equal(np.float32([left, top, left + width, top + height]), boxes[place])
        assert np.float32(result["score"]) == scores[place] and result["image_id"] == 8
        assert result["category_id"] == data.categories[labels[place]]
        pixels, upper, first = paste_mask(found.masks[place], boxes[place], 32, 32)  # type: ignore[index]
        decoded = decode_outline(result["segmentation"], 32, 32)
        assert np.array_equal(decoded[upper : upper + pixels.shape[0], first : first + pixels.shape[1]], pixels)
        assert decoded.sum() == pixels.sum()
    assert all("bbox" not in result and "segmentation" in result for result in drop_boxes(results))


def test_rows_without_detections_are_empty() -> None:
    arrays = {
        "boxes": np.zeros((2, 100, 4), np.float32),
        "scores": np.zeros((2, 100), np.float32),
        "labels": np.full((2, 100), -1),
    }
    arrays["labels"][1, :3] = [2, 0, 1]
    assert len(unpack(arrays, 0).labels) == 0
    assert unpack(arrays, 1).labels.tolist() == [2, 0, 1] and unpack(arrays, 1).masks is None
