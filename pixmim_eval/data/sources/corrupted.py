"""ImageNet-C from files: a data set for each corruption and severity, all of the same images."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pixmim_eval.data.imagenet import imagenet_space
from pixmim_eval.data.sources import open_manifest
from pixmim_eval.data.sources.assemble import IMAGE_SUFFIXES
from pixmim_eval.data.sources.hub import list_splits
from pixmim_eval.data.sources.patterns import find_files
from pixmim_eval.data.sources.published import name_share
from pixmim_eval.errors import InputError
from pixmim_eval.progress import progress
from pixmim_eval.types import Manifest

Cell = tuple[str, int]

READY_SIZE = 224  # of the published files
_SEVERITIES = (1, 2, 3, 4, 5)
_GROUPS = ("noise", "blur", "weather", "digital", "extra")  # what the published archives unpack to
_IMAGES = 50_000  # of ImageNet-1k's classes, in each cell


def open_corrupted(path: str, corruptions: Sequence[str]) -> dict[Cell, Manifest]:
    """Every cell of an ImageNet-C, in any format that open_manifest reads.

    Args:
        path: a folder PATH/CORRUPTION/SEVERITY (PATH/GROUP/CORRUPTION/SEVERITY, as the archives unpack), or a path, a
            pattern or a hub id with {corruption} and {severity}. The images are ready at 224 pixels; PATH@64 declares
            another size, PATH@files that they are to be resized and cropped once more.
        corruptions: those to open, at least one, at severities 1 to 5.

    Returns:
        (corruption, severity) -> manifest: the same images in the same order in all of them, under one name.

    Raises:
        InputError: a cell is missing, holds other images than the others or the very same files, more images than
            were published, or whatever opening finds.
    """
    text, ready_size = _split_geometry(path)
    places = _fill_pattern(text, corruptions) if _is_pattern(text) else _find_folders(text, corruptions)
    name = _name_set(text)
    cells: dict[Cell, Manifest] = {}
    for cell, place in progress(places.items(), description=f"opening {name}", total=len(places), unit="cell"):
        manifest = open_manifest(place, role="imagenet-c")
        if cells:
            manifest = _share_arrays(manifest, next(iter(cells.values())))
        cells[cell] = manifest
    _check_same_images(cells, path)
    _check_different_files(cells, path)
    first = next(iter(cells.values()))
    if first.label_space == imagenet_space():
        name = name_share(name, len(first), _IMAGES, path)
    return {cell: replace(manifest, name=name, ready_size=ready_size) for cell, manifest in cells.items()}


def _split_geometry(path: str) -> tuple[str, int | None]:
    match = re.fullmatch(r"(.+)@(\d+|files)", path)
    if match is None or Path(path).exists():
        return path, READY_SIZE
    return match[1], None if match[2] == "files" else int(match[2])


def _is_pattern(text: str) -> bool:
    return text.startswith("hub:") or "{corruption}" in text or "{severity}" in text


def _name_set(text: str) -> str:
    """The last part of the path, or of what comes before the first placeholder."""
    if not _is_pattern(text):
        return Path(text).resolve().name
    return text.partition("{")[0].rstrip(":/-_.").rpartition("/")[2] or "imagenet-c"


def _fill_pattern(text: str, corruptions: Sequence[str]) -> dict[Cell, str]:
    """Where each cell is by a pattern. Raises InputError for half a pattern, and where cells are missing."""
    if "{corruption}" not in text or "{severity}" not in text:
        raise InputError(
            "path of ImageNet-C",
            expected="both {corruption} and {severity} in it",
            found=text,
            where="--data imagenet-c=",
            fix="For example 'hub:someone/imagenet-c:{corruption}_{severity}' or 'set/{corruption}-{severity}-*.tar'.",
        )
    places = {
        (name, severity): text.replace("{corruption}", name).replace("{severity}", str(severity))
        for name in corruptions
        for severity in _SEVERITIES
    }
    hub = text.removeprefix("hub:").partition(":")
    if not text.startswith("hub:"):
        missing = [cell for cell, place in places.items() if not _has_files(place)]
    elif hub[2] and not _is_pattern(hub[0]):
        splits = list_splits(hub[0])
        missing = [cell for cell, place in places.items() if place.rpartition(":")[2] not in splits]
    else:
        missing = []  # a data set for each cell: opening it tells
    _check_complete(corruptions, missing, {}, text)
    return places


def _has_files(place: str) -> bool:
    try:
        return bool(find_files(place))
    except InputError:
        return False


def _find_folders(text: str, corruptions: Sequence[str]) -> dict[Cell, str]:
    """The folder of each cell. Raises InputError where folders are missing, or there are two of a name."""
    root = find_files(text)[0]  # or an error that names what resembles it
    folders: dict[str, list[Path]] = {}
    for folder in (root, *(root / group for group in _GROUPS)):
        if folder.is_dir():
            for inner in sorted(entry for entry in folder.iterdir() if entry.is_dir()):
                folders.setdefault(inner.name, []).append(inner)
    for name in corruptions:
        if len(twice := folders.get(name, [])) > 1:
            raise InputError(
                "folders of ImageNet-C",
                expected="one for each corruption",
                found=f"{twice[0]} and {twice[1]}",
                where=text,
                fix="Remove or rename one of them.",
            )
    places = {
        (name, severity): folders[name][0] / str(severity)
        for name in corruptions
        if name in folders
        for severity in _SEVERITIES
    }
    wanted = [(name, severity) for name in corruptions for severity in _SEVERITIES]
    missing = [cell for cell in wanted if cell not in places or not places[cell].is_dir()]
    unknown = [name for name in folders if name not in corruptions and name not in _GROUPS and name[0] != "."]
    similar = {
        name: close[0]
        for name in corruptions
        if name not in folders and (close := difflib.get_close_matches(name, unknown, n=1, cutoff=0.75))
    }
    _check_complete(corruptions, missing, similar, text)
    return {cell: str(place) for cell, place in places.items()}


def _check_complete(
    corruptions: Sequence[str], missing: Sequence[Cell], similar: Mapping[str, str], where: str
) -> None:
    """InputError where cells are missing: which, and what would become of the metric without them."""
    if not missing:
        return
    found = []
    for name in dict.fromkeys(name for name, _ in missing):
        severities = [str(severity) for other, severity in missing if other == name]
        known_as = f", but {similar[name]!r}" if name in similar else ""
        found.append(f"no {name}/{'1…5' if len(severities) == 5 else ', '.join(severities)}{known_as}")
    found.sort(key=lambda text: "but" not in text)
    whole = [name for name in corruptions if name not in dict(missing)]
    metric, cells = f"mean_error_{len(corruptions)}", 5 * len(corruptions)
    fix = [f"Rename the folder {folder} to {name}." for name, folder in list(similar.items())[:3]]
    if whole:
        fix.append(
            f"Get what is missing, as {metric} needs all {cells} cells; or score what is there under its own name, "
            f"mean_error_{len(whole)}, never as mCE: --corruptions {' '.join(whole)}"
        )
    elif not similar:
        fix.append("Point at the folder that holds a folder for each corruption, and in it one for each severity.")
    raise InputError(
        "cells of ImageNet-C",
        expected=f"{cells} of {len(corruptions)} corruptions x 5 severities",
        found=f"{cells - len(missing)}: {'; '.join(found[:3])}{' …' if len(found) > 3 else ''}",
        where=where,
        fix=" ".join(fix),
    )


def _share_arrays(manifest: Manifest, first: Manifest) -> Manifest:
    """The manifest with the first one's keys and labels where they are equal: 75 times 50,000 keys are half a GB."""
    if manifest.label_space != first.label_space or not np.array_equal(manifest.labels, first.labels):
        return manifest
    if not np.array_equal(manifest.keys, first.keys):
        return manifest
    source = manifest.source
    if getattr(source, "keys", None) is manifest.keys:
        source.keys = first.keys  # type: ignore[attr-defined]
    return replace(manifest, keys=first.keys, labels=first.labels, label_space=first.label_space)


