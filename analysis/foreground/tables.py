"""One table of what crops keep of the object: which choices move the number, and how far."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analysis.foreground.numbers import DEFINITIONS, PUBLISHED, PUBLISHED_MASKED, PUBLISHED_NOTE, SUITE, Foreground
from analysis.formats import Cell, Table
from analysis.sources import list_sources, suggest_command
from pixmim_eval.types import Estimate

MISSING, SIZES = "–", "overlap_union_size/"


def build_choices(sets: Sequence[Foreground]) -> Table:
    """Definitions by data set as rows, crops as columns; each number with its difference from its column's first.

    Of the first data set also by size of the object, and with the mask: those stand beside the published ones and
    differ from the first by the mask alone, so that they have no difference. Published numbers are ImageNet's, and
    stand there only beside ours of ImageNet.

    Args:
        sets: at least one.
    """
    crops = list(dict.fromkeys(crop for found in sets for crop in found.crops))
    first = {
        crop: next(found.found[crop, "overlap_union"] for found in sets if (crop, "overlap_union") in found.found)
        for crop in crops
    }
    body = []
    for found in sets:
        masked = _list_masked(sets[0]) if found is sets[0] else {}
        for metric, name in (_list_definitions(found, sizes=found is sets[0]) | masked).items():
            numbers = [found.found.get((crop, metric)) for crop in crops]
            if any(numbers):
                references = [None if metric in masked else first[crop] for crop in crops]
                cells = [
                    _write(number, reference, "" if crop in found.crops else suggest_command(SUITE))
                    for crop, number, reference in zip(crops, numbers, references, strict=True)
                ]
                count = max(number.n for number in numbers if number)
                body.append((Cell(_label(found, sets)), Cell(name), *cells, Cell(f"{count:,}")))
    known = any(found.is_imagenet for found in sets)
    for name, published in (("published", PUBLISHED), ("published, 75 % masked", PUBLISHED_MASKED)) if known else ():
        texts = [f"{100 * published[crop]:.1f}" if crop in published else MISSING for crop in crops]
        body.append((Cell("not known"), Cell(name), *map(Cell, texts), Cell(MISSING)))
    note = (
        "Mean over images of area(crop and object) / area(object), expected over the crop; in brackets the difference "
        "from the first row with a number of that crop, in points. Masked: times the visible share of the patches, or "
        "measured patch by patch. A reflected border counts where it says so, else it holds nothing."
    )
    head, sides = ("boxes", "definition", *crops, "n"), "ll" + "r" * (len(crops) + 1)
    return Table(
        "Kept of the object (%), by crop, definition and boxes",
        head,
        tuple(body),
        sides,
        (note, PUBLISHED_NOTE) if known else (note,),
    )


def tabulate_overlaps(sets: Sequence[Foreground]) -> pd.DataFrame:
    """Every number in long form, raw."""
    columns = ["dataset", "protocol", "crop", "metric", "value", "low", "high", "n", "unit"]
    rows = []
    for found in sets:
        protocol = ";".join(f"{key}={value}" for key, value in sorted(found.protocol.items()))
        for key, number in found.found.items():
            rows.append((found.dataset, protocol, *key, number.value, number.low, number.high, number.n, number.unit))
    return pd.DataFrame(rows, columns=columns)


def _list_definitions(found: Foreground, *, sizes: bool) -> dict[str, str]:
    """Metric -> what it counts; also in classes of the object's size where asked for."""
    definitions = dict(DEFINITIONS)
    for name, _ in found.list_numbers(found.crops[0], SIZES) if sizes else ():
        low, high = (f"{100 * float(end):g}" for end in name.split("-"))
        definitions[SIZES + name] = f"union, {low}–{high} % of the image"
    return definitions


def _list_masked(found: Foreground) -> dict[str, str]:
    """The union of boxes in visible patches, in expectation and as measured."""
    name = f"union, {found.mask} % masked"
    return {f"overlap_union_masked{found.mask}": name, f"overlap_union_patches{found.mask}": f"{name}, by patches"}


def _label(found: Foreground, sets: Sequence[Foreground]) -> str:
    return found.suffix if len(sets) > 1 else found.dataset


def _write(number: Estimate | None, first: Estimate | None, hint: str) -> Cell:
    if number is None:
        return Cell(MISSING, hint=hint)  # of a crop that was measured, what is missing is not defined
    if first is None or number is first:
        return Cell(f"{100 * number.value:.1f}", sources=list_sources(number))
    difference = 100 * (number.value - first.value)
    return Cell(f"{100 * number.value:.1f} ({difference:+.1f})", sources=list_sources(number, first))
