"""Which of the evaluated checkpoints a word of the command line means: by name, epoch, weights’ digest, or file."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

import pandas as pd

from analysis.comparison.commands import read_inputs
from analysis.epochs.lines import strip_epoch
from analysis.subjects import clean_name
from pixmim_eval.errors import InputError

_SHORTEST = 4  # digits of a digest
_CLOSE, _NEAREST = 0.5, 5  # likeness of names that are listed, and how many of them


@dataclass(frozen=True)
class Checkpoint:
    """One set of weights that rows are of.

    Args:
        label: what it is called beside another.
        names: its models' names; the same weights may have another in each run.
        digest: of the weights.
        method, epoch: as on the rows.
        files: the checkpoint files that commands name it by; empty where no command says.
        arguments: the words of a command line that name it, e.g. "--checkpoint", "epoch-0020.safetensors"; empty where
            no command says.
    """

    label: str
    names: tuple[str, ...]
    digest: str
    method: str
    epoch: int | None
    files: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()

    def select(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Its rows."""
        return rows[(rows["weights_digest"] == self.digest) & rows["model"].isin(self.names)]

    def describe(self) -> str:
        """ "mae-20 (weights 05f65d)"."""
        weights = f"weights {self.digest[:6]}"
        return self.label if weights in self.label else f"{self.label} ({weights})"


def list_checkpoints(rows: pd.DataFrame) -> list[Checkpoint]:
    """Every checkpoint of the rows, in their order.

    The same weights under several names are one checkpoint, unless one evaluation run told them apart.
    """
    columns = ["weights_digest", "run", "model", "method", "epoch"]
    models = rows[columns].drop_duplicates()
    found = []
    for digest, part in models.groupby("weights_digest", sort=False):
        names = tuple(dict.fromkeys(part["model"]))
        apart = part.groupby("run")["model"].nunique().max() > 1
        for same in [(name,) for name in names] if apart else [names]:
            first = part[part["model"] == same[0]].iloc[0]
            epoch = None if pd.isna(first["epoch"]) else int(first["epoch"])
            label = clean_name(min(same, key=len))
            found.append(Checkpoint(label, same, str(digest), str(first["method"]), epoch))
    return _read_commands(rows, found)


def _read_commands(rows: pd.DataFrame, checkpoints: list[Checkpoint]) -> list[Checkpoint]:
    """The checkpoints with what commands name them by.

    A command that names one file and made rows of one checkpoint is sure. Of several files, one is a checkpoint's where
    the model's name has the end of its path.
    """
    files: list[dict[str, None]] = [{} for _ in checkpoints]
    arguments: list[tuple[str, ...]] = [() for _ in checkpoints]
    owners = {(one.digest, name): place for place, one in enumerate(checkpoints) for name in one.names}
    pairs = rows[["command", "weights_digest", "model"]].drop_duplicates()
    for command, part in pairs.groupby("command", sort=False):
        inputs = read_inputs(str(command))
        places = {owners[key] for key in zip(part["weights_digest"], part["model"], strict=True)}
        for place in places:
            own = [file for file in inputs.files if not _is_glob(file)]
            if len(inputs.files) > 1 or len(places) > 1:
                own = [file for file in own if _bears_name(checkpoints[place], file)]
            if len(own) == 1:
                files[place][own[0]] = None
                arguments[place] = tuple(word for name in inputs.models for word in ("--model", name))
                arguments[place] += ("--checkpoint", own[0])
            elif not inputs.files and (names := {*inputs.models} & {*checkpoints[place].names}):
                arguments[place] = ("--model", names.pop())
    return [
        replace(one, files=tuple(known), arguments=words)
        for one, known, words in zip(checkpoints, files, arguments, strict=True)
    ]


def _bears_name(checkpoint: Checkpoint, file: str) -> bool:
    """Whether a model's name ("mae-20:first/epoch-0020") has the end of a file's path, or its stem is the name."""
    stem = PurePosixPath(file).with_suffix("")
    for name in checkpoint.names:
        name = re.sub(r"@[0-9a-f]{6}$", "", name)
        tail = PurePosixPath(name.partition(":")[2] or name)
        if stem.parts[-len(tail.parts) :] == tail.parts:
            return True
    return False


