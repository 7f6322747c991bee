"""The solver reaches the optimum that float64 Newton steps and scikit-learn find, whatever the features are like."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from pixmim_eval.models.heads import features as stored
from pixmim_eval.models.heads import fit_linear, logistic, minimise_loss
from pixmim_eval.models.heads.features import Features, standardise
from pixmim_eval.models.heads.logistic import apply_solution, measure_curvature, measure_loss


def make_problem(kind: str, count: int = 1500, dim: int = 60, classes: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Standardised features: independent ones, ones of a steep spectrum, or ones that tell all labels apart."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, classes, count)
    spread = np.ones(dim) if kind == "white" else (1.0 + np.arange(dim)) ** -1.5
    signal = {"white": 0.4, "steep": 0.6, "separable": 6.0}[kind]
    inputs = signal * generator.normal(size=(classes, dim))[labels] * spread**0.8
    inputs = (inputs + generator.normal(size=(count, dim)) * spread) @ np.linalg.qr(generator.normal(size=(dim, dim)))[
        0
    ]
    return ((inputs - inputs.mean(axis=0)) / inputs.std(axis=0)).astype(np.float32), labels


def measure_objective(solution: np.ndarray, inputs: np.ndarray, labels: np.ndarray, l2: float) -> float:
    logits = inputs.astype(np.float64) @ solution[:, :-1].T + solution[:, -1]
    logits -= logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels]
    return float(losses.mean() + l2 / 2 * (solution[:, :-1] ** 2).sum())


def find_optimum(inputs: np.ndarray, labels: np.ndarray, l2: float) -> float:
    model = LogisticRegression(C=1 / (l2 * len(labels)), tol=1e-8, max_iter=5000, solver="newton-cholesky")
    model.fit(inputs.astype(np.float64), labels)
    return measure_objective(np.c_[model.coef_, model.intercept_], inputs, labels, l2)


@pytest.mark.parametrize("kind", ["white", "steep", "separable"])
@pytest.mark.parametrize("l2", [1e-1, 1e-3, 1e-5])
def test_the_loss_is_within_a_ten_thousandth_of_the_optimum(kind: str, l2: float) -> None:
    inputs, labels = make_problem(kind)
    solution = minimise_loss(torch.from_numpy(inputs), torch.from_numpy(labels), l2, start=torch.zeros(12, 61))
    found, optimum = measure_objective(solution.double().numpy(), inputs, labels, l2), find_optimum(inputs, labels, l2)
    assert optimum * (1 - 1e-7) <= found <= optimum * (1 + 1e-4)


def test_a_poor_start_leads_to_the_same_optimum() -> None:
    inputs, labels = make_problem("steep")
    start = torch.randn(12, 61, generator=torch.Generator().manual_seed(0))
    solution = minimise_loss(torch.from_numpy(inputs), torch.from_numpy(labels), 1e-2, start=start)
    found, optimum = (
        measure_objective(solution.double().numpy(), inputs, labels, 1e-2),
        find_optimum(inputs, labels, 1e-2),
    )
    assert found <= optimum * (1 + 1e-4)


def count_passes(inputs: Features, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one whenever the features are read from the start."""
    passes: list[int] = []
    plain = Features.split

    def split(self: Features, size: int) -> Iterator[Tensor]:
        passes.append(size)
        return plain(self, size)

    monkeypatch.setattr(Features, "split", split)
    return passes


@pytest.mark.parametrize(("kind", "most"), [("white", 25), ("steep", 25)])
def test_some_twenty_passes_are_enough_however_correlated_the_features_are(
    kind: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, labels = make_problem(kind)
    features = Features((inputs,), np.arange(len(labels)), torch.device("cpu"))
    passes = count_passes(features, monkeypatch)
    minimise_loss(features, torch.from_numpy(labels), 1e-2, start=torch.zeros(12, 61))
    assert len(passes) <= most


def test_half_precision_features_on_disk_are_fitted_chunk_by_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, labels = make_problem("steep")
    np.save(tmp_path / "features.npy", (40 + 3 * inputs).astype(np.float16))
    expected = fit_linear(np.load(tmp_path / "features.npy"), labels, 12, l2_grid=(1e-1, 1e-2))
    monkeypatch.setattr(stored, "_RESIDENT_BYTES", 0)
    for module in (stored, logistic):
        monkeypatch.setattr(module, "CHUNK", 100)
    read: list[int] = []
    plain = Features.read
    monkeypatch.setattr(Features, "read", lambda self, rows: read.append(len(rows)) or plain(self, rows))
    head = fit_linear(np.load(tmp_path / "features.npy", mmap_mode="r"), labels, 12, l2_grid=(1e-1, 1e-2))
    assert max(read) == 100 and head.l2 == expected.l2
    sample = torch.from_numpy(40 + 3 * inputs)
    torch.testing.assert_close(head(sample).softmax(dim=1), expected(sample).softmax(dim=1), atol=2e-3, rtol=0.02)


def test_the_curvature_is_the_mean_block_of_the_hessian() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, solution = torch.randn(200, 3, generator=generator), torch.randn(4, 4, generator=generator)
    inputs -= inputs.mean(dim=0)
    targets = torch.zeros(200, dtype=torch.int64)

    def loss(flat: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(apply_solution(flat.view(4, 4), inputs), targets)

    hessian = torch.autograd.functional.hessian(loss, solution.flatten()).view(4, 4, 4, 4)  # type: ignore[no-untyped-call]
    expected = torch.stack([hessian[place, :, place, :] for place in range(4)]).mean(dim=0).double()
    expected[-1, :-1] = expected[:-1, -1] = 0  # the bias is taken for uncorrelated
    torch.testing.assert_close(measure_curvature(solution, inputs, 64), expected, atol=1e-6, rtol=1e-5)
    part = measure_curvature(solution, inputs, 16)  # of 200 rows of 3 features every fourth
    torch.testing.assert_close(part, measure_curvature(solution, inputs[::4], 64))


def test_the_loss_is_that_of_all_rows() -> None:
    inputs, labels = make_problem("white")
    solution = torch.randn(12, 61, generator=torch.Generator().manual_seed(0))
    (features,) = standardise([Features((inputs,), np.arange(1500), torch.device("cpu"))])
    found = measure_loss(solution, features, torch.from_numpy(labels))
    assert found == pytest.approx(measure_objective(solution.double().numpy(), inputs, labels, 0.0), rel=1e-5)
