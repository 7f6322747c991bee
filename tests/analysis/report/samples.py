"""Reports that hold what a page must cope with: plots with marked methods, empty cells, names meant to do harm."""

from __future__ import annotations

import io
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from analysis.formats import Cell, Table
from analysis.layout import HUES, darken
from analysis.report.parts import Picture, Plot, Report, Section, mark_method
from tests.analysis.rows import build_model, build_row

HOSTILE = (
    "<script>window.harmed = 1</script>",
    "</script><img src=x onerror=window.harmed=2>",
    '" onmouseover="window.harmed=3" x=\'',
    "javascript:window.harmed=4",
    "{{ 7 * 7 }} {% raw %} ${window.harmed=5}",
    "<!--<script>",
    "\u202ekcab\u2028ot\u2029front\u202c شبكة",
    "&lt;b&gt; &amp; \\u003c $x_1^2$ %\x07",
    "x" * 300,
)
MODELS = ("mae", "pixmim-mae")
COLOURS = (HUES[0], darken(HUES[0]))


def number_models() -> pd.DataFrame:
    """The rows of two models' robustness runs, numbered."""
    rows = [
        row for place, name in enumerate(MODELS) for row in build_model(0.71 + 0.04 * place, model=name, method=name)
    ]
    frame = pd.DataFrame([asdict(row) for row in rows]).astype({"epoch": "Int64"}).assign(source=range(len(rows)))
    frame.loc[0, "protocol"] = "head=finetune(epochs=3,drop_path=0.1,ema);pooling=own;source=files"
    return frame


def draw_lines(labels: tuple[str, ...] = MODELS, shift: float = 0.0) -> Figure:
    """A line, a band and a legend's entry for each label, marked."""
    figure = Figure(figsize=(3.4, 2.2))
    axes = figure.add_axes((0.14, 0.2, 0.82, 0.74))
    for number, label in enumerate(labels):
        values = np.linspace(70 + 5 * number + shift, 30 + 8 * number, 6)
        mark = mark_method(label, number)
        colour = COLOURS[number % 2]
        axes.plot(range(6), values, color=colour, marker="o", markersize=3, gid=mark)
        axes.fill_between(range(6), values - 3, values + 3, color=colour, alpha=0.2, linewidth=0, gid=mark)
        figure.text(0.6, 0.86 - 0.09 * number, label, color=colour, parse_math=False, fontsize=7, gid=mark)
    axes.set_xlabel("severity")
    return figure


def build_table(rows: pd.DataFrame) -> Table:
    """Models by condition, means of severities among them, with an empty cell that says what to run."""
    columns = ("clean", "fog", "contrast", "sketch")
    body = []
    for model in MODELS:
        cells = [Cell(model)]
        for condition in columns:
            found = rows[(rows["model"] == model) & rows["condition"].str.fullmatch(f"{condition}(/\\d)?")]
            sources = tuple(found["source"].tolist())
            cells.append(Cell(f"{100 * found['value'].mean():.1f} ± 2.8", model == MODELS[1], sources))
        cells.append(Cell("", hint=f"python -m pixmim_eval.run --suite detection --model {model} --data voc"))
        body.append(tuple(cells))
    head = ("model", *columns, "detection")
    return Table(
        "Robustness: top1 in per cent, value ± half its interval", head, tuple(body), "lrrrrr", ("Bold: best.",)
    )


SORTED = (
    "81.2 ± 0.7",
    "–",
    "9.5 ± 1.2",
    "12.3 [10, 14]",
    "−3.0",
    "1,024",
    "+0.4",
    "81.2 ± 0.1",
    "",
    "1e-3",
    "< 0.001",
    "7 %",
)


def build_scores() -> Table:
    """As many rows as a filter needs, whose numbers are written in every way that a table writes them."""
    body = tuple(
        (Cell(f"model-{place}"), Cell(text), Cell("even" if place % 2 else "odd")) for place, text in enumerate(SORTED)
    )
    return Table("Scores", ("model", "score", "parity"), body, "lrl", ())


