"""Doing the steps of an ablation: an arm's in order, several arms side by side on this machine."""

from __future__ import annotations

import os
import queue
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from analysis.ablation.plan import PRETRAINING, Arm, Plan, Step
from analysis.ablation.programs import resolve_program, stop_processes
from analysis.ablation.state import BusyError, count_steps, is_done, locate_log, lock_arm, write_record
from pixmim_eval.errors import InputError

POLL_SECONDS = 1.0
LONGEST_DETAIL = 300  # letters of an error that are told without its log
State = Literal["was done", "done", "failed", "blocked", "stopped", "busy"]


@dataclass(frozen=True)
class Outcome:
    """What became of a step.

    Args:
        arm: name of its arm.
        step: which.
        state: "was done" before; "done" now; "failed"; "blocked" by a failed pretraining; "stopped" by Ctrl-C; "busy":
            another process works on the arm.
        detail: e.g. "exit code 2, after 3 s".
        log: what it printed.
    """

    arm: str
    step: Step
    state: State
    detail: str
    log: Path


class Stop:
    """A way to end what runs: no step begins once it was asked for."""

    def __init__(self) -> None:
        self.asked = False
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()

    def ask(self) -> None:
        """End all processes."""
        with self._lock:
            self.asked = True
            processes = list(self._processes)
        stop_processes(processes)

    @contextmanager
    def watch(self, start: Callable[[], subprocess.Popen[bytes]]) -> Iterator[subprocess.Popen[bytes] | None]:
        """Start a process that `ask` ends; None where it was asked for already. Whatever happens, none outlives it."""
        with self._lock:
            process = None if self.asked else start()
            if process:
                self._processes.add(process)
        try:
            yield process
        finally:
            if process:
                stop_processes([process])
                with self._lock:
                    self._processes.discard(process)


def run_arm(plan: Plan, arm: Arm, environment: Mapping[str, str], stop: Stop | None = None) -> list[Outcome]:
    """Do an arm's missing steps in order; suites do not wait for each other's success, only for pretraining's.

    Args:
        plan, arm: see Plan.
        environment: of its processes, besides this one's.
        stop: how to end it from elsewhere.
    """
    stop = stop or Stop()
    outcomes: list[Outcome] = []
    try:
        with lock_arm(plan, arm) as lock:
            for step in arm.steps:
                blocked = bool(outcomes) and outcomes[0].state not in ("was done", "done")
                outcomes.append(_do_step(plan, arm, step, environment, stop, lock, blocked=blocked))
    except BusyError:
        missing = [step for step in arm.steps if not is_done(plan, arm, step)]
        return [
            Outcome(arm.name, step, "busy", "another process is at it", locate_log(plan, arm, step)) for step in missing
        ]
    return outcomes


def _do_step(
    plan: Plan, arm: Arm, step: Step, environment: Mapping[str, str], stop: Stop, lock: int, *, blocked: bool
) -> Outcome:
    """One step, unless it is done or cannot be."""
    log = locate_log(plan, arm, step)
    if not blocked and is_done(plan, arm, step):
        return Outcome(arm.name, step, "was done", "", log)
    if blocked or stop.asked:
        return Outcome(arm.name, step, "stopped" if stop.asked else "blocked", "", log)
    resumed = count_steps(arm) > 0 if step.name == PRETRAINING else log.exists()
    start = time.monotonic()
    code = _run_command(step, log, environment, stop, lock)
    seconds = time.monotonic() - start
    if stop.asked and code != 0:
        return Outcome(arm.name, step, "stopped", f"after {seconds:.0f} s", log)
    if code == 0:
        if arm.checkpoint.exists():
            write_record(plan, arm, step, seconds, resumed=resumed)
        if is_done(plan, arm, step):
            return Outcome(arm.name, step, "done", f"{seconds:.0f} s", log)
    how = f"exit code {code}" if code else "ended without its result"
    return Outcome(arm.name, step, "failed", f"{how}, after {seconds:.0f} s: {_read_last_line(log)}", log)


