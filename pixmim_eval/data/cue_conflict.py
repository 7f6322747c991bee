"""A cue-conflict set of your own: images of one thing with the texture of another, under names that say so.

    python -m pixmim_eval.data.cue_conflict --shapes PATH --textures PATH --out FOLDER
    python -m pixmim_eval.data.cue_conflict LIST.csv --out FOLDER

The first mixes any two sets of images (see exchange_spectra). The second takes images that are mixed already, by style
transfer or by hand: LIST.csv has columns image (a path from the list's folder), shape and texture, and the images are
copied as they are. Both write FOLDER/SHAPE/SHAPE1-TEXTURE1.png and so on, the layout of Geirhos et al.'s set.
"""

from __future__ import annotations

import argparse
import csv
import io
import re
import sys
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image

from pixmim_eval.data.categories import CATEGORY_CLASSES, find_categories, list_some
from pixmim_eval.data.sources import open_manifest
from pixmim_eval.data.sources.assemble import IMAGE_SUFFIXES
from pixmim_eval.data.transforms import apply_evaluation
from pixmim_eval.errors import InputError
from pixmim_eval.files import write_atomic
from pixmim_eval.seeds import derive_seed
from pixmim_eval.types import Manifest, Preprocessing

_COLUMNS = ("image", "shape", "texture")
_NAME = re.compile(r"[^\W\d]+(-[^\W\d]+)*")  # of a category, that a number can follow
_GEOMETRY = Preprocessing(size=224, resize=256)


def exchange_spectra(shape: np.ndarray, texture: np.ndarray) -> np.ndarray:
    """An image with the phases of one and the amplitudes of another, channel by channel.

    Where edges are is in the phases; how strong each scale and orientation is, in the amplitudes. This is no style
    transfer: a texture's elements are lost, so cues are weaker than in Geirhos et al.'s images, and biases on both are
    not comparable.

    Args:
        shape, texture: [H, W, C].

    Returns:
        float64 [H, W, C], on the scale of the texture; some values may lie beyond it.

    Source: Oppenheim and Lim, "The importance of phase in signals", Proc. IEEE 1981.
    """
    phases, amplitudes = (np.fft.rfft2(image.astype(np.float64), axes=(0, 1)) for image in (shape, texture))
    mixed = np.abs(amplitudes) * np.exp(1j * np.angle(phases))
    return np.fft.irfft2(mixed, s=shape.shape[:2], axes=(0, 1))


def mix_sets(shapes: Manifest, textures: Manifest, out: Path, *, copies: int = 5) -> int:
    """Write images of every category of one set with the texture of every category of another.

    Args:
        shapes, textures: with classes that are WordNet ids of the 16 categories (others are left out) or names.
        out: a folder that is not there yet.
        copies: images of each pair, all of different originals; five of each make 1,280.

    Returns:
        Number of images, PNG of 224 px.

    Raises:
        InputError: categories partly of a known set, fewer images of one than copies, an image that cannot be read, or
            a folder that is there.
    """
    drawn = _draw_images(shapes, "shapes"), _draw_images(textures, "textures")
    _check_sets(drawn, copies, f"data sets {shapes.name} and {textures.name}")
    if out.exists():
        raise _table_error(out, "a new folder", "one that is there")
    for (first, shape), (second, texture) in product(*(enumerate(sorted(found)) for found in drawn)):
        rows, others = drawn[0][shape], drawn[1][texture]
        for copy in range(copies):  # others for every pair: no original serves one category alone
            row, other = (second * copies + copy) % len(rows), (first * copies + copy) % len(others)
            mixed = exchange_spectra(_read(shapes, rows[row]), _read(textures, others[other]))
            buffer = io.BytesIO()
            Image.fromarray(mixed.round().clip(0, 255).astype(np.uint8)).save(buffer, "png")
            write_atomic(out / shape / f"{shape}{row + 1}-{texture}{other + 1}.png", buffer.getvalue())
    return len(drawn[0]) * len(drawn[1]) * copies


def _check_sets(drawn: Sequence[Mapping[str, np.ndarray]], copies: int, where: str) -> None:
    """Raises InputError as mix_sets."""
    names = {name for found in drawn for name in found}
    find_categories(names, where)
    strange = [name for name in names if not _NAME.fullmatch(name)]
    few = [f"{len(rows)} of {name}" for found in drawn for name, rows in found.items() if len(rows) < copies]
    if strange or few or len(names) < 2 or not all(drawn):
        raise InputError(
            "images to mix",
            expected=f"at least {copies} images of each category, and two categories, called by letters",
            found=list_some(strange or few or names),
            where=where,
            fix="Give more images, lower --copies, or rename folders.",
        )


