"""Result rows: what is stored is what is read, and a crash leaves nothing half."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pixmim_eval.errors import InputError
from pixmim_eval.results import (
    COLUMNS,
    RunFolder,
    format_protocol,
    hash_parts,
    make_rows,
    name_subset,
    read_hits,
    read_rows,
)
from pixmim_eval.types import Estimate, LabelSpace, Manifest, Model, Outcome, Preprocessing, ResultRow, SuiteConfig

SPACE = LabelSpace("names-2", ("cat", "dog"))
MANIFEST = Manifest("pets", np.array(["a", "b", "c"]), np.array([0, 1, 0]), SPACE, "d" * 16, source=None)  # type: ignore[arg-type]
MODEL = Model("mae-tiny", "a" * 16, None, Preprocessing(64, 64), method="mae", epoch=None)


def make(condition: str = "gaussian_noise/3", value: float = 1 / 3, **changes: object) -> ResultRow:
    (row,) = make_rows(
        MODEL,
        MANIFEST,
        {"top1": Estimate(value, value - 0.1, value + 0.1, 1024)},
        suite="robustness",
        condition=condition,
        protocol=format_protocol(transform="ready-64", head="own"),
        config=SuiteConfig(data={}, limit=2, seed=7, run="demo"),
        skipped=1,
    )
    return replace(row, **changes)  # type: ignore[arg-type]


def test_a_row_says_who_was_measured_on_what_and_how() -> None:
    row = make()
    assert (row.run, row.model, row.weights_digest, row.method, row.epoch) == (
        "demo",
        "mae-tiny",
        "a" * 16,
        "mae",
        None,
    )
    assert (row.dataset, row.dataset_digest, row.subset) == ("pets", "d" * 16, "spread-2")
    assert row.protocol == "head=own;transform=ready-64"
    assert (row.n, row.skipped, row.seed, row.unit) == (1024, 1, 7, "fraction")
    assert "torch=" in row.versions and "pixmim-eval=" in row.versions
    assert pd.Timestamp(row.time).utcoffset() == pd.Timedelta(0)


def test_numbers_come_back_to_the_bit(tmp_path: Path) -> None:
    rows = [make(), make(metric="top1_full1000", value=0.1 + 0.2, epoch=300)]
    folder = RunFolder(tmp_path)
    folder.write("0123456789abcdef", Outcome(rows, {}))
    assert RunFolder(tmp_path).read() == rows


def test_how_each_image_fared_comes_back_beside_its_row(tmp_path: Path) -> None:
    hits = np.array([1, 0, -1, 1, 1], dtype=np.int8)
    RunFolder(tmp_path).write("a" * 16, Outcome([make(), make(metric="ece")], {"top1": hits}))
    RunFolder(tmp_path).write("b" * 16, Outcome([make(metric="other")], {}))
    found = read_hits(tmp_path)
    assert tuple(found.columns) == (*COLUMNS, "hits") and found["metric"].tolist() == ["top1"]
    np.testing.assert_array_equal(found["hits"][0], hits)
    assert found["hits"][0].dtype == np.int8
    assert len(read_rows(tmp_path)) == 3


def test_fifty_thousand_images_take_some_ten_kilobytes(tmp_path: Path) -> None:
    hits = (np.random.default_rng(0).random(50_000) < 0.7).astype(np.int8)
    file = RunFolder(tmp_path).write("a" * 16, Outcome([make()], {"top1": hits}))
    assert file.stat().st_size < 14_000
    np.testing.assert_array_equal(read_hits(tmp_path)["hits"][0], hits)


def test_rows_get_another_name_of_their_model_and_nothing_else(tmp_path: Path) -> None:
    hits = np.array([1, 0, -1], dtype=np.int8)
    folder = RunFolder(tmp_path)
    old = folder.write("a" * 16, Outcome([make(), make(metric="ece")], {"top1": hits}))
    before = folder.read()
    folder.rename_model("a" * 16, "another")
    again = RunFolder(tmp_path)
    assert again.read(["a" * 16]) == again.read() == [replace(row, model="another") for row in before]
    np.testing.assert_array_equal(read_hits(tmp_path)["hits"][0], hits)
    assert again.has("a" * 16) and not old.exists()
    (file,) = again.files()
    written = file.stat().st_mtime_ns
    folder.rename_model("a" * 16, "another")
    assert file.stat().st_mtime_ns == written  # nothing to do


def test_a_folder_of_rows_alone_has_no_hits(tmp_path: Path) -> None:
    RunFolder(tmp_path).write("a" * 16, Outcome([make()], {}))
    assert read_hits(tmp_path).empty


def test_a_data_frame_has_the_fields_in_order_with_their_types(tmp_path: Path) -> None:
    RunFolder(tmp_path).write("0123456789abcdef", Outcome([make(), make(metric="other", epoch=300)], {}))
    frame = read_rows(tmp_path)
    assert tuple(frame.columns) == COLUMNS
    assert [str(frame[name].dtype) for name in ("epoch", "value", "low", "n", "skipped", "seed")] == [
        "Int64", "float64", "float64", "int64", "int64", "int64",
    ]  # fmt: skip
    assert frame["epoch"].isna().tolist() == [True, False]
    assert pd.api.types.is_string_dtype(frame["model"])


def test_a_frame_without_any_epoch_keeps_its_integer_type(tmp_path: Path) -> None:
    RunFolder(tmp_path).write("0123456789abcdef", Outcome([make()], {}))
    assert str(read_rows(tmp_path)["epoch"].dtype) == "Int64"


def test_a_condition_is_done_once_its_file_is_there(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert not folder.has("0123456789abcdef")
    file = folder.write("0123456789abcdef", Outcome([make()], {}))
    assert folder.has("0123456789abcdef") and RunFolder(tmp_path).has("0123456789abcdef")
    assert not folder.has("fedcba9876543210")
    assert file.name == "robustness-mae-tiny-gaussian_noise-3-0123456789abcdef.json"


def test_rows_of_former_code_give_way_to_those_of_the_same_measurement(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write("a" * 16, Outcome([make(value=0.3)], {}))
    folder.write("b" * 16, Outcome([make(value=0.3, dataset_digest="e" * 16)], {}))
    folder.write("c" * 16, Outcome([make(value=0.4)], {}))
    assert sorted(row.value for row in folder.read()) == [0.3, 0.4]
    assert not folder.has("a" * 16)
    assert folder.has("b" * 16)


def test_names_that_no_file_can_have_are_stored_all_the_same(tmp_path: Path) -> None:
    row = make(model="../../etc/" + "x" * 300 + " ü*")
    file = RunFolder(tmp_path).write("0123456789abcdef", Outcome([row], {}))
    assert file.parent == tmp_path / "rows" and len(file.name) < 160
    assert RunFolder(tmp_path).read() == [row] and RunFolder(tmp_path).has("0123456789abcdef")


def test_what_a_killed_process_leaves_is_not_read(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    file = folder.write("0123456789abcdef", Outcome([make()], {}))
    file.with_name(f".{file.name}.4242.tmp").write_bytes(file.read_bytes()[:37])
    file.with_name(".robustness-x-0000000000000000.json.1.tmp").write_bytes(b"")
    again = RunFolder(tmp_path)
    assert len(again.read()) == 1 and not again.has("0000000000000000")


def test_a_process_killed_while_writing_leaves_the_rows_that_were_there(tmp_path: Path) -> None:
    file = RunFolder(tmp_path).write("0123456789abcdef", Outcome([make()], {}))
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from pixmim_eval.results import RunFolder\n"
        "from pixmim_eval.types import Outcome\n"
        "folder = RunFolder(Path(sys.argv[1]))\n"
        "outcome = Outcome(folder.read() * 1000, {})\n"
        "os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)\n"
        "folder.write('0123456789abcdef', outcome)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert killed.returncode == -9
    assert len(list(file.parent.iterdir())) == 2  # the temporary file is there, and ignored
    assert len(RunFolder(tmp_path).read()) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"key": "x"',
        b'{"key": "x", "rows": [{"run": "only"}]}',
        b"[1, 2]",
        b'{"key": "x", "rows": [], "hits": {"top1": "not base64"}}',
        b'{"key": "x", "rows": [], "hits": {"top1": "AAAA"}}',
        b"\xff\xfe",
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    file = RunFolder(tmp_path).write("0123456789abcdef", Outcome([make()], {}))
    file.write_bytes(content)
    with pytest.raises(InputError, match=file.name):
        read_rows(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"), [("value", "0.5"), ("n", 3.0), ("epoch", "300"), ("model", 7), ("n", True)]
)
def test_a_number_stored_as_something_else_is_refused(tmp_path: Path, field: str, value: object) -> None:
    file = RunFolder(tmp_path).write("0123456789abcdef", Outcome([make()], {}))
    file.write_text(json.dumps({"key": "x", "rows": [asdict(make()) | {field: value}]}))
    with pytest.raises(InputError, match=f"field {field}"):
        read_rows(tmp_path)


def test_not_a_number_is_never_stored(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        RunFolder(tmp_path).write("0123456789abcdef", Outcome([make(value=float("nan"))], {}))


def test_an_empty_folder_says_which_command_makes_rows(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"python -m pixmim_eval\.run --suite robustness"):
        read_rows(tmp_path / "absent")


def test_chosen_conditions_are_read_in_the_order_asked_for(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for number, condition in enumerate(("clean", "sketch", "summary")):
        folder.write(f"{number:016x}", Outcome([make(condition)], {}))
    assert [row.condition for row in folder.read([f"{2:016x}", f"{0:016x}", "f" * 16])] == ["summary", "clean"]


def test_keys_differ_wherever_a_part_differs() -> None:
    keys = {hash_parts("a", 1), hash_parts("a", "1"), hash_parts("a1"), hash_parts("a", (1,)), hash_parts("a", None)}
    assert len(keys) == 5 and all(len(key) == 16 for key in keys)


def test_a_limit_that_limits_nothing_is_not_a_subset() -> None:
    assert [name_subset(MANIFEST, limit) for limit in (None, 3, 4, 2)] == ["all", "all", "all", "spread-2"]


def test_reading_rows_needs_no_torch() -> None:
    script = "import sys, pixmim_eval.results, pixmim_eval.run; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_rows_of_the_first_schema_are_migrated(tmp_path: Path) -> None:
    """Its files named no schema, and its rows neither command nor pretraining."""
    made = make()
    file = RunFolder(tmp_path).write("0123456789abcdef", Outcome([made], {}))
    content = json.loads(file.read_bytes())
    assert content.pop("schema") == 2
    del content["rows"][0]["command"], content["rows"][0]["pretraining"]
    file.write_text(json.dumps(content))
    assert RunFolder(tmp_path).read() == [replace(made, command="", pretraining="")]


@pytest.mark.parametrize("schema", [0, 3, "2", None])
def test_a_schema_that_is_not_known_is_named(tmp_path: Path, schema: object) -> None:
    file = RunFolder(tmp_path).write("0123456789abcdef", Outcome([make()], {}))
    file.write_text(json.dumps(json.loads(file.read_bytes()) | {"schema": schema}))
    with pytest.raises(InputError, match=f"schema of a file of result rows: .*{schema!r}.*{file.name}"):
        read_rows(tmp_path)


def test_a_protocol_with_a_semicolon_in_a_name_can_be_read_again() -> None:
    text = format_protocol(head_data="my;data@0123", pooling="a=b")
    assert dict(piece.split("=", 1) for piece in text.split(";")) == {"head_data": "my,data@0123", "pooling": "a=b"}
