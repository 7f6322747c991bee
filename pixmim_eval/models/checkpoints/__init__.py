"""Checkpoints of any known format -> an encoder. One file a format; adding one is that file and a line in FORMATS."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from torch import is_tensor

from pixmim_eval.errors import InputError
from pixmim_eval.models.checkpoints import (
    convmae,
    deit3,
    detectron2_vit,
    lsmae,
    mae,
    mmpretrain,
    ours,
    timm_vit,
    transformers_vit,
)
from pixmim_eval.models.checkpoints.building import ALL_ARCHITECTURES, build
from pixmim_eval.models.checkpoints.checkpoint import Checkpoint, Contents, Source
from pixmim_eval.models.checkpoints.reading import find_tensors, find_wrapper, read_checkpoint
from pixmim_eval.models.convvit import ConvArchitecture
from pixmim_eval.models.vit import Architecture

__all__ = ["Checkpoint", "load", "open_source"]

FORMATS: dict[str, ModuleType] = {  # the first that recognises the keys is taken
    "pixmim-eval": ours,
    "convmae": convmae,
    "lsmae": lsmae,
    "deit3": deit3,
    "mmpretrain": mmpretrain,
    "transformers": transformers_vit,
    "detectron2": detectron2_vit,
    "mae": mae,
    "timm": timm_vit,
}


def load(
    path: str | Path, arch: str | Architecture | ConvArchitecture | None = None, image_size: int | None = None
) -> Checkpoint:
    """Open a checkpoint; nothing that the file brings along is executed.

    Args:
        path: safetensors, or a file of torch.save.
        arch: expected architecture, a name of `ALL_ARCHITECTURES` or its numbers; needed where the file does not tell
            (the number of heads of no published size), checked wherever it is given.
        image_size: pixels a side, where it shall differ from the file's; positions are interpolated, see
            vit.interpolate_positions.

    Returns:
        The encoder in eval mode, in float32, and what is known about it.

    Raises:
        InputError: absent, truncated or foreign file, code in the file, unknown format or keys, another architecture.
    """
    if isinstance(arch, str):
        if arch not in ALL_ARCHITECTURES:
            raise InputError(
                "architecture",
                expected=f"one of {', '.join(ALL_ARCHITECTURES)}",
                found=repr(arch),
                where="arch",
                fix="Take one of these, or give its numbers.",
            )
        arch = ALL_ARCHITECTURES[arch]
    name, source, contents = open_source(Path(path))
    return build(name, source, contents, arch, image_size)


def open_source(path: Path) -> tuple[str, Source, Contents]:
    """Read a file and recognise its format: (name in FORMATS, the file, what the format makes of it).

    Raises:
        InputError: as `load`, but for the architecture.
    """
    content, metadata = read_checkpoint(path)
    wrapper = find_wrapper(content)
    rest = {str(key): value for key, value in content.items() if key != wrapper and (wrapper or not is_tensor(value))}
    if wrapper:  # what stands among the tensors but is none
        rest |= {f"{wrapper}.{key}": value for key, value in content[wrapper].items() if not is_tensor(value)}
    source = Source(path, find_tensors(content), {**rest, **metadata}, wrapper)
    for name, layout in FORMATS.items():
        if layout.recognises(source):
            return name, source, layout.convert(source)
    first = ", ".join(sorted(source.tensors)[:3])
    raise InputError(
        "checkpoint",
        expected=f"the keys of a known format ({', '.join(FORMATS)})",
        found=first or "no tensors",
        where=str(path),
        fix="For a timm model, name its architecture with --model.",
    )