def _draw_images(manifest: Manifest, role: str) -> dict[str, np.ndarray]:
    """Category -> its rows in an order of chance that depends on the category alone."""
    categories = {wnid: name for name, ids in CATEGORY_CLASSES.items() for wnid in ids}
    found: dict[str, list[int]] = {}
    for row, label in enumerate(manifest.labels.tolist()):
        name = manifest.label_space.classes[label]
        if name in categories or not re.fullmatch(r"n\d{8}", name):
            found.setdefault(categories.get(name, name), []).append(row)
    return {
        name: np.random.default_rng(derive_seed("cue-conflict", role, name)).permutation(rows)
        for name, rows in found.items()
    }


def _read(manifest: Manifest, row: int) -> np.ndarray:
    """uint8 [224, 224, 3]."""
    return apply_evaluation(manifest.source.read([int(row)])[0], _GEOMETRY, None)


def write_cue_conflict(table: Path, out: Path) -> int:
    """Copy listed images to where their names tell shape and texture.

    Args:
        table: CSV with columns image, shape and texture.
        out: a folder that is not there yet.

    Returns:
        Number of images.

    Raises:
        InputError: a table of another form, a missing image, names that cannot stand in a file name, categories partly
            of a known set, or a folder that is there.
    """
    try:
        with table.open(newline="", encoding="utf-8") as file:
            records = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _table_error(table, "a table as CSV", f"{type(error).__name__}: {error}") from error
    if not records or not set(_COLUMNS) <= records[0].keys():
        raise _table_error(table, f"columns {', '.join(_COLUMNS)}", ", ".join(records[0]) if records else "no rows")
    names = {record[cue] or "" for record in records for cue in ("shape", "texture")}
    if strange := [name for name in names if not _NAME.fullmatch(name)]:
        raise _table_error(table, "categories of letters, with - between words", list_some(strange))
    find_categories(names, str(table))
    images = [table.parent / (record["image"] or "") for record in records]
    if missing := [str(path) for path in images if not path.is_file() or path.suffix.lower() not in IMAGE_SUFFIXES]:
        raise _table_error(table, f"images ({', '.join(IMAGE_SUFFIXES)})", f"no such file, {list_some(missing)}")
    if out.exists():
        raise _table_error(out, "a new folder", "one that is there")
    for number, (record, image) in enumerate(zip(records, images, strict=True), start=1):
        name = f"{record['shape']}{number}-{record['texture']}{number}{image.suffix.lower()}"
        write_atomic(out / record["shape"] / name, image.read_bytes())
    return len(images)


def _table_error(path: Path, expected: str, found: str) -> InputError:
    fix = "One line an image, e.g. `image,shape,texture` and `mixed/001.png,cat,truck`."
    return InputError("list of cue-conflict images", expected=expected, found=found, where=str(path), fix=fix)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0 done, 2 bad input."""
    parser = argparse.ArgumentParser(prog="python -m pixmim_eval.data.cue_conflict", description=__doc__.split("\n")[0])
    parser.add_argument(
        "table", type=Path, nargs="?", metavar="LIST.csv", help="mixed images: columns image, shape, texture"
    )
    parser.add_argument("--shapes", metavar="PATH", help="images to be mixed: those that give the shape")
    parser.add_argument("--textures", metavar="PATH", help="and those that give the texture")
    parser.add_argument("--copies", type=int, default=5, metavar="N", help="images of each pair (default 5)")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="a new folder")
    options = parser.parse_args(arguments)
    sets = [path for path in (options.shapes, options.textures) if path]
    if len(sets) != (0 if options.table else 2) or options.copies < 1:
        parser.error("give LIST.csv, or both --shapes and --textures, and --copies of at least 1")
    try:
        if options.table:
            count = write_cue_conflict(options.table, options.out)
        else:
            shapes, textures = map(open_manifest, sets)
            count = mix_sets(shapes, textures, options.out, copies=options.copies)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{count} images: python -m pixmim_eval.run --suite shape_bias --data {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