def find_checkpoint(rows: pd.DataFrame, text: str, *, where: str = "compare") -> Checkpoint:
    """The checkpoint that a text names.

    The first of these that any checkpoint answers to: a model's whole name; at least four first digits of the weights'
    digest; method or name with the epoch ("mae@20", "mae-20", "mae:epoch-20"); the beginning of a model's name; a
    checkpoint file, its path, the end of that, or a glob, as a command or a model's name has it.

    Args:
        rows: result rows.
        text: what the user wrote.
        where: what it was said for.

    Raises:
        InputError: none answers, or several do; it lists the near ones with their digests, and how to add one.
    """
    checkpoints = list_checkpoints(rows)
    for matches in (_has_name, _has_digest, _has_epoch, _has_beginning, _has_file):
        answers = [one for one in checkpoints if matches(one, text)]
        if len(answers) == 1:
            return answers[0]
        if answers:
            raise InputError(
                "name of a checkpoint",
                expected="one that a single checkpoint answers to",
                found=f"{text!r}, to which {len(answers)} do: {_list(answers)}",
                where=where,
                fix=f"Name it by its weights’ digest, e.g. {_shorten_digest(answers[0], checkpoints)}.",
            )
    near = sorted(checkpoints, key=lambda one: -_score(one, text))
    close = [one for one in near if _score(one, text) >= _CLOSE] or near
    raise InputError(
        "name of a checkpoint",
        expected="a model’s name or its beginning, METHOD@EPOCH, digits of a weights’ digest, or a checkpoint file",
        found=f"{text!r}; there are {_list(close)}",
        where=where,
        fix=f"Evaluate it: python -m pixmim_eval.run --suite {rows['suite'].iloc[0]} --checkpoint FILE --data PATH.",
    )


def _has_name(one: Checkpoint, text: str) -> bool:
    return text in one.names


def _has_digest(one: Checkpoint, text: str) -> bool:
    return len(text) >= _SHORTEST and one.digest.startswith(text.lower())


def _has_epoch(one: Checkpoint, text: str) -> bool:
    match = re.fullmatch(r"(.+?)[@:/-](?:epoch-)?0*(\d+)", text)
    if match is None or one.epoch != int(match[2]):
        return False
    stems = {strip_epoch(name, one.epoch) for name in one.names}
    return match[1] in {one.method, *stems}


def _has_beginning(one: Checkpoint, text: str) -> bool:
    return bool(text) and any(name.startswith(text) for name in one.names)


def _has_file(one: Checkpoint, text: str) -> bool:
    known = [PurePosixPath(file) for file in one.files]
    if _is_glob(text):
        return any(fnmatchcase(str(file), text) or fnmatchcase(file.name, text) for file in known)
    asked = PurePosixPath(text)
    if any(file.parts[-len(asked.parts) :] == asked.parts for file in known) and asked.parts:
        return True
    return bool(asked.suffix) and _bears_name(one, text)


def _is_glob(text: str) -> bool:
    return any(letter in text for letter in "*?[")


def _score(one: Checkpoint, text: str) -> float:
    words = (*one.names, one.digest[: len(text)], *one.files)
    return max(SequenceMatcher(None, text.lower(), word.lower()).ratio() for word in words)


def _list(checkpoints: Iterable[Checkpoint]) -> str:
    found = list(checkpoints)
    more = f" and {len(found) - _NEAREST} more" if len(found) > _NEAREST else ""
    return ", ".join(f"{one.label} ({one.digest[:8]})" for one in found[:_NEAREST]) + more


def _shorten_digest(one: Checkpoint, others: list[Checkpoint]) -> str:
    for length in range(6, len(one.digest)):
        if sum(other.digest.startswith(one.digest[:length]) for other in others) == 1:
            return one.digest[:length]
    return one.digest
