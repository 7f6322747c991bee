"""Average precision against pycocotools run directly, on sets with crowds, ties of sizes, and resampled images."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pixmim_eval.errors import InputError
from pixmim_eval.metrics.detection import (
    _leave_out,
    _list_cells,
    _score_sets,
    measure_precision,
    run_pycocotools,
    score_detections,
)
from pixmim_eval.metrics.intervals import jackknife_interval

SIDE = 160


def make_set(images: int = 12, seed: int = 0, crowds: bool = True) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Truth of four categories (the last never occurs) and detections near it, some in excess, some missing."""
    random = np.random.default_rng(seed)
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []

    def outline(box: list[float]) -> dict[str, Any]:
        mask = np.zeros((SIDE, SIDE), np.uint8, order="F")
        left, top, width, height = (round(value) for value in box)
        mask[max(top, 0) : top + height, max(left, 0) : left + width] = 1
        encoded = coco_mask.encode(mask)
        return {"size": [SIDE, SIDE], "counts": encoded["counts"].decode()}

    for image in range(1, images + 1):
        for _ in range(random.integers(0, 5)):
            size = random.choice([14, 50, 110])
            box = [*(random.random(2) * (SIDE - size)), *(size * (0.7 + 0.3 * random.random(2)))]
            crowd = int(crowds and random.random() < 0.2)
            category = int(random.integers(1, 4))
            entry = {"id": len(annotations) + 1, "image_id": image, "category_id": category, "iscrowd": crowd}
            annotations.append(entry | {"bbox": box, "area": box[2] * box[3] * 0.9, "segmentation": outline(box)})
            for _ in range(random.integers(0, 4)):
                near = (np.array(box) + random.normal(0, size / 12, 4)).clip(1, SIDE).tolist()
                category = category if random.random() < 0.8 else int(random.integers(1, 5))
                found = {"image_id": image, "category_id": category, "bbox": near, "score": float(random.random())}
                results.append(found | {"segmentation": outline(near)})
    listed = [{"id": image, "height": SIDE, "width": SIDE, "file_name": f"{image}"} for image in range(1, images + 1)]
    categories = [{"id": number, "name": f"class {number}"} for number in range(1, 5)]
    return {"images": listed, "annotations": annotations, "categories": categories}, results


