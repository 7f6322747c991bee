"""Plans and a stand-in for python; see stand_ins.py."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from analysis.ablation.basis import Basis
from analysis.ablation.plan import Plan, make_plan
from tests.analysis.ablation.stand_ins import PROGRAM, SETTINGS, Program, build_basis
from tests.analysis.rows import build_row


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """The components of mae-64px, probed and by neighbours."""
    return make_plan(
        "components",
        tmp_path / "out",
        [build_basis()],
        data="DATA",
        suites=[("linear_probe", "--views", "0"), ("knn",)],
    )


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Takes the place of this python in commands."""
    home = tmp_path / "program"
    home.mkdir()
    (home / "settings.json").write_text(json.dumps(SETTINGS))
    (home / "row.json").write_text(json.dumps(asdict(build_row("clean", 0.5))))
    file = home / "python"
    file.write_text(PROGRAM.format(python=sys.executable, home=str(home)))
    file.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(file))
    return Program(home)


@pytest.fixture
def make_basis() -> Callable[..., Basis]:
    """make_basis("mae-64px --epochs 3", crop="src", steps=2)."""
    return build_basis
