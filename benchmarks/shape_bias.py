"""The suite shape_bias on 1,280 images beside bare forward passes of the same images.

python -m benchmarks.shape_bias [--data FOLDER] [--trials PATH] [--model tf_efficientnet_lite0] [--rounds 2]
    [--images N] [--batch 64] [--threads N] [--workers N] [--device cpu]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import median

import numpy as np
import timm
import torch
from PIL import Image

from benchmarks.timing import print_table
from pixmim_eval.data import open_manifest
from pixmim_eval.data.categories import CATEGORIES
from pixmim_eval.data.loader import evaluation_batches
from pixmim_eval.data.panels import open_trials
from pixmim_eval.data.stimuli import CUE_CONFLICT, read_stimuli
from pixmim_eval.data.transforms import normalize
from pixmim_eval.data.trials import make_trial_file, name_trial_file, write_trial_file
from pixmim_eval.extract import select_rows
from pixmim_eval.models.timm_models import load_timm
from pixmim_eval.suites.decisions import GeometryOptions
from pixmim_eval.suites.shape_bias import ShapeBias
from pixmim_eval.types import Batch, Manifest, Model, SuiteConfig

PEOPLE, COPIES, SIZE = 10, 5, 224
NAMES = {
    "forward": "bare forward passes, images in memory",
    "decoding": "reading, decoding and geometry alone",
    "suite": "the suite: images, forward passes, decisions, intervals, consistency with 10 people",
    "again": "the suite with logits from the cache: all but images and forward passes",
    "observers": "people and their consistency among themselves",
}


def make_images(folder: Path) -> Path:
    """1,280 PNG files of 224 px, five of each pair of categories, so that 1,200 are in conflict."""
    random = np.random.default_rng(0)
    for shape, texture, copy in product(CATEGORIES, CATEGORIES, range(1, COPIES + 1)):
        coarse = random.integers(0, 256, (28, 28, 3), dtype=np.uint8)
        file = folder / shape / f"{shape}{copy}-{texture}{copy}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize((SIZE, SIZE), Image.Resampling.BICUBIC).save(file, compress_level=1)
    return folder


def make_trials(folder: Path, manifest: Manifest) -> Path:
    """Ten people who guess."""
    stimuli = read_stimuli(manifest, CUE_CONFLICT)
    for number in range(1, PEOPLE + 1):
        answers = np.random.default_rng(number).integers(0, len(CATEGORIES), len(manifest))
        name = f"subject-{number:02d}"
        trials = make_trial_file(name, stimuli, np.arange(len(manifest)), answers)
        write_trial_file(folder / CUE_CONFLICT / name_trial_file(CUE_CONFLICT, name), trials)
    return folder


def load_model(name: str, folder: Path) -> Model:
    """A timm model with random weights."""
    torch.manual_seed(0)
    weights = folder / "weights.pth"
    torch.save(timm.create_model(name, pretrained=False).state_dict(), weights)
    return load_timm(name, weights)


def pass_forward(model: Model, batches: list[Batch], device: str) -> None:
    """Bare forward passes of decoded images, the logits on the CPU."""
    assert model.classify is not None
    for batch in batches:
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            images = normalize(batch.images.to(device), model.preprocessing.mean, model.preprocessing.std)
            model.classify(images).float().cpu()


def measure(call: Callable[[], object], seconds: list[float]) -> None:
    start = time.perf_counter()
    call()
    seconds.append(time.perf_counter() - start)


def run(options: argparse.Namespace, folder: Path) -> None:
    manifest = open_manifest(options.data or make_images(folder / "images"), role=CUE_CONFLICT)
    trials = open_trials(options.trials or str(make_trials(folder / "trials", manifest)))
    model = load_model(options.model, folder)
    model.encoder.to(options.device)
    config = SuiteConfig(
        data={CUE_CONFLICT: manifest},
        files={"trials": trials},
        device=options.device,
        limit=options.images,
        batch_size=options.batch,
        workers=options.workers,
        options=GeometryOptions("resize256"),
        out=folder / "out",
    )
    rows = select_rows(manifest, options.images)
    warm, seconds = ({name: list[float]() for name in NAMES} for _ in range(2))
    os.environ["PIXMIM_CACHE"] = str(folder / "cache-warm")
    time_round(model, replace(config, limit=options.batch), select_rows(manifest, options.batch), warm)
    for number in range(options.rounds):
        os.environ["PIXMIM_CACHE"] = str(folder / f"cache-{number}")
        time_round(model, config, rows, seconds)
    found = {name: median(values) for name, values in seconds.items()}
    print(f"{options.model}, {len(rows)} images, torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    table = [[NAMES[key], f"{found[key]:.2f}", f"{found[key] / found['forward']:.3f}"] for key in NAMES]
    print_table(("what", "seconds", "time / forward"), table)


def time_round(model: Model, config: SuiteConfig, rows: np.ndarray, seconds: dict[str, list[float]]) -> None:
    """Everything once, with an empty cache."""
    suite, manifest, batches = ShapeBias(), config.data[CUE_CONFLICT], list[Batch]()
    (observers,) = suite.subjects(config)
    decoded = evaluation_batches(
        manifest, model.preprocessing, rows=rows, batch_size=config.batch_size, workers=config.workers
    )
    measure(lambda: batches.extend(decoded), seconds["decoding"])
    measure(lambda: pass_forward(model, batches, config.device), seconds["forward"])
    measure(lambda: suite.run(model, CUE_CONFLICT, config), seconds["suite"])
    measure(lambda: suite.run(model, CUE_CONFLICT, config), seconds["again"])
    measure(lambda: suite.run(observers, CUE_CONFLICT, config), seconds["observers"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", metavar="FOLDER", help="cue-conflict images; without it, 1,280 are generated")
    parser.add_argument("--trials", metavar="PATH", help="files of trials; without it, of ten people who guess")
    parser.add_argument("--model", default="tf_efficientnet_lite0", help="timm model, with random weights")
    parser.add_argument("--images", type=int, metavar="N", help="only N of the images")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--workers", type=int, default=2, help="processes that decode")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        run(options, Path(folder))


if __name__ == "__main__":
    main()
