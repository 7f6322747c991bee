"""What a run has to do, what of it is done, and doing the rest, a few models at a time."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pixmim_eval.extract import process_rank, share
from pixmim_eval.files import cache_dir
from pixmim_eval.models.catalog import FEW
from pixmim_eval.progress import progress
from pixmim_eval.results import RunFolder
from pixmim_eval.suites import EvaluationSuite, compute_key
from pixmim_eval.types import Model, SuiteConfig

_RECOVERABLE = (RuntimeError, FloatingPointError)  # out of memory, a model that gives NaN: other conditions can go on


@dataclass(frozen=True)
class Task:
    """One condition of one model, and whether its rows are stored."""

    model: Model
    condition: str
    key: str
    done: bool


@dataclass
class Work:
    """What was done: the keys of all conditions, and what failed and why."""

    keys: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def do_work(
    suite: EvaluationSuite, models: Sequence[Model], config: SuiteConfig, folder: RunFolder, work: Work
) -> list[str]:
    """Evaluate what is missing, a few models at a time, note it in `work`, and return the keys of what was missing.

    Any number of models may be named: those that were evaluated are dropped before the next are loaded (see
    catalog.LazyModels).

    Raises:
        InputError: at the first bad input; what was stored before stays.
    """
    return [key for part in _split(models) for key in _do_part(suite, models[part], config, folder, work)]


def _do_part(
    suite: EvaluationSuite, models: Sequence[Model], config: SuiteConfig, folder: RunFolder, work: Work
) -> list[str]:
    tasks = plan_tasks(suite, models, config, folder)
    work.keys += [task.key for task in tasks]
    work.failures += evaluate(suite, tasks, config, folder)
    return [task.key for task in tasks if not task.done]


def _split(models: Sequence[Model]) -> Iterator[slice]:
    return (slice(start, start + FEW) for start in range(0, len(models), FEW))


def plan_tasks(suite: EvaluationSuite, models: Sequence[Model], config: SuiteConfig, folder: RunFolder) -> list[Task]:
    """Every condition of every model, condition by condition, so that models share the images in memory.

    Of models with the same weights, which have the same key, the first is to do and the others are done.
    """
    for model in models:
        if model.encoder is not None:
            model.encoder.to(config.device)
    pairs = [(model, condition) for condition in suite.conditions(config) for model in models]
    keys = share([compute_key(suite, model, condition, config) for model, condition in pairs])
    done = share([folder.has(key) or key in keys[:place] for place, key in enumerate(keys)])
    return [Task(*pair, key, known) for pair, key, known in zip(pairs, keys, done, strict=True)]


def evaluate(suite: EvaluationSuite, tasks: Sequence[Task], config: SuiteConfig, folder: RunFolder) -> list[str]:
    """Do the missing tasks, storing the rows of each before the next begins, and return what failed and why.

    Rows of tasks that are done get the name that their model has now: which names tell models apart depends on what
    else the command line names.

    Raises:
        InputError: at the first bad input; what was stored before stays.
    """
    rank, world_size = process_rank()
    failures: list[str] = []
    missing = [task for task in tasks if not task.done]
    if rank == 0 and len(missing) < len(tasks):
        print(f"{len(tasks) - len(missing)} of {len(tasks)} conditions are done already", file=sys.stderr)
        for task in {task.key: task for task in reversed(tasks)}.values():
            if task.done:
                folder.rename_model(task.key, task.model.name)
    with progress(description=suite.name, total=len(missing), unit="condition", quiet=rank > 0 or not missing) as bar:
        for task in missing:
            try:
                outcome = suite.run(task.model, task.condition, config)
            except _RECOVERABLE as error:
                if world_size > 1:  # the other processes wait for this one: torchrun ends them all
                    raise
                failures.append(f"{task.condition} of {task.model.name}: {type(error).__name__}: {error}")
                continue
            if rank == 0:
                folder.write(task.key, outcome)
            bar.update()
    return failures


@dataclass
class Plan:
    """What a run would do, in words and numbers, so that no model need stay in memory.

    Args:
        models: a line each.
        conditions: how many, of all models.
        missing: condition -> names of the models that lack it.
        passes: (model, name of the pass) -> images.
        kept: name -> bytes of decoded images.
    """

    models: list[str] = field(default_factory=list)
    conditions: int = 0
    missing: dict[str, list[str]] = field(default_factory=dict)
    passes: dict[tuple[str, str], int] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)


def make_plan(suite: EvaluationSuite, models: Sequence[Model], config: SuiteConfig, folder: RunFolder) -> Plan:
    """What `do_work` would do."""
    plan = Plan()
    for part in _split(models):
        _add_part(plan, suite, models[part], config, folder)
    return plan


def _add_part(
    plan: Plan, suite: EvaluationSuite, models: Sequence[Model], config: SuiteConfig, folder: RunFolder
) -> None:
    tasks = plan_tasks(suite, models, config, folder)
    plan.conditions += len(tasks)
    for model in models:
        plan.models.append(_describe_model(model, suite))
        plan.kept |= [suite.measure_images(model, config)]
    for task in (task for task in tasks if not task.done):
        plan.missing.setdefault(task.condition, []).append(task.model.name)
        images = suite.count_images(task.model, task.condition, config)
        plan.passes |= {(task.model.name, name): count for name, count in images.items()}


def _describe_model(model: Model, suite: EvaluationSuite) -> str:
    """Who a plan's line is about, and what it needs."""
    if model.encoder is None:
        return f"{model.name}: method {model.method}, answers {model.digest}"
    classifier = ", own classifier" if model.classify else ", a linear head is fitted"
    epoch = "unknown" if model.epoch is None else model.epoch
    told = f"{model.name}: method {model.method}, epoch {epoch}, weights {model.digest}"
    return told + (classifier if "train" in suite.accepts else "")


def print_plan(plan: Plan, suite: EvaluationSuite, config: SuiteConfig) -> None:
    """Models, data sets, conditions done and missing, room on disk, images through models."""
    print(f"suite {suite.name} -> {config.out}")
    for line in plan.models:
        print(f"model {line}")
    for role, manifest in config.data.items():
        print(f"data {role}: {manifest.name}, n = {len(manifest)}, digest {manifest.digest}")
    missing = sum(len(models) for models in plan.missing.values())
    print(f"conditions: {plan.conditions} = {plan.conditions - missing} done + {missing} missing")
    for condition, models in plan.missing.items():
        print(f"missing {condition}: {', '.join(models)}")
    kept = sum(plan.kept.values())
    print(f"disk: {kept / 2**30:.2f} GiB of decoded images in {cache_dir()}, kept for the next run")
    print(f"forward passes: at most {sum(plan.passes.values())} images (cached outputs are not computed again)")
