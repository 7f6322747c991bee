"""Fine-tuning: what an encoder reaches when all of it is trained further with labels."""

from __future__ import annotations

from dataclasses import astuple, replace

import numpy as np
import torch

from pixmim_eval.data.imagenet import map_labels
from pixmim_eval.data.transforms import name_transform
from pixmim_eval.extract import predict, select_rows
from pixmim_eval.results import format_protocol, make_rows
from pixmim_eval.suites import EvaluationSuite
from pixmim_eval.suites.frozen_features import name_absent
from pixmim_eval.suites.scoring import label_space_of, rate, score_logits
from pixmim_eval.transfer.finetune import finetune
from pixmim_eval.transfer.recipes import FinetuneOptions, resolve_recipe
from pixmim_eval.types import FeatureSet, Manifest, Model, Outcome, SuiteConfig

CONDITION = "clean"


class Finetune(EvaluationSuite):
    """The suite `finetune`: the encoder is trained on train with all its layers, and scored on val.

    One condition, "clean". Metrics: "top1" and, of more than five classes, "top5"; with --ema also "top1_ema" and
    "top5_ema", of the moving average of the weights. Where train has more classes than val, each once over all of them
    ("top1_fullK") and once over those of val ("top1_maskedk"). The protocol has every setting of the training.

    The state of the training lies in the run's folder, so that a killed run goes on; the fine-tuned weights of a ViT or
    ConvViT stay there as a checkpoint that every other suite takes.
    """

    name = "finetune"
    version = 1
    needs = ("val", "train")
    options = FinetuneOptions

    def conditions(self, config: SuiteConfig) -> list[str]:
        """The only one. Raises InputError where an option is out of range."""
        resolve_recipe(config.options)
        return [CONDITION]

    def roles(self, model: Model, condition: str, config: SuiteConfig) -> tuple[str, ...]:
        """Scored and training images. Raises InputError where train does not know a class of val."""
        map_labels(config.data["val"].label_space, config.data["train"].label_space)
        return self.needs

    def settings(self, model: Model, condition: str, config: SuiteConfig) -> tuple[object, ...]:
        """The recipe."""
        return (astuple(replace(resolve_recipe(config.options), micro_batch=0)),)

    def count_images(self, model: Model, condition: str, config: SuiteConfig) -> dict[str, int]:
        """Forward passes; see EvaluationSuite."""
        epochs = resolve_recipe(config.options).epochs
        images = {role: len(select_rows(config.data[role], config.limit)) for role in self.needs}
        return {"val": images["val"], "train": epochs * images["train"]}

    def run(self, model: Model, condition: str, config: SuiteConfig) -> Outcome:
        """The rows of the fine-tuned model, and how each image fared.

        Raises:
            InputError: see transfer.finetune.finetune.
            FloatingPointError: the loss is not finite.
        """
        val, train = config.data["val"], config.data["train"]
        rows = select_rows(val, config.limit)
        scored = FeatureSet(rows, val.labels[rows], np.empty((len(rows), 0)))
        absent = name_absent(train.labels[select_rows(train, config.limit)], scored, config)
        tuned = finetune(model, train, config, resolve_recipe(config.options))
        hits, skipped = score(tuned.model, val, config)
        if tuned.average is not None:
            hits |= {_insert(name, "_ema"): found for name, found in score(tuned.average, val, config)[0].items()}
        protocol = tuned.protocol | {
            "label_space": val.label_space.name,
            "precision": "bfloat16" if torch.device(config.device).type == "cuda" else "float32",
            "transform": name_transform(model.preprocessing, val),
        }
        if absent:
            protocol["absent_classes"] = str(len(absent))
        stored = make_rows(
            model,
            val,
            {name: rate(found) for name, found in hits.items()},
            suite=self.name,
            condition=condition,
            protocol=format_protocol(**protocol),
            config=config,
            skipped=skipped,
        )
        return Outcome(stored, hits)


def score(classifier: Model, manifest: Manifest, config: SuiteConfig) -> tuple[dict[str, np.ndarray], int]:
    """Who was right (see scoring.score_logits), and how many images were left out."""
    found = predict(classifier, manifest, config=config)
    known = label_space_of(classifier)
    hits = score_logits(
        lambda part: found.logits[part], found.index, found.labels, known=known, manifest=manifest, config=config
    )
    return hits, found.skipped


def _insert(metric: str, word: str) -> str:
    """ "top1_full1000" with "_ema" is "top1_ema_full1000"."""
    name, separator, suffix = metric.partition("_")
    return name + word + separator + suffix
