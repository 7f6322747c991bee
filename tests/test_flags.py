"""The fields of a dataclass as flags of a command line."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from typing import Literal

import pytest

from pixmim_eval.flags import add_flags, read_flags


@dataclass(frozen=True)
class Options:
    """One field of each kind."""

    protocol: Literal["cached", "mae-90e"] = "cached"
    learning_rates: tuple[float, ...] = (0.1, 0.2)
    epochs: int | None = field(default=None, metadata={"help": "passes over the data"})
    flips: bool = True


def parse(*words: str) -> Options:
    parser = argparse.ArgumentParser()
    add_flags(parser, Options)
    return Options(**read_flags(parser.parse_args(words), Options))


def test_what_is_not_given_keeps_the_default_of_its_field() -> None:
    assert parse() == Options()


def test_every_kind_of_field_is_read_as_its_type() -> None:
    words = ("--protocol", "mae-90e", "--learning-rates", "1", "2.5", "--epochs", "3", "--no-flips")
    assert parse(*words) == Options("mae-90e", (1.0, 2.5), 3, flips=False)


@pytest.mark.parametrize("words", [("--protocol", "other"), ("--epochs", "many"), ("--learning-rates", "fast")])
def test_other_values_are_refused(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(*words)
    assert words[0] in capsys.readouterr().err
