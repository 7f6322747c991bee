"""The checkpoints of a pretraining run, as it writes them."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from pixmim_eval.errors import InputError

POLL_SECONDS = 5.0


def list_checkpoints(run: Path) -> list[Path]:
    """The checkpoints that are there, in order of epoch.

    Args:
        run: folder of a pretraining run. It writes a file under another name first, so what is there is whole.

    Raises:
        InputError: no folder of a pretraining run.
    """
    _read_epochs(run)
    return [file for _, file in sorted(_find_epochs(run).items())]


def wait_for_checkpoints(run: Path, *, quiet: bool = False) -> Iterator[Path]:
    """Each checkpoint of a run in order of epoch, once it is there, to that of the last epoch of its recipe.

    Args:
        run: see list_checkpoints.
        quiet: do not say on stderr what is waited for.

    Raises:
        InputError: as list_checkpoints.
    """
    done = 0
    while done < (last := _read_epochs(run)):
        waiting = False
        while not (new := {epoch: file for epoch, file in _find_epochs(run).items() if epoch > done}):
            if not (waiting or quiet):
                text = f"{run}: epoch {done} of {last} is evaluated" if done else f"{run}: no checkpoint yet"
                print(f"{text}; waiting for the next one (Ctrl-C stops, all rows are stored)", file=sys.stderr)
            waiting = True
            time.sleep(POLL_SECONDS)
        done = min(new)
        yield new[done]


def _find_epochs(run: Path) -> dict[int, Path]:
    """Epoch -> file."""
    names = ((re.fullmatch(r"epoch-(\d+)\.safetensors", file.name), file) for file in run.glob("epoch-*.safetensors"))
    return {int(match[1]): file for match, file in names if match}


def _read_epochs(run: Path) -> int:
    """How many epochs a run will have. Raises InputError where its recipe does not tell."""
    file = run / "recipe.json"
    try:
        epochs = json.loads(file.read_bytes())["epochs"]
    except FileNotFoundError:
        found = "no such file"
    except (OSError, ValueError, KeyError, TypeError) as error:
        found = f"{type(error).__name__}: {error}"
    else:
        if isinstance(epochs, int) and epochs > 0:
            return epochs
        found = f'"epochs": {epochs!r}'
    raise InputError(
        "folder of a pretraining run",
        expected='a recipe.json with its number of "epochs"',
        found=found,
        where=str(file),
        fix="Name the --out of python -m pretrain.run, once it has started; "
        "for other checkpoints use --checkpoint 'DIR/*.pth'.",
    )
