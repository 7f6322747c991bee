"""The fields of a dataclass as flags of a command line."""

from __future__ import annotations

import argparse
import dataclasses
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints


def add_flags(parser: argparse._ActionsContainer, kind: type[Any]) -> None:
    """One flag a field, "base_lr" as --base-lr: bool with a --no- form, Literal with choices, a tuple with many values.

    Args:
        parser: that of a command, or a group of its flags.
        kind: a dataclass; a field's metadata may hold its "help". What is not given on the command line is absent from
            the parsed options, so that defaults stay the dataclass's own (see read_flags).
    """
    kinds = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        flag = "--" + field.name.replace("_", "-")
        text = field.metadata.get("help")
        parser.add_argument(flag, dest=field.name, default=argparse.SUPPRESS, help=text, **_describe(kinds[field.name]))


def read_flags(options: argparse.Namespace, kind: type[Any]) -> dict[str, Any]:
    """The fields of a dataclass that the command line gives."""
    names = {field.name for field in dataclasses.fields(kind)}
    given = {name: value for name, value in vars(options).items() if name in names}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


def _describe(kind: Any) -> dict[str, Any]:
    """How argparse reads a type."""
    if kind is bool:
        return {"action": argparse.BooleanOptionalAction}
    if get_origin(kind) is Literal:
        return {"choices": get_args(kind)}
    if get_origin(kind) is tuple:
        return {"nargs": "+", **_describe(get_args(kind)[0])}
    if NoneType in get_args(kind):  # absent unless given
        return _describe(next(part for part in get_args(kind) if part is not NoneType))
    return {"type": kind}
