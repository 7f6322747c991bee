"""Few-shot: logistic regression on the frozen features of a few training images a class."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from pixmim_eval.data.imagenet import map_labels
from pixmim_eval.errors import InputError
from pixmim_eval.extract import extract_features, select_rows
from pixmim_eval.metrics.intervals import CONFIDENCE, mean_interval, t_quantile
from pixmim_eval.models.heads import LinearHead, choose_pooling
from pixmim_eval.results import format_protocol, make_rows
from pixmim_eval.seeds import derive_seed, uniform
from pixmim_eval.suites import EvaluationSuite
from pixmim_eval.suites.frozen_features import (
    Pooling,
    choose_poolings,
    describe_features,
    mark_answers,
    name_absent,
)
from pixmim_eval.suites.scoring import rate
from pixmim_eval.types import Estimate, FeatureSet, Manifest, Model, Outcome, SuiteConfig

_CHUNK = 8192  # scored images at a time
_FEW = 4  # draws that take less than a quarter of train are few: only their images go through the model


@dataclass(frozen=True)
class FewShotOptions:
    """Options of the suite `few_shot`.

    Args:
        fractions: parts of the training set.
        shots: images a class, where given in place of the fractions.
        draws: random choices of training images.
        pooling: which features; "all" leaves the choice to a held-out part of each draw.
    """

    fractions: tuple[float, ...] = field(
        default=(0.01, 0.1), metadata={"help": "parts of train, the same number of images a class (default 0.01 0.1)"}
    )
    shots: tuple[int, ...] = field(default=(), metadata={"help": "images a class, in place of --fractions"})
    draws: int = field(default=5, metadata={"help": "random choices of training images (default 5)"})
    pooling: Pooling = field(
        default="all", metadata={"help": "class token, mean of the patches, or the better on a held-out part (default)"}
    )


class FewShot(EvaluationSuite):
    """The suite `few_shot`: how far a few labelled images go.

    Conditions: "N-percent" for every fraction of train, the same number of images a class (at least one; all of a class
    that has fewer), or with --shots "N-per-class". Each is drawn several times, by (seed, draw, image) alone: all
    models see the same images, and those of fewer are among those of more. On each draw a logistic regression is
    fitted, whose penalty (and pooling) is chosen on a held-out fifth of the draw; of one image a class that part has
    other classes than the rest, and the strongest penalty wins. No scored image is ever looked at.

    Metrics: "top1", the mean over draws and images. Its interval is one for other draws and other images
    (`interval=draws-and-images` of the protocol; of one draw, `images`). "top1/draw-1" and so on are the single draws,
    with intervals over images alone, and the outcomes that paired comparisons need.

    Differs: the lists of 1 % and 10 % of ImageNet that came with SimCLR (Chen et al., ICML 2020) are one draw each.
    """

    name = "few_shot"
    version = 1
    needs = ("val", "train")
    options = FewShotOptions

    def conditions(self, config: SuiteConfig) -> list[str]:
        """One a fraction or number of images a class. Raises InputError where an option is out of range."""
        return list(_list_sizes(config.options))

    def roles(self, model: Model, condition: str, config: SuiteConfig) -> tuple[str, ...]:
        """Scored and training images. Raises InputError where train lacks a class of val, or images for --shots."""
        train = config.data["train"]
        map_labels(config.data["val"].label_space, train.label_space)
        _check_shots(_list_sizes(config.options)[condition], train, select_rows(train, config.limit))
        return self.needs

    def settings(self, model: Model, condition: str, config: SuiteConfig) -> tuple[object, ...]:
        """What else the rows of a condition depend on: not the other conditions."""
        return (config.options.draws, config.options.pooling)

    def count_images(self, model: Model, condition: str, config: SuiteConfig) -> dict[str, int]:
        """Forward passes where nothing is cached; see EvaluationSuite."""
        drawn = len(_widen_draws(_draw_all(condition, config), config))
        return {"val": len(select_rows(config.data["val"], config.limit)), f"train-{drawn}": drawn}

    def run(self, model: Model, condition: str, config: SuiteConfig) -> Outcome:
        """The rows of one condition, and how each image fared in each draw.

        Raises:
            InputError: the class token asked of an encoder without one, or an image that cannot be read.
            FloatingPointError: features are not finite.
        """
        train, val = config.data["train"], config.data["val"]
        queries = extract_features(model, val, config=config)
        poolings = choose_poolings(queries, config.options.pooling, model)
        draws = _draw_all(condition, config)
        known = extract_features(model, train, config=config, rows=_widen_draws(draws, config))
        heads, hits, counts = [], {}, set[int]()
        for number, rows in enumerate(draws, start=1):
            drawn = {pooling: _take_rows(known[pooling], rows) for pooling in poolings}
            head = fit_draw(drawn, config)
            answers = _answer(head, queries[head.pooling].features, config.device)
            hits[f"top1/draw-{number}"] = mark_answers(answers, queries[head.pooling], config)
            heads.append(head)
            counts |= {*np.unique(drawn[poolings[0]].labels, return_counts=True)[1].tolist()}
        scored = queries[poolings[0]]
        absent = name_absent(drawn[poolings[0]].labels, scored, config)
        protocol = {
            "draws": len(draws),
            "head": _name_heads(heads),
            "images_per_class": f"{min(counts)}-{max(counts)}" if len(counts) > 1 else min(counts),
            "interval": "draws-and-images" if len(draws) > 1 else "images",
            **describe_features(model, config, absent),
        }
        estimates = {"top1": average_draws(np.stack(list(hits.values())))}
        estimates |= {metric: rate(found) for metric, found in hits.items()}
        found = make_rows(
            model,
            val,
            estimates,
            suite=self.name,
            condition=condition,
            protocol=format_protocol(**protocol),
            config=config,
            skipped=scored.skipped,
        )
        return Outcome(found, hits)


def draw_rows(train: Manifest, rows: np.ndarray, size: float | int, *, seed: int, draw: int) -> np.ndarray:
    """A random choice of training images with the same number of every class.

    Args:
        train: the training set.
        rows: int64, those of its rows to choose from.
        size: a fraction of these rows (float: shared out among the classes that they have, at least one image each,
            and all of a class that has fewer), or images a class (int).
        seed: of the run.
        draw: number of the choice, from 1.

    Returns:
        int64, sorted. A smaller choice of the same draw is a part of a larger one.
    """
    labels = train.labels[rows]
    chance = uniform(derive_seed(seed, "few-shot", draw), torch.from_numpy(rows), 1, dtype=torch.float64)[:, 0].numpy()
    order = np.lexsort((chance, labels))
    _, first, counts = np.unique(labels[order], return_index=True, return_counts=True)
    rank = np.arange(len(rows)) - np.repeat(first, counts)
    wanted = size if isinstance(size, int) else max(1, round(size * len(rows) / len(counts)))
    return np.sort(rows[order[rank < wanted]])


def fit_draw(drawn: Mapping[str, FeatureSet], config: SuiteConfig) -> LinearHead:
    """The logistic regression of one draw.

    Args:
        drawn: pooling -> features of the drawn images.
        config: of the run.
    """
    labels = next(iter(drawn.values())).labels
    candidates = {pooling: features.features for pooling, features in drawn.items()}
    classes = len(config.data["train"].label_space.classes)
    return choose_pooling(candidates, labels, classes, seed=config.seed, device=config.device)


def average_draws(hits: np.ndarray) -> Estimate:
    """Mean accuracy over draws and images, with an interval for other draws and other images.

    Both vary, so the half-widths of the interval over images (each image's mean over draws) and of the interval over
    draws (each draw's mean over images) are added in squares. What is due to neither alone is in both: the interval is
    a little wide. Of one draw it is Wilson's, over images.

    Args:
        hits: int8 [draws, N]: 1 right, 0 wrong, -1 left out in all draws.

    Source: Zou and Donner, Statistics in Medicine 2008, equation 3, for the sum of the two deviations.
    """
    if len(hits) == 1:
        return rate(hits[0])
    correct = hits[:, hits[0] >= 0].astype(np.float64)
    images, means = mean_interval(correct.mean(axis=0)), correct.mean(axis=1)
    half = t_quantile(CONFIDENCE, len(means) - 1) * float(means.std(ddof=1)) / math.sqrt(len(means))
    low = images.value - math.hypot(images.value - images.low, half)
    high = images.value + math.hypot(images.high - images.value, half)
    return Estimate(images.value, max(0.0, low), min(1.0, high), images.n)


def _list_sizes(options: FewShotOptions) -> dict[str, float | int]:
    """Name of a condition -> fraction (float) or images a class (int). Raises InputError where one is out of range."""
    good = all(0 < fraction <= 1 for fraction in options.fractions) and all(count >= 1 for count in options.shots)
    if not good or options.draws < 1:
        raise InputError(
            "options of few_shot",
            expected="fractions in (0, 1], shots and draws of at least 1",
            found=f"fractions {options.fractions}, shots {options.shots}, draws {options.draws}",
            where="--fractions, --shots, --draws",
            fix="The usual ones are --fractions 0.01 0.1 --draws 5.",
        )
    if options.shots:
        return {f"{count}-per-class": count for count in options.shots}
    return {f"{100 * fraction:g}-percent": fraction for fraction in options.fractions}


def _check_shots(size: float | int, train: Manifest, rows: np.ndarray) -> None:
    """Raises InputError where a class has fewer images than the number asked of each."""
    labels, counts = np.unique(train.labels[rows], return_counts=True)
    short = labels[counts < size] if isinstance(size, int) else labels[:0]
    if len(short):
        examples = ", ".join(
            f"{counts[labels == label][0]} of {train.label_space.classes[label]}" for label in short[:3]
        )
        raise InputError(
            "training images a class",
            expected=f"at least {size} of each",
            found=f"{examples} ({len(short)} classes have fewer)",
            where=f"--shots {size}, role train ({train.name})",
            fix="Ask for fewer, raise --limit, or use --fractions, which take all of a class that has fewer.",
        )


def _draw_all(condition: str, config: SuiteConfig) -> list[np.ndarray]:
    """The rows of every draw."""
    train, size = config.data["train"], _list_sizes(config.options)[condition]
    rows = select_rows(train, config.limit)
    return [draw_rows(train, rows, size, seed=config.seed, draw=1 + draw) for draw in range(config.options.draws)]


def _widen_draws(draws: list[np.ndarray], config: SuiteConfig) -> np.ndarray:
    """Rows to put through the model: what is drawn, or all of train where that is much of it.

    The features of all of train are those that the suites knn and linear_probe need, too.
    """
    rows, drawn = select_rows(config.data["train"], config.limit), np.unique(np.concatenate(draws))
    return drawn if _FEW * len(drawn) < len(rows) else rows


def _take_rows(known: FeatureSet, rows: np.ndarray) -> FeatureSet:
    """The features of some rows, in memory, less those of images that could not be read."""
    kept = np.flatnonzero(np.isin(known.index, rows, assume_unique=True))
    return FeatureSet(known.index[kept], known.labels[kept], known.features[kept], known.skipped)


def _answer(head: LinearHead, features: np.ndarray, device: str) -> np.ndarray:
    """The most probable class of each image, int64 [N]."""
    head = head.to(device)
    parts = (torch.from_numpy(np.array(features[start : start + _CHUNK])) for start in range(0, len(features), _CHUNK))
    return torch.cat([head(part.to(device)).argmax(dim=1).cpu() for part in parts]).numpy()


def _name_heads(heads: list[LinearHead]) -> str:
    """For the protocol: the penalties and poolings that were chosen, draw by draw."""
    penalties, poolings = "/".join(f"{head.l2:g}" for head in heads), "/".join(head.pooling for head in heads)
    return f"logistic(l2={penalties},pool={poolings})"
