"""The suite `foreground`: how much of the object a crop and a mask leave."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from pixmim_eval.data.boxes import BoxSet, open_boxes, summarise_problems
from pixmim_eval.files import write_atomic
from pixmim_eval.results import format_protocol, make_rows
from pixmim_eval.suites import EvaluationSuite
from pixmim_eval.suites.crop_names import NamedCrop, read_crop, sample_boxes
from pixmim_eval.suites.foreground_measures import ForegroundOptions, measure_boxes, measure_instances, select_objects
from pixmim_eval.types import FileSet, Model, Outcome, Preprocessing, SuiteConfig


class ForegroundSuite(EvaluationSuite):
    """The suite `foreground`: area(crop and object) / area(object), the statistic behind PixMIM's choice of crop.

    No model is measured. One condition a crop (--crops). Images without a box count as skipped. Of each image the
    expectation over the crop's law is exact (metrics/overlap), or for a transform without a law the mean of its draws
    (expectation=… of the protocol); rows are over images:

    - "overlap_union": mean of the share that is kept of the union of an image's boxes; "overlap_mean_box": of the mean
      over its boxes; "overlap_largest": of its largest box; "overlap_ratio_of_sums": area kept of all unions, by their
      area. "overlap_union_size/LOW-HIGH": overlap_union of the images whose union is that share of the image.
    - each of these, but for sizes, with "_masked75": times the share of patches that a mask of 75 % leaves, as a random
      mask does in expectation.
    - "overlap_union_reflected": what a reflected border (SRC) repeats of the object counts too, so that it may exceed
      1. Everywhere else the border holds nothing.
    - "object_share": share of the crop that is object.
    - of drawn crops: "overlap_union_drawn" (a check of overlap_union); "overlap_union_patches75": measured patch by
      patch with a random mask each, where a visible patch counts by its covered area; "…_quantile/0.05": quantiles of
      both over images and draws; "lost", "lost_patches75": how often nothing of the object is left.
    - where the data have masks, of the pixels of all objects of an image instead of its boxes: "overlap_instances" (as
      overlap_union), "overlap_instances_ratio_of_sums", both masked, "object_share_instances",
      "overlap_instances_drawn", "overlap_instances_patches75", "…_quantile/0.05", "lost_instances",
      "lost_instances_patches75".

    Problems of the boxes are listed in OUT/problems.

    Source: PixMIM (Liu et al. 2023, arXiv 2303.02416) section 3.2, whose box set and definition are not known.
    """

    name = "foreground"
    version = 2
    needs = ("boxes",)
    openers: ClassVar[Mapping[str, Callable[[str], FileSet]]] = {"boxes": open_boxes}
    options = ForegroundOptions
    takes_models = False

    def conditions(self, config: SuiteConfig) -> list[str]:
        """The crops. Raises InputError for a name that is none."""
        options = read_options(config)
        for name in options.crops:
            read_crop(name, options.size)
        return list(dict.fromkeys(options.crops))

    def roles(self, model: Model, condition: str, config: SuiteConfig) -> tuple[str, ...]:
        """The boxes."""
        return ("boxes",)

    def settings(self, model: Model, condition: str, config: SuiteConfig) -> tuple[object, ...]:
        """The options, but for other crops, and what the crop is; see EvaluationSuite."""
        options = read_options(config)
        return replace(options, crops=()), repr(read_crop(condition, options.size).crop)

    def subjects(self, config: SuiteConfig) -> list[Model]:
        """Nobody: what is measured is the crop."""
        return [Model("no-model", "", None, Preprocessing(0, 0), method="none")]

    def run(self, model: Model, condition: str, config: SuiteConfig) -> Outcome:
        """The rows of one crop."""
        options, boxes = read_options(config), read_boxes(config)
        write_problems(boxes, config.out)
        objects = select_objects(boxes, config.limit)
        crop = read_crop(condition, options.size)
        drawn = sample_boxes(crop.crop, objects.sizes, objects.rows, options.draws, config.seed)
        estimates = measure_boxes(objects, crop, drawn, options, config.seed)
        if boxes.masks is not None:
            estimates |= measure_instances(boxes, objects, crop, drawn, options, config.seed)
        rows = make_rows(
            model,
            boxes,
            estimates,
            suite=self.name,
            condition=condition,
            protocol=_describe(crop, options),
            config=config,
            skipped=objects.skipped,
        )
        return Outcome(rows, {})

    def draw(self, models: Sequence[Model], config: SuiteConfig, folder: Path) -> list[Path]:
        """Images with their boxes, a crop of each kind and its masked patches; none where there are no images."""
        from pixmim_eval.suites.foreground_picture import draw_crops  # loads matplotlib

        options, boxes = read_options(config), read_boxes(config)
        if boxes.manifest is None:
            return []
        crops = [read_crop(name, options.size) for name in self.conditions(config)]
        return draw_crops(boxes, crops, options, config, folder / self.name)


def read_options(config: SuiteConfig) -> ForegroundOptions:
    """The suite's options."""
    options = config.options
    if not isinstance(options, ForegroundOptions):
        raise TypeError(f"options of the suite foreground, not {options!r}")
    return options


def read_boxes(config: SuiteConfig) -> BoxSet:
    """The set of boxes."""
    boxes = config.files["boxes"]
    if not isinstance(boxes, BoxSet):
        raise TypeError(f"a set of boxes, not {boxes!r}")
    return boxes


def write_problems(boxes: BoxSet, out: Path) -> None:
    """What was wrong with the boxes, if anything: a list in OUT/problems/NAME.csv, and a line on stderr."""
    if not boxes.problems:
        return
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("kind", "image", "found"))
    table.writerows((problem.kind, problem.key, problem.detail) for problem in boxes.problems)
    path = out / "problems" / f"{boxes.name}.csv"
    if not path.is_file() or path.read_bytes() != text.getvalue().encode():
        write_atomic(path, text.getvalue().encode())
        print(f"{boxes.name}: {summarise_problems(boxes.problems)}; all in {path}", file=sys.stderr)


def _describe(crop: NamedCrop, options: ForegroundOptions) -> str:
    return format_protocol(
        border="nothing",
        draws=options.draws,
        expectation="exact" if crop.law else "drawn",
        masked=f"{options.mask_ratio:g}-of-{options.units}x{options.units}",
        patches=f"{options.grid}x{options.grid}",
    )
