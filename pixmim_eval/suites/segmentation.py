"""Semantic segmentation: UperNet trained on the encoder, and two cheap heads on its frozen patch tokens."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, make_dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch

from pixmim_eval.data.problems import summarise_problems
from pixmim_eval.data.segmentation import SegmentationSet, open_segmentation
from pixmim_eval.devices import resolve_precision
from pixmim_eval.errors import InputError
from pixmim_eval.extract import process_rank, select_rows
from pixmim_eval.extract.store import load_entry
from pixmim_eval.metrics.segmentation import score_segmentation
from pixmim_eval.models.convvit import ConvVisionTransformer
from pixmim_eval.results import RunFolder, format_protocol, hash_parts, make_rows
from pixmim_eval.suites import EvaluationSuite, compute_key
from pixmim_eval.suites.class_table import write_class_table
from pixmim_eval.suites.roles import DEFAULT_DATA
from pixmim_eval.transfer.segmentation.examples import TallyPass, read_examples, segment
from pixmim_eval.transfer.segmentation.overlays import Overlay, draw_overlays
from pixmim_eval.transfer.segmentation.recipes import RECIPES, UperNetRecipe, resolve_sizes
from pixmim_eval.transfer.segmentation.token_heads import LinearTokens, NearestTokens, load_linear_head
from pixmim_eval.transfer.segmentation.tokens import gather_tokens
from pixmim_eval.transfer.segmentation.upernet import UperNet, describe_recipe, load_upernet, train_upernet
from pixmim_eval.transfer.segmentation.windows import Geometry, Scorer
from pixmim_eval.transfer.settings import fill_recipe, list_options, say
from pixmim_eval.types import FileSet, Model, Outcome, SuiteConfig

logger = logging.getLogger("pixmim_eval")

PICTURED = 4  # images of the overlays
TABLE = "segmentation-classes.md"
DROPPED = ("no mask", "broken", "mask size", "no label")  # kinds of problems that take an image out of the set

Protocol = Literal["knn", "linear", "upernet"]


# The command line's: protocols with their settings, and every field of UperNet's recipe, which is the recipe's own
# unless it is given.
SegmentationOptions: type[Any] = make_dataclass(
    "SegmentationOptions",
    [
        ("protocol", tuple[Protocol, ...], say(("knn", "linear"), "what is put on the encoder (default knn linear)")),
        ("bank", int, say(20_000, "knn, linear: training tokens, as many of each image (default 20000)")),
        ("k", int, say(30, "knn: nearest tokens (default 30)")),
        ("temperature", float, say(0.02, "knn: weights are softmax(cosine / temperature) (default 0.02)")),
        (
            "recipe",
            Literal["published", "short"],
            say("short", "upernet: settings to start from; published is ADE20K's of 160,000 iterations"),
        ),
        *list_options(UperNetRecipe, before="upernet: "),
    ],
    frozen=True,
)


@dataclass(frozen=True)
class Prepared:
    """A model that is ready to segment.

    Args:
        score: see windows.Scorer.
        geometry: how images go in.
        key: 16 hex digits of what its answers depend on.
        head: what the protocol says of it.
    """

    score: Scorer
    geometry: Geometry
    key: str
    head: str


def open_train(path: str) -> SegmentationSet:
    """What --data names for train, where the built-in data set without a variant is its train part."""
    built_in = re.fullmatch(rf"{DEFAULT_DATA}(@\d+)?", path)
    return open_segmentation(f"{DEFAULT_DATA}:train{built_in[1] or ''}" if built_in else path)


class Segmentation(EvaluationSuite):
    """The suite `segmentation`: images with a class for every pixel.

    Conditions are the protocols asked for:

    - "knn": the labels of the nearest patch tokens of train;
    - "linear": one linear layer on the patch tokens, logistic regression to its optimum;
    - "upernet": UperNet on the encoder, all of it trained, by the published recipe or a short one. The state lies in
      the run's folder, so that a killed run goes on.

    The first two leave the encoder frozen and take minutes: they rank checkpoints. Images are resized to a short side
    of one window (the model's own input size; UperNet: its crop), scores are averaged over windows, brought to the size
    of the mask, and counted pixel by pixel.

    Metrics: "miou", "macc" and "aacc" (see metrics.segmentation), and "iou/CLASS" and "accuracy/CLASS" of every class
    that occurs, all with intervals over images. `skipped` counts images that have no usable mask as well.
    """

    name = "segmentation"
    version = 1
    needs = ("val", "train")
    openers: ClassVar[Mapping[str, Callable[[str], FileSet]]] = {"val": open_segmentation, "train": open_train}
    options = SegmentationOptions

    def conditions(self, config: SuiteConfig) -> list[str]:
        """The protocols. Raises InputError where train is val, or has other classes."""
        check_sets(config)
        return list(dict.fromkeys(config.options.protocol))

    def roles(self, model: Model, condition: str, config: SuiteConfig) -> tuple[str, ...]:
        """Scored and training images."""
        return self.needs

    def settings(self, model: Model, condition: str, config: SuiteConfig) -> tuple[object, ...]:
        """The settings of this protocol alone."""
        options = config.options
        if condition == "upernet":
            return tuple(sorted(vars(resolve_recipe(model, config)).items()))
        return (options.bank, *((options.k, options.temperature) if condition == "knn" else ()))

    def count_images(self, model: Model, condition: str, config: SuiteConfig) -> dict[str, int]:
        """Forward passes; see EvaluationSuite."""
        val, train = (len(select_rows(get_set(config, role).manifest, config.limit)) for role in self.needs)
        if condition == "upernet":
            recipe = resolve_recipe(model, config)
            return {"val-upernet": val, "train-upernet": recipe.iterations * recipe.train_batch_size}
        return {f"val-{condition}": val, "train-tokens": min(train, config.options.bank)}

    def run(self, model: Model, condition: str, config: SuiteConfig) -> Outcome:
        """The rows of one protocol.

        Raises:
            InputError: an image that cannot be read, an encoder that UperNet does not take, a batch that cannot be
                dealt out, no image left.
            FloatingPointError: tokens, scores or the loss are not finite.
        """
        val, train = get_set(config, "val"), get_set(config, "train")
        prepared = prepare(model, condition, config)
        rows = select_rows(val.manifest, config.limit)
        key = hash_parts("segmentation", self.version, prepared.key, val.digest, rows.tolist(), prepared.geometry.name)
        work = TallyPass(
            val,
            rows,
            prepared.score,
            prepared.geometry,
            model.preprocessing,
            config,
            key,
            f"{model.name}: {condition} on {val.name}",
        )
        entry = load_entry(work)
        present = entry.table["present"]
        scores = score_segmentation(entry.arrays["tally"][present])
        estimates = {"miou": scores.miou, "macc": scores.macc, "aacc": scores.aacc}
        estimates |= {f"iou/{val.classes[label]}": estimate for label, estimate in scores.iou.items()}
        estimates |= {f"accuracy/{val.classes[label]}": estimate for label, estimate in scores.accuracy.items()}
        protocol = format_protocol(
            head=prepared.head,
            head_data=f"{train.name}@{train.digest}",
            label_space=f"pixels-{len(val.classes)}",
            precision="bfloat16" if torch.device(config.device).type == "cuda" else "float32",
            transform=prepared.geometry.name,
        )
        dropped = len({problem.key for problem in val.problems if problem.kind in DROPPED})
        stored = make_rows(
            model,
            val,
            estimates,
            suite=self.name,
            condition=condition,
            protocol=protocol,
            config=config,
            skipped=int((~present).sum()) + dropped,
        )
        return Outcome(stored, {})

    def draw(self, models: Sequence[Model], config: SuiteConfig, folder: Path) -> list[Path]:
        """A few images, their masks and what each model answers, as coloured overlays: segmentation.png and .pdf, in
        parts where there are many models. A UperNet whose training is not finished is left out. Beside the figures,
        tables/segmentation-classes.md has the numbers of every class."""
        val, conditions = get_set(config, "val"), list(dict.fromkeys(config.options.protocol))
        rows = select_rows(val.manifest, min(config.limit or PICTURED, PICTURED))
        answers: dict[int, dict[str, np.ndarray]] = {}
        shown: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for model in models:
            model.encoder.to(config.device)
            for condition in conditions:
                prepared = prepare_again(model, condition, config)
                if prepared is None:
                    continue
                for example in read_examples(val, rows, prepared.geometry, config):
                    found = segment(example, prepared.score, prepared.geometry, model.preprocessing, config.device)
                    answers.setdefault(example.row, {})[f"{model.name}, {condition}"] = found
                    shown[example.row] = (val.manifest.source.read([example.row])[0], example.labels)
        overlays = [Overlay(*shown[row], answers[row]) for row in sorted(shown)]
        caption = f"Data: {val.name}, {len(val.classes)} classes."
        written = draw_overlays(overlays, val.classes, folder / self.name, caption) if overlays else []
        keys = [compute_key(self, model, condition, config) for condition in conditions for model in models]
        stored = RunFolder(config.out).read(keys)
        return written + ([write_class_table(stored, folder.parent / "tables" / TABLE)] if stored else [])


def get_set(config: SuiteConfig, role: str) -> SegmentationSet:
    """The images and masks of a role."""
    return cast(SegmentationSet, config.files[role])


def check_sets(config: SuiteConfig) -> None:
    """Say what is wrong with the masks, on stderr, and raise InputError where train is val or has other classes."""
    val, train = get_set(config, "val"), get_set(config, "train")
    found, expected = "", "other images in train than in val, of the same classes"
    if val.digest == train.digest:
        found = f"the same data set {val.name} for both"
    elif val.classes != train.classes:
        strange = sorted({*val.classes} ^ {*train.classes})
        found = (
            f"{len(val.classes)} classes in val, {len(train.classes)} in train, e.g. {', '.join(strange[:3])} in one"
        )
    if found:
        raise InputError(
            "data for segmentation",
            expected=expected,
            found=found,
            where="--data val= and train=",
            fix="Name two parts of one data set, and let a class file beside images/ name the classes of both.",
        )
    if process_rank()[0] == 0:
        for data in (val, train):
            if data.problems:
                logger.warning("%s: %s", data.name, summarise_problems(data.problems))


def resolve_recipe(model: Model, config: SuiteConfig) -> UperNetRecipe:
    """The recipe that SegmentationOptions name, with the fields that they give, for a model on a device. Raises
    InputError where they do not fit."""
    options = config.options
    convolutional = any(isinstance(module, ConvVisionTransformer) for module in model.encoder.modules())
    name = "published-convmae" if options.recipe == "published" and convolutional else options.recipe
    recipe = fill_recipe(RECIPES[name], options)
    recipe = replace(recipe, precision=resolve_precision(config.device, recipe.precision))
    return resolve_sizes(recipe, model.preprocessing.size, model.encoder.patch)


def prepare(model: Model, condition: str, config: SuiteConfig) -> Prepared:
    """A model with the head of a protocol, which is fitted or trained where it is not there."""
    if condition != "upernet":
        return _prepare_tokens(model, condition, config)
    recipe, train = resolve_recipe(model, config), get_set(config, "train")
    rows = select_rows(train.manifest, config.limit)
    return _wrap(*train_upernet(model, train, rows, config, recipe), recipe, model, len(rows))


def prepare_again(model: Model, condition: str, config: SuiteConfig) -> Prepared | None:
    """As `prepare`, but None where a UperNet is not trained to its end: nothing is trained."""
    if condition != "upernet":
        return _prepare_tokens(model, condition, config)
    recipe, train = resolve_recipe(model, config), get_set(config, "train")
    rows = select_rows(train.manifest, config.limit)
    found = load_upernet(model, train, rows, config, recipe)
    return None if found is None else _wrap(*found, recipe, model, len(rows))


def _wrap(network: UperNet, key: str, recipe: UperNetRecipe, model: Model, images: int) -> Prepared:
    crop = recipe.crop if recipe.inference == "slide" else None
    geometry = Geometry(recipe.crop, crop, recipe.stride, "bilinear", model.encoder.patch)
    settings = ",".join(f"{name}={value}" for name, value in {**describe_recipe(recipe), "train": images}.items())
    return Prepared(network.score, geometry, key, f"upernet({settings})")


def _prepare_tokens(model: Model, condition: str, config: SuiteConfig) -> Prepared:
    options, size = config.options, model.preprocessing.size
    geometry = Geometry(size, size, max(1, size * 2 // 3), model.preprocessing.interpolation, model.encoder.patch)
    bank = gather_tokens(model, get_set(config, "train"), geometry, config, count=options.bank)
    if condition == "linear":
        head = load_linear_head(bank, config)
        name = f"logistic-lbfgs-patches(l2={head.l2:g},tokens={len(bank.tokens)},train={head.images})"
        return Prepared(LinearTokens(model.encoder, head), geometry, hash_parts("linear", head.digest, bank.key), name)
    score = NearestTokens(model.encoder, bank, options.k, options.temperature, config.device)
    settings = (options.k, options.temperature)
    name = f"knn-patches(k={options.k},temperature={options.temperature:g},tokens={len(bank.tokens)})"
    return Prepared(score, geometry, hash_parts("knn", bank.key, *settings), name)
