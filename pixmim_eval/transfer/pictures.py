"""How pictures of segmented images and of detections look alike, and are written."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from pixmim_eval.files import write_atomic

# Paul Tol's "muted" scheme, whose nine colours are told apart whatever colours are seen; numbers stand beside them.
COLOURS = ("#88CCEE", "#CC6677", "#DDCC77", "#117733", "#332288", "#AA4499", "#44AA99", "#999933", "#882255")
OTHER = "#BBBBBB"  # of all other classes
ANSWERS = 4  # columns of answers of one picture
_DPI = 200
_STYLE: dict[Any, Any] = {"font.size": 7, "font.family": "DejaVu Sans", "text.parse_math": False, "pdf.fonttype": 42}


def choose_shown(weights: np.ndarray) -> list[int]:
    """The classes that have a colour: at most nine of those of a weight above 0, heaviest first.

    Args:
        weights: float [K].
    """
    order = np.argsort(-weights, kind="stable")[: len(COLOURS)]
    return [label for label in order.tolist() if weights[label] > 0]


def parse_colour(colour: str) -> np.ndarray:
    """ "#RRGGBB" as float64 [3] in [0, 1]."""
    return np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255


def write_pages(names: Sequence[str], stem: Path, draw: Callable[[Sequence[str]], Figure]) -> list[Path]:
    """A PNG and a PDF of each picture, with the same bytes each time.

    Args:
        names: of the columns of answers.
        stem: path of the files without ending, "-part-N" where there are too many names for one.
        draw: some of the names -> their picture.
    """
    written = []
    for start in range(0, len(names), ANSWERS):
        part = f"-part-{start // ANSWERS + 1}" if len(names) > ANSWERS else ""
        with rc_context(_STYLE):
            figure = draw(names[start : start + ANSWERS])
            for ending, metadata in (("png", {"Software": None}), ("pdf", {"CreationDate": None})):
                buffer = io.BytesIO()
                figure.savefig(buffer, format=ending, dpi=_DPI, metadata=metadata)
                written.append(stem.with_name(f"{stem.name}{part}.{ending}"))
                write_atomic(written[-1], buffer.getvalue())
    return written
