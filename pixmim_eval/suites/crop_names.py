"""Crops by name: "rrc-0.2", "src", "cc-256-224", or a torchvision transform by its import path."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pixmim_eval.data.crops import CenterCrop, Crop, RandomResizedCrop, SimpleResizedCrop, resize
from pixmim_eval.errors import InputError
from pixmim_eval.metrics.overlap import CenterCropLaw, CropLaw, RandomResizedCropLaw, SimpleResizedCropLaw
from pixmim_eval.seeds import derive_seed

GRAMMAR = (
    "rrc-LOW[-HIGH[-RATIO-RATIO]] (areas, aspect ratios), src[-PADDING], cc-SIZE, cc-RESIZE-SIZE, or module:object of "
    "a torchvision v2 transform that reports its box"
)
_DEFAULT_RATIO = (3 / 4, 4 / 3)


@dataclass(frozen=True)
class NamedCrop:
    """A crop as the suite measures it.

    Args:
        name: as on the command line, and on rows.
        crop: draws boxes.
        law: how they are distributed; None where only draws tell.
    """

    name: str
    crop: Crop
    law: CropLaw | None


def read_crop(name: str, size: int) -> NamedCrop:
    """The crop of this name.

    Args:
        name: see GRAMMAR.
        size: pixels of the output of src (of the others the output does not change what they show).

    Raises:
        InputError: no such name, or ranges that are none.
    """
    if ":" in name:
        return NamedCrop(name, ReportedCrop(name, size), None)
    kind, *words = name.split("-")
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        numbers = [-1.0]
    if kind == "rrc" and len(numbers) in (1, 2, 4):
        scale, ratio = (numbers[0], numbers[1] if len(numbers) > 1 else 1.0), _DEFAULT_RATIO
        if len(numbers) == 4:
            ratio = (numbers[2], numbers[3])
        if 0 < scale[0] < scale[1] <= 1 and 0 < ratio[0] < ratio[1]:
            return NamedCrop(name, RandomResizedCrop(size, scale, ratio), RandomResizedCropLaw(scale, ratio))
    whole = [int(number) for number in numbers if number >= 0 and number == int(number)]
    if kind == "src" and len(whole) == len(numbers) <= 1:
        padding = whole[0] if whole else 4
        return NamedCrop(name, SimpleResizedCrop(size, padding), SimpleResizedCropLaw(size, padding))
    if kind == "cc" and len(whole) == len(numbers) and len(whole) in (1, 2) and min(whole) > 0:
        return NamedCrop(name, CenterCrop(whole[-1], whole[0]), CenterCropLaw(whole[-1], whole[0]))
    raise InputError(
        "name of a crop",
        expected=f"{GRAMMAR}; ranges rise, areas are in (0, 1]",
        found=repr(name),
        where="--crops",
        fix="For example: --crops rrc-0.2 src cc-224 cc-256-224.",
    )


class ReportedCrop:
    """A torchvision v2 transform that reports its box: make_params gives top, left, height and width.

    RandomResizedCrop, RandomCrop (its padding counts as beyond the image) and transforms of one's own. What a transform
    is set to is known by its repr, so that rows are measured anew where that changes.

    Args:
        path: "module:name" of the transform object.
        size: pixels of its output.

    Raises:
        InputError: nothing there, no transform with make_params, or in `sample` a transform that fails on an image or
            reports no box.
    """

    def __init__(self, path: str, size: int) -> None:
        module, _, attribute = path.partition(":")
        self.path, self.size = path, size
        try:
            self.transform: Any = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:  # the last: no module before the colon
            raise self._refuse(f"{type(error).__name__}: {error}") from error
        if isinstance(self.transform, type):
            raise self._refuse(f"the class {self.transform.__name__}")
        if not callable(getattr(self.transform, "make_params", None)):
            raise self._refuse(f"a {type(self.transform).__name__} without make_params")

    def __repr__(self) -> str:
        return f"ReportedCrop({self.path}, {self.size}, {self.transform!r})"

    def sample(self, heights: Tensor, widths: Tensor, *, seed: int, index: Tensor) -> Tensor:
        """See data.crops.Crop. The transform draws from torch's own generator, seeded for each image."""
        from torchvision import tv_tensors  # takes a second to load, and few ask for it

        found = np.empty((len(index), 4))
        with torch.random.fork_rng(devices=[]):
            for place, (height, width, item) in enumerate(
                zip(heights.tolist(), widths.tolist(), index.tolist(), strict=True)
            ):
                torch.manual_seed(derive_seed(seed, item))
                image = tv_tensors.Image(torch.empty(1, 1, 1).expand(1, height, width))
                found[place] = self._report_box(image)
        return torch.from_numpy(found)

    def apply(self, image: np.ndarray, box: Sequence[float] | np.ndarray | Tensor) -> np.ndarray:
        """See data.crops.Crop; beyond the image is grey."""
        top, left, height, width = (int(value) for value in box)
        grey = np.full((height, width, 3), 128, dtype=np.uint8)
        inside = image[max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)]
        down, across = max(-top, 0), max(-left, 0)
        grey[down : down + inside.shape[0], across : across + inside.shape[1]] = inside
        return resize(grey, (self.size, self.size))

    def apply_batch(self, images: Tensor, boxes: Tensor, flip: Tensor) -> Tensor:
        """See data.crops.Crop."""
        pairs = zip(images.permute(0, 2, 3, 1).cpu().numpy(), boxes, strict=True)
        cut = torch.from_numpy(np.stack([self.apply(image, box) for image, box in pairs])).permute(0, 3, 1, 2)
        return torch.where(flip.cpu()[:, None, None, None], cut.flip(3), cut).to(images.device)

    def _report_box(self, image: Any) -> list[float]:
        """Top, left, height and width of one draw."""
        try:
            params = self.transform.make_params([image])
        except (TypeError, ValueError, RuntimeError) as error:
            height, width = image.shape[-2:]
            raise self._refuse(f"for an image of {width} x {height}, {type(error).__name__}: {error}") from error
        try:
            top, left, height, width = (float(params[name]) for name in ("top", "left", "height", "width"))
        except (KeyError, TypeError) as error:
            raise self._refuse(f"make_params gives {', '.join(map(str, params)) or 'nothing'}") from error
        if not (height > 0 and width > 0):
            raise self._refuse(f"a box of {width:g} x {height:g}")
        if params.get("needs_pad"):
            before, above, _, _ = params["padding"]
            left, top = left - before, top - above
        return [top, left, height, width]

    def _refuse(self, found: str) -> InputError:
        return InputError(
            "a transform that reports its box",
            expected="an object of torchvision.transforms.v2 whose make_params gives top, left, height and width",
            found=found,
            where=f"--crops {self.path}",
            fix="Name an object, such as RandomResizedCrop(224) in a module of yours; not a class, and not a Compose.",
        )


def sample_boxes(crop: Crop, sizes: np.ndarray, rows: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Drawn boxes float64 [N, D, 4]; a box depends on (seed, draw, row) and its image's size alone.

    Args:
        crop: draws them.
        sizes: int64 [N, 2], height and width.
        rows: int64 [N], of the data set.
        draws: D.
        seed: of the run.
    """
    heights, widths = torch.from_numpy(np.ascontiguousarray(sizes.T))
    index = torch.from_numpy(rows)
    drawn = [
        crop.sample(heights, widths, seed=derive_seed(seed, "foreground-crop", draw), index=index)
        for draw in range(draws)
    ]
    return torch.stack(drawn, dim=1).numpy()
