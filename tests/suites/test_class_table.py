"""The table of classes has every class once, with the numbers of the rows."""

from __future__ import annotations

from pathlib import Path

from pixmim_eval.results import make_rows
from pixmim_eval.suites.class_table import write_class_table
from pixmim_eval.types import Estimate, SuiteConfig
from tests.fakes import make_model
from tests.transfer.pixels import make_set


def test_every_class_is_a_line(tmp_path: Path) -> None:
    data, config = make_set(4), SuiteConfig(data={})
    estimates = {
        "miou": Estimate(0.5, 0.4, 0.6, 4),
        "iou/a|b": Estimate(0.25, 0.2, 0.3, 2),
        "iou/cat": Estimate(0.75, 0.7, 0.8, 4),
        "accuracy/cat": Estimate(1.0, 0.9, 1.0, 4),
    }
    rows = [
        row
        for name, some in (("one", estimates), ("two", {"iou/cat": Estimate(0.1, 0.0, 1.0, 1)}))
        for row in make_rows(
            make_model(name=name), data, some, suite="segmentation", condition="knn", protocol="", config=config
        )
    ]
    lines = write_class_table(rows, tmp_path / "tables" / "classes.md").read_text().splitlines()
    assert lines[0] == "# Classes of blocks"
    assert lines[2:6] == [
        "| class | images | one, knn: IoU | one, knn: accuracy | two, knn: IoU |",
        "| --- | --: | --: | --: | --: |",
        "| cat | 4 | 75.0 [70.0, 80.0] | 100.0 [90.0, 100.0] | 10.0 [0.0, 100.0] |",
        "| a\\|b | 2 | 25.0 [20.0, 30.0] | – | – |",
    ]
