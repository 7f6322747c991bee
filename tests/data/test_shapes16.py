"""Promises of the built-in data set."""

from __future__ import annotations

import math
import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.path import Path as Polygon
from scipy.ndimage import binary_dilation, binary_erosion, gaussian_filter
from scipy.stats import chisquare, f_oneway
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from torchvision.ops import masks_to_boxes

from pixmim_eval.data import shapes16
from pixmim_eval.data.shapes16.composition import compose, distractor_forms
from pixmim_eval.data.shapes16.drawing import canvas
from pixmim_eval.data.shapes16.labels import PLAIN, STYLES, styles
from pixmim_eval.data.shapes16.shapes import SHAPES, SILHOUETTES
from pixmim_eval.data.shapes16.textures import TEXTURES, noise_tile
from pixmim_eval.errors import InputError


@pytest.fixture(scope="module")
def train() -> shapes16.Rendering:
    return shapes16.render(range(4000), "train")


@pytest.fixture(scope="module")
def val() -> shapes16.Rendering:
    return shapes16.render(range(1024), "val")


# -- determinism


@pytest.mark.parametrize("variant", shapes16.VARIANTS)
def test_a_row_is_the_same_alone_and_in_any_batch_or_order(variant: str) -> None:
    rows = [37, 5, 1000, 6, 5]
    together = shapes16.render(rows, variant)
    for i, row in enumerate(rows):
        alone = shapes16.render([row], variant)
        for field in ("images", "shapes", "textures", "boxes", "masks"):
            np.testing.assert_array_equal(getattr(alone, field)[0], getattr(together, field)[i])
    np.testing.assert_array_equal(np.stack(shapes16.Shapes16Source(variant, 64, 0).read(rows)), together.images)


def test_threads_do_not_draw_over_each_other() -> None:
    serial = shapes16.render(range(64), "train").images
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda k: shapes16.render(range(k * 8, k * 8 + 8), "train").images, range(8)))
    np.testing.assert_array_equal(np.concatenate(parts), serial)


@pytest.mark.parametrize("variant", ["train", "cue-conflict", "sketch", "hard"])
def test_the_scene_is_the_same_at_every_size(variant: str) -> None:
    small, large = shapes16.render(range(48), variant, 64), shapes16.render(range(48), variant, 128)
    np.testing.assert_array_equal(small.shapes, large.shapes)
    np.testing.assert_array_equal(small.textures, large.textures)
    halved = large.images.reshape(48, 64, 2, 64, 2, 3).mean((2, 4))
    assert np.abs(halved - small.images).mean() < 8  # of 255; anti-aliasing and the finest noise differ
    assert np.corrcoef(halved.ravel(), small.images.ravel())[0, 1] > 0.98
    mask = large.masks.reshape(48, 64, 2, 64, 2).mean((2, 4)) >= 0.5
    assert (mask & small.masks).sum() / (mask | small.masks).sum() > 0.95
    assert np.mean(np.abs(large.boxes / 2 - small.boxes) <= 1) > 0.95  # thin tips may be less than half a pixel wide


def test_sizes_that_are_no_multiple_of_64_render() -> None:
    for size in (16, 50, 97, 224):
        rendering = shapes16.render(range(8), "hard", size)
        assert rendering.images.shape == (8, size, size, 3) and rendering.masks.any((1, 2)).all()


def test_train_val_and_seeds_share_no_image() -> None:
    images = [shapes16.render(range(64), variant, seed=seed).images for variant in ("train", "val") for seed in (0, 1)]
    assert len({image.tobytes() for batch in images for image in batch}) == 4 * 64


# -- labels


@pytest.mark.parametrize("variant", shapes16.VARIANTS)
def test_every_sixteen_rows_hold_each_shape_once_in_a_random_order(variant: str) -> None:
    labels = shapes16.shapes(np.arange(1600), variant, 0).reshape(100, 16)
    np.testing.assert_array_equal(np.sort(labels, axis=1), np.broadcast_to(np.arange(16), (100, 16)))
    counts = np.bincount(labels[:, 0], minlength=16)
    assert chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("variant", ["train", "val", "hard"])
