"""What suites on frozen features share: poolings, labels of train and val, and what the protocol says."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch

from pixmim_eval.data.imagenet import map_labels
from pixmim_eval.data.transforms import name_transform
from pixmim_eval.errors import InputError
from pixmim_eval.extract import process_rank, select_rows
from pixmim_eval.types import FeatureSet, Model, SuiteConfig

Pooling = Literal["all", "cls", "mean"]


def choose_poolings(features: Mapping[str, FeatureSet], asked: Pooling, model: Model) -> list[str]:
    """The poolings to use: all that the model has, the class token first; or the one asked for.

    Raises:
        InputError: the class token is asked of an encoder without one.
    """
    if asked == "all":
        return sorted(features)
    if asked not in features:
        raise InputError(
            "pooling",
            expected=f"one that the encoder has: {', '.join(features)}",
            found=asked,
            where=f"--pooling, model {model.name}",
            fix="Its encoder has no class token: use --pooling mean, or all.",
        )
    return [asked]


def label_queries(queries: FeatureSet, config: SuiteConfig) -> np.ndarray:
    """int64 [M]: the labels of the scored images in the label space of the training set."""
    return map_labels(config.data["val"].label_space, config.data["train"].label_space)[queries.labels]


def mark_answers(answers: np.ndarray, queries: FeatureSet, config: SuiteConfig) -> np.ndarray:
    """int8 [N], for every image of val that was to be scored: 1 right, 0 wrong, -1 left out.

    Args:
        answers: int64 [M], labels of the training set.
        queries: the M scored images.
        config: of the run.
    """
    rows = select_rows(config.data["val"], config.limit)
    hits = np.full(len(rows), -1, dtype=np.int8)
    hits[np.searchsorted(rows, queries.index)] = answers == label_queries(queries, config)
    return hits


def name_absent(train_labels: np.ndarray, queries: FeatureSet, config: SuiteConfig) -> tuple[str, ...]:
    """The classes that are scored and have no training image; where there are any, stderr says so.

    Args:
        train_labels: int64 [N] of the training images.
        queries: the scored images.
        config: of the run.
    """
    train = config.data["train"]
    labels = np.setdiff1d(label_queries(queries, config), train_labels)
    absent = tuple(train.label_space.classes[label] for label in labels)
    if absent and process_rank()[0] == 0:
        names = ", ".join(absent[:3]) + (", …" if len(absent) > 3 else "")
        text = f"{len(absent)} scored classes have no image in {train.name} ({names}): theirs are wrong"
        print(text, file=sys.stderr)
    return absent


def describe_features(model: Model, config: SuiteConfig, absent: tuple[str, ...]) -> dict[str, str]:
    """What the protocol says of images, classes and precision; `absent_classes` only where there are any."""
    val, train = config.data["val"], config.data["train"]
    described = {
        "head_data": f"{train.name}@{train.digest}",
        "label_space": val.label_space.name,
        "precision": "bfloat16" if torch.device(config.device).type == "cuda" else "float32",
        "transform": name_transform(model.preprocessing, val),
    }
    return described | ({"absent_classes": str(len(absent))} if absent else {})
