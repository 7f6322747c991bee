"""The benchmark of model-vs-human: means over its experiments, and the table that ranks models by how like people."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from pixmim_eval.data.panels import Panel, is_person
from pixmim_eval.data.stimuli import EXPERIMENTS
from pixmim_eval.errors import InputError
from pixmim_eval.metrics.consistency import average, resample_mean
from pixmim_eval.results import format_protocol, hash_parts, make_rows
from pixmim_eval.seeds import derive_seed
from pixmim_eval.suites.decisions import (
    PEOPLE,
    UNITS,
    Comparison,
    answers_of,
    compare_model,
    compare_panel,
    decide_images,
    kept_levels,
    list_observers,
    name_observer,
    stimuli_of,
    trials_of,
)
from pixmim_eval.types import Estimate, Model, ResultRow, SuiteConfig

BENCHMARK = "benchmark"
_RANKED = {"accuracy_difference_people": True, "observed_consistency_people": False, "error_consistency_people": False}
"""Metrics of the benchmark's table, and whether less is better."""


def benchmark_model(suite: str, model: Model, panels: Mapping[str, Panel], config: SuiteConfig) -> list[ResultRow]:
    """The means of a model over experiments."""
    parts, skipped, protocol = [], 0, {}
    for name, panel in panels.items():
        decisions = decide_images(model, stimuli_of(config).sets[name], config)
        kept = kept_levels(panel)
        scored = np.isin(decisions.stimuli.levels[decisions.answered], kept)
        parts.append((name, decisions.correct[scored].astype(float), compare_model(decisions, panel, config, kept)))
        skipped += decisions.skipped
        protocol = dict(decisions.protocol)
    return make_rows(
        model,
        stimuli_of(config),
        _average_experiments(parts, config),
        suite=suite,
        condition=BENCHMARK,
        protocol=format_protocol(**protocol, experiments=_describe_experiments(panels)),
        config=config,
        skipped=skipped,
    )


def benchmark_observers(suite: str, panels: Mapping[str, Panel], config: SuiteConfig) -> list[ResultRow]:
    """The means over experiments of all people together, and of each network that took part in all of them."""
    everywhere = set.intersection(*(set(list_observers(panel)) for panel in panels.values()))
    names = [name for name in sorted(everywhere) if not is_person(name)]
    if not names:
        raise InputError(
            "files of trials",
            expected="people, or a network, that took part in every experiment",
            found="none",
            where=", ".join(panels),
            fix="Add the missing files.",
        )
    comparisons = {name: compare_panel(panel, config, kept_levels(panel)) for name, panel in panels.items()}
    rows: list[ResultRow] = []
    for name in names:
        parts = []
        for experiment, panel in panels.items():
            kept = kept_levels(panel)
            scored = np.isin(panel.levels, kept)
            accuracy = (answers_of(panel, name) == panel.shapes)[:, scored].mean(axis=0)
            parts.append((experiment, accuracy, comparisons[experiment].get(name)))
        first = next(iter(panels.values()))
        model = replace(name_observer(name, first), digest=hash_parts(trials_of(config).digest, name))
        protocol = format_protocol(experiments=_describe_experiments(panels), source="trials")
        rows += make_rows(
            model,
            trials_of(config),
            _average_experiments(parts, config),
            suite=suite,
            condition=BENCHMARK,
            protocol=protocol,
            config=replace(config, limit=None),
        )
    return rows


def _average_experiments(
    parts: Sequence[tuple[str, np.ndarray, Comparison | None]], config: SuiteConfig
) -> dict[str, Estimate]:
    """Means over experiments of accuracy (one value an image) and of the comparison with people."""
    seeds = [derive_seed(config.seed, name, "accuracy") for name, _, _ in parts]
    accuracy = [resample_mean(values, seed=seed) for (_, values, _), seed in zip(parts, seeds, strict=True)]
    estimates = {"ood_accuracy": average(accuracy).estimate("fraction")}
    compared = [comparison for _, _, comparison in parts if comparison is not None and len(comparison.of_people)]
    if len(compared) == len(parts):
        for metric, unit in UNITS.items():
            means = [comparison.found[metric].mean(comparison.of_people) for comparison in compared]
            estimates[f"{metric}_{PEOPLE}"] = average(means).estimate(unit)
    return estimates


def _describe_experiments(names: Collection[str]) -> str:
    return str(len(names)) if set(names) == set(EXPERIMENTS) else ",".join(names)


def rank_models(rows: Sequence[ResultRow]) -> pd.DataFrame:
    """The table of the benchmark.

    Args:
        rows: of condition "benchmark"; the latest counts where a model has several.

    Returns:
        One line a model, the one most like people first, and people last: model, accuracy_difference_people,
        observed_consistency_people, error_consistency_people, mean_rank (over the ranks of these three, ties sharing
        theirs), ood_accuracy. People have no rank.
    """
    found = {(row.model, row.metric): row.value for row in sorted(rows, key=lambda row: row.time)}
    table = pd.Series(found).unstack()
    table = table.reindex(columns=[*_RANKED, "ood_accuracy"])
    models = table.drop(index=PEOPLE, errors="ignore")
    ranks = [models[metric].rank(ascending=less) for metric, less in _RANKED.items()]
    table.insert(len(_RANKED), "mean_rank", pd.concat(ranks, axis=1).mean(axis=1, skipna=False))
    return table.sort_values("mean_rank", na_position="last", kind="stable").rename_axis("model").reset_index()


def format_table(table: pd.DataFrame) -> str:
    """Markdown, three digits; "–" where there is no number."""
    lines = ["| " + " | ".join(table.columns) + " |", "|---" * len(table.columns) + "|"]
    for values in table.itertuples(index=False):
        cells = [value if isinstance(value, str) else "–" if pd.isna(value) else f"{value:.3f}" for value in values]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
