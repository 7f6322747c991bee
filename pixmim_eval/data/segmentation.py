"""Sets of images with a class for every pixel: folders of images and masks (ADE20K's layout), and shapes16."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image

from pixmim_eval.data.boxes.images import read_size
from pixmim_eval.data.mask_classes import IGNORED, MaskClasses, number_classes, read_classes
from pixmim_eval.data.problems import Problem, summarise_problems
from pixmim_eval.data.shapes16 import SHAPES, Shapes16Source, render
from pixmim_eval.data.sources import open_manifest
from pixmim_eval.data.sources.assemble import IMAGE_SUFFIXES, assemble
from pixmim_eval.data.sources.decode import bad_image
from pixmim_eval.data.sources.folder import FolderSource
from pixmim_eval.data.sources.patterns import find_files
from pixmim_eval.errors import InputError
from pixmim_eval.files import cache_dir, replace_atomically
from pixmim_eval.progress import progress
from pixmim_eval.types import Manifest

_MASK_FOLDERS = ("annotations", "semantic_masks", "masks", "labels")  # beside images/
_MODES = ("1", "L", "P", "I", "I;16")
_VERSION = 1


class LabelSource(Protocol):
    """Reads the classes of pixels. Instances are picklable, so that worker processes can hold them."""

    def read(self, rows: Sequence[int]) -> list[np.ndarray]:
        """uint8 [H, W] of each row: indices into the classes, or IGNORED."""
        ...


@dataclass(frozen=True)
class SegmentationSet:
    """N images with the class of every pixel.

    Args:
        name, digest: as of a Manifest; the digest is of images and masks.
        manifest: the images, without labels.
        classes: K names, at most 255; label k means classes[k].
        labels: of the pixels, row i for row i of the manifest.
        problems: what was dropped, ignored or missing.
    """

    name: str
    digest: str
    manifest: Manifest
    classes: tuple[str, ...]
    labels: LabelSource
    problems: tuple[Problem, ...] = ()

    def __len__(self) -> int:
        return len(self.manifest)


@dataclass(frozen=True)
class MaskFiles:
    """Masks in files, one an image.

    Args:
        files: N paths.
        lookup: uint8 [V], label of each value of a mask; values from V on have the last one.
    """

    files: list[Path]
    lookup: np.ndarray

    def read(self, rows: Sequence[int]) -> list[np.ndarray]:
        """See LabelSource. Raises BadImageError where a file cannot be read any more."""
        return [self._read(self.files[row]) for row in rows]

    def _read(self, file: Path) -> np.ndarray:
        try:
            values = _decode_mask(file.read_bytes())
        except (OSError, ValueError, SyntaxError) as error:
            raise bad_image(str(error), str(file)) from error
        return self.lookup.take(values, mode="clip")


@dataclass(frozen=True)
class _RenderedLabels:
    """shapes16: 0 for the background, 1 + k for shape k."""

    source: Shapes16Source

    def read(self, rows: Sequence[int]) -> list[np.ndarray]:
        drawn = render(rows, self.source.variant, self.source.size, self.source.seed)
        return list((drawn.masks * (drawn.shapes[:, None, None] + 1)).astype(np.uint8))


class _MaskRecord(NamedTuple):
    """What a mask file holds: size, values and how many pixels each has; or what is wrong with it."""

    stem: str
    suffix: str
    digest: str = ""
    height: int = 0
    width: int = 0
    values: Sequence[int] = ()
    counts: Sequence[int] = ()
    wrong: str = ""


def open_segmentation(path: str) -> SegmentationSet:
    """Open images with masks.

    Args:
        path: a folder of images (…/images/validation) or of their masks (…/annotations/validation, or semantic_masks,
            masks, labels in place of annotations), or builtin:shapes16[:VARIANT][@SIZE] (background and 16 shapes).

    A mask has the name of its image and one number a pixel. A file beside images/ or at the top of the folder of masks
    names the classes (see mask_classes.read_classes); without one they are the values from 1 to 254 that occur in any
    folder of masks beside this one. Other values are ignored: 0 and 255 as usual, any more are counted. All masks are
    read once; what they hold is kept in the cache.

    Counted and listed: images without a mask, masks without an image, unreadable, of another size than their image or
    without a pixel of any class (all dropped); values outside the classes; classes without a pixel.

    Raises:
        InputError: another layout, a class file that cannot be understood, more than 255 classes, or no image left.
    """
    if path.startswith("builtin:"):
        return _open_builtin(path)
    images, masks = _find_folders(find_files(path)[0])
    scanned = _scan_masks(masks)
    records = {record.stem: record for record in scanned}
    if len(records) < len(scanned):
        twice = sorted({record.stem for record in scanned if records[record.stem] is not record})
        raise InputError(
            "masks",
            expected="one file an image",
            found=f"several for {', '.join(twice[:3])}",
            where=str(masks),
            fix="Leave one mask of each image in the folder.",
        )
    root = next(parent for parent in images.parents if parent in masks.parents)  # holds images/ and the masks' folder
    classes = _find_classes(root, masks)
    problems: list[Problem] = []
    files = _pair_files(images, records, classes, problems)
    if not files:
        raise InputError(
            "masks",
            expected="at least one image with a mask of its size, and with pixels of the classes",
            found=summarise_problems(problems) or "none",
            where=path,
            fix="Check that the masks belong to these images, and the values of the classes.",
        )
    chosen = [records[Path(file).stem] for file in files]
    present = set().union(*(record.values for record in chosen))
    problems += [
        Problem("empty class", name, f"value {value}") for value, name in classes.names.items() if value not in present
    ]
    lengths = np.array([(images / file).stat().st_size for file in files], dtype=np.int64)
    name = "-".join((root.name, *images.relative_to(root).parts[1:]))
    manifest = assemble(name, str(images), FolderSource(images, np.array(files, dtype=str)), None, lengths)
    lookup = np.full(max(classes.names) + 2, IGNORED, dtype=np.uint8)
    lookup[list(classes.names)] = np.arange(len(classes.names))
    digest = hashlib.blake2b(repr((manifest.digest, list(classes.names.items()))).encode(), digest_size=8)
    digest.update("".join(record.digest for record in chosen).encode())
    labels = MaskFiles([masks / f"{record.stem}{record.suffix}" for record in chosen], lookup)
    return SegmentationSet(name, digest.hexdigest(), manifest, tuple(classes.names.values()), labels, tuple(problems))


def _open_builtin(path: str) -> SegmentationSet:
    manifest = open_manifest(path, labelled=False)
    source = manifest.source
    assert isinstance(source, Shapes16Source)  # the only built-in data set
    return SegmentationSet(manifest.name, manifest.digest, manifest, ("background", *SHAPES), _RenderedLabels(source))


def _find_folders(path: Path) -> tuple[Path, Path]:
    """The folders of images and of masks that belong together: they differ in one part of the path."""
    path = path.resolve()
    for place in range(len(path.parts) - 1, 0, -1):
        part = path.parts[place]
        others = _MASK_FOLDERS if part == "images" else ("images",) if part in _MASK_FOLDERS else ()
        for other in others:
            pair = Path(*path.parts[:place], other, *path.parts[place + 1 :])
            if pair.is_dir() and path.is_dir():
                return (path, pair) if part == "images" else (pair, path)
    raise InputError(
        "images with masks",
        expected=f"a folder below images/, with the same folder below {' or '.join(_MASK_FOLDERS)}",
        found="no such pair",
        where=str(path),
        fix="Lay the data set out as ADE20K does: images/validation/x.jpg and annotations/validation/x.png.",
    )


def _pair_files(
    images: Path, records: dict[str, _MaskRecord], classes: MaskClasses, problems: list[Problem]
) -> list[str]:
    """File names of the images that have a mask of their size with pixels of the classes, sorted."""
    names = sorted(entry.name for entry in os.scandir(images) if entry.name.lower().endswith(IMAGE_SUFFIXES))
    files = []
    bar = progress(names, description=f"reading image sizes of {images.name}", quiet=len(names) < 10_000)
    for name in bar:
        record = records.get(Path(name).stem)
        size = read_size(images / name)
        if record is None:
            problems.append(Problem("no mask", name, ""))
        elif record.wrong or size == (0, 0):
            problems.append(Problem("broken", name, record.wrong or "no image that can be read"))
        elif size != (record.height, record.width):
            detail = f"{record.width} x {record.height}, the image {size[1]} x {size[0]}"
            problems.append(Problem("mask size", name, detail))
        else:
            known = classes.names.keys() | classes.ignored
            strange = {v: n for v, n in zip(record.values, record.counts, strict=True) if v not in known}
            if strange:
                values = ", ".join(map(str, list(strange)[:3]))
                problems.append(Problem("mask value", name, f"{sum(strange.values())} pixels of value {values}"))
            if classes.names.keys() & set(record.values):
                files.append(name)
            else:
                problems.append(Problem("no label", name, ""))
    stems = {Path(name).stem for name in names}
    problems += [Problem("no image", stem, "a mask only") for stem in sorted(records) if stem not in stems]
    return files


def _find_classes(root: Path, masks: Path) -> MaskClasses:
    """The classes that a file names; without one, the values that occur in any folder of masks beside this one."""
    named = read_classes((root, root / masks.relative_to(root).parts[0]))
    if named is not None:
        return named
    folders = sorted(entry for entry in masks.parent.iterdir() if entry.is_dir()) if masks.parent != root else [masks]
    return number_classes({value for folder in folders for record in _scan_masks(folder) for value in record.values})


def _scan_masks(folder: Path) -> list[_MaskRecord]:
    """What every mask of a folder holds, from the cache where no file has changed."""
    with os.scandir(folder) as entries:
        listed = [entry for entry in entries if entry.name.lower().endswith(IMAGE_SUFFIXES)]
    states = sorted((entry.name, entry.stat().st_size, entry.stat().st_mtime_ns) for entry in listed)
    identity = repr((_VERSION, str(folder), states)).encode(errors="replace")
    cached = cache_dir() / "masks" / f"{hashlib.blake2b(identity, digest_size=16).hexdigest()}.parquet"
    if cached.is_file():
        columns = pyarrow.parquet.read_table(cached).to_pydict()
        return [_MaskRecord(*row) for row in zip(*(columns[name] for name in _MaskRecord._fields), strict=True)]
    files = [folder / name for name, _, _ in states]
    with ThreadPoolExecutor() as pool:  # decoding and hashing leave Python's lock
        found = pool.map(_scan_mask, files)
        bar = progress(found, description=f"reading masks of {folder.name}", total=len(files), quiet=len(files) < 1000)
        records = list(bar)
    try:
        table = pyarrow.table({name: [getattr(record, name) for record in records] for name in _MaskRecord._fields})
        with replace_atomically(cached) as temporary:
            pyarrow.parquet.write_table(table, temporary)
    except (OSError, UnicodeEncodeError) as error:  # a full disk; names that are not UTF-8
        warnings.warn(f"what the masks hold is not kept for the next time: {error}", stacklevel=2)
    return records


def _scan_mask(file: Path) -> _MaskRecord:
    try:
        data = file.read_bytes()
        mask = _decode_mask(data)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return _MaskRecord(file.stem, file.suffix, wrong=str(error) or type(error).__name__)
    values, counts = np.unique(mask, return_counts=True)
    digest = hashlib.blake2b(data, digest_size=8).hexdigest()
    height, width = mask.shape
    return _MaskRecord(file.stem, file.suffix, digest, height, width, values.tolist(), counts.tolist())


def _decode_mask(data: bytes) -> np.ndarray:
    """Values of a mask as its file has them, integers [H, W] of at least 0; of a palette image, the indices."""
    with Image.open(io.BytesIO(data)) as image:
        if image.mode not in _MODES:
            raise ValueError(f"a mask of mode {image.mode}, which has more than one number a pixel")
        values = np.array(image, dtype=np.uint8 if image.mode == "1" else None)
    if values.min(initial=0) < 0:
        raise ValueError("negative values")
    return values
