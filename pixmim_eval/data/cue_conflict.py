"""A cue-conflict set of your own: images of one thing with the texture of another, under names that say so.

    python -m pixmim_eval.data.cue_conflict LIST.csv --out FOLDER

LIST.csv has columns image (a path from the list's folder), shape and texture. The images are copied as they are to
FOLDER/SHAPE/SHAPE1-TEXTURE1.png and so on, the layout of Geirhos et al.'s set. Making such images, by style transfer or
by hand, is not done here; shapes16:cue-conflict is a set that exists already.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from pixmim_eval.data.categories import find_categories, list_some
from pixmim_eval.data.sources.assemble import IMAGE_SUFFIXES
from pixmim_eval.errors import InputError
from pixmim_eval.files import write_atomic

_COLUMNS = ("image", "shape", "texture")


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
    if strange := [name for name in names if not re.fullmatch(r"[^\W\d]+(-[^\W\d]+)*", name)]:
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
    parser.add_argument("table", type=Path, metavar="LIST.csv", help="columns image, shape, texture")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="a new folder")
    options = parser.parse_args(arguments)
    try:
        count = write_cue_conflict(options.table, options.out)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{count} images: python -m pixmim_eval.run --suite shape_bias --data {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
