"""Object detection: boxes and masks by Mask R-CNN on the encoder, which is trained further."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch

from pixmim_eval.data.coco import DetectionSet, open_detection
from pixmim_eval.data.problems import summarise_problems
from pixmim_eval.devices import resolve_precision
from pixmim_eval.errors import InputError
from pixmim_eval.extract import process_rank, select_rows
from pixmim_eval.extract.store import Entry, load_entry
from pixmim_eval.files import write_atomic
from pixmim_eval.metrics.detection import DetectionScores, score_detections
from pixmim_eval.models.convvit import ConvVisionTransformer
from pixmim_eval.results import format_protocol, hash_parts, make_rows
from pixmim_eval.suites import EvaluationSuite
from pixmim_eval.suites.roles import DEFAULT_DATA
from pixmim_eval.transfer.detection.answers import DetectionPass, drop_boxes, to_results, unpack
from pixmim_eval.transfer.detection.backbone import find_encoder, list_blocks
from pixmim_eval.transfer.detection.network import MaskRCNN
from pixmim_eval.transfer.detection.overlays import Overlay, draw_overlays
from pixmim_eval.transfer.detection.recipes import DetectionOptions, DetectionRecipe, resolve_recipe
from pixmim_eval.transfer.detection.task import describe_recipe, list_rows, load_detector, train_detector
from pixmim_eval.types import Estimate, FileSet, Model, Outcome, SuiteConfig

logger = logging.getLogger("pixmim_eval")

CONDITION = "mask-rcnn"
PICTURED = 4  # images of the overlays
DROPPED = ("no image", "image size")  # kinds of problems that take an image out of the set


def open_train(path: str) -> DetectionSet:
    """What --data names for train, where the built-in data set without a variant is its train part."""
    built_in = re.fullmatch(rf"{DEFAULT_DATA}(@\d+)?", path)
    return open_detection(f"{DEFAULT_DATA}:train{built_in[1] or ''}" if built_in else path)


class Detection(EvaluationSuite):
    """The suite `detection`: Mask R-CNN on the encoder, all of it trained on train, and scored on val.

    One condition, "mask-rcnn": by the published recipe of ViTDet or ConvMAE, or a short one. The state lies in the
    run's folder, so that a killed run goes on.

    Metrics, all by pycocotools: "box_ap", "box_ap50", "box_ap75", "box_ap_small", "box_ap_medium", "box_ap_large", and
    "box_ap/CLASS" of every class that occurs; where there are masks, the same of "mask_ap". A size without an object
    has no row; classes without one in val are left out, and named. Intervals are over images. `skipped`
    counts images that are not there or of another size as well.

    The detections lie in the run's folder too, as detections/KEY.json in COCO's format of results, and beside them
    the truth that their numbers of images belong to.
    """

    name = "detection"
    version = 2
    needs = ("val", "train")
    openers: ClassVar[Mapping[str, Callable[[str], FileSet]]] = {"val": open_detection, "train": open_train}
    options = DetectionOptions

    def conditions(self, config: SuiteConfig) -> list[str]:
        """The only one. Raises InputError where train is val or has other classes, or no object is left in either."""
        check_sets(config)
        return [CONDITION]

    def roles(self, model: Model, condition: str, config: SuiteConfig) -> tuple[str, ...]:
        """Scored and training images."""
        return self.needs

    def settings(self, model: Model, condition: str, config: SuiteConfig) -> tuple[object, ...]:
        """The recipe."""
        return astuple(replace(choose_recipe(model, config), accumulate=1))

    def count_images(self, model: Model, condition: str, config: SuiteConfig) -> dict[str, int]:
        """Forward passes; see EvaluationSuite."""
        recipe = choose_recipe(model, config)
        val = len(select_rows(get_set(config, "val").manifest, config.limit))
        return {"val": val, "train": recipe.iterations * recipe.train_batch_size}

    def run(self, model: Model, condition: str, config: SuiteConfig) -> Outcome:
        """The rows of the trained detector.

        Raises:
            InputError: an image that cannot be read, an encoder or a recipe that does not fit, no object left.
            FloatingPointError: the loss or features are not finite.
        """
        val, train, recipe = get_set(config, "val"), get_set(config, "train"), choose_recipe(model, config)
        trained_on = list_rows(train, select_rows(train.manifest, config.limit))
        network, training = train_detector(model, train, trained_on, config, recipe)
        work = plan_pass(model, network, training, recipe, config)
        entry = load_entry(work)
        scores = score_entry(val, entry, work, config)
        estimates: dict[str, Estimate] = {}
        for prefix, part in scores.items():
            estimates |= {prefix + name.removeprefix("ap"): estimate for name, estimate in part.summary.items()}
            names = dict(zip(val.categories.tolist(), val.classes, strict=True))
            estimates |= {f"{prefix}/{names[category]}": estimate for category, estimate in part.classes.items()}
        settings = ",".join(f"{name}={value}" for name, value in describe_recipe(recipe).items())
        protocol = {
            "head": f"mask-rcnn({settings},train={len(trained_on)})",
            "head_data": f"{train.name}@{train.digest}",
            "label_space": f"objects-{len(val.classes)}",
            "precision": "bfloat16" if torch.device(config.device).type == "cuda" else "float32",
            "transform": f"pil-bilinear-long-side-{recipe.image_size}",
        }
        present = entry.table["present"]
        if absent := _name_absent(val, work.rows[present]):
            protocol["absent_classes"] = str(len(absent))
        dropped = len({problem.key for problem in val.problems if problem.kind in DROPPED})
        stored = make_rows(
            model,
            val,
            estimates,
            suite=self.name,
            condition=condition,
            protocol=format_protocol(**protocol),
            config=config,
            skipped=int((~present).sum()) + dropped,
        )
        return Outcome(stored, {})

    def draw(self, models: Sequence[Model], config: SuiteConfig, folder: Path) -> list[Path]:
        """A few images with their boxes and masks, in the truth and as each model finds them: detection.png and .pdf,
        in parts where there are many models. A model whose training is not finished is left out."""
        val, train = get_set(config, "val"), get_set(config, "train")
        trained_on = list_rows(train, select_rows(train.manifest, config.limit))
        rows = list_rows(val, select_rows(val.manifest, config.limit))
        rows = rows[np.arange(min(PICTURED, len(rows))) * len(rows) // min(PICTURED, len(rows))]
        overlays = {row: Overlay(val.manifest.source.read([row])[0], val, row, {}) for row in rows.tolist()}
        for model in models:
            model.encoder.to(config.device)
            recipe = choose_recipe(model, config)
            found = load_detector(model, train, trained_on, config, recipe)
            if found is None:
                continue
            work = replace(plan_pass(model, *found, recipe, config), rows=rows)
            for batch, outputs in work.run(rows):
                overlays[int(batch.index[0])].answers[model.name] = unpack(outputs, 0)
        shown = [overlay for overlay in overlays.values() if overlay.answers]
        caption = f"Data: {val.name}, {len(val.classes)} classes. Scores in per cent."
        return draw_overlays(shown, folder / self.name, caption) if shown else []


def get_set(config: SuiteConfig, role: str) -> DetectionSet:
    """The images and objects of a role."""
    return cast(DetectionSet, config.files[role])


def choose_recipe(model: Model, config: SuiteConfig) -> DetectionRecipe:
    """The recipe of the command line for a model on a device. Raises InputError where they do not fit."""
    encoder = find_encoder(model)
    size = model.preprocessing.size
    recipe = resolve_recipe(config.options, size=size, patch=encoder.patch, depth=len(list_blocks(encoder)))
    if recipe.pyramid == "auto":
        recipe = replace(recipe, pyramid="stages" if isinstance(encoder, ConvVisionTransformer) else "simple")
    return replace(recipe, precision=resolve_precision(config.device, recipe.precision))


def check_sets(config: SuiteConfig) -> None:
    """Say what is wrong with the annotations, on stderr, and raise InputError where train is val, has other classes or
    lacks the masks that val has, or where no object is left in either."""
    val, train = get_set(config, "val"), get_set(config, "train")
    found = ""
    if val.digest == train.digest:
        found = f"the same data set {val.name} for both"
    elif val.classes != train.classes:
        strange = sorted({*val.classes} ^ {*train.classes})
        found = f"{len(val.classes)} classes in val, {len(train.classes)} in train"
        found += f", e.g. {', '.join(strange[:3])} in one" if strange else ", in another order"
    elif val.with_masks and not train.with_masks:
        found = f"masks in {val.name}, and none in {train.name} to learn from"
    if found:
        raise InputError(
            "data for detection",
            expected="other images in train than in val, of the same classes, with masks where val has some",
            found=found,
            where="--data val= and train=",
            fix="Name two parts of one data set: --data val=instances_val2017.json train=instances_train2017.json.",
        )
    for data in (val, train):
        rows = select_rows(data.manifest, config.limit)
        list_rows(data, rows)
        if process_rank()[0] == 0:
            if data.problems:
                logger.warning("%s: %s", data.name, summarise_problems(data.problems))
            if data is val and (absent := _name_absent(val, rows)):
                logger.warning(
                    "%s: %d of %d classes have no object and are left out of every average: %s",
                    val.name,
                    len(absent),
                    len(val.classes),
                    ", ".join(absent),
                )


def _name_absent(data: DetectionSet, rows: np.ndarray) -> list[str]:
    """The classes without an object in these images."""
    seen = data.labels[np.isin(data.image, rows) & ~data.crowd]
    return [data.classes[label] for label in sorted({*range(len(data.classes))} - {*seen.tolist()})]


def plan_pass(
    model: Model, network: MaskRCNN, training: str, recipe: DetectionRecipe, config: SuiteConfig
) -> DetectionPass:
    """The pass of a trained detector over val."""
    val = get_set(config, "val")
    rows = select_rows(val.manifest, config.limit)
    key = hash_parts("detection", Detection.version, training, val.digest, rows.tolist(), recipe.least_score)
    description = f"{model.name}: detections in {val.name}"
    return DetectionPass(val, rows, network, recipe.image_size, model.preprocessing, config, key, description)


def score_entry(
    val: DetectionSet, entry: Entry, work: DetectionPass, config: SuiteConfig
) -> dict[str, DetectionScores]:
    """ "box_ap" and, where there are masks, "mask_ap" of stored detections, which are written as COCO's results."""
    places = np.flatnonzero(entry.table["present"]).tolist()
    results = [one for place in places for one in to_results(val, int(work.rows[place]), unpack(entry.arrays, place))]
    truth = val.to_coco([int(work.rows[place]) for place in places])
    if process_rank()[0] == 0:
        folder = config.out / "detections"
        _write(folder / f"{work.key}.json", results)
        _write(folder / f"truth-{hash_parts(val.digest, work.rows[places].tolist())}.json", truth)
    scores = {"box_ap": score_detections(truth, results, "bbox", seed=config.seed)}
    if val.with_masks:
        scores["mask_ap"] = score_detections(truth, drop_boxes(results), "segm", seed=config.seed)
    return scores


def _write(path: Path, content: Any) -> None:
    if not path.exists():  # both are named by content
        write_atomic(path, json.dumps(content).encode())
