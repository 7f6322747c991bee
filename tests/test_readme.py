"""The README's commands work: each is parsed, and run on small data where it needs no GPU and no network."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import analysis.run
import pixmim_eval.run
from pixmim_eval.arguments import parse_suite
from pixmim_eval.corruptions.__main__ import main as draw_sheet
from pixmim_eval.models.checkpoints import ours
from pixmim_eval.suites import SUITES
from pretrain.methods import METHODS
from pretrain.recipes import RECIPES, Recipe
from pretrain.run import fill_recipe, parse_options
from tests.data.trial_files import RIGHT, write_observer
from tests.references.mae import ReferenceMAE

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if line.strip() and not line.startswith("#")]
INLINE = re.findall(r"`(python -m [^`]+)`", README)


def split(command: str) -> list[str]:
    return shlex.split(command, comments=True)


def find(program: str) -> list[list[str]]:
    """The arguments of every command of the README that runs this module."""
    words = [split(command) for command in COMMANDS + INLINE]
    return [line[line.index(program) + 1 :] for line in words if program in line]


def write_dense_sets(root: Path) -> None:
    """Images with a mask each in ADE20K's layout, and with an object each in COCO's."""
    for place, (part, split) in enumerate({"training": "train2017", "validation": "val2017"}.items()):
        for folder in (f"ADE20K/images/{part}", f"ADE20K/annotations/{part}", f"COCO/images/{split}"):
            (root / folder).mkdir(parents=True)
        image = Image.new("RGB", (40, 30), (50 * place, 0, 0))
        image.save(root / f"ADE20K/images/{part}/a.png")
        image.save(root / f"COCO/images/{split}/a.png")
        Image.fromarray(np.tile(np.arange(1, 3, dtype=np.uint8), (30, 20))).save(
            root / f"ADE20K/annotations/{part}/a.png"
        )
        box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 3, 20, 10], "area": 200, "iscrowd": 0}
        content = {
            "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 30}],
            "categories": [{"id": 1, "name": "cat"}],
            "annotations": [box],
        }
        file = root / f"COCO/annotations/instances_{split}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content))


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which the README's files exist, small: PATH, a run with a checkpoint, an official checkpoint, boxes,
    trials, masks and objects."""
    generator = np.random.default_rng(0)
    for part, count in {"train": 100, "val": 3}.items():
        for name in ("n01440764", "n02084071"):
            folder = tmp_path / "PATH" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(generator.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    recipe = Recipe(
        **{"target": "lowfreq", "crop": "src", "image_size": 16, "patch": 8, "dim": 24, "depth": 1, "heads": 2},
        **{"decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2},
    )
    model = METHODS["mae"](recipe)
    ours.write(
        tmp_path / "runs" / "pixmim" / "epoch-0001.safetensors",
        model.public_tensors(),
        architecture=model.architecture,
        image_size=16,
        method="pixmim-mae",
        epoch=1,
        recipe=asdict(recipe),
    )
    (tmp_path / "runs" / "pixmim" / "recipe.json").write_text(json.dumps({"epochs": 1}))
    (tmp_path / "BOXES.csv").write_text("image,width,height,x_min,y_min,x_max,y_max\na,500,375,10,20,300,200\n")
    for observer in ("subject-01", "subject-02"):
        write_observer(tmp_path / "RAW_DATA", observer, RIGHT)
    write_dense_sets(tmp_path)
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in ReferenceMAE(224, 16, 768, 12, 12, 32, 1, 2).state_dict().items()}
    zeros = {key: torch.zeros(shape, dtype=torch.float16) for key, shape in shapes.items()}
    torch.save({"model": zeros}, tmp_path / "mae_pretrain_vit_base.pth")
    Image.fromarray(generator.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(tmp_path / "IMAGE", "PNG")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIXMIM_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = [split(command)[1] for command in COMMANDS if command.startswith("make ")]
    assert targets == ["demo", "test"]
    for target in targets:
        assert re.search(rf"^{target}:.*install", makefile, flags=re.MULTILINE)


def test_pretraining_commands_name_recipes_and_fields_that_exist() -> None:
    found = find("pretrain.run")
    assert found
    for arguments in found:
        recipe = fill_recipe(parse_options(arguments))
        assert recipe.batch_size % (8 * recipe.accumulate) == 0


def test_all_recipes_and_suites_are_named() -> None:
    assert all(f"`{name}`" in README for name in RECIPES)
    assert all(name in README for name in SUITES)


def test_evaluation_commands_run(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = [arguments for arguments in find("pixmim_eval.run") if "--suite" in arguments]
    assert len(found) >= 4
    for arguments in found:
        if "--model" in arguments:  # its weights would be downloaded
            parse_suite(arguments, pixmim_eval.run.find_options)
            continue
        assert pixmim_eval.run.main([*arguments, "--dry-run"]) == 0, capsys.readouterr().err
        assert "forward passes" in capsys.readouterr().out


def test_commands_on_rows_run(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("robustness", "linear_probe"):
        evaluations = (arguments for arguments in find("pixmim_eval.run") if name in arguments)
        suite = next(arguments for arguments in evaluations if "runs/pixmim/epoch-*.safetensors" in arguments)
        assert pixmim_eval.run.main([*suite, "--workers", "0", "--device", "cpu"]) == 0
    capsys.readouterr()
    views = [arguments for arguments in find("pixmim_eval.run") if arguments[0] == "rows"]
    assert views
    for arguments in views:
        assert pixmim_eval.run.main(arguments) == 0
        assert "mean_error_15" in capsys.readouterr().out
    drawn = find("analysis.run")
    assert {arguments[0] for arguments in drawn} == {"figures", "tables", "curves", "report", "compare", "ablation"}
    for arguments in drawn:
        if arguments[0] in ("compare", "ablation"):  # there is one checkpoint here; and not hours
            analysis.run._parse(arguments)
        elif "--runs" in arguments:
            assert analysis.run.main(arguments) == 0
    assert list((workspace / "reports" / "figures").glob("*.png"))
    assert list((workspace / "reports" / "tables").glob("*.md"))


def test_images_are_corrupted_and_files_inspected(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exports = [arguments for arguments in find("pixmim_eval.run") if arguments[0] == "export"]
    assert exports
    for arguments in exports:
        assert pixmim_eval.run.main([*arguments, "--size", "16", "--workers", "0", "--device", "cpu"]) == 0
    assert len(list((workspace / "runs/imagenet-c/fog").glob("[1-5]/n*/*"))) == 30
    for arguments in (words for words in find("pixmim_eval.corruptions") if "IMAGE" in words):
        assert draw_sheet([*arguments, "--size", "32"]) == 0
        assert Image.open(workspace / "corruptions.png").width > 500
    capsys.readouterr()
    for arguments in (words for words in find("pixmim_eval.run") if words[0] == "inspect"):
        assert pixmim_eval.run.main(arguments) == 0
        assert "ViT, patch 16, width 768, 12 blocks" in capsys.readouterr().out
    for arguments in (words for words in find("pixmim_eval.run") if words[0] == "convert"):
        assert pixmim_eval.run.main(arguments) == 0
        assert "load it" in capsys.readouterr().out


def test_files_that_the_readme_points_to_exist() -> None:
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link
