"""Arms as jobs: submitit's own processes in the place of a cluster's, and what SLURM would be asked for."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from analysis.ablation import slurm
from analysis.ablation.plan import Arm, Plan, Step
from analysis.ablation.runner import run_arm
from analysis.ablation.slurm import ArmJob, Cluster, run_on_cluster, submit_arms
from analysis.ablation.state import is_done
from pixmim_eval.errors import InputError

pytest.importorskip("submitit", reason="the extra `slurm` is not installed")
LOCAL = Cluster(kind="local", gpus=0)


def simplify(plan: Plan, arm: Arm, *, fails: bool = False) -> Arm:
    """The arm with commands of the shell that leave what its steps leave."""
    settings = plan.out / "settings.json"
    settings.parent.mkdir(exist_ok=True)
    settings.write_text(json.dumps(dict(arm.settings)))
    recipe, rows = arm.pretraining / "recipe.json", arm.evaluation / "rows"
    pretraining = f"echo {arm.name} >> {plan.out}/calls; mkdir -p {arm.pretraining}; cp {settings} {recipe}; "
    pretraining += "exit 5" if fails else f"touch {arm.checkpoint}"
    knn = f"echo {arm.name} >> {plan.out}/calls; mkdir -p {rows}; touch {rows}/knn-x.json"
    return replace(arm, steps=(Step("pretraining", ("sh", "-c", pretraining)), Step("knn", ("sh", "-c", knn))))


@pytest.fixture
def simple(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.setattr(slurm, "POLL_SECONDS", 0.05)
    base, target, *_ = plan.arms
    base = replace(base, settings={**base.settings, "target": "lowfreq"})  # both write the same settings
    return replace(plan, arms=(simplify(plan, base), simplify(plan, target)))


def list_calls(plan: Plan) -> list[str]:
    return sorted((plan.out / "calls").read_text().split())


def test_jobs_do_the_missing_steps_of_their_arms_in_order(simple: Plan) -> None:
    run_arm(simple, simple.arms[0], {})
    outcomes = run_on_cluster(simple, LOCAL, lambda: None)
    assert outcomes is not None
    assert [(outcome.arm, outcome.step.name, outcome.state) for outcome in outcomes] == [
        ("base", "pretraining", "was done"),
        ("base", "knn", "was done"),
        ("target", "pretraining", "done"),
        ("target", "knn", "done"),
    ]
    assert list_calls(simple) == ["base"] * 2 + ["target"] * 2
    assert submit_arms(simple, LOCAL) == {}


def test_a_job_that_fails_is_told_and_submitted_again(simple: Plan) -> None:
    target = simplify(simple, simple.arms[1], fails=True)
    outcomes = run_on_cluster(replace(simple, arms=(target,)), LOCAL, lambda: None)
    assert outcomes is not None
    assert [outcome.state for outcome in outcomes] == ["failed", "blocked"]
    assert outcomes[0].log.read_text().startswith("$ sh -c")
    again = run_on_cluster(replace(simple, arms=simple.arms[1:]), LOCAL, lambda: None)
    assert again is not None
    assert [outcome.state for outcome in again] == ["done", "done"]


def test_ctrl_c_ends_the_waiting_and_not_the_jobs(simple: Plan) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    arm = simple.arms[0]
    pretraining = replace(arm.steps[0], command=("sh", "-c", f"sleep 0.5; {arm.steps[0].command[2]}"))
    plan = replace(simple, arms=(replace(arm, steps=(pretraining, arm.steps[1])),))
    assert run_on_cluster(plan, LOCAL, interrupt) is None
    assert not (plan.out / "calls").exists()
    end = time.monotonic() + 30
    while not is_done(plan, plan.arms[0], plan.arms[0].steps[1]) and time.monotonic() < end:
        time.sleep(0.05)
    assert list_calls(plan) == ["base", "base"]


def test_a_job_whose_time_is_up_is_queued_as_it_was(simple: Plan) -> None:
    job = ArmJob(simple, Path.cwd())
    submission = job.checkpoint(simple.arms[0])
    assert (submission.function, submission.args, submission.kwargs) == (job, (simple.arms[0],), {})


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs that answer as SLURM's do; jobs stay in the queue until "state" says otherwise."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "state").write_text("PENDING")
    programs = {
        "srun": "exit 1",
        "sbatch": f'cat "$1" >> {folder}/scripts; echo Submitted batch job 12',
        "sacct": f"echo 'JobID|State|NodeList'; for i in 0 1; do echo \"12_$i|$(cat {folder}/state)|\"; done",
    }
    for name, text in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_slurm_is_asked_for_one_array_and_only_once(simple: Plan, cluster: Path) -> None:
    wanted = Cluster(partition="long", account="us", hours=2.5, cpus=6, gpus=3, at_once=1)
    jobs = submit_arms(simple, wanted)
    assert {name: job.job_id for name, job in jobs.items()} == {"base": "12_0", "target": "12_1"}
    script = (cluster / "scripts").read_text()
    lines = {line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH")}
    assert {"array=0-1%1", "partition=long", "account=us", "time=150", "cpus-per-task=6", "gpus-per-node=3"} <= lines
    assert "job-name=ablation-components" in lines
    again = submit_arms(simple, wanted)
    assert {name: job.job_id for name, job in again.items()} == {"base": "12_0", "target": "12_1"}
    assert (cluster / "scripts").read_text() == script
    (cluster / "state").write_text("CANCELLED")
    submit_arms(simple, wanted)
    assert (cluster / "scripts").read_text() == script * 2


def test_no_cluster_here_is_said_before_anything_runs(simple: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="leave --slurm out"):
        submit_arms(simple, Cluster())
