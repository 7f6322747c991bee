"""The paper's main table: six pretrainings, each fine-tuned, linearly probed, and transferred to detection and
segmentation. What was measured in different ways never shares a column."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.captions import format_interval, list_counts
from analysis.columns import Column
from analysis.comparison.commands import exchange_checkpoint, read_inputs
from analysis.formats import Cell, Table
from analysis.groups import parse_protocol, split_protocol
from analysis.layout import wrap_items
from analysis.report.parts import Sheet
from analysis.sources import list_sources, read_estimate, suggest_command
from analysis.subjects import Subject, name_subjects
from pixmim_eval.types import Estimate

METHODS = {
    "mae": "MAE",
    "pixmim-mae": "PixMIM-MAE",
    "convmae": "ConvMAE",
    "pixmim-convmae": "PixMIM-ConvMAE",
    "lsmae": "LSMAE",
    "pixmim-lsmae": "PixMIM-LSMAE",
}
"""Method of a row -> its name, in the order of the table."""

MISSING = "–"
WIDEST, LONGEST = 6, 40  # columns of numbers of one table; models of one that stays on a page
_SETTING = ["suite", "condition", "metric", "procedure", "dataset", "dataset_digest", "subset"]
_GLOB = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Measure:
    """What a column of the paper's table is.

    Args:
        name: for its head.
        suite, metrics: what it is measured by; a pattern of the metric's name.
        protocol: of the suite, as published; "" where it has one only.
    """

    name: str
    suite: str
    metrics: str
    protocol: str = ""


MEASURES = (
    Measure("fine-tune top-1", "finetune", r"top1(_full\d+)?"),
    Measure("linear top-1", "linear_probe", r"top1(_full\d+)?", "mae-90e"),
    Measure("box AP", "detection", "box_ap"),
    Measure("mask AP", "detection", "mask_ap"),
    Measure("mIoU", "segmentation", "miou", "upernet"),
)


@dataclass(frozen=True)
class Line:
    """One model, or a method without any.

    Args:
        method: a name in METHODS' values.
        label: of the model, unique; "" where none of this method was evaluated.
        epoch: of its pretraining.
        digest: of its weights.
        inputs: the words that name it on a command line; () where no command tells.
    """

    method: str
    label: str = ""
    epoch: int | None = None
    digest: str = ""
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class MainColumn:
    """One measure under one setting.

    Args:
        name: unique, e.g. "linear top-1, cached", with a number where settings differ otherwise.
        measure: which one.
        setting: suite, condition, metric, dataset, dataset_digest, subset and procedure (the protocol less what its
            head chose); empty where nothing was measured.
        found: of each line its numbers: one, none, or several where evaluations differ.
        command: one that made its numbers; "" where none is known.
    """

    name: str
    measure: Measure
    setting: dict[str, str]
    found: tuple[tuple[Estimate, ...], ...]
    command: str = ""


@dataclass(frozen=True)
class MainResults:
    """The numbers of the table: lines in the order of METHODS, by epoch; columns in the order of MEASURES, those of one
    measure with the one first that most models have. `others` are methods that the table leaves out."""

    lines: tuple[Line, ...]
    columns: tuple[MainColumn, ...]
    others: tuple[str, ...]


def list_main_sheets(rows: pd.DataFrame) -> list[Sheet]:
    """The table with its numbers; none where no model of its methods was evaluated."""
    results = summarise_main_results(rows)
    if not any(line.label for line in results.lines):
        return []
    return [Sheet("main-results", tuple(build_main_results(results)), tabulate_main_results(results))]


def summarise_main_results(rows: pd.DataFrame) -> MainResults:
    """What the rows say of the six methods.

    Runs are taken together: a model is known by its weights, whatever run or seed evaluated it.

    Args:
        rows: ResultRow columns, any number of runs and suites; `source` where numbers shall name their rows.
    """
    own = rows[rows["method"].isin([*METHODS])]
    own = own.assign(model=own.groupby(["weights_digest", "method"])["model"].transform("first"))
    alike = own.assign(run="", seed=0, chosen="")
    subjects, positions = name_subjects(alike) if len(own) else ((), pd.Series(dtype="int64"))
    lines, places = _list_lines(own, subjects, positions)
    own = own.assign(line=positions.map(places), procedure=own["protocol"].map(_name_procedures(own["protocol"])))
    columns = [column for measure in MEASURES for column in _list_columns(measure, own, len(lines))]
    others = tuple(sorted({*rows["method"]} - {*METHODS} - {"people", "trials", "none"}))
    return MainResults(lines, tuple(columns), others)


def _list_lines(
    own: pd.DataFrame, subjects: Sequence[Subject], positions: pd.Series
) -> tuple[tuple[Line, ...], dict[int, int]]:
    """The lines, and the place of each subject among them."""
    commands: dict[int, Iterable[str]] = dict(own.groupby(positions)["command"].unique()) if "command" in own else {}
    pairs: list[tuple[int | None, Line]] = []
    for method, name in METHODS.items():
        members = [place for place, subject in enumerate(subjects) if subject.method == method]
        members.sort(key=lambda place: (subjects[place].epoch or 0, subjects[place].label))
        for place in members:
            one = subjects[place]
            inputs = _find_inputs(commands.get(place, ()))
            pairs.append((place, Line(name, one.label, one.epoch, one.weights_digest, inputs)))
        if not members:
            pairs.append((None, Line(name)))
    places = {subject: line for line, (subject, _) in enumerate(pairs) if subject is not None}
    return tuple(line for _, line in pairs), places


def _find_inputs(commands: Iterable[str]) -> tuple[str, ...]:
    """The words that name a model: those of a command that is of one checkpoint, or one timm model, alone."""
    for command in commands:
        inputs = read_inputs(command)
        if inputs.followed or len(inputs.files) + len(inputs.models) != 1:
            continue
        if inputs.models:
            return ("--model", inputs.models[0])
        if not _GLOB.search(inputs.files[0]):
            return ("--checkpoint", inputs.files[0])
    return ()


def _name_procedures(protocols: pd.Series) -> dict[str, str]:
    return {protocol: split_protocol(protocol)[0] for protocol in protocols.unique()}


def _list_columns(measure: Measure, own: pd.DataFrame, count: int) -> list[MainColumn]:
    """A column for each setting of a measure; one without numbers where there is none."""
    own = own[(own["suite"] == measure.suite) & own["metric"].str.fullmatch(measure.metrics)]
    parts: list[tuple[dict[str, str], pd.DataFrame]] = [
        (dict(zip(_SETTING, map(str, key), strict=True)), part) for key, part in own.groupby(_SETTING, sort=False)
    ]
    parts.sort(key=lambda pair: _rank(measure, *pair))
    names = [_name_column(measure, setting) for setting, _ in parts]
    columns = []
    for place, (setting, part) in enumerate(parts):
        found: list[dict[Estimate, Estimate]] = [{} for _ in range(count)]
        for row in _list_rows(part):
            estimate = read_estimate(row)
            found[row.line].setdefault(Estimate(row.value, row.low, row.high, int(row.n), row.unit), estimate)
        name = names[place]
        if names.count(name) > 1:
            name += f" [{names[: place + 1].count(name)}]"
        commands = [command for command in part.get("command", ()) if command]
        numbers = tuple(tuple(known.values()) for known in found)
        columns.append(MainColumn(name, measure, setting, numbers, commands[0] if commands else ""))
    return columns or [MainColumn(measure.name, measure, {}, ((),) * count)]


def _list_rows(rows: pd.DataFrame) -> list[Any]:
    return list(rows.itertuples())


def _rank(measure: Measure, setting: dict[str, str], part: pd.DataFrame) -> tuple[int, bool, int]:
    """Most models first; then the published protocol, then most images."""
    return -part["line"].nunique(), _name_protocol(measure, setting) != measure.protocol, -int(part["n"].max())


def _name_protocol(measure: Measure, setting: dict[str, str]) -> str:
    """ "mae-90e", "knn"; "" of a suite with one protocol only."""
    probe = parse_protocol(setting["procedure"]).get("probe", "")
    return {"linear_probe": probe, "segmentation": setting["condition"]}.get(measure.suite, "")


def _name_column(measure: Measure, setting: dict[str, str]) -> str:
    return ", ".join(filter(None, (measure.name, _name_protocol(measure, setting))))


def build_main_results(results: MainResults) -> list[Table]:
    """Methods and their models as rows, the five measures as columns, each under the setting that most models have;
    further settings in tables of their own.

    A number that is missing says as its cell's hint what to run.
    """
    first = [next(column for column in results.columns if column.measure is measure) for measure in MEASURES]
    rest = [column for column in results.columns if all(column is not one for one in first)]
    tables = [_build_table("Main results", results, first, range(len(results.lines)))]
    for part in wrap_items(rest, WIDEST) if rest else ():
        shown = [place for place in range(len(results.lines)) if any(column.found[place] for column in part)]
        tables.append(_build_table("Main results, under other settings", results, part, shown))
    return tables


def _build_table(title: str, results: MainResults, columns: Sequence[MainColumn], shown: Iterable[int]) -> Table:
    best = [_find_best(column) for column in columns]
    body = []
    for place in shown:
        line = results.lines[place]
        epoch = MISSING if line.epoch is None else str(line.epoch)
        cells = [
            _build_cell(column, place, line, bold=place == leader) for column, leader in zip(columns, best, strict=True)
        ]
        body.append((Cell(line.method), Cell(line.label or MISSING), Cell(epoch), *cells))
    notes = [_describe(column) for column in columns]
    if any(len(numbers) > 1 for column in columns for numbers in column.found):
        notes.append("Several numbers in one cell: evaluations of one model that differ.")
    known = max(sum(bool(numbers) for numbers in column.found) for column in columns)
    if known > 1:
        bold = "Bold: the best, where its interval is disjoint from every other model’s."
        notes.append(bold if any(leader is not None for leader in best) else "No model leads beyond its interval.")
    if results.others:
        notes.append(f"Models of other methods are left to the tables of their suites: {', '.join(results.others)}.")
    head = ("method", "model", "epochs", *(f"{column.name} (%)" for column in columns))
    sides = "llr" + "r" * len(columns)
    return Table(f"{title}: value [95 % interval]", head, tuple(body), sides, tuple(notes), long=len(body) > LONGEST)


def _build_cell(column: MainColumn, place: int, line: Line, *, bold: bool) -> Cell:
    numbers = column.found[place]
    if not numbers:
        measure = column.measure
        options = f" --protocol {measure.protocol}" if measure.protocol else ""
        command = column.command or suggest_command(measure.suite) + options
        return Cell(MISSING, hint=exchange_checkpoint(command, line.inputs))
    text = "; ".join(format_interval(estimate) for estimate in numbers)
    return Cell(text, bold=bold, sources=list_sources(*numbers))


def _find_best(column: MainColumn) -> int | None:
    """Position of the line that leads beyond doubt; of several numbers of one line, their intervals together count."""
    spans = tuple(
        Estimate(found[0].value, min(one.low for one in found), max(one.high for one in found), found[0].n)
        if found
        else None
        for found in column.found
    )
    return Column("main", column.name, column.measure.metrics, spans).best()


def _describe(column: MainColumn) -> str:
    """What a column is of, in full."""
    if not column.setting:
        return f"{column.name}: not measured."
    setting = column.setting
    counts = list_counts(estimate.n for found in column.found for estimate in found)
    images = "" if setting["subset"] == "all" else f" ({setting['subset']})"
    procedure = setting["procedure"].replace(";", ", ")
    where = f"suite {setting['suite']}, {setting['condition']}, {setting['metric']} on {setting['dataset']}{images}"
    return f"{column.name}: {where}, n = {counts}; {procedure}."


def tabulate_main_results(results: MainResults) -> pd.DataFrame:
    """Every number in long form, one a row, raw; all settings."""
    columns = ["method", "model", "weights_digest", "epoch", "column", *_SETTING, "value", "low", "high", "n", "unit"]
    body = [
        (
            *(line.method, line.label, line.digest, line.epoch, column.name),
            *(column.setting[key] for key in _SETTING),
            *(estimate.value, estimate.low, estimate.high, estimate.n, estimate.unit),
        )
        for column in results.columns
        for line, found in zip(results.lines, column.found, strict=True)
        for estimate in found
    ]
    return pd.DataFrame(body, columns=columns).astype({"epoch": "Int64"})
