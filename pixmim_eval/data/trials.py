"""Files of trials, one line a decision, as model-vs-human records those of people and networks: to the byte."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pixmim_eval.data.categories import list_some
from pixmim_eval.data.stimuli import Stimuli
from pixmim_eval.errors import InputError
from pixmim_eval.files import write_atomic

COLUMNS = ("subj", "session", "trial", "rt", "object_response", "category", "condition", "imagename")
NO_ANSWER = "na"


@dataclass(frozen=True)
class TrialFile:
    """A file of trials as it stands: writing it again gives the same bytes.

    Args:
        header: names of its columns; model-vs-human writes "session" or "Session".
        records: one a trial, all of them text.
        line_end: what ends each line.
    """

    header: tuple[str, ...]
    records: list[tuple[str, ...]]
    line_end: str = "\r\n"

    def column(self, name: str) -> list[str]:
        """One of COLUMNS."""
        place = [text.lower() for text in self.header].index(name)
        return [record[place] for record in self.records]


def read_trial_file(file: Path) -> TrialFile:
    """A file of trials.

    Raises:
        InputError: no text, no trials, a missing column, a line that is too short or too long, a last line without its
            end, or trials that are not numbered one after the other.
    """
    try:
        text = file.read_bytes().decode()
        header, *records = [tuple(record) for record in csv.reader(io.StringIO(text, newline=""), strict=True)]
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise file_error(file, "a table of trials as CSV", f"{type(error).__name__}: {error}") from error
    if missing := [name for name in COLUMNS if name not in [text.lower() for text in header]]:
        raise file_error(file, f"columns {', '.join(COLUMNS)}", f"no {', '.join(missing)}")
    whole = [len(record) == len(header) for record in records]
    if not records or not all(whole) or not text.endswith("\n"):
        line = whole.index(False) + 2 if False in whole else len(records) + 1
        raise file_error(file, f"whole lines of {len(header)} fields", f"a line {line} that is cut short or torn")
    found = TrialFile(header, records, "\r\n" if text.endswith("\r\n") else "\n")
    _check_numbers(file, found.column("trial"))
    return found


def _check_numbers(file: Path, numbers: list[str]) -> None:
    """Raises InputError unless trials are numbered one after the other."""
    if strange := [number for number in numbers if not number.isdecimal()]:
        raise file_error(file, "trials with whole numbers", list_some(strange))
    steps = np.diff([int(number) for number in numbers])
    if (steps != 1).any():
        place = int(np.flatnonzero(steps != 1)[0])
        twice = [number for number, count in Counter(numbers).items() if count > 1]
        after = f"trial {numbers[place + 1]} after trial {numbers[place]}"
        found = f"duplicate trials, {list_some(twice)}" if twice else after
        raise file_error(file, "each trial once, one number after the other", found)


def file_error(file: Path, expected: str, found: str) -> InputError:
    """What is wrong with a file of trials."""
    fix = "Take the file whole from where it was recorded, or leave it out."
    return InputError("file of trials", expected=expected, found=found, where=str(file), fix=fix)


def write_trial_file(file: Path, trials: TrialFile) -> None:
    """Write a file of trials, to the byte as it was read."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator=trials.line_end).writerows([trials.header, *trials.records])
    write_atomic(file, buffer.getvalue().encode())


def name_trial_file(experiment: str, observer: str) -> str:
    """ "cue-conflict_mae-800_session_1.csv": as model-vs-human, "-" for "_" in the observer's name."""
    return f"{experiment}_{re.sub(r'[^A-Za-z0-9.]+', '-', observer)}_session_1.csv"


def make_trial_file(observer: str, stimuli: Stimuli, rows: np.ndarray, answers: np.ndarray) -> TrialFile:
    """The decisions of a network as model-vs-human writes them.

    Args:
        observer: its name.
        stimuli: what it saw.
        rows: int64 [n], which of them, in order.
        answers: int64 [n], categories; -1 for none.
    """
    names = (*stimuli.categories, NO_ANSWER)  # -1 is the last
    answered = [names[answer] for answer in answers.tolist()]
    right = [names[shape] for shape in stimuli.shapes[rows].tolist()]
    shown = zip(answered, right, stimuli.conditions[rows].tolist(), stimuli.images[rows].tolist(), strict=True)
    records: list[tuple[str, ...]] = [
        (observer, "1", str(trial), "NaN", *values) for trial, values in enumerate(shown, start=1)
    ]
    return TrialFile(COLUMNS, records)
