from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pixmim_eval.data.categories import CATEGORIES
from pixmim_eval.data.panels import make_panel, match_images, open_trials
from pixmim_eval.data.stimuli import Stimuli
from pixmim_eval.data.trials import read_trial_file
from pixmim_eval.errors import InputError
from tests.data.trial_files import IMAGES, RIGHT, list_lines, write_lines, write_observer
from tests.fakes import make_manifest

WRONG = ("dog", "cat", "na", "boat", "boat", "oven")


def make_stimuli(images: tuple[str, ...] = IMAGES, right: tuple[str, ...] = RIGHT) -> Stimuli:
    count = len(images)
    return Stimuli(
        manifest=replace(make_manifest(count), name="pictures"),
        experiment="cue-conflict",
        categories=CATEGORIES,
        images=np.array(images),
        shapes=np.array([CATEGORIES.index(name) for name in right]),
        textures=np.zeros(count, dtype=np.int64),
        conditions=np.full(count, "NaN"),
        levels=np.full(count, ""),
    )


def test_observers_stand_side_by_side_trial_by_trial(tmp_path: Path) -> None:
    write_observer(tmp_path, "subject-02", RIGHT)
    shuffled = [3, 0, 5, 1, 2, 4]
    lines = list_lines(
        "subject-01", [WRONG[k] for k in shuffled], [f"0001_s5n_s01_0_x_00_{IMAGES[k]}" for k in shuffled]
    )
    lines = [
        ",".join([*line.split(",")[:5], RIGHT[k], *line.split(",")[6:]])
        for k, line in zip(shuffled, lines, strict=True)
    ]
    write_lines(tmp_path / "cue-conflict" / "other_subject-01_session_1.csv", lines)
    trials = open_trials(str(tmp_path))
    panel = trials.panels["cue-conflict"]
    assert panel.observers == ("subject-01", "subject-02") and panel.people.tolist() == [0, 1]
    assert panel.images.tolist() == sorted(IMAGES)
    places = [panel.images.tolist().index(image) for image in IMAGES]
    named = np.array([*CATEGORIES, "na"])[panel.answers[:, places]]
    assert named.tolist() == [list(WRONG), list(RIGHT)]
    assert [CATEGORIES[k] for k in panel.textures[places]] == ["dog", "cat", "cat", "dog", "boat", "cat"]
    assert len(trials) == 12 and len(panel) == 6


def test_the_public_raw_data_are_read_whole(shared_data: Path) -> None:
    panel = open_trials(str(shared_data / "*_responses")).panels["cue-conflict"]
    assert panel.answers.shape == (13, 1280)
    assert [panel.observers[place] for place in panel.people] == [f"subject-{number:02d}" for number in range(1, 11)]
    assert int((panel.textures != panel.shapes).sum()) == 1200


def test_images_that_one_observer_alone_saw_are_counted_and_named(tmp_path: Path) -> None:
    write_observer(tmp_path, "subject-01", RIGHT)
    write_observer(tmp_path, "subject-02", RIGHT[:4], IMAGES[:4])
    with pytest.raises(InputError, match=r"images that subject-01 alone saw, 2: boat2-cat4\.png, dog2-boat3\.png"):
        open_trials(str(tmp_path))
    write_observer(tmp_path, "subject-02", RIGHT, (*IMAGES[:5], "boat9-cat9.png"))
    with pytest.raises(InputError, match=r"images that subject-02 alone saw, 1: boat9-cat9\.png"):
        open_trials(str(tmp_path))


def test_another_right_answer_to_the_same_image_is_refused(tmp_path: Path) -> None:
    write_observer(tmp_path, "subject-01", RIGHT, name="edge")
    lines = [line.replace(",boat,0,", ",oven,0,") for line in list_lines("subject-02", RIGHT)]
    write_lines(tmp_path / "edge" / "b.csv", lines)
    with pytest.raises(InputError, match=r"another right answer, 2: boat1-dog1\.png, boat2-cat4\.png"):
        open_trials(str(tmp_path))


