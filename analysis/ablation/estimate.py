"""How long what is missing will take, from what was measured in the same folder and from nothing else."""

from __future__ import annotations

import heapq
import json
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from analysis.ablation.plan import PRETRAINING, Arm, Plan
from analysis.ablation.programs import resolve_program, stop_processes
from analysis.ablation.state import count_steps, is_done, list_changes, read_log, read_record
from pixmim_eval.errors import InputError
from pixmim_eval.results import hash_parts

PARTS = 10  # a log is cut into so many, whose slowest and fastest are the range
MEASURED_STEPS = 12
UNSETTLED_STEPS = 2  # the first ones, which allocate
MEASURING_SECONDS = 180.0


@dataclass(frozen=True)
class Span:
    """Seconds, from the fastest to the slowest that was measured."""

    low: float
    high: float

    def __add__(self, other: Span) -> Span:
        return Span(self.low + other.low, self.high + other.high)


@dataclass(frozen=True)
class Measured:
    """What is known of speed.

    Args:
        speeds: recipe -> images a second of parts of its runs.
        seconds: name of a suite's step -> of each time that it ran to its end.
    """

    speeds: dict[str, list[float]]
    seconds: dict[str, list[float]]


@dataclass(frozen=True)
class Forecast:
    """Of one arm, or of all: the time of what was measured, and the names of steps that nothing was measured of."""

    known: Span
    unknown: tuple[str, ...]


def read_measured(plan: Plan) -> Measured:
    """Speeds from logs of pretrainings in this folder, finished or not, else of a timed warm-up; seconds of suites."""
    speeds: dict[str, list[float]] = {}
    seconds: dict[str, list[float]] = {}
    for arm in plan.arms:
        found = speeds.setdefault(arm.basis.name, [])
        if count_steps(arm):
            found += cut_speeds([record["images_per_second"] for record in read_log(arm.pretraining / "log.jsonl")])
        for step in arm.steps:
            record = read_record(plan, arm, step)
            if record is None or record["resumed"] or not is_done(plan, arm, step):
                continue
            if step.name == PRETRAINING:  # with starting, saving and drawing
                found.append(arm.total_steps * arm.settings["batch_size"] / record["seconds"])
            else:
                seconds.setdefault(step.name, []).append(record["seconds"])
    for arm in plan.arms:
        if not speeds[arm.basis.name]:
            speeds[arm.basis.name] = _read_warm_up(plan, arm)
    return Measured(speeds, seconds)


def cut_speeds(speeds: Sequence[float]) -> list[float]:
    """Images a second of consecutive parts of a run, from those of its steps: a part's images over its seconds."""
    parts = max(1, min(PARTS, len(speeds) // 2))
    cuts = [round(part * len(speeds) / parts) for part in range(parts + 1)]
    pieces = [speeds[start:end] for start, end in pairwise(cuts) if end > start]
    return [len(piece) / sum(1 / speed for speed in piece) for piece in pieces]


def forecast_arm(plan: Plan, arm: Arm, measured: Measured) -> Forecast:
    """The time of an arm's missing steps; a started pretraining loses at most what it did of its epoch."""
    known, unknown = Span(0.0, 0.0), []
    for step in arm.steps:
        if is_done(plan, arm, step):
            continue
        if step.name == PRETRAINING:
            done, batch = count_steps(arm), arm.settings["batch_size"]
            again = done % arm.basis.steps
            images = [(arm.total_steps - done + lost) * batch for lost in (0, again)]
            times = [count / speed for speed in measured.speeds[arm.basis.name] for count in images]
        else:
            times = measured.seconds.get(step.name, [])
        if times:
            known += Span(min(times), max(times))
        else:
            unknown.append(f"{step.name} ({arm.basis.name})" if step.name == PRETRAINING else step.name)
    return Forecast(known, tuple(unknown))


def forecast_all(arms: Sequence[Forecast], lanes: int) -> Forecast:
    """The time until the last arm ends, where each lane takes the next arm as soon as it is free."""
    known = Span(*(_fill_lanes([getattr(arm.known, end) for arm in arms], lanes) for end in ("low", "high")))
    return Forecast(known, tuple(dict.fromkeys(name for arm in arms for name in arm.unknown)))


def _fill_lanes(seconds: Sequence[float], lanes: int) -> float:
    ends = [0.0] * max(1, lanes)
    for duration in seconds:
        heapq.heapreplace(ends, ends[0] + duration)
    return max(ends)


def measure_speeds(plan: Plan, environment: dict[str, str]) -> None:
    """Times some steps of each recipe of which nothing was measured, in a folder of its own.

    Raises:
        InputError: it does not come to its first steps.
    """
    measured = read_measured(plan)
    arms = {arm.basis.name: arm for arm in plan.arms if not measured.speeds[arm.basis.name]}
    for arm in arms.values():
        folder = _locate_warm_up(plan, arm)
        folder.mkdir(parents=True, exist_ok=True)
        command = (*arm.steps[0].command[:-1], str(folder))
        wanted = min(MEASURED_STEPS + UNSETTLED_STEPS, arm.total_steps)
        with (folder / "output.log").open("wb") as log:
            process = subprocess.Popen(
                resolve_program(command), stdout=log, stderr=log, env=environment, start_new_session=True
            )
            try:
                _wait_for_steps(process, folder / "log.jsonl", wanted)
            finally:
                stop_processes([process])
        if len(read_log(folder / "log.jsonl")) < min(wanted, UNSETTLED_STEPS + 1):
            raise InputError(
                "warm-up of a recipe",
                expected=f"{wanted} steps within {MEASURING_SECONDS:.0f} s",
                found=f"{len(read_log(folder / 'log.jsonl'))}",
                where=str(folder / "output.log"),
                fix="See that log; without --measure the time is told once the first run has begun.",
            )


def _wait_for_steps(process: subprocess.Popen[bytes], log: Path, wanted: int) -> None:
    end = time.monotonic() + MEASURING_SECONDS
    while process.poll() is None and time.monotonic() < end and len(read_log(log)) < wanted:
        time.sleep(0.2)


def _read_warm_up(plan: Plan, arm: Arm) -> list[float]:
    folder = _locate_warm_up(plan, arm)
    if list_changes(arm, _read_settings(folder) | {key: arm.settings[key] for key in ("target", "radius", "crop")}):
        return []
    speeds = [record["images_per_second"] for record in read_log(folder / "log.jsonl")]
    settled = speeds[UNSETTLED_STEPS:] or speeds
    return cut_speeds(settled) if settled else []


def _read_settings(folder: Path) -> dict[str, object]:
    file = folder / "recipe.json"
    content: dict[str, object] = json.loads(file.read_bytes()) if file.exists() else {}
    return content


def _locate_warm_up(plan: Plan, arm: Arm) -> Path:
    key = hash_parts(arm.basis.words, arm.settings["data_digest"])
    return plan.out / "measure" / f"{arm.basis.name}-{key[:8]}"


def format_seconds(seconds: float) -> str:
    """In the unit that people would say it in."""
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.0f} s"


def format_forecast(forecast: Forecast) -> str:
    """ "12 to 15 min", "at least …", or "unknown until the first run"."""
    low, high = format_seconds(forecast.known.low), format_seconds(forecast.known.high)
    text = low if low == high else f"{low} to {high}"
    if not forecast.unknown:
        return text
    return f"at least {low}" if forecast.known.high else "unknown until the first run"
