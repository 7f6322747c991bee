"""Nearest neighbours among features, and the vote of DINO's k-NN classifier. Neither set is ever read whole."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pixmim_eval.errors import InputError

TEMPERATURE = 0.07
TRAIN_CHUNK, QUERY_CHUNK = 8192, 512  # 32 MiB of similarities at a time, in double precision
_VOTE_CHUNK = 1024
_SMALLEST_NORM = 1e-12
# A similarity and its row in one integer, so that the largest integers are the nearest rows and, of equal similarities,
# the lowest. What rounding makes of one product in another chunk (some 1e-15) is far below the grid of similarities.
_GRID, _ROWS = 2**32, 2**30


@dataclass(frozen=True)
class Neighbours:
    """The k nearest training rows of M queries, nearest first.

    Args:
        rows: int64 [M, k].
        similarity: float64 [M, k], cosines in [-1, 1], to 2^-32.
    """

    rows: np.ndarray
    similarity: np.ndarray


def find_neighbours(
    train: np.ndarray,
    queries: np.ndarray,
    k: int,
    *,
    device: str = "cpu",
    train_chunk: int = TRAIN_CHUNK,
    query_chunk: int = QUERY_CHUNK,
) -> Neighbours:
    """The training rows whose features have the largest cosine with those of each query.

    Of rows as near as each other, to 2^-32, the lower one comes first. Products are summed in double precision, whose
    errors are far below that, so that the order is the same with any chunks and on any device.

    Args:
        train: [N, D] of any floating type; may be memory-mapped, as chunks of it are read once, in order.
        queries: [M, D], likewise; read once for each chunk of train.
        k: 1…N.
        device: "cpu" or "cuda".
        train_chunk, query_chunk: rows at a time; they change no result.

    Raises:
        InputError: k outside 1…N, or features that are not finite.
    """
    check_vote(k, len(train))
    best = torch.full((len(queries), k), -(2**63), device=device)
    with torch.inference_mode():
        for start, chunk in _read_chunks(train, train_chunk, device):
            places = torch.arange(_ROWS - 1 - start, _ROWS - 1 - start - len(chunk), -1, device=device)
            for first, part in _read_chunks(queries, query_chunk, device):
                similarity = part.mul_(_GRID) @ chunk.T
                keys = places.add(similarity.round_().long(), alpha=_ROWS)
                kept = best[first : first + len(part)]
                near = keys.topk(min(k, len(chunk)), dim=1).values
                kept.copy_(torch.cat((kept, near), dim=1).topk(k, dim=1).values)
    found = best.cpu().numpy()
    return Neighbours(rows=_ROWS - 1 - found % _ROWS, similarity=(found // _ROWS) / _GRID)


def vote(
    neighbours: Neighbours, labels: np.ndarray, k: int, *, classes: int, temperature: float = TEMPERATURE
) -> np.ndarray:
    """The class of each query: that of the largest sum of exp(cosine / temperature) over its k nearest rows.

    Args:
        neighbours: at least k of each query.
        labels: int64 [N] of the training rows, in [0, classes).
        k: how many vote.
        classes: number of classes.
        temperature: above 0.

    Returns:
        int64 [M]; of classes with equal sums the lowest.

    Raises:
        InputError: k outside what is there, or a temperature that is not above 0.

    Source: Wu et al., CVPR 2018, section 3.4; Caron et al., arXiv 2104.14294, appendix F.1 and `eval_knn.py`.
    Differs: weights are relative to the nearest row's, which changes no order of classes and cannot overflow.
    """
    check_vote(k, neighbours.rows.shape[1], temperature)
    answers = [np.zeros(0, dtype=np.int64)]
    for start in range(0, len(neighbours.rows), _VOTE_CHUNK):
        rows = neighbours.rows[start : start + _VOTE_CHUNK, :k]
        similarity = neighbours.similarity[start : start + _VOTE_CHUNK, :k]
        weights = np.exp((similarity - similarity[:, :1]) / temperature)
        cells = np.arange(len(rows))[:, None] * classes + labels[rows]
        sums = np.bincount(cells.ravel(), weights.ravel(), minlength=len(rows) * classes)
        answers.append(sums.reshape(len(rows), classes).argmax(axis=1))
    return np.concatenate(answers)


def check_vote(k: int, found: int, temperature: float = TEMPERATURE) -> None:
    """Raises InputError where k of `found` training images cannot be taken, or the temperature is not above 0."""
    if not 1 <= k <= found < _ROWS:
        raise InputError(
            "number of neighbours",
            expected=f"1 to {min(found, _ROWS - 1)}, as many as there are training images",
            found=str(k),
            where="--k",
            fix="Give smaller numbers, e.g. --k 1 5, or more training images (a larger --limit).",
        )
    if not 0 < temperature < math.inf:
        raise InputError(
            "temperature of k-NN",
            expected="a number above 0",
            found=f"{temperature:g}",
            where="--temperature",
            fix=f"The published one is {TEMPERATURE}.",
        )


def _read_chunks(features: np.ndarray, count: int, device: str) -> Iterator[tuple[int, Tensor]]:
    """(first row, float64 [count, D] of length 1) in order. Raises InputError where they are not finite."""
    for start in range(0, len(features), count):
        chunk = torch.from_numpy(np.array(features[start : start + count])).to(device).double()
        if not chunk.isfinite().all():
            raise InputError(
                "features for k-NN",
                expected="finite numbers",
                found=f"{int((~chunk.isfinite()).sum())} that are not",
                where=f"rows {start} to {start + len(chunk) - 1}",
                fix="Look at the model's weights and at the images of these rows.",
            )
        yield start, chunk / chunk.norm(dim=1, keepdim=True).clamp(min=_SMALLEST_NORM)
