"""The command writes one page, one PDF, and every table and figure; names meant to do harm are text in all of them."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from analysis.report.pictures import encode_picture, find_pictures
from analysis.run import main, read_runs
from pixmim_eval.types import ResultRow
from tests.analysis.report.every_suite import build_scores
from tests.analysis.report.samples import HOSTILE

Write = Callable[..., Path]


@pytest.fixture
def rows(make_model: Callable[..., list[ResultRow]]) -> list[ResultRow]:
    """Two models with hostile names, a hostile class among the metrics and a hostile command."""
    made = [
        *make_model(0.9, ["fog"], {}, model=HOSTILE[0], weights_digest="a", command=HOSTILE[1], dataset=HOSTILE[7]),
        *make_model(0.8, ["fog"], {}, model=HOSTILE[6], weights_digest="b", run=HOSTILE[8], dataset=HOSTILE[7]),
    ]
    return made + build_scores("segmentation", ("miou", f"iou/{HOSTILE[0]}"), "linear", model=HOSTILE[7])


def draw_picture(folder: Path, name: str) -> Path:
    path = folder / "reports" / "figures" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(path)
    return path


def test_one_command_writes_the_page_the_pdf_and_all_files(
    rows: list[ResultRow], write_run: Write, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run, out = write_run(rows), tmp_path / "reports"
    draw_picture(run, "reconstruction")
    assert main(["report", "--runs", str(run), "--out", str(out)]) == 0
    printed = capsys.readouterr().out.splitlines()
    there = sorted(str(path) for path in out.rglob("*") if path.is_file())
    assert sorted(printed) == there
    assert printed[:2] == [str(out / "index.html"), str(out / "report.pdf")]
    for stem in ("robustness", "dense", "published", "overview-runs"):
        assert {f"{stem}.csv", f"{stem}.md", f"{stem}.tex"} <= {path.name for path in (out / "tables").iterdir()}
    names = {path.name for path in (out / "figures").iterdir()}
    assert {"robustness-one-column.png", "robustness-one-column.pdf", "picture-reconstruction.png"} <= names
    page = (out / "index.html").read_text()
    assert "<script>window.harmed" not in page and "<img src=x" not in page
    assert "&lt;script&gt;window.harmed = 1&lt;/script&gt;" in page
    assert (out / "report.pdf").read_bytes().startswith(b"%PDF")


def test_numbers_of_the_page_are_those_of_the_files(
    make_model: Callable[..., list[ResultRow]], write_run: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("plot_groups", "plot_curves"):  # no figures, for speed
        monkeypatch.setattr(f"analysis.report.build.{name}", lambda *arguments: [])
    run = write_run([*make_model(0.9, ["fog"], {}), *build_scores("knn", ("top1",))])
    assert main(["report", "--runs", str(run), "--out", str(tmp_path)]) == 0
    page = (tmp_path / "index.html").read_text()
    for stem in ("robustness", "scores"):
        text = (tmp_path / "tables" / f"{stem}.md").read_text().replace("\\", "")
        numbers = re.findall(r"\d+\.\d+ (?:± \d+\.\d+|\[\d+\.\d+, \d+\.\d+\])", text)
        assert len(numbers) >= 3
        assert all(number in page for number in numbers)
        latex = (tmp_path / "tables" / f"{stem}.tex").read_text()
        assert all(number.replace("±", r"$\pm$") in latex for number in numbers)
    knn = pd.read_csv(tmp_path / "tables" / "scores.csv")
    assert all(f"{100 * value:.1f} [" in page for value in knn["value"])


def test_a_folder_without_rows_is_bad_input_that_says_what_to_run(
    write_run: Write, rows: list[ResultRow], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    runs = [str(write_run(rows)), str(tmp_path / "nowhere")]
    assert main(["report", "--runs", *runs, "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "nowhere" in line and "python -m pixmim_eval.run" in line
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_named_twice_is_read_once(write_run: Write, rows: list[ResultRow]) -> None:
    run = write_run(rows)
    assert len(read_runs([run, run / ".." / run.name])) == len(rows)


def test_pictures_of_suites_are_found_and_named_apart(
    write_run: Write, make_row: Callable[..., ResultRow], tmp_path: Path
) -> None:
    first = write_run([make_row("masked", 0.1, suite="reconstruction", model="shown")], "first")
    second = write_run([make_row("clean", 0.1)], "second")
    for folder, name in ((first, "reconstruction"), (second, "reconstruction"), (second, "detection-part-2")):
        draw_picture(folder, name)
    draw_picture(first, "foreground-overlap")  # a figure of rows, which the report draws itself
    found = find_pictures(read_runs([first, second]))
    assert [picture.stem for picture in found] == [
        "picture-reconstruction-run-1",
        "picture-reconstruction-run-2",
        "picture-detection-part-2",
    ]
    assert "Models: shown." in found[0].caption and "holds no rows of it" in found[1].caption
    assert found[2].title.endswith("(part 2)")
    given = draw_picture(tmp_path / "pretraining", "reconstruction")
    (*_, last) = find_pictures(read_runs([first, second]), [given])
    assert (last.stem, last.path) == ("picture-reconstruction-run-3", given) and "by hand" in last.caption


def test_a_picture_that_is_not_there_is_bad_input_before_anything_is_written(
    write_run: Write, make_row: Callable[..., ResultRow], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run = write_run([make_row("clean", 0.1)])
    missing = ["--pictures", str(tmp_path / "none.png")]
    assert main(["report", "--runs", str(run), *missing, "--out", str(tmp_path / "out")]) == 2
    assert "none.png" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_broken_picture_of_a_run_folder_is_named_and_left_out(
    write_run: Write, make_row: Callable[..., ResultRow], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run, out = write_run([make_row("clean", 0.1)]), tmp_path / "out"
    whole = draw_picture(run, "detection")
    broken = [draw_picture(run, name) for name in ("reconstruction", "segmentation", "foreground")]
    broken[0].write_bytes(b"GIF89a")
    broken[1].write_bytes(whole.read_bytes()[:60])  # cut off in the middle
    broken[2].write_bytes(b"")
    assert main(["report", "--runs", str(run), "--out", str(out)]) == 0
    page = (out / "index.html").read_text()
    for path in broken:
        assert "Not shown: a picture of a report: expected a PNG file" in page and path.name in page
    assert [path.name for path in (out / "figures").glob("picture-*")] == ["picture-detection.png"]
    assert page.count('<img src="data:image/') == 1
    given = ["--pictures", str(broken[0])]
    assert main(["report", "--runs", str(run), *given, "--out", str(tmp_path / "none")]) == 2
    assert "reconstruction.png" in capsys.readouterr().err and not (tmp_path / "none").exists()


def test_pictures_in_a_report_are_small_and_as_wide_as_a_column(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:1200, :2000]
    waves = np.stack([128 + 100 * np.sin(rows / scale + columns / 17) for scale in (9, 13, 21)], axis=-1)
    noise = np.random.default_rng(0).normal(scale=6, size=waves.shape)
    large, tiny = tmp_path / "large.png", tmp_path / "tiny.png"
    Image.fromarray((waves + noise).astype(np.uint8)).save(large)
    Image.fromarray(np.zeros((4, 6, 4), np.uint8), "RGBA").save(tiny)
    for kind in ("WEBP", "JPEG"):
        shown = encode_picture(large, kind)
        assert shown.size == (1400, 840) and 8 * len(shown.data) < large.stat().st_size
        with Image.open(io.BytesIO(shown.data)) as found, Image.open(large) as before:
            assert (found.size, found.format) == (shown.size, kind)
            error = np.abs(np.asarray(found, float) - np.asarray(before.resize(found.size, Image.Resampling.LANCZOS)))
            assert error.mean() < 4
        shown = encode_picture(tiny, kind)
        assert shown.size == (6, 4) and len(shown.data) < 100
        assert (np.asarray(Image.open(io.BytesIO(shown.data))) == 255).all()  # what is transparent is paper
