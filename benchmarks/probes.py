"""Classifiers on frozen features: our solver beside scikit-learn's and a plain L-BFGS, thirteen heads beside one, and
the two protocols of the linear probe.

python -m benchmarks.probes [--part solver|sweep|protocols] [--rounds 3] [--threads N] [--data FOLDER] [--epochs 90]
    [--limit N]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import timm
import torch
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks.timing import print_table, time_interleaved
from pixmim_eval.data import open_manifest
from pixmim_eval.extract import extract_features, select_rows
from pixmim_eval.models.catalog import load_models
from pixmim_eval.models.heads import apply_solution, minimise_loss
from pixmim_eval.models.heads.features import Features, standardise
from pixmim_eval.models.heads.sweep import LEARNING_RATES, Grid, Heads
from pixmim_eval.suites.linear_probe import LinearProbe, LinearProbeOptions
from pixmim_eval.transfer.training_set import take_rows
from pixmim_eval.types import LabelSpace, Manifest, ResultRow, SuiteConfig

IMAGES, WIDTH, CLASSES = 10_000, 768, 100
L2 = 1e-2
CLASSES_OF_PROTOCOLS = 25
PROBE_BATCH = 512  # the published 16,384 would be one step an epoch on a set of this size
RATE_OF_IMAGES = 0.1 * 1_281_167  # base learning rate x images, as published: LARS then moves the weights as far


def make_features(steep: bool) -> tuple[np.ndarray, np.ndarray]:
    """Standardised float32 [N, D] and labels: independent features, or correlated ones of a spectrum that falls as 1/k
    as those of networks do."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, CLASSES, IMAGES)
    spread = (1 + np.arange(WIDTH)) ** -1.0 if steep else np.ones(WIDTH)
    signal = (0.35 if steep else 0.25) * generator.normal(size=(CLASSES, WIDTH)) * spread**0.8
    features = signal[labels] + generator.normal(size=(IMAGES, WIDTH)) * spread
    if steep:
        features = features @ np.linalg.qr(generator.normal(size=(WIDTH, WIDTH)))[0]
    return ((features - features.mean(axis=0)) / features.std(axis=0)).astype(np.float32), labels


def measure_objective(solution: np.ndarray, features: np.ndarray, labels: np.ndarray) -> float:
    """Mean cross-entropy + l2 / 2 · ‖W‖² in float64 of a solution [K, D + 1]."""
    exact = torch.from_numpy(solution).double()
    loss = cross_entropy(apply_solution(exact, torch.from_numpy(features).double()), torch.from_numpy(labels))
    return float(loss + L2 / 2 * exact[:, :-1].square().sum())


