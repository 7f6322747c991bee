"""The evaluation command: what it stores, prints and returns, and that nothing is lost or done twice."""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
import torch

from pixmim_eval.errors import InputError
from pixmim_eval.extract import passes
from pixmim_eval.models import catalog
from pixmim_eval.results import COLUMNS, RunFolder, read_rows
from pixmim_eval.run import main, print_summary
from pixmim_eval.suites.robustness import Robustness
from pixmim_eval.types import Model, ResultRow, SuiteConfig
from tests.analysis.rows import build_row
from tests.fakes import make_model

DATA = ["--data", "builtin:shapes16@16", "--limit", "24"]
CORRUPTIONS = ("--corruptions", "impulse_noise", "contrast")
COMMAND = ["--suite", "robustness", *DATA, "--device", "cpu", "--workers", "0", *CORRUPTIONS]
CONDITIONS = 16  # clean, ten corrupted cells, four variants, the summary
ROWS = 31  # accuracy and calibration of each but the summary, which has one mean error


def make_models(*_: object) -> list[Model]:
    return [make_model(space=None, name="first"), make_model(space=None, name="second", seed=1)]


@pytest.fixture(autouse=True)
def reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[str]]]:
    """Two tiny encoders, two corruptions, an empty cache, and an analysis that only notes how it was called."""
    calls: list[list[str]] = []

    def draw(arguments: list[str]) -> int:
        calls.append(arguments)
        return 0

    analysis = ModuleType("analysis.run")
    analysis.main = draw  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "analysis.run", analysis)
    monkeypatch.setattr(catalog, "load_models", make_models)
    monkeypatch.setenv("PIXMIM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    passes._kept.clear()
    yield calls
    passes._kept.clear()


def read_values(folder: Path) -> pd.DataFrame:
    """Rows without what may differ between two runs of the same work."""
    frame = read_rows(folder).drop(columns=["run", "time", "command"])
    return frame.sort_values(["model", "condition", "metric"]).reset_index(drop=True)


def break_suite(monkeypatch: pytest.MonkeyPatch, at: Callable[[Model, str], bool], error: BaseException) -> list[str]:
    """Let the suite raise where `at` says so; returns the list of conditions that it was asked for."""
    real, asked = Robustness.run, list[str]()

    def run(self: Robustness, model: Model, condition: str, config: SuiteConfig) -> list[ResultRow]:
        asked.append(condition)
        if at(model, condition):
            raise error
        return real(self, model, condition, config)

    monkeypatch.setattr(Robustness, "run", run)
    return asked


def test_every_condition_of_every_model_is_stored_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], reports: list[list[str]]
) -> None:
    assert main([*COMMAND, "--out", "out"]) == 0
    rows = read_rows(Path("out"))
    assert len(rows) == 2 * ROWS and set(rows["model"]) == {"first", "second"}
    assert (rows["run"] == "out").all() and (rows["subset"] == "spread-24").all() and (rows["n"] == 24).all()
    assert set(rows["command"]) == {shlex.join(["python", "-m", "pixmim_eval.run", *COMMAND, "--out", "out"])}
    shown = capsys.readouterr()
    summary = rows[(rows["condition"] == "summary") & (rows["model"] == "second")].iloc[0]
    assert f"{100 * summary['value']:.1f} % [{100 * summary['low']:.1f}, {100 * summary['high']:.1f}]" in shown.out
    assert "cue-conflict" in shown.out and "impulse_noise" not in shown.out
    assert str(Path("out/rows")) in shown.out
    assert reports == [[view, "--runs", "out", "--out", str(Path("out/reports"))] for view in ("figures", "tables")]


