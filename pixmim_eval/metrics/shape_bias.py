"""Shape or texture: which of two cues in conflict an observer decides by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pixmim_eval.errors import InputError
from pixmim_eval.metrics.bootstrap import resample_totals
from pixmim_eval.metrics.intervals import CONFIDENCE, mean_interval
from pixmim_eval.types import Estimate

_RESAMPLES = 2000


def decide(logits: np.ndarray, members: Sequence[np.ndarray]) -> np.ndarray:
    """The category of the highest mean probability over its classes.

    Args:
        logits: [N, K]; the softmax goes over all K classes.
        members: for each of C categories, int64 [k], its classes; none makes a category that is never chosen.

    Returns:
        int64 [N] in 0…C-1; of equal categories the first.

    Source: Geirhos et al., NeurIPS 2018, appendix; texture-vs-shape's README recommends the mean over the sum and the
        maximum, which favour categories of many classes.
    Differs: of categories that are equal to the last bit, the public code takes the last.
    """
    shifted = np.asarray(logits, dtype=np.float64)
    probabilities = np.exp(shifted - shifted.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    means = [probabilities[:, found].mean(axis=1) if len(found) else np.full(len(shifted), -1.0) for found in members]
    return np.stack(means, axis=1).argmax(axis=1)


def find_conflicts(shapes: np.ndarray, textures: np.ndarray) -> np.ndarray:
    """bool [N]: whether an image's texture is of another category than its shape (a texture below 0 is none)."""
    return (textures >= 0) & (textures != shapes)


def measure_shape_bias(
    answers: np.ndarray, shapes: np.ndarray, textures: np.ndarray, categories: Sequence[str], *, seed: int = 0
) -> dict[str, Estimate]:
    """How an observer, or several taken together, decide where shape and texture are of different categories.

    Images without a conflict do not count. Intervals are percentiles over resampled images, each with the answers of
    all observers; where every resampled set gives the same number, intervals.mean_interval says what images not seen
    might change.

    Args:
        answers: int64 [N] of one observer or [O, N] of several, categories; -1 for none.
        shapes, textures: int64 [N], categories; texture -1 for none.
        categories: names of C categories.
        seed: of the resampling.

    Returns:
        "shape_bias", shape decisions as a fraction of shape and texture decisions, and "shape_bias/CATEGORY" of the
        images of that shape, both absent where there is no such decision; "accuracy_shape", "accuracy_texture" and
        "correct_fraction", decisions for the shape, the texture, and either, as fractions of all trials. n is the
        number of images with a conflict (of that shape).

    Raises:
        InputError: no image with a conflict, or arrays that do not fit together.

    Source: Geirhos et al., ICLR 2019, section 2 and figure 4; "people" pools all trials, as figures of model-vs-human.
    Differs: fractions are of the trials with a conflict; model-vs-human divides by those without one too.
    """
    answers = np.atleast_2d(answers)
    if shapes.shape != textures.shape or answers.shape[1:] != shapes.shape:
        raise _input_error("one answer, shape and texture an image", f"{answers.shape} and {shapes.shape}")
    conflict = find_conflicts(shapes, textures)
    if not conflict.any():
        raise _input_error("at least one image whose texture is of another category than its shape", "none")
    answers, shapes, textures = answers[:, conflict], shapes[conflict], textures[conflict]
    by_shape, by_texture = (answers == shapes).sum(axis=0), (answers == textures).sum(axis=0)
    either, trials = by_shape + by_texture, np.full(len(shapes), len(answers))
    found = {
        "shape_bias": _ratio(by_shape, either, seed),
        "accuracy_shape": _ratio(by_shape, trials, seed),
        "accuracy_texture": _ratio(by_texture, trials, seed),
        "correct_fraction": _ratio(either, trials, seed),
    }
    for place, name in enumerate(categories):
        of_shape = shapes == place
        found[f"shape_bias/{name}"] = _ratio(by_shape[of_shape], either[of_shape], seed)
    return {name: estimate for name, estimate in found.items() if estimate is not None}


def _ratio(numerators: np.ndarray, denominators: np.ndarray, seed: int) -> Estimate | None:
    """Sum over sum, with the percentile interval over images; None where there is nothing to divide by."""
    total = denominators.sum()
    if total == 0:
        return None
    value = float(numerators.sum() / total)
    sums = resample_totals(np.stack((numerators, denominators), axis=1), _RESAMPLES, np.random.default_rng(seed))
    ratios = sums[sums[:, 1] > 0, 0] / sums[sums[:, 1] > 0, 1]  # a set without any such decision says nothing
    if np.ptp(ratios) == 0:
        decided = denominators > 0
        same = mean_interval(numerators[decided] / denominators[decided])
        return Estimate(value, same.low, same.high, len(numerators))
    low, high = np.quantile(ratios, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(value, min(float(low), value), max(float(high), value), len(numerators))


def _input_error(expected: str, found: str) -> InputError:
    return InputError(
        "decisions on cue-conflict images",
        expected=expected,
        found=found,
        where="shape bias",
        fix="Use images of which shape and texture are known and differ.",
    )
