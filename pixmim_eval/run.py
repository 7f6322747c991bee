"""The evaluation command: `python -m pixmim_eval.run --suite NAME …`; `… rows DIR` prints what is stored,
`… inspect FILE` says what a checkpoint is, `… convert FILE --to LAYOUT --out OUT` writes it in another library's names,
and `… export --data PATH --out DIR` writes corrupted images in ImageNet-C's layout.
"""

from __future__ import annotations

import argparse
import glob
import importlib
import json
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixmim_eval.arguments import DEFAULT_OUT, parse_convert, parse_export, parse_inspect, parse_rows, parse_suite
from pixmim_eval.errors import InputError
from pixmim_eval.flags import read_flags
from pixmim_eval.results import RunFolder, read_rows
from pixmim_eval.types import Model, ResultRow, SuiteConfig

if TYPE_CHECKING:  # torch takes seconds to import: printing rows and help must not wait for it
    from pixmim_eval.models.catalog import LazyModels
    from pixmim_eval.suites import EvaluationSuite

DONE, BAD_INPUT, PARTIAL = 0, 2, 4
WAIT = timedelta(days=1)  # for a process that works alone, such as the first one fitting heads
DEFAULT_REPORTS = Path("reports")
_NAMES_WIDTH, _CELL_WIDTH = 44, 24  # of the summary: condition and metric; a number with its interval
_MOST_SETTINGS = 3  # that are listed where they differ


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 2 bad input, 4 some conditions failed."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if words[:1] == ["rows"]:
            return print_rows(parse_rows(words[1:]))
        if words[:1] == ["inspect"]:
            return inspect_files(parse_inspect(words[1:]))
        if words[:1] == ["convert"]:
            return convert_file(parse_convert(words[1:]))
        if words[:1] == ["export"]:
            return export_images(parse_export(words[1:]))
        options = parse_suite(words, find_options)
        options.command = shlex.join(["python", "-m", "pixmim_eval.run", *words])
        return run_suite(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except BrokenPipeError:  # whoever reads the output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PARTIAL


def print_rows(options: argparse.Namespace) -> int:
    """Print every stored row of a run folder: CSV, or a JSON array of objects."""
    rows = read_rows(options.directory)
    if options.json:
        print(json.dumps([asdict(row) for row in RunFolder(options.directory).read()], indent=1))
    else:
        print(rows.to_csv(index=False), end="")
    return DONE


def run_suite(options: argparse.Namespace) -> int:
    """Load what the command line names, evaluate it, print a summary and draw the suite's figures and tables."""
    from pixmim_eval.devices import resolve_device
    from pixmim_eval.extract import process_rank
    from pixmim_eval.suites import load_suite
    from pixmim_eval.tasks import Work, do_work, make_plan, print_plan

    suite, out, work = load_suite(options.suite), options.out or DEFAULT_OUT, Work()
    with join_processes(resolve_device(options.device)) as device:
        first = process_rank()[0] == 0
        models = load_named(options, suite)
        config = build_config(options, suite, models, device)
        models = models + suite.subjects(config)
        _check_models(models, options)
        if options.dry_run:
            plan = make_plan(suite, models, config, RunFolder(out))
            if first:
                print_plan(plan, suite, config)
            return DONE
        following = options.follow if suite.takes_models else None
        try:
            for batch in follow_models(following, suite, config, quiet=not first) if following else [models]:
                fresh = do_work(suite, batch, config, RunFolder(out), work)
                if following and fresh and first:
                    print_summary(RunFolder(out).read(fresh))
        except KeyboardInterrupt:
            if not following:
                raise
            work.failures.append(f"stopped before the last epoch of {following}; the same command goes on")
    if not first:
        return DONE
    reports = DEFAULT_REPORTS if options.out is None else out / "reports"
    code = report_results(work.keys, work.failures, out, reports)
    shown = load_named(options, suite) + suite.subjects(config) if following else models
    for path in suite.draw(shown, config, reports / "figures"):
        print(path)
    return code


def load_named(options: argparse.Namespace, suite: EvaluationSuite) -> list[Model] | LazyModels:
    """The models that the command line names; of a run that is followed, those that are there."""
    from pixmim_eval.follow import list_checkpoints
    from pixmim_eval.models.catalog import load_models

    if not suite.takes_models:
        return []
    if not options.follow:
        return load_models(options.checkpoint, options.model)
    if options.model:
        raise InputError(
            "models",
            expected="--follow alone",
            found="--model " + " ".join(options.model),
            where="--follow",
            fix="Evaluate timm models in a command of their own, with the same --out.",
        )
    files = list_checkpoints(options.follow)
    return load_models([glob.escape(str(file)) for file in files]) if files else []


def follow_models(run: Path, suite: EvaluationSuite, config: SuiteConfig, *, quiet: bool) -> Iterator[Sequence[Model]]:
    """The suite's own subjects, then the checkpoints of a pretraining run, one by one as they come."""
    from pixmim_eval.follow import wait_for_checkpoints
    from pixmim_eval.models.catalog import load_models

    yield suite.subjects(config)
    for file in wait_for_checkpoints(run, quiet=quiet):
        yield load_models([glob.escape(str(file))])


def build_config(
    options: argparse.Namespace, suite: EvaluationSuite, models: Sequence[Model], device: str
) -> SuiteConfig:
    """What the command line gives to a suite; opens the data."""
    from pixmim_eval.corruptions import resolve_names
    from pixmim_eval.suites.roles import open_data, open_files

    names, out = resolve_names(options.corruptions), options.out or DEFAULT_OUT
    heads = "train" in suite.accepts and (bool(options.follow) or any(not model.classify for model in models))
    return SuiteConfig(
        data=open_data(options.data, suite, with_train=heads or "train" in suite.needs, corruptions=names),
        files=open_files(options.data, suite),
        run=out.resolve().name,
        out=out,
        options=suite.options(**read_flags(options, suite.options)) if suite.options else None,
        command=options.command,
        **_read_settings(options, device, names),
    )


def find_options(suite: str) -> type[Any] | None:
    """The dataclass of a suite's own options. Raises InputError for an unknown suite."""
    from pixmim_eval.suites import load_suite

    return load_suite(suite).options


def _read_settings(options: argparse.Namespace, device: str, corruptions: tuple[str, ...]) -> dict[str, Any]:
    """The fields of SuiteConfig that are options of the same name, and two that were worked out."""
    names = ("limit", "seed", "batch_size", "workers", "on_bad_image", "jpeg_step")
    return {"device": device, "corruptions": corruptions, **{name: getattr(options, name) for name in names}}


def inspect_files(options: argparse.Namespace) -> int:
    """Print a report on each checkpoint."""
    from pixmim_eval.models.checkpoints.inspection import format_report, inspect_checkpoint

    for file in options.files:
        print(format_report(inspect_checkpoint(file)))
    return DONE


def convert_file(options: argparse.Namespace) -> int:
    """Write a checkpoint in another library's names, and print what was written and how that library loads it."""
    from pixmim_eval.models.checkpoints.export import export_checkpoint, format_export

    print(format_export(export_checkpoint(options.file, options.to, options.out, decoder=options.decoder)))
    return DONE


def export_images(options: argparse.Namespace) -> int:
    """Write every cell of the corruptions asked for as image files."""
    from pixmim_eval.corruptions import resolve_names
    from pixmim_eval.data import open_manifest
    from pixmim_eval.devices import resolve_device
    from pixmim_eval.extract.export import export_corrupted
    from pixmim_eval.types import Preprocessing

    manifest = open_manifest(options.data)
    resize = options.resize or round(options.size * 8 / 7)
    settings = _read_settings(options, resolve_device(options.device), resolve_names(options.corruptions))
    config = SuiteConfig(data={"val": manifest}, **settings)
    written = export_corrupted(
        manifest, Preprocessing(options.size, resize, options.interpolation), config, options.out
    )
    print(f"{written} cells written to {options.out}")
    print(f"evaluate them: python -m pixmim_eval.run --suite robustness --data {options.data} imagenet-c={options.out}")
    return DONE


def _check_models(models: Sequence[Model], options: argparse.Namespace) -> None:
    if not models and not options.follow:
        raise InputError(
            "models",
            expected="at least one",
            found="none, and no shipped checkpoints",
            where="--checkpoint, --model",
            fix="Name one: --checkpoint FILE or --model TIMM_NAME.",
        )


def report_results(keys: Sequence[str], failures: Sequence[str], out: Path, reports: Path) -> int:
    """Print a summary of what is stored, draw its figures and tables, and return the exit code."""
    folder = RunFolder(out)
    print_summary(folder.read(keys))
    print(f"rows: {folder.rows}")
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    drawn = draw_reports(out, reports)
    return PARTIAL if failures or not drawn else DONE


@contextmanager
def join_processes(device: str) -> Iterator[str]:
    """Join the group of processes that torchrun started, if any, and leave it at the end; gives the device."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    import torch

    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    backend = "nccl" if device == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, timeout=WAIT)
    try:
        yield device
    finally:
        torch.distributed.destroy_process_group()


def print_summary(rows: Sequence[ResultRow]) -> None:
    """A table with a column a model and a line a number, but for single cells and bands: with 95 % intervals.

    Where there are more models than columns fit, more tables; and below them how the models were measured.
    """
    from rich.console import Console
    from rich.table import Table

    shown = [row for row in rows if "/" not in row.condition + row.metric]
    models = list(dict.fromkeys(row.model for row in shown))
    cells = {(row.condition, row.metric, row.model): row for row in shown}
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 240)
    fitting = max((console.width - _NAMES_WIDTH) // _CELL_WIDTH, 1)
    for first in range(0, len(models), fitting):
        part = models[first : first + fitting]
        table = Table("condition", "metric", *part)
        previous = ""
        for condition, metric in dict.fromkeys((row.condition, row.metric) for row in shown if row.model in part):
            if previous not in ("", condition):
                table.add_section()
            found = (_format_cell(cells.get((condition, metric, model))) for model in part)
            table.add_row("" if condition == previous else condition, metric, *found)
            previous = condition
        console.print(table)
    console.print(f"protocol: {_describe_protocols(shown)}", markup=False, highlight=False)


def _describe_protocols(rows: Sequence[ResultRow]) -> str:
    """Every setting of the rows' protocols, "key=value", and "key=value | value" where it is not the same in all."""
    found: dict[str, dict[str, None]] = {}
    for row in rows:
        for setting in filter(None, row.protocol.split(";")):
            key, _, value = setting.partition("=")
            found.setdefault(key, {})[value] = None
    texts = {key: list(values) for key, values in sorted(found.items())}
    return ", ".join(
        f"{key}={' | '.join(values[:_MOST_SETTINGS])}{' | …' if len(values) > _MOST_SETTINGS else ''}"
        for key, values in texts.items()
    )


def _format_cell(row: ResultRow | None) -> str:
    """ "71.3 % [68.5, 73.9]" of a fraction, "0.713 [0.685, 0.739]" of a ratio."""
    if row is None:
        return "–"
    if row.unit == "fraction":
        return f"{100 * row.value:.1f} % [{100 * row.low:.1f}, {100 * row.high:.1f}]"
    return f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]"


def draw_reports(out: Path, reports: Path) -> bool:
    """Let the analysis draw figures and tables of a run folder, and say where they are; whether all went well."""
    analysis = importlib.import_module("analysis.run")  # by name: analysis stands above this package
    done = True
    for view in ("figures", "tables"):
        done &= analysis.main([view, "--runs", str(out), "--out", str(reports)]) == DONE
    return done


if __name__ == "__main__":
    sys.exit(main())