def test_a_summary_of_many_models_is_several_tables_with_whole_numbers_and_their_protocol(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [
        build_row("cue-conflict", 0.5, model=f"subject-{place:02d}", protocol=f"head=own;observers={1 + place // 9}")
        for place in range(12)
    ]
    print_summary(rows)
    text = capsys.readouterr().out
    assert text.count("condition") == 2 and text.count("…") == 0
    for row in rows:
        assert row.model in text
    assert text.count(f"{100 * rows[0].value:.1f} % [{100 * rows[0].low:.1f}, {100 * rows[0].high:.1f}]") == 12
    assert text.splitlines()[-1] == "protocol: head=own, observers=1 | 2"


def test_without_out_rows_and_reports_have_their_usual_places(reports: list[list[str]]) -> None:
    assert main(COMMAND) == 0
    assert len(read_rows(Path("runs/evaluation"))) == 2 * ROWS
    assert reports[0] == ["figures", "--runs", str(Path("runs/evaluation")), "--out", "reports"]


def test_what_is_done_is_not_done_again(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    main([*COMMAND, "--out", "out"])
    before = {file: file.read_bytes() for file in Path("out/rows").iterdir()}
    asked = break_suite(monkeypatch, lambda model, condition: False, RuntimeError())
    capsys.readouterr()
    assert main([*COMMAND, "--out", "out"]) == 0
    assert not asked
    assert {file: file.read_bytes() for file in Path("out/rows").iterdir()} == before
    assert f"{2 * CONDITIONS} of {2 * CONDITIONS} conditions are done" in capsys.readouterr().err


def test_another_model_limit_or_seed_is_other_work(monkeypatch: pytest.MonkeyPatch) -> None:
    main([*COMMAND, "--out", "out"])
    asked = break_suite(monkeypatch, lambda model, condition: False, RuntimeError())
    main([*COMMAND, "--out", "out", "--limit", "25"])
    main([*COMMAND, "--out", "out", "--seed", "1"])
    monkeypatch.setattr(catalog, "load_models", lambda *_: [make_model(space=None, name="first", seed=2)])
    main([*COMMAND, "--out", "out"])
    assert len(asked) == (2 + 2 + 1) * CONDITIONS


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(1)])
def test_a_run_that_was_killed_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: BaseException
) -> None:
    main([*COMMAND, "--out", "whole"])
    with monkeypatch.context() as patch:
        break_suite(patch, lambda model, condition: (model.name, condition) == ("second", "impulse_noise/2"), stop)
        with pytest.raises(type(stop)):
            main([*COMMAND, "--out", "parts"])
    stored = len(RunFolder(Path("parts")).files())
    assert 0 < stored < 2 * CONDITIONS
    patch_asked = break_suite(monkeypatch, lambda model, condition: False, RuntimeError())
    monkeypatch.setenv("PIXMIM_CACHE", str(tmp_path / "another"))  # nothing but the rows survived
    assert main([*COMMAND, "--out", "parts"]) == 0
    assert len(patch_asked) == 2 * CONDITIONS - stored
    pd.testing.assert_frame_equal(read_values(Path("parts")), read_values(Path("whole")))


def test_bad_input_stops_the_run_and_keeps_what_is_stored(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = InputError("image", expected="an image", found="noise", where="x.png", fix="Use --on-bad-image skip.")
    break_suite(monkeypatch, lambda model, condition: condition == "contrast/1", error)
    assert main([*COMMAND, "--out", "out"]) == 2
    assert "x.png" in capsys.readouterr().err
    assert len(RunFolder(Path("out")).files()) == 2 * 6  # clean, five of impulse_noise


def test_a_condition_that_fails_is_named_and_the_others_are_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        break_suite(
            patch,
            lambda model, condition: (model.name, condition) == ("first", "contrast/1"),
            RuntimeError("out of memory"),
        )
        assert main([*COMMAND, "--out", "out"]) == 4
    assert "contrast/1 of first: RuntimeError: out of memory" in capsys.readouterr().err
    assert len(RunFolder(Path("out")).files()) == 2 * CONDITIONS - 1
    assert main([*COMMAND, "--out", "out"]) == 0
    assert len(RunFolder(Path("out")).files()) == 2 * CONDITIONS


def test_a_model_that_gives_nan_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = make_model(space=None, name="broken", seed=3)
    broken.encoder.embed.weight.data[0] = float("nan")
    monkeypatch.setattr(catalog, "load_models", lambda *_: [broken, *make_models()])
    assert main([*COMMAND, "--out", "out"]) == 4
    assert set(read_rows(Path("out"))["model"]) == {"first", "second"}


def test_a_mistake_in_the_program_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    break_suite(monkeypatch, lambda model, condition: condition == "clean", KeyError("bug"))
    with pytest.raises(KeyError):
        main([*COMMAND, "--out", "out"])


def test_reports_that_cannot_be_drawn_leave_a_partial_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["analysis.run"], "main", lambda arguments: 2)
    assert main([*COMMAND, "--out", "out"]) == 4
    assert len(read_rows(Path("out"))) == 2 * ROWS


