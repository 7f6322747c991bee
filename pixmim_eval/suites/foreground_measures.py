"""What a crop and a mask leave of the objects of a set of images: every metric of the suite `foreground`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import torch

from pixmim_eval.data.boxes import BoxSet
from pixmim_eval.errors import InputError
from pixmim_eval.metrics import overlap
from pixmim_eval.metrics.intervals import mean_interval
from pixmim_eval.metrics.ratios import ratio_interval
from pixmim_eval.seeds import derive_seed, uniform
from pixmim_eval.suites.crop_names import GRAMMAR, NamedCrop
from pixmim_eval.types import Estimate

CROPS = ("rrc-0.2", "rrc-0.08", "src", "cc-224", "cc-256-224")
LEVELS = tuple(level / 100 for level in (1, 2, 3, 4, *range(5, 100, 5), 96, 97, 98, 99))
SHARES = tuple(step / 10 for step in range(11))  # ends of the classes of object size
_PATCHES_AT_ONCE = 1 << 22
_ROUNDING = 1e-6  # pixels that differences of sums may leave where nothing is


@dataclass(frozen=True)
class ForegroundOptions:
    """What is measured. Raises InputError for a mask that does not fit the crop."""

    crops: tuple[str, ...] = field(default=CROPS, metadata={"help": GRAMMAR})
    size: int = field(default=224, metadata={"help": "pixels of the crop (default 224)"})
    patch: int = field(default=16, metadata={"help": "pixels of a patch (default 16)"})
    mask_ratio: float = field(default=0.75, metadata={"help": "share of the crop that is masked (default 0.75)"})
    mask_unit: int = field(default=1, metadata={"help": "patches of a masked block, across and down (LSMAE: 2)"})
    draws: int = field(default=8, metadata={"help": "crops an image for distributions and patches (default 8)"})

    def __post_init__(self) -> None:
        unit = self.patch * self.mask_unit
        if min(self.size, unit, self.draws) < 1 or self.size % unit or not 0 <= self.mask_ratio < 1:
            raise InputError(
                "mask of the crop",
                expected="a size of whole blocks of patches, a ratio from 0 to below 1, at least one draw",
                found=f"{self.size} px, patches of {self.patch} px, blocks of {self.mask_unit}, "
                f"ratio {self.mask_ratio:g}, {self.draws} draws",
                where="--size, --patch, --mask-unit, --mask-ratio, --draws",
                fix="For example --size 224 --patch 16, or LSMAE's --size 448 --patch 16 --mask-unit 2.",
            )

    @property
    def grid(self) -> int:
        """Patches across a crop."""
        return self.size // self.patch

    @property
    def units(self) -> int:
        """Masked blocks across a crop."""
        return self.grid // self.mask_unit

    @property
    def kept(self) -> float:
        """Share of the blocks that stay visible."""
        return int(self.units**2 * (1 - self.mask_ratio)) / self.units**2


@dataclass(frozen=True)
class Objects:
    """The objects of the images that are measured.

    Args:
        rows: int64 [N], of the data set: images with a box.
        sizes: int64 [N, 2], height and width.
        edges: float64 [M, 4], top, left, bottom, right of the boxes.
        image: int64 [M], position in rows, sorted.
        cells: their unions.
        skipped: images without a box.
    """

    rows: np.ndarray
    sizes: np.ndarray
    edges: np.ndarray
    image: np.ndarray
    cells: overlap.Cells
    skipped: int


def select_objects(boxes: BoxSet, limit: int | None) -> Objects:
    """The objects of all images, or of at most `limit` evenly spaced ones. Raises InputError where none has a box."""
    count = len(boxes) if limit is None else min(limit, len(boxes))
    rows = np.arange(count) * len(boxes) // count
    held = np.isin(boxes.image, rows)
    present, image = np.unique(boxes.image[held], return_inverse=True)
    if len(present) < 2:
        raise InputError(
            "images with boxes",
            expected="at least two",
            found=f"{len(present)} of {count}",
            where=boxes.name,
            fix="Raise --limit, or give boxes of more images.",
        )
    edges = boxes.boxes[held].copy()
    edges[:, 2:] += edges[:, :2]
    return Objects(present, boxes.sizes[present], edges, image, overlap.unite(edges, image), count - len(present))


def measure_boxes(
    objects: Objects, crop: NamedCrop, drawn: np.ndarray, options: ForegroundOptions, seed: int
) -> dict[str, Estimate]:
    """All metrics of boxes; see ForegroundSuite.

    Args:
        objects: of N images.
        crop: what keeps a part of them.
        drawn: float64 [N, D, 4], boxes of crops that were drawn.
        options: of the suite.
        seed: of the run.
    """
    whole = _sum_cells(objects, objects.cells.areas())
    kept_drawn = overlap.measure_crops(objects.cells, drawn)
    shares = _bound(kept_drawn / whole[:, None])
    if crop.law is None:
        union, object_share = shares.mean(axis=1), (kept_drawn / drawn[..., 2:].prod(axis=2)).mean(axis=1)
        by_box = overlap.measure_crops(_apart(objects), drawn[objects.image]).mean(axis=1)
    else:
        expected = overlap.expect_rectangles(crop.law, objects.sizes, objects.cells.edges, objects.cells.image)
        union, object_share = _sum_cells(objects, expected.area) / whole, _sum_cells(objects, expected.share)
        by_box = overlap.expect_rectangles(crop.law, objects.sizes, objects.edges, objects.image).area
    estimates = _summarise_expected(objects, whole, _bound(union), by_box)
    estimates |= {
        f"{name}_{_masked(options)}": _scale(found, options.kept)
        for name, found in estimates.items()
        if "/" not in name
    }
    if crop.law is not None and crop.law.padding:
        cells = objects.cells
        bordered = overlap.expect_rectangles(crop.law, objects.sizes, cells.edges, cells.image, border=True)
        estimates["overlap_union_reflected"] = ratio_interval(_sum_cells(objects, bordered.area) / whole)
    estimates["object_share"] = mean_interval(_bound(object_share))
    patches = _bound(_measure_visible(objects, drawn, options, seed) / whole[:, None])
    return (
        estimates
        | _summarise_drawn(shares, "overlap_union", "", "lost")
        | _summarise_drawn(patches, "overlap_union", _patches(options), "lost")
    )


def _summarise_expected(
    objects: Objects, whole: np.ndarray, union: np.ndarray, by_box: np.ndarray
) -> dict[str, Estimate]:
    """The definitions of overlap, from the union's share [N] and each box's area [M] that are kept."""
    areas = (objects.edges[:, 2:] - objects.edges[:, :2]).prod(axis=1)
    counts = np.bincount(objects.image)
    mean_box = overlap.sum_by_image(by_box / areas, objects.image, len(counts)) / counts
    order = np.lexsort((np.arange(len(areas)), -areas, objects.image))
    largest = order[np.cumsum(counts) - counts]  # of equal ones the first
    estimates = {
        "overlap_union": mean_interval(union),
        "overlap_mean_box": mean_interval(_bound(mean_box)),
        "overlap_largest": mean_interval(_bound(by_box[largest] / areas[largest])),
        "overlap_ratio_of_sums": ratio_interval(union * whole, whole, unit="fraction"),
    }
    of_image = whole / objects.sizes.prod(axis=1)
    classes = np.clip(np.digitize(of_image, SHARES[1:-1]), 0, len(SHARES) - 2)
    for place, ends in enumerate(pairwise(SHARES)):
        if (classes == place).sum() > 1:
            estimates[f"overlap_union_size/{ends[0]:g}-{ends[1]:g}"] = mean_interval(union[classes == place])
    return estimates


def _summarise_drawn(shares: np.ndarray, name: str, ending: str, lost: str) -> dict[str, Estimate]:
    """The mean, the distribution and the losses of shares [N, D] of drawn crops, under names that end so."""
    estimates = {name + (ending or "_drawn"): mean_interval(shares.mean(axis=1))}
    for level, found in zip(LEVELS, overlap.quantile_intervals(shares, LEVELS), strict=True):
        estimates[f"{name}{ending}_quantile/{level:g}"] = found
    return estimates | {lost + ending: mean_interval((shares == 0).mean(axis=1))}


def _measure_visible(objects: Objects, drawn: np.ndarray, options: ForegroundOptions, seed: int) -> np.ndarray:
    """Area [N, D] of the objects in visible patches."""
    count, draws, cells = len(objects.rows), drawn.shape[1], objects.cells
    visible = np.empty((count, draws))
    block = max(1, _PATCHES_AT_ONCE // (draws * options.grid**2))
    for first in range(0, count, block):
        part = slice(*np.searchsorted(cells.image, (first, first + block)))
        there = overlap.Cells(cells.edges[part], cells.image[part] - first)
        covered = overlap.measure_patches(there, drawn[first : first + block], options.grid)
        noise = draw_noise(objects.rows[first : first + block], draws, options, seed)
        visible[first : first + block] = overlap.count_visible(covered, noise, options.mask_ratio)
    return visible


def draw_noise(rows: np.ndarray, draws: int, options: ForegroundOptions, seed: int) -> np.ndarray:
    """What masks the crops of rows [n]: float32 [n, D, U, U]; a mask depends on (seed, draw, row) alone."""
    index, units = torch.from_numpy(rows), options.units
    masks = [uniform(derive_seed(seed, "foreground-mask", draw), index, units**2) for draw in range(draws)]
    return np.asarray(torch.stack(masks, dim=1).reshape(len(rows), draws, units, units).numpy())


def measure_instances(
    boxes: BoxSet, objects: Objects, crop: NamedCrop, drawn: np.ndarray, options: ForegroundOptions, seed: int
) -> dict[str, Estimate]:
    """The metrics of objects by their pixels; an image's object is the union of its masks.

    Args:
        boxes: with masks.
        objects: of N images; those whose masks hold no pixel are left out.
        crop, drawn, options, seed: see measure_boxes.
    """
    if boxes.masks is None:
        raise ValueError("measure_instances needs masks")
    whole, kept, of_crop, kept_drawn, visible = [], [], [], [], []
    for place, row in enumerate(objects.rows.tolist()):
        union = np.logical_or.reduce([mask.astype(bool) for mask in boxes.masks.of(row)])
        if not union.any():
            continue
        covered = overlap.measure_pixels(union, drawn[place], options.grid)
        covered[covered < _ROUNDING] = 0
        areas = covered.sum(axis=(1, 2))
        if crop.law is None:
            area, share = areas.mean(), (areas / drawn[place, :, 2:].prod(axis=1)).mean()
        else:
            area, share = overlap.expect_pixels(crop.law, union)
        noise = draw_noise(objects.rows[place : place + 1], len(areas), options, seed)
        whole.append(union.sum())
        kept.append(area)
        of_crop.append(share)
        kept_drawn.append(areas)
        visible.append(overlap.count_visible(covered[None], noise, options.mask_ratio)[0])
    total, name = np.array(whole, dtype=np.float64), "overlap_instances"
    union_kept = _bound(np.array(kept) / total)
    estimates = {
        name: mean_interval(union_kept),
        f"{name}_ratio_of_sums": ratio_interval(union_kept * total, total, unit="fraction"),
    }
    estimates |= {f"{key}_{_masked(options)}": _scale(found, options.kept) for key, found in estimates.items()}
    estimates["object_share_instances"] = mean_interval(_bound(np.array(of_crop)))
    shares, patches = (_bound(np.array(areas) / total[:, None]) for areas in (kept_drawn, visible))
    return (
        estimates
        | _summarise_drawn(shares, name, "", "lost_instances")
        | _summarise_drawn(patches, name, _patches(options), "lost_instances")
    )


def _sum_cells(objects: Objects, values: np.ndarray) -> np.ndarray:
    return overlap.sum_by_image(values, objects.cells.image, len(objects.rows))


def _apart(objects: Objects) -> overlap.Cells:
    """Every box as an image of its own."""
    return overlap.Cells(objects.edges, np.arange(len(objects.edges)))


def _bound(shares: np.ndarray) -> np.ndarray:
    """Shares without what rounding adds."""
    return np.clip(shares, 0, 1)


def _scale(found: Estimate, factor: float) -> Estimate:
    return replace(found, value=found.value * factor, low=found.low * factor, high=found.high * factor)


def _masked(options: ForegroundOptions) -> str:
    return f"masked{100 * options.mask_ratio:g}"


def _patches(options: ForegroundOptions) -> str:
    return f"_patches{100 * options.mask_ratio:g}"
