"""What two checkpoints cannot be compared on, and why: not measured, measured otherwise, or measured twice."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from analysis.captions import format_interval, name_metric
from analysis.comparison.commands import exchange_checkpoint
from analysis.comparison.names import Checkpoint
from analysis.comparison.pairs import Measured, Setting
from analysis.groups import describe_settings, parse_protocol
from analysis.sources import list_sources, suggest_command

_EXAMPLES = 3


@dataclass(frozen=True)
class Missing:
    """Numbers of one suite and data set that only one checkpoint has.

    Args:
        checkpoint: the one without them.
        suite, dataset: of what.
        conditions, metrics: their names.
        numbers: how many.
        sources: rows of the other that has them.
        command: that would make them; "" where the checkpoint was measured just so, and there is no such number of it:
            a class that never occurs in its answers.
    """

    checkpoint: Checkpoint
    suite: str
    dataset: str
    conditions: tuple[str, ...]
    metrics: tuple[str, ...]
    numbers: int
    sources: tuple[int, ...]
    command: str

    def advise(self) -> str:
        """What to run, or why there is nothing to run."""
        return self.command or f"nothing: measured alike, it has no {list_examples(self.metrics)}"


@dataclass(frozen=True)
class Mismatch:
    """Numbers that both checkpoints have, but that were not measured alike.

    Args:
        suite: of what.
        conditions: their names.
        numbers: how many.
        first, second: what A's setting has and B's has not, and the other way round: "key=value, …".
        sources: rows of both.
        command: that would measure B as A was; "" where nothing would: a loss is of the target of pretraining.
    """

    suite: str
    conditions: tuple[str, ...]
    numbers: int
    first: str
    second: str
    sources: tuple[int, ...]
    command: str

    def describe(self) -> str:
        """What differs, in words."""
        return f"A has {self.first or 'nothing of its own'}, B has {self.second or 'nothing of its own'}"


@dataclass(frozen=True)
class Contradiction:
    """Several values of one number of one checkpoint: what was measured, and each value with its rows."""

    checkpoint: Checkpoint
    name: str
    values: tuple[tuple[str, tuple[int, ...]], ...]


Numbers = Mapping[Setting, list[Measured]]


def find_contradictions(checkpoint: Checkpoint, numbers: Numbers) -> list[Contradiction]:
    """Every number of which the rows have several values."""
    return [
        Contradiction(
            checkpoint,
            ", ".join((setting.suite, setting.condition, name_metric(setting.metric))),
            tuple((format_interval(one.estimate), list_sources(one.estimate)) for one in found),
        )
        for setting, found in numbers.items()
        if len(found) > 1
    ]


def find_gaps(
    checkpoints: tuple[Checkpoint, Checkpoint], sides: tuple[Numbers, Numbers]
) -> tuple[tuple[Missing, ...], tuple[Mismatch, ...]]:
    """What only one has, and what both have under settings that are not the same.

    Args:
        checkpoints: A and B.
        sides: their numbers.
    """
    lone = [
        {setting: found[0] for setting, found in side.items() if setting not in other}
        for side, other in (sides, sides[::-1])
    ]
    blocks = [_cut_blocks(side) for side in lone]
    mismatches, matched = _pair_blocks(checkpoints, lone, blocks)
    missing = []
    for place in (0, 1):
        left = {setting: one for setting, one in lone[place].items() if (place, setting) not in matched}
        missing += _list_missing(checkpoints[1 - place], left, {_strip(setting) for setting in sides[1 - place]})
    return tuple(missing), tuple(mismatches)


def _cut_blocks(side: Mapping[Setting, Measured]) -> dict[Setting, dict[tuple[str, str], Setting]]:
    """Setting less condition and metric -> (condition, metric) -> setting."""
    blocks: dict[Setting, dict[tuple[str, str], Setting]] = {}
    for setting in side:
        key = setting._replace(condition="", metric="")
        blocks.setdefault(key, {})[setting.condition, setting.metric] = setting
    return blocks


def _pair_blocks(
    checkpoints: tuple[Checkpoint, Checkpoint],
    lone: Sequence[Mapping[Setting, Measured]],
    blocks: Sequence[dict[Setting, dict[tuple[str, str], Setting]]],
) -> tuple[list[Mismatch], set[tuple[int, Setting]]]:
    """Each block of A beside the block of B that has the same numbers under the most similar setting."""
    found, matched = [], set()
    for key, own in blocks[0].items():
        rivals = [
            (other, common)
            for other, theirs in blocks[1].items()
            if other.suite == key.suite and (common := [name for name in own if name in theirs])
        ]
        if not rivals:
            continue
        facts = _describe(key, lone[0][next(iter(own.values()))].dataset)
        told = []
        for other, common in rivals:
            theirs = _describe(other, lone[1][blocks[1][other][common[0]]].dataset)
            told.append(tuple(describe_settings([facts, theirs])[1]))
        nearest = min(range(len(rivals)), key=lambda place: (sum(map(len, told[place])), place))
        other, common = rivals[nearest]
        pairs = [(own[name], blocks[1][other][name]) for name in common]
        matched |= {(place, pair[place]) for pair in pairs for place in (0, 1)}
        rows = [lone[place][pair[place]] for pair in pairs for place in (0, 1)]
        first, second = told[nearest]
        conditions = tuple(dict.fromkeys(condition for condition, _ in common))
        own_target = all(text.startswith("target=") and ", " not in text for text in (first, second))
        command = "" if own_target else _write_command(checkpoints[1], key.suite, rows[0].command)
        sources = list_sources(*(row.estimate for row in rows))
        found.append(Mismatch(key.suite, conditions, len(common), first, second, sources, command))
    return found, matched


def _describe(setting: Setting, dataset: str) -> dict[str, str]:
    """What a setting consists of, by name; the digest of the data stands behind their name."""
    own = {"data": f"{dataset}@{setting.dataset_digest[:6]}", "images": setting.subset, "seed": str(setting.seed)}
    return {**own, "unit": setting.unit, **parse_protocol(setting.procedure)}


def _strip(setting: Setting) -> Setting:
    return setting._replace(metric="", unit="")


def _list_missing(
    checkpoint: Checkpoint, left: Mapping[Setting, Measured], measured: Collection[Setting]
) -> list[Missing]:
    """What a checkpoint lacks, by suite, data set and the command that made the other's.

    Args:
        checkpoint: the one without.
        left: the other's numbers.
        measured: settings less metrics under which the checkpoint has numbers.
    """
    parts: dict[tuple[str, str, str], list[tuple[Setting, Measured]]] = {}
    for setting, one in left.items():
        command = "" if _strip(setting) in measured else _write_command(checkpoint, setting.suite, one.command)
        parts.setdefault((setting.suite, one.dataset, command), []).append((setting, one))
    return [
        Missing(
            checkpoint,
            suite,
            dataset,
            tuple(dict.fromkeys(setting.condition for setting, _ in found)),
            tuple(dict.fromkeys(setting.metric for setting, _ in found)),
            len(found),
            list_sources(*(one.estimate for _, one in found)),
            command,
        )
        for (suite, dataset, command), found in parts.items()
    ]


def _write_command(checkpoint: Checkpoint, suite: str, command: str) -> str:
    return exchange_checkpoint(command or suggest_command(suite), checkpoint.arguments)


def list_examples(names: Sequence[str]) -> str:
    """ "fog/1, fog/2, fog/3 and 72 more"."""
    more = f" and {len(names) - _EXAMPLES} more" if len(names) > _EXAMPLES else ""
    return ", ".join(names[:_EXAMPLES]) + more
