"""Two checkpoints over everything that both were measured on: by how much they differ, and what chance explains."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import pandas as pd

from analysis.comparison.gaps import Contradiction, Mismatch, Missing, find_contradictions, find_gaps
from analysis.comparison.names import Checkpoint, find_checkpoint
from analysis.comparison.pairs import Difference, Measured, Setting, list_differences, read_side
from analysis.separability import correct_together
from pixmim_eval.errors import InputError

BETTER, WORSE, HIGHER, LOWER, SAME, UNTESTED = "better", "worse", "higher", "lower", "not separable", "not tested"


@dataclass(frozen=True)
class CheckpointComparison:
    """What sets two checkpoints apart.

    Args:
        first, second: A and B; every difference is B − A.
        differences: those of the page, tested and corrected together.
        singles: single corruptions, classes and settings, corrected among themselves.
        missing: what only one of them has.
        mismatches: what both have, but by another protocol, on other data or with another seed.
        contradictions: numbers of which there are several values.
        notes: sentences on what else must be known.
    """

    first: Checkpoint
    second: Checkpoint
    differences: tuple[Difference, ...]
    singles: tuple[Difference, ...]
    missing: tuple[Missing, ...]
    mismatches: tuple[Mismatch, ...]
    contradictions: tuple[Contradiction, ...]
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """ "B − A"."""
        return f"{self.second.label} − {self.first.label}"

    def count(self) -> Counter[str]:
        """Verdict -> how many differences of the page have it."""
        return Counter(judge(found) for found in self.differences)


def judge(found: Difference) -> str:
    """The verdict on B: better or worse, higher or lower where neither is better, not separable, or not tested."""
    if found.adjusted is None:
        return UNTESTED
    if not found.separable:
        return SAME
    up = found.estimate.value > 0
    if found.direction == 0:
        return HIGHER if up else LOWER
    return BETTER if up == (found.direction > 0) else WORSE


def compare_checkpoints(rows: pd.DataFrame, a: str | Checkpoint, b: str | Checkpoint) -> CheckpointComparison:
    """B − A of every number that both have under the same suite, data, subset, condition, procedure, metric and seed.

    Where both have outcomes image by image, the interval is the paired bootstrap's and the test McNemar's (of means
    over corruptions the sign-flip test); else both follow from the two intervals as if the numbers were independent
    (see pairs.judge_intervals). All tests of the page are corrected together (Holm), the single ones in the
    same way among themselves. What a head chose on held-out images may differ; nothing else of a protocol may.

    Args:
        rows: as read_rows gives; with `hits` (attach_hits) for paired tests, with `source` for tracing.
        a, b: checkpoints, or what names them (see names.find_checkpoint).

    Raises:
        InputError: an unknown or ambiguous name, the same checkpoint twice, or nothing that both have.
    """
    first = a if isinstance(a, Checkpoint) else find_checkpoint(rows, a, where="A")
    second = b if isinstance(b, Checkpoint) else find_checkpoint(rows, b, where="B")
    if first == second:
        raise InputError(
            "the two checkpoints",
            expected="two of them",
            found=f"twice {first.describe()}",
            where="A, B",
            fix="Name another by the first digits of its weights’ digest.",
        )
    if first.label == second.label:
        first, second = (replace(one, label=f"{one.label} (weights {one.digest[:6]})") for one in (first, second))
    one, other = read_side(first.select(rows)), read_side(second.select(rows))
    contradictions = (*find_contradictions(first, one), *find_contradictions(second, other))
    missing, mismatches = find_gaps((first, second), (one, other))
    page, singles = list_differences(_keep_plain(one), _keep_plain(other), swapped=second.digest < first.digest)
    if not page and not singles:
        _refuse(first, second, missing, mismatches, contradictions)
    notes = _list_notes(first, second, rows)
    return CheckpointComparison(
        first,
        second,
        tuple(correct_together(page)),
        tuple(correct_together(singles)),
        missing,
        mismatches,
        contradictions,
        notes,
    )


def _keep_plain(side: dict[Setting, list[Measured]]) -> dict[Setting, Measured]:
    """What has one value."""
    return {key: found[0] for key, found in side.items() if len(found) == 1}


def _list_notes(first: Checkpoint, second: Checkpoint, rows: pd.DataFrame) -> tuple[str, ...]:
    notes = []
    if first.digest == second.digest:
        notes.append(f"Both are the same weights ({first.digest}): differences are of the evaluations, not of models.")
    versions = [{*one.select(rows)["versions"]} for one in (first, second)]
    if versions[0] != versions[1]:
        told = [_tell_versions(versions[place], versions[1 - place]) for place in (0, 1)]
        notes.append(f"Made with other versions: {first.label} {told[0]}; {second.label} {told[1]}.")
    return tuple(notes)


def _tell_versions(own: set[str], others: set[str]) -> str:
    """The packages' versions of one that the other has not."""
    pieces, known = ({piece for text in texts for piece in text.split(";")} for texts in (own, others))
    return ", ".join(sorted(pieces - known)) or "none of its own"


def _refuse(
    first: Checkpoint,
    second: Checkpoint,
    missing: tuple[Missing, ...],
    mismatches: tuple[Mismatch, ...],
    contradictions: tuple[Contradiction, ...],
) -> None:
    found = [f"{first.describe()} and {second.describe()} share no suite"]
    if mismatches:
        found = [f"{mismatches[0].suite}: {mismatches[0].describe()}"]
    elif contradictions:
        found = [f"{contradictions[0].checkpoint.label} has several values of {contradictions[0].name}"]
    commands = [*(one.command for one in mismatches if one.command), *(one.command for one in missing if one.command)]
    raise InputError(
        "what both checkpoints were measured on",
        expected="at least one number of the same suite, data, condition and protocol",
        found="; ".join(found),
        where="--runs",
        fix=f"Run {commands[0]}" if commands else "Evaluate both into a fresh --out.",
    )
