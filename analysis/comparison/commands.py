"""What to run so that a checkpoint has the rows that another has: the other's command with the checkpoint exchanged."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

_INPUTS = ("--checkpoint", "--model", "--follow")
PLACEHOLDER = "CHECKPOINT"


@dataclass(frozen=True)
class Inputs:
    """What a command evaluates: its checkpoint files and globs, timm models, and the run that it follows."""

    files: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    followed: tuple[str, ...] = ()


def read_inputs(command: str) -> Inputs:
    """What a command of pixmim_eval.run evaluates; nothing of a text that is none."""
    _, found = _split(command)
    return Inputs(tuple(found["--checkpoint"]), tuple(found["--model"]), tuple(found["--follow"]))


def exchange_checkpoint(command: str, arguments: Sequence[str]) -> str:
    """The command for another checkpoint.

    Args:
        command: of pixmim_eval.run, as rows have it.
        arguments: the words that name the other, e.g. "--checkpoint", "b.safetensors"; without any, the word CHECKPOINT
            stands where a file must.
    """
    kept, _ = _split(command)
    place = next((place + 2 for place, word in enumerate(kept) if word == "--suite"), len(kept))
    return shlex.join([*kept[:place], *(arguments or ("--checkpoint", PLACEHOLDER)), *kept[place:]])


def _split(command: str) -> tuple[list[str], dict[str, list[str]]]:
    """The words that say how, and by option those that say what is evaluated."""
    try:
        words = shlex.split(command)
    except ValueError:  # a quotation that never ends: no command line
        words = []
    kept, found = [], {option: list[str]() for option in _INPUTS}
    option = ""
    for word in words:
        name, equals, value = word.partition("=")
        if word.startswith("--"):
            option = name if name in _INPUTS and not equals else ""
            if name in _INPUTS:
                found[name] += [value] if equals else []
                continue
        if option:
            found[option].append(word)
        else:
            kept.append(word)
    return kept, found
