"""Corrupted images as files: the published layout, and the very images that the suite scores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pixmim_eval.corruptions import corrupt
from pixmim_eval.data import open_manifest
from pixmim_eval.data.transforms import apply_evaluation
from pixmim_eval.errors import InputError
from pixmim_eval.extract import passes
from pixmim_eval.extract.export import export_corrupted
from pixmim_eval.run import main
from pixmim_eval.types import LabelSpace, Preprocessing, SuiteConfig
from tests.fakes import COLOURS, make_manifest

GEOMETRY = Preprocessing(64, 73)
CONFIG = SuiteConfig(data={}, workers=0, batch_size=4, seed=3, corruptions=("shot_noise", "contrast"))


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PIXMIM_CACHE", str(tmp_path / "cache"))
    passes._kept.clear()
    yield
    passes._kept.clear()


def test_files_hold_the_images_that_are_scored(tmp_path: Path) -> None:
    manifest = replace(make_manifest(9, size=80), ready_size=None)
    assert export_corrupted(manifest, GEOMETRY, CONFIG, tmp_path / "out") == 10
    assert sorted(path.name for path in (tmp_path / "out" / "contrast").iterdir()) == ["1", "2", "3", "4", "5"]
    clean = np.stack([apply_evaluation(image, GEOMETRY, None) for image in manifest.source.read(range(9))])
    images = torch.from_numpy(clean).permute(0, 3, 1, 2)
    for name, severity in (("shot_noise", 2), ("contrast", 5)):
        scored = corrupt(images, name, severity, seed=3, index=torch.arange(9), jpeg_step=True)
        for row in range(9):
            folder = COLOURS.classes[manifest.labels[row]]
            file = tmp_path / "out" / name / str(severity) / folder / f"image-{row}.JPEG"
            np.testing.assert_array_equal(np.asarray(Image.open(file)), scored[row].permute(1, 2, 0).numpy())
        stored = open_manifest(tmp_path / "out" / name / str(severity))
        assert len(stored) == 9 and set(stored.label_space.classes) == set(COLOURS.classes)


def test_without_the_jpeg_step_files_are_lossless(tmp_path: Path) -> None:
    manifest = make_manifest(3, size=64)
    export_corrupted(manifest, GEOMETRY, replace(CONFIG, jpeg_step=False, corruptions=("contrast",)), tmp_path)
    images = torch.from_numpy(np.stack(manifest.source.read(range(3)))).permute(0, 3, 1, 2)
    expected = corrupt(images, "contrast", 4, seed=3, index=torch.arange(3))
    found = np.asarray(Image.open(tmp_path / "contrast/4/blue/image-0.png"))
    np.testing.assert_array_equal(found, expected[0].permute(1, 2, 0).numpy())


def test_a_stopped_export_goes_on_and_leaves_no_half_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = make_manifest(6, size=64)
    with monkeypatch.context() as patch:
        saved: list[Path] = []
        save = Image.Image.save

        def fail(image: Image.Image, path: Path, **options: object) -> None:
            saved.append(path)
            if len(saved) > 15:
                raise KeyboardInterrupt
            save(image, path, **options)

        patch.setattr(Image.Image, "save", fail)
        with pytest.raises(KeyboardInterrupt):
            export_corrupted(manifest, GEOMETRY, CONFIG, tmp_path / "out")
    cells = [path for path in tmp_path.glob("out/*/*") if path.is_dir()]
    assert len(cells) == 2 and all(len(list(cell.glob("*/*.JPEG"))) == 6 for cell in cells)
    times = {path: path.stat().st_mtime_ns for path in cells[0].glob("*/*")}
    assert export_corrupted(manifest, GEOMETRY, CONFIG, tmp_path / "out") == 8
    assert {path: path.stat().st_mtime_ns for path in cells[0].glob("*/*")} == times


def test_images_of_one_name_or_without_labels_are_refused(tmp_path: Path) -> None:
    manifest = make_manifest(6, size=64)
    keys = np.array(["a/x.png", "b/y.png", "c/z.png", "d/x.jpg", "e/v.png", "f/w.png"])
    with pytest.raises(InputError, match=r"blue/x\.JPEG"):
        export_corrupted(replace(manifest, keys=keys), GEOMETRY, CONFIG, tmp_path)
    bare = replace(manifest, label_space=LabelSpace("none", ()), labels=np.full(6, -1))
    with pytest.raises(InputError, match="labels"):
        export_corrupted(bare, GEOMETRY, CONFIG, tmp_path)
    assert not list(tmp_path.glob("contrast*"))


def test_the_command_writes_what_the_suite_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for colour, shade in (("blue", 200), ("red", 90)):
        (tmp_path / "clean" / colour).mkdir(parents=True)
        Image.new("RGB", (80, 70), (shade, 30, 40)).save(tmp_path / "clean" / colour / "one.png")
    words = ["export", "--data", str(tmp_path / "clean"), "--out", str(tmp_path / "out"), "--size", "64"]
    assert main([*words, "--corruptions", "brightness", "--workers", "0"]) == 0
    assert len(list((tmp_path / "out").glob("brightness/*/*/one.JPEG"))) == 10
    shown = capsys.readouterr().out
    assert "5 cells written" in shown and f"imagenet-c={tmp_path / 'out'}" in shown
    assert main([*words, "--corruptions", "brightnes", "--workers", "0"]) == 2
    assert "Did you mean brightness" in capsys.readouterr().err
