"""What a person sees of an ablation: the plan, how far its arms are, and what became of them."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from analysis.ablation.estimate import Forecast, format_forecast
from analysis.ablation.plan import PRETRAINING, Arm, Plan
from analysis.ablation.runner import Outcome
from analysis.ablation.state import count_steps, is_done, locate_log, read_log, read_record

LINE_SECONDS = 60.0  # between lines where nobody looks at a terminal


def open_console(*, stderr: bool = False) -> Console:
    """A console that shows text as it stands; wide where it is no terminal."""
    width = None if (sys.stderr if stderr else sys.stdout).isatty() else 160
    return Console(stderr=stderr, width=width, markup=False, highlight=False, emoji=False)


def print_plan(plan: Plan, forecasts: Sequence[Forecast], total: Forecast, lanes: int) -> None:
    """Arms with what is done and how long the rest takes, the commands of what is missing, and notes."""
    console = open_console()
    console.print(build_plan_table(plan, forecasts))
    for arm in plan.arms:
        for step in arm.steps:
            if not is_done(plan, arm, step):
                console.print(shlex.join(step.command), soft_wrap=True)
    for note in plan.notes:
        console.print(note)
    done = sum(is_done(plan, arm, step) for arm in plan.arms for step in arm.steps)
    steps = sum(len(arm.steps) for arm in plan.arms)
    console.print(f"{steps} steps = {done} done + {steps - done} missing; {lanes} arm{'s' * (lanes > 1)} side by side")
    console.print(f"time: {format_forecast(total)}{explain(total)}")


def explain(total: Forecast) -> str:
    """Where the total comes from, or what would make one."""
    if total.unknown:
        return f" (nothing was measured of {', '.join(total.unknown)}; --dry-run --measure times some steps)"
    return " (from the slowest and fastest parts of what ran in this folder)" if total.known.high else ""


def build_plan_table(plan: Plan, forecasts: Sequence[Forecast]) -> Table:
    """A line an arm, a column a step."""
    names = [step.name for step in plan.arms[0].steps]
    table = Table(title=f"ablation {plan.name} -> {plan.out}")
    for column in ("arm", "what", *names, "time left"):
        table.add_column(column, overflow="fold")
    for arm, forecast in zip(plan.arms, forecasts, strict=True):
        cells = ["done" if is_done(plan, arm, step) else describe_missing(arm, step.name) for step in arm.steps]
        complete = all(cell == "done" for cell in cells)
        table.add_row(arm.name, arm.label, *cells, "" if complete else format_forecast(forecast))
    return table


def describe_missing(arm: Arm, name: str) -> str:
    """ "missing", or how far a pretraining is."""
    steps = count_steps(arm) if name == PRETRAINING else 0
    return f"epoch {steps // arm.basis.steps} of {arm.settings['epochs']}" if steps else "missing"


class Watch:
    """Shows how far arms are, on stderr: a table on a terminal, else a line where something changes or a minute passes.

    Args:
        plan: see Plan.
        since: time from which on a log is one of this start; 0 for any, where jobs may have begun before.
    """

    def __init__(self, plan: Plan, since: float) -> None:
        self.plan, self.since = plan, since
        self.console = open_console(stderr=True)
        self.live = Live(console=self.console, auto_refresh=False) if sys.stderr.isatty() else None
        self.told: dict[str, str] = {}
        self.last_line = time.monotonic()

    def __enter__(self) -> Watch:
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.show()
        if self.live:
            self.live.stop()

    def show(self) -> None:
        """Look at the files, and tell what is new."""
        told = {arm.name: describe_progress(self.plan, arm, self.since) for arm in self.plan.arms}
        if self.live:
            table = Table("arm", "step", "progress", box=None)
            for name, (step, progress) in told.items():
                table.add_row(name, step, progress)
            self.live.update(table, refresh=True)
            return
        late = time.monotonic() - self.last_line > LINE_SECONDS
        for name, (step, progress) in told.items():
            going = step not in ("waits", "done")
            if self.told.get(name, "waits") != step or (late and going):
                self.console.print(f"{name}: {step}{', ' * bool(progress)}{progress}", soft_wrap=True)
            self.told[name] = step
        self.last_line = time.monotonic() if late else self.last_line


def describe_progress(plan: Plan, arm: Arm, since: float) -> tuple[str, str]:
    """The step that an arm is at, and how far that is."""
    records = [read_record(plan, arm, step) for step in arm.steps]
    if all(
        record and record["command"] == shlex.join(step.command)
        for record, step in zip(records, arm.steps, strict=True)
    ):
        return "done", ""
    times = {step.name: _find_time(locate_log(plan, arm, step)) for step in arm.steps}
    name = max(times, key=lambda name: times[name])
    if times[name] <= since:
        return "waits", ""
    if name != PRETRAINING:
        return name, ""
    records_of_steps = read_log(arm.pretraining / "log.jsonl", tail=2000)
    if not records_of_steps:
        return name, "starts"
    last = records_of_steps[-1]
    share = (last["step"] + 1) / arm.total_steps
    speed = f"{last['images_per_second']:,.0f} images/s"
    return name, f"epoch {last['epoch'] + 1} of {arm.settings['epochs']}, {share:.0%}, {speed}"


def _find_time(log: Path) -> float:
    return log.stat().st_mtime if log.exists() else 0.0


def print_outcomes(plan: Plan, outcomes: Sequence[Outcome], command: str) -> None:
    """A table of what became of each step; of those that failed, the log and what to type next."""
    console = open_console()
    table = Table(title=f"ablation {plan.name} -> {plan.out}")
    for column in ("arm", "step", "state", "detail", "log"):
        table.add_column(column, overflow="fold")
    wrong = [outcome for outcome in outcomes if outcome.state not in ("was done", "done")]
    shown = wrong or [outcome for outcome in outcomes if outcome.state == "done"]
    for outcome in shown:
        log = str(outcome.log) if outcome.log.exists() else ""
        table.add_row(outcome.arm, outcome.step.name, outcome.state, outcome.detail, log)
    if shown:
        console.print(table)
    counts = {state: sum(outcome.state == state for outcome in outcomes) for state in ("was done", "done")}
    console.print(f"steps: {counts['was done']} were done before, {counts['done']} done now, {len(wrong)} not done")
    for outcome in wrong:
        if outcome.state == "failed":
            console.print(
                f"failed: see {outcome.log}, or try it alone: {shlex.join(outcome.step.command)}", soft_wrap=True
            )
    if wrong:
        console.print(f"the rest goes on with: {command}", soft_wrap=True)
