"""The few shared types: what flows from images to result rows. No logic lives here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:  # analysis reads result rows without importing torch
    from torch import Tensor


@dataclass(frozen=True)
class LabelSpace:
    """The classes that a label indexes.

    Args:
        name: e.g. "imagenet-1k", "shapes16", "wordnet-100" (100 WordNet ids), "names-7".
        classes: WordNet ids ("n01440764") or class names; label k means classes[k].
    """

    name: str
    classes: tuple[str, ...]


class ImageSource(Protocol):
    """Reads images by row. Instances are picklable, so that worker processes can hold them."""

    def read(self, rows: Sequence[int]) -> list[np.ndarray]:
        """Decoded images, each uint8 [H, W, 3] RGB. Raises BadImageError naming the first bad row's key."""
        ...


@dataclass(frozen=True)
class Manifest:
    """A data set: the only authority on labels.

    Args:
        name: short name for tables, e.g. "photos", "shapes16-val".
        keys: [N] unique strings, e.g. the path relative to the data set's root.
        labels: [N] int64 indices into label_space.classes; -1 throughout where the data has no labels.
        label_space: what the labels mean.
        digest: 16 hex digits of the content (see data/sources.py for what goes in).
        source: reads images by row.
        ready_size: the images already have evaluation geometry at this many pixels (no resize, no crop), else None.
        blocks: [N] int64 storage block of each row, where random access inside one block is cheap and across blocks
            is not (Parquet row groups); None where any order is as good.
    """

    name: str
    keys: np.ndarray
    labels: np.ndarray
    label_space: LabelSpace
    digest: str
    source: ImageSource
    ready_size: int | None = None
    blocks: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.keys)


class FileSet(Protocol):
    """What a suite reads that is not a set of images: boxes, people's answers. As a Manifest, it has a name and a
    digest of its content, 16 hex digits."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str: ...

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Batch:
    """A batch of images, before normalisation.

    Args:
        images: uint8 [B, 3, S, S].
        index: int64 [B], rows of the manifest.
        labels: int64 [B].
    """

    images: Tensor
    index: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Tokens:
    """What an encoder gives for B images.

    Args:
        cls: class token [B, D], None where the encoder has none.
        patches: [B, N, D], row by row.
        grid: (rows, columns) with N = rows x columns.
    """

    cls: Tensor | None
    patches: Tensor
    grid: tuple[int, int]


class Encoder(Protocol):
    """An image encoder. Images are float [B, 3, H, W], normalised with the model's own mean and std."""

    dim: int
    patch: int

    def tokens(self, images: Tensor) -> Tokens: ...

    def layer_tokens(self, images: Tensor, count: int) -> list[Tokens]:
        """Tokens after each of the last `count` layers, the last first, all through the final norm; the first are those
        of `tokens`. Raises InputError where there are fewer layers."""
        ...


@dataclass(frozen=True)
class Preprocessing:
    """Evaluation geometry and normalisation of a model.

    Args:
        size: pixels of the square input.
        resize: short side in pixels before the centre crop (256 for the usual 224); equal to size for no border.
        interpolation: "bicubic" or "bilinear" (PIL).
        mean, std: of each channel, on [0, 1].
    """

    size: int
    resize: int
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Model:
    """A loaded model, ready to be evaluated; or whoever else a suite measures, such as people by their answers.

    Args:
        name: for tables, unique within a run.
        digest: 16 hex digits of the weights.
        encoder: an Encoder that is also an nn.Module, in eval mode; None where no network is measured.
        preprocessing: its evaluation geometry.
        classify: images [B, 3, H, W] normalised -> logits [B, K]; None for an encoder without a classifier.
        label_space: what the K logits mean; None when classify is None.
        method: e.g. "mae", "pixmim-mae", "supervised", "unknown".
        epoch: pretraining epochs done, None where unknown.
        backbone: e.g. "ViT-B/16", "ConvViT-B", a timm name; "" where there is no network.
        checkpoint: what else its file holds, above all a decoder (models.checkpoints.Checkpoint); None of timm models.
    """

    name: str
    digest: str
    encoder: Any
    preprocessing: Preprocessing
    classify: Callable[[Tensor], Tensor] | None = None
    label_space: LabelSpace | None = None
    method: str = "unknown"
    epoch: int | None = None
    backbone: str = ""
    checkpoint: Any = None