def _list_images(manifest: Manifest) -> list[str]:
    """CLASS/NAME of every image, NAME up to its ending. Folders and shards in a key may be the cell's own."""
    names = (_strip_ending(key.rpartition("/")[2]) for key in manifest.keys.tolist())
    classes = (manifest.label_space.classes[label] for label in manifest.labels.tolist())
    return [f"{kind}/{name}" for kind, name in zip(classes, names, strict=True)]


def _strip_ending(name: str) -> str:
    stem, dot, ending = name.rpartition(".")
    return stem if dot and f".{ending.lower()}" in IMAGE_SUFFIXES else name


def _check_same_images(cells: Mapping[Cell, Manifest], where: str) -> None:
    """InputError unless all cells hold the same images with the same labels in the same order; most cells are right."""
    digests: dict[tuple[int, int], str] = {}  # by identity: most cells share their arrays
    found: dict[Cell, str] = {}
    for cell, manifest in cells.items():
        identity = id(manifest.keys), id(manifest.labels)
        if identity not in digests:
            digests[identity] = hashlib.blake2b(
                "\n".join(_list_images(manifest)).encode(errors="surrogateescape")
            ).hexdigest()
        found[cell] = digests[identity]
    usual_digest = Counter(found.values()).most_common(1)[0][0]
    others = [cell for cell, digest in found.items() if digest != usual_digest]
    if not others:
        return
    usual = next(cell for cell, digest in found.items() if digest == usual_digest)
    named = ", ".join(f"{name}/{severity}" for name, severity in others[:3])
    more = f" and {len(others) - 3} more" if len(others) > 3 else ""
    raise InputError(
        "images of the cells of ImageNet-C",
        expected="the same images, labels and order in all of them",
        found=f"{named}{more} unlike {usual[0]}/{usual[1]}: {_describe_difference(cells[others[0]], cells[usual])}",
        where=where,
        fix="Unpack or write these cells again.",
    )


