"""What of an ablation is done, read from its folder: checkpoints, rows, and a small record of each finished step."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from analysis.ablation.plan import PRETRAINING, Arm, Plan, Step
from pixmim_eval.errors import InputError
from pixmim_eval.files import write_atomic
from pixmim_eval.results import RunFolder, hash_parts, list_versions

# Fields that pretrain.run lets a resumed run change: they do not touch the numbers.
FREE_FIELDS = frozenset({"save_every", "save_dtype", "draw_every", "state_minutes", "workers"})
_TAIL = 400_000  # bytes of a log that are read: some 3,000 steps
Record = dict[str, Any]


class BusyError(Exception):
    """Another process works on this arm."""


def is_done(plan: Plan, arm: Arm, step: Step) -> bool:
    """Whether the result of a step is there, and of the same command.

    Pretraining: the checkpoint of the last epoch, and equal settings. A suite: its rows, and a record of this command
    on this checkpoint with these versions; where only versions changed, the suite itself finds what is still valid.
    """
    if step.name == PRETRAINING:
        return arm.checkpoint.exists() and not list_changes(arm, _read(arm.pretraining / "recipe.json"))
    record = read_record(plan, arm, step)
    if record is None or not arm.checkpoint.exists():
        return False
    suite = step.name.partition("#")[0]
    rows = any(file.name.startswith(f"{suite}-") for file in RunFolder(arm.evaluation).files())
    return rows and record.get("key") == make_key(arm, step)


def make_key(arm: Arm, step: Step) -> str:
    """16 hex digits of what an evaluation depends on, as far as can be told without running it."""
    about = arm.checkpoint.stat()
    digest = _digest(arm.checkpoint, about.st_mtime_ns, about.st_size)
    return hash_parts(step.command, digest, arm.settings["data_digest"], list_versions())


@cache
def _digest(file: Path, modified: int, size: int) -> str:
    """Of a file's content; the rest tells whether it is the same file still."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()


def list_changes(arm: Arm, found: Mapping[str, Any]) -> list[str]:
    """The settings in which a run differs from an arm, other than in those that may change."""
    free = set(FREE_FIELDS)
    if arm.settings["target"] != "lowfreq":
        free.add("radius")
    if not any(word.startswith("--precision") for word in arm.basis.words):  # "auto" is another one elsewhere
        free.add("precision")
    return [key for key, value in arm.settings.items() if key not in free and found.get(key) != value]


def locate_log(plan: Plan, arm: Arm, step: Step) -> Path:
    """What a step prints."""
    return plan.out / "logs" / f"{arm.name}-{step.name}.log"


def read_record(plan: Plan, arm: Arm, step: Step) -> Record | None:
    """What is known of a finished step: "key", "command", "seconds", and whether it was begun before ("resumed")."""
    return _read(_locate_record(plan, arm, step)) or None


def write_record(plan: Plan, arm: Arm, step: Step, seconds: float, *, resumed: bool) -> None:
    """Note that a step is done, after its result is on the disk."""
    key = "" if step.name == PRETRAINING else make_key(arm, step)
    content = {"key": key, "command": shlex.join(step.command), "seconds": round(seconds, 2), "resumed": resumed}
    write_atomic(_locate_record(plan, arm, step), json.dumps(content, indent=1).encode())


def _locate_record(plan: Plan, arm: Arm, step: Step) -> Path:
    return plan.out / "steps" / f"{arm.name}-{step.name}.json"


def read_log(file: Path, tail: int = _TAIL) -> list[Record]:
    """The last lines of a log.jsonl of pretraining, one a step, from its last bytes; none where there is no log."""
    if not file.exists():
        return []
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - tail))
        lines = stream.read().split(b"\n")
    records = []
    for line in lines:
        try:
            records.append(json.loads(line))
        except ValueError:  # cut at either end
            continue
    return records


def count_steps(arm: Arm) -> int:
    """Optimizer steps of an arm's pretraining that are done; 0 where its folder holds another run."""
    if list_changes(arm, _read(arm.pretraining / "recipe.json")):
        return 0
    records = read_log(arm.pretraining / "log.jsonl")
    return min(int(records[-1]["step"]) + 1, arm.total_steps) if records else 0


def check_folder(plan: Plan) -> None:
    """Raise InputError where the folder holds another ablation, or arms of the same names with other settings."""
    file = plan.out / "ablation.json"
    held = _read(file)
    changed = [
        f"{arm.name}: {key} = {held['arms'][arm.name].get(key)!r}, now {arm.settings[key]!r}"
        for arm in plan.arms
        if arm.name in held.get("arms", {})
        for key in list_changes(arm, held["arms"][arm.name])
    ]
    if held and held.get("ablation") != plan.name:
        changed = [f"the ablation {held.get('ablation')}"]
    if changed:
        raise InputError(
            "folder of the ablation",
            expected=f"a new one, or that of the ablation {plan.name} with the same recipe and data",
            found="; ".join(changed[:3]),
            where=str(file),
            fix="Give another --out DIR, or the settings it was begun with.",
        )


def claim_folder(plan: Plan) -> None:
    """Check the folder, and note there whose it is. Raises as check_folder."""
    check_folder(plan)
    file = plan.out / "ablation.json"
    arms = _read(file).get("arms", {}) | {arm.name: dict(arm.settings) for arm in plan.arms}
    write_atomic(file, json.dumps({"ablation": plan.name, "arms": arms}, indent=1).encode())


@contextmanager
def lock_arm(plan: Plan, arm: Arm) -> Iterator[int]:
    """The arm is this process's, and its children's that inherit the descriptor, until all of them have ended.

    Raises:
        BusyError: it is another's: perhaps a child whose parent was killed.
    """
    folder = plan.out / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{arm.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError(arm.name) from error
        yield file.fileno()


def _read(file: Path) -> Record:
    """A JSON object; {} where there is none."""
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
