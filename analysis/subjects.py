"""The models of a group: what they are called where they stand beside each other, and which of them form a pair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

IDENTITY = ["run", "model", "weights_digest", "method", "epoch", "seed"]


@dataclass(frozen=True)
class Subject:
    """One evaluated model of a group.

    Args:
        label: its unique name in this group's figure: the model's name, with the epoch, the first digits of the weights
            digest, the seed, the run or the method behind it only where two of them could not be told apart else.
        run, model, weights_digest, method, epoch, seed: as in ResultRow.
        family: subjects of one family are a method and its PixMIM version; they share a hue.
        chosen: what its head chose, e.g. "l2=0.001,pool=mean"; "" where nothing was to be chosen.
    """

    label: str
    run: str
    model: str
    weights_digest: str
    method: str
    epoch: int | None
    seed: int
    family: int
    chosen: str

    @property
    def is_pixmim(self) -> bool:
        return self.method.startswith("pixmim-")


def name_subjects(rows: pd.DataFrame) -> tuple[tuple[Subject, ...], pd.Series]:
    """Finds the models of some rows and names them.

    Args:
        rows: ResultRow columns and `chosen`, what a fitted head chose.

    Returns:
        The models, a baseline directly before its PixMIM version, and for each row the position of its model.
    """
    if rows.empty:
        return (), pd.Series(dtype=int, index=rows.index)
    models = rows[IDENTITY].drop_duplicates().reset_index(drop=True)
    labels = models["model"].map(clean_name)
    details = {
        "epoch": models["epoch"].map(lambda epoch: "epoch unknown" if pd.isna(epoch) else f"epoch {epoch}"),
        "weights_digest": "weights " + models["weights_digest"].astype(str).str[:6],
        "seed": "seed " + models["seed"].astype(str),
        "run": "run " + models["run"].astype(str),
        "method": models["method"].astype(str),
    }
    for column, detail in details.items():
        distinct = models.groupby(labels, sort=False)[column].transform(lambda values: values.nunique(dropna=False))
        labels = labels.where(distinct == 1, labels + " (" + detail + ")")
    families = _pair_families(models)
    by_model: Any = rows.groupby(IDENTITY, sort=False, dropna=False)
    found = []
    for position, (identity, part) in enumerate(by_model):
        run, model, digest, method, epoch, seed = identity
        chosen = "; ".join(sorted({*part["chosen"]} - {""}))
        label, family = labels[position], families[position]
        found.append(Subject(label, run, model, digest, method, _integer(epoch), int(seed), family, chosen))
    order = sorted(range(len(found)), key=lambda row: (found[row].family, found[row].is_pixmim))
    places = {row: place for place, row in enumerate(order)}
    return tuple(found[row] for row in order), by_model.ngroup().map(places)


def _pair_families(models: pd.DataFrame) -> list[int]:
    """A family number for each model: PixMIM-X joins X at its epoch, or the only X there is."""
    methods, epochs = models["method"].astype(str).tolist(), [_integer(epoch) for epoch in models["epoch"]]
    families, partners = list(range(len(methods))), set()
    for exact in (True, False):
        for row, method in enumerate(methods):
            if not method.startswith("pixmim-") or families[row] != row:
                continue
            base = method.removeprefix("pixmim-")
            alone = methods.count(base) == methods.count(method) == 1
            for other, other_method in enumerate(methods):
                fits = epochs[row] == epochs[other] if exact else alone
                if other_method == base and other not in partners and fits:
                    partners.add(other)
                    families[row] = families[other] = min(row, other)
                    break
    return families


def clean_name(name: str) -> str:
    """A name on one line."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in name).split())


def _integer(value: Any) -> int | None:
    return None if pd.isna(value) else int(value)
