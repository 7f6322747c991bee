"""What `pretrain.run --dry-run` says is what the run then records, and nothing is written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pretrain.run import main

SMALL = (  # noqa: SIM905 (a command line reads better whole)
    "--recipe mae-64px --image-size 16 --dim 24 --depth 1 --heads 2 --decoder-dim 16 --batch-size 4 --epochs 1 "
    "--workers 0 --device cpu --draw-every 0"
).split()


def test_it_prints_the_settings_that_the_run_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    for number, size in enumerate([(40, 30), (24, 50), (60, 20), (33, 33), (40, 40)]):
        Image.fromarray(np.zeros((*size, 3), dtype=np.uint8)).save(tmp_path / "data" / f"{number}.png")
    arguments = [*SMALL, "--data", str(tmp_path / "data"), "--out", str(tmp_path / "run")]
    assert main([*arguments, "--dry-run"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert not (tmp_path / "run").exists()
    assert main(arguments) == 0
    assert told["settings"] == json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert {key: told[key] for key in told if key != "settings"} == {
        "supervised": False,
        "images": 5,
        "steps": 1,
        "short_side": 30,
    }
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) == told["steps"]


def test_bad_settings_are_refused_as_by_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--recipe", "mae-64px", "--data", str(tmp_path / "absent"), "--dry-run"]) == 2
    assert "absent" in capsys.readouterr().err
    assert main([*SMALL, "--mask-ratio", "1", "--dry-run"]) == 2
    assert "mask_ratio" in capsys.readouterr().err
