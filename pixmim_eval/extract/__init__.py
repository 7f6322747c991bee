"""Model × manifest → features, logits or answers, one forward pass an image, cached by content."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from pixmim_eval.data.crops import Crop
from pixmim_eval.errors import InputError
from pixmim_eval.extract.passes import ImagePass, digest_code, identify_model, pool_tokens
from pixmim_eval.extract.processes import gather, one_thread, process_rank, share, wait_for_all
from pixmim_eval.extract.store import Entry, copy_rows, is_stored, load_entry
from pixmim_eval.files import cache_dir, write_atomic
from pixmim_eval.models.heads import LinearHead, choose_pooling
from pixmim_eval.results import hash_parts
from pixmim_eval.seeds import derive_seed, uniform
from pixmim_eval.types import AnswerSet, FeatureSet, Manifest, Model, PredictionSet, SuiteConfig

__all__ = [
    "answer",
    "cache_dir",
    "digest_code",
    "extract_features",
    "gather",
    "identify_model",
    "predict",
    "prepare_classifier",
    "process_rank",
    "require_train",
    "select_head_rows",
    "select_rows",
    "share",
    "wait_for_all",
]

HEAD_IMAGES = 4096
HEAD_IMAGES_PER_CLASS = 100
_MOST_LAYERS = 12  # that a stored pass is looked for with
_SMALL_PROBLEM = 10**8  # multiplications of a head with its training set, below which threads only wait for each other


def select_rows(manifest: Manifest, count: int | None) -> np.ndarray:
    """At most `count` rows that stand for the whole data set: one from each of `count` equal stretches in label order.

    Where in its stretch a row lies is random but fixed, as equal steps would pick every row from the same few classes
    or textures of a data set that cycles through them.

    Returns:
        int64, sorted; all rows where count is None or not less than their number.
    """
    total = len(manifest)
    if count is None or count >= total:
        return np.arange(total)
    edges = np.arange(count + 1) * total // count
    jitter = uniform(derive_seed("rows"), torch.arange(count), 1, dtype=torch.float64)[:, 0].numpy()
    places = edges[:-1] + (jitter * np.diff(edges)).astype(np.int64)
    return np.sort(np.argsort(manifest.labels, kind="stable")[places])


def select_head_rows(manifest: Manifest, limit: int | None) -> np.ndarray:
    """Rows that a linear head is fitted on: 4,096 images, or 100 a class where that is more, and no more than limit."""
    count = max(HEAD_IMAGES, HEAD_IMAGES_PER_CLASS * len(manifest.label_space.classes))
    return select_rows(manifest, count if limit is None else min(count, limit))


def predict(model: Model, manifest: Manifest, *, config: SuiteConfig, keep_images: bool = False) -> PredictionSet:
    """Logits of a model with a classifier, from the cache where they are there.

    Args:
        model: has `classify`; see prepare_classifier for one that lacks it.
        manifest: the data set; config.limit picks its rows (see select_rows).
        config: of the run.
        keep_images: other passes will need the decoded images, e.g. to corrupt them.

    Returns:
        Logits float32 [N, K] (float16 above 1 GiB) in the order of the model's classes; read-only, memory-mapped.

    Raises:
        ValueError: the model has no classifier.
        InputError: an image cannot be read and config.on_bad_image is "stop".
        FloatingPointError: logits are not finite.
    """
    classify = _require_classifier(model)
    rows = select_rows(manifest, config.limit)
    work = ImagePass(
        model, manifest, rows, config, lambda images: {"logits": classify(images)}, "logits", keep_images=keep_images
    )
    index, labels, arrays, skipped = _drop_absent(load_entry(work))
    return PredictionSet(index, labels, arrays["logits"], skipped)


def answer(
    model: Model,
    manifest: Manifest,
    *,
    config: SuiteConfig,
    readings: Mapping[str, np.ndarray | None],
    corruption: tuple[str, int] | None = None,
) -> dict[str, AnswerSet]:
    """A model's answers, without its logits: a thousandth of the room that a cell of ImageNet-C would take.

    Args:
        model, manifest, config: as predict.
        readings: name -> which outputs of the model may be the answer, int64 [k]; None for all.
        corruption: (name, severity) applied to the uint8 images after the evaluation geometry; None for images that are
            scored as they are.

    Returns:
        For each reading the answers, as outputs of the model. Of equal logits the first counts.

    Raises:
        As predict.
    """
    classify = _require_classifier(model)
    chosen = {name: None if classes is None else torch.from_numpy(classes) for name, classes in readings.items()}

    def forward(images: Tensor) -> dict[str, Tensor]:
        logits = classify(images)
        outputs = {}
        for name, classes in chosen.items():
            part = logits if classes is None else logits[:, classes]
            best = part.argmax(dim=1, keepdim=True)
            confidence = part.float().softmax(dim=1).gather(1, best)
            outputs[f"answers{name}"] = torch.cat(
                [best.float(), confidence], dim=1
            )  # floats hold whole numbers up to 2^24
        return outputs

    name = hash_parts("answers", tuple((key, None if v is None else v.tolist()) for key, v in readings.items()))
    rows = select_rows(manifest, config.limit)
    index, labels, arrays, skipped = _drop_absent(
        load_entry(ImagePass(model, manifest, rows, config, forward, name, corruption))
    )
    answers = {}
    for key, classes in readings.items():
        stored = arrays[f"answers{key}"]
        best = stored[:, 0].astype(np.int64)
        answers[key] = AnswerSet(index, labels, best if classes is None else classes[best], stored[:, 1], skipped)
    return answers


def _require_classifier(model: Model) -> Callable[[Tensor], Tensor]:
    if model.classify is None:
        raise ValueError(f"{model.name} has no classifier: use the model that prepare_classifier returns")
    return model.classify


def _drop_absent(entry: Entry) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray], int]:
    """Index, labels and arrays of the rows that were not left out, and how many were."""
    table, arrays, kept = entry.table, entry.arrays, entry.table["present"]
    if not kept.all():
        table, arrays = table[kept], {name: copy_rows(array, kept) for name, array in arrays.items()}
    return table["row"], table["label"], arrays, len(kept) - len(table)


def extract_features(
    model: Model,
    manifest: Manifest,
    *,
    config: SuiteConfig,
    rows: np.ndarray | None = None,
    layers: int = 1,
    crop: Crop | None = None,
    view: int = 0,
) -> dict[str, FeatureSet]:
    """Every pooling of an encoder's tokens from one forward pass, from the cache where they are there.

    Args:
        model: only its encoder is used.
        manifest: the data set.
        config: of the run.
        rows: int64, the rows to use, sorted; by default those that config.limit picks.
        layers: how many of the last layers, each through the final norm; a pass that is stored with more serves too.
        crop: of augmented images in place of the evaluation geometry, of the size that the model takes; mirrored half
            the time. They depend on the seed, the view and the row alone.
        view: which of the augmented views.

    Returns:
        "cls" (where there is a class token) and "mean" (of the patch tokens) of the last layer, "cls-2" and "mean-2" of
        the one before it, and so on -> features [N, D], float32, or float16 where float32 would take more than 1 GiB;
        read-only, memory-mapped: read a part of the rows at a time where N is large.

    Raises:
        InputError: an image cannot be read and config.on_bad_image is "stop", or the encoder has fewer layers.
        FloatingPointError: features are not finite.
    """
    rows = select_rows(manifest, config.limit) if rows is None else rows
    augmented = None if crop is None else (crop, view)
    passes = (
        _pass_for_features(model, manifest, config, rows, count, augmented) for count in range(layers, _MOST_LAYERS + 1)
    )
    stored = share(next((count for count, work in enumerate(passes, layers) if is_stored(work)), layers))
    work = _pass_for_features(model, manifest, config, rows, stored, augmented)
    index, labels, arrays, skipped = _drop_absent(load_entry(work))
    wanted = [name for name in arrays if int(name.partition("-")[2] or 1) <= layers]
    return {name: FeatureSet(index, labels, arrays[name], skipped) for name in wanted}


def _pass_for_features(
    model: Model,
    manifest: Manifest,
    config: SuiteConfig,
    rows: np.ndarray,
    layers: int = 1,
    view: tuple[Crop, int] | None = None,
) -> ImagePass:
    bare = replace(model, classify=None, label_space=None)  # features do not depend on them
    pool = partial(pool_tokens, model.encoder, layers=layers)
    return ImagePass(bare, manifest, rows, config, pool, f"pooled-{layers}", view=view)


def prepare_classifier(model: Model, config: SuiteConfig) -> tuple[Model, dict[str, str]]:
    """A model that classifies, and what the protocol of its rows says about how.

    A model with a classifier comes back as it is. An encoder gets a linear head fitted on the data set of role train
    (cached by content), with the pooling and the penalty chosen on a part of that set.

    Raises:
        InputError: a head is needed, and there is no role train.
    """
    if model.classify is not None:
        return model, {"head": "own", "pooling": "own"}
    train = require_train(model, config)
    head = _load_head(model, train, config)
    encoder = model.encoder
    fitted = replace(
        model,
        digest=hash_parts(model.digest, head.digest),
        classify=lambda images: head(pool_tokens(encoder, images)[head.pooling]),
        label_space=train.label_space,
    )
    return fitted, {"head": head.name, "head_data": f"{train.name}@{train.digest}", "pooling": head.pooling}


def require_train(model: Model, config: SuiteConfig) -> Manifest:
    """The data set that a head for this model is fitted on. Raises InputError where there is none."""
    if "train" not in config.data:
        raise InputError(
            "classifier of model " + model.name,
            expected="a model with a classifier, or a data set to fit a linear head on",
            found="an encoder without one, and no data set of role train",
            where="--data",
            fix="Give the training images: --data train=PATH.",
        )
    return config.data["train"]


def _load_head(model: Model, train: Manifest, config: SuiteConfig) -> LinearHead:
    rows = select_head_rows(train, config.limit)
    key = hash_parts("head", _pass_for_features(model, train, config, rows).key, config.seed)
    file = cache_dir() / "heads" / f"{key}.npz"
    if not share(file.exists()):
        features = extract_features(model, train, config=config, rows=rows)
        if process_rank()[0] == 0:
            candidates = {pooling: stored.features for pooling, stored in features.items()}
            classes = len(train.label_space.classes)
            labels = features["mean"].labels
            small = features["mean"].features.size * classes < _SMALL_PROBLEM
            with one_thread() if small else nullcontext():
                head = choose_pooling(candidates, labels, classes, seed=config.seed, device=config.device)
            write_atomic(file, head.to_bytes())
        wait_for_all()
    return LinearHead.from_bytes(file.read_bytes()).to(config.device)
