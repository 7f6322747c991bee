"""Robustness: accuracy on clean images, on generated corruptions, and on adversarial, rendition and sketch variants."""

from __future__ import annotations

import numpy as np
import torch

from pixmim_eval.corruptions import resolve_parameters
from pixmim_eval.data.imagenet import map_labels
from pixmim_eval.data.transforms import name_transform
from pixmim_eval.extract import predict, prepare_classifier, require_train, select_head_rows, select_rows
from pixmim_eval.metrics.accuracy import correct_top1
from pixmim_eval.metrics.corruption_error import SEVERITIES, mean_error, name_mean_error
from pixmim_eval.metrics.intervals import wilson
from pixmim_eval.results import format_protocol, make_row
from pixmim_eval.types import Estimate, Manifest, Model, PredictionSet, ResultRow, SuiteConfig

CORRUPTIONS = ("gaussian_noise", "impulse_noise", "defocus_blur", "brightness", "contrast", "pixelate")
CELLS = {f"{name}/{severity}": (name, severity) for name in CORRUPTIONS for severity in SEVERITIES}
VARIANTS = ("cue-conflict", "sketch", "rendition", "hard", "imagenet-a", "imagenet-r")


class Robustness:
    """The suite `robustness`.

    Conditions: "clean"; "NAME/SEVERITY", generated on the clean images between geometry and normalisation, as
    ImageNet-C was; each variant whose data set is there; and "summary", the mean error over all corrupted cells.

    Metrics: "top1" where the model knows just the data set's classes. Where it knows K and the data set has k of them,
    "top1_fullK" (the answer may be any class) and "top1_maskedk" (one of the data set's). The summary likewise.

    Differs: the published ImageNet-C was stored as JPEG once more; images generated here are not, and their rows say
        source=generated.
    """

    name = "robustness"
    version = 1
    needs = ("val",)
    accepts = ("train", *VARIANTS)

    def conditions(self, config: SuiteConfig) -> list[str]:
        """Names of the conditions, the summary last."""
        return ["clean", *CELLS, *(role for role in VARIANTS if role in config.data), "summary"]

    def roles(self, model: Model, condition: str, config: SuiteConfig) -> tuple[str, ...]:
        """The scored data set, and train where the model needs a head.

        Raises:
            InputError: train is absent, or the classifier lacks a class of the scored data set.
        """
        scored = condition if condition in VARIANTS else "val"
        space = model.label_space if model.classify else require_train(model, config).label_space
        if space is not None:
            map_labels(config.data[scored].label_space, space)  # now, not after all images went through the model
        return (scored,) if model.classify else (scored, "train")

    def count_images(self, model: Model, condition: str, config: SuiteConfig) -> dict[str, int]:
        """Forward passes where nothing is cached; see EvaluationSuite."""
        scored, *train = self.roles(model, condition, config)
        images = len(select_rows(config.data[scored], config.limit))
        passes = dict.fromkeys(CELLS if condition == "summary" else [condition], images)
        heads = {role: len(select_head_rows(config.data[role], config.limit)) for role in train}
        return passes | heads

    def run(self, model: Model, condition: str, config: SuiteConfig) -> list[ResultRow]:
        """The rows of one condition.

        Raises:
            InputError: an encoder without classifier and no role train, classes that the model does not know, or an
                image that cannot be read.
            FloatingPointError: the model's outputs are not finite.
        """
        classifier, protocol = prepare_classifier(model, config)
        manifest = config.data[condition if condition in VARIANTS else "val"]
        corrupted = condition == "summary" or condition in CELLS
        if condition == "summary":
            numbers, skipped = _summarise(classifier, manifest, config)
        else:
            predictions = predict(classifier, manifest, config=config, corruption=CELLS.get(condition))
            scores = score_predictions(predictions, classifier, manifest)
            numbers = {f"top1{suffix}": wilson(int(hits.sum()), len(hits)) for suffix, hits in scores.items()}
            skipped = predictions.skipped
        text = format_protocol(**protocol, **_describe_images(classifier, manifest, config, corrupted=corrupted))
        return [
            make_row(
                model,
                manifest,
                estimate,
                suite=self.name,
                condition=condition,
                metric=metric,
                protocol=text,
                config=config,
                skipped=skipped,
            )
            for metric, estimate in numbers.items()
        ]


def score_predictions(predictions: PredictionSet, classifier: Model, manifest: Manifest) -> dict[str, np.ndarray]:
    """Which images are classified rightly, under each way to read the model's logits.

    Returns:
        Suffix of the metric -> bool [N]: "" where model and data set have the same classes, else "_fullK" and
        "_maskedk", see Robustness.

    Raises:
        InputError: the model lacks a class of the data set.
    """
    space = classifier.label_space
    if space is None:
        raise ValueError(f"{classifier.name} has no label space: use the model that prepare_classifier returns")
    places = map_labels(manifest.label_space, space)
    labels = places[predictions.labels]
    everything, own = len(space.classes), len(places)
    full = correct_top1(predictions.logits, labels)
    if own == everything:
        return {"": full}
    masked = correct_top1(predictions.logits, labels, classes=places)
    return {f"_full{everything}": full, f"_masked{own}": masked}


def _summarise(classifier: Model, manifest: Manifest, config: SuiteConfig) -> tuple[dict[str, Estimate], int]:
    """Mean error over all corrupted cells, with an interval over images, and the number of images left out."""
    cells: dict[str, dict[tuple[str, int], np.ndarray]] = {}
    skipped = 0
    for cell in CELLS.values():
        predictions = predict(classifier, manifest, config=config, corruption=cell)
        skipped = predictions.skipped
        for suffix, hits in score_predictions(predictions, classifier, manifest).items():
            cells.setdefault(suffix, {})[cell] = hits
    name = name_mean_error(CORRUPTIONS)
    return {name + suffix: mean_error(hits) for suffix, hits in cells.items()}, skipped


def _describe_images(classifier: Model, manifest: Manifest, config: SuiteConfig, *, corrupted: bool) -> dict[str, str]:
    """What the protocol says of images, classes and precision."""
    preprocessing, space = classifier.preprocessing, classifier.label_space
    described = {
        "label_space": manifest.label_space.name,
        "precision": "bfloat16" if torch.device(config.device).type == "cuda" else "float32",
        "source": "generated" if corrupted else "files",
        "transform": name_transform(preprocessing, manifest),
    }
    if space is not None and len(space.classes) > len(manifest.label_space.classes):
        described["label_space"] += f"-of-{space.name}"
    if corrupted:
        described["parameters"] = resolve_parameters("auto", preprocessing.size)
    return described
