"""k-NN: equal to scikit-learn and to the definition written out, in chunks of any size."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from pixmim_eval.errors import InputError
from pixmim_eval.models.neighbours import Neighbours, find_neighbours, vote

CLASSES = 7


def make_features(count: int, seed: int, dim: int = 24, dtype: type = np.float32) -> tuple[np.ndarray, np.ndarray]:
    """Features of overlapping classes, of very different lengths, and their labels."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, CLASSES, count)
    centres = np.random.default_rng(99).normal(size=(CLASSES, dim))
    features = (centres[labels] + 2 * generator.normal(size=(count, dim))) * generator.uniform(0.1, 10, (count, 1))
    return features.astype(dtype), labels


def answer_by_definition(
    train: np.ndarray, labels: np.ndarray, query: np.ndarray, k: int, temperature: float
) -> tuple[list[int], int]:
    """The k nearest rows and the class, for one query, one product at a time."""

    def cosine(row: np.ndarray) -> float:
        dot = math.fsum(float(a) * float(b) for a, b in zip(row, query, strict=True))
        return dot / math.sqrt(math.fsum(float(a) ** 2 for a in row) * math.fsum(float(b) ** 2 for b in query))

    similarity = [cosine(row) for row in train]
    nearest = sorted(range(len(train)), key=lambda row: (-similarity[row], row))[:k]
    sums = [0.0] * CLASSES
    for row in nearest:
        sums[labels[row]] += math.exp(similarity[row] / temperature)
    return nearest, sums.index(max(sums))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("k", [1, 10, 20, 100, 200])
def test_answers_are_those_of_scikit_learn(k: int, dtype: type) -> None:
    (train, labels), (queries, _) = make_features(700, 0, dtype=dtype), make_features(300, 1, dtype=dtype)
    weigh: Callable[[np.ndarray], np.ndarray] = lambda distance: np.exp((1 - distance) / 0.07)  # noqa: E731
    peer = KNeighborsClassifier(k, weights=weigh, metric="cosine", algorithm="brute")
    expected = peer.fit(train.astype(np.float64), labels).predict(queries.astype(np.float64))
    found = vote(find_neighbours(train, queries, k), labels, k, classes=CLASSES)
    assert np.array_equal(found, expected)
    assert k > 1 or len(set(found)) == CLASSES


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_neighbours_and_answers_are_those_of_the_definition(temperature: float) -> None:
    (train, labels), (queries, _) = make_features(150, 2), make_features(40, 3)
    neighbours = find_neighbours(train, queries, 20)
    answers = vote(neighbours, labels, 20, classes=CLASSES, temperature=temperature)
    for query, rows, answer in zip(queries, neighbours.rows, answers, strict=True):
        assert (rows.tolist(), answer) == answer_by_definition(train, labels, query, 20, temperature)


def test_similarities_are_cosines() -> None:
    (train, _), (queries, _) = make_features(50, 4), make_features(5, 5)
    neighbours = find_neighbours(train, queries, 50)
    unit = [
        values.astype(np.float64) / np.linalg.norm(values.astype(np.float64), axis=1)[:, None]
        for values in (queries, train)
    ]
    expected = np.take_along_axis(unit[0] @ unit[1].T, neighbours.rows, axis=1)
    assert np.abs(neighbours.similarity - expected).max() <= 2.0**-33 + 1e-15
    assert (np.diff(neighbours.similarity) <= 0).all()


def test_fewer_neighbours_are_the_first_of_more() -> None:
    (train, labels), (queries, _) = make_features(400, 6), make_features(60, 7)
    many, few = find_neighbours(train, queries, 100), find_neighbours(train, queries, 10)
    assert np.array_equal(many.rows[:, :10], few.rows)
    assert np.array_equal(vote(many, labels, 10, classes=CLASSES), vote(few, labels, 10, classes=CLASSES))


