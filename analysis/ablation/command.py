"""The command `ablation`: plan, do what is missing, and draw."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from analysis.ablation.basis import Basis, find_counterpart, read_bases, split_recipe, split_suite
from analysis.ablation.display import Watch, print_outcomes, print_plan
from analysis.ablation.drawing import draw_plan
from analysis.ablation.estimate import forecast_all, forecast_arm, measure_speeds, read_measured
from analysis.ablation.plan import EVALUATION, VARIED, Plan, make_plan
from analysis.ablation.programs import Command, ask_programs
from analysis.ablation.runner import list_slots, run_here
from analysis.ablation.slurm import Cluster, run_on_cluster
from analysis.ablation.state import check_folder, claim_folder, is_done
from pixmim_eval.errors import InputError

DONE, PARTIAL = 0, 4


def run_ablation(options: argparse.Namespace, words: Sequence[str]) -> int:
    """Do what is missing of an ablation and draw it; with --dry-run, say what that would be.

    Args:
        options: see arguments.add_ablation.
        words: the same as typed.

    Returns:
        Exit code: 0 done, 4 where some steps failed or were stopped.

    Raises:
        InputError: see make_plan, check_folder, list_slots; suites or data that the evaluations cannot take.
    """
    slots = [] if options.slurm else list_slots(options.jobs, options.gpus)
    plan = prepare_plan(options)
    check_folder(plan)
    missing = [(arm, step) for arm in plan.arms for step in arm.steps if not is_done(plan, arm, step)]
    _check_suites(options, {step.name.partition("#")[0] for _, step in missing})
    if options.dry_run:
        if options.measure:
            measure_speeds(plan, {**os.environ, **(slots[0] if slots else {})})
        lanes = len(slots) or options.at_once or len(plan.arms)
        measured = read_measured(plan)
        forecasts = [forecast_arm(plan, arm, measured) for arm in plan.arms]
        print_plan(plan, forecasts, forecast_all(forecasts, lanes), lanes)
        return DONE
    claim_folder(plan)
    for note in plan.notes:
        print(note, file=sys.stderr)
    code = _do_missing(plan, options, slots, words) if missing else DONE
    written = draw_plan(plan)
    for path in written:
        print(path)
    if not written:
        print("no figure yet: too few arms have rows that say how they were pretrained", file=sys.stderr)
    return code


def prepare_plan(options: argparse.Namespace) -> Plan:
    """The plan that the command line asks for. Raises InputError as make_plan."""
    if options.radii and options.ablation != "bandwidth":
        raise _refuse_option("--radii", "bandwidth", options.ablation)
    if options.measure and not options.dry_run:
        raise InputError(
            "options of the ablation",
            expected="--measure together with --dry-run",
            found="--measure alone",
            where="--measure",
            fix="Add --dry-run; a run measures itself.",
        )
    if options.supervised and options.ablation != "crop":
        raise _refuse_option("--supervised", "crop", options.ablation)
    return make_plan(
        options.ablation,
        options.out or Path(f"runs/ablation-{options.ablation}"),
        _read_bases(options),
        data=options.data,
        suites=[split_suite(text) for text in options.suites],
        evaluation_data=options.eval_data,
        radii=options.radii,
        gpus=options.gpus,
    )


def _refuse_option(option: str, wanted: str, found: str) -> InputError:
    return InputError(
        "options of the ablation",
        expected=f"{option} with {wanted} alone",
        found=f"ablation {found}",
        where=option,
        fix="Leave it out.",
    )


def _read_bases(options: argparse.Namespace) -> list[Basis]:
    recipe = split_recipe(options.recipe, VARIED[options.ablation])
    if options.ablation != "crop" or options.supervised == "none":
        return read_bases([recipe], options.data)
    if options.supervised:
        return read_bases([recipe, split_recipe(options.supervised, VARIED["crop"])], options.data)
    counterpart = find_counterpart(recipe)
    try:
        return read_bases([recipe, counterpart], options.data)
    except InputError as error:
        if shlex.join(("--recipe", *counterpart)) not in error.where:
            raise
        raise InputError(
            "supervised counterpart of the recipe",
            expected=f"that {shlex.join(counterpart)} runs on this data",
            found=error.found,
            where="--supervised",
            fix="Name another one, e.g. --supervised 'deit3-vit-s16 --epochs 300', or --supervised none.",
        ) from error


def _check_suites(options: argparse.Namespace, missing: set[str]) -> None:
    """Raise InputError now, and not after hours of pretraining, where an evaluation cannot take its options or data.

    The suites say so of the checkpoints that ship with the package.
    """
    data = options.eval_data or [options.data]
    suites = [split_suite(text) for text in options.suites]
    commands: list[Command] = [
        (*EVALUATION, *words, "--data", *data, "--dry-run") for words in suites if words[0] in missing
    ]
    ask_programs(commands)


def _do_missing(plan: Plan, options: argparse.Namespace, slots: Sequence[dict[str, str]], words: Sequence[str]) -> int:
    """Run the missing steps here or on a cluster, say what became of them, and return the exit code."""
    command = shlex.join(["python", "-m", "analysis.run", *words])
    with Watch(plan, since=0.0 if options.slurm else time.time() - 1) as watch:
        if options.slurm:
            cluster = Cluster(
                options.partition, options.account, options.hours, options.cpus, options.gpus, options.at_once
            )
            outcomes = run_on_cluster(plan, cluster, watch.show)
        else:
            outcomes = run_here(plan, slots, watch.show)
    if outcomes is None:
        print(f"the jobs go on; to come back to them: {command}", file=sys.stderr)
        return PARTIAL
    print_outcomes(plan, outcomes, command)
    return DONE if all(outcome.state in ("was done", "done") for outcome in outcomes) else PARTIAL
