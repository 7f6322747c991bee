"""Checkpoints of any known format -> an encoder. One file a format; adding one is that file and a line in FORMATS."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from pixmim_eval.errors import InputError
from pixmim_eval.models.checkpoints import mae, ours
from pixmim_eval.models.checkpoints.checkpoint import Checkpoint
from pixmim_eval.models.checkpoints.reading import find_tensors, read_checkpoint
from pixmim_eval.models.vit import ARCHITECTURES, Architecture

__all__ = ["Checkpoint", "load"]

FORMATS: dict[str, ModuleType] = {"pixmim-eval": ours, "mae": mae}  # the first that recognises the keys is taken


def load(path: str | Path, arch: str | Architecture | None = None) -> Checkpoint:
    """Open a checkpoint; nothing that the file brings along is executed.

    Args:
        path: safetensors, or a file of torch.save.
        arch: expected architecture, a name of `ARCHITECTURES` or its numbers; needed where the file does not tell
            (the number of heads of a ViT that is not B/16, L/16 or H/14), checked wherever it is given.

    Returns:
        The encoder in eval mode, in float32, and what is known about it.

    Raises:
        InputError: absent, truncated or foreign file, code in the file, unknown format, another architecture.
    """
    path = Path(path)
    content, metadata = read_checkpoint(path)
    tensors = find_tensors(content)
    if isinstance(arch, str):
        if arch not in ARCHITECTURES:
            raise InputError(
                "architecture",
                expected=f"one of {', '.join(ARCHITECTURES)}",
                found=repr(arch),
                where="arch",
                fix="Take one of these, or give an Architecture.",
            )
        arch = ARCHITECTURES[arch]
    for checkpoint_format in FORMATS.values():
        if checkpoint_format.recognises(tensors, metadata):
            return checkpoint_format.convert(path, tensors, {**content, **metadata}, arch)
    raise InputError(
        "checkpoint",
        expected=f"the keys of a known format ({', '.join(FORMATS)})",
        found=", ".join(sorted(tensors)[:3]) or "no tensors",
        where=str(path),
        fix="For a timm model, name its architecture with --model.",
    )
