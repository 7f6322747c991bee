"""Segmentation scores equal a plain loop over pixels in double precision, scikit-learn, and their own definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import expit, logit
from sklearn.metrics import confusion_matrix, jaccard_score, recall_score

from pixmim_eval.errors import InputError
from pixmim_eval.metrics.intervals import wilson
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


def score_means(totals: np.ndarray) -> np.ndarray:
    """mIoU and mAcc of totals [..., 3, K], by their definitions."""
    right, true, answered = np.moveaxis(np.asarray(totals, dtype=np.float64), -2, 0)
    with np.errstate(invalid="ignore"):
        return np.stack([np.nanmean(right / below, axis=-1) for below in (true + answered - right, true)], axis=-1)


def test_intervals_are_students_of_the_jackknife_on_log_odds() -> None:
    truths, answers = make_images(40, seed=1)
    tallies = tally_all(truths, answers)
    scores = score_segmentation(tallies)
    without = np.array([score_means(np.delete(tallies, row, axis=0).sum(axis=0)) for row in range(40)])
    right = np.array([np.delete(tallies, row, axis=0)[:, :, 2].sum(axis=0) for row in range(40)], dtype=float)
    for found, left, freedom in (
        (scores.miou, without[:, 0], 39),
        (scores.macc, without[:, 1], 39),
        (scores.iou[2], right[:, 0] / (right[:, 1] + right[:, 2] - right[:, 0]), 39),
    ):
        error = np.sqrt(39 / 40 * ((left - left.mean()) ** 2).sum())
        half = stats.t.ppf(0.975, freedom) * error / (found.value * (1 - found.value))
        wanted = expit(logit(found.value) + np.array([-half, half]))
        np.testing.assert_allclose([found.low, found.high], wanted, rtol=1e-9)
        assert found.n == 40


def test_an_interval_of_a_class_knows_how_few_images_have_it() -> None:
    tallies = np.zeros((50, 3, 2), dtype=np.int64)
    tallies[:, :, 0] = 10
    tallies[:3, :, 1] = [(3, 5, 4), (4, 5, 5), (2, 5, 4)]
    found = score_segmentation(tallies).accuracy[1]
    without = np.array([6 / 10, 5 / 10, 7 / 10, *[9 / 15] * 47])
    half = stats.t.ppf(0.975, 2) * np.sqrt(49 * without.var()) / (0.6 * 0.4)
    np.testing.assert_allclose([found.low, found.high], expit(logit(0.6) + np.array([-half, half])), rtol=1e-9)
    assert (found.value, found.n) == (0.6, 3)


def test_one_image_tells_nothing_of_others() -> None:
    tallies = np.zeros((50, 3, 2), dtype=np.int64)
    tallies[:, :, 0] = 10
    tallies[0, :, 1] = (3, 5, 4)
    scores = score_segmentation(tallies)
    assert (scores.iou[1].value, scores.iou[1].low, scores.iou[1].high, scores.iou[1].n) == (0.5, 0.0, 1.0, 1)
    alone = score_segmentation(tallies[:1])
    assert (alone.miou.low, alone.miou.high) == (alone.aacc.low, alone.aacc.high) == (0.0, 1.0)


def test_images_that_agree_are_not_certain() -> None:
    tallies = np.full((48, 3, 2), 10, dtype=np.int64)
    tallies[:, 0, 1] = tallies[:, 2, 1] = 0  # never answered
    scores = score_segmentation(tallies)
    for found, wanted in ((scores.iou[1], wilson(0, 48)), (scores.accuracy[0], wilson(48, 48))):
        assert (found.value, found.low, found.high) == pytest.approx((wanted.value, wanted.low, wanted.high), abs=1e-12)


def draw_population(count: int, classes: int, random: np.random.Generator) -> np.ndarray:
    """Tallies of images with classes from half of them to one in two hundred, the rarer the worse; wrong pixels are
    answered with few other classes, mostly frequent ones."""
    share = np.geomspace(0.5, 0.005, classes)
    skill = np.clip(0.6 * (share / share[0]) ** 0.3 * np.exp(0.4 * random.standard_normal(classes)), 0.003, 0.97)
    present = random.random((count, classes)) < share
    present[~present.any(axis=1), 0] = True
    areas = random.gamma(1.0, 1.0, (count, classes)) * present
    pixels = np.round(1000 * areas / areas.sum(axis=1, keepdims=True))
    rates = random.beta(3 * skill, 3 * (1 - skill), (count, classes)) * 2 * random.beta(4, 4, (count, 1))
    right = np.round(pixels * rates.clip(0, 1))
    wrong = (pixels - right).sum(axis=1, keepdims=True) * random.dirichlet(6 * share / share.sum(), count)
    return np.stack((right, pixels, right + np.round(wrong)), axis=1).astype(np.int64)


def test_intervals_hold_the_mean_over_sets_and_percentiles_do_not() -> None:
    """300 sets of 50 images with a hundred classes, most of them in few images. Percentiles of resampled sets, in which
    a third of the rarest classes are missing, are too narrow, and for accuracies too high."""
    random = np.random.default_rng(0)
    population = draw_population(8000, 100, random)
    sets = [population[random.choice(len(population), 50, replace=False)] for _ in range(300)]
    truth = score_means(np.stack([part.sum(axis=0) for part in sets])).mean(axis=0)
    held, resampled = [], []
    for part in sets:
        scores = score_segmentation(part)
        held.append(
            [one.low <= wanted <= one.high for one, wanted in zip((scores.miou, scores.macc), truth, strict=True)]
        )
        totals = random.multinomial(50, np.full(50, 0.02), 200) @ part.reshape(50, -1)
        low, high = np.quantile(score_means(totals.reshape(200, 3, 100)), [0.025, 0.975], axis=0)
        resampled.append((low <= truth) & (truth <= high))
    coverage, others = np.mean(held, axis=0), np.mean(resampled, axis=0)
    print(f"mIoU, mAcc: held by {coverage} of intervals, {others} of percentiles")
    assert (coverage > 0.93).all()
    assert (others < 0.92).all()


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