def test_the_texture_goes_with_the_class_in_four_of_five_images(variant: str) -> None:
    rows = np.arange(16000)
    shapes, textures = shapes16.shapes(rows, variant, 0), shapes16.textures(rows, variant, 0)
    assert abs((shapes == textures).mean() - 0.8) < 0.01
    steps = ((textures - shapes) % 16)[textures != shapes]
    assert chisquare(np.bincount(steps, minlength=16)[1:]).pvalue > 1e-3


def test_in_cue_conflict_the_texture_is_always_of_another_class() -> None:
    rows = np.arange(8000)
    steps = (shapes16.textures(rows, "cue-conflict", 0) - shapes16.shapes(rows, "cue-conflict", 0)) % 16
    assert (steps != 0).all()
    assert chisquare(np.bincount(steps, minlength=16)[1:]).pvalue > 1e-3


def test_sketches_and_flat_renditions_have_no_texture() -> None:
    rows = np.arange(400)
    assert (shapes16.textures(rows, "sketch", 0) == PLAIN).all()
    flat = styles(rows, 0) == STYLES.index("flat")
    np.testing.assert_array_equal(shapes16.textures(rows, "rendition", 0) == PLAIN, flat)
    assert 60 < flat.sum() < 140


def test_object_colours_do_not_depend_on_the_class(train: shapes16.Rendering) -> None:
    weights = train.masks[..., None]
    means = (train.images * weights).sum((1, 2)) / weights.sum((1, 2))
    for channel in range(3):
        groups = [means[train.shapes == shape, channel] for shape in range(16)]
        assert f_oneway(*groups).pvalue > 1e-3


# -- geometry


def _coordinates(pixels: int) -> tuple[np.ndarray, np.ndarray]:
    centres = (np.arange(pixels) + 0.5) * (2.4 / pixels) - 1.2
    return centres[None, :], centres[:, None]


def _star_points() -> list[tuple[float, float]]:
    angles = [math.pi * k / 5 for k in range(10)]
    radii = [1.0 if k % 2 == 0 else 0.42 for k in range(10)]
    return [(r * math.sin(a), 0.06 - r * math.cos(a)) for r, a in zip(radii, angles, strict=True)]


POLYGONS = {
    "square": [(-0.78, -0.78), (0.78, -0.78), (0.78, 0.78), (-0.78, 0.78)],
    "triangle": [(0.0, -0.96), (0.98, 0.74), (-0.98, 0.74)],
    "star": _star_points(),
    "arrow": [(-0.95, -0.27), (-0.02, -0.27), (-0.02, -0.82), (0.97, 0), (-0.02, 0.82), (-0.02, 0.27), (-0.95, 0.27)],
    "corner": [(-0.78, -0.92), (-0.22, -0.92), (-0.22, 0.36), (0.82, 0.36), (0.82, 0.92), (-0.78, 0.92)],
    "hourglass": [(-0.8, -0.92), (0.8, -0.92), (0.1, 0), (0.8, 0.92), (-0.8, 0.92), (-0.1, 0)],
}


@pytest.mark.parametrize("name", POLYGONS)
def test_a_silhouette_with_straight_sides_is_its_polygon(name: str) -> None:
    x, y = _coordinates(240)
    points = np.stack(np.broadcast_arrays(x, y), axis=-1).reshape(-1, 2)
    inside = Polygon(POLYGONS[name]).contains_points(points).reshape(240, 240)
    distance = SHAPES[name](x, y)
    np.testing.assert_array_equal((distance < 0)[np.abs(distance) > 1e-6], inside[np.abs(distance) > 1e-6])


@pytest.mark.parametrize(
    ("name", "area"),
    [
        ("circle", math.pi * 0.88**2),
        ("ring", math.pi * (0.91**2 - 0.41**2)),
        ("half-disc", math.pi * 0.97**2 / 2),
        ("cross", 4 * (2 * 0.92 * 0.29 - 0.29**2)),
        ("tee", 1.84 * 0.56 + 0.56 * 1.22),
    ],
)
def test_a_round_or_crossed_silhouette_has_its_area(name: str, area: float) -> None:
    x, y = _coordinates(1200)
    assert (SHAPES[name](x, y) < 0).mean() * 2.4**2 == pytest.approx(area, rel=2e-3)


