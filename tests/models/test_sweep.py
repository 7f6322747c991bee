"""Many heads at once: each is what torch's own optimizer makes of it alone, and none is chosen on what it saw."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from pixmim_eval.errors import InputError
from pixmim_eval.models.heads import features as stored
from pixmim_eval.models.heads.features import Features, standardise
from pixmim_eval.models.heads.sweep import LEARNING_RATES, Grid, Heads, hold_out, sweep_heads
from pixmim_eval.seeds import derive_seed, uniform

CPU = torch.device("cpu")


def make_views(
    count: int = 330, dim: int = 10, classes: int = 4, views: int = 2, noise: float = 0.7, seed: int = 0
) -> tuple[list[np.ndarray], np.ndarray]:
    """Noisy copies of the same features, and labels that a linear layer can tell most of."""
    generator = np.random.default_rng(seed)
    base, map_ = generator.normal(size=(count, dim)), generator.normal(size=(dim, classes))
    labels = (base @ map_ + generator.gumbel(size=(count, classes))).argmax(axis=1)
    copies = [base + noise * number * generator.normal(size=base.shape) for number in range(views)]
    return [(5 + 3 * copy).astype(np.float32) for copy in copies], labels


def open_views(views: list[np.ndarray], rows: np.ndarray | None = None) -> list[Features]:
    rows = np.arange(len(views[0])) if rows is None else rows
    return standardise([Features((view,), rows, CPU) for view in views])


def train_alone(
    views: list[np.ndarray], labels: np.ndarray, classes: int, rate: float, decay: float, grid: Grid, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """One head by torch.optim.SGD and autograd in float64."""
    pooled = np.concatenate(views).astype(np.float64)
    inputs = [torch.from_numpy((view - pooled.mean(axis=0)) / pooled.std(axis=0)) for view in views]
    layer = nn.Linear(views[0].shape[1], classes, dtype=torch.float64)
    nn.init.zeros_(layer.weight), nn.init.zeros_(layer.bias)
    groups = [{"params": [layer.weight], "weight_decay": decay}, {"params": [layer.bias], "weight_decay": 0.0}]
    optimizer, batch = torch.optim.SGD(groups, lr=rate, momentum=0.9), grid.choose_batch(len(labels))
    steps = grid.epochs * math.ceil(len(labels) / batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for epoch in range(grid.epochs):
        chance = uniform(derive_seed(seed, "sweep", epoch), torch.arange(len(labels)), 1, dtype=torch.float64)
        for part in chance[:, 0].argsort().split(batch):
            optimizer.zero_grad()
            cross_entropy(layer(inputs[epoch % len(views)][part]), torch.from_numpy(labels)[part]).backward()
            optimizer.step()
            schedule.step()
    return layer.weight.detach().numpy(), layer.bias.detach().numpy()


def test_every_head_of_a_sweep_is_what_torch_makes_of_it_alone() -> None:
    views, labels = make_views(views=3)
    grid = Grid((0.003, 0.1, 0.5), (0.0, 0.01), epochs=3, batch=64)
    heads = Heads.train(open_views(views), labels, 4, grid, seed=3)
    for place, (rate, decay) in enumerate(grid.pairs):
        weight, bias = train_alone(views, labels, 4, rate, decay, grid, seed=3)
        np.testing.assert_allclose(heads.weight[place], weight, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(heads.bias[place], bias, rtol=1e-4, atol=1e-5)


def test_scores_are_accuracy_and_cross_entropy() -> None:
    views, labels = make_views()
    (inputs, _), generator = open_views(views), torch.Generator().manual_seed(1)
    heads = Heads(torch.randn(3, 4, 10, generator=generator), torch.randn(3, 4, generator=generator))
    top1, losses = heads.score(inputs, labels)
    (exact,) = inputs.split(1000)
    for place in range(3):
        logits = exact.double() @ heads.weight[place].double().T + heads.bias[place].double()
        assert top1[place] == (logits.argmax(dim=1).numpy() == labels).mean()
        assert losses[place] == pytest.approx(cross_entropy(logits, torch.from_numpy(labels)).item(), rel=1e-6)


def test_a_head_that_diverges_is_never_chosen_and_leaves_the_others_alone() -> None:
    views, labels = make_views()
    good = Heads.train(open_views(views), labels, 4, Grid((0.1,), (0.0,), epochs=4), seed=0)
    both = Heads.train(open_views(views), labels, 4, Grid((1e30, 0.1), (1.0, 0.0), epochs=4), seed=0)
    assert not both.weight[0].isfinite().all()
    torch.testing.assert_close(both.weight[3], good.weight[0])
    top1, losses = both.score(open_views(views)[0], labels)
    assert (top1[0], losses[0]) == (0, math.inf)
    _, choice = sweep_heads(
        {"mean": [(view,) for view in views]}, labels, 4, index=np.arange(330), grid=Grid((1e30, 0.1), (1.0, 0.0))
    )
    assert choice.learning_rate == 0.1


def test_the_winner_is_the_best_on_the_held_out_part_and_is_trained_again_on_all() -> None:
    views, labels = make_views(noise=0.2)
    index, grid = np.arange(330), Grid((0.0001, 0.01, 0.1), (0.0, 0.1), epochs=6)
    head, choice = sweep_heads({"mean": [(view,) for view in views]}, labels, 4, index=index, grid=grid, seed=5)
    held_out = hold_out(labels, 4, index=index, seed=5)
    fitted, rest = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    training = open_views(views, fitted)
    heads = Heads.train(training, labels[fitted], 4, grid, seed=5)
    unseen = Features((views[0],), rest, CPU, training[0].mean, training[0].scale)
    top1, losses = heads.score(unseen, labels[rest])
    best = max(range(6), key=lambda place: (float(top1[place]), -float(losses[place])))
    assert (choice.learning_rate, choice.weight_decay) == grid.pairs[best]
    assert (choice.held_out_top1, choice.held_out_loss) == (float(top1[best]), float(losses[best]))
    assert choice.held_out == len(rest) == 33
    everything = open_views(views)
    again = Heads.train(everything, labels, 4, Grid(*((value,) for value in grid.pairs[best]), epochs=6), seed=5)
    torch.testing.assert_close(head.weight, again.weight[0])
    torch.testing.assert_close(head(torch.from_numpy(views[0])), again._apply(next(everything[0].split(400)))[:, 0])
    assert (head.pooling, head.l2, head.images) == ("mean", choice.weight_decay, 330)


def test_the_pooling_that_carries_the_labels_wins_and_arrays_may_stand_side_by_side() -> None:
    views, labels = make_views()
    useless = [np.random.default_rng(number).normal(size=view.shape) for number, view in enumerate(views)]
    candidates = {
        "cls": [(view,) for view in useless],
        "mean-last2": [(view, other) for view, other in zip(views, useless, strict=True)],
    }
    grid = Grid((0.01, 0.1), (0.0,), epochs=8)
    head, choice = sweep_heads(candidates, labels, 4, index=np.arange(330), grid=grid)
    assert choice.pooling == head.pooling == "mean-last2" and head.weight.shape == (4, 20)
    both = np.concatenate([views[0], useless[0]], axis=1, dtype=np.float32)
    assert (head(torch.from_numpy(both)).argmax(dim=1).numpy() == labels).mean() > 0.6


def test_each_class_gives_the_same_part_and_which_images_depends_on_seed_and_row_alone() -> None:
    labels = np.random.default_rng(0).integers(0, 5, 400)
    labels[:3] = 5  # of three images one is held out
    labels[3] = 6  # an only one never is
    index = np.arange(400) * 7
    chosen = hold_out(labels, 8, index=index, seed=1)
    counts = np.bincount(labels, minlength=8)
    expected = [round(0.1 * count) for count in counts[:5]] + [1, 0, 0]
    assert np.bincount(labels[chosen], minlength=8).tolist() == expected
    order = np.random.default_rng(1).permutation(400)
    assert np.array_equal(hold_out(labels[order], 8, index=index[order], seed=1), chosen[order])
    assert not np.array_equal(hold_out(labels, 8, index=index, seed=2), chosen)


def test_half_precision_features_on_disk_give_the_same_head_read_a_batch_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    views, labels = make_views()
    views = [view.astype(np.float16) for view in views]
    grid, index = Grid((0.01, 0.1), (0.0,), epochs=4), np.arange(330)
    expected, _ = sweep_heads({"mean": [(view,) for view in views]}, labels, 4, index=index, grid=grid)
    mapped = []
    for number, view in enumerate(views):
        np.save(tmp_path / f"{number}.npy", view)
        mapped.append((np.load(tmp_path / f"{number}.npy", mmap_mode="r"),))
    monkeypatch.setattr(stored, "_RESIDENT_BYTES", 0)
    read: list[int] = []
    plain = Features.read
    monkeypatch.setattr(Features, "read", lambda self, rows: read.append(len(rows)) or plain(self, rows))
    head, _ = sweep_heads({"mean": mapped}, labels, 4, index=index, grid=grid)
    torch.testing.assert_close(head.weight, expected.weight)
    assert read.count(32) >= 2 * 4 * 9  # batches, not everything


def test_the_scale_is_that_of_all_views_to_the_last_digit_of_float32() -> None:
    generator = np.random.default_rng(0)
    left = [generator.normal(3e4, 2.0, size=(9000, 3)).astype(np.float32) for _ in range(2)]
    right = [generator.normal(size=(9000, 2)).astype(np.float16) for _ in range(2)]
    right[0][:, 1] = right[1][:, 1] = 2.5
    rows = np.arange(0, 9000, 2)
    views = standardise([Features(pair, rows, CPU) for pair in zip(left, right, strict=True)])
    exact = np.concatenate([np.concatenate(pair, axis=1)[rows] for pair in zip(left, right, strict=True)])
    exact = exact.astype(np.float64)
    np.testing.assert_allclose(views[1].mean, exact.mean(axis=0), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(views[1].scale[:4], exact.std(axis=0)[:4], rtol=1e-6)  # type: ignore[index]
    assert views[0].scale is not None and views[0].scale[4] == 1
    read = torch.cat(list(views[0].split(1000))).numpy()
    deviation = np.where(exact.std(axis=0) > 0, exact.std(axis=0), 1)
    np.testing.assert_allclose(read, ((exact - exact.mean(axis=0)) / deviation)[:4500], atol=2e-3)


def test_thirteen_learning_rates_cover_four_decades_and_small_sets_take_small_steps() -> None:
    assert len(LEARNING_RATES) == 13 and (LEARNING_RATES[0], LEARNING_RATES[-1]) == (1e-3, 10.0)
    assert np.diff(np.log10(LEARNING_RATES)) == pytest.approx(1 / 3, abs=0.02)
    assert [Grid().choose_batch(images) for images in (10, 2000, 12_500, 10**6)] == [32, 62, 390, 1024]


@pytest.mark.parametrize(
    ("labels", "message"), [([0, -1, 1, 1], r"such as \[-1\]"), ([0, 4, 4], r"\[4, 4\]"), ([0, 1, 2], "one a class")]
)
def test_labels_that_nothing_can_be_held_out_of_are_refused(labels: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        hold_out(np.array(labels), 3, index=np.arange(len(labels)), seed=0)


def test_features_that_are_not_finite_are_refused() -> None:
    views, _ = make_views()
    views[1][7, 3] = np.inf
    with pytest.raises(InputError, match="1 of 10 features with NaN or infinite"):
        open_views(views)
