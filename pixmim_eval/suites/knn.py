"""k-nearest neighbours: what frozen features tell without any training."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pixmim_eval.data.imagenet import map_labels
from pixmim_eval.extract import extract_features, gather, process_rank, select_rows
from pixmim_eval.models.neighbours import TEMPERATURE, check_vote, find_neighbours, vote
from pixmim_eval.results import format_protocol, make_rows
from pixmim_eval.suites import EvaluationSuite
from pixmim_eval.suites.frozen_features import Pooling, choose_poolings, describe_features, mark_answers, name_absent
from pixmim_eval.suites.scoring import rate
from pixmim_eval.types import FeatureSet, Model, Outcome, SuiteConfig

CONDITION = "clean"
PUBLISHED_K = 20  # of the published 10, 20, 100 and 200, the one that the authors found best


@dataclass(frozen=True)
class KnnOptions:
    """Options of the suite `knn`.

    Args:
        k: numbers of neighbours.
        temperature: of the vote.
        pooling: which features; "all" are those that the model has.
    """

    k: tuple[int, ...] = field(
        default=(10, 20, 100, 200), metadata={"help": "numbers of neighbours that vote (default 10 20 100 200)"}
    )
    temperature: float = field(
        default=TEMPERATURE, metadata={"help": f"a vote is exp(cosine / temperature) (default {TEMPERATURE})"}
    )
    pooling: Pooling = field(
        default="all", metadata={"help": "class token, mean of the patches, or what the model has of them (default)"}
    )

    @property
    def main_k(self) -> int:
        """The k of "top1"."""
        return PUBLISHED_K if PUBLISHED_K in self.k else self.k[0]


class Knn(EvaluationSuite):
    """The suite `knn`: every image of val is answered by a vote of its nearest images of train.

    Features of images at evaluation geometry are scaled to length 1; the k of largest cosine vote with
    exp(cosine / temperature).

    One condition, "clean". Metrics: "top1_kK_POOLING" for every k and every pooling ("cls", "mean" of the patches)
    that the model has, and "top1", the one to be drawn as a curve: k = 20 (where that is not among --k, its first), of
    the class token, or of the mean where there is none or --pooling says so. The protocol has the temperature, the
    number of training images, and what "top1" is: its k under `top1`, its pooling in `head`.

    Source: Wu et al., CVPR 2018; Caron et al., arXiv 2104.14294, appendix F.1, and their `eval_knn.py`.
    """

    name = "knn"
    version = 1
    needs = ("val", "train")
    options = KnnOptions

    def conditions(self, config: SuiteConfig) -> list[str]:
        """The only one. Raises InputError where an option is out of range."""
        images = len(select_rows(config.data["train"], config.limit))
        for k in config.options.k:
            check_vote(k, images, config.options.temperature)
        return [CONDITION]

    def roles(self, model: Model, condition: str, config: SuiteConfig) -> tuple[str, ...]:
        """Scored and training images. Raises InputError where train does not know a class of val."""
        map_labels(config.data["val"].label_space, config.data["train"].label_space)
        return self.needs

    def count_images(self, model: Model, condition: str, config: SuiteConfig) -> dict[str, int]:
        """Forward passes where nothing is cached; see EvaluationSuite."""
        return {role: len(select_rows(config.data[role], config.limit)) for role in self.needs}

    def run(self, model: Model, condition: str, config: SuiteConfig) -> Outcome:
        """The rows of one model, and how each image fared.

        Raises:
            InputError: the class token asked of an encoder without one, or an image that cannot be read.
            FloatingPointError: features are not finite.
        """
        options: KnnOptions = config.options
        queries = extract_features(model, config.data["val"], config=config)
        poolings = choose_poolings(queries, options.pooling, model)
        known = extract_features(model, config.data["train"], config=config)
        hits = {}
        for pooling in poolings:
            for k, answers in _answer(known[pooling], queries[pooling], config).items():
                hits[f"top1_k{k}_{pooling}"] = mark_answers(answers, queries[pooling], config)
        hits = {"top1": hits[f"top1_k{options.main_k}_{poolings[0]}"], **hits}
        train, scored = known[poolings[0]], queries[poolings[0]]
        absent = name_absent(train.labels, scored, config)
        protocol = {
            "head": f"knn(pool={poolings[0]},temperature={options.temperature:g},train={len(train.index)})",
            "top1": f"k{options.main_k}",
            **describe_features(model, config, absent),
        }
        rows = make_rows(
            model,
            config.data["val"],
            {metric: rate(found) for metric, found in hits.items()},
            suite=self.name,
            condition=condition,
            protocol=format_protocol(**protocol),
            config=config,
            skipped=scored.skipped,
        )
        return Outcome(rows, hits)


def _answer(known: FeatureSet, queries: FeatureSet, config: SuiteConfig) -> dict[int, np.ndarray]:
    """k -> the answers of all queries, int64 [M], as labels of the training set; processes share the queries."""
    options: KnnOptions = config.options
    classes, (rank, world_size) = len(config.data["train"].label_space.classes), process_rank()
    own = queries.features[rank::world_size]
    neighbours = find_neighbours(known.features, own, max(options.k), device=config.device)
    answers = {}
    for k in dict.fromkeys(options.k):
        answers[k] = np.empty(len(queries.index), dtype=np.int64)
        found = vote(neighbours, known.labels, k, classes=classes, temperature=options.temperature)
        for place, part in enumerate(gather(found)):
            answers[k][place::world_size] = part
    return answers
