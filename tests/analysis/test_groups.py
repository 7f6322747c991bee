"""What may stand in one figure, and what it is called there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pandas as pd
import pytest

from analysis.groups import parse_protocol, split_groups, split_protocol
from pixmim_eval.errors import InputError
from pixmim_eval.types import ResultRow

Rows = Callable[..., list[ResultRow]]
Frame = Callable[[list[ResultRow]], pd.DataFrame]
GENERATED = "head=own;label_space=shapes16;parameters=tiny-imagenet-c;pooling=own;precision=float32;source=generated"


def list_labels(rows: pd.DataFrame) -> list[list[str]]:
    return [[subject.label for subject in group.subjects] for group in split_groups(rows, "robustness")]


def test_generated_and_downloaded_corruptions_never_share_a_group(make_row: Callable, as_frame: Frame) -> None:
    rows = [make_row("clean", 0.9)]
    for source in ("generated", "files"):
        protocol = f"head=own;label_space=shapes16;pooling=own;source={source}"
        rows += [make_row(f"fog/{severity}", 0.5, protocol=protocol) for severity in range(1, 6)]
    groups = split_groups(as_frame(rows), "robustness")
    assert [group.suffix for group in groups] == ["source-generated", "source-files"]
    for group in groups:
        sources = {
            parse_protocol(protocol)["source"]
            for protocol in group.rows.loc[group.rows["condition"] != "clean", "protocol"]
        }
        assert sources == {group.protocol["source"]}
        assert "clean" in set(group.rows["condition"])  # clean images belong to both


@pytest.mark.parametrize("change", ["head=linear", "precision=bfloat16", "parameters=cifar-c", "transform=ready-32"])
def test_models_under_different_protocols_are_split(change: str, make_model: Rows, as_frame: Frame) -> None:
    key = change.partition("=")[0]
    parts = [part for part in f"{GENERATED};transform=ready-64".split(";") if not part.startswith(key)]
    other = ";".join(sorted([*parts, change]))
    rows = make_model(0.9) + make_model(0.8, model="other", weights_digest="bb", protocol=other)
    assert list_labels(as_frame(rows)) == [["mae-small"], ["other"]]


def test_how_corrupted_images_were_made_is_the_datas_not_the_clean_images(make_row: Callable, as_frame: Frame) -> None:
    clean = make_row("clean", 0.9)
    made = f"{GENERATED};frost=crystals;stored=jpeg-85;transform=ready-64"
    rows = [clean, *(make_row(f"fog/{severity}", 0.5, protocol=made) for severity in range(1, 6))]
    (group,) = split_groups(as_frame(rows), "robustness")
    assert (group.protocol["frost"], group.protocol["stored"]) == ("crystals", "jpeg-85")
    for old, new in (("crystals", "photographs"), ("jpeg-85", "lossless"), ("generated", "files")):
        other = [
            replace(row, model="other", weights_digest="b", protocol=row.protocol.replace(old, new)) for row in rows
        ]
        assert list_labels(as_frame([*rows, *other])) == [["mae-small"], ["other"]]


@pytest.mark.parametrize("change", [{"dataset_digest": "ffff"}, {"subset": "spread-100"}])
def test_other_images_are_another_group(change: dict, make_model: Rows, as_frame: Frame) -> None:
    rows = make_model(0.9) + make_model(0.8, model="other", weights_digest="bb", **change)
    assert list_labels(as_frame(rows)) == [["mae-small"], ["other"]]


def test_an_interrupted_run_on_fewer_images_is_not_mixed_into_the_whole_one(
    make_row: Callable, as_frame: Frame
) -> None:
    rows = [make_row("clean", 0.9), make_row("fog/1", 0.8), make_row("snow/1", 0.7, subset="spread-100")]
    groups = split_groups(as_frame(rows), "robustness")
    assert [sorted(group.rows["condition"]) for group in groups] == [["clean", "fog/1"], ["snow/1"]]


def test_corruptions_read_from_files_may_have_a_digest_each(make_row: Callable, as_frame: Frame) -> None:
    protocol = "head=own;pooling=own;source=files"
    rows = [make_row("clean", 0.9)]
    rows += [make_row(f"{name}/1", 0.7, protocol=protocol, dataset_digest=name) for name in ("fog", "snow")]
    assert len(split_groups(as_frame(rows), "robustness")) == 1


def test_what_a_head_chose_for_a_model_is_not_another_protocol(make_model: Rows, as_frame: Frame) -> None:
    heads = [("l2=0.001,pool=mean,train=4096", "mean"), ("l2=0.1,pool=cls,train=4096", "cls")]
    first, second = (f"head=logistic-lbfgs({head});pooling={pooling};source=generated" for head, pooling in heads)
    rows = make_model(0.9, protocol=first) + make_model(0.8, model="other", weights_digest="b", protocol=second)
    (group,) = split_groups(as_frame(rows), "robustness")
    assert [subject.chosen for subject in group.subjects] == ["l2=0.001,pool=mean", "l2=0.1,pool=cls"]
    assert group.protocol["head"] == "logistic-lbfgs(train=4096)"
    assert "pooling" not in group.protocol
    fewer = second.replace("train=4096", "train=16")
    rows = make_model(0.9, protocol=first) + make_model(0.8, model="other", weights_digest="b", protocol=fewer)
    assert len(split_groups(as_frame(rows), "robustness")) == 2


def test_a_protocol_without_choices_stays_as_it_is() -> None:
    assert split_protocol("head=own;pooling=own") == ("head=own;pooling=own", "")
    found = split_protocol(
        "head=cached(sgd,lr=0.1,wd=0,pool=cls,train=9);held_out_top1=0.4of9;pooling=cls;probe=cached"
    )
    assert found == ("head=cached(sgd,train=9);probe=cached", "lr=0.1,wd=0,pool=cls,held_out_top1=0.4of9")
    fixed = "head=mae-90e(lars,lr=6.4,pool=cls);pooling=cls"  # given, not chosen: another is another protocol
    assert split_protocol(fixed) == (fixed, "")
    assert split_protocol("observers=10;source=trials") == ("source=trials", "")
    with pytest.raises(InputError, match="key=value"):
        split_protocol("head")


def test_labels_say_only_what_is_needed_to_tell_models_apart(make_row: Callable, as_frame: Frame) -> None:
    def add(name: str, epoch: int | None, digest: str, **changes: object) -> ResultRow:
        return make_row("clean", 0.5, model=name, epoch=epoch, weights_digest=digest, **changes)

    rows = [add("a", 100, "1111111111"), add("a", 200, "2222222222"), add("b", 100, "3333333333")]
    assert set(list_labels(as_frame(rows))[0]) == {"a (epoch 100)", "a (epoch 200)", "b"}
    rows = [add("a", 100, "1111111111"), add("a", 100, "2222222222"), add("a", None, "2222222222")]
    assert set(list_labels(as_frame(rows))[0]) == {
        "a (epoch 100) (weights 111111)",
        "a (epoch 100) (weights 222222)",
        "a (epoch unknown)",
    }
    rows = [add("a", 1, "1", seed=0), add("a", 1, "1", seed=7)]
    assert set(list_labels(as_frame(rows))[0]) == {"a (seed 0)", "a (seed 7)"}


def test_a_method_and_its_pixmim_version_stand_side_by_side(make_row: Callable, as_frame: Frame) -> None:
    def add(name: str, method: str, epoch: int) -> ResultRow:
        return make_row("clean", 0.5, model=name, method=method, epoch=epoch, weights_digest=name)

    rows = [add("z1", "pixmim-mae", 100), add("y", "supervised", 300), add("z2", "pixmim-mae", 200)]
    rows += [add("m1", "mae", 100), add("m2", "mae", 200), add("c", "convmae", 5), add("p", "pixmim-convmae", 9)]
    (group,) = split_groups(as_frame(rows), "robustness")
    assert {
        frozenset(s.label for s in group.subjects if s.family == f) for f in {s.family for s in group.subjects}
    } == {
        frozenset({"m1", "z1"}),
        frozenset({"m2", "z2"}),
        frozenset({"c", "p"}),  # the only ones of their methods
        frozenset({"y"}),
    }
    labels = [subject.label for subject in group.subjects]
    assert all(labels.index(base) + 1 == labels.index(own) for base, own in (("m1", "z1"), ("m2", "z2"), ("c", "p")))
    assert all(group.subjects[row.subject].model == row.model for row in group.rows.itertuples())


def test_the_same_rows_twice_count_once_and_contradictions_are_refused(make_model: Rows, as_frame: Frame) -> None:
    rows = make_model(0.9)
    (group,) = split_groups(as_frame(rows + rows), "robustness")
    assert len(group.rows) == len(rows)
    with pytest.raises(InputError, match=r"0\.9000, 0\.8000.*clean, top1"):
        split_groups(as_frame(rows + make_model(0.8)), "robustness")


def test_rows_of_other_suites_are_left_out(make_row: Callable, as_frame: Frame) -> None:
    rows = as_frame([make_row("clean", 0.9, suite="shape-bias")])
    with pytest.raises(InputError, match="rows of the suite 'robustness'"):
        split_groups(rows, "robustness")
