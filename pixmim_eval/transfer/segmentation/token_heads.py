"""Two heads on frozen patch tokens: the labels of the nearest ones, and one linear layer. Nothing else is trained."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from pixmim_eval.errors import InputError
from pixmim_eval.extract import cache_dir, process_rank, share, wait_for_all
from pixmim_eval.files import write_atomic
from pixmim_eval.models.heads import L2_GRID, LinearHead, minimise_loss
from pixmim_eval.models.heads.logistic import HELD_OUT, measure_loss
from pixmim_eval.results import hash_parts
from pixmim_eval.seeds import derive_seed, uniform
from pixmim_eval.transfer.segmentation.heads import resize_maps
from pixmim_eval.transfer.segmentation.tokens import TokenBank
from pixmim_eval.types import Encoder, SuiteConfig

VERSION = 1  # raised with every change of what a linear head becomes
_QUERIES_AT_ONCE = 512


class NearestTokens:
    """Scores by the labels of the nearest training tokens; see windows.Scorer.

    The scores of a patch are the shares of its k nearest tokens by cosine, weighted by softmax(cosine / temperature),
    and are interpolated between patches.

    Args:
        encoder: whose tokens are looked up.
        bank: of training tokens of the same encoder.
        k: how many tokens, at most as many as there are.
        temperature: above 0.
        device: where to work.

    Raises:
        InputError: k or temperature out of range.

    Source: Balazevic et al., "Towards in-context scene understanding", NeurIPS 2023 (arXiv 2306.01667), section 3:
        k = 30, temperature 0.02. Differs: the bank has as many tokens of each image, drawn at random, not more of
        images with more classes.
    """

    def __init__(self, encoder: Encoder, bank: TokenBank, k: int, temperature: float, device: str) -> None:
        if not 1 <= k <= len(bank.tokens) or not 0 < temperature < math.inf:
            raise InputError(
                "nearest patch tokens",
                expected=f"k from 1 to {len(bank.tokens)}, as many as the bank has, and a temperature above 0",
                found=f"k = {k}, temperature {temperature:g}",
                where="--k, --temperature",
                fix="Lower --k, or raise --bank.",
            )
        self.encoder, self.k, self.temperature = encoder, k, temperature
        self.bank = _scale(torch.from_numpy(np.array(bank.tokens)).to(device).double())
        self.shares = torch.from_numpy(np.array(bank.shares)).to(device).double()

    def __call__(self, images: Tensor) -> Tensor:
        tokens = self.encoder.tokens(images)
        with torch.autocast(images.device.type, enabled=False):
            parts = tokens.patches.flatten(0, 1).double().split(_QUERIES_AT_ONCE)
            scores = torch.cat([self._look_up(part) for part in parts]).float()
        return spread_scores(scores, len(images), tokens.grid, images.shape[2:])

    def _look_up(self, queries: Tensor) -> Tensor:
        near = (_scale(queries) @ self.bank.T).topk(self.k, dim=1)
        weights = (near.values / self.temperature).softmax(dim=1)
        return torch.einsum("nk,nkc->nc", weights, self.shares[near.indices])


class LinearTokens:
    """Scores by one linear layer on every patch token, interpolated between patches; see windows.Scorer.

    Args:
        encoder: whose tokens are classified.
        head: fitted on tokens of the same encoder, on its device.
    """

    def __init__(self, encoder: Encoder, head: LinearHead) -> None:
        self.encoder, self.head = encoder, head

    def __call__(self, images: Tensor) -> Tensor:
        tokens = self.encoder.tokens(images)
        return spread_scores(self.head(tokens.patches.flatten(0, 1)), len(images), tokens.grid, images.shape[2:])


def spread_scores(scores: Tensor, count: int, grid: tuple[int, int], shape: torch.Size) -> Tensor:
    """Scores [B * patches, K] of patches as maps [B, K, H, W], bilinear."""
    maps = scores.unflatten(0, (count, *grid)).permute(0, 3, 1, 2)
    return resize_maps(maps, shape)


def _scale(tokens: Tensor) -> Tensor:
    return tokens / tokens.norm(dim=1, keepdim=True).clamp(min=1e-12)


def load_linear_head(bank: TokenBank, config: SuiteConfig) -> LinearHead:
    """The head of `fit_tokens`, fitted by the first process and kept in the cache, on the run's device."""
    key = hash_parts("linear-tokens", VERSION, bank.key)
    file = cache_dir() / "heads" / f"{key}.npz"
    if not share(file.exists()):
        if process_rank()[0] == 0:
            write_atomic(file, fit_tokens(bank, seed=config.seed, device=config.device).to_bytes())
        wait_for_all()
    return LinearHead.from_bytes(file.read_bytes()).to(config.device)


def fit_tokens(bank: TokenBank, *, seed: int, device: str = "cpu") -> LinearHead:
    """Logistic regression from patch tokens to the class that most of a patch's pixels have.

    Minimises mean cross-entropy + l2 / 2 · ‖W‖² on standardised tokens. From the strongest penalty on, the next weaker
    one is taken as long as it lowers the cross-entropy of the tokens of a held-out fifth of the images; then all are
    fitted. No scored image is ever looked at.

    Raises:
        InputError: tokens of fewer than two images.
    """
    images = np.unique(bank.image)
    if len(images) < 2:
        raise InputError(
            "training set of a linear head",
            expected="tokens of at least two images",
            found=f"of {len(images)}",
            where="role train",
            fix="Give more training images, or raise --limit.",
        )
    order = uniform(derive_seed(seed, "held-out"), torch.from_numpy(images), 1)[:, 0].argsort().numpy()
    held_out = np.isin(bank.image, images[order[: max(1, round(HELD_OUT * len(images)))]])
    tokens = torch.from_numpy(np.array(bank.tokens)).to(device)
    labels, classes = torch.from_numpy(bank.shares.argmax(axis=1)).to(device), bank.shares.shape[1]
    fitted, rest = (torch.from_numpy(mask).to(device) for mask in (~held_out, held_out))
    mean, scale = _measure_spread(tokens[fitted])
    inputs, others = (tokens[fitted] - mean) / scale, (tokens[rest] - mean) / scale
    solution = best = torch.zeros(classes, tokens.shape[1] + 1, device=device)
    best_loss, best_l2 = math.inf, math.nan
    for l2 in sorted(L2_GRID, reverse=True):  # each solution is a good start for the next weaker penalty
        solution = minimise_loss(inputs, labels[fitted], l2, start=solution)
        loss = measure_loss(solution, others, labels[rest])
        if not loss < best_loss:
            break
        best_loss, best_l2, best = loss, l2, solution
    mean, scale = _measure_spread(tokens)
    solution = minimise_loss((tokens - mean) / scale, labels, best_l2, start=best).cpu()
    return LinearHead(
        weight=solution[:, :-1].contiguous(),
        bias=solution[:, -1].contiguous(),
        mean=mean.cpu(),
        scale=scale.cpu(),
        pooling="patches",
        l2=best_l2,
        images=len(images),
        held_out_loss=best_loss,
    )


def _measure_spread(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each feature, float32 [D]; 1 for one that is constant."""
    mean, deviation = tokens.double().mean(dim=0), tokens.double().std(dim=0, correction=0)
    scale = torch.where(deviation > 1e-6 * mean.abs().clamp(min=1e-6), deviation, 1.0)
    return mean.float(), scale.float()