def write_picture(path: Path) -> Path:
    """A small PNG."""
    buffer = io.BytesIO()
    Image.fromarray(np.arange(48 * 96 * 3, dtype=np.uint8).reshape(48, 96, 3)).save(buffer, "PNG")
    path.write_bytes(buffer.getvalue())
    return path


def build_report(folder: Path) -> Report:
    """Two sections with plots of the same methods, tables, a picture, and a problem."""
    rows = number_models()
    robustness = Section(
        "robustness",
        "Robustness",
        (
            "How accuracy falls when images are corrupted, on the same images for both models.",
            "Images of data/imagenet-1k/validation/images. To add one: python -m pixmim_eval.run --data PATH.",
        ),
        (build_table(rows),),
        (Plot("robustness", "Accuracy over severities", draw_lines(), "Bands: 95 % intervals."),),
    )
    probes = Section(
        "probes",
        "Probes",
        (),
        (build_scores(),),
        (
            Plot("probes", "Linear probes over epochs", draw_lines(shift=9), "Whiskers: 95 % intervals."),
            Plot("lone", "Probes of one model", draw_lines(("convmae",)), "One model has nothing to switch."),
        ),
        (Picture("reconstruction", "Reconstructions", write_picture(folder / "reconstruction.png"), "Masked 75 %."),),
    )
    problems = ("Two rows contradict each other: mae, clean, top1 is 0.71 and 0.70.",)
    return Report("PixMIM, measured", ("Small models, for a test.",), (robustness, probes), rows, problems)


def build_hostile(folder: Path) -> Report:
    """A report whose every name is hostile; rows lack numbers and hold infinite ones."""
    names = list(HOSTILE)
    fields = ("run", "model", "method", "suite", "dataset", "protocol", "metric", "command", "versions")
    rows = [build_row(name, 0.5, **dict.fromkeys(fields, name)) for name in names]
    frame = pd.DataFrame([asdict(row) for row in rows]).astype({"epoch": "Int64"}).assign(source=range(len(rows)))
    frame.loc[0, ["value", "low", "high"]] = np.nan
    frame.loc[1, "high"], frame.loc[2, "low"], frame.loc[3, "epoch"] = np.inf, -np.inf, pd.NA
    frame.loc[4, "seed"] = 2**53 + 1  # JavaScript's numbers end before
    sections = []
    for place, name in enumerate(names):
        body = tuple((Cell(one), Cell(one, True, (place,)), Cell("", hint=one)) for one in names)
        table = Table(name, (name, name, name), body, "lrl", (name,))
        figure = draw_lines((name, names[place - 1]))
        picture = Picture(name, name, write_picture(folder / "picture.png"), name)
        sections.append(Section(name, name, (name,), (table,), (Plot(name, name, figure, name),), (picture,)))
    return Report(names[1], tuple(names), tuple(sections), frame, tuple(names))


def build_many(number: int, shown: int) -> Report:
    """A report of many rows, and a table of the first of them, five on a line."""
    row = asdict(build_row("fog/1", 0.5))
    random = np.random.default_rng(0)
    frame = pd.DataFrame([row] * number).astype({"epoch": "Int64"})
    frame = frame.assign(
        source=range(number),
        value=random.random(number),
        model=[f"model-{place % 40}" for place in range(number)],
        condition=[f"condition-{place % 97}" for place in range(number)],
        metric=[("top1", "ece", "miou")[place % 3] for place in range(number)],
    )
    frame["low"], frame["high"] = frame["value"] - 0.01, frame["value"] + 0.01
    cells = [Cell(f"{100 * value:.1f} ± 1.0", sources=(place,)) for place, value in enumerate(frame["value"][:shown])]
    body = tuple((Cell(f"row {place}"), *cells[place : place + 5]) for place in range(0, shown, 5))
    table = Table("Many", ("row", *"abcde"), body, "lrrrrr", ())
    return Report("Many rows", (), (Section("many", "Many", (), (table,)),), frame)