@dataclass(frozen=True)
class FeatureSet:
    """Features [N, D] with index int64 [N] and labels int64 [N], aligned by row.

    The index is sorted and holds 0…N-1 less the skipped rows, each once, on any number of processes.
    """

    index: np.ndarray
    labels: np.ndarray
    features: np.ndarray
    skipped: int = 0


@dataclass(frozen=True)
class PredictionSet:
    """Logits [N, K] with index int64 [N] and labels int64 [N], aligned by row.

    The index is sorted and holds 0…N-1 less the skipped rows, each once, on any number of processes.
    """

    index: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    skipped: int = 0


@dataclass(frozen=True)
class AnswerSet:
    """Answers int64 [N] as outputs of the model, and their probabilities float [N]; otherwise as PredictionSet."""

    index: np.ndarray
    labels: np.ndarray
    answers: np.ndarray
    confidence: np.ndarray
    skipped: int = 0


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval and the number of images behind it; rates are fractions in [0, 1]."""

    value: float
    low: float
    high: float
    n: int
    unit: str = "fraction"


@dataclass(frozen=True)
class ResultRow:
    """One metric of one condition: the only output format, long, one row a number.

    Args:
        run: name of the evaluation run.
        model, weights_digest, method, epoch: the model (epoch None where unknown).
        suite: e.g. "robustness".
        dataset, dataset_digest: the manifest's name and digest.
        subset: which rows of it, e.g. "all" or "first-1000".
        condition: e.g. "clean", "gaussian_noise/3", "cue-conflict", "summary".
        protocol: "key=value;key=value", sorted by key: pooling, head, label space, source=files|generated, transform …
        metric: e.g. "top1", "top1_full1000", "mean_error_15".
        value, low, high, n, unit: as Estimate.
        skipped: images left out by --on-bad-image skip.
        seed: of the run.
        versions: "package=version;…".
        time: UTC, ISO 8601, seconds.
        command: the shell command that made it, as typed; "" where unknown.
        pretraining: "key=value;key=value", sorted by key: what the model's checkpoint tells of its crop, data_side,
            image_size, radius, seed, target and others; "" where it tells nothing (see describe_pretraining).
        backbone: of the model, as in Model; "" where unknown.
    """

    run: str
    model: str
    weights_digest: str
    method: str
    epoch: int | None
    suite: str
    dataset: str
    dataset_digest: str
    subset: str
    condition: str
    protocol: str
    metric: str
    value: float
    low: float
    high: float
    n: int
    unit: str
    skipped: int
    seed: int
    versions: str
    time: str
    command: str
    pretraining: str
    backbone: str


@dataclass(frozen=True)
class SuiteConfig:
    """What the command line gives to a suite.

    Args:
        data: role ("train", "val", "sketch", …) -> manifest.
        device: "cpu" or "cuda".
        limit: at most this many images of each manifest (evenly spaced rows), None for all.
        seed: of everything random.
        batch_size, workers: of extraction; no result depends on them.
        on_bad_image: "stop" or "skip".
        run: name on the rows.
        corruptions: which ones a suite on corrupted images runs, at all five severities; () for the published fifteen.
        jpeg_step: generated corruptions end as the published files do, stored as JPEG of quality 85.
        files: role ("boxes", "trials") -> what a suite reads besides images.
        options: the suite's own (see suites.EvaluationSuite.options).
        out: the run's folder, where a suite that trains keeps its state.
        command: what was typed, for the rows.
    """

    data: dict[str, Manifest]
    device: str = "cpu"
    limit: int | None = None
    seed: int = 0
    batch_size: int = 128
    workers: int = 2
    on_bad_image: str = "stop"
    run: str = ""
    corruptions: tuple[str, ...] = ()
    jpeg_step: bool = True
    files: dict[str, FileSet] = field(default_factory=dict)
    options: Any = None
    out: Path = Path("runs/evaluation")
    command: str = ""


@dataclass(frozen=True)
class Outcome:
    """What a condition gives: its rows, and how each image fared.

    Args:
        rows: one a metric.
        hits: metric -> int8 [N], for every image that the condition was to score, in order: 1 right, 0 wrong, -1 left
            out. Only for accuracies; paired comparisons of models need them.
    """

    rows: list[ResultRow]
    hits: dict[str, np.ndarray]
