"""Patch tokens of training images, with the classes of their pixels: what heads on frozen tokens learn from."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pixmim_eval.data.segmentation import IGNORED, SegmentationSet
from pixmim_eval.data.transforms import normalize
from pixmim_eval.errors import InputError
from pixmim_eval.extract import digest_code, identify_model, select_rows
from pixmim_eval.extract.store import Shape, load_entry
from pixmim_eval.results import hash_parts
from pixmim_eval.seeds import derive_seed, uniform
from pixmim_eval.transfer.segmentation.examples import Example, map_examples, mark_row, read_examples, shrink_labels
from pixmim_eval.transfer.segmentation.windows import Geometry, list_windows
from pixmim_eval.types import Batch, Model, SuiteConfig

VERSION = 1  # raised with every change of what a bank holds


@dataclass(frozen=True)
class TokenBank:
    """Patch tokens of training images, with the classes of their pixels.

    Args:
        tokens: float32 [M, D].
        shares: float32 [M, K], the part of each patch's labelled pixels that each class has; rows sum to one.
        image: int64 [M], row of the image.
        key: 16 hex digits of all that they depend on.
        skipped: images that could not be read.
    """

    tokens: np.ndarray
    shares: np.ndarray
    image: np.ndarray
    key: str
    skipped: int


def gather_tokens(
    model: Model, data: SegmentationSet, geometry: Geometry, config: SuiteConfig, *, count: int
) -> TokenBank:
    """About `count` patch tokens after the final norm, as many of each training image, chosen at random.

    Args:
        model: only its encoder is used, frozen.
        data: training images; config.limit picks from them.
        geometry: whose windows patches come from, side by side.
        config: of the run; which patches are chosen depends on the seed and the image alone.
        count: tokens wanted. Where there are more images, one is taken of each of `count` images.

    Raises:
        InputError: no tokens are wanted, an image cannot be read, or no patch has a labelled pixel.
        FloatingPointError: tokens are not finite.
    """
    if count < 1:
        raise InputError("tokens of a bank", expected="at least 1", found=str(count), where="--bank", fix="Raise it.")
    rows = select_rows(data.manifest, config.limit)
    rows = rows if len(rows) <= count else rows[np.linspace(0, len(rows) - 1, count).round().astype(np.int64)]
    work = TokenPass(model, data, rows, geometry, config, math.ceil(count / len(rows)))
    entry = load_entry(work)
    shares = entry.arrays["shares"].reshape(-1, len(data.classes))
    known = shares.sum(axis=1) > 0
    if not known.any():
        raise InputError(
            "training masks",
            expected="patches with labelled pixels",
            found=f"none in {len(rows)} images",
            where=f"{data.name}, role train",
            fix="Check the values of the masks, or raise --limit.",
        )
    tokens = entry.arrays["tokens"].reshape(len(shares), -1)[known]
    images = np.repeat(rows, work.tokens_per_image)[known]
    return TokenBank(tokens, shares[known], images, work.key, int((~entry.table["present"]).sum()))


@dataclass(frozen=True)
class TokenPass:
    """One pass of training images through an encoder: some patch tokens of each (see extract.store).

    Args:
        model, data, rows, geometry, config: as gather_tokens.
        tokens_per_image: what is kept of an image; lines of zeros where it has fewer patches with labelled pixels.
    """

    model: Model
    data: SegmentationSet
    rows: np.ndarray
    geometry: Geometry
    config: SuiteConfig
    tokens_per_image: int
    kind = "tokens"

    @property
    def key(self) -> str:
        """See Pass."""
        bare = identify_model(replace(self.model, classify=None, label_space=None))
        rows = hashlib.blake2b(self.rows.tobytes(), digest_size=8).hexdigest()
        config = self.config
        of_run = (config.seed, config.on_bad_image, torch.device(config.device).type, digest_code())
        data = (self.data.digest, self.data.classes, rows)
        return hash_parts("tokens", VERSION, bare, *data, self.geometry.name, self.tokens_per_image, *of_run)

    @property
    def description(self) -> str:
        """See Pass."""
        return f"{self.model.name}: tokens of {self.data.name}"

    def shapes(self) -> dict[str, Shape]:
        """See Pass."""
        kind, count = np.dtype(np.float32), self.tokens_per_image
        return {"tokens": ((count, self.model.encoder.dim), kind), "shares": ((count, len(self.data.classes)), kind)}

    def prepare(self) -> None:
        """Nothing: the data set is there."""

    def run(self, rows: np.ndarray) -> Iterator[tuple[Batch, dict[str, np.ndarray]]]:
        """One image at a time, so that no number depends on the others."""
        examples = read_examples(self.data, rows, self.geometry, self.config)
        for example, (tokens, shares) in map_examples(self._take, examples, torch.device(self.config.device)):
            yield mark_row(example.row), {"tokens": tokens[None], "shares": shares[None]}

    def _take(self, example: Example) -> tuple[np.ndarray, np.ndarray]:
        tokens, shares = self._list_patches(example)
        labelled = np.flatnonzero(shares.sum(axis=1) > 0)
        seed = derive_seed(self.config.seed, "patches")
        order = uniform(seed, torch.tensor([example.row]), len(shares))[0].numpy()[labelled].argsort(kind="stable")
        chosen = np.sort(labelled[order[: self.tokens_per_image]])
        missing = ((0, self.tokens_per_image - len(chosen)), (0, 0))
        return np.pad(tokens[chosen], missing), np.pad(shares[chosen], missing)

    def _list_patches(self, example: Example) -> tuple[np.ndarray, np.ndarray]:
        """Tokens [n, D] of every patch of every window, and the shares [n, K] of the classes."""
        device, preprocessing = torch.device(self.config.device), self.model.preprocessing
        image, classes = example.image, len(self.data.classes)
        labels = torch.from_numpy(shrink_labels(example.labels, (image.shape[1], image.shape[2])))
        crop = self.geometry.crop or 0
        tokens, shares = [], []
        for top, left in list_windows(image.shape[1], image.shape[2], crop, crop):
            window = image[None, :, top : top + crop, left : left + crop].to(device)
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                found = self.model.encoder.tokens(normalize(window, preprocessing.mean, preprocessing.std))
            tokens.append(found.patches[0].float().cpu())
            shares.append(share_patches(labels[top : top + crop, left : left + crop], found.grid, classes))
        together = torch.cat(tokens)
        if not torch.isfinite(together).all():
            key = self.data.manifest.keys[example.row]
            raise FloatingPointError(f"patch tokens of model {self.model.name} are not finite in {key}")
        return together.numpy(), torch.cat(shares).numpy()


def share_patches(labels: Tensor, grid: tuple[int, int], classes: int) -> Tensor:
    """The part of each patch's labelled pixels that each class has.

    Args:
        labels: uint8 [H, W], sides multiples of the grid's; IGNORED where there is no class.
        grid: patches (down, across).
        classes: K.

    Returns:
        float32 [patches, K], patches row by row; zeros where no pixel is labelled.
    """
    down, across = grid
    patches = labels.unflatten(0, (down, -1)).unflatten(2, (across, -1)).permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
    patches = patches.long().where(patches != IGNORED, classes)
    counts = torch.zeros(len(patches), classes + 1).scatter_add_(1, patches, torch.ones(patches.shape))[:, :classes]
    return counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
