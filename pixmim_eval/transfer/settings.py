"""Settings of a training on the command line: a recipe by name, and every field of it that is not the recipe's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import field, fields, replace
from typing import Any, NamedTuple, TypeVar, get_type_hints

from pixmim_eval.errors import InputError

PRECISION = {"help": "of training; auto is bf16 where the device computes in it"}  # of a field that all recipes have
Recipe = TypeVar("Recipe")
Names = tuple[str, ...]


class Rule(NamedTuple):
    """A field, what is expected of it, and whether it is so."""

    name: str
    expected: str
    holds: bool


def say(default: Any, text: str) -> Any:
    """A field of a dataclass with its help."""
    return field(default=default, metadata={"help": text})


def list_options(recipe: type, before: str = "") -> list[tuple[str, Any, Any]]:
    """Every field of a recipe as make_dataclass takes it, None where it is not given; with a word before its help."""
    kinds = get_type_hints(recipe)
    return [(f.name, kinds[f.name] | None, say(None, before + f.metadata["help"])) for f in fields(recipe)]


def fill_recipe(recipe: Recipe, options: Any) -> Recipe:
    """A recipe with the fields that options give."""
    given = {f.name: getattr(options, f.name) for f in fields(recipe)}  # type: ignore[arg-type]
    return replace(recipe, **{name: value for name, value in given.items() if value is not None})  # type: ignore[type-var]


def list_rules(
    recipe: Any, *, counts: Names = (), natural: Names = (), positive: Names = (), below_one: Names = ()
) -> list[Rule]:
    """Rules of numbers, by their names: whole from 1 on, from 0 on, above 0, and from 0 on and below 1."""
    kinds: list[tuple[Names, str, Callable[[float], bool]]] = [
        (counts, "at least 1", lambda value: value >= 1),
        (natural, "0 or more, and finite", lambda value: 0 <= value < math.inf),
        (positive, "above 0, and finite", lambda value: 0 < value < math.inf),
        (below_one, "0 to below 1", lambda value: 0 <= value < 1),
    ]
    return [Rule(name, text, holds(getattr(recipe, name))) for names, text, holds in kinds for name in names]


def check_rules(training: str, recipe: Any, rules: Iterable[Rule]) -> None:
    """Raise InputError for the first rule that does not hold.

    Args:
        training: whose recipe it is.
    """
    for rule in rules:
        if not rule.holds:
            flag = "--" + rule.name.replace("_", "-")
            raise InputError(
                f"recipe of {training}, {rule.name}",
                expected=rule.expected,
                found=str(getattr(recipe, rule.name)),
                where=flag,
                fix=f"Change {flag}, or leave it out for the recipe's own.",
            )
