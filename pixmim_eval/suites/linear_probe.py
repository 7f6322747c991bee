"""Linear probe: how well one linear layer on frozen features classifies, by two named protocols."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from pixmim_eval.data.crops import SingleTryResizedCrop
from pixmim_eval.data.imagenet import map_labels
from pixmim_eval.errors import InputError
from pixmim_eval.extract import extract_features, process_rank, select_rows, share
from pixmim_eval.extract.processes import one_thread
from pixmim_eval.models.heads import LinearHead
from pixmim_eval.models.heads.sweep import Choice, Grid, sweep_heads
from pixmim_eval.results import format_protocol, make_rows
from pixmim_eval.suites import EvaluationSuite
from pixmim_eval.suites.frozen_features import Pooling, choose_poolings, describe_features, name_absent
from pixmim_eval.suites.scoring import rate, score_logits
from pixmim_eval.types import FeatureSet, Manifest, Model, Outcome, SuiteConfig

CONDITION = "clean"
_SMALL_STEP = 10**7  # multiplications of a step of the sweep, below which threads only wait for each other


@dataclass(frozen=True)
class LinearProbeOptions:
    """Options of the suite `linear_probe`.

    Args:
        protocol: "cached", many heads on stored features; "mae-90e", the published training.
        pooling: which features; "all": cached tries all and chooses by a held-out part of train, mae-90e takes the
            class token where there is one.
        views: of `cached`: augmented views of train besides the images as they are scored.
        last_layers: of `cached`: above 1, the features of so many last layers side by side are tried too.
        probe_epochs, probe_batch_size, probe_base_lr, probe_warmup_epochs: of `mae-90e`. LARS moves weights by a part
            of their length that is the learning rate times the number of steps, which is as the base rate times the
            number of images: on fewer than ImageNet's 1.28 million images the published rate leaves them near zero.
    """

    protocol: Literal["cached", "mae-90e"] = field(
        default="cached", metadata={"help": "many heads on stored features (default), or MAE's published 90 epochs"}
    )
    pooling: Pooling = field(
        default="all", metadata={"help": "class token, mean of the patches, or the better on a held-out part (default)"}
    )
    views: int = field(default=2, metadata={"help": "cached: augmented views of each training image (default 2)"})
    last_layers: int = field(
        default=1, metadata={"help": "cached: also try the last N layers side by side (default 1: no)"}
    )
    probe_epochs: int = field(default=90, metadata={"help": "mae-90e: epochs (default 90; 50 for ViT-L and ViT-H)"})
    probe_batch_size: int = field(default=16384, metadata={"help": "mae-90e: images a step (default 16384)"})
    probe_base_lr: float = field(
        default=0.1,
        metadata={"help": "mae-90e: learning rate for 256 images (default 0.1; of N images 128,000 / N does as much)"},
    )
    probe_warmup_epochs: float = field(
        default=10.0, metadata={"help": "mae-90e: epochs of linear warm-up (default 10)"}
    )


class LinearProbe(EvaluationSuite):
    """The suite `linear_probe`: a linear layer fitted on the frozen features of train, scored on val.

    One condition, "clean". Metrics: "top1" and, of more than five classes, "top5"; where val has k of train's K
    classes, both once among all ("_fullK") and once among val's ("_maskedk").

    The protocol of a row names the probe. `cached`: features of some augmented views of train and of its images as they
    are scored are extracted once; heads for 13 learning rates and 2 weight decays are trained on each pooling; the one
    most often right on a tenth of train that was held out is trained again on all of it. The chosen learning rate,
    weight decay and pooling are in `head`, its held-out accuracy in `held_out_top1`. `mae-90e`: see
    transfer.linear.train_linear_probe. Neither ever looks at val.

    Differs: `cached` visits 3 versions of an image where the published probe draws 90.
    """

    name = "linear_probe"
    version = 1
    needs = ("val", "train")
    options = LinearProbeOptions

    def conditions(self, config: SuiteConfig) -> list[str]:
        """The only one. Raises InputError where an option is out of range."""
        check_options(config.options)
        return [CONDITION]

    def roles(self, model: Model, condition: str, config: SuiteConfig) -> tuple[str, ...]:
        """Scored and training images. Raises InputError where train does not know a class of val."""
        map_labels(config.data["val"].label_space, config.data["train"].label_space)
        return self.needs

    def settings(self, model: Model, condition: str, config: SuiteConfig) -> tuple[object, ...]:
        """What else the rows depend on: the options of the protocol that is used."""
        options: LinearProbeOptions = config.options
        own = {
            "cached": (options.views, options.last_layers),
            "mae-90e": (
                options.probe_epochs,
                options.probe_batch_size,
                options.probe_base_lr,
                options.probe_warmup_epochs,
            ),
        }
        return (options.protocol, options.pooling, *own[options.protocol])

    def count_images(self, model: Model, condition: str, config: SuiteConfig) -> dict[str, int]:
        """Forward passes where nothing is cached; see EvaluationSuite."""
        options: LinearProbeOptions = config.options
        images = {role: len(select_rows(config.data[role], config.limit)) for role in self.needs}
        if options.protocol == "cached":
            return images | {f"train view {view}": images["train"] for view in range(1, options.views + 1)}
        return {"val": images["val"], "train, every epoch anew": options.probe_epochs * images["train"]}

    def run(self, model: Model, condition: str, config: SuiteConfig) -> Outcome:
        """The rows of one model, and how each image fared.

        Raises:
            InputError: the class token asked of an encoder without one, fewer layers than asked for, a training set
                that nothing can be held out of, or an image that cannot be read.
            FloatingPointError: features are not finite.
        """
        options: LinearProbeOptions = config.options
        val, train = config.data["val"], config.data["train"]
        features = extract_features(model, val, config=config, layers=options.last_layers)
        list_poolings(features, options, model)  # now, not after all of train went through the model
        head, described = PROTOCOLS[options.protocol](model, train, config, options)
        scored = features[list_parts(head.pooling)[0]]
        absent = name_absent(train.labels[select_rows(train, config.limit)], scored, config)
        hits = score_head(head, features, config)
        protocol = {**describe_features(model, config, absent), **described, "probe": options.protocol}
        rows = make_rows(
            model,
            val,
            {metric: rate(found) for metric, found in hits.items()},
            suite=self.name,
            condition=condition,
            protocol=format_protocol(**protocol),
            config=config,
            skipped=scored.skipped,
        )
        return Outcome(rows, hits)


def check_options(options: LinearProbeOptions) -> None:
    """Raise InputError where an option is out of range."""
    if options.views < 0 or min(options.last_layers, options.probe_epochs, options.probe_batch_size) < 1:
        raise InputError(
            "options of linear_probe",
            expected="views of at least 0; last layers, epochs and batch of at least 1",
            found=f"{options.views}, {options.last_layers}, {options.probe_epochs}, {options.probe_batch_size}",
            where="--views, --last-layers, --probe-epochs, --probe-batch-size",
            fix="Leave them out for the usual ones.",
        )
    if not 0 <= options.probe_warmup_epochs <= options.probe_epochs or not 0 < options.probe_base_lr < math.inf:
        raise InputError(
            "learning rate of the linear probe",
            expected="a base rate above 0, and no longer a warm-up than the training",
            found=f"{options.probe_base_lr:g}, {options.probe_warmup_epochs:g} of {options.probe_epochs} epochs",
            where="--probe-base-lr, --probe-warmup-epochs",
            fix="The published ones are 0.1, and 10 of 90 epochs.",
        )


def fit_cached(
    model: Model, train: Manifest, config: SuiteConfig, options: LinearProbeOptions
) -> tuple[LinearHead, dict[str, str]]:
    """The head of the protocol `cached`, and what the protocol of a row says of it.

    Processes share the extraction; the first one fits.

    Raises:
        InputError: as LinearProbe.run.
        FloatingPointError: features are not finite.
    """
    layers, crop = options.last_layers, SingleTryResizedCrop(model.preprocessing.size)
    views = [extract_features(model, train, config=config, layers=layers)]
    poolings = list_poolings(views[0], options, model)
    for view in range(options.views):
        views.append(extract_features(model, train, config=config, layers=layers, crop=crop, view=view))
    found: tuple[LinearHead, Choice] | None = None
    if process_rank()[0] == 0:
        candidates = {
            pooling: [tuple(view[part].features for part in list_parts(pooling)) for view in views]
            for pooling in poolings
        }
        images, classes, grid = views[0][poolings[0]], len(train.label_space.classes), Grid()
        step = grid.choose_batch(len(images.index)) * images.features.shape[1] * classes * len(grid.pairs)
        with one_thread() if step < _SMALL_STEP else nullcontext():
            found = sweep_heads(
                candidates,
                images.labels,
                classes,
                index=images.index,
                grid=grid,
                seed=config.seed,
                device=config.device,
            )
    head, choice = share(found)  # type: ignore[misc]
    return head.to(config.device), describe_choice(choice, train, head, options)


def describe_choice(choice: Choice, train: Manifest, head: LinearHead, options: LinearProbeOptions) -> dict[str, str]:
    """What the protocol of a row says of a head that was chosen."""
    rates = f"lr={choice.learning_rate:g},wd={choice.weight_decay:g}"
    training = f"batch={choice.batch},epochs={choice.epochs},pool={choice.pooling},train={head.images}"
    return {
        "head": f"cached(sgd,{rates},{training})",
        "head_data": f"{train.name}@{train.digest}",
        "held_out_top1": f"{choice.held_out_top1:.4f}of{choice.held_out}",
        "pooling": choice.pooling,
        "views": f"centre+{options.views}",
    }


def fit_published(
    model: Model, train: Manifest, config: SuiteConfig, options: LinearProbeOptions
) -> tuple[LinearHead, dict[str, str]]:
    """The head of the protocol `mae-90e`, and what the protocol of a row says of it."""
    from pixmim_eval.transfer.linear import ProbeOptions, train_linear_probe  # needs the training loop, Fabric and timm

    pooling: Literal["auto", "cls", "mean"] = "auto" if options.pooling == "all" else options.pooling
    chosen = ProbeOptions(
        epochs=options.probe_epochs,
        batch_size=options.probe_batch_size,
        base_lr=options.probe_base_lr,
        warmup_epochs=options.probe_warmup_epochs,
        pooling=pooling,
    )
    return train_linear_probe(model, train, config, chosen)


PROTOCOLS: dict[
    str, Callable[[Model, Manifest, SuiteConfig, LinearProbeOptions], tuple[LinearHead, dict[str, str]]]
] = {"cached": fit_cached, "mae-90e": fit_published}


def list_poolings(features: Mapping[str, FeatureSet], options: LinearProbeOptions, model: Model) -> list[str]:
    """The poolings to try. Raises InputError where the class token is asked of an encoder without one."""
    last = {name: features[name] for name in ("cls", "mean") if name in features}
    poolings = choose_poolings(last, options.pooling, model)
    several = [f"{pooling}-last{options.last_layers}" for pooling in poolings]
    return poolings + several if options.last_layers > 1 else poolings


def count_layers(pooling: str) -> int:
    """How many of the last layers a pooling needs: 4 for "cls-last4", 1 for "cls"."""
    return int(pooling.partition("-last")[2] or 1)


def list_parts(pooling: str) -> list[str]:
    """The features that stand side by side in a pooling: "cls", "cls-2", "cls-3" for "cls-last3"."""
    kind = pooling.partition("-last")[0]
    return [kind, *(f"{kind}-{layer}" for layer in range(2, count_layers(pooling) + 1))]


def score_head(head: LinearHead, features: Mapping[str, FeatureSet], config: SuiteConfig) -> dict[str, np.ndarray]:
    """How each image of val fares; see scoring.score_logits.

    Args:
        head: with the classes of train.
        features: of val, those that the head's pooling needs.
        config: of the run.
    """
    parts, head = [features[name] for name in list_parts(head.pooling)], head.to(config.device)

    def read(part: slice) -> np.ndarray:
        values = np.concatenate([one.features[part] for one in parts], axis=1, dtype=np.float32)
        return head(torch.from_numpy(values).to(config.device)).cpu().numpy()

    known, val = config.data["train"].label_space, config.data["val"]
    return score_logits(read, parts[0].index, parts[0].labels, known=known, manifest=val, config=config)
