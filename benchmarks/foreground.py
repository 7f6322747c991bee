"""Speed of foreground overlap: exact expectations, and drawn crops, beside a loop over torchvision's get_params."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torchvision.transforms import RandomResizedCrop

from benchmarks.timing import print_table
from pixmim_eval.data import crops
from pixmim_eval.data.boxes import open_boxes
from pixmim_eval.metrics import overlap

SCALE, RATIO = (0.2, 1.0), (3 / 4, 4 / 3)
COMMON = ((375, 500), (333, 500), (500, 375), (500, 333), (500, 500), (334, 500), (281, 500))  # of ImageNet
LOOPED = 50_000  # crops of the loop that are timed; the time of all is in proportion
STEP = 7  # pixels by which sizes differ in the large set, so that many of them are distinct


class Boxes:
    """Images with boxes: sizes int64 [N, 2]; edges float64 [M, 4], top, left, bottom, right; image int64 [M]."""

    def __init__(self, sizes: np.ndarray, edges: np.ndarray, image: np.ndarray) -> None:
        self.sizes, self.edges, self.image = sizes, edges, image

    def repeat(self, count: int, random: np.random.Generator) -> Boxes:
        """`count` images drawn from these, their sizes enlarged by a few pixels."""
        chosen = random.integers(0, len(self.sizes), count)
        counts = np.bincount(self.image, minlength=len(self.sizes))
        firsts, held = np.cumsum(counts) - counts, counts[chosen]
        within = np.arange(held.sum()) - np.repeat(np.cumsum(held) - held, held)
        edges = self.edges[np.repeat(firsts[chosen], held) + within]
        sizes = self.sizes[chosen] + random.integers(0, STEP, (count, 2))
        return Boxes(sizes, edges, np.repeat(np.arange(count), held))


def invent_boxes(count: int) -> Boxes:
    """Images of sizes much as in ImageNet: a third of one size, half of seven, the others of any; 1.5 boxes each."""
    random = np.random.default_rng(0)
    sizes = random.integers(200, 700, (count, 2))
    kind = random.choice(len(COMMON) + 1, count, p=[0.33, 0.09, 0.05, 0.03, 0.02, 0.02, 0.01, 0.45])
    common = kind < len(COMMON)
    sizes[common] = np.array(COMMON)[kind[common]]
    counts = random.choice([1, 2, 3, 5, 8], count, p=[0.77, 0.12, 0.05, 0.04, 0.02])
    image = np.repeat(np.arange(count), counts)
    extent = np.ceil(sizes[image] * random.uniform(0.1, 1, (len(image), 2)))
    start = np.floor((sizes[image] - extent) * random.random((len(image), 2)))
    return Boxes(sizes, np.concatenate((start, start + extent), axis=1), image)


def read_boxes(path: str) -> Boxes:
    boxes = open_boxes(path)
    edges = boxes.boxes.copy()
    edges[:, 2:] += edges[:, :2]
    present, image = np.unique(boxes.image, return_inverse=True)
    return Boxes(boxes.sizes[present], edges, image)


def expect(boxes: Boxes) -> np.ndarray:
    """Exact expectation of every image, [N]."""
    cells, count = overlap.unite(boxes.edges, boxes.image), len(boxes.sizes)
    found = overlap.expect_rectangles(overlap.RandomResizedCropLaw(SCALE, RATIO), boxes.sizes, cells.edges, cells.image)
    whole = overlap.sum_by_image(cells.areas(), cells.image, count)
    return np.asarray(overlap.sum_by_image(found.area, cells.image, count) / whole)


def draw(boxes: Boxes, draws: int) -> np.ndarray:
    """Mean over drawn crops of every image, [N]: the vectorised sampler."""
    cells, count = overlap.unite(boxes.edges, boxes.image), len(boxes.sizes)
    crop, index = crops.RandomResizedCrop(224, SCALE, RATIO), torch.arange(count)
    heights, widths = torch.from_numpy(np.ascontiguousarray(boxes.sizes.T))
    kept = np.zeros(count)
    for number in range(draws):
        drawn = crop.sample(heights, widths, seed=number, index=index).numpy()[:, None]
        kept += overlap.measure_crops(cells, drawn)[:, 0]
    whole = overlap.sum_by_image(cells.areas(), cells.image, count)
    return np.asarray(kept / draws / whole)


def loop(boxes: Boxes, images: int, draws: int) -> float:
    """Mean over the first images: one call of get_params a crop, and Python arithmetic on the unions' rectangles."""
    first = boxes.image < images
    cells = overlap.unite(boxes.edges[first], boxes.image[first])
    rectangles: list[list[list[float]]] = [[] for _ in range(images)]
    for edges, image in zip(cells.edges.tolist(), cells.image.tolist(), strict=True):
        rectangles[image].append(edges)
    total = 0.0
    for (height, width), own in zip(boxes.sizes[:images].tolist(), rectangles, strict=True):
        image = torch.empty(1, 1, 1).expand(1, height, width)
        whole = sum((bottom - top) * (right - left) for top, left, bottom, right in own)
        for _ in range(draws):
            y, x, h, w = RandomResizedCrop.get_params(image, list(SCALE), list(RATIO))
            kept = sum(
                max(0.0, min(bottom, y + h) - max(top, y)) * max(0.0, min(right, x + w) - max(left, x))
                for top, left, bottom, right in own
            )
            total += kept / whole
    return total / (images * draws)