@pytest.mark.parametrize(("train_chunk", "query_chunk"), [(1, 50), (7, 3), (64, 100), (333, 1000)])
def test_chunks_change_nothing_not_even_among_equal_rows(train_chunk: int, query_chunk: int) -> None:
    (train, _), (queries, _) = make_features(80, 8, dim=193), make_features(50, 9, dim=193)
    train = np.tile(train, (4, 1))  # every row four times, in other chunks
    whole = find_neighbours(train, queries, 30)
    parts = find_neighbours(train, queries, 30, train_chunk=train_chunk, query_chunk=query_chunk)
    assert np.array_equal(parts.rows, whole.rows) and np.array_equal(parts.similarity, whole.similarity)
    assert (np.diff(whole.rows[:, :4]) == 80).all()  # the lowest copy first


def test_of_features_that_are_all_alike_the_first_rows_are_taken() -> None:
    neighbours = find_neighbours(np.full((100, 5), 0.3), np.full((3, 5), 7.0), 10, train_chunk=9)
    assert np.array_equal(neighbours.rows, np.tile(np.arange(10), (3, 1)))
    assert np.allclose(neighbours.similarity, 1)


def test_a_feature_of_zeros_is_as_far_from_all_rows() -> None:
    train, _ = make_features(20, 10)
    neighbours = find_neighbours(train, np.zeros((1, 24)), 5)
    assert neighbours.rows.tolist() == [[0, 1, 2, 3, 4]] and not neighbours.similarity.any()


def test_files_are_read_a_chunk_at_a_time(tmp_path: Path) -> None:
    """1.28 million rows must not come into memory at once."""
    asked: list[int] = []

    class Watched(np.memmap):
        def __getitem__(self, place: slice) -> np.ndarray:  # type: ignore[override]
            asked.append(len(range(*place.indices(len(self)))))
            return super().__getitem__(place).view(np.ndarray)

        def __array__(self, *_: object, **__: object) -> np.ndarray:
            raise AssertionError("read whole")

    (train, _), (queries, _) = make_features(500, 11), make_features(90, 12)
    np.save(tmp_path / "train.npy", train.astype(np.float16))
    mapped = np.load(tmp_path / "train.npy", mmap_mode="r").view(Watched)
    found = find_neighbours(mapped, queries, 5, train_chunk=64, query_chunk=32)
    assert max(asked) == 64 and sum(asked) == 500  # once each
    assert np.array_equal(found.rows, find_neighbours(train.astype(np.float16), queries, 5).rows)


def test_classes_of_equal_weight_give_the_lowest_and_no_weight_overflows() -> None:
    neighbours = Neighbours(np.array([[0, 1, 2, 3]]), np.array([[0.9, 0.9, 0.2, 0.2]]))
    labels = np.array([5, 3, 5, 3])
    assert vote(neighbours, labels, 4, classes=6).tolist() == [3]
    assert vote(neighbours, labels, 1, classes=6).tolist() == [5]
    assert vote(neighbours, np.array([5, 3, 3, 3]), 4, classes=6, temperature=1e-4).tolist() == [3]


@pytest.mark.parametrize("k", [0, 21])
def test_more_neighbours_than_rows_are_refused(k: int) -> None:
    train, _ = make_features(20, 13)
    with pytest.raises(InputError, match="expected 1 to 20"):
        find_neighbours(train, train, k)


def test_features_that_are_not_finite_and_temperatures_that_are_none_are_refused() -> None:
    train, labels = make_features(20, 14)
    neighbours = find_neighbours(train, train, 3)
    with pytest.raises(InputError, match="above 0"):
        vote(neighbours, labels, 3, classes=CLASSES, temperature=0.0)
    train[7, 2] = np.nan
    with pytest.raises(InputError, match="1 that are not"):
        find_neighbours(train, train, 3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_finds_the_same_neighbours() -> None:
    (train, _), (queries, _) = make_features(5000, 15, dim=96), make_features(200, 16, dim=96)
    cpu, gpu = (find_neighbours(train, queries, 200, device=device) for device in ("cpu", "cuda"))
    assert np.array_equal(cpu.rows, gpu.rows)
