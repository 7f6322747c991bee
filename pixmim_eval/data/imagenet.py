"""ImageNet-1k's label space, and moving labels from one space to another."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources

import numpy as np

from pixmim_eval.errors import InputError
from pixmim_eval.types import LabelSpace


@cache
def imagenet_space() -> LabelSpace:
    """The 1000 classes of ImageNet-1k as WordNet ids, in the order of every public classifier's outputs (sorted)."""
    from timm.data import ImageNetInfo  # seconds to import, and most uses of this package never need it

    return LabelSpace("imagenet-1k", tuple(ImageNetInfo("imagenet-1k").label_names()))


@cache
def subset_classes(name: str) -> tuple[str, ...]:
    """The 200 classes of "imagenet-a" or "imagenet-r" as WordNet ids, sorted.

    Source: timm/data/_info/imagenet_a_synsets.txt and imagenet_r_synsets.txt.
    """
    file = resources.files("timm.data").joinpath("_info", f"{name.replace('-', '_')}_synsets.txt")
    return tuple(sorted(file.read_text("utf-8").split()))


def resolve_names(names: Sequence[str]) -> tuple[str, ...]:
    """WordNet ids for class names that are the 1000 descriptions of ImageNet-1k in order, else the names unchanged.

    Hugging Face's ImageNet-1k declares "tench, Tinca tinca" and so on. Public lists of these differ in a few entries
    (two cranes, two maillots), so 99 % must agree, at their own place, in the part before the first comma.
    """
    if len(names) != 1000:
        return tuple(names)
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    heads = [info.index_to_description(index).split(",")[0] for index in range(1000)]
    agree = sum(name.split(",")[0] == head for name, head in zip(names, heads, strict=True))
    return imagenet_space().classes if agree >= 990 else tuple(names)


def map_labels(manifest_space: LabelSpace, model_space: LabelSpace) -> np.ndarray:
    """Where each class of a data set stands in a model's label space.

    Args:
        manifest_space: K classes.
        model_space: the model's classes, at least these K.

    Returns:
        int64 [K]: class k of the data set is output result[k] of the model.

    Raises:
        InputError: the model lacks a class of the data set.
    """
    places = {name: index for index, name in enumerate(model_space.classes)}
    missing = [name for name in manifest_space.classes if name not in places]
    if missing:
        raise InputError(
            "classes of the data set",
            expected=f"classes that the model knows ({model_space.name}, {len(places)} classes)",
            found=f"{len(missing)} it does not know, e.g. {', '.join(missing[:3])}",
            where=f"label space {manifest_space.name}",
            fix="Use a data set with the model's classes, or train a head (probe) on this one.",
        )
    return np.array([places[name] for name in manifest_space.classes], dtype=np.int64)
