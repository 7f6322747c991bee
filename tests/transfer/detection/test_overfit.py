"""A detector that is wired right learns ten images by heart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pixmim_eval.data.coco import DetectionSet, open_detection
from pixmim_eval.metrics.detection import score_detections
from pixmim_eval.models.catalog import load_models
from pixmim_eval.transfer.detection.answers import DetectionPass, drop_boxes, to_results, unpack
from pixmim_eval.transfer.detection.recipes import DetectionOptions, resolve_recipe
from pixmim_eval.transfer.detection.task import train_detector
from pixmim_eval.types import SuiteConfig

SIZE = 64


def choose_images(data: DetectionSet, count: int) -> np.ndarray:
    """The images whose smallest object is largest: at so few pixels, others cannot be seen."""
    shares = ((data.boxes[:, 2:] - data.boxes[:, :2]) / data.sizes[data.image][:, ::-1]).min(axis=1)
    least = np.full(len(data), np.inf)
    np.minimum.at(least, data.image, shares)
    least[np.isinf(least)] = 0
    return np.sort(np.argsort(-least, kind="stable")[:count])


@pytest.mark.slow
def test_ten_images_are_learnt_by_heart(shared_data: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    data = open_detection(str(shared_data / "coco_mini" / "annotations" / "instances_train2017.json"))
    model, rows = load_models([], [])[0], choose_images(data, 10)
    options = DetectionOptions(
        recipe="short",
        image_size=SIZE,
        iterations=200,
        train_batch_size=5,
        learning_rate=8e-4,
        warmup_iterations=20,
        weight_decay=0.0,
        least_scale=1.0,
        most_scale=1.0,
        proposals=100,
    )
    recipe = resolve_recipe(options, size=SIZE, patch=8, depth=4)
    config = SuiteConfig({}, workers=0, out=tmp_path)
    network, key = train_detector(model, data, rows, config, recipe)
    work = DetectionPass(data, rows, network, SIZE, model.preprocessing, config, key, "learnt by heart")
    found = [(int(batch.index[0]), unpack(outputs, 0)) for batch, outputs in work.run(rows)]
    results = [result for row, one in found for result in to_results(data, row, one)]
    truth = data.to_coco(rows.tolist())
    boxes = score_detections(truth, results, "bbox").summary["ap50"].value
    masks = score_detections(truth, drop_boxes(results), "segm").summary["ap50"].value
    print(f"box AP50 {boxes:.3f}, mask AP50 {masks:.3f}")
    assert boxes >= 0.8 and masks >= 0.7  # of ten classes, most have one object: a mask missed is a tenth
