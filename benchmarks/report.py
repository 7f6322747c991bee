"""What a report of 10,000 rows costs, stage by stage, in processor time: python -m benchmarks.report [--rounds 3]"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd

from analysis.columns import CORRUPTION_GROUPS
from analysis.figures import save_figure
from analysis.report import build
from analysis.report.document import write_document
from analysis.report.page import write_page
from analysis.tables import write_table
from pixmim_eval.types import ResultRow

DRAWN = ("plot_groups", "plot_shape_bias", "plot_foreground", "plot_curves", "plot_ablation")
IMAGES, CLASSES = 1000, 275
CELLS = [f"{name}/{severity}" for names in CORRUPTION_GROUPS.values() for name in names for severity in range(1, 6)]


def make_rows() -> pd.DataFrame:
    """Rows of eight models, with how 1,000 images fared: 95 corrupted cells, scores, segmentation class by class."""
    random, records = np.random.default_rng(0), []
    for number in range(8):
        method, epoch = ("mae", "pixmim-mae", "lsmae", "pixmim-lsmae")[number % 4], 20 + 20 * (number // 4)
        named = {"model": f"{method}-{epoch}", "method": method, "weights_digest": f"{number:016x}", "epoch": epoch}
        for suite, conditions, metrics in (
            ("robustness", ["clean", *CELLS, "sketch"], ["top1"]),
            ("linear_probe", ["clean"], ["top1", "top5"]),
            ("knn", ["clean"], ["top1", *(f"top1_k{count}" for count in (10, 20, 100, 200))]),
            ("finetune", ["clean"], ["top1", "top5"]),
            ("shape_bias", ["cue-conflict"], ["shape_bias", *(f"shape_bias/{place}" for place in range(16))]),
            ("segmentation", ["knn", "linear"], ["miou", "aacc", *_list_classes()]),
        ):
            for condition in conditions:
                for metric in metrics:
                    hits = (random.random(IMAGES) < 0.2 + 0.05 * number).astype(np.int8)
                    row = _make_row(suite, condition, metric, float(hits.mean()), named)
                    records.append({**asdict(row), "hits": hits if metric.startswith("top") else None})
    return pd.DataFrame(records).astype({"epoch": "Int64"}).assign(folder="runs/evaluation")


def _list_classes() -> list[str]:
    return [f"{name}/class-{place}" for place in range(CLASSES) for name in ("iou", "accuracy")]


def _make_row(suite: str, condition: str, metric: str, value: float, named: dict[str, Any]) -> ResultRow:
    return ResultRow(
        **named,
        run="evaluation",
        suite=suite,
        dataset="made-up",
        dataset_digest="0123456789abcdef",
        subset="all",
        condition=condition,
        protocol=f"head=own;label_space=made-up-100;source={'generated' if '/' in condition else 'files'}",
        metric=metric,
        value=value,
        low=max(value - 0.025, 0.0),
        high=min(value + 0.025, 1.0),
        n=IMAGES,
        unit="fraction",
        skipped=0,
        seed=0,
        versions="pixmim-eval=0",
        time="2026-01-01T00:00:00+00:00",
        command=f"python -m pixmim_eval.run --suite {suite}",
        pretraining="",
        backbone="",
    )


def main() -> None:
    """Prints the median over rounds of each stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds, rows = parser.parse_args().rounds, build.number_rows(make_rows())
    with tempfile.TemporaryDirectory() as name:
        found = [time_report(rows, Path(name)) for _ in range(rounds)]
    print(f"{len(rows):,} rows of 8 models, {found[0].pop('figures'):.0f} figures; median of {rounds}, processor time")
    for stage in found[0]:
        print(f"{stage:<48}{median(one[stage] for one in found):6.2f} s")


def time_report(rows: pd.DataFrame, folder: Path) -> dict[str, float]:
    """Stage -> seconds of processor time, and how many figures there are."""
    seconds: dict[str, float] = {}

    def measure(stage: str, work: Callable[[], Any]) -> Any:
        start = time.process_time()
        result = work()
        seconds[stage] = time.process_time() - start
        return result

    with ExitStack() as stack:
        for drawn in DRAWN:
            stack.enter_context(patch.object(build, drawn, return_value=[]))
        plain = measure("all numbers and tables", lambda: build.build_report(rows))
    sheets = [sheet for section in plain.sections for sheet in section.sheets]
    tables = folder / "tables"
    measure(
        "tables as CSV, Markdown, LaTeX",
        lambda: [write_table(tables / sheet.stem, sheet.tables, sheet.numbers) for sheet in sheets],
    )
    measure("the page without figures", lambda: write_page(plain, folder / "index.html"))
    report = measure("numbers, tables, and figures drawn", lambda: build.build_report(rows))
    plots = [plot for section in report.sections for plot in section.plots]
    measure("the page with figures (SVG)", lambda: write_page(report, folder / "index.html"))
    files = measure(
        "figures as PNG and PDF",
        lambda: {plot.stem: save_figure(plot.figure, folder / "figures" / plot.stem)[1] for plot in plots},
    )
    measure("the PDF", lambda: write_document(report, folder / "report.pdf", files))
    return {**seconds, "figures": len(plots)}


if __name__ == "__main__":
    main()
