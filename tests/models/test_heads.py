"""Linear heads against scikit-learn and known answers."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from pixmim_eval.errors import InputError
from pixmim_eval.models.heads import L2_GRID, LinearHead, apply_solution, choose_pooling, fit_linear, minimise_loss


def make_problem(
    count: int = 600, dim: int = 24, classes: int = 5, noise: float = 1.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Correlated features of unequal scale and offset, with labels drawn from a softmax of a linear map."""
    generator = np.random.default_rng(seed)
    latent = generator.normal(size=(count, dim)) * np.exp(-np.arange(dim) / 8)
    features = latent @ generator.normal(size=(dim, dim)) * generator.uniform(0.1, 30, dim) + generator.normal(size=dim)
    logits = 3 * latent @ generator.normal(size=(dim, classes)) + noise * generator.gumbel(size=(count, classes))
    return features.astype(np.float32), logits.argmax(axis=1)


def measure_objective(weight: np.ndarray, bias: np.ndarray, x: np.ndarray, y: np.ndarray, l2: float) -> float:
    logits = x @ weight.T + bias
    peak = logits.max(axis=1)
    losses = np.log(np.exp(logits - peak[:, None]).sum(axis=1)) + peak - logits[np.arange(len(y)), y]
    return float(losses.mean() + l2 / 2 * (weight**2).sum())


@pytest.mark.parametrize("l2", L2_GRID)
def test_the_fit_reaches_the_optimum_of_scikit_learn(l2: float) -> None:
    features, labels = make_problem()
    standard = (features - features.mean(axis=0)) / features.std(axis=0)
    inputs, targets = torch.from_numpy(standard), torch.from_numpy(labels)
    solution = minimise_loss(inputs, targets, l2, start=torch.zeros(5, 25)).double().numpy()
    exact = standard.astype(np.float64)
    reference = LogisticRegression(C=1 / (l2 * len(labels)), tol=1e-10, max_iter=20_000).fit(exact, labels)
    ours = measure_objective(solution[:, :-1], solution[:, -1], exact, labels, l2)
    theirs = measure_objective(reference.coef_, reference.intercept_, exact, labels, l2)
    assert ours <= theirs * (1 + 1e-4)


def test_a_head_standardises_and_predicts_as_scikit_learn_at_its_penalty() -> None:
    features, labels = make_problem()
    head = fit_linear(features, labels, 5, seed=3)
    standard = (features.astype(np.float64) - features.mean(axis=0)) / features.std(axis=0)
    reference = LogisticRegression(C=1 / (head.l2 * len(labels)), tol=1e-10, max_iter=20_000).fit(standard, labels)
    ours = torch.softmax(head(torch.from_numpy(features)), dim=1).numpy()
    np.testing.assert_allclose(ours, reference.predict_proba(standard), atol=5e-3)


def test_the_penalty_is_the_best_of_the_grid_on_images_that_were_held_out() -> None:
    features, labels = make_problem(count=300, noise=6.0)
    noisy = fit_linear(features, labels, 5)
    easy_features, easy_labels = make_problem(count=3000, noise=0.3)
    easy = fit_linear(easy_features, easy_labels, 5)
    assert noisy.l2 > easy.l2
    single = [fit_linear(features, labels, 5, l2_grid=(l2,)).held_out_loss for l2 in L2_GRID]
    assert noisy.held_out_loss == pytest.approx(min(single), rel=1e-3)


def test_the_scale_and_offset_of_features_change_nothing() -> None:
    features, labels = make_problem()
    moved = features * np.float32(8.0) + np.float32(64.0)
    plain, other = fit_linear(features, labels, 5), fit_linear(moved, labels, 5)
    assert plain.l2 == other.l2
    torch.testing.assert_close(plain(torch.from_numpy(features)), other(torch.from_numpy(moved)), atol=0.02, rtol=0.02)


def test_a_constant_feature_does_no_harm() -> None:
    features, labels = make_problem()
    features[:, 3] = 7.25
    head = fit_linear(features, labels, 5)
    assert torch.isfinite(head(torch.from_numpy(features))).all()
    assert head.scale[3] == 1


def test_a_class_without_training_images_is_never_the_answer() -> None:
    features, labels = make_problem(classes=4)
    head = fit_linear(features, labels, 6)
    assert head.weight.shape == (6, 24)
    assert set(head(torch.from_numpy(features)).argmax(dim=1).tolist()) <= {0, 1, 2, 3}


def test_the_pooling_that_carries_the_labels_is_chosen() -> None:
    features, labels = make_problem()
    useless = np.random.default_rng(1).normal(size=features.shape).astype(np.float32)
    assert choose_pooling({"cls": useless, "mean": features}, labels, 5).pooling == "mean"
    assert choose_pooling({"cls": features, "mean": useless}, labels, 5).pooling == "cls"


def test_a_head_survives_storage_to_the_bit() -> None:
    features, labels = make_problem()
    head = fit_linear(features, labels, 5, pooling="cls")
    again = LinearHead.from_bytes(head.to_bytes())
    assert torch.equal(head(torch.from_numpy(features)), again(torch.from_numpy(features)))
    assert (again.digest, again.name, again.held_out_loss) == (head.digest, head.name, head.held_out_loss)


def test_the_digest_tells_heads_apart() -> None:
    features, labels = make_problem()
    heads = [
        fit_linear(features, labels, 5, pooling="cls", l2_grid=(0.1,)),
        fit_linear(features, labels, 5, pooling="mean", l2_grid=(0.1,)),
        fit_linear(features, labels, 5, pooling="mean", l2_grid=(0.01,)),
        fit_linear(features[::-1].copy(), labels, 5, pooling="mean", l2_grid=(0.01,)),
    ]
    assert len({head.digest for head in heads}) == 4


def test_the_name_says_how_it_was_fitted() -> None:
    features, labels = make_problem(count=120)
    assert (
        fit_linear(features, labels, 5, pooling="cls", l2_grid=(1e-3,)).name
        == "logistic-lbfgs(l2=0.001,pool=cls,train=120)"
    )


def test_apply_solution_is_an_affine_map() -> None:
    solution = torch.tensor([[1.0, 2.0, 3.0], [0.0, -1.0, 0.5]])
    assert apply_solution(solution, torch.tensor([[10.0, 100.0]])).tolist() == [[213.0, -99.5]]


def test_unlabelled_and_non_finite_training_images_are_refused() -> None:
    features, labels = make_problem(count=50)
    with pytest.raises(InputError, match="train=PATH"):
        fit_linear(features, np.full(50, -1), 5)
    with pytest.raises(InputError, match="at least two"):
        fit_linear(features[:1], labels[:1], 5)
    features[4, 4] = np.nan
    with pytest.raises(InputError, match="finite"):
        fit_linear(features, labels, 5)


def test_four_thousand_images_take_seconds() -> None:
    features, labels = make_problem(count=4096, dim=192, classes=16)
    begin = time.perf_counter()
    fit_linear(features, labels, 16)
    assert time.perf_counter() - begin < 10  # 2 s on a quiet core; the bound only catches a wrong order of growth


def test_autocast_around_a_head_takes_no_digit_from_it() -> None:
    features, labels = make_problem(count=100)
    head, inputs = fit_linear(features, labels, 5), torch.from_numpy(features)
    expected = (inputs - head.mean) / head.scale @ head.weight.T + head.bias
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(head.to("cpu")(inputs), expected)
