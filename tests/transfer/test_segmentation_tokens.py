"""Heads on frozen patch tokens equal their definitions, written out plainly, and scikit-learn's optimum."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from torch.nn import functional as F

from pixmim_eval.data.segmentation import IGNORED
from pixmim_eval.errors import InputError
from pixmim_eval.seeds import derive_seed, uniform
from pixmim_eval.transfer.segmentation.token_heads import LinearTokens, NearestTokens, fit_tokens, load_linear_head
from pixmim_eval.transfer.segmentation.tokens import TokenBank, gather_tokens, share_patches
from pixmim_eval.transfer.segmentation.windows import Geometry
from pixmim_eval.types import SuiteConfig
from tests.fakes import make_model
from tests.transfer.pixels import make_set

GEOMETRY = Geometry(16, 16, 10, "bicubic", 8)
MODEL = make_model(space=None, cls=False)


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PIXMIM_CACHE", str(tmp_path / "cache"))
    yield


def make_config(**changes: object) -> SuiteConfig:
    return SuiteConfig(**{"data": {}, "workers": 0, **changes})  # type: ignore[arg-type]


def make_bank(count: int = 200, seed: int = 0) -> TokenBank:
    random = np.random.default_rng(seed)
    tokens = random.normal(size=(count, 12)).astype(np.float32)
    shares = random.dirichlet(np.ones(4) * 0.3, count).astype(np.float32)
    tokens[:, :4] += 2 * shares
    return TokenBank(tokens, shares, np.repeat(np.arange(count // 4), 4), f"{seed:016x}", 0)


def test_shares_are_of_the_labelled_pixels_of_each_patch() -> None:
    random = np.random.default_rng(0)
    labels = random.choice([0, 1, 2, IGNORED], (12, 8)).astype(np.uint8)
    labels[:4, :4] = IGNORED
    found = share_patches(torch.from_numpy(labels), (3, 2), 3)
    for row in range(3):
        for column in range(2):
            patch = labels[4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
            known = patch[patch != IGNORED]
            wanted = [np.mean(known == label) if len(known) else 0 for label in range(3)]
            np.testing.assert_allclose(found[2 * row + column], wanted, atol=1e-7)


def test_a_bank_holds_tokens_of_patches_with_what_they_show() -> None:
    data = make_set(6, height=16, width=16)
    bank = gather_tokens(MODEL, data, GEOMETRY, make_config(), count=24)
    assert bank.tokens.shape == (24, 12)  # all four patches of each image
    for row in range(6):
        image = torch.from_numpy(data.manifest.source.read([row])[0]).permute(2, 0, 1)[None] / 255
        mean, std = (
            torch.tensor(values)[:, None, None] for values in (MODEL.preprocessing.mean, MODEL.preprocessing.std)
        )
        tokens = MODEL.encoder.tokens((image - mean) / std).patches[0].detach()
        np.testing.assert_allclose(bank.tokens[bank.image == row], tokens, atol=1e-5)
        shares = share_patches(torch.from_numpy(data.labels.read([row])[0]), (2, 2), 3)
        np.testing.assert_allclose(bank.shares[bank.image == row], shares, atol=1e-7)


def test_patches_are_drawn_by_seed_and_image_alone() -> None:
    data = make_set(9, height=24, width=40)
    few = gather_tokens(MODEL, data, GEOMETRY, make_config(), count=18)
    other = gather_tokens(MODEL, data, GEOMETRY, make_config(workers=1, batch_size=1, limit=None), count=18)
    np.testing.assert_array_equal(few.tokens, other.tokens)
    assert np.bincount(few.image).tolist() == [2] * 9
    seeded = gather_tokens(MODEL, data, GEOMETRY, make_config(seed=1), count=18)
    assert (few.tokens != seeded.tokens).any()
    assert len(gather_tokens(MODEL, data, GEOMETRY, make_config(), count=5).tokens) == 5  # one of each of five images


def test_patches_without_a_labelled_pixel_are_left_out() -> None:
    data = make_set(4, height=16, width=16, hidden=True)  # the first patch of every image
    assert len(gather_tokens(MODEL, data, GEOMETRY, make_config(), count=16).tokens) == 12


def test_scores_are_the_weighted_labels_of_the_nearest_tokens() -> None:
    bank, k, temperature = make_bank(), 7, 0.05
    nearest = NearestTokens(MODEL.encoder, bank, k, temperature, "cpu")
    torch.manual_seed(0)
    images = torch.randn(2, 3, 16, 16)
    tokens = MODEL.encoder.tokens(images).patches.detach().double().numpy()
    patches = np.zeros((2, 4, 4))
    for image in range(2):
        for patch in range(4):
            token = tokens[image, patch]
            cosines = [
                float(token @ known / np.linalg.norm(token) / np.linalg.norm(known))
                for known in bank.tokens.astype(float)
            ]
            order = np.argsort(cosines)[::-1][:k]
            weights = np.exp(np.array(cosines)[order] / temperature)
            patches[image, patch] = (weights / weights.sum()) @ bank.shares[order]
    maps = torch.from_numpy(patches).unflatten(1, (2, 2)).permute(0, 3, 1, 2).float()
    wanted = F.interpolate(maps, size=(16, 16), mode="bilinear", align_corners=False)
    torch.testing.assert_close(nearest(images), wanted, rtol=1e-5, atol=1e-6)


def test_linear_scores_are_logits_of_tokens_between_patches() -> None:
    head = fit_tokens(make_bank(), seed=0)
    images = torch.randn(2, 3, 16, 16)
    tokens = MODEL.encoder.tokens(images).patches.detach()
    logits = torch.stack(
        [(token - head.mean) / head.scale @ head.weight.T + head.bias for token in tokens.flatten(0, 1)]
    )
    maps = logits.reshape(2, 2, 2, 4).permute(0, 3, 1, 2)
    wanted = F.interpolate(maps, size=(16, 16), mode="bilinear", align_corners=False)
    torch.testing.assert_close(LinearTokens(MODEL.encoder, head)(images).detach(), wanted, rtol=1e-4, atol=1e-5)


def test_the_linear_head_is_scikit_learns_optimum() -> None:
    bank = make_bank()
    head = fit_tokens(bank, seed=0)
    features = (bank.tokens - head.mean.numpy()) / head.scale.numpy()
    labels = bank.shares.argmax(axis=1)
    other = LogisticRegression(C=1 / (head.l2 * len(labels)), max_iter=5000, tol=1e-10).fit(features, labels)
    logits = torch.from_numpy(features) @ head.weight.T + head.bias
    found = float(F.cross_entropy(logits, torch.from_numpy(labels))) + head.l2 / 2 * float(head.weight.square().sum())
    wanted = log_loss(labels, other.predict_proba(features)) + head.l2 / 2 * float((other.coef_**2).sum())
    assert found == pytest.approx(wanted, rel=1e-4)


def test_the_penalty_is_chosen_on_whole_images_that_are_held_out() -> None:
    bank = make_bank(80)
    head = fit_tokens(bank, seed=3)
    order = uniform(derive_seed(3, "held-out"), torch.arange(20), 1)[:, 0].argsort().numpy()
    out = np.isin(bank.image, order[:4])
    mean, scale = bank.tokens[~out].mean(axis=0), bank.tokens[~out].std(axis=0)
    features, labels = (bank.tokens - mean) / scale, bank.shares.argmax(axis=1)
    losses = {}
    for l2 in (1.0, 0.1, 0.01, 0.001, 0.0001):
        fitted = LogisticRegression(C=1 / (l2 * (~out).sum()), max_iter=5000, tol=1e-9).fit(
            features[~out], labels[~out]
        )
        losses[l2] = log_loss(labels[out], fitted.predict_proba(features[out]), labels=fitted.classes_)
    assert head.l2 == min(losses, key=lambda l2: losses[l2])
    assert head.held_out_loss == pytest.approx(min(losses.values()), rel=1e-3)


def test_a_head_is_kept_by_content() -> None:
    bank, config = make_bank(), make_config()
    assert (
        load_linear_head(bank, config).digest
        == load_linear_head(bank, config).digest
        == fit_tokens(bank, seed=0).digest
    )


def test_what_cannot_be_done_is_an_error() -> None:
    with pytest.raises(InputError, match="k from 1 to 200"):
        NearestTokens(MODEL.encoder, make_bank(), 201, 0.02, "cpu")
    with pytest.raises(InputError, match="temperature above 0"):
        NearestTokens(MODEL.encoder, make_bank(), 5, 0.0, "cpu")
    with pytest.raises(InputError, match="at least two images"):
        fit_tokens(make_bank(4), seed=0)
    with pytest.raises(InputError, match="--bank"):
        gather_tokens(MODEL, make_set(3), GEOMETRY, make_config(), count=0)


def test_tokens_that_are_not_finite_are_named() -> None:
    model = make_model(space=None, cls=False)
    model.encoder.embed.bias.data[3] = float("nan")
    with pytest.raises(FloatingPointError, match="tiny are not finite in image-0"):
        gather_tokens(model, make_set(3, height=16, width=16), GEOMETRY, make_config(), count=9)