def run_directly(truth: dict[str, Any], results: list[dict[str, Any]], kind: str) -> np.ndarray:
    """The twelve numbers of pycocotools' own summary."""
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = {"info": {}, **truth, "annotations": [dict(entry) for entry in truth["annotations"]]}
        known.createIndex()
        evaluation = COCOeval(known, known.loadRes([dict(result) for result in results]), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def keep_images(truth: dict[str, Any], numbers: set[int]) -> dict[str, Any]:
    return {
        "images": [image for image in truth["images"] if image["id"] in numbers],
        "annotations": [entry for entry in truth["annotations"] if entry["image_id"] in numbers],
        "categories": truth["categories"],
    }


def without(results: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [{key: value for key, value in result.items() if key != name} for result in results]


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("seed", [0, 1])
def test_numbers_are_pycocotools_own(kind: str, seed: int) -> None:
    truth, results = make_set(seed=seed)
    assert any(entry["iscrowd"] for entry in truth["annotations"])
    results = without(results, "bbox") if kind == "segm" else results
    found = score_detections(truth, results, kind, groups=5).summary  # type: ignore[arg-type]
    names = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
    assert [found[name].value for name in names] == run_directly(truth, results, kind)[:6].tolist()
    assert all(estimate.low <= estimate.value <= estimate.high for estimate in found.values())
    assert {estimate.n for estimate in found.values()} == {12}


def test_the_categories_that_occur_are_averaged_and_no_others() -> None:
    truth, results = make_set()
    scores = score_detections(truth, results, "bbox", groups=5)
    assert sorted(scores.classes) == [1, 2, 3]
    assert np.isclose(np.mean([estimate.value for estimate in scores.classes.values()]), scores.summary["ap"].value)
    images = {entry["image_id"] for entry in truth["annotations"] if entry["category_id"] == 2 and not entry["iscrowd"]}
    assert scores.classes[2].n == len(images)


def test_every_image_once_is_what_was_measured() -> None:
    truth, results = make_set(seed=2)
    evaluation = run_pycocotools(truth, results, "bbox")
    precision = evaluation.eval["precision"][..., -1]
    for category, area, cell in _list_cells(evaluation):
        place = list(evaluation.params.catIds).index(category)
        once = np.ones((1, 12), dtype=np.int64)
        found = measure_precision(cell, once, evaluation.params.recThrs)[0]
        np.testing.assert_allclose(found, precision[:, :, place, area].mean(axis=1), rtol=0, atol=1e-14)


def test_sets_without_an_image_score_as_pycocotools_scores_them() -> None:
    truth, results = make_set(seed=3)
    present = _leave_out(12, 12, seed=0)
    found = _score_sets(run_pycocotools(truth, results, "bbox"), present)
    for place, left_out in enumerate((1 + present.argmin(axis=1)).tolist()):
        part = keep_images(truth, {*range(1, 13)} - {left_out})
        seen = run_directly(part, [result for result in results if result["image_id"] != left_out], "bbox")
        for name, value in zip(("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"), seen, strict=False):
            expected = np.nan if value == -1 else value
            np.testing.assert_allclose(found[name][place], expected, rtol=0, atol=1e-14)


def test_every_image_is_left_out_once_and_groups_are_of_equal_sizes() -> None:
    present = _leave_out(23, 5, seed=1)
    assert (present.sum(axis=0) == 4).all() and sorted(23 - present.sum(axis=1)) == [4, 4, 5, 5, 5]
    assert (_leave_out(7, 7, seed=1).sum(axis=1) == 6).all()


def test_right_detections_alone_score_one() -> None:
    truth, _ = make_set(crowds=False)
    results = [
        {"image_id": entry["image_id"], "category_id": entry["category_id"], "bbox": entry["bbox"], "score": 0.5}
        for entry in truth["annotations"]
    ]
    for estimate in score_detections(truth, results, "bbox", groups=5).summary.values():
        assert (estimate.low, estimate.value, estimate.high) == (1, 1, 1) or estimate.value == pytest.approx(1)


def test_no_detections_score_zero() -> None:
    truth, _ = make_set()
    summary = score_detections(truth, [], "bbox", groups=5).summary
    assert {estimate.value for estimate in summary.values()} == {0.0}


def test_sizes_without_an_object_have_no_number() -> None:
    truth, results = make_set()
    truth["annotations"] = [entry for entry in truth["annotations"] if entry["area"] > 96**2]
    assert set(score_detections(truth, results, "bbox", groups=5).summary) == {"ap", "ap50", "ap75", "ap_large"}


def test_no_object_is_an_error_and_not_minus_one() -> None:
    truth, results = make_set()
    for entries in ([], [{**entry, "iscrowd": 1} for entry in truth["annotations"]]):
        with pytest.raises(InputError, match="at least one object"):
            score_detections({**truth, "annotations": entries}, results, "bbox")


def test_intervals_depend_on_the_seed_alone() -> None:
    truth, results = make_set()
    first, again, other = (score_detections(truth, results, "bbox", seed=seed, groups=5) for seed in (0, 0, 1))
    assert first == again and first != other


def test_intervals_hold_the_mean_over_sets() -> None:
    """Of sets of 30 images of a large one with rare categories, as in COCO."""
    random = np.random.default_rng(9)
    truth, results = make_set(images=300, seed=9, crowds=False)
    for entry in (*truth["annotations"], *results):  # categories 1, 2, 3 -> 1 to 23, the last ones rare
        entry["category_id"] = 1 + int(1.5 * np.exp(2.7 * np.random.default_rng(entry["image_id"]).random()))
    truth["categories"] = [{"id": number, "name": f"class {number}"} for number in range(1, 25)]
    evaluation = run_pycocotools(truth, results, "bbox")
    sets = np.stack([random.permutation(300) < 30 for _ in range(300)]).astype(np.int64)
    rows = np.stack([np.flatnonzero(one) for one in sets[:100]])
    without = np.repeat(sets[:100, None], 30, axis=1)
    without[np.arange(100)[:, None], np.arange(30), rows] = 0
    scores = _score_sets(evaluation, np.concatenate((sets, without.reshape(-1, 300))))["ap50"]
    values = scores[:300]
    pairs = zip(values, scores[300:].reshape(100, 30), strict=False)
    estimates = [jackknife_interval(value, one, 30) for value, one in pairs]
    held = np.mean([estimate.low <= values.mean() <= estimate.high for estimate in estimates])
    print(f"AP50: held by {held:.2f} of intervals")
    assert held >= 0.93
