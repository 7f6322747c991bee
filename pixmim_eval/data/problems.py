"""What is wrong with annotations: counted and named, never silent."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

KINDS = {
    "clipped": "boxes beyond their image (clipped)",
    "outside": "boxes wholly outside their image (dropped)",
    "empty": "boxes that are empty or inverted (dropped)",
    "not finite": "boxes with coordinates that are missing or no finite number (dropped)",
    "resolution": "images whose boxes are of another resolution (their boxes dropped)",
    "rescaled": "images of another size than stated, of the same proportions (boxes rescaled)",
    "duplicate": "boxes that stand there twice (kept)",
    "no box": "images without a box",
    "no size": "images without one valid size (dropped)",
    "no entry": "annotations of images that are not listed or not there (dropped)",
    "no image": "images that are listed but not there",
    "image size": "images of another size than stated (dropped)",
    "no class": "annotations of classes that are not listed (dropped)",
    "empty class": "classes without an object or pixel",
    "no mask": "images without a mask (dropped)",
    "mask size": "masks of another size than their image (dropped)",
    "mask value": "masks with values outside the classes (those pixels ignored)",
    "no label": "masks without a pixel of any class (dropped)",
    "crowd": "annotations of crowds (left out)",
    "mask": "objects with a damaged mask (dropped)",
    "broken": "entries that cannot be read (dropped)",
    "path": "names that lead out of the data set, or that no file can have (dropped)",
}
"""What can be wrong with boxes and masks, and what is done about it."""

# absolute, with "..", or with what no file name has: NUL, and surrogates but those of bytes that are not UTF-8
_STRAY_NAME = re.compile(r"\A(?:[\\/]|[A-Za-z]:)|(?:\A|[\\/])\.\.(?:[\\/]|\Z)|[\0\ud800-\udc7f\udd00-\udfff]")


@dataclass(frozen=True)
class Problem:
    """One thing that was wrong.

    Args:
        kind: one of KINDS.
        key: of the image or file.
        detail: what was found.
    """

    kind: str
    key: str
    detail: str


def summarise_problems(problems: Iterable[Problem]) -> str:
    """One line: how many of each kind, most frequent first, with an example. Empty where there are none."""
    problems = list(problems)
    first = {problem.kind: problem for problem in reversed(problems)}
    counts = Counter(problem.kind for problem in problems)
    return "; ".join(
        f"{count:,} {KINDS[kind]}, e.g. {first[kind].key}" + (f" ({first[kind].detail})" if first[kind].detail else "")
        for kind, count in counts.most_common()
    )


def leads_out(name: str) -> bool:
    """Whether a name from a file must never become a path: it is absolute, climbs above its folder, or is no name."""
    return _STRAY_NAME.search(name) is not None