def test_an_image_twice_by_the_same_observer_is_refused(tmp_path: Path) -> None:
    write_observer(tmp_path, "subject-01", (*RIGHT, "cat"), (*IMAGES, "0009_s5n_s01_0_cat_00_cat1-dog2.png"))
    file = tmp_path / "cue-conflict" / "cue-conflict_subject-01_session_1.csv"
    file.write_text(file.read_text().replace("0009_s5n_s01_0_cat_00_cat,0", "cat,0"))
    with pytest.raises(InputError, match=r"duplicate trials, 1: cat1-dog2\.png by subject-01"):
        open_trials(str(tmp_path))
    write_observer(tmp_path, "subject-01", RIGHT)
    again = file.with_name("cue-conflict_subject-01_session_2.csv")
    again.write_bytes(file.read_bytes())
    with pytest.raises(InputError, match="duplicate trials, 6"):
        open_trials(str(tmp_path))


def test_sessions_of_an_observer_are_put_together(tmp_path: Path) -> None:
    first = write_lines(tmp_path / "a.csv", list_lines("subject-01", RIGHT[:3], IMAGES[:3]))
    second = write_lines(tmp_path / "b.csv", list_lines("subject-01", RIGHT[3:], IMAGES[3:]))
    panel = make_panel("cue-conflict", {file: read_trial_file(file) for file in (first, second)})
    assert panel.images.tolist() == sorted(IMAGES)


def test_a_response_or_category_that_there_is_not_is_refused(tmp_path: Path) -> None:
    write_observer(tmp_path, "subject-01", ("sofa", *RIGHT[1:]))
    with pytest.raises(InputError, match="found 1: sofa"):
        open_trials(str(tmp_path))
    write_observer(tmp_path, "subject-01", RIGHT, ("catt1-dog2.png", *IMAGES[1:]))
    write_observer(tmp_path, "subject-02", RIGHT)
    with pytest.raises(InputError, match=r"found 1: catt \(in .*_subject-01_session_1\.csv\)"):
        open_trials(str(tmp_path))
    for observer in ("subject-01", "subject-02"):
        write_observer(tmp_path, observer, RIGHT, ("cat1-sofa2.png", *IMAGES[1:]))
    with pytest.raises(InputError, match=r"found 1: cat1-sofa2\.png"):
        open_trials(str(tmp_path))


def test_an_experiment_is_that_of_the_folder_or_else_of_the_file_name(tmp_path: Path) -> None:
    lines = list_lines("subject-01", RIGHT)
    write_lines(tmp_path / "mine" / "edge_subject-01_session_1.csv", lines)
    write_lines(tmp_path / "sketch" / "edge_subject-01_session_1.csv", lines)
    write_lines(
        tmp_path / "performances" / "net.csv", ["net,edge,acc,0.5"], header="subj,dataset_name,metric_name,performance"
    )
    assert set(open_trials(str(tmp_path)).panels) == {"edge", "sketch"}
    write_lines(tmp_path / "mine" / "answers.csv", lines)
    with pytest.raises(InputError, match=r"EXPERIMENT_OBSERVER_session_1\.csv"):
        open_trials(str(tmp_path))


def test_no_files_are_no_trials(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found none"):
        open_trials(str(tmp_path))


def test_the_digest_is_of_the_decisions_alone(tmp_path: Path) -> None:
    write_observer(tmp_path / "a", "subject-01", RIGHT)
    write_observer(tmp_path / "b", "subject-01", RIGHT)
    write_observer(tmp_path / "c", "subject-01", WRONG)
    digests = [open_trials(str(tmp_path / name)).digest for name in "abc"]
    assert digests[0] == digests[1] != digests[2] and all(len(digest) == 16 for digest in digests)


def test_images_are_found_among_the_trials_or_refused_with_their_names(tmp_path: Path) -> None:
    write_observer(tmp_path, "subject-01", WRONG)
    panel = open_trials(str(tmp_path)).panels["cue-conflict"]
    rows = np.array([4, 1])
    places = match_images(panel, make_stimuli(), rows)
    assert panel.images[places].tolist() == [IMAGES[4], IMAGES[1]]
    with pytest.raises(InputError, match=r"pictures .* never shown, 1: dog9-cat1\.png"):
        match_images(panel, make_stimuli(("dog9-cat1.png", *IMAGES[1:])), np.arange(6))
    with pytest.raises(InputError, match=r"another right answer, 1: cat1-dog2\.png"):
        match_images(panel, make_stimuli(right=("oven", *RIGHT[1:])), np.arange(6))