def _describe_difference(odd: Manifest, usual: Manifest) -> str:
    """What an odd cell has in another way than the usual one, with up to three examples."""
    classes = [name for name in odd.label_space.classes if name not in usual.label_space.classes]
    if classes:
        return f"{len(classes)} classes that are not there, e.g. {', '.join(classes[:3])}"
    ours, theirs = _list_images(odd), _list_images(usual)
    lacking, needless = sorted(set(theirs) - set(ours)), sorted(set(ours) - set(theirs))
    if not lacking and not needless:
        return "another order" if len(ours) == len(theirs) else f"{len(ours)} images instead of {len(theirs)}"
    counts = f"{len(ours)} images instead of {len(theirs)}, " if len(ours) != len(theirs) else ""
    kinds = (("without", lacking), ("with", needless))
    return counts + ", ".join(f"{word} {', '.join(names[:3])}" for word, names in kinds if names)


def _check_different_files(cells: Mapping[Cell, Manifest], where: str) -> None:
    """InputError where a cell's files are another cell's, which no corruption gives."""
    first: dict[str, Cell] = {}
    copies = [
        (first[manifest.digest], cell)
        for cell, manifest in cells.items()
        if first.setdefault(manifest.digest, cell) != cell
    ]
    if copies:
        raise InputError(
            "files of the cells of ImageNet-C",
            expected="others in each",
            found=", ".join(f"{b[0]}/{b[1]} the same as {a[0]}/{a[1]}" for a, b in copies[:3]),
            where=where,
            fix="Unpack or write one of them again: a cell was copied or linked in place of another.",
        )
