"""Commands as they are typed, as processes: each in a session of its own, so that all it started ends with it."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from pixmim_eval.errors import InputError

PATIENCE = 10.0  # seconds between asking a process to end and ending it
Command = tuple[str, ...]


def resolve_program(command: Sequence[str]) -> list[str]:
    """The words of a command for this interpreter: "python" and "torchrun" are those that run now."""
    programs = {"python": [sys.executable], "torchrun": [sys.executable, "-m", "torch.distributed.run"]}
    return [*programs.get(command[0], [command[0]]), *command[1:]]


def ask_programs(commands: Sequence[Command]) -> list[str]:
    """What each of several commands prints on stdout; they run side by side, a few at a time.

    Raises:
        InputError: one fails; its own message is in it.
    """
    with ThreadPoolExecutor(max(1, min(len(commands), os.cpu_count() or 1))) as pool:
        return list(pool.map(_ask, commands))


def _ask(command: Command) -> str:
    done = subprocess.run(resolve_program(command), capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return done.stdout
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
    raise InputError(
        "a step of the ablation",
        expected="settings and data that it takes",
        found=lines[-1].removeprefix("error: "),
        where=shlex.join(command),
        fix="Mend what the message names, or try that command alone.",
    )


def stop_processes(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End processes and all that they started, kindly at first."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        alive = [process for process in processes if process.poll() is None]
        for process in alive:
            try:
                os.killpg(process.pid, kind)
            except ProcessLookupError:  # it ended by itself in between
                continue
        for process in alive:
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                continue