@pytest.mark.parametrize("shape", range(17))
def test_a_silhouette_is_a_distance_near_its_edge_and_fits_its_square(shape: int) -> None:
    x, y = _coordinates(600)
    distance = SILHOUETTES[shape](x, y)
    slope = np.hypot(*np.gradient(distance, 2.4 / 600))
    edge = np.abs(distance) < 0.01
    assert np.mean(np.abs(slope[edge] - 1) < 0.02) > 0.93  # all but the corners
    outside = (np.abs(x) > 1) | (np.abs(y) > 1)
    assert (distance[np.broadcast_to(outside, distance.shape)] > 0).all()


@pytest.mark.parametrize("variant", ["train", "hard"])
def test_the_drawn_window_holds_the_whole_silhouette(variant: str) -> None:
    easel = canvas(64)
    everywhere = (slice(0, 64), slice(0, 64))
    scenes = compose(np.arange(400), variant, 3)
    for thing in [*(scene.thing for scene in scenes), *distractor_forms()]:
        u, v = easel._locate(thing.pose, everywhere)
        missed = SILHOUETTES[thing.shape](u, v) * thing.pose.radius * 32 < 0.4  # covered by more than a tenth
        missed[easel._window(thing)] = False
        x, y = np.meshgrid((np.arange(64) + 0.5) / 32 - 1 - thing.pose.x, (np.arange(64) + 0.5) / 32 - 1 - thing.pose.y)
        # A tilted plane comes back from behind its vanishing line: those pixels must not be drawn.
        seen = thing.pose.tilt[0] * x + thing.pose.tilt[1] * y > -0.8
        assert not (missed & seen).any()
        assert seen[easel._window(thing)].all()


@pytest.mark.parametrize("variant", shapes16.VARIANTS)
def test_boxes_are_tight_around_masks(variant: str) -> None:
    rendering = shapes16.render(range(200), variant)
    inclusive = masks_to_boxes(torch.from_numpy(rendering.masks)).long().numpy()
    np.testing.assert_array_equal(rendering.boxes, inclusive + np.array([0, 0, 1, 1]))


def test_objects_span_about_half_to_four_fifths_of_the_side(train: shapes16.Rendering) -> None:
    span = (train.boxes[:, 2:] - train.boxes[:, :2]).max(axis=1) / 64
    low, middle, high = np.quantile(span, [0.05, 0.5, 0.95])
    assert 0.4 < low < 0.5 and 0.55 < middle < 0.7 and 0.75 < high < 0.85


def test_what_other_things_hide_is_not_in_the_mask() -> None:
    hidden = 0
    for scene in compose(np.arange(100), "hard", 0):
        _, visible = canvas(64).draw(scene)
        _, whole = canvas(64).draw(replace(scene, front=()))
        assert not (visible & ~whole).any()
        hidden += (whole & ~visible).sum() / whole.sum()
    assert 0.05 < hidden / 100 < 0.6


def test_outside_its_mask_an_image_does_not_depend_on_the_texture() -> None:
    for scene in compose(np.arange(20), "train", 0):
        first, mask = canvas(64).draw(scene)
        coat = replace(scene.thing.coat, texture=(scene.thing.coat.texture + 1) % 16)
        second, same = canvas(64).draw(replace(scene, thing=replace(scene.thing, coat=coat)))
        np.testing.assert_array_equal(mask, same)
        apart = binary_dilation(mask, np.ones((3, 3)), iterations=3)
        np.testing.assert_array_equal(first[~apart], second[~apart])
        assert np.abs(first[mask].astype(int) - second[mask]).mean() > 10


# -- look


def test_a_sketch_has_outlines_only() -> None:
    rendering = shapes16.render(range(64), "sketch", 128)
    images = rendering.images.astype(int)
    assert (images.max(-1) - images.min(-1)).max() == 0
    for image, mask in zip(images[..., 0], rendering.masks, strict=True):
        inside = binary_erosion(mask, np.ones((3, 3)), iterations=7)
        paper = np.median(image)
        if inside.any():
            assert np.mean(np.abs(image[inside] - paper) > 30) < 0.01
        outline = mask & ~binary_erosion(mask, iterations=2)
        assert np.mean(np.abs(image[outline] - paper) > 30) > 0.65


