"""What a word of the command line means, and what to run for a checkpoint."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from analysis.comparison.commands import exchange_checkpoint, read_inputs
from analysis.comparison.names import find_checkpoint, list_checkpoints
from pixmim_eval.errors import InputError
from tests.analysis.rows import build_row, frame_outcomes

RUN = "python -m pixmim_eval.run --suite robustness"
MODELS = {  # name -> digest, method, epoch, command
    "mae-4": ("4444aaaa00000000", "mae", 4, f"{RUN} --checkpoint runs/mae/epoch-0004.safetensors --data x"),
    "mae-20": ("0020aaaa00000000", "mae", 20, f"{RUN} --checkpoint runs/mae/epoch-0020.safetensors --data x"),
    "pixmim-mae-20:second/epoch-0020": ("bbbb000000000000", "pixmim-mae", 20, f"{RUN} --checkpoint 'runs/*/*' -x"),
    "vit_base_patch16_224": ("cccc000000000000", "timm", None, f"{RUN} --model vit_base_patch16_224 --data x"),
    "<script>alert(1)</script>\n\u202eevil": ("dddd000000000000", "unknown", None, ""),
}


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rows = [
        build_row("clean", 0.5, model=name, weights_digest=digest, method=method, epoch=epoch, command=command)
        for name, (digest, method, epoch, command) in MODELS.items()
    ]
    return frame_outcomes((rows, {}))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("mae-4", "mae-4"),
        ("0020", "mae-20"),
        ("BBBB00", "pixmim-mae-20:second/epoch-0020"),
        ("mae@20", "mae-20"),
        ("mae:epoch-0004", "mae-4"),
        ("pixmim-mae@20", "pixmim-mae-20:second/epoch-0020"),
        ("pix", "pixmim-mae-20:second/epoch-0020"),
        ("runs/mae/epoch-0020.safetensors", "mae-20"),
        ("mae/epoch-0004.safetensors", "mae-4"),
        ("./epoch-0004.safetensors", "mae-4"),
        ("*/epoch-0004.*", "mae-4"),
        ("anywhere/second/epoch-0020.safetensors", "pixmim-mae-20:second/epoch-0020"),
        ("vit", "vit_base_patch16_224"),
        ("<script>", "<script>alert(1)</script>\n\u202eevil"),
    ],
)
def test_a_checkpoint_answers_to_name_epoch_digest_and_file(frame: pd.DataFrame, text: str, name: str) -> None:
    assert find_checkpoint(frame, text).names == (name,)


@pytest.mark.parametrize("text", ["mae", "runs/mae/*.safetensors"])
def test_several_that_answer_are_listed_with_their_digests(frame: pd.DataFrame, text: str) -> None:
    with pytest.raises(InputError, match="mae-4 \\(4444aaaa\\), mae-20 \\(0020aaaa\\)") as error:
        find_checkpoint(frame, text)
    assert "4444aa" in error.value.fix


@pytest.mark.parametrize("text", ["mea-20", "", "/", "0"])
def test_an_unknown_name_lists_the_near_ones_and_the_command_for_it(frame: pd.DataFrame, text: str) -> None:
    with pytest.raises(InputError, match=r"mae-20 \(0020aaaa\)") as error:
        find_checkpoint(frame, text)
    assert "python -m pixmim_eval.run --suite robustness --checkpoint" in error.value.fix


def test_a_name_is_shown_on_one_line_without_control_characters(frame: pd.DataFrame) -> None:
    assert list_checkpoints(frame)[-1].label == "<script>alert(1)</script> evil"


def test_one_checkpoint_may_have_another_name_in_another_run_but_not_in_the_same() -> None:
    rows = [build_row("clean", 0.5, model=name, run=run) for name, run in (("a", "one"), ("a:x/last", "two"))]
    (one,) = list_checkpoints(frame_outcomes((rows, {})))
    assert one.names == ("a", "a:x/last") and one.label == "a"
    rows = [build_row("clean", 0.5, model=name, run="one") for name in ("a", "b")]
    assert [one.names for one in list_checkpoints(frame_outcomes((rows, {})))] == [("a",), ("b",)]


def test_of_two_checkpoints_of_one_name_only_digests_tell() -> None:
    rows = [build_row("clean", 0.5, weights_digest=digest) for digest in ("aaaa0000", "aaaa1111")]
    frame = frame_outcomes((rows, {}))
    with pytest.raises(InputError, match="to which 2 do"):
        find_checkpoint(frame, "mae-small")
    assert find_checkpoint(frame, "aaaa1").digest == "aaaa1111"


def test_several_files_of_one_command_are_told_apart_by_models_names() -> None:
    command = f"{RUN} --checkpoint runs/first/epoch-0020.pth runs/second/epoch-0020.pth --data x"
    rows = [
        build_row("clean", 0.5, model=f"mae-20:{run}/epoch-0020", weights_digest=run, command=command)
        for run in ("first", "second")
    ]
    found = list_checkpoints(frame_outcomes((rows, {})))
    assert [one.arguments for one in found] == [
        ("--checkpoint", f"runs/{run}/epoch-0020.pth") for run in ("first", "second")
    ]


def test_a_command_is_the_same_but_for_what_it_evaluates() -> None:
    command = f"{RUN} --limit 9 --checkpoint=a.pth --checkpoint b.pth c.pth --model vit --data 'val=my data' -x"
    found = read_inputs(command)
    assert (found.files, found.models) == (("a.pth", "b.pth", "c.pth"), ("vit",))
    assert exchange_checkpoint(command, ("--checkpoint", "new one.pth")) == (
        f"{RUN} --checkpoint 'new one.pth' --limit 9 --data 'val=my data' -x"
    )
    assert "--checkpoint CHECKPOINT" in exchange_checkpoint(command, ())


@pytest.mark.parametrize("command", ["", "echo 'no end", "$(rm -rf /); --checkpoint"])
def test_what_is_no_command_names_nothing(command: str) -> None:
    assert read_inputs(command).files == ()
    assert re.search("rm -rf /", exchange_checkpoint(command, ())) is None or "'$(rm'" in exchange_checkpoint(
        command, ()
    )
