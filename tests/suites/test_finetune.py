"""The suite finetune: its rows say what was done, resume, and equal a count by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pixmim_eval import training
from pixmim_eval.errors import InputError
from pixmim_eval.extract import predict
from pixmim_eval.metrics.intervals import wilson
from pixmim_eval.models import catalog
from pixmim_eval.results import read_rows
from pixmim_eval.run import main
from pixmim_eval.suites.finetune import Finetune
from pixmim_eval.transfer.finetune import finetune
from pixmim_eval.transfer.recipes import FinetuneOptions, resolve_recipe
from pixmim_eval.types import LabelSpace, SuiteConfig
from tests.fakes import make_manifest
from tests.transfer.encoders import make_vit

SUITE = Finetune()
SEVEN = LabelSpace("names-7", tuple("abcdefg"))
FLAGS = {"epochs": 2, "train_batch_size": 16, "mix_images": 4, "warmup_epochs": 0.5, "base_lr": 0.05}
COMMAND = ["--suite", "finetune", "--data", "builtin:shapes16@16", "--limit", "40", "--device", "cpu", "--workers", "0"]


@pytest.fixture(autouse=True)
def one_thread_and_an_empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PIXMIM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_config(tmp_path: Path, **options: object) -> SuiteConfig:
    data = {"val": make_manifest(30, seed=1, space=SEVEN), "train": make_manifest(42, seed=2, space=SEVEN)}
    return SuiteConfig(data=data, workers=0, out=tmp_path / "run", options=FinetuneOptions(**{**FLAGS, **options}))


def test_rows_count_the_answers_of_the_tuned_weights_and_of_their_average(tmp_path: Path) -> None:
    config = make_config(tmp_path, ema=0.5)
    outcome = SUITE.run(make_vit(), "clean", config)
    rows = {row.metric: row for row in outcome.rows}
    assert rows.keys() == outcome.hits.keys() == {"top1", "top5", "top1_ema", "top5_ema"}
    tuned = finetune(make_vit(), config.data["train"], config, resolve_recipe(config.options))  # trained already
    for suffix, model in (("", tuned.model), ("_ema", tuned.average)):
        assert model is not None
        logits, labels = predict(model, config.data["val"], config=config).logits, config.data["val"].labels
        order = np.argsort(-logits, axis=1, kind="stable")
        for count in (1, 5):
            hits = (order[:, :count] == labels[:, None]).any(axis=1)
            row, wanted = rows[f"top{count}{suffix}"], wilson(int(hits.sum()), 30)
            assert (row.value, row.low, row.high, row.n) == (wanted.value, wanted.low, wanted.high, 30)
            assert np.array_equal(outcome.hits[row.metric], hits)
    protocol = dict(part.split("=", 1) for part in rows["top1"].protocol.split(";"))
    assert protocol["pooling"] == "mean"
    for told in ("layer_decay=0.65", "train_batch_size=16", "epochs=2", "mixup=0.8", "train=42", "ema=0.5"):
        assert told in protocol["head"]
    assert (rows["top1"].weights_digest, rows["top1"].epoch) == (make_vit().digest, 5)


def test_classes_of_val_may_be_some_of_those_of_train_but_no_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_config(tmp_path, epochs=1)
    few = make_manifest(30, seed=1, space=LabelSpace("names-3", ("a", "c", "g")))
    some = replace(config, data={**config.data, "val": few})
    outcome = SUITE.run(make_vit(), "clean", some)
    assert outcome.hits.keys() == {"top1_full7", "top5_full7", "top1_masked3"}
    absent = replace(config, data={**some.data, "train": make_manifest(6, seed=2, space=SEVEN)})
    outcome = SUITE.run(make_vit(), "clean", absent)
    assert "absent_classes=1" in outcome.rows[0].protocol
    assert "(g)" in capsys.readouterr().err
    strange = make_manifest(30, space=LabelSpace("names-2", ("a", "z")))
    with pytest.raises(InputError):
        SUITE.roles(make_vit(), "clean", replace(config, data={**config.data, "val": strange}))


def test_the_same_command_twice_does_no_work_the_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "load_models", lambda *_: [make_vit()])
    flags = [word for name, value in FLAGS.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    command = [*COMMAND, *flags, "--recipe", "short", "--ema", "0.9"]
    assert main([*command, "--out", "run"]) == 0
    first = read_rows(Path("run"))
    assert set(first["metric"]) == {"top1", "top5", "top1_ema", "top5_ema"}
    monkeypatch.delattr(training._Loop, "_run_step")
    assert main([*command, "--out", "run", "--micro-batch", "8"]) == 0
    assert first.equals(read_rows(Path("run")))
    (folder,) = (Path("run") / "training").iterdir()
    assert (folder / "log.jsonl").read_text().count("\n") == 4
