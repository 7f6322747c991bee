"""Large-scale jitter: image, boxes and masks move together, by the published rule."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pixmim_eval.data.coco import Objects
from pixmim_eval.transfer.detection.jitter import Crop, ScaleJitter, fit_image

HEIGHT, WIDTH = 60, 90


def make_scene(crowd: bool = False) -> tuple[np.ndarray, Objects, np.ndarray]:
    """Three objects in colours of their own: a rectangle, a disc and a triangle, with their boxes and masks."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    masks = np.stack(
        (
            (y >= 10) & (y < 30) & (x >= 5) & (x < 40),
            (y + 0.5 - 40) ** 2 + (x + 0.5 - 60) ** 2 < 12**2,
            (x >= 50) & (x < 85) & (y >= 5) & (y < 5 + (x - 50) // 2),
        )
    )
    boxes = []
    for mask in masks:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        boxes.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    image = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    for channel, mask in enumerate(masks):
        image[mask, channel] = 255
    labels = np.array([4, 7, 9])
    return image, Objects(np.array(boxes, dtype=np.float64), labels, np.array([False, crowd, False])), masks


def bound(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


def jitter(index: int, size: int = 64, least: float = 0.4, most: float = 2.0) -> Crop:
    return ScaleJitter(size, least, most)(*make_scene(), seed=3, index=index)


@pytest.mark.parametrize("index", range(40))
def test_boxes_masks_and_image_move_together(index: int) -> None:
    crop = jitter(index)
    for box, label, mask in zip(crop.boxes, crop.labels, crop.masks, strict=True):
        height, width = crop.image.shape[:2]
        assert not mask[height:].any() and not mask[:, width:].any()
        if label != 9 or min(box[2] - box[0], box[3] - box[1]) > 8:  # the triangle's tip is thinner than a pixel
            assert np.abs(bound(mask) - box).max() <= 1
        channel = {4: 0, 7: 1, 9: 2}[int(label)]
        seen = crop.image[:, :, channel] > 127
        union = (seen | (mask[:height, :width] > 0)).sum()
        assert (seen != (mask[:height, :width] > 0)).sum() <= max(6, 0.12 * union)


def test_sizes_offsets_and_mirroring_are_those_of_the_published_rule() -> None:
    """Read from the crops themselves: long sides from 0.4 to 2 crops, one offset for both axes, half mirrored."""
    flipped, longest = 0, []
    for index in range(200):
        crop = jitter(index, size=64)
        height, width = crop.image.shape[:2]
        longest.append(width)
        if width < 64:  # nothing is cut off: the rectangle is left of the disc unless mirrored
            boxes = {int(label): box for label, box in zip(crop.labels, crop.boxes, strict=True)}
            flipped += bool(boxes[4][0] > boxes[7][0])
            assert abs(height - width * HEIGHT / WIDTH) <= 1
    small = np.array(longest) < 64
    assert abs(small.mean() - (1 - 0.4) / (2 - 0.4)) < 0.12
    assert 0.35 < flipped / small.sum() < 0.65
    assert np.array(longest)[small].min() <= 28


def test_a_crop_depends_on_seed_and_index_alone() -> None:
    first, again, other = jitter(5), jitter(5), jitter(6)
    assert np.array_equal(first.image, again.image) and np.array_equal(first.masks, again.masks)
    assert first.image.shape != other.image.shape or not np.array_equal(first.image, other.image)


def test_at_its_own_size_an_image_is_not_changed_but_for_mirroring() -> None:
    image, objects, masks = make_scene()
    crops = [ScaleJitter(WIDTH, 1.0, 1.0)(image, objects, masks, seed=0, index=index) for index in range(8)]
    mirrored = [not np.array_equal(crop.image, image) for crop in crops]
    assert any(mirrored) and not all(mirrored)
    for crop, flip in zip(crops, mirrored, strict=True):
        assert np.array_equal(crop.image, image[:, ::-1] if flip else image)
        assert np.array_equal(crop.masks[:, :HEIGHT], masks[:, :, ::-1] if flip else masks)
        left, right = objects.boxes[:, 0], objects.boxes[:, 2]
        expected = (WIDTH - right, WIDTH - left) if flip else (left, right)
        assert np.array_equal(crop.boxes[:, [0, 2]], np.stack(expected, axis=1))


def test_crowds_and_objects_outside_the_crop_are_left_out() -> None:
    image, objects, masks = make_scene(crowd=True)
    counts = set()
    for index in range(30):
        crop = ScaleJitter(32, 3.0, 3.0)(image, objects, masks, seed=1, index=index)
        assert 7 not in crop.labels and crop.image.shape == (32, 32, 3)
        assert all(mask.any() for mask in crop.masks) and (crop.boxes[:, 2:] > crop.boxes[:, :2]).all()
        assert (crop.boxes >= 0).all() and (crop.boxes <= 32).all()
        counts.add(len(crop.boxes))
    assert 0 in counts and 1 in counts


def test_without_masks_boxes_move_alike() -> None:
    image, objects, _ = make_scene()
    for index in range(20):
        bare = ScaleJitter(64, 0.4, 1.0)(image, objects, None, seed=3, index=index)
        masked = jitter(index, most=1.0)
        assert bare.masks.shape == (3, 0, 0)
        assert np.abs(bare.boxes - masked.boxes).max() <= 1


def test_an_image_without_objects_is_a_crop_without_boxes() -> None:
    image, _, _ = make_scene()
    nothing = Objects(np.zeros((0, 4)), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=bool))
    crop = ScaleJitter(64, 1.0, 1.0)(image, nothing, np.zeros((0, HEIGHT, WIDTH), dtype=bool), seed=0, index=0)
    assert crop.boxes.shape == (0, 4) and crop.masks.shape == (0, 64, 64)


@pytest.mark.parametrize(
    ("shape", "expected"), [((480, 640), (768, 1024)), ((500, 333), (1024, 682)), ((3, 900), (3, 1024))]
)
def test_test_images_fit_the_square_by_their_long_side(shape: tuple[int, int], expected: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 255, (*shape, 3), dtype=np.uint8)
    found = fit_image(image, 1024)
    assert found.shape[:2] == expected
    assert np.array_equal(found, np.array(Image.fromarray(found)))
