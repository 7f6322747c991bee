"""Arms are found by how models were pretrained, never by their names; differences are from the base arm, in pairs."""

from __future__ import annotations

from dataclasses import replace
from math import comb

import pytest

from analysis.ablation.numbers import Ablation, find_base, label_arm, read_ablation
from analysis.ablation.tables import compare_arms, list_ablation_sheets
from analysis.separability import FROM_INTERVALS, PAIRED
from pixmim_eval.errors import InputError
from tests.analysis.arms import (
    IMAGES,
    PROBE,
    ROBUST,
    Outcome,
    build_arm,
    build_bandwidth,
    build_components,
    build_crops,
    describe,
    frame_arms,
)

ALL = {"bandwidth": build_bandwidth, "crop": build_crops, "components": build_components}


def read(outcomes: list[Outcome], name: str) -> Ablation:
    found = read_ablation(frame_arms(outcomes), name)
    assert found is not None
    return found


def list_arms(ablation: Ablation) -> list[str]:
    (panel,) = ablation.panels
    return [f"{ablation.families[point.family]}: {label_arm(point.arm, ablation.name)}" for point in panel.points]


def test_arms_of_each_ablation_are_found_in_their_order() -> None:
    radii = [f"MAE: r = {radius}" for radius in ("1.43", "2.86", "5.71", "11.43", "22.86", "32")]
    assert list_arms(read(build_bandwidth(), "bandwidth")) == ["MAE: all frequencies", *radii]
    crops = [f"{method}: {crop}" for method in ("MAE", "DeiT III") for crop in ("RRC", "SRC", "CC")]
    assert list_arms(read(build_crops()[::-1], "crop")) == crops
    parts = ["all frequencies, RRC", "all frequencies, SRC", "r = 11.43, RRC", "r = 11.43, SRC"]
    assert list_arms(read(build_components(), "components")) == [f"MAE: {part}" for part in parts]


@pytest.mark.parametrize("name", ALL)
def test_rows_of_one_ablation_are_no_other(name: str) -> None:
    rows = frame_arms(ALL[name]())
    assert [other for other in ALL if read_ablation(rows, other)] == [name]


@pytest.mark.parametrize("name", ALL)
def test_what_does_not_say_how_it_was_pretrained_is_no_arm(name: str) -> None:
    assert read_ablation(frame_arms([(replace(row, pretraining=""), hits) for row, hits in ALL[name]()]), name) is None
    assert read_ablation(frame_arms(ALL[name]()).iloc[:0], name) is None


@pytest.mark.parametrize(
    "text", ["crop=src;image_size=x", "crop=<b>;image_size=64", "crop=src;image_size=64;radius=inf"]
)
def test_pretraining_in_no_words_of_ours_is_no_arm(text: str) -> None:
    strange = [(replace(row, pretraining=text, weights_digest="f" * 16), hits) for row, hits in build_crops()[:1]]
    assert list_arms(read(build_bandwidth() + strange, "bandwidth")) == list_arms(read(build_bandwidth(), "bandwidth"))


def test_names_of_models_do_not_matter() -> None:
    renamed = [(replace(row, model=f"r99 {number}"), hits) for number, (row, hits) in enumerate(build_bandwidth())]
    assert list_arms(read(renamed, "bandwidth")) == list_arms(read(build_bandwidth(), "bandwidth"))


@pytest.mark.parametrize("other", [{"others": "ffffffff"}, {"seed": 1}, {"crop": "rrc"}, {"image_size": 128}])
def test_a_model_that_differs_in_anything_else_is_no_arm(other: dict[str, object]) -> None:
    told = describe("src", "lowfreq", 3.0).split(";")
    changed = ";".join(f"{key}={other.get(key, value)}" for key, _, value in (piece.partition("=") for piece in told))
    stranger = build_arm(0.9, "pixmim-mae", changed)
    found = read(build_bandwidth() + stranger, "bandwidth")
    assert list_arms(found) == list_arms(read(build_bandwidth(), "bandwidth"))
    assert found.left_out == 1


def test_two_families_stand_side_by_side_under_names_of_their_own() -> None:
    found = read(build_bandwidth() + build_bandwidth(seed=1), "bandwidth")
    assert found.families == ("MAE, seed 0", "MAE, seed 1")
    assert [len([p for p in found.panels[0].points if p.family == family]) for family in (0, 1)] == [7, 7]


def test_the_last_epoch_that_all_arms_have_counts() -> None:
    rows = build_components()
    early = [(replace(row, epoch=20, weights_digest=f"early {row.weights_digest}"), hits) for row, hits in rows]
    more = [(replace(rows[0][0], epoch=60, weights_digest="f" * 16), rows[0][1])]
    found = read(early + rows + more, "components")
    assert {point.subject.epoch for point in found.panels[0].points} == {40}
    assert found.left_out == 5


def test_what_may_not_be_compared_stands_in_panels_of_its_own() -> None:
    other = (*PROBE[:3], "head=cached(sgd);pooling=cls")
    found = read(build_crops([PROBE, other, ROBUST]), "crop")
    assert [panel.title for panel in found.panels] == [
        "linear probe, pooling=mean",
        "linear probe, pooling=cls",
        "robustness",
    ]


