"""Pretrain an encoder: python -m pretrain.run --recipe NAME [--data PATH] [--out DIR] [--FIELD VALUE …]."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pixmim_eval.data import open_manifest
from pixmim_eval.devices import resolve_precision
from pixmim_eval.errors import InputError, NonFiniteLossError
from pixmim_eval.files import write_atomic
from pixmim_eval.flags import add_flags, read_flags
from pixmim_eval.training import TrainingSettings, build_fabric, scale_learning_rate, train
from pixmim_eval.types import Manifest
from pretrain.recipes import RECIPES, SUPERVISED, Recipe, check_recipe, describe_method, get_recipe, read_settings
from pretrain.supervised_task import SupervisedLearning
from pretrain.task import MaskedImageModeling, PretrainingTask, measure_side

# Fields that may change between a start and its resumption: they do not touch the numbers.
FREE_FIELDS = {"save_every", "save_dtype", "draw_every", "state_minutes", "workers"}
# After a loss that was not finite these may change too: the run would only meet it again.
RESCUE_FIELDS = {"base_lr", "min_lr", "precision"}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code (0 done, 2 bad input, 3 non-finite loss)."""
    try:
        options = parse_options(arguments)
        recipe = fill_recipe(options)
        directory = Path(options.out or f"runs/pretrain/{options.recipe}")
        if options.dry_run:
            print(json.dumps(describe_run(recipe, options.data, options.device, options.on_bad_image), indent=1))
            return 0
        pretrain(recipe, options.data, directory, device=options.device, on_bad_image=options.on_bad_image)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error}. What was saved before is whole; the same command resumes from it.", file=sys.stderr)
        return 2
    except NonFiniteLossError as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    return 0


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Options of the command line; a recipe's field that is not given is absent."""
    parser = argparse.ArgumentParser(
        prog="python -m pretrain.run",
        description="Pretrain an encoder, masked or with labels. The same command resumes a killed run.",
        epilog=f"recipes: {', '.join(RECIPES)}",
    )
    parser.add_argument("--recipe", default="mae-64px", metavar="NAME", help="settings to start from (see below)")
    parser.add_argument("--data", default="builtin:shapes16", metavar="PATH", help="images (default %(default)s)")
    parser.add_argument("--out", metavar="DIR", help="run folder (default runs/pretrain/RECIPE)")
    parser.add_argument("--on-bad-image", default="stop", choices=("stop", "skip"))
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--dry-run", action="store_true", help="check and print settings and data as JSON, and stop")
    add_flags(parser.add_argument_group("fields of the recipe"), Recipe)
    return parser.parse_args(arguments)


def fill_recipe(options: argparse.Namespace) -> Recipe:
    """The named recipe with the fields that the command line gives."""
    return dataclasses.replace(get_recipe(options.recipe), **read_flags(options, Recipe))


def describe_run(recipe: Recipe, data: str, device: str = "auto", on_bad_image: str = "stop") -> dict[str, Any]:
    """What a run would be, without its folder: for programs that plan several.

    Returns:
        "settings": as recipe.json will have them; "supervised": whether it learns from labels; "images"; "steps": of an
        epoch; "short_side": see measure_side.

    Raises:
        InputError: bad settings or data.
    """
    recipe, manifest = _prepare(recipe, data, device)
    return {
        "settings": _list_settings(recipe, manifest, on_bad_image),
        "supervised": recipe.method in SUPERVISED,
        "images": len(manifest),
        "steps": len(manifest) // recipe.batch_size,
        "short_side": measure_side(manifest),
    }


def _prepare(recipe: Recipe, data: str, device: str) -> tuple[Recipe, Manifest]:
    """The recipe, checked, with the precision that it will have on record, and its images."""
    check_recipe(recipe)
    recipe = dataclasses.replace(recipe, precision=resolve_precision(device, recipe.precision))
    return recipe, open_manifest(data, role="train", labelled=recipe.method in SUPERVISED)


def _list_settings(recipe: Recipe, manifest: Manifest, on_bad_image: str) -> dict[str, Any]:
    """What recipe.json holds."""
    of_data = {"data": manifest.name, "data_digest": manifest.digest, "on_bad_image": on_bad_image}
    return dataclasses.asdict(recipe) | of_data


