"""Whether a number of ours was made as a published one was, and if not, what differs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from analysis.groups import parse_protocol
from analysis.published import PublishedNumber, read_recipes
from analysis.published.identity import Identity

SETTINGS_NAMED = 4  # of a recipe that differ


@dataclass(frozen=True)
class Data:
    """What a published number was measured on.

    Args:
        name: for readers.
        counts: images that it may be, () for any.
        label_space: as on our rows; "" for any.
        names: pattern of our data set's name.
        size: pixels of the input; 0 where the recipe says it.
    """

    name: str
    counts: tuple[int, ...] = ()
    label_space: str = ""
    names: str = ".*"
    size: int = 0


@dataclass(frozen=True)
class Target:
    """Where a published number stands among our rows, and what must hold of them for it to apply.

    Args:
        published: its table, data set and metric there.
        rows: suite, condition and metric of ours; the last two are patterns.
        data: what it was measured on.
        own_head: of classifiers as their file has them.
        methods: pattern of our row's method.
    """

    published: tuple[str, str, str]
    rows: tuple[str, str, str]
    data: Data
    own_head: bool = False
    methods: str = ".*"


_IMAGENET = Data("ImageNet-1k validation", (50_000,), "imagenet-1k", size=224)
_IMAGENET_C = Data("ImageNet-C", (50_000,), "imagenet-1k", size=224)
_IMAGENET_A = Data("ImageNet-A", (7500,), "wordnet-200-of-imagenet-1k", size=224)
_IMAGENET_R = Data("ImageNet-R", (30_000,), "wordnet-200-of-imagenet-1k", size=224)
# 50,000 by its paper; the released archive holds 50,889
_SKETCH = Data("ImageNet-Sketch", (50_000, 50_889), "imagenet-1k", size=224)
_COCO = Data("COCO val2017", (5000,), "objects-80")
_ADE20K = Data("ADE20K validation", (2000,), "pixels-150")
_CONFLICTS = Data("the cue-conflict images", (1200,))
_BOXES = Data("boxes of ILSVRC2012 validation", (50_000,), names="(?i).*(imagenet|ilsvrc).*")
_UNKNOWN = Data("")  # neither boxes nor definition are known
_TOP1, _TUNED, _LINEAR = r"top1(_full\d+)?", ".*-finetuned|deit3|timm", ".*-linear"
_MAIN, _LIN, _FT = (
    "main_results",
    ("main_results", "imagenet-1k", "lin_top1"),
    ("main_results", "imagenet-1k", "ft_top1"),
)
TARGETS = (
    Target(_FT, ("finetune", "clean", _TOP1), _IMAGENET),
    Target(_FT, ("robustness", "clean", "top1"), _IMAGENET, own_head=True, methods=_TUNED),
    Target(_LIN, ("linear_probe", "clean", _TOP1), _IMAGENET),
    Target(_LIN, ("robustness", "clean", "top1"), _IMAGENET, own_head=True, methods=_LINEAR),
    Target((_MAIN, "coco", "coco_box_ap"), ("detection", ".*", "box_ap"), _COCO),
    Target((_MAIN, "coco", "coco_mask_ap"), ("detection", ".*", "mask_ap"), _COCO),
    Target((_MAIN, "ade20k", "ade20k_miou"), ("segmentation", ".*", "miou"), _ADE20K),
    *(
        Target(("robustness", name, metric), ("robustness", condition, ours), data, own_head=True)
        for name, metric, condition, ours, data in (
            ("imagenet-c", "mce_15", "summary", "mce_15", _IMAGENET_C),
            ("imagenet-c", "mean_error_15", "summary", "mean_error_15", _IMAGENET_C),
            ("imagenet-a", "top1", "imagenet-a", "top1_masked200", _IMAGENET_A),
            ("imagenet-r", "top1", "imagenet-r", "top1_masked200", _IMAGENET_R),
            ("imagenet-sketch", "top1", "imagenet-sketch", "top1", _SKETCH),
        )
    ),
    *(
        Target(("shape_bias", "cue-conflict", "shape_bias"), (suite, "cue-conflict", "shape_bias"), _CONFLICTS)
        for suite in ("shape_bias", "observers")
    ),
    *(
        Target(("foreground_overlap", dataset, metric + masked), ("foreground", ".*", ours + masked), data)
        for masked in ("", "_masked75")
        for dataset, metric, ours, data in (
            ("not known", "overlap", "overlap_union", _UNKNOWN),
            ("ILSVRC2012 val boxes", "overlap_mean_box", "overlap_mean_box", _BOXES),
            ("ILSVRC2012 val boxes", "overlap_union", "overlap_union", _BOXES),
        )
    ),
)


def list_deviations(row: Any, identity: Identity, target: Target, published: PublishedNumber) -> tuple[str, ...]:
    """What keeps a published number from applying to a row: nothing where both were made alike.

    Args:
        row: of result rows.
        identity: whose it is.
        target: what the published number wants of rows.
        published: the number.
    """
    found = [*_compare_data(row, target.data, published.backbone), *_compare_model(identity, published)]
    if target.data is _CONFLICTS:
        found += _compare_decisions(row, published)
    elif target.own_head:
        found += _compare_head(row, identity)
    elif published.table == _MAIN:
        found += _compare_recipe(row.protocol, row.condition, published.recipe)
    return tuple(found)


def _compare_data(row: Any, data: Data, backbone: str) -> list[str]:
    """Data set, number of images, their size (a backbone may be "ViT-H/14 @448"), and where they come from."""
    if data is _UNKNOWN:
        return ["boxes and definition of the published number are not known"]
    protocol = parse_protocol(row.protocol)
    found = []
    other_space = data.label_space and protocol.get("label_space") != data.label_space
    if other_space or not re.fullmatch(data.names, row.dataset):
        found.append(f"data {row.dataset}, not {data.name}")
    if row.subset != "all":
        found.append(f"{row.n:,} images ({row.subset}), not all of {data.name}")
    elif data.counts and row.n not in data.counts and not found:
        found.append(f"{row.n:,} images, not {data.counts[0]:,}")
    if data.size:
        found += _compare_size(protocol.get("transform", ""), int(backbone.partition("@")[2] or data.size))
    if protocol.get("source") == "generated":
        found.append("generated corruptions, not the published files")
    return found


def _compare_size(transform: str, size: int) -> list[str]:
    sides = [int(side) for side in re.findall(r"\d+", transform)]
    if not sides or sides[-1] != size:
        return [f"{sides[-1]} px, not {size}" if sides else f"image size not stated, published {size} px"]
    return [f"images of {sides[0]} px enlarged to {size}"] if "-to-" in transform and sides[0] < size else []


def _compare_model(identity: Identity, published: PublishedNumber) -> list[str]:
    found = []
    backbone = published.backbone.partition(" @")[0]
    if backbone and identity.backbone != backbone:
        found.append(
            f"{identity.backbone}, not {backbone}"
            if identity.backbone
            else f"backbone not stated, published {backbone}"
        )
    epochs = published.epochs
    if epochs is not None and identity.epochs != epochs:
        known = identity.epochs
        found.append(
            f"{known:,} epochs, not {epochs:,}" if known is not None else f"epochs not stated, published {epochs:,}"
        )
    return found


def _compare_head(row: Any, identity: Identity) -> list[str]:
    """Of fine-tuned classifiers as others have published them."""
    head = parse_protocol(row.protocol).get("head", "")
    if head != "own":
        return [f"head {head.partition('(')[0] or 'not stated'} on frozen features, not fine-tuned"]
    if row.method.endswith("-linear") and row.condition != "clean":
        return ["a linear head on frozen features, not fine-tuned"]
    return [] if identity.released else ["recipe of its training not stated"]


def _compare_decisions(row: Any, published: PublishedNumber) -> list[str]:
    """Of shape bias: whose decisions, and how outputs became categories."""
    protocol = parse_protocol(row.protocol)
    found = []
    if published.recipe == "older":
        found.append("class probabilities are pooled as in an older analysis there")
    for key, value in {"mean": {"average": "mean", "geometry": "native224"}}.get(published.recipe, {}).items():
        if protocol.get(key) != value:
            found.append(f"{key} {protocol.get(key, 'not stated')}, not {value}")
    if published.method == "people, trials pooled" and protocol.get("observers") != "10":
        found.append(f"{protocol.get('observers', 'not stated')} people, not 10")
    return found


@cache
def _compare_recipe(protocol: str, condition: str, recipe: str) -> tuple[str, ...]:
    """Settings of a training that differ from the published recipe."""
    if recipe == "own":
        return ("the published number is of the classifier as released, not trained further",)
    if not recipe:
        return ("the published recipe is not known",)
    stated = parse_protocol(protocol)
    settings = dict(read_recipes()[recipe])
    wanted = settings.pop("probe", "") or {"segmentation": "upernet"}.get(recipe.partition("-")[0], condition)
    used = stated.get("probe", condition)
    if used != wanted:
        return (f"recipe: {used}, not {wanted}",)
    stated |= dict(re.findall(r"(\w+)=([^,()]*)", stated.get("head", "")))
    wrong = [
        f"{name} {stated.get(name, 'not stated')} instead of {value.partition('|')[0]}"
        for name, value in settings.items()
        if not any(_is_same(stated.get(name, ""), one) for one in value.split("|"))
    ]
    more = [f"{len(wrong) - SETTINGS_NAMED} more settings"] if len(wrong) > SETTINGS_NAMED + 1 else []
    return (f"recipe: {', '.join([*wrong[: SETTINGS_NAMED + (not more)], *more])}",) if wrong else ()


def _is_same(one: str, other: str) -> bool:
    try:
        return float(one) == float(other)
    except ValueError:
        return one == other
