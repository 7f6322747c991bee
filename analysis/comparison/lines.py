"""What a comparison says, line by line: names, numbers as text, marks and verdicts, for terminal, page and figure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from analysis.captions import name_metric
from analysis.comparison.checkpoints import BETTER, HIGHER, LOWER, SAME, UNTESTED, WORSE, CheckpointComparison, judge
from analysis.comparison.pairs import FROM_INTERVALS, PAIRED, PAIRED_MEAN, TESTS, Difference
from analysis.groups import SUMMARY, describe_settings, parse_protocol
from analysis.subjects import clean_name
from pixmim_eval.types import Estimate

MARKS = {BETTER: "+", WORSE: "−", SAME: "=", HIGHER: "▲", LOWER: "▼", UNTESTED: "?"}
DIRECTIONS = {1: "more is better", -1: "less is better", 0: "neither is better"}


@dataclass(frozen=True)
class Line:
    """One difference and what it is called.

    Args:
        name: of the number, unique in its suite, without its unit.
        verdict: see compare.judge; `mark` is its sign.
        found: the difference.
    """

    name: str
    verdict: str
    found: Difference

    @property
    def mark(self) -> str:
        return MARKS[self.verdict]

    @property
    def suite(self) -> str:
        return self.found.setting.suite

    @property
    def unit(self) -> str:
        return self.found.setting.unit

    @property
    def favour(self) -> Estimate:
        """The difference turned so that positive is in B's favour; B − A where neither is better."""
        estimate = self.found.estimate
        if self.found.direction >= 0:
            return estimate
        return replace(estimate, value=-estimate.value, low=-estimate.high, high=-estimate.low)


def list_lines(comparison: CheckpointComparison) -> list[Line]:
    """The page's differences, suite by suite."""
    lines = []
    for suite in dict.fromkeys(found.setting.suite for found in comparison.differences):
        part = [found for found in comparison.differences if found.setting.suite == suite]
        names = _name(part)
        lines += [Line(name, judge(found), found) for name, found in zip(names, part, strict=True)]
    return lines


def _name(differences: Sequence[Difference]) -> list[str]:
    """Condition (unless all are of clean images), metric, and whatever else tells equal names apart."""
    plain = {SUMMARY} if {found.setting.condition for found in differences} - {"clean"} else {SUMMARY, "clean"}
    names = []
    for found in differences:
        setting = found.setting
        condition = [] if setting.condition in plain else [setting.condition.replace("_", " ")]
        names.append(clean_name(", ".join([*condition, name_metric(setting.metric)])))
    for name, count in Counter(names).items():
        if count > 1:
            places = [place for place, other in enumerate(names) if other == name]
            titles = describe_settings([describe_setting(differences[place]) for place in places])[1]
            for place, title in zip(places, titles, strict=True):
                names[place] = f"{name} ({title})"
    return names


def describe_setting(found: Difference) -> dict[str, str]:
    """Data, subset, seed and protocol of a difference, by name."""
    setting = found.setting
    data = f"{found.dataset}@{setting.dataset_digest[:6]}"
    return {"data": data, "images": setting.subset, "seed": str(setting.seed), **parse_protocol(setting.procedure)}


def describe_verdict(comparison: CheckpointComparison) -> str:
    """ "pixmim-mae is better than mae on 4, worse on 1, not separable on 12 of 17." """
    counts, total = comparison.count(), len(comparison.differences)
    pieces = [f"better than {comparison.first.label} on {counts[BETTER]}", f"worse on {counts[WORSE]}"]
    if counts[HIGHER] or counts[LOWER]:
        neither = f"higher on {counts[HIGHER]} and lower on {counts[LOWER]} where neither is better"
        pieces.append(neither)
    pieces.append(f"not separable on {counts[SAME]}")
    pieces += [f"not tested on {counts[UNTESTED]}"] if counts[UNTESTED] else []
    return f"{comparison.second.label} is {', '.join(pieces)} of {total}."


def describe_tests(differences: Sequence[Difference]) -> list[str]:
    """Sentences on how the differences of a page were tested."""
    counts = Counter(found.test for found in differences)
    tested = sum(found.probability is not None for found in differences)
    sentences = [
        f"Separable: p (Holm), corrected for the {tested} tests of this page, is below 0.05."
        " Intervals are 95 %, of each difference by itself."
    ]
    if counts[PAIRED] or counts[PAIRED_MEAN]:
        kinds = [f"“{kind}” is {TESTS[kind]}" for kind in (PAIRED, PAIRED_MEAN) if counts[kind]]
        sentences.append(f"Paired: {'; '.join(kinds)}; the interval is the paired bootstrap’s over images.")
    if counts[FROM_INTERVALS]:
        sentences.append(
            f"Not paired: “{FROM_INTERVALS}” ({counts[FROM_INTERVALS]}), as outcomes image by image are unknown;"
            " interval and p follow from both intervals as if the numbers were independent, which is conservative on"
            " the same images."
        )
    return sentences


def describe_singles(comparison: CheckpointComparison) -> list[str]:
    """A sentence on the differences that stand in the CSV alone."""
    if not comparison.singles:
        return []
    separable = sum(found.separable for found in comparison.singles)
    return [
        f"{len(comparison.singles)} more differences, of single corruptions, classes or settings, stand in the CSV;"
        f" corrected among themselves, {separable} of them {'is' if separable == 1 else 'are'} separable."
    ]


def tabulate_comparison(comparison: CheckpointComparison) -> pd.DataFrame:
    """Every difference in long form, one a row, raw numbers."""
    sides = {"a": comparison.first, "b": comparison.second}
    models = {
        f"{side}_{name}": value
        for side, one in sides.items()
        for name, value in {"model": one.label, "weights_digest": one.digest}.items()
    }
    families = {"page": comparison.differences, "single": comparison.singles}
    records = [
        {
            **models,
            "family": family,
            "suite": found.setting.suite,
            "dataset": found.dataset,
            "dataset_digest": found.setting.dataset_digest,
            "subset": found.setting.subset,
            "condition": found.setting.condition,
            "metric": found.setting.metric,
            "unit": found.setting.unit,
            "direction": DIRECTIONS[found.direction],
            **_spell("a", found.first),
            **_spell("b", found.second),
            **_spell("difference", found.estimate),
            "n": found.estimate.n,
            "test": TESTS[found.test],
            "p": found.probability,
            "holm_p": found.adjusted,
            "verdict": judge(found),
            "conditions_averaged": found.parts,
            "seed": found.setting.seed,
            "protocol": found.setting.procedure,
        }
        for family, differences in families.items()
        for found in differences
    ]
    return pd.DataFrame(records)


def _spell(name: str, estimate: Estimate) -> dict[str, float]:
    return {f"{name}_value": estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
