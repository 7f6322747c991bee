from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from pixmim_eval.data import shapes16
from pixmim_eval.data.panels import make_panel
from pixmim_eval.data.stimuli import open_stimuli, read_stimuli
from pixmim_eval.data.trials import make_trial_file, name_trial_file, read_trial_file, write_trial_file
from pixmim_eval.errors import InputError
from tests.data.files import encode, pixels, write
from tests.data.trial_files import HEADER, IMAGES, RIGHT, list_lines, write_lines

LINES = list_lines("subject-01", RIGHT)


def test_every_recorded_file_comes_back_to_the_byte(shared_data: Path, tmp_path: Path) -> None:
    files = sorted(shared_data.glob("*_responses/*/*.csv"))
    assert len(files) == 13
    for file in files:
        write_trial_file(tmp_path / "copy.csv", read_trial_file(file))
        assert (tmp_path / "copy.csv").read_bytes() == file.read_bytes(), file.name


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("header", [HEADER, HEADER.replace("session", "Session")])
def test_line_ends_header_and_numbers_stay_as_they_are(tmp_path: Path, end: str, header: str) -> None:
    file = write_lines(tmp_path / "a.csv", [*LINES[:5], '"a,b",1,6,NaN,na,boat,0,boat2-cat4.png'], end, header)
    trials = read_trial_file(file)
    assert trials.column("session") == ["1"] * 6
    assert trials.column("rt")[0] == "0.51" and trials.column("subj")[5] == "a,b"
    write_trial_file(tmp_path / "b.csv", trials)
    assert (tmp_path / "b.csv").read_bytes() == file.read_bytes()


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    lines = [",".join(field for place, field in enumerate(line.split(",")) if place != 4) for line in LINES]
    file = write_lines(tmp_path / "a.csv", lines, header=HEADER.replace("object_response,", ""))
    with pytest.raises(InputError, match=r"found no object_response \(in .*a\.csv\)"):
        read_trial_file(file)


@pytest.mark.parametrize(("cut", "line"), [(1, 7), (10, 7), (60, 6)])
def test_a_file_cut_short_is_refused_wherever_the_cut_is(tmp_path: Path, cut: int, line: int) -> None:
    file = write_lines(tmp_path / "a.csv", LINES)
    file.write_bytes(file.read_bytes()[:-cut])
    with pytest.raises(InputError, match=f"a line {line} that is cut short"):
        read_trial_file(file)


def test_trials_that_are_there_twice_or_left_out_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="duplicate trials, 1: 3"):
        read_trial_file(write_lines(tmp_path / "a.csv", [*LINES[:3], LINES[2], *LINES[3:]]))
    with pytest.raises(InputError, match="trial 4 after trial 2"):
        read_trial_file(write_lines(tmp_path / "b.csv", [*LINES[:2], *LINES[3:]]))


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"PAR1", (HEADER + "\n").encode(), b'a,"b\n'])
def test_what_is_no_table_of_trials_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(content)
    with pytest.raises(InputError, match="file of trials"):
        read_trial_file(file)


def test_decisions_are_written_as_the_public_tool_writes_them(tmp_path: Path) -> None:
    """Its writer: csv.writer's default line ends, NaN for what networks have not, one session, trials from 1."""
    stimuli = read_stimuli(shapes16.manifest("cue-conflict", count=20), "cue-conflict")
    rows, answers = np.arange(0, 20, 2), np.arange(10) % 16
    write_trial_file(tmp_path / "ours.csv", make_trial_file("mae_800", stimuli, rows, answers))
    with (tmp_path / "theirs.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER.split(","))
        for trial, (row, answer) in enumerate(zip(rows.tolist(), answers.tolist(), strict=True)):
            names = list(shapes16.SHAPES)
            shape, image = names[stimuli.shapes[row]], str(stimuli.images[row])
            writer.writerow(["mae_800", "1", str(trial + 1), "NaN", names[answer], shape, "NaN", image])
    assert (tmp_path / "ours.csv").read_bytes() == (tmp_path / "theirs.csv").read_bytes()


def test_decisions_on_distorted_images_are_written_under_the_whole_names_of_their_files(tmp_path: Path) -> None:
    """Condition and category are the fourth and fifth part of such a name, for the public tool too."""
    names = ["0001_cop_dnn_c30_knife_10_n03041632_7380.png", "0002_cop_dnn_c100_bird_10_n01601694_10802.png"]
    for name in names:
        write(tmp_path / "contrast" / "dnn" / "session-1" / name, encode(pixels(0)))
    stimuli = open_stimuli(str(tmp_path / "contrast")).sets["contrast"]
    made = make_trial_file("net", stimuli, np.arange(2), np.array([-1, 3]))
    assert made.records == [
        ("net", "1", "1", "NaN", "na", "knife", "c30", names[0]),
        ("net", "1", "2", "NaN", "bird", "bird", "c100", names[1]),
    ]


def test_files_are_called_as_the_public_tool_calls_them() -> None:
    assert name_trial_file("cue-conflict", "mae_800") == "cue-conflict_mae-800_session_1.csv"
    assert name_trial_file("edge", "a:b/c d") == "edge_a-b-c-d_session_1.csv"


def test_what_was_written_is_read_back_with_the_same_decisions(tmp_path: Path) -> None:
    stimuli = read_stimuli(shapes16.manifest("cue-conflict", count=40), "cue-conflict")
    answers = np.random.default_rng(0).integers(-1, 16, 40)
    file = tmp_path / "cue-conflict" / name_trial_file("cue-conflict", "net")
    write_trial_file(file, make_trial_file("net", stimuli, np.arange(40), answers))
    panel = make_panel("cue-conflict", {file: read_trial_file(file)})
    order = [panel.images.tolist().index(image) for image in stimuli.images.tolist()]
    np.testing.assert_array_equal(panel.answers[0, order], answers)
    np.testing.assert_array_equal(panel.shapes[order], stimuli.shapes)
    np.testing.assert_array_equal(panel.textures[order], stimuli.textures)


def test_the_small_files_of_these_tests_are_what_they_say() -> None:
    assert [line.split(",")[5] for line in list_lines("a", RIGHT, IMAGES)] == list(RIGHT)
