"""What the images of model-vs-human's experiments show, told by their names: category, texture, level of distortion."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from pixmim_eval.data.categories import find_categories, list_some
from pixmim_eval.data.shapes16 import Shapes16Source, textures
from pixmim_eval.data.sources import open_manifest
from pixmim_eval.errors import InputError
from pixmim_eval.results import hash_parts
from pixmim_eval.types import Manifest

CUE_CONFLICT = "cue-conflict"
# The parametric experiments, and the levels that the benchmark leaves out: those without distortion, and those at which
# people are right less than once in five times.
# Source: bethgelab/model-vs-human, plotting/plot.py, EXCLUDE_CONDITIONS.
LEFT_OUT = {
    "colour": ("cr",),
    "contrast": ("c100", "c03", "c01"),
    "high-pass": ("inf", "0.55", "0.45", "0.4"),
    "low-pass": ("0", "15", "40"),
    "phase-scrambling": ("0", "150", "180"),
    "power-equalisation": ("0",),
    "false-colour": ("true",),
    "rotation": ("0",),
    "eidolonI": ("1-10-10", "64-10-10", "128-10-10"),
    "eidolonII": ("1-3-10", "32-3-10", "64-3-10", "128-3-10"),
    "eidolonIII": ("1-0-10", "16-0-10", "32-0-10", "64-0-10", "128-0-10"),
    "uniform-noise": ("0", "0.6", "0.9"),
}
EXPERIMENTS = ("edge", "silhouette", CUE_CONFLICT, *LEFT_OUT, "sketch", "stylized")
"""Those of the benchmark."""

_CUES = re.compile(r"(?P<shape>.+?)\d+-(?P<texture>.+?)\d+")
_SHOWN = re.compile(r"\d+(?:_[^_]+){4}_\d+_(?P<image>.+)")  # trial, experiment, observer, condition, category, number


@dataclass(frozen=True)
class Stimuli:
    """The images of an experiment.

    Args:
        manifest: where they are.
        experiment: e.g. "cue-conflict".
        categories: names of C categories.
        images: [N] names of their files; shorten_name is what observers have in common.
        shapes: int64 [N], the category that is the right answer.
        textures: int64 [N], the category of the texture; -1 throughout where the experiment has no such cue.
        conditions: [N] text, as a file of trials has it.
        levels: [N] of distortion (see name_level), "" where the experiment has none.
    """

    manifest: Manifest
    experiment: str
    categories: tuple[str, ...]
    images: np.ndarray
    shapes: np.ndarray
    textures: np.ndarray
    conditions: np.ndarray
    levels: np.ndarray


@dataclass(frozen=True)
class StimulusSets:
    """The images of several experiments, by name; see types.FileSet."""

    name: str
    digest: str
    sets: dict[str, Stimuli]

    def __len__(self) -> int:
        return sum(len(found.images) for found in self.sets.values())


def open_stimuli(path: str) -> StimulusSets:
    """The images of one or more experiments.

    Args:
        path: a folder called like an experiment, or one that holds such folders (model-vs-human's "datasets"). Inside
            are category folders, or "session-1" (also "dnn/session-1") with files that are named
            "…_…_…_CONDITION_CATEGORY_….png".

    Raises:
        InputError: no such folder, or whatever opening and naming finds.
    """
    root = Path(path)
    folders = [root] if root.name in EXPERIMENTS else [root / name for name in EXPERIMENTS if (root / name).is_dir()]
    if not root.is_dir() or not folders:
        raise InputError(
            "images of model-vs-human",
            expected=f"a folder that is called like an experiment, or holds such: {', '.join(EXPERIMENTS)}",
            found="none of them",
            where=path,
            fix="Point at model-vs-human's folder of data sets: stimuli=…/datasets.",
        )
    sets = {folder.name: read_stimuli(open_manifest(folder), folder.name) for folder in folders}
    digest = hash_parts(tuple((name, found.manifest.digest) for name, found in sets.items()))
    return StimulusSets(root.resolve().name, digest, sets)


def read_stimuli(manifest: Manifest, experiment: str) -> Stimuli:
    """What the images of a data set show.

    Args:
        manifest: in one of the layouts of open_stimuli, or shapes16.
        experiment: its name; "cue-conflict" takes shape and texture from names such as "cat4-truck2.png".

    Raises:
        InputError: a name that says too little, a category that there is not, or a file in another shape's folder.
    """
    labels = [manifest.label_space.classes[label] for label in manifest.labels.tolist()]
    conditions = ["NaN"] * len(labels)  # as model-vs-human writes where there are none
    if isinstance(manifest.source, Shapes16Source):
        return _read_shapes16(manifest, manifest.source, experiment)
    names = [PurePosixPath(key).name for key in manifest.keys.tolist()]
    if any(part.startswith("session-") for part in PurePosixPath(str(manifest.keys[0])).parts):
        conditions, labels = _split_session_names(names, manifest.name)
    categories = find_categories(labels, f"data set {manifest.name}")
    images = np.array(names)
    shapes = np.array([categories.index(label) for label in labels], dtype=np.int64)
    cues = read_textures(images, shapes, categories, manifest.name) if experiment == CUE_CONFLICT else None
    return Stimuli(
        manifest=manifest,
        experiment=experiment,
        categories=categories,
        images=images,
        shapes=shapes,
        textures=np.full(len(labels), -1, dtype=np.int64) if cues is None else cues,
        conditions=np.array(conditions),
        levels=name_levels(conditions, experiment),
    )


def _read_shapes16(manifest: Manifest, source: Shapes16Source, experiment: str) -> Stimuli:
    rows, categories = np.arange(len(manifest)), manifest.label_space.classes
    found = textures(rows, source.variant, source.seed)
    names = []
    for row, shape, texture in zip(rows.tolist(), manifest.labels.tolist(), found.tolist(), strict=True):
        cue = f"-{categories[texture]}{row}" if texture >= 0 else ""  # some variants have images without a texture
        names.append(f"{categories[shape]}{row}{cue}.png")
    return Stimuli(
        manifest=manifest,
        experiment=experiment,
        categories=categories,
        images=np.array(names),
        shapes=manifest.labels,
        textures=found,
        conditions=np.full(len(rows), "NaN"),
        levels=np.full(len(rows), ""),
    )


def _split_session_names(names: Sequence[str], where: str) -> tuple[list[str], list[str]]:
    parts = [name.split("_") for name in names]
    if short := [name for name, part in zip(names, parts, strict=True) if len(part) < 6]:
        raise InputError(
            "file names in a folder of sessions",
            expected="number, experiment, observer, condition, category and image, with _ between them",
            found=list_some(short),
            where=f"data set {where}",
            fix="Take the files as they were published, or sort the images into category folders.",
        )
    return [part[3] for part in parts], [part[4] for part in parts]


def shorten_name(name: str) -> str:
    """The image's own part of a file name, without what model-vs-human writes before it: trial, observer, condition …

    "0012_cop_s01_c30_boat_10_n02951358_5952.JPEG" is n02951358_5952.JPEG, "0001_s5n_s01_0_bird_00_bird3-cat2.png" is
    bird3-cat2.png.
    """
    shown = _SHOWN.fullmatch(name)
    return shown["image"] if shown else name


def name_levels(conditions: Iterable[str], experiment: str) -> np.ndarray:
    """Levels of distortion as text, equal where conditions mean the same: "3.0" and "3", "0.00" and "0", "True" and
    "true". Where the experiment has no levels, "" throughout: there files disagree on what to call that."""
    found = [_name_level(text) if experiment in LEFT_OUT else "" for text in conditions]
    return np.array(found, dtype=str)


def _name_level(text: str) -> str:
    try:
        return f"{float(text):g}"
    except ValueError:
        return text if text.lower() not in ("true", "false") else text.lower()


def read_textures(images: np.ndarray, shapes: np.ndarray, categories: Sequence[str], where: str) -> np.ndarray:
    """The categories of the textures of cue-conflict images.

    Args:
        images: [N] names such as "cat4-truck2.png": shape, number, texture, number; other parts may stand before them.
        shapes: int64 [N], the categories of the shapes that folders or files tell.
        categories: names of all categories.
        where: the data set, for messages.

    Returns:
        int64 [N].

    Raises:
        InputError: names of another form, unknown categories, or another shape than that of the folder or file.
    """
    places = {name: place for place, name in enumerate(categories)}
    cues = [_CUES.fullmatch(PurePosixPath(shorten_name(name)).stem) for name in images.tolist()]
    pairs = [(places.get(cue["shape"]), places.get(cue["texture"])) if cue else (None, None) for cue in cues]
    rows = zip(images.tolist(), pairs, shapes.tolist(), strict=True)
    wrong = [name for name, (shape, texture), told in rows if texture is None or shape != told]
    if wrong:
        raise InputError(
            "file names of cue-conflict images",
            expected=f"SHAPE1-TEXTURE2.png, with the shape of the folder and a texture of {', '.join(categories)}",
            found=list_some(wrong),
            where=where,
            fix="Correct the names, or take the images out.",
        )
    return np.array([texture for _, texture in pairs], dtype=np.int64)