def time_call(call: Callable[[], object]) -> tuple[object, float, float]:
    """What a call gives, its seconds of processor time, and of the clock."""
    processor, clock = time.process_time(), time.perf_counter()
    found = call()
    return found, time.process_time() - processor, time.perf_counter() - clock


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--boxes", help="a box file as of the suite foreground (default: random boxes)")
    parser.add_argument("--draws", type=int, default=100, help="crops an image (default 100)")
    parser.add_argument("--images", type=int, default=1_280_000, help="of the large set (default 1,280,000)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    boxes = read_boxes(options.boxes) if options.boxes else invent_boxes(50_000)
    count = len(boxes.sizes)
    expect(boxes)  # warms up
    exact, exact_time, exact_clock = time_call(lambda: expect(boxes))
    drawn, drawn_time, drawn_clock = time_call(lambda: draw(boxes, options.draws))
    looped = min(count, LOOPED // options.draws)
    mean, loop_time, loop_clock = time_call(lambda: loop(boxes, looped, options.draws))
    factor = count / looped
    assert isinstance(exact, np.ndarray) and isinstance(drawn, np.ndarray) and isinstance(mean, float)
    rows = [
        (
            f"loop over get_params, {options.draws} crops (timed on {looped} images)",
            mean,
            loop_time,
            loop_clock,
            factor,
        ),
        (f"ours, {options.draws} drawn crops", float(drawn.mean()), drawn_time, drawn_clock, 1.0),
        ("ours, exact", float(exact.mean()), exact_time, exact_clock, 1.0),
    ]
    print_table(
        (f"{count:,} images", "mean overlap", "processor time", "clock", "loop / this"),
        [
            (name, f"{value:.4f}", f"{f * own:.2f} s", f"{f * clock:.2f} s", f"{factor * loop_time / (f * own):.0f}")
            for name, value, own, clock, f in rows
        ],
    )
    many = boxes.repeat(options.images, np.random.default_rng(1))
    distinct = len(np.unique(many.sizes, axis=0))
    found, own, clock = time_call(lambda: expect(many))
    assert isinstance(found, np.ndarray)
    print(
        f"\n{options.images:,} images, {len(many.edges):,} boxes, {distinct:,} distinct sizes, exact: "
        f"{own:.1f} s of processor time, {clock:.1f} s of the clock, mean {found.mean():.4f}"
    )


if __name__ == "__main__":
    main()
