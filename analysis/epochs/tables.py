"""Tables beside curves: the values over epochs, and what PixMIM adds at each."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analysis.captions import format_interval, format_probability, format_value, name_metric
from analysis.epochs.differences import EpochDifference
from analysis.epochs.figures import describe_curves, name_axis
from analysis.epochs.lines import EpochCurves, EpochPanel, Point
from analysis.formats import Cell, Table
from analysis.robustness.statistics import describe_estimate, describe_subject
from analysis.sources import list_sources, suggest_command

MISSING = "–"


def build_values(curves: EpochCurves) -> list[Table]:
    """A table a panel: a row each epoch, a column each line."""
    tables = []
    for panel in curves.panels:
        lines = list(panel.lines.values())
        points = [{point.place: point for point in line.points} for line in lines]
        places = sorted({place for found in points for place in found})
        body = tuple(
            (
                Cell(f"{place:g}"),
                *(_write(found.get(place), curves) for found in points),
            )
            for place in places
        )
        head = (curves.over, *(line.subject.label for line in lines))
        unit = f"{curves.suite}, {_name_unit(curves)} by {curves.over}"
        title = ": ".join(filter(None, (f"{unit}, with 95 % intervals", panel.title)))
        notes = tuple(describe_curves(curves, [panel]))
        tables.append(Table(title, head, body, "r" * len(head), notes, long=len(places) > 30))
    return tables


def _write(point: Point | None, curves: EpochCurves) -> Cell:
    if point is None:
        return Cell(MISSING, hint=suggest_command(curves.suite))
    return Cell(format_interval(point.estimate), sources=list_sources(point.estimate))


def tabulate_values(curves: EpochCurves) -> pd.DataFrame:
    """Every point in long form, raw numbers."""
    records = [
        {
            **describe_subject(point.subject),
            **_describe_panel(curves, panel),
            curves.over: point.place,
            **describe_estimate(point.estimate),
        }
        for panel in curves.panels
        for line in panel.lines.values()
        for point in line.points
    ]
    return pd.DataFrame(records).astype({"epoch": "Int64"})


def build_differences(curves: EpochCurves, differences: Sequence[EpochDifference]) -> Table:
    """PixMIM − base, a row for each pair and epoch."""
    several, tested = len(curves.panels) > 1, [found for found in differences if found.probability is not None]
    body = []
    for found in differences:
        pair = f"{found.labels[1]} − {found.labels[0]}"
        texts = [curves.panels[found.panel].title] if several else []
        texts += [
            pair,
            f"{found.base.place:g}",
            *(format_value(point.estimate.value, curves.unit) for point in (found.base, found.other)),
        ]
        sides = [list_sources(point.estimate) for point in (found.base, found.other)]
        cells = [Cell(text) for text in texts[:-2]]
        cells += [Cell(text, sources=sources) for text, sources in zip(texts[-2:], sides, strict=True)]
        both = list_sources(found.base.estimate, found.other.estimate)
        cells += [Cell(format_interval(found.estimate, "+"), bold=found.separable, sources=both)]
        cells += [Cell(format_probability(value), sources=both) for value in (found.probability, found.adjusted)]
        body.append((*cells, Cell(f"{found.estimate.n:,}"), Cell("yes" if found.separable else "no")))
    head = ("models", curves.over, "base", "PixMIM", "difference [interval]", "p", "p (Holm)", "n", "separable")
    notes = [*describe_curves(curves, curves.panels), "Positive: PixMIM’s number is the larger."]
    if tested:
        notes.append(
            "Interval: 95 %, paired bootstrap over images, of each difference by itself. p: McNemar’s exact test,"
            f" two-sided; p (Holm): corrected for the {len(tested)} of this table. Separable: p (Holm) below 0.05."
        )
    if len(tested) < len(differences):
        notes.append(
            f"{MISSING}: no outcomes image by image of both models; their interval is that of independent numbers"
            " (conservative, as the images are the same) and not corrected, and separable where it excludes 0."
        )
    title = f"PixMIM − base, {curves.suite}: {_name_unit(curves, difference=True)} by {curves.over}"
    columns = "l" * several + "lrrrrrrrl"
    return Table(title, (*(("data",) if several else ()), *head), tuple(body), columns, tuple(notes), long=True)


def tabulate_differences(curves: EpochCurves, differences: Sequence[EpochDifference]) -> pd.DataFrame:
    """Every difference in long form, raw numbers."""
    records = [
        {
            **_describe_panel(curves, curves.panels[found.panel]),
            curves.over: found.base.place,
            **_describe_point("base", found.labels[0], found.base),
            **_describe_point("pixmim", found.labels[1], found.other),
            **describe_estimate(found.estimate),
            "interval": found.interval,
            "mcnemar_p": found.probability,
            "holm_p": found.adjusted,
            "separable": "yes" if found.separable else "no",
        }
        for found in differences
    ]
    return pd.DataFrame(records)


def _describe_panel(curves: EpochCurves, panel: EpochPanel) -> dict[str, object]:
    names = ("dataset", "subset", "condition")
    own = {name: panel.setting[name] for name in names} | {"protocol": panel.setting["procedure"]}
    return {"suite": curves.suite, "metric": curves.metric, **own}


def _describe_point(role: str, label: str, point: Point) -> dict[str, object]:
    return {
        f"{role}_line": label,
        f"{role}_model": point.subject.model,
        f"{role}_weights_digest": point.subject.weights_digest,
        f"{role}_value": point.estimate.value,
    }


def _name_unit(curves: EpochCurves, difference: bool = False) -> str:
    if curves.unit != "fraction":
        return name_metric(curves.metric)
    return f"{name_metric(curves.metric)}, in points of per cent" if difference else f"{name_axis(curves)}"
