"""Labels in pictures can be read: none covers another."""

from __future__ import annotations

import numpy as np

from pixmim_eval.transfer.detection.answers import Detections
from pixmim_eval.transfer.detection.overlays import _choose_drawn, place_labels


def test_labels_are_in_the_image_and_none_covers_another() -> None:
    random = np.random.default_rng(0)
    corners = random.random((40, 2)) * (560, 400)
    boxes = np.concatenate((corners, corners + 10 + random.random((40, 2)) * 70), axis=1)
    names = ["1: 97", "dining table: 66", "3"]
    labels = [(box, names[number % 3]) for number, box in enumerate(boxes)]
    places = place_labels(labels, 480, 640)
    assert places[-1] is not None and sum(place is not None for place in places) >= 30
    covered = np.zeros((480, 640), dtype=int)
    pixel = 640 / 1.9 / 72
    for place, (_, text) in zip(places, labels, strict=True):
        if place is not None:
            x, y = round(place[0]), round(place[1])
            high, wide = int(5.8 * pixel) - 1, int((0.62 * 4 * len(text) + 2) * pixel) - 1
            assert 0 <= x <= 640 - wide and 0 <= y <= 480 - high
            covered[y : y + high, x : x + wide] += 1
    assert covered.max() == 1


def test_a_label_without_room_is_left_out_and_the_best_stays() -> None:
    box = np.array([2.0, 2.0, 9.0, 9.0])
    places = place_labels([(box, f"cat: {number}") for number in range(30, 60)], 10, 10)
    assert places[0] is None and places[-1] == (2.0, 2.0)


def test_what_scores_enough_is_drawn_or_else_the_best() -> None:
    for scores, drawn in (((0.9, 0.3, 0.29), [0, 1]), ((0.2, 0.1), [0]), ((), [])):
        found = Detections(np.zeros((len(scores), 4)), np.array(scores), np.zeros(len(scores), dtype=int), None)
        assert _choose_drawn(found).tolist() == drawn
