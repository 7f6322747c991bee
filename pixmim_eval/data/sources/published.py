"""Published test sets: opened only as what was published, or as a named part of it."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from pixmim_eval.data.imagenet import imagenet_space, subset_classes
from pixmim_eval.data.sources import open_manifest
from pixmim_eval.errors import InputError
from pixmim_eval.types import Manifest

logger = logging.getLogger("pixmim_eval")

_V2_VARIANTS = {
    r"matched[-_]?frequency": "matched-frequency",
    r"threshold[-_]?0\.7": "threshold-0.7",
    r"top[-_]?images": "top-images",
}


@dataclass(frozen=True)
class PublishedSet:
    """What was published under a name: its classes (WordNet ids), and how many images in all."""

    classes: Callable[[], tuple[str, ...]]
    images: int


# Sources: hendrycks/natural-adv-examples (A), hendrycks/imagenet-r (R), HaohanWang/ImageNet-Sketch, Recht et al., ICML
# 2019 (V2, each of its three variants).
PUBLISHED = {
    "imagenet-a": PublishedSet(lambda: subset_classes("imagenet-a"), 7_500),
    "imagenet-r": PublishedSet(lambda: subset_classes("imagenet-r"), 30_000),
    "imagenet-sketch": PublishedSet(lambda: imagenet_space().classes, 50_889),
    "imagenet-v2": PublishedSet(lambda: imagenet_space().classes, 10_000),
}


def open_published(path: str, role: str) -> Manifest:
    """A published set in any format that open_manifest reads.

    ImageNet-V2's class folders are called 0 to 999, which are places among the sorted WordNet ids of ImageNet-1k; no
    other set's numbers are accepted.

    Args:
        path: see open_manifest.
        role: one of PUBLISHED.

    Returns:
        The manifest, called by the role (ImageNet-V2 with its variant, where the path tells it), and by its share
        where images are missing: "imagenet-a-part-123-of-7500".

    Raises:
        InputError: classes or more images than were published, all images without all classes, or whatever opening
            finds.
    """
    numbered = imagenet_space().classes if role == "imagenet-v2" else None
    manifest = open_manifest(path, role=role, numbered=numbered)
    published, found = PUBLISHED[role], manifest.label_space.classes
    known = set(published.classes())
    strange = [name for name in found if name not in known]
    if strange or (len(manifest) == published.images and len(found) < len(known)):
        raise InputError(
            f"classes of {role}",
            expected=f"the {len(known)} published ones, as WordNet ids",
            found=f"{len(strange)} others, e.g. {', '.join(strange[:3])}" if strange else f"{len(found)} of them",
            where=path,
            fix=f"Check that the path holds {role}; the role of any other set is val.",
        )
    return replace(manifest, name=name_share(_name_set(role, path), len(manifest), published.images, path))


def name_share(name: str, images: int, published: int, where: str) -> str:
    """The name of a set with so many of the published images; fewer are named, and a line on stderr says so.

    Raises:
        InputError: more images than were published.
    """
    if images > published:
        raise InputError(
            f"number of images of {name}",
            expected=f"{published}, as published",
            found=str(images),
            where=where,
            fix="Remove what does not belong to it, such as copies or a second set in the same folder.",
        )
    if images == published:
        return name
    logger.warning("%s has %d of the %d published images of %s: rows say so", where, images, published, name)
    return f"{name}-part-{images}-of-{published}"


def _name_set(role: str, path: str) -> str:
    variants = _V2_VARIANTS.items() if role == "imagenet-v2" else ()
    variant = next((name for pattern, name in variants if re.search(pattern, path.lower())), "")
    return f"{role}-{variant}" if variant else role