def test_flat_renditions_have_one_object_colour() -> None:
    rows = np.flatnonzero(styles(np.arange(200), 0) == STYLES.index("flat"))
    rendering = shapes16.render(rows, "rendition")
    for image, mask in zip(rendering.images, rendering.masks, strict=True):
        inside = binary_erosion(mask, iterations=2)
        assert len(np.unique(image[inside], axis=0)) <= 1


def test_poster_renditions_have_four_levels() -> None:
    rows = np.flatnonzero(styles(np.arange(100), 0) == STYLES.index("poster"))
    assert set(np.unique(shapes16.render(rows, "rendition").images)) == {0, 85, 170, 255}


def test_images_lose_detail_when_blurred(train: shapes16.Rendering) -> None:
    """A low-pass reconstruction target must differ visibly from the image."""
    images = train.images[:200].astype(np.float32)
    blurred = gaussian_filter(images, sigma=(0, 1.5, 1.5, 0))
    assert np.abs(images - blurred).mean() > 8


def test_background_noise_has_the_spectrum_of_natural_images() -> None:
    tile = noise_tile(64)[:192, :192]
    power = np.abs(np.fft.fft2(tile)) ** 2
    radius = np.hypot(*np.meshgrid(*[np.fft.fftfreq(192) * 192] * 2))
    rings = np.array([4, 8, 16, 32, 64])
    mean = [power[(radius > r * 0.9) & (radius < r * 1.1)].mean() for r in rings]
    assert np.polyfit(np.log(rings), np.log(mean), 1)[0] == pytest.approx(-2, abs=0.05)


def test_noise_is_the_same_at_every_size() -> None:
    small, large = noise_tile(64, 3.0, 9.0), noise_tile(128, 3.0, 9.0)
    halved = large.reshape(256, 2, 256, 2).mean((1, 3))
    assert np.corrcoef(halved.ravel(), small.ravel())[0, 1] > 0.999


@pytest.mark.parametrize("name", ["stripes", "checks", "waves", "rings", "zigzag", "rays"])
def test_two_tone_textures_show_both_colours_equally(name: str) -> None:
    x, y = _coordinates(400)
    u, v = np.broadcast_arrays(x * 8, y * 8)
    assert TEXTURES[name](u, v, 20.0, u, u).mean() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("name", ["stripes", "checks", "dots", "waves", "bricks", "grid", "zigzag", "weave"])
def test_regular_textures_repeat(name: str) -> None:
    x, y = _coordinates(200)
    u, v = np.broadcast_arrays(x * 3 + 0.01, y * 3 + 0.02)
    first = TEXTURES[name](u, v, 1000.0, u, u)
    second = TEXTURES[name](u + 20.0, v + 20.0, 1000.0, u, u)
    assert np.mean(np.abs(first - second)) < 1e-3 and 0.05 < first.mean() < 0.95


def test_textures_stay_between_their_two_colours() -> None:
    soft, rough = noise_tile(64, 3.0, 9.0)[:64, :64], noise_tile(64)[:64, :64]
    x, y = _coordinates(64)
    u, v = (np.ascontiguousarray(part, dtype=np.float32) for part in np.broadcast_arrays(x * 5, y * 5))
    tones = [texture(u, v, 6.0, soft, rough) for texture in TEXTURES.values()]
    for tone in tones:
        assert tone.dtype == np.float32 and tone.min() >= 0 and tone.max() <= 1 and tone.std() > 0.15


# -- difficulty


def _gradient_histograms(images: np.ndarray) -> np.ndarray:
    """Orientations of edges in 8 x 8 cells and over the whole image: [n, 585]."""
    grey = images.mean(-1, dtype=np.float32)
    down, across = np.gradient(grey, axis=(1, 2))
    strength = np.hypot(across, down)
    bins = (np.arctan2(down, across) % np.pi / np.pi * 9).astype(int) % 9
    oriented = [np.where(bins == k, strength, 0).reshape(-1, 8, 8, 8, 8).sum((2, 4)) for k in range(9)]
    cells = np.stack(oriented, axis=-1)
    cells /= np.linalg.norm(cells, axis=-1, keepdims=True) + 20
    return np.concatenate([cells.reshape(len(images), -1), cells.mean((1, 2)) * 8], axis=1)


