"""Recipes on the command line: what is given counts, and nothing else changes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, make_dataclass
from typing import Any

import pytest

from pixmim_eval.errors import InputError
from pixmim_eval.transfer.settings import PRECISION, Rule, check_rules, fill_recipe, list_options, list_rules, say


@dataclass(frozen=True)
class Recipe:
    """Of what a test needs."""

    steps: int = say(10, "how many")
    rate: float = say(0.1, "how fast")
    jitter: bool = say(True, "whether")
    precision: str = field(default="auto", metadata=PRECISION)


OPTIONS: Any = make_dataclass("OPTIONS", list_options(Recipe, before="head: "), frozen=True)


def test_fields_that_are_given_replace_the_recipes_own_and_zero_is_given() -> None:
    assert fill_recipe(Recipe(steps=20), OPTIONS()) == Recipe(steps=20)
    assert fill_recipe(Recipe(), OPTIONS(rate=0.0, jitter=False)) == Recipe(rate=0.0, jitter=False)


def test_every_field_is_an_option_with_its_help() -> None:
    assert [(f.name, f.metadata["help"]) for f in fields(OPTIONS)][:3] == [
        ("steps", "head: how many"),
        ("rate", "head: how fast"),
        ("jitter", "head: whether"),
    ]


@pytest.mark.parametrize(
    ("kind", "wrong", "right"),
    [
        ("counts", (0, -1), (1, 5)),
        ("natural", (-0.1, math.nan, math.inf), (0, 2.5)),
        ("positive", (0, math.nan, math.inf), (1e-9, 3)),
        ("below_one", (-0.1, 1, math.nan), (0, 0.99)),
    ],
)
def test_numbers_out_of_range_do_not_hold(kind: str, wrong: tuple[float, ...], right: tuple[float, ...]) -> None:
    def holds(value: float) -> bool:
        (rule,) = list_rules(Recipe(rate=value), **{kind: ("rate",)})  # type: ignore[arg-type]
        return rule.holds

    assert not any(map(holds, wrong)) and all(map(holds, right))


def test_the_first_rule_that_does_not_hold_is_an_error_with_its_flag() -> None:
    rules = [Rule("steps", "at least 1", True), Rule("rate", "above 0", False)]
    with pytest.raises(InputError, match=r"recipe of a test, rate: expected above 0, found 0\.1.*--rate"):
        check_rules("a test", Recipe(), rules)
