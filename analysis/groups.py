"""Which result rows may stand beside each other in one figure or table, and what their models are called there.

Generated and downloaded corruptions, two heads, two poolings or two subsets of the images never share a figure: rows
are split into groups, one figure or table each, in which every condition has one setting for all models.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from analysis.subjects import IDENTITY, Subject, name_subjects
from pixmim_eval.errors import InputError

SUMMARY = "summary"
# What a condition's data decide, so that it may differ between the conditions of one model: clean images are files even
# where the corrupted ones are generated, and ImageNet-A is scored on 200 classes. Corrupted conditions share them all.
DATA_KEYS = frozenset({"frost", "label_space", "parameters", "source", "stored", "transform"})
# What a fitted head chooses for each model on held-out training images: the procedure is the protocol, not its outcome.
CHOSEN_KEYS = (frozenset({"l2", "pool"}), frozenset({"lr", "wd", "pool"}))  # of a logistic fit, of a cached sweep
OUTCOMES = ("held_out_top1",)  # of the choice; a key of the protocol
SETTING = ["procedure", "subset", "dataset", "dataset_digest"]

Setting = tuple[str, ...]


@dataclass(frozen=True)
class Group:
    """Rows of one suite that may stand beside each other.

    Args:
        suffix: ends the names of its files ("source-files"); "" where all rows are in one group.
        subjects: its models, a baseline directly before its PixMIM version.
        rows: ResultRow columns; `subject`, the position in subjects; `procedure`, the protocol less its head's choices.
        protocol: what all rows say, and what the corrupted ones say where the data decide it.
        dataset: name of the corrupted (else the first) data set.
    """

    suffix: str
    subjects: tuple[Subject, ...]
    rows: pd.DataFrame
    protocol: dict[str, str]
    dataset: str


def parse_protocol(protocol: str) -> dict[str, str]:
    """The "key=value;key=value" of a row as a dict; InputError where a piece has no "="."""
    pieces = [piece for piece in protocol.split(";") if piece]
    for piece in pieces:
        if "=" not in piece:
            raise InputError(
                "protocol of a result row",
                expected="key=value;key=value",
                found=repr(piece),
                where=repr(protocol),
                fix="Evaluate the model again with this version.",
            )
    return {key: value for key, _, value in (piece.partition("=") for piece in pieces)}


def split_protocol(protocol: str) -> tuple[str, str]:
    """A protocol less what its head chose, and that; less how many observers a row takes together, too.

    "head=probe(l2=1,pool=cls,train=9);pooling=cls" gives "head=probe(train=9)" and "l2=1,pool=cls".
    """
    values = parse_protocol(protocol)
    values.pop("observers", None)  # of people from files: a person and all of them stand side by side
    match = re.fullmatch(r"([^()]+)\((.*)\)", values.get("head", ""))
    arguments = match[2].split(",") if match else []
    names = {argument.partition("=")[0] for argument in arguments}
    keys = CHOSEN_KEYS[1] if match and match[1] == "cached" else CHOSEN_KEYS[0] if "l2" in names else frozenset()
    chosen = [argument for argument in arguments if argument.partition("=")[0] in keys]
    if match and chosen:
        fixed = [argument for argument in arguments if argument not in chosen]
        values["head"] = f"{match[1]}({','.join(fixed)})" if fixed else match[1]
        values.pop("pooling", None)
        chosen += [f"{key}={values.pop(key)}" for key in OUTCOMES if key in values]
    return ";".join(f"{key}={value}" for key, value in sorted(values.items())), ",".join(chosen)


def is_corrupted(condition: str) -> bool:
    """Whether a condition is a corruption at a severity, e.g. "fog/3"."""
    return re.fullmatch(r".+/[1-5]", condition) is not None


def describe_settings(settings: Sequence[dict[str, str]]) -> tuple[dict[str, str], list[str]]:
    """What several settings agree on, and for each a title of what tells it from the others."""
    keys = list(dict.fromkeys(key for setting in settings for key in setting))
    common = {key: settings[0][key] for key in keys if len({setting.get(key) for setting in settings}) == 1}
    titles = []
    for setting in settings:
        told = {key: value for key, value in setting.items() if key not in common}
        plain = [told.pop(key) for key in ("data", "condition") if key in told]
        titles.append(", ".join([*plain, *(f"{key}={value}" for key, value in told.items())]))
    return common, titles


def split_groups(rows: pd.DataFrame, suite: str) -> list[Group]:
    """Splits the rows of one suite into groups in which every condition has one setting for all models.

    A setting is the protocol (but not the penalty and pooling that a head chose), the data set with its digest, and the
    subset. Corrupted conditions of one group share their whole protocol and, where they are generated, their data set,
    which is that of its clean images; clean images and variants join every group that they fit.

    Args:
        rows: ResultRow columns, any number of runs and suites.
        suite: e.g. "robustness".

    Raises:
        InputError: no row of this suite; or one run that holds two different values of the same number.
    """
    rows = rows[rows["suite"] == suite]
    if rows.empty:
        raise InputError(
            "result rows",
            expected=f"rows of the suite {suite!r}",
            found="none",
            where="--runs",
            fix=f"Evaluate a model first: python -m pixmim_eval.run --suite {suite}.",
        )
    protocols = {protocol: split_protocol(protocol) for protocol in rows["protocol"].unique()}
    rows = rows.assign(
        procedure=rows["protocol"].map(lambda protocol: protocols[protocol][0]),
        chosen=rows["protocol"].map(lambda protocol: protocols[protocol][1]),
    )
    numbers = ["condition", "metric", "value", "low", "high", "n"]
    rows = rows.drop_duplicates([*IDENTITY, *SETTING, *numbers]).reset_index(drop=True)
    _check_unique(rows)
    pools = _fill_pools(_cut_blocks(rows))
    facts = [_describe(pool) for pool in pools]
    suffixes = _name_suffixes(facts)
    groups = []
    for pool, described, suffix in zip(pools, facts, suffixes, strict=True):
        members = rows.loc[[row for block in pool.blocks for row in block.rows]].sort_index()
        subjects, positions = name_subjects(members)
        protocol = {key: value for key, value in described.items() if key not in ("dataset", "subset")}
        groups.append(Group(suffix, subjects, members.assign(subject=positions), protocol, described["dataset"]))
    return groups


def _check_unique(rows: pd.DataFrame) -> None:
    doubles = rows[rows.duplicated([*IDENTITY, *SETTING, "condition", "metric"], keep=False)]
    if not doubles.empty:
        first = doubles.iloc[0]
        same = doubles[(doubles["condition"] == first["condition"]) & (doubles["metric"] == first["metric"])]
        raise InputError(
            "result rows",
            expected="one value for each run, model, seed, condition and metric",
            found=", ".join(f"{value:.4f}" for value in same["value"][:3]),
            where=f"{first['model']}, {first['condition']}, {first['metric']}",
            fix="Evaluate into a fresh --out, or name one run folder at a time with --runs.",
        )


@dataclass(frozen=True)
class _Block:
    """Rows of one model under one setting."""

    owner: tuple[object, ...]
    setting: Setting
    protocol: dict[str, str]
    keys: tuple[tuple[str, str], ...]
    corrupted: bool
    rows: tuple[int, ...]

    @property
    def clean_images(self) -> Setting | None:
        """Subset and data set of the clean images behind it; None for variants, and corruptions read from files."""
        generated = self.corrupted and self.protocol.get("source") == "generated"
        return self.setting[1:] if generated or any(condition == "clean" for condition, _ in self.keys) else None


@dataclass
class _Pool:
    """Blocks that fit together: for each (condition, metric) its setting, and what all protocols agree on."""

    blocks: list[_Block] = field(default_factory=list)
    settings: dict[tuple[str, str], Setting] = field(default_factory=dict)
    agreed: dict[str, str] = field(default_factory=dict)
    corrupted: Setting | None = None
    clean_images: Setting | None = None

    def accepts(self, block: _Block) -> bool:
        if block.corrupted and self.corrupted not in (None, block.setting[:2]):
            return False
        if block.clean_images and self.clean_images not in (None, block.clean_images):
            return False
        if any(self.settings.get(key, block.setting) != block.setting for key in block.keys):
            return False
        return all(self.agreed.get(key, value) == value for key, value in _invariants(block).items())

    def add(self, block: _Block) -> None:
        self.blocks.append(block)
        self.settings.update(dict.fromkeys(block.keys, block.setting))
        self.agreed.update(_invariants(block))
        self.clean_images = self.clean_images or block.clean_images
        if block.corrupted:
            self.corrupted = block.setting[:2]


def _invariants(block: _Block) -> dict[str, str]:
    return {key: value for key, value in block.protocol.items() if key not in DATA_KEYS}


def _cut_blocks(rows: pd.DataFrame) -> list[_Block]:
    blocks = []
    # A summary is computed from corrupted conditions: it goes where they go.
    corrupted = rows["condition"].map(lambda condition: condition == SUMMARY or is_corrupted(condition))
    keys = [rows[column] for column in (*IDENTITY, *SETTING)]
    parts: Any = rows.groupby([*keys, corrupted.rename("corrupted")], sort=False, dropna=False)
    for values, part in parts:
        setting = tuple(str(value) for value in values[len(IDENTITY) : -1])
        pairs = tuple(zip(part["condition"], part["metric"], strict=True))
        owner = tuple(None if pd.isna(value) else value for value in values[: len(IDENTITY)])
        blocks.append(_Block(owner, setting, parse_protocol(setting[0]), pairs, bool(values[-1]), tuple(part.index)))
    return blocks


def _fill_pools(blocks: list[_Block]) -> list[_Pool]:
    pools: list[_Pool] = []
    _pack((block for block in blocks if block.corrupted), pools)
    plain = [block for block in blocks if not block.corrupted]
    placed: set[int] = set()
    for pool in pools:
        owners = {block.owner for block in pool.blocks}
        subsets = {block.setting[1] for block in pool.blocks}
        # Those of the same subset first, where there are several.
        for block in sorted(plain, key=lambda block: block.setting[1] not in subsets):
            if block.owner in owners and pool.accepts(block):
                pool.add(block)
                placed.add(id(block))
    _pack((block for block in plain if id(block) not in placed), pools)
    return pools


def _pack(blocks: Iterable[_Block], pools: list[_Pool]) -> None:
    for block in blocks:
        for pool in pools:
            if pool.accepts(block):
                pool.add(block)
                break
        else:
            pools.append(_Pool())
            pools[-1].add(block)


def _describe(pool: _Pool) -> dict[str, str]:
    lead = next((block for block in pool.blocks if block.corrupted), pool.blocks[0])
    data = {key: value for key, value in lead.protocol.items() if key in DATA_KEYS}
    return {"dataset": lead.setting[2], "subset": lead.setting[1], **pool.agreed, **data}


def _name_suffixes(facts: list[dict[str, str]]) -> list[str]:
    """A short name for each group made of what differs between them."""
    keys = sorted({key for described in facts for key in described})
    keys = [key for key in keys if len({described.get(key) for described in facts}) > 1]
    names: list[str] = []
    for described in facts:
        pieces = [f"{key}-{described[key]}" for key in keys if key in described]
        name = re.sub(r"[^a-z0-9]+", "-", "-".join(pieces).lower()).strip("-")[:80]
        taken = [other for other in names if other == name or other.startswith(f"{name}-part-")]
        names.append(name if len(facts) == 1 or (name and not taken) else f"{name}-part-{len(taken) + 1}".strip("-"))
    return names
