"""Progress on stderr: a bar on a terminal, a line a minute otherwise."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def progress(
    iterable: Iterable[Any] | None = None,
    *,
    description: str,
    total: int | None = None,
    initial: int = 0,
    unit: str = "it",
    quiet: bool = False,
) -> tqdm[Any]:
    """A tqdm bar around an iterable, or one to be updated by hand when there is no iterable.

    Args:
        iterable: what to go through; None for a bar moved by `.update(n)`.
        description: what is being done, e.g. "extracting photos".
        total: number of steps where the iterable has no length.
        initial: steps already done before this start (a resumed run).
        unit: of one step, e.g. "image".
        quiet: no output at all (every process but the first).
    """
    terminal = sys.stderr.isatty()
    return tqdm(
        iterable,
        desc=description,
        total=total,
        initial=initial,
        unit=unit,
        disable=quiet,
        file=sys.stderr,
        mininterval=0.2 if terminal else 60.0,
        maxinterval=10.0 if terminal else 60.0,
        dynamic_ncols=terminal,
        leave=not terminal,
        bar_format=None if terminal else "{l_bar}{bar:10}{r_bar}\n",
        unit_scale=True,
    )
