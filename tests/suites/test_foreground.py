"""Foreground overlap from the command line: the numbers of known boxes, every definition, every bad option."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from pixmim_eval.data.boxes import BoxSet, open_boxes
from pixmim_eval.errors import InputError
from pixmim_eval.metrics.overlap import expect_rectangles, sum_by_image
from pixmim_eval.results import read_rows
from pixmim_eval.run import main
from pixmim_eval.suites import compute_key, load_suite
from pixmim_eval.suites.crop_names import ReportedCrop, read_crop, sample_boxes
from pixmim_eval.suites.foreground import ForegroundSuite, write_problems
from pixmim_eval.suites.foreground_measures import ForegroundOptions, select_objects
from pixmim_eval.types import ResultRow, SuiteConfig
from tests.references.overlap import paint

padded = v2.RandomCrop(40, padding=(3, 5))
single = v2.RandomResizedCrop(32, scale=(0.3, 0.8), ratio=(0.5, 1.5))
blurred = v2.GaussianBlur(3)
large = v2.RandomCrop(90)


class EmptyCrop(v2.Transform):
    """Reports a box without area."""

    def make_params(self, flat_inputs: list) -> dict:
        return {"top": 0, "left": 0, "height": 0, "width": 5}


empty = EmptyCrop()

SIZE = (80, 100)
# Two overlapping boxes; one small and two that are apart; one whole image; none.
BOXES = {
    "a": [(10, 20, 60, 70), (40, 50, 70, 95)],
    "b": [(0, 0, 8, 10), (20, 30, 50, 40), (60, 70, 80, 100)],
    "c": [(0, 0, 80, 100)],
    "d": [],
}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """BOXES as a file: top, left, bottom, right, of which the file has the last pixel."""
    path = tmp_path / "known.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "width", "height", "x_min", "y_min", "x_max", "y_max"))
        for name, boxes in BOXES.items():
            for top, left, bottom, right in boxes:
                writer.writerow((name, SIZE[1], SIZE[0], left, top, right - 1, bottom - 1))
            if not boxes:
                writer.writerow((name, SIZE[1], SIZE[0], "", "", "", ""))
    return path


@pytest.fixture
def known(table: Path) -> BoxSet:
    return replace(open_boxes(str(table)), problems=())


def measure(boxes: BoxSet, crop: str, limit: int | None = None, **options: object) -> dict[str, ResultRow]:
    chosen = ForegroundOptions(crops=(crop,), **options)  # type: ignore[arg-type]
    config = SuiteConfig(data={}, files={"boxes": boxes}, options=chosen, limit=limit)
    suite = ForegroundSuite()
    (model,) = suite.subjects(config)
    return {row.metric: row for row in suite.run(model, *suite.conditions(config), config).rows}


def test_every_definition_is_what_it_says(known: BoxSet) -> None:
    rows = measure(known, "cc-80-48")  # from (16, 26): 48 x 48 of 80 x 100
    unions, by_box, largest = [], [], []
    for name in "abc":
        edges = np.array(BOXES[name])
        union = paint(edges, SIZE) > 0
        unions.append((union[16:64, 26:74].sum(), union.sum()))
        alone = [paint(box[None], SIZE) for box in edges]
        by_box.append([one[16:64, 26:74].sum() / one.sum() for one in alone])
        largest.append(by_box[-1][int(np.argmax([one.sum() for one in alone]))])
    kept, whole = np.array(unions).T
    expected = {
        "overlap_union": np.mean(kept / whole),
        "overlap_mean_box": np.mean([np.mean(shares) for shares in by_box]),
        "overlap_largest": np.mean(largest),
        "overlap_ratio_of_sums": kept.sum() / whole.sum(),
        "object_share": np.mean(kept) / 48**2,
        "overlap_union_drawn": np.mean(kept / whole),
        "lost": 0,
        "overlap_union_quantile/0.5": np.median(kept / whole),
        "overlap_union_quantile/0.01": (kept / whole).min(),
        "overlap_union_quantile/0.99": (kept / whole).max(),
    }
    for metric, value in expected.items():
        assert rows[metric].value == pytest.approx(value, rel=1e-12), metric
        assert rows[metric].n == 3
        assert rows[metric].skipped == 1
    for metric in ("overlap_union", "overlap_mean_box", "overlap_largest", "overlap_ratio_of_sums"):
        assert rows[f"{metric}_masked75"].value == pytest.approx(rows[metric].value / 4)
    assert rows["overlap_union"].low < rows["overlap_union"].value < rows["overlap_union"].high


def test_measured_in_patches_a_mask_leaves_its_share_of_what_the_crop_keeps(known: BoxSet) -> None:
    rows = measure(known, "cc-80-48", draws=2000, size=64, patch=8, mask_unit=2, mask_ratio=0.75)
    assert rows["overlap_union_patches75"].value == pytest.approx(rows["overlap_union_masked75"].value, abs=0.004)
    assert "masked=0.75-of-4x4" in rows["overlap_union"].protocol
    narrow = measure(known, "cc-80-48", draws=400, size=64, patch=8, mask_ratio=0.6)
    kept = 25 / 64  # int(64 x 0.4) of 64 patches
    assert narrow["overlap_union_masked60"].value == pytest.approx(kept * narrow["overlap_union"].value)
    assert narrow["overlap_union_patches60"].value == pytest.approx(kept * narrow["overlap_union"].value, abs=0.01)
    spread = [
        found["overlap_union_patches75_quantile/0.9"].value for found in (rows, measure(known, "cc-80-48", draws=400))
    ]
    assert spread[0] > spread[1]  # blocks vary more than patches


def test_a_border_counts_only_where_it_is_named(known: BoxSet) -> None:
    rows, bare = measure(known, "src-12", size=80, patch=16), measure(known, "src-0", size=80, patch=16)
    assert rows["overlap_union"].value < rows["overlap_union_reflected"].value
    assert "overlap_union_reflected" not in bare


def test_draws_agree_with_expectations_and_do_not_depend_on_which_images_are_measured(known: BoxSet) -> None:
    for crop in ("rrc-0.2", "rrc-0.3-0.5-0.5-1", "src"):
        rows = measure(known, crop, draws=800)
        assert rows["overlap_union_drawn"].value == pytest.approx(rows["overlap_union"].value, abs=0.02)
    sizes, named = np.array([SIZE, SIZE, SIZE]), read_crop("rrc-0.2", 32)
    all_three = sample_boxes(named.crop, sizes, np.arange(3), 2, seed=1)
    assert np.array_equal(sample_boxes(named.crop, sizes[:1], np.array([2]), 2, seed=1), all_three[2:])


def test_the_validation_boxes_have_their_known_overlaps(shared_data: Path) -> None:
    boxes = replace(open_boxes(str(shared_data / "boxes" / "imagenet_val_boxes.csv.gz")), problems=())
    known = {"rrc-0.2": 64.6, "rrc-0.08": 56.8, "src": 86.6, "cc-224": 88.8, "cc-256-224": 79.0}
    objects = select_objects(boxes, None)
    whole = sum_by_image(objects.cells.areas(), objects.cells.image, 50_000)
    for crop, percent in known.items():
        law = read_crop(crop, 224).law
        assert law is not None
        kept = expect_rectangles(law, objects.sizes, objects.cells.edges, objects.cells.image).area
        union = (sum_by_image(kept, objects.cells.image, 50_000) / whole).mean()
        assert 100 * union == pytest.approx(percent, abs=0.3)
        rows = measure(boxes, crop, limit=500, draws=1)
        assert rows["overlap_union"].value == pytest.approx(union, abs=0.05)
        assert rows["overlap_union_masked75"].value == pytest.approx(rows["overlap_union"].value / 4)


def test_a_crop_that_misses_the_object_counts_as_lost(known: BoxSet) -> None:
    rows = measure(known, "cc-80-4", size=4, patch=1, draws=200)  # 38…42, 48…52: of b nothing
    assert rows["lost"].value == pytest.approx(1 / 3)
    assert rows["overlap_union_quantile/0.3"].value == 0
    assert rows["overlap_union_quantile/0.35"].value > 0
    whole = measure(known, "cc-80-4", size=4, patch=1, mask_ratio=0.9, draws=200)  # one of 16 patches is visible
    covered = 1 - np.mean([(paint(np.array(BOXES[name]), SIZE)[38:42, 48:52] > 0).mean() for name in "abc"])
    assert whole["lost_patches90"].value == pytest.approx(covered, abs=0.03)


def test_images_are_sorted_into_classes_by_the_size_of_their_objects(known: BoxSet) -> None:
    rows = measure(known, "cc-80-48")
    assert not [metric for metric in rows if "_size/" in metric]  # one image in each class tells nothing of others
    copies = open_copies(known)
    found = {metric: row for metric, row in measure(copies, "cc-80-48").items() if "_size/" in metric}
    for name in "abc":
        union = paint(np.array(BOXES[name]), SIZE) > 0
        low = min(int(10 * union.mean()), 9) / 10
        row = found.pop(f"overlap_union_size/{low:g}-{low + 0.1:g}")
        assert (row.n, row.value) == (2, pytest.approx(union[16:64, 26:74].sum() / union.sum()))
    assert not found


def open_copies(boxes: BoxSet) -> BoxSet:
    """Every image twice."""
    keys = np.array([f"{key}{copy}" for copy in range(2) for key in boxes.keys])
    image = np.concatenate((boxes.image, boxes.image + len(boxes)))
    return replace(
        boxes, keys=keys, sizes=np.tile(boxes.sizes, (2, 1)), boxes=np.tile(boxes.boxes, (2, 1)), image=image
    )


def test_pixels_of_a_rectangle_have_every_statistic_of_its_box(known: BoxSet) -> None:
    class Painted:
        def of(self, row: int) -> list[np.ndarray]:
            return [paint(np.array([box]), SIZE) > 0 for box in BOXES["abcd"[row]]]

    options = {"size": 64, "patch": 8, "draws": 20}
    masked = replace(known, masks=Painted())
    for crop in ("rrc-0.2", "src", f"{__name__}:single"):
        rows = measure(masked, crop, **options)
        pairs = {name: name.replace("union", "instances") for name in rows if name.startswith("overlap_union")}
        pairs = {box: pixels for box, pixels in pairs.items() if "_size/" not in box and "reflected" not in box}
        pairs |= {name: name.replace("overlap", "overlap_instances") for name in rows if "overlap_ratio" in name}
        pairs |= {name: name.replace("lost", "lost_instances") for name in ("lost", "lost_patches75")}
        pairs |= {"object_share": "object_share_instances"}
        assert len(pairs) > 60
        for box, pixels in pairs.items():
            assert rows[pixels].value == pytest.approx(rows[box].value, rel=2e-5, abs=1e-9), pixels
            assert (rows[pixels].n, rows[pixels].unit) == (rows[box].n, rows[box].unit)


def test_objects_count_by_their_pixels_too() -> None:
    boxes = open_boxes("builtin:shapes16:val@32")
    rows = measure(boxes, "cc-32-20", limit=40)
    assert boxes.masks is not None
    masks = [boxes.masks.of(row)[0] for row in np.arange(40) * len(boxes) // 40]
    shares = [mask[6:26, 6:26].sum() / mask.sum() for mask in masks]
    assert rows["overlap_instances"].value == pytest.approx(np.mean(shares), rel=1e-9)
    assert rows["object_share_instances"].value == pytest.approx(
        np.mean([mask[6:26, 6:26].sum() for mask in masks]) / 400, rel=1e-9
    )


@pytest.mark.parametrize(
    "name", ["rrc", "rrc-0", "rrc-0.5-0.2", "rrc-0.2-1-2", "src-x", "cc", "cc-0", "cc-1.5", "crop"]
)
def test_names_that_are_no_crop_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="name of a crop"):
        read_crop(name, 224)


@pytest.mark.parametrize(
    "options", [{"size": 225}, {"patch": 0}, {"mask_unit": 3}, {"mask_ratio": 1.0}, {"mask_ratio": -0.1}, {"draws": 0}]
)
def test_masks_that_do_not_fit_are_refused(options: dict) -> None:
    with pytest.raises(InputError, match="mask of the crop"):
        ForegroundOptions(**options)


def test_any_transform_that_reports_its_box_is_a_crop(known: BoxSet) -> None:
    rows = measure(known, f"{__name__}:single", draws=250)
    law = measure(known, "rrc-0.3-0.8-0.5-1.5", draws=1)
    assert rows["overlap_union"].value == pytest.approx(law["overlap_union"].value, abs=0.03)
    assert "expectation=drawn" in rows["overlap_union"].protocol
    boxes = ReportedCrop(f"{__name__}:padded", 40).sample(
        torch.full((400,), 60), torch.full((400,), 50), seed=0, index=torch.arange(400)
    )
    assert boxes[:, 0].unique().tolist() == list(range(-5, 26))  # 60 + 2 x 5 - 40 = 30 places
    assert boxes[:, 1].unique().tolist() == list(range(-3, 14))


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (f"{__name__}:blurred", "make_params gives sigma"),
        (f"{__name__}:large", "image of 100 x 80, ValueError: Required crop size"),
        (f"{__name__}:empty", "a box of 5 x 0"),
        ("torchvision.transforms.v2:RandomResizedCrop", "the class RandomResizedCrop"),
        (f"{__name__}:SIZE", "a tuple without make_params"),
        (f"{__name__}:nothing", "has no attribute 'nothing'"),
        ("no.such.module:crop", "No module named 'no'"),
        (":crop", "Empty module name"),
    ],
)
def test_what_reports_no_box_is_an_error_that_says_what_it_is(known: BoxSet, name: str, found: str) -> None:
    with pytest.raises(InputError, match="reports its box") as caught:
        measure(known, name)
    assert found in str(caught.value)


def test_rows_depend_on_what_a_transform_is_set_to(known: BoxSet, monkeypatch: pytest.MonkeyPatch) -> None:
    crops = (f"{__name__}:single", "src")
    config = SuiteConfig(data={}, files={"boxes": known}, options=ForegroundOptions(crops=crops))
    suite = ForegroundSuite()
    (model,) = suite.subjects(config)
    before = [compute_key(suite, model, crop, config) for crop in crops]
    assert [compute_key(suite, model, crop, config) for crop in crops] == before
    monkeypatch.setattr(f"{__name__}.single.scale", (0.3, 0.9))
    after = [compute_key(suite, model, crop, config) for crop in crops]
    assert (after[0] == before[0], after[1] == before[1]) == (False, True)


def test_what_is_wrong_with_the_boxes_is_said_and_listed(table: Path, tmp_path: Path, capsys) -> None:
    boxes = open_boxes(str(table))
    for _ in range(2):
        write_problems(boxes, tmp_path)
    assert (tmp_path / "problems" / "known.csv").read_text() == "kind,image,found\nno box,d,\n"
    assert capsys.readouterr().err.count("without a box") == 1
    write_problems(replace(boxes, problems=(), name="well"), tmp_path)
    assert not (tmp_path / "problems" / "well.csv").exists()


def test_the_command_writes_rows_and_a_picture(tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["--suite", "foreground", "--crops", "src", "cc-224", "--draws", "2", "--out", str(out), "--limit", "6"]
    assert main([*words, "--data", "boxes=builtin:shapes16@32"]) == 0
    rows = read_rows(out)
    assert set(rows["condition"]) == {"src", "cc-224"}
    assert set(rows["model"]) == {"no-model"}
    assert set(rows["subset"]) == {"spread-6"}
    assert (out / "reports" / "figures" / "foreground.png").stat().st_size > 10_000
    assert isinstance(load_suite("foreground"), ForegroundSuite)
