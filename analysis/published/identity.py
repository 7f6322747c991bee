"""Who a row is of, as the published tables name it: method, backbone and epochs of pretraining."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from analysis.comparison.commands import read_inputs
from analysis.published import read_checkpoints

METHODS = {
    "mae": "MAE",
    "pixmim-mae": "PixMIM-MAE",
    "convmae": "ConvMAE",
    "pixmim-convmae": "PixMIM-ConvMAE",
    "lsmae": "LSMAE",
    "pixmim-lsmae": "PixMIM-LSMAE",
    "mff": "MFF",
    "deit3": "DeiT III",
}
"""Method of a row -> of the published tables; rows of classifiers end in -finetuned or -linear besides."""

PAPER_NETWORKS = {"alexnet": "AlexNet", "googlenet": "GoogLeNet", "vgg": "VGG-16"}
"""How the networks of the paper on shape bias are called in the files of their decisions."""


@dataclass(frozen=True)
class Identity:
    """Who a row is of, as the published tables name it.

    Args:
        method: "" of what they do not know.
        backbone: "" where nothing tells.
        epochs: of pretraining; None where nothing tells.
        released: these are weights that others have published.
    """

    method: str
    backbone: str = ""
    epochs: int | None = None
    released: bool = False


def identify(row: Any) -> Identity:
    """Who a row is of: crops, people and networks by name; models by what the row says, and by their names.

    Of most public files, a row does not tell the epochs. The name of the model, and of the file where its command
    evaluates that one alone, tell them: public weights are known by their names.

    Args:
        row: of result rows, as DataFrame.itertuples gives.
    """
    if row.suite == "foreground":
        return Identity(row.condition)
    if row.method == "people":
        return Identity("people, trials pooled" if row.model == "people" else row.model)
    if row.method == "trials":
        network = PAPER_NETWORKS.get(row.model, "")
        return Identity("supervised, Caffe" if network else "", network)
    epoch = None if pd.isna(row.epoch) else int(row.epoch)
    return _identify_model(row.model, row.method, epoch, row.backbone, getattr(row, "command", ""))


@cache
def _identify_model(model: str, method: str, epoch: int | None, backbone: str, command: str) -> Identity:
    inputs = read_inputs(command)
    named = [*inputs.files, *inputs.models]
    names = [model, *(named if len(named) == 1 and not inputs.followed else [])]
    public = read_checkpoints()
    for name in (part for full in names for part in (full, PurePosixPath(full).stem)):
        if found := public.get(name):
            return Identity(found.method, found.backbone, found.epochs if epoch is None else epoch, released=True)
    base = re.sub(r"-(finetuned|linear)$", "", method)
    return Identity(METHODS.get(base, ""), backbone, epoch)
