"""What is missing is done and nothing else; what fails or is killed goes on from the same command."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import threading
import time
from collections import Counter
from dataclasses import replace

import pytest

from analysis.ablation import runner
from analysis.ablation.plan import Plan
from analysis.ablation.runner import list_slots, run_arm, run_here
from analysis.ablation.state import check_folder, claim_folder, is_done, lock_arm
from pixmim_eval.errors import InputError
from tests.analysis.ablation.stand_ins import Program


def run(plan: Plan, jobs: int = 1) -> list[runner.Outcome]:
    return run_here(plan, list_slots(jobs, 0), lambda: None)


def count(outcomes: list[runner.Outcome]) -> Counter[str]:
    return Counter(outcome.state for outcome in outcomes)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "POLL_SECONDS", 0.02)


def test_every_step_is_run_once_with_its_own_log(plan: Plan, program: Program) -> None:
    outcomes = run(plan, jobs=2)
    commands = [shlex.join(step.command) for arm in plan.arms for step in arm.steps]
    assert sorted(program.calls) == sorted(commands)
    assert [shlex.join(outcome.step.command) for outcome in outcomes] == commands  # told in the order of the plan
    assert count(outcomes) == {"done": 12}
    log = plan.out / "logs" / "both-knn.log"
    assert log.read_text() == f"$ {commands[-1]}\nworking\n"
    assert count(run(plan)) == {"was done": 12}
    assert len(program.calls) == 12


def test_pretraining_comes_before_the_suites_of_its_arm(plan: Plan, program: Program) -> None:
    run(plan, jobs=4)
    for arm in plan.arms:
        of_arm = [call for call in program.calls if f"/{arm.name}" in call]
        assert of_arm == [shlex.join(step.command) for step in arm.steps]


def test_what_is_gone_or_changed_is_done_again_and_only_that(plan: Plan, program: Program) -> None:
    run(plan)
    base, target, crop, both = plan.arms
    next((base.evaluation / "rows").glob("knn-*")).unlink()
    target.checkpoint.unlink()
    (crop.pretraining / "recipe.json").write_text(json.dumps({**crop.settings, "save_every": 1, "precision": "bf16"}))
    both.checkpoint.write_text("other weights")
    other = replace(both.steps[1], command=(*both.steps[1].command, "--seed", "1"))
    plan = replace(plan, arms=(base, target, crop, replace(both, steps=(both.steps[0], other, both.steps[2]))))
    before = len(program.calls)
    states = {(outcome.arm, outcome.step.name): outcome.state for outcome in run(plan)}
    again = {key for key, state in states.items() if state == "done"}
    assert again == {("base", "knn"), ("target", "pretraining"), ("both", "linear_probe"), ("both", "knn")}
    assert len(program.calls) == before + 4


def test_a_failing_step_stops_only_what_needs_it(plan: Plan, program: Program) -> None:
    program.set("fail", "pretrain/base", "evaluation/crop")
    outcomes = run(plan)
    states = {(outcome.arm, outcome.step.name): outcome.state for outcome in outcomes}
    assert states[("base", "pretraining")] == "failed"
    assert states[("base", "linear_probe")] == states[("base", "knn")] == "blocked"
    assert states[("crop", "linear_probe")] == states[("crop", "knn")] == "failed"
    assert Counter(states.values()) == {"failed": 3, "blocked": 2, "done": 7}
    details = [outcome.detail for outcome in outcomes if outcome.state == "failed"]
    assert details[0].startswith("exit code 3, after ") and details[0].endswith(": working")
    program.set("fail", "nothing")
    assert count(run(plan)) == {"was done": 7, "done": 5}


def test_a_killed_pretraining_resumes(plan: Plan, program: Program) -> None:
    program.set("kill", "pretrain/both")
    failed = [outcome for outcome in run(plan) if outcome.state == "failed"]
    assert [(outcome.arm, outcome.detail.split(",")[0]) for outcome in failed] == [("both", "exit code -9")]
    log = plan.arms[3].pretraining / "log.jsonl"
    assert len(log.read_text().splitlines()) == 6
    assert count(run(plan)) == {"was done": 9, "done": 3}
    assert len(log.read_text().splitlines()) == 12
    record = json.loads((plan.out / "steps" / "both-pretraining.json").read_text())
    assert record["resumed"] is True


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_all_processes_and_the_same_plan_goes_on(
    plan: Plan, program: Program, kind: signal.Signals
) -> None:
    program.set("wait", "pretrain/target")
    waiting = program.home / "waiting"

    def interrupt() -> None:
        while not waiting.exists() or not waiting.read_text():
            time.sleep(0.02)
        os.kill(os.getpid(), kind)

    former = signal.signal(kind, signal.default_int_handler)  # a shell may have started this with it ignored
    try:
        threading.Thread(target=interrupt).start()
        outcomes = run(plan)
    finally:
        signal.signal(kind, former)
    assert count(outcomes) == {"done": 3, "stopped": 9}
    with pytest.raises(ProcessLookupError):
        os.kill(int(waiting.read_text()), 0)
    program.set("wait", "nothing")
    assert count(run(plan)) == {"was done": 3, "done": 9}


def test_what_was_started_by_nohup_outlives_its_terminal(plan: Plan, program: Program) -> None:
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        arm = replace(plan, arms=plan.arms[:1])
        outcomes = run_here(arm, list_slots(1, 0), lambda: os.kill(os.getpid(), signal.SIGHUP))
    finally:
        signal.signal(signal.SIGHUP, former)
    assert count(outcomes) == {"done": 3}


def test_an_arm_belongs_to_one_process_at_a_time(plan: Plan, program: Program) -> None:
    with lock_arm(plan, plan.arms[0]):
        assert [outcome.state for outcome in run_arm(plan, plan.arms[0], {})] == ["busy"] * 3
    assert program.calls == []
    assert count(run_arm(plan, plan.arms[0], {})) == {"done": 3}


def test_the_folder_of_another_ablation_is_refused(plan: Plan) -> None:
    claim_folder(plan)
    claim_folder(plan)
    with pytest.raises(InputError, match="the ablation components"):
        check_folder(replace(plan, name="crop"))
    other = replace(plan.arms[0], settings={**plan.arms[0].settings, "epochs": 4, "save_every": 9})
    with pytest.raises(InputError, match="base: epochs = 3, now 4"):
        check_folder(replace(plan, arms=(other,)))


def test_rows_alone_are_not_enough(plan: Plan, program: Program) -> None:
    run(plan)
    arm = plan.arms[0]
    (plan.out / "steps" / "base-knn.json").unlink()
    assert [is_done(plan, arm, step) for step in arm.steps] == [True, True, False]


def test_slots_share_the_cores_or_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert list_slots(3, 1) == [{"OMP_NUM_THREADS": "2"}] * 3
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7,8")
    assert list_slots(None, 2) == [{"CUDA_VISIBLE_DEVICES": "4,5"}, {"CUDA_VISIBLE_DEVICES": "6,7"}]
    assert list_slots(1, 1) == [{"CUDA_VISIBLE_DEVICES": "4"}]
    assert list_slots(1, 0) == [{"OMP_NUM_THREADS": "8", "CUDA_VISIBLE_DEVICES": ""}]
    with pytest.raises(InputError, match="expected 3 x 2"):
        list_slots(3, 2)
    assert sys.executable  # the environment is that of processes, not of this one
