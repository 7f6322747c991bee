"""Segmentation scores equal a plain loop over pixels in double precision, scikit-learn, and their own definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, jaccard_score, recall_score

from pixmim_eval.errors import InputError
from pixmim_eval.metrics.segmentation import count_confusion, score_segmentation, tally

CLASSES = 6


def make_images(count: int = 9, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Masks with unlabelled pixels and without class 4; answers are right in half of the pixels, and never class 5."""
    random = np.random.default_rng(seed)
    truths, answers = [], []
    for _ in range(count):
        shape = random.integers(5, 12, 2)
        truth = random.choice([0, 1, 2, 3, 5, 255], shape)
        guess = random.integers(0, 5, shape)
        truths.append(truth)
        answers.append(np.where((random.random(shape) < 0.5) & (truth < 5), truth, guess))
    return truths, answers


def count_by_loop(truths: list[np.ndarray], answers: list[np.ndarray]) -> np.ndarray:
    """Pixel by pixel, in double precision."""
    confusion = np.zeros((CLASSES, CLASSES), dtype=np.float64)
    for truth, answer in zip(truths, answers, strict=True):
        for y in range(truth.shape[0]):
            for x in range(truth.shape[1]):
                if truth[y, x] != 255:
                    confusion[truth[y, x], answer[y, x]] += 1
    return confusion


def tally_all(truths: list[np.ndarray], answers: list[np.ndarray]) -> np.ndarray:
    pairs = zip(truths, answers, strict=True)
    return np.stack([tally(count_confusion(truth, answer, CLASSES)) for truth, answer in pairs])


def test_confusion_equals_a_loop_over_pixels_and_scikit_learn() -> None:
    truths, answers = make_images()
    found = sum(count_confusion(truth, answer, CLASSES) for truth, answer in zip(truths, answers, strict=True))
    true, answer = (np.concatenate([part.ravel() for part in parts]) for parts in (truths, answers))
    kept = true != 255
    np.testing.assert_array_equal(found, count_by_loop(truths, answers))
    np.testing.assert_array_equal(found, confusion_matrix(true[kept], answer[kept], labels=range(CLASSES)))


def test_means_are_of_the_classes_that_occur() -> None:
    truths, answers = make_images()
    confusion = count_by_loop(truths, answers)
    ious, accuracies = [], []
    for label in range(CLASSES):
        union = confusion[label].sum() + confusion[:, label].sum() - confusion[label, label]
        if union:
            ious.append(confusion[label, label] / union)
        if confusion[label].sum():
            accuracies.append(confusion[label, label] / confusion[label].sum())
    assert (len(ious), len(accuracies)) == (6, 5)  # class 4 is never true, and class 5 never answered: both have IoU 0
    scores = score_segmentation(tally_all(truths, answers))
    assert scores.miou.value == pytest.approx(np.mean(ious), abs=1e-15)
    assert scores.macc.value == pytest.approx(np.mean(accuracies), abs=1e-15)
    assert scores.aacc.value == pytest.approx(np.trace(confusion) / confusion.sum(), abs=1e-15)
    assert scores.iou[4].value == scores.iou[5].value == 0
    assert sorted(scores.accuracy) == [0, 1, 2, 3, 5]


def test_classes_score_as_in_scikit_learn() -> None:
    truths, answers = make_images(seed=3)
    true, answer = (np.concatenate([part.ravel() for part in parts]) for parts in (truths, answers))
    kept = true != 255
    labels = [0, 1, 2, 3]
    scores = score_segmentation(tally_all(truths, answers))
    ious = jaccard_score(true[kept], answer[kept], labels=labels, average=None)
    recalls = recall_score(true[kept], answer[kept], labels=labels, average=None)
    np.testing.assert_allclose([scores.iou[label].value for label in labels], ious, rtol=1e-14)
    np.testing.assert_allclose([scores.accuracy[label].value for label in labels], recalls, rtol=1e-14)


def test_a_class_that_occurs_nowhere_counts_nowhere() -> None:
    truths, answers = make_images(3)
    narrow, wide = tally_all(truths, answers), tally_all(truths, answers)
    wide = np.concatenate((wide, np.zeros((3, 3, 10), dtype=np.int64)), axis=2)
    assert score_segmentation(wide).miou == score_segmentation(narrow).miou
    assert len(score_segmentation(wide).iou) == CLASSES


def test_intervals_are_quantiles_over_resampled_images() -> None:
    truths, answers = make_images(40, seed=1)
    tallies = tally_all(truths, answers)
    scores = score_segmentation(tallies, seed=5)
    random = np.random.default_rng(7)
    drawn = []
    for _ in range(2000):
        right, true, answered = tallies[random.integers(0, 40, 40)].sum(axis=0).astype(float)
        drawn.append(np.mean(right / (true + answered - right)))
    np.testing.assert_allclose([scores.miou.low, scores.miou.high], np.quantile(drawn, [0.025, 0.975]), atol=0.004)
    assert scores.miou.low < scores.miou.value < scores.miou.high
    assert scores.miou.n == 40
    assert scores == score_segmentation(tallies, seed=5)


def test_one_image_tells_nothing_of_others() -> None:
    tallies = np.zeros((50, 3, 2), dtype=np.int64)
    tallies[:, :, 0] = 10
    tallies[0, :, 1] = (3, 5, 4)
    scores = score_segmentation(tallies)
    assert (scores.iou[1].value, scores.iou[1].low, scores.iou[1].high, scores.iou[1].n) == (0.5, 0.0, 1.0, 1)
    assert scores.iou[0].low == scores.iou[0].high == 1.0


def test_means_equal_torchmetrics() -> None:
    classification = pytest.importorskip("torchmetrics.classification")
    truths, answers = make_images(seed=2)
    true, answer = (torch.from_numpy(np.concatenate([part.ravel() for part in parts])) for parts in (truths, answers))
    scores = score_segmentation(tally_all(truths, answers))
    settings = {"num_classes": CLASSES, "ignore_index": 255, "validate_args": False}
    found = {
        "miou": classification.MulticlassJaccardIndex(average="macro", **settings),
        "aacc": classification.MulticlassAccuracy(average="micro", **settings),
    }
    for name, metric in found.items():
        assert float(metric(answer, true)) == pytest.approx(getattr(scores, name).value, abs=1e-6)


@pytest.mark.parametrize("tallies", [np.zeros((0, 3, 2), int), np.zeros((4, 3, 2), int), np.ones((4, 2, 2), int)])
def test_nothing_to_score_is_an_error(tallies: np.ndarray) -> None:
    with pytest.raises(InputError, match="at least one image with a labelled pixel"):
        score_segmentation(tallies)


def test_answers_that_are_no_class_or_of_another_size_are_errors() -> None:
    with pytest.raises(InputError, match="answers in 0…2"):
        count_confusion(np.zeros((2, 2), int), np.full((2, 2), 3), 3)
    with pytest.raises(InputError, match="one shape"):
        count_confusion(np.zeros((2, 2), int), np.zeros((2, 3), int), 3)
