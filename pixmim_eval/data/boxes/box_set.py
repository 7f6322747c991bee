"""Boxes of objects by image, whatever the format: checked once, with every repair and every loss on a list."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from pixmim_eval.data.problems import Problem, summarise_problems
from pixmim_eval.errors import InputError
from pixmim_eval.types import ImageSource, Manifest

_SLACK_SHARE, _SLACK_PIXELS = 0.05, 2.0  # how far beyond the image a box may be drawn, and still be of that image
_ROUNDING = 1e-6  # pixels that scaling may add to an edge


class MaskSet(Protocol):
    """The pixels of objects, on demand."""

    def of(self, row: int) -> list[np.ndarray]:
        """Masks of the image keys[row], bool [H, W] each, one a box and in the order of its boxes.

        A mask may hold no pixel, where an object is thinner than one.
        """
        ...


@dataclass(frozen=True)
class BoxSet:
    """Boxes of objects in N images.

    Args:
        name: short name for tables.
        digest: 16 hex digits of the content: keys, sizes, boxes and masks. The same boxes in two formats have the same.
        keys: [N] unique image names, in the order of the file (of XML: sorted).
        sizes: int64 [N, 2], height and width in pixels.
        boxes: float64 [M, 4], top, left, height and width in pixels, inside the image and of positive area. Edges are
            continuous: pixel column x covers [x, x + 1).
        image: int64 [M], row of keys, sorted; within an image the boxes stand in the order of the file.
        problems: what was repaired, dropped or missing.
        masks: of the objects, where the format has them.
        manifest: the images, where they are there: row i is the image of keys[i].
    """

    name: str
    digest: str
    keys: np.ndarray
    sizes: np.ndarray
    boxes: np.ndarray
    image: np.ndarray
    problems: tuple[Problem, ...] = ()
    masks: MaskSet | None = None
    manifest: Manifest | None = None

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class RawBoxes:
    """Boxes as a format states them, before any check.

    Args:
        name: of the set.
        where: path, for error messages.
        keys: N image names, unique.
        sizes: int64 [N, 2], height and width; 0 where not stated.
        image: int64 [M], row of keys, in any order.
        edges: float64 [M, 4], left, top, right, bottom as continuous edges.
        problems: found while reading.
        found: int64 [N, 2], the size of the image itself; 0 where it was not looked at, None for nowhere.
        masks: gives the masks of these boxes (rows of edges) of each image, and 16 hex digits of their content.
        manifest: row i is the image of keys[i].
    """

    name: str
    where: str
    keys: Sequence[str]
    sizes: np.ndarray
    image: np.ndarray
    edges: np.ndarray
    problems: Sequence[Problem] = ()
    found: np.ndarray | None = None
    masks: Callable[[list[np.ndarray]], tuple[MaskSet, str]] | None = None
    manifest: Manifest | None = None


def check_boxes(raw: RawBoxes) -> BoxSet:
    """The set with every box inside its image, and a list of what that took. KINDS says what is done to each kind.

    A box may reach beyond its image by 5 % of the side (at least 2 pixels) and is clipped; farther, it was drawn on
    an image of another resolution, and then no box of that image can be placed.

    Raises:
        InputError: no box is left.
    """
    problems = list(raw.problems)
    raw = _drop_sizeless(raw, problems)
    keys, sizes = np.array(raw.keys, dtype=str), raw.sizes.astype(np.int64)
    order = np.argsort(raw.image, kind="stable")
    image, edges = raw.image[order], raw.edges[order].astype(np.float64)
    sizes, unplaced = _match_images(raw, sizes, image, edges, problems)
    kept = _check_edges(keys, sizes, image, edges, unplaced, problems)
    if not kept.any():
        raise InputError(
            "boxes",
            expected="at least one box inside its image",
            found=summarise_problems(problems) or "none",
            where=raw.where,
            fix="Check that the file holds boxes of these images, in pixels.",
        )
    order, image, edges = order[kept], image[kept], edges[kept]
    boxes = np.stack((edges[:, 1], edges[:, 0], edges[:, 3] - edges[:, 1], edges[:, 2] - edges[:, 0]), axis=1)
    _list_duplicates(keys, image, boxes, problems)
    bare = np.flatnonzero(np.bincount(image, minlength=len(keys)) == 0)
    problems += [Problem("no box", str(keys[row]), "") for row in bare.tolist()]
    masks, mask_digest = None, ""
    if raw.masks is not None:
        masks, mask_digest = raw.masks(np.split(order, np.cumsum(np.bincount(image, minlength=len(keys)))[:-1]))
    digest = _digest(keys, sizes, boxes, image, mask_digest)
    return BoxSet(raw.name, digest, keys, sizes, boxes, image, tuple(problems), masks, raw.manifest)


def _drop_sizeless(raw: RawBoxes, problems: list[Problem]) -> RawBoxes:
    """Without the images that state no positive size: their boxes cannot be placed."""
    valid = np.asarray((raw.sizes > 0).all(axis=1))
    if valid.all():
        return raw
    lost = np.flatnonzero(~valid).tolist()
    problems += [Problem("no size", raw.keys[row], f"{raw.sizes[row, 1]} x {raw.sizes[row, 0]}") for row in lost]
    rows, place, boxes = np.flatnonzero(valid), np.cumsum(valid) - 1, valid[raw.image]
    masks, numbers = raw.masks, np.flatnonzero(boxes)  # the masks know boxes by their old numbers
    return replace(
        raw,
        keys=[raw.keys[row] for row in rows.tolist()],
        sizes=raw.sizes[rows],
        image=place[raw.image[boxes]],
        edges=raw.edges[boxes],
        found=None if raw.found is None else raw.found[rows],
        masks=None if masks is None else lambda groups: masks([numbers[group] for group in groups]),
        manifest=None if raw.manifest is None else select_images(raw.manifest, rows),
    )


def _match_images(
    raw: RawBoxes, sizes: np.ndarray, image: np.ndarray, edges: np.ndarray, problems: list[Problem]
) -> tuple[np.ndarray, np.ndarray]:
    """Sizes of the images themselves, where they were looked at, with the edges scaled to them in place.

    Returns:
        sizes: int64 [N, 2].
        unplaced: bool [N], images of other proportions than stated, on which the boxes cannot be placed.
    """
    unplaced = np.zeros(len(sizes), dtype=bool)
    if raw.found is None:
        return sizes, unplaced
    found = np.where(raw.found > 0, raw.found, sizes)
    scale = found / sizes
    differs = (found != sizes).any(axis=1)
    # the same proportions but for the rounding of one side to whole pixels
    alike = np.abs(sizes * scale[:, ::-1] - found).min(axis=1) <= 1.0
    for row in np.flatnonzero(differs).tolist():
        kind = "rescaled" if alike[row] and raw.masks is None else "resolution"
        unplaced[row] = kind == "resolution"
        stated, real = (f"{width} x {height}" for height, width in (sizes[row], found[row]))
        problems.append(Problem(kind, str(raw.keys[row]), f"stated {stated}, the image is {real}"))
    edges *= scale[image][:, [1, 0, 1, 0]]
    return found, unplaced


def _check_edges(
    keys: np.ndarray,
    sizes: np.ndarray,
    image: np.ndarray,
    edges: np.ndarray,
    unplaced: np.ndarray,
    problems: list[Problem],
) -> np.ndarray:
    """Clip the edges in place and list what was wrong. Returns bool [M], the boxes to keep."""

    def note(kind: str, wrong: np.ndarray) -> None:
        for box in np.flatnonzero(wrong):
            height, width = sizes[image[box]]
            corners = " ".join(f"{edge:g}" for edge in stated[box])
            problems.append(Problem(kind, str(keys[image[box]]), f"edges {corners} in {width} x {height}"))

    stated, sides = edges.copy(), sizes[image][:, ::-1].astype(np.float64)
    finite: np.ndarray = np.isfinite(edges).all(axis=1)
    positive = np.zeros_like(finite)
    positive[finite] = (edges[finite, 2:] > edges[finite, :2]).all(axis=1)
    beyond = np.maximum(-edges[:, :2], edges[:, 2:] - sides)
    far = positive & ~unplaced[image] & (beyond > np.maximum(_SLACK_PIXELS, _SLACK_SHARE * sides)).any(axis=1)
    _, first = np.unique(np.where(far, image, -1), return_index=True)
    lead = np.zeros(len(far), dtype=bool)
    lead[first] = True
    note("not finite", ~finite)
    note("empty", finite & ~positive)
    note("resolution", far & lead)
    unplaced = unplaced.copy()
    unplaced[image[far]] = True
    placed = positive & ~unplaced[image]
    edges[placed] = np.clip(edges[placed], 0.0, np.tile(sides[placed], 2))
    inside = placed & (edges[:, 2:] > edges[:, :2]).all(axis=1)
    note("outside", placed & ~inside)
    note("clipped", inside & (beyond > _ROUNDING).any(axis=1))
    return inside


def _list_duplicates(keys: np.ndarray, image: np.ndarray, boxes: np.ndarray, problems: list[Problem]) -> None:
    if (np.diff(image) > 0).all():  # one box an image
        return
    rows = np.column_stack((image, boxes))
    order = np.lexsort(rows.T[::-1])
    again = np.sort(order[1:][(rows[order[1:]] == rows[order[:-1]]).all(axis=1)])
    for box in again:
        corners = " ".join(f"{number:g}" for number in boxes[box])
        problems.append(Problem("duplicate", str(keys[image[box]]), f"top, left, height, width {corners}"))


def _digest(keys: np.ndarray, sizes: np.ndarray, boxes: np.ndarray, image: np.ndarray, masks: str) -> str:
    digest = hashlib.blake2b(digest_size=8)
    digest.update("\n".join(keys.tolist()).encode(errors="surrogateescape") + b"\0" + masks.encode() + b"\0")
    for numbers, kind in ((sizes, "<i8"), (boxes + 0.0, "<f8"), (image, "<i8")):  # + 0.0: no negative zero
        digest.update(np.ascontiguousarray(numbers, dtype=kind).tobytes() + b"\0")
    return digest.hexdigest()


@dataclass(frozen=True)
class _SelectedImages:
    """Some rows of another source."""

    source: ImageSource
    chosen: np.ndarray

    def read(self, rows: Sequence[int]) -> list[np.ndarray]:
        return self.source.read(self.chosen[list(rows)].tolist())


def select_images(manifest: Manifest, rows: np.ndarray) -> Manifest:
    """The manifest with these rows (int64 [n]) only, in this order."""
    digest = hashlib.blake2b(manifest.digest.encode() + rows.astype("<i8").tobytes(), digest_size=8)
    return replace(
        manifest,
        keys=manifest.keys[rows],
        labels=manifest.labels[rows],
        blocks=None if manifest.blocks is None else manifest.blocks[rows],
        digest=digest.hexdigest(),
        source=_SelectedImages(manifest.source, rows),
    )