def test_a_dry_run_says_what_is_missing_and_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], reports: list[list[str]]
) -> None:
    assert main([*COMMAND, "--out", "out", "--dry-run"]) == 0
    plan = capsys.readouterr().out
    assert f"conditions: {2 * CONDITIONS} = 0 done + {2 * CONDITIONS} missing" in plan
    images = 2 * (24 + 11 * 24 + 4 * 24)  # head, clean and cells, variants
    assert f"at most {images} images" in plan
    assert "data val: shapes16-val, n = 768, digest" in plan
    assert f"model first: method mae, epoch 5, weights {make_models()[0].digest}, a linear head is fitted" in plan
    assert not Path("out").exists() and not (tmp_path / "cache").exists() and not reports
    with monkeypatch.context() as patch:
        break_suite(patch, lambda model, condition: (model.name, condition) == ("second", "summary"), RuntimeError())
        main([*COMMAND, "--out", "out"])
    capsys.readouterr()
    main([*COMMAND, "--out", "out", "--dry-run"])
    plan = capsys.readouterr().out
    assert f"{2 * CONDITIONS - 1} done + 1 missing" in plan and "missing summary: second" in plan


def test_rows_are_printed_as_csv_and_json_without_losing_a_digit(capsys: pytest.CaptureFixture[str]) -> None:
    main([*COMMAND, "--out", "out"])
    stored = RunFolder(Path("out")).read()
    capsys.readouterr()
    assert main(["rows", "out"]) == 0
    table = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert tuple(table[0]) == COLUMNS and table[0]["epoch"] == "5"
    assert [(row["condition"], float(row["value"]), float(row["high"])) for row in table] == [
        (row.condition, row.value, row.high) for row in stored
    ]
    assert main(["rows", "out", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [asdict(row) for row in stored]


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    main([*COMMAND, "--out", "out"])
    command = f"set -o pipefail; {sys.executable} -m pixmim_eval.run rows {tmp_path / 'out'} | (exec <&-; sleep 2)"
    root = Path(__file__).resolve().parents[1]
    shown = subprocess.run(["bash", "-c", command], cwd=root, capture_output=True, text=True, check=False)
    assert not shown.stderr and shown.returncode == 4


def test_rows_of_nothing_are_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rows", "nowhere"]) == 2
    shown = capsys.readouterr()
    assert "nowhere" in shown.err and not shown.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--suite", "robustnes"], "Did you mean robustness"),
        ([*COMMAND, "--data", "skecth=x"], "skecth"),
        (["--suite", "robustness", "--data", "/nowhere"], "/nowhere"),
        (["--suite", "robustness", "--data", "builtin:shapes16:val@16", "--device", "cpu"], "--data train=PATH"),
    ],
)
def test_bad_input_has_its_exit_code_and_a_message_without_traceback(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    shown = capsys.readouterr().err
    assert message in shown and "Traceback" not in shown


@pytest.mark.parametrize(
    "words",
    [["--limit", "0"], ["--batch-size", "-1"], ["--workers", "-1"], ["--on-bad-image", "guess"], ["--seed", "x"]],
)
def test_options_out_of_range_are_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*COMMAND, *words])
    assert stopped.value.code == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--suite", "robustness", "--device", "cuda"]) == 2
    assert "--device cpu" in capsys.readouterr().err


def test_no_models_is_bad_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(catalog, "load_models", lambda *_: [])
    assert main(COMMAND) == 2
    assert "--checkpoint FILE" in capsys.readouterr().err


def test_checkpoints_models_and_data_may_be_given_together_or_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr(catalog, "load_models", lambda *arguments: seen.extend(arguments) or make_models())
    main([*COMMAND, "--dry-run", "--checkpoint", "a", "b", "--checkpoint", "c*", "--model", "resnet18"])
    assert seen == [["a", "b", "c*"], ["resnet18"]]


def run_as_rank(rank: int, port: int, folder: Path) -> None:
    """What torchrun would start as one of two processes."""
    torch.set_num_threads(1)  # OpenMP does not survive a fork
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "PIXMIM_CACHE": str(folder / "shared-cache")}
    passes._kept.clear()
    with (folder / f"stdout-{rank}").open("w") as file, redirect_stdout(file):
        code = main([*COMMAND, "--out", "two"])
    os._exit(code)


def test_two_processes_give_the_rows_of_one(tmp_path: Path) -> None:
    assert main([*COMMAND, "--out", "one"]) == 0
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=run_as_rank, args=(rank, port, tmp_path)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        process.kill()
    assert [process.exitcode for process in processes] == [0, 0]
    pd.testing.assert_frame_equal(read_values(Path("two")), read_values(Path("one")))
    assert "rows: " in (tmp_path / "stdout-0").read_text()
    assert not (tmp_path / "stdout-1").read_text()  # one process speaks for both
