"""Errors that a user can act on."""

from __future__ import annotations

from functools import partial


class InputError(Exception):
    """Bad input: the command stops with exit code 2 and prints this message, without a traceback.

    Args:
        checked: what was looked at, e.g. "labels of data set".
        expected: what would have been right.
        found: what was there instead (up to three examples).
        where: file, folder, option or row.
        fix: what to do next, naming the command or option where there is one.
    """

    def __init__(self, checked: str, *, expected: str, found: str, where: str, fix: str) -> None:
        self.checked, self.expected, self.found, self.where, self.fix = checked, expected, found, where, fix
        super().__init__(f"{checked}: expected {expected}, found {found} (in {where}). {fix}")

    def __reduce__(self) -> tuple[partial[InputError], tuple[str]]:
        """Worker processes send errors back; an exception with keyword arguments does not pickle by itself."""
        rest = {"expected": self.expected, "found": self.found, "where": self.where, "fix": self.fix}
        return partial(type(self), **rest), (self.checked,)


class BadImageError(InputError):
    """An image that cannot be decoded; `--on-bad-image skip` counts it and goes on."""


class NonFiniteLossError(Exception):
    """The training loss became NaN or infinite; the state before the step was saved (exit code 3)."""