def test_arms_that_were_evaluated_with_other_seeds_are_not_compared() -> None:
    rows = build_crops()
    again = [(replace(row, seed=1, value=row.value - 0.01), hits) for row, hits in rows]
    found = read(rows + again, "crop")
    assert [panel.title for panel in found.panels] == ["linear probe, seed=0", "linear probe, seed=1"]
    mixed = read([(replace(row, seed=place % 2), hits) for place, (row, hits) in enumerate(rows)], "crop")
    assert all(len({point.subject.seed for point in panel.points}) == 1 for panel in mixed.panels)


def test_arms_that_do_not_tell_the_seed_of_their_training_are_arms() -> None:
    rows = [(replace(row, pretraining=row.pretraining.replace(";seed=0", "")), hits) for row, hits in build_crops()]
    assert list_arms(read(rows, "crop")) == list_arms(read(build_crops(), "crop"))


@pytest.mark.parametrize("first", [True, False])
def test_of_two_models_trained_alike_the_last_counts_and_nothing_is_averaged(first: bool) -> None:
    again = build_arm(0.7, "mae", describe("rrc", "normalised"), run="second", time="2030-01-01T00:00:00")
    found = read(again + build_components() if first else build_components() + again, "components")
    assert found.panels[0].points[0].estimate.value == 0.7
    assert len(found.panels[0].points) == 4 and found.left_out == 1


def test_two_values_of_one_number_are_named_and_not_averaged() -> None:
    changed = [(replace(row, value=0.3, low=0.2), hits) for row, hits in build_components()]
    with pytest.raises(InputError, match=r"one arm of an ablation: .*found 0.5000 and 0.3000"):
        read_ablation(frame_arms(build_components() + changed), "components")


def test_a_number_measured_twice_is_one() -> None:
    assert list_arms(read(build_components() * 2, "components")) == list_arms(read(build_components(), "components"))


def test_the_base_is_the_arm_without_what_is_studied() -> None:
    labels = {"bandwidth": "all frequencies", "crop": "RRC", "components": "all frequencies, RRC"}
    for name, build in ALL.items():
        found = read(build(), name)
        base = find_base(found.panels[0].points, name, 0)
        assert base is not None and label_arm(base.arm, name) == labels[name]


def test_differences_are_paired_and_tested_together() -> None:
    """Outcomes are nested, so that McNemar's exact p is 2^(1 - discordant images); Holm's factors are 3, 2, 1."""
    (found,) = compare_arms(read(build_components(), "components"))
    rates = {label_arm(one.other.arm, "components"): one for one in found}
    expected = {"all frequencies, SRC": 0.05, "r = 11.43, RRC": 0.02, "r = 11.43, SRC": 0.10}
    assert {name: round(one.estimate.value, 9) for name, one in rates.items()} == expected
    discordant = {name: round(value * IMAGES) for name, value in expected.items()}
    for name, one in rates.items():
        exact = 2 * sum(comb(discordant[name], k) for k in range(1)) / 2 ** discordant[name]
        assert one.probability == pytest.approx(exact) and one.interval == PAIRED
    ordered = sorted(rates.values(), key=lambda one: one.probability or 0)
    assert [one.adjusted for one in ordered] == pytest.approx(
        [factor * (one.probability or 0) for factor, one in zip((3, 2, 1), ordered, strict=True)]
    )


def test_without_outcomes_differences_follow_from_the_two_intervals() -> None:
    (found,) = compare_arms(read(build_components([ROBUST]), "components"))
    one = found[0]
    assert one.interval == FROM_INTERVALS and one.probability is None
    below = one.other.estimate.value - one.other.estimate.low
    above = one.base.estimate.high - one.base.estimate.value
    assert one.estimate.low == pytest.approx(one.estimate.value - (below**2 + above**2) ** 0.5)


def test_tables_hold_every_arm_with_its_rows() -> None:
    (sheet,) = list_ablation_sheets(read(build_bandwidth(), "bandwidth"))
    (table,) = sheet.tables
    assert sheet.stem == "ablation-bandwidth" and len(table.rows) == 7
    assert all(len(row) == len(table.head) == len(table.sides) for row in table.rows)
    texts = [[cell.text for cell in row] for row in table.rows]
    assert texts[0][1:4] == ["all frequencies", "–", "50.0 [45.1, 54.9]"] and texts[0][4] == "–"
    assert texts[4][1:3] == ["r = 11.43", "0.357"] and texts[4][4].startswith("+8.0 [+")
    assert [row[3].sources for row in table.rows] == [(number,) for number in range(7)]
    assert table.rows[4][4].sources == (0, 4) and table.rows[4][4].bold
    assert table.title == "Ablation of the low-pass radius. Linear probe: top-1 accuracy (%)"


def test_numbers_in_long_form_are_raw() -> None:
    (sheet,) = list_ablation_sheets(read(build_bandwidth(size=128), "bandwidth"))
    row = sheet.numbers[sheet.numbers["radius"] == 22.86].iloc[0]
    assert (row["radius_of_nyquist"], row["image_size"], row["crop"]) == (22.86 / 64, 128, "src")
    assert row["value"] == pytest.approx(0.58) and row["difference_value"] == pytest.approx(0.08)
    assert sheet.numbers["difference_value"].isna().sum() == 1 and sheet.numbers["holm_p"].max() < 0.05 + 1