def _read_last_line(log: Path) -> str:
    """Where an error says what it is."""
    lines = log.read_text("utf-8", "replace").splitlines()
    return lines[-1][:LONGEST_DETAIL] if lines else ""


def _run_command(step: Step, log: Path, environment: Mapping[str, str], stop: Stop, lock: int) -> int:
    """The exit code of a command, which prints to its log; the descriptor keeps the arm locked while it lives."""
    with log.open("ab") as file:
        file.write(f"$ {shlex.join(step.command)}\n".encode())
        file.flush()

        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                resolve_program(step.command),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                pass_fds=(lock,),
                start_new_session=True,
            )

        with stop.watch(start) as process:
            return process.wait() if process else -signal.SIGTERM


def run_here(plan: Plan, slots: Sequence[Mapping[str, str]], show: Callable[[], None]) -> list[Outcome]:
    """Do what is missing on this machine, an arm a slot at a time.

    Args:
        plan: see Plan.
        slots: environment of the processes of each slot (see list_slots).
        show: called about once a second.

    Returns:
        One a step, in the order of the plan. Ctrl-C, SIGTERM and SIGHUP end all processes; the same plan goes on.
    """
    stop: Stop = Stop()
    free: queue.SimpleQueue[Mapping[str, str]] = queue.SimpleQueue()
    for slot in slots:
        free.put(slot)

    def work(arm: Arm) -> list[Outcome]:
        slot = free.get()
        try:
            return run_arm(plan, arm, slot, stop)
        finally:
            free.put(slot)

    with ThreadPoolExecutor(len(slots)) as pool, _heed_signals():
        futures = [pool.submit(work, arm) for arm in plan.arms]
        try:
            while wait(futures, timeout=POLL_SECONDS).not_done:
                show()
        except KeyboardInterrupt:
            stop.ask()
        except BaseException:
            stop.ask()
            raise
    return [outcome for future in futures for outcome in future.result()]


@contextmanager
def _heed_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP do as Ctrl-C does: steps are in sessions of their own, and would outlive this process.

    What is ignored stays so: nohup ignores SIGHUP.
    """

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    former = {kind: signal.getsignal(kind) for kind in (signal.SIGTERM, signal.SIGHUP)}
    for kind, handler in former.items():
        if handler != signal.SIG_IGN:
            signal.signal(kind, interrupt)
    try:
        yield
    finally:
        for kind, handler in former.items():
            signal.signal(kind, handler)


def list_slots(jobs: int | None, gpus: int) -> list[dict[str, str]]:
    """The environments of arms side by side: each has GPUs of its own, or its part of the processor's cores.

    Args:
        jobs: how many; None for one, or for as many as the GPUs allow.
        gpus: of each; 0 for the processor. One, where there is no GPU, is the processor too.

    Raises:
        InputError: fewer GPUs than that.
    """
    devices = _list_gpus()
    if gpus == 0 or (gpus == 1 and not devices):
        jobs = jobs or 1
        threads = str(max(1, (os.cpu_count() or 1) // jobs))
        slot = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads)}
        return [slot | ({"CUDA_VISIBLE_DEVICES": ""} if devices else {}) for _ in range(jobs)]
    most = len(devices) // gpus
    jobs = jobs or max(1, most)
    if jobs > most:
        raise InputError(
            "GPUs",
            expected=f"{jobs} x {gpus}, for {jobs} arms side by side",
            found=f"{len(devices)}",
            where="--jobs, --gpus",
            fix="Take fewer, or --slurm on a cluster.",
        )
    return [{"CUDA_VISIBLE_DEVICES": ",".join(devices[job * gpus : (job + 1) * gpus])} for job in range(jobs)]


def _list_gpus() -> list[str]:
    """Those that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name not in ("", "-1")]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):  # no driver
        return []
    return [str(place) for place, line in enumerate(listed.splitlines()) if line.startswith("GPU ")]
