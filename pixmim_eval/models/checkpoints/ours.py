"""Our own checkpoints: safetensors with MAE's public keys, and a header that tells everything else."""

from __future__ import annotations

import json
import reprlib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from pixmim_eval.errors import InputError
from pixmim_eval.files import write_atomic
from pixmim_eval.models.checkpoints.checkpoint import NO_TARGET, Contents, Source
from pixmim_eval.models.checkpoints.keys import CLASSIFIER, CONVVIT, DECODER, VIT, Names, same_names, translate
from pixmim_eval.models.convvit import ConvArchitecture
from pixmim_eval.models.vit import Architecture
from pixmim_eval.types import LabelSpace

LAYOUT = "pixmim-eval"
NAMES = Names(same_names(VIT, CONVVIT, DECODER, CLASSIFIER))


def write(
    path: Path,
    tensors: dict[str, Tensor],
    *,
    architecture: Architecture | ConvArchitecture,
    image_size: int,
    method: str,
    epoch: int,
    recipe: dict[str, Any],
    label_space: LabelSpace | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a checkpoint that `checkpoints.load` opens.

    Args:
        path: ends in .safetensors; replaced atomically.
        tensors: by MAE's public keys (encoder without prefix, decoder_*, mask_token).
        architecture, image_size, method, epoch: see Checkpoint.
        recipe: every setting of the pretraining; JSON values.
        label_space: what the outputs of the classifier mean, where there is one.
        dtype: stored type of the floating-point tensors.
    """
    header = {
        "format": "pixmim-eval",
        "architecture": vars(architecture),
        "image_size": image_size,
        "method": method,
        "epoch": epoch,
        "recipe": recipe,
    }
    if label_space is not None:
        header["label_space"] = {"name": label_space.name, "classes": label_space.classes}
    stored = {key: value.detach().to("cpu", dtype).contiguous() for key, value in tensors.items()}
    write_atomic(path, save(stored, metadata={key: json.dumps(value) for key, value in header.items()}))


def recognises(source: Source) -> bool:
    """Whether the header is ours."""
    return source.content.get("format") == "pixmim-eval"


def convert(source: Source) -> Contents:
    """See Contents; the header tells everything."""
    header = source.content
    architecture = _read_header(source.path, header)
    tensors, keys = translate(source.tensors, NAMES, unused={}, where=source.path, layout=LAYOUT)
    recipe = header["recipe"]
    normalised = recipe.get("normalise_target")
    reason = "not in the recipe" if "mask_token" in tensors or "head.weight" not in tensors else NO_TARGET
    return Contents(
        layout=LAYOUT,
        tensors=tensors,
        keys=keys,
        method=header["method"],
        epoch=header["epoch"],
        normalised=(normalised, reason if normalised is None else "the recipe in the header says so"),
        architecture=architecture,
        image_size=header["image_size"],
        decoder_heads=recipe.get("decoder_heads") if "mask_token" in tensors else None,
        label_space=_read_label_space(source.path, header.get("label_space"), tensors),
    )


def _read_header(path: Path, header: dict[str, Any]) -> Architecture | ConvArchitecture:
    """The architecture of a header that is whole."""
    kinds = {"architecture": dict, "image_size": int, "method": str, "epoch": int, "recipe": dict}
    wrong = [key for key, kind in kinds.items() if not isinstance(header.get(key), kind)]
    if not wrong and not header["method"].isprintable():
        wrong = ["method"]
    sizes = header["architecture"] if "architecture" not in wrong else {}
    numbers = [n for size in sizes.values() for n in (size if isinstance(size, list) and len(size) == 3 else [size])]
    kind: Any = next(
        (k for k in (Architecture, ConvArchitecture) if k.__dataclass_fields__.keys() == sizes.keys()), None
    )
    if not wrong and (kind is None or not all(type(n) is int and n > 0 for n in numbers)):
        wrong = ["architecture"]
    if wrong:
        raise _report_header(path, wrong[0], header.get(wrong[0]))
    return kind(**{name: tuple(size) if isinstance(size, list) else size for name, size in sizes.items()})


def _read_label_space(path: Path, value: Any, tensors: dict[str, Tensor]) -> LabelSpace | None:
    """The label space of a header, with as many classes as the classifier has outputs; None where there is none."""
    if value is None:
        return None
    content = value if isinstance(value, dict) else {}
    name, classes = content.get("name"), content.get("classes")
    outputs = len(tensors["head.weight"]) if "head.weight" in tensors else 0
    if (
        not isinstance(name, str)
        or not isinstance(classes, list)
        or not all(isinstance(label, str) for label in classes)
        or not len(classes) == len(set(classes)) == outputs
    ):
        raise _report_header(path, "label_space", value)
    return LabelSpace(name, tuple(classes))


def _report_header(path: Path, key: str, value: Any) -> InputError:
    return InputError(
        "checkpoint",
        expected="a whole header",
        found=f"{key}: {reprlib.repr(value)}"[:100],
        where=str(path),
        fix="Make it again.",
    )
