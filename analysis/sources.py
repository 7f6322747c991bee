"""Which result rows a number is of, carried along with it, so that a reader can go from a number back to its rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pixmim_eval.types import Estimate


@dataclass(frozen=True, eq=False)
class TracedEstimate(Estimate):
    """An estimate and the `source` of each row that it is of; two are equal where their numbers are."""

    sources: tuple[int, ...] = ()


def read_estimate(row: Any) -> Estimate:
    """The estimate of a row of result rows, traced where the frame has a column `source`.

    Args:
        row: as DataFrame.itertuples gives, with value, low, high, n and unit.
    """
    numbers = (float(row.value), float(row.low), float(row.high), int(row.n), str(row.unit))
    source = getattr(row, "source", None)
    return Estimate(*numbers) if source is None else TracedEstimate(*numbers, (int(source),))


def make_estimate(value: float, low: float, high: float, n: int, unit: str, parts: Iterable[Estimate]) -> Estimate:
    """An estimate that was computed from others: of all their rows."""
    sources = list_sources(*parts)
    return TracedEstimate(value, low, high, n, unit, sources) if sources else Estimate(value, low, high, n, unit)


def list_sources(*estimates: Estimate | None) -> tuple[int, ...]:
    """The rows of some estimates, ascending, each once; empty where they are not traced."""
    found = (estimate.sources for estimate in estimates if isinstance(estimate, TracedEstimate))
    return tuple(sorted({source for sources in found for source in sources}))


def suggest_command(suite: str) -> str:
    """The command that makes rows of a suite: what a missing number says is to be run."""
    return f"python -m pixmim_eval.run --suite {suite} {_INPUTS.get(suite, '--checkpoint PATH --data PATH')}"


_INPUTS = {
    **dict.fromkeys(("linear_probe", "knn", "few_shot", "finetune"), "--checkpoint PATH --data train=PATH val=PATH"),
    "segmentation": "--checkpoint PATH --data train=IMAGES val=IMAGES",
    "detection": "--checkpoint PATH --data train=INSTANCES.json val=INSTANCES.json",
    "shape_bias": "--checkpoint PATH --data cue-conflict=PATH trials=RAW_DATA",
    "model_vs_human": "--checkpoint PATH --data trials=RAW_DATA stimuli=DATASETS",
    "observers": "--data RAW_DATA",
    "foreground": "--data BOXES.csv",
}