def pretrain(recipe: Recipe, data: str, directory: Path, *, device: str = "auto", on_bad_image: str = "stop") -> None:
    """Pretrain, or go on where a killed run stopped.

    Args:
        recipe: all settings.
        data: path or name that open_manifest takes.
        directory: run folder: recipe.json, log.jsonl, tensorboard/, state.pt, epoch-*.safetensors, pictures.
        device: "auto", "cpu" or "cuda".
        on_bad_image: "stop" or "skip".

    Raises:
        InputError: bad settings or data, or a folder that holds another run.
        NonFiniteLossError: see training.train.
    """
    recipe, manifest = _prepare(recipe, data, device)
    fabric = build_fabric(device, recipe.precision)
    if fabric.is_global_zero:
        claim_directory(directory, recipe, manifest, on_bad_image)
    fabric.barrier()
    kind: type[PretrainingTask] = SupervisedLearning if recipe.method in SUPERVISED else MaskedImageModeling
    task = kind(
        recipe,
        manifest,
        device=fabric.device,
        world_size=fabric.world_size,
        rank=fabric.global_rank,
        on_bad_image=on_bad_image,
    )
    train(fabric, task, build_settings(recipe), directory)
    if fabric.is_global_zero:
        print_summary(recipe, manifest, directory)


def build_settings(recipe: Recipe) -> TrainingSettings:
    """The part of a recipe that the training loop reads."""
    return TrainingSettings(
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        accumulate=recipe.accumulate,
        learning_rate=scale_learning_rate(recipe.base_lr, recipe.batch_size),
        min_learning_rate=recipe.min_lr,
        warmup_epochs=recipe.warmup_epochs,
        compile=recipe.compile,
        seed=recipe.seed,
        save_every=recipe.save_every,
        draw_every=recipe.draw_every,
        state_minutes=recipe.state_minutes,
    )


def claim_directory(directory: Path, recipe: Recipe, manifest: Manifest, on_bad_image: str) -> None:
    """Write recipe.json, or check that the folder's run has the same settings and data; clear what a kill left.

    Settings that change after a loss that was not finite are kept: the former ones in recipe-before-STEP.json.

    Raises:
        InputError: the folder holds a run with other settings; the first differences are named.
    """
    path = directory / "recipe.json"
    settings = _list_settings(recipe, manifest, on_bad_image)
    for leftover in directory.glob(".*.tmp"):
        leftover.unlink()
    if path.exists() and (directory / "state.pt").exists():
        before = read_settings(json.loads(path.read_text()))
        free = FREE_FIELDS if recipe.target == "lowfreq" else FREE_FIELDS | {"radius"}
        changed = [key for key in settings if key not in free and before.get(key) != settings[key]]
        report = directory / "nonfinite-rank0.json"
        if report.exists() and set(changed) <= RESCUE_FIELDS:
            step = json.loads(report.read_text())["step"]
            write_atomic(directory / f"recipe-before-{step}.json", path.read_bytes())
        elif changed:
            raise InputError(
                "run folder",
                expected="; ".join(f"{key} = {before.get(key)}" for key in changed[:3]),
                found="; ".join(f"{key} = {settings[key]}" for key in changed[:3]),
                where=str(path),
                fix="Give another --out DIR, or the same settings to resume.",
            )
    write_atomic(path, json.dumps(settings, indent=1).encode())


def print_summary(recipe: Recipe, manifest: Manifest, directory: Path) -> None:
    """A table of what the run made, and the command that evaluates it."""
    records = [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]
    last = records[-max(1, len(records) // recipe.epochs) :]
    table = Table(title=f"{describe_method(recipe)} on {manifest.name} ({len(manifest):,} images)")
    for column in ("epochs", "steps", "loss, last epoch", "images/s, last epoch", "run folder"):
        table.add_column(column)
    loss = sum(record["loss"] for record in last) / len(last)
    speed = len(last) / sum(1 / record["images_per_second"] for record in last)
    table.add_row(str(recipe.epochs), str(len(records)), f"{loss:.4f}", f"{speed:,.0f}", str(directory))
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(table)
    checkpoint = directory / f"epoch-{recipe.epochs:04d}.safetensors"
    console.print(f"Next: python -m pixmim_eval.run --suite robustness --checkpoint {checkpoint}", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