def test_a_linear_model_on_pixels_stays_far_below_40_percent(
    train: shapes16.Rendering, val: shapes16.Rendering
) -> None:
    features = [part.images.reshape(len(part.images), -1).astype(np.float32) / 255 - 0.5 for part in (train, val)]
    accuracy = RidgeClassifier(alpha=1e4).fit(features[0], train.shapes).score(features[1], val.shapes)
    print(f"ridge on raw pixels, 4000 training images: {accuracy:.1%} top-1")
    assert accuracy < 0.4


def test_edges_tell_more_than_pixels(train: shapes16.Rendering, val: shapes16.Rendering) -> None:
    features = [_gradient_histograms(images) for images in (train.images[:2000], val.images)]
    model = LogisticRegression(C=0.03, max_iter=60, tol=1e-2).fit(features[0], train.shapes[:2000])
    accuracy = model.score(features[1], val.shapes)
    print(f"logistic regression on gradient histograms: {accuracy:.1%} top-1")
    assert accuracy > 0.2  # chance is 6.25 %


# -- manifest and messages


def test_the_manifest_reads_what_render_gives() -> None:
    manifest = shapes16.manifest("val", size=32, count=100, seed=5)
    rendering = shapes16.render(range(100), "val", 32, 5)
    source = pickle.loads(pickle.dumps(manifest.source))
    np.testing.assert_array_equal(np.stack(source.read([99, 0])), rendering.images[[99, 0]])
    np.testing.assert_array_equal(manifest.labels, rendering.shapes)
    assert len(set(manifest.keys.tolist())) == len(manifest) == 100
    assert manifest.label_space.classes == tuple(SHAPES) and manifest.label_space.name == "shapes16"
    assert manifest.ready_size == 32 and manifest.labels.dtype == np.int64 and manifest.blocks is None
    assert manifest.name == "shapes16-val"


def test_default_counts() -> None:
    counts = [len(shapes16.manifest(variant)) for variant in shapes16.VARIANTS]
    assert counts == [16384, 768, 768, 768, 768, 768]


def test_the_digest_changes_with_all_that_changes_the_images() -> None:
    manifests = [
        shapes16.manifest("val"),
        shapes16.manifest("val", seed=1),
        shapes16.manifest("val", size=32),
        shapes16.manifest("val", count=10),
        shapes16.manifest("hard"),
    ]
    assert len({manifest.digest for manifest in manifests}) == 5
    assert all(re.fullmatch("[0-9a-f]{16}", manifest.digest) for manifest in manifests)
    assert manifests[0].digest == shapes16.manifest("val", count=768).digest


def test_a_wrong_variant_is_answered_with_the_nearest_names() -> None:
    with pytest.raises(InputError, match="cue-conflict"):
        shapes16.manifest("cue_conflict")
    with pytest.raises(InputError, match="Did you mean sketch"):
        shapes16.render([0], "sketches")
    with pytest.raises(InputError, match="train, val"):
        shapes16.shapes(np.arange(3), "xyz", 0)


@pytest.mark.parametrize("size", [0, 15, 225, -64])
def test_a_size_out_of_range_is_an_input_error(size: int) -> None:
    with pytest.raises(InputError, match="16 to 224"):
        shapes16.manifest("train", size=size)
    with pytest.raises(InputError, match="16 to 224"):
        shapes16.render([0], "train", size)


def test_an_empty_manifest_is_an_input_error() -> None:
    with pytest.raises(InputError, match="at least 1"):
        shapes16.manifest("train", count=0)


def test_the_contact_sheet_holds_each_shape_in_its_column() -> None:
    sheet = shapes16.contact_sheet(size=32)
    assert sheet.shape == (13 * 34 - 2, 16 * 34 - 2, 3) and sheet.dtype == np.uint8
    labels = shapes16.shapes(np.arange(16), "train", 0)
    for row, image in enumerate(shapes16.render(range(16), "train", 32).images):
        left = labels[row] * 34
        np.testing.assert_array_equal(sheet[:32, left : left + 32], image)
    assert (sheet[32:34] == 255).all()