def fit_sklearn(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """scikit-learn with its default solver (lbfgs) and tolerance, in double precision."""
    model = LogisticRegression(C=1 / (L2 * len(labels)), max_iter=1000).fit(features.astype(np.float64), labels)
    return np.c_[model.coef_, model.intercept_]


def fit_plain(inputs: Tensor, targets: Tensor) -> np.ndarray:
    """torch's L-BFGS on the same loss, in single precision."""
    solution = torch.zeros(CLASSES, WIDTH + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [solution], max_iter=500, history_size=20, tolerance_grad=1e-5, line_search_fn="strong_wolfe"
    )

    def evaluate() -> Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(apply_solution(solution, inputs), targets) + L2 / 2 * solution[:, :-1].square().sum()
        loss.backward()
        return loss

    optimizer.step(evaluate)
    return solution.detach().numpy()


def compare_solvers(rounds: int, clock: Callable[[], float]) -> None:
    """Seconds and loss of the three solvers on two kinds of features."""
    rows = []
    for kind, steep in (("independent", False), ("spectrum 1/k", True)):
        features, labels = make_features(steep)
        problem = torch.from_numpy(features), torch.from_numpy(labels)
        fit_ours = partial(minimise_loss, *problem, L2, start=torch.zeros(CLASSES, WIDTH + 1))
        fits: dict[str, Callable[[], np.ndarray]] = {
            "ours": lambda fit=fit_ours: fit().numpy(),  # type: ignore[misc]
            "plain L-BFGS, torch": partial(fit_plain, *problem),
            "scikit-learn": partial(fit_sklearn, features, labels),
        }
        optimum = measure_objective(fit_ours(tolerance=0.0).numpy(), features, labels)
        losses = {name: measure_objective(fit(), features, labels) for name, fit in fits.items()}
        seconds = time_interleaved(fits, rounds, clock)
        for name, value in seconds.items():
            above = f"{losses[name] / optimum - 1:.1e}"
            rows.append([kind, name, f"{value:.2f}", f"{value / seconds['ours']:.1f}", above])
    print(f"{IMAGES:,} images, {WIDTH} features, {CLASSES} classes, l2 = {L2:g}")
    print_table(("features", "solver", "s", "time / ours", "loss above the optimum"), rows)


def compare_sweeps(rounds: int, clock: Callable[[], float]) -> None:
    """One learning rate beside thirteen: on features in memory, and with what it takes to have them."""
    features, labels = make_features(steep=True)
    views = standardise([Features((features,), np.arange(IMAGES), torch.device("cpu"))])
    grids = {count: Grid(LEARNING_RATES[:count], (0.0,), epochs=1) for count in (1, 13)}
    train = {str(count): partial(Heads.train, views, labels, CLASSES, grid, seed=0) for count, grid in grids.items()}
    seconds, epochs, extraction = time_interleaved(train, rounds, clock), Grid().epochs, time_extraction(clock)
    rows = []
    for name, spent in (("training alone", 0.0), ("training and extraction of one view", extraction)):
        one, many = (epochs * value + spent for value in seconds.values())
        rows.append([name, f"{one:.1f}", f"{many:.1f}", f"{many / one:.2f}"])
    print(f"{epochs} epochs, {IMAGES:,} images, {WIDTH} features, {CLASSES} classes; extraction by ViT-B/16 at 224 px")
    print_table(("what is timed", "one head, s", "13 heads, s", "13 heads / one"), rows)


def time_extraction(clock: Callable[[], float], images: int = 4) -> float:
    """Seconds to put IMAGES images through a ViT-B/16, from a few."""
    encoder = timm.create_model("vit_base_patch16_224", pretrained=False).eval()
    batch = torch.zeros(images, 3, 224, 224)
    with torch.inference_mode():
        return time_interleaved({"": lambda: encoder(batch)}, 3, clock)[""] * IMAGES / images


def open_protocol_data(folder: Path | None) -> dict[str, Manifest]:
    """25 classes of a data set with train and val, or shapes16."""
    data = {role: open_manifest(str(folder) if folder else "builtin:shapes16", role=role) for role in ("train", "val")}
    names = data["train"].label_space.classes[:CLASSES_OF_PROTOCOLS]
    return {role: restrict(manifest, names) for role, manifest in data.items()}


def restrict(manifest: Manifest, names: tuple[str, ...]) -> Manifest:
    """The images of these classes."""
    classes = manifest.label_space.classes
    places = np.array([names.index(name) if name in names else -1 for name in classes])
    part = take_rows(manifest, np.flatnonzero(places[manifest.labels] >= 0))
    space = LabelSpace(f"{manifest.label_space.name}-first-{len(names)}", names)
    return replace(part, labels=places[part.labels], label_space=space)


def compare_protocols(folder: Path | None, epochs: int, limit: int | None) -> None:
    """Seconds and accuracy of `cached` and `mae-90e` on the shipped MAE, each from an empty cache.

    The features of val, which both need, are not in the times. The base learning rate of `mae-90e` is what moves the
    weights in 90 epochs as far as the published one does on ImageNet. With fewer epochs, its time is scaled to 90: they
    are all alike.
    """
    (model, *_), data = load_models(), open_protocol_data(folder)
    train = data["train"]
    count = len(select_rows(train, limit))
    table, rate = [], float(f"{RATE_OF_IMAGES / count:.2g}")
    options = {
        "cached": LinearProbeOptions(),
        "mae-90e": LinearProbeOptions(
            protocol="mae-90e",
            probe_epochs=epochs,
            probe_batch_size=PROBE_BATCH,
            probe_base_lr=rate,
            probe_warmup_epochs=epochs / 9,
        ),
    }
    results: dict[str, tuple[float, ResultRow]] = {}
    for name, chosen in options.items():
        with tempfile.TemporaryDirectory() as cache:
            os.environ["PIXMIM_CACHE"] = cache
            config = SuiteConfig(data=data, options=chosen, out=Path(cache), workers=0, limit=limit)
            extract_features(model, data["val"], config=config)  # both need them, and neither twice
            start = time.perf_counter()
            row = LinearProbe().run(model, "clean", config).rows[0]
            spent = time.perf_counter() - start
        results[name] = spent * (90 / epochs if name == "mae-90e" else 1), row
    for name, (spent, row) in results.items():
        interval = f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]"
        table.append([name, f"{spent:.0f}", f"{spent / results['cached'][0]:.1f}", interval, f"{row.n}"])
    print(f"mae-90e: batch {PROBE_BATCH}, base learning rate {rate:g}")
    print(f"{model.name}, {train.name}: {count:,} images of {len(train.label_space.classes)} classes")
    if epochs != 90:
        print(f"mae-90e: {epochs} epochs were run; the accuracy is theirs, the time is scaled to 90")
    print_table(("protocol", "s", "time / cached", "top1", "n"), table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("solver", "sweep", "protocols"), help="one of them (default: all)")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="of the protocols: train and val; else shapes16")
    parser.add_argument("--epochs", type=int, default=90, help="of mae-90e, whose time is scaled to 90")
    parser.add_argument("--limit", type=int, help="images of train and of val in the protocols (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds, after one to warm up")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{arguments.threads} threads, torch {torch.__version__}, medians")
    clock = time.process_time if arguments.threads == 1 else time.perf_counter
    with threadpool_limits(arguments.threads):
        if arguments.part in (None, "solver"):
            compare_solvers(arguments.rounds, clock)
        if arguments.part in (None, "sweep"):
            compare_sweeps(arguments.rounds, clock)
        if arguments.part in (None, "protocols"):
            compare_protocols(arguments.data, arguments.epochs, arguments.limit)


if __name__ == "__main__":
    main()
