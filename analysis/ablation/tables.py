"""Tables of an ablation: every arm's number, and by how much it differs from the arm that it is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analysis.ablation.numbers import Ablation, ArmPanel, ArmPoint, find_base, label_arm
from analysis.captions import format_interval, format_probability, name_metric
from analysis.formats import Cell, Table
from analysis.report.parts import Sheet
from analysis.robustness.statistics import describe_estimate, describe_subject
from analysis.separability import FROM_INTERVALS, PAIRED, PointDifference, compare_points, correct_together
from analysis.sources import list_sources

TITLES = {
    "bandwidth": "Ablation of the low-pass radius",
    "crop": "Ablation of the crop",
    "components": "Ablation of PixMIM’s two parts",
}
_BASES = {"bandwidth": "the same without a filter", "crop": "RRC", "components": "neither part"}
_MISSING = "–"


def compare_arms(ablation: Ablation) -> list[list[PointDifference[ArmPoint]]]:
    """Each panel's differences from the base of each family, in the order of its points; see ablations.find_base."""
    found = []
    for panel in ablation.panels:
        bases = {point.family: find_base(panel.points, ablation.name, point.family) for point in panel.points}
        pairs = [(bases[point.family], point) for point in panel.points]
        found.append([compare_points(base, point) for base, point in pairs if base is not None and base is not point])
    corrected = iter(correct_together(one for own in found for one in own))
    return [[next(corrected) for _ in own] for own in found]


def list_ablation_sheets(ablation: Ablation) -> list[Sheet]:
    """A table a panel, and all numbers in long form."""
    differences = compare_arms(ablation)
    tables = [_build_table(ablation, *pair) for pair in zip(ablation.panels, differences, strict=True)]
    return [Sheet(f"ablation-{ablation.name}", tuple(tables), tabulate_ablation(ablation, differences))]


def _build_table(ablation: Ablation, panel: ArmPanel, differences: Sequence[PointDifference[ArmPoint]]) -> Table:
    by_point = {id(difference.other): difference for difference in differences}
    band, body = ablation.name == "bandwidth", []
    for point in panel.points:
        nyquist = ablation.image_sizes[point.family] / 2
        radius = point.arm.radius
        share = [Cell(f"{radius / nyquist:.3f}" if radius else _MISSING)] if band else []
        value = Cell(format_interval(point.estimate), sources=list_sources(point.estimate))
        cells = (Cell(ablation.families[point.family]), Cell(label_arm(point.arm, ablation.name)), *share, value)
        body.append((*cells, *_write_difference(by_point.get(id(point))), Cell(f"{point.estimate.n:,}")))
    numbers = ("value [interval]", "difference [interval]", "p (Holm)", "n")
    head = ("method", "arm", *(("of Nyquist",) if band else ()), *numbers)
    sides = "ll" + "r" * (len(head) - 2)
    named = panel.title if panel.title == name_value(panel) else f"{panel.title}: {name_value(panel)}"
    title = f"{TITLES[ablation.name]}. {named[0].upper()}{named[1:]}"
    return Table(title, head, tuple(body), sides, tuple(_list_notes(ablation, panel, differences)))


def _write_difference(found: PointDifference[ArmPoint] | None) -> tuple[Cell, Cell]:
    if found is None:
        return Cell(_MISSING), Cell(_MISSING)
    sources = list_sources(found.base.estimate, found.other.estimate)
    texts = format_interval(found.estimate, "+"), format_probability(found.adjusted)
    return Cell(texts[0], bold=found.separable, sources=sources), Cell(texts[1], sources=sources)


def _list_notes(ablation: Ablation, panel: ArmPanel, differences: Sequence[PointDifference[ArmPoint]]) -> list[str]:
    setting = panel.setting
    notes = [f"Data: {setting['dataset']}. Protocol: {setting['procedure'].replace(';', ', ')}."]
    notes.append(f"Intervals: 95 %. Difference: from {_BASES[ablation.name]}, in the same family; bold: separable.")
    if any(found.interval == PAIRED for found in differences):
        notes.append(
            "Paired bootstrap over images; p: McNemar’s exact test, corrected for all tests of this ablation (Holm)."
        )
    if any(found.interval == FROM_INTERVALS for found in differences):
        notes.append("Without p: from the two intervals, as if of other images, which is conservative.")
    if ablation.left_out:
        others = "other epochs, sizes or radii, the same trained again, or alone in their family"
        notes.append(f"Left out: {ablation.left_out} models ({others}).")
    return notes


def tabulate_ablation(ablation: Ablation, differences: Sequence[Sequence[PointDifference[ArmPoint]]]) -> pd.DataFrame:
    """Every arm in long form, raw numbers, its difference from its base beside it."""
    records = []
    for panel, found in zip(ablation.panels, differences, strict=True):
        by_point = {id(difference.other): difference for difference in found}
        for point in panel.points:
            size = ablation.image_sizes[point.family]
            difference = by_point.get(id(point))
            compared = describe_estimate(difference.estimate if difference else None)
            records.append(
                {
                    **describe_subject(point.subject),
                    **panel.setting,
                    "seed": point.subject.seed,
                    "family": ablation.families[point.family],
                    "target": point.arm.target,
                    "radius": point.arm.radius,
                    "radius_of_nyquist": point.arm.radius / (size / 2) if point.arm.radius else None,
                    "crop": point.arm.crop,
                    "image_size": size,
                    **describe_estimate(point.estimate),
                    **{f"difference_{key}": compared[key] for key in ("value", "low", "high")},
                    "base_model": difference.base.subject.model if difference else None,
                    "interval": difference.interval if difference else None,
                    "mcnemar_p": difference.probability if difference else None,
                    "holm_p": difference.adjusted if difference else None,
                }
            )
    return pd.DataFrame(records).astype({"epoch": "Int64"})


def name_value(panel: ArmPanel) -> str:
    """What the axis of a panel's numbers is called."""
    return name_metric(panel.setting["metric"]) + (" (%)" if panel.unit == "fraction" else "")
