"""An ablation as an array of SLURM jobs, one an arm, through submitit; requeued where a job's time or node is taken."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from typing import Any

from analysis.ablation.plan import Arm, Plan
from analysis.ablation.runner import POLL_SECONDS, Outcome, run_arm
from analysis.ablation.state import is_done, locate_log
from pixmim_eval.errors import InputError
from pixmim_eval.files import write_atomic

REQUEUES = 50  # of a job that runs out of time


@dataclass(frozen=True)
class Cluster:
    """What jobs ask for.

    Args:
        partition, account: None for the cluster's own.
        hours: of a job, until it is requeued and goes on.
        cpus, gpus: of a job.
        at_once: jobs of the array that run at the same time; None for all.
        kind: "slurm", or submitit's "local" for processes here.
    """

    partition: str | None = None
    account: str | None = None
    hours: float = 24.0
    cpus: int = 10
    gpus: int = 1
    at_once: int | None = None
    kind: str = "slurm"


@dataclass(frozen=True)
class ArmJob:
    """What a job does: the missing steps of an arm, in the folder where the command was typed."""

    plan: Plan
    folder: Path

    def __call__(self, arm: Arm) -> list[Outcome]:
        os.chdir(self.folder)
        return run_arm(self.plan, arm, {})

    def checkpoint(self, arm: Arm) -> Any:
        """What submitit queues when the job's time is up: the same, as every step resumes."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, arm)


def run_on_cluster(plan: Plan, cluster: Cluster, show: Callable[[], None]) -> list[Outcome] | None:
    """Submit the arms that miss something and have no job, and wait for all.

    Args:
        plan: see Plan.
        cluster: what jobs ask for.
        show: called about once a second.

    Returns:
        One a step, in the order of the plan; None where Ctrl-C ended the waiting: jobs go on, and the same plan comes
        back to them.

    Raises:
        InputError: no submitit, or no cluster here.
    """
    jobs = submit_arms(plan, cluster)
    try:
        while not all(job.done() for job in jobs.values()):
            show()
            sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        return None
    outcomes: list[Outcome] = []
    for arm in plan.arms:
        outcomes += _collect(plan, arm, jobs[arm.name]) if arm.name in jobs else _list_done(plan, arm)
    return outcomes


def submit_arms(plan: Plan, cluster: Cluster) -> dict[str, Any]:
    """Name of an arm -> its job: of those submitted before that are not over, and of new ones. Raises as above."""
    executor = _open_executor(plan, cluster)
    recorded = _read_jobs(plan)
    missing = [arm for arm in plan.arms if not all(is_done(plan, arm, step) for step in arm.steps)]
    jobs = {}
    for arm in missing:
        if arm.name in recorded and _is_going(job := _reopen(plan, cluster, recorded[arm.name])):
            jobs[arm.name] = job
    fresh = [arm for arm in missing if arm.name not in jobs]
    if fresh:
        submitted = executor.map_array(ArmJob(plan, Path.cwd()), fresh)
        jobs |= {arm.name: job for arm, job in zip(fresh, submitted, strict=True)}
        recorded |= {name: job.job_id for name, job in jobs.items()}
        write_atomic(_locate_jobs(plan), json.dumps(recorded, indent=1).encode())
    return jobs


def _open_executor(plan: Plan, cluster: Cluster) -> Any:
    try:
        from submitit import AutoExecutor
    except ImportError as error:
        raise InputError(
            "package submitit",
            expected="installed, for --slurm",
            found="none",
            where="--slurm",
            fix="pip install 'pixmim-eval[slurm]'",
        ) from error
    folder = plan.out / "slurm"
    try:
        executor = AutoExecutor(folder.absolute(), cluster=cluster.kind, slurm_max_num_timeout=REQUEUES)
    except RuntimeError as error:
        raise InputError(
            "cluster",
            expected="SLURM's srun on the PATH",
            found=str(error),
            where="--slurm",
            fix="Run this where jobs are submitted, or leave --slurm out.",
        ) from error
    wanted = {
        "name": f"ablation-{plan.name}",
        "timeout_min": max(1, round(cluster.hours * 60)),
        "nodes": 1,
        "tasks_per_node": 1,
        "cpus_per_task": cluster.cpus,
        "gpus_per_node": cluster.gpus,
        "slurm_partition": cluster.partition,
        "slurm_account": cluster.account,
        "slurm_array_parallelism": cluster.at_once,
    }
    executor.update_parameters(**{key: value for key, value in wanted.items() if value is not None})
    return executor


def _locate_jobs(plan: Plan) -> Path:
    return plan.out / "slurm" / "jobs.json"


def _read_jobs(plan: Plan) -> dict[str, str]:
    file = _locate_jobs(plan)
    jobs: dict[str, str] = json.loads(file.read_bytes()) if file.exists() else {}
    return jobs


def _reopen(plan: Plan, cluster: Cluster, number: str) -> Any:
    from submitit import LocalJob, SlurmJob

    kind = SlurmJob if cluster.kind == "slurm" else LocalJob
    return kind(folder=(plan.out / "slurm").absolute(), job_id=number)


def _is_going(job: Any) -> bool:
    """Whether a job waits or runs; one that the cluster has forgotten does not."""
    return not job.done(force_check=True) and job.state != "UNKNOWN"


def _collect(plan: Plan, arm: Arm, job: Any) -> list[Outcome]:
    """What a job tells of its steps, and of one that was ended from outside, what its files tell."""
    error = job.exception()
    if error is None:
        told: list[Outcome] = job.result()
        return told
    detail = f"job {job.job_id} ended: {str(error).strip().splitlines()[0]}"
    return [
        Outcome(arm.name, step, "was done" if is_done(plan, arm, step) else "failed", detail, Path(job.paths.stderr))
        for step in arm.steps
    ]


def _list_done(plan: Plan, arm: Arm) -> Sequence[Outcome]:
    return [Outcome(arm.name, step, "was done", "", locate_log(plan, arm, step)) for step in arm.steps]
