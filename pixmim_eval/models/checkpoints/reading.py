"""Tensors out of a checkpoint file, executing nothing that the file brings along."""

from __future__ import annotations

import hashlib
import json
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pixmim_eval.errors import InputError
from pixmim_eval.models.checkpoints.unpickling import RefusedError, unpickle

_UNREADABLE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    struct.error,
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    KeyError,
    MemoryError,
    OverflowError,
    NotImplementedError,
)


def read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a checkpoint file holds.

    Args:
        path: safetensors, or a file of torch.save.

    Returns:
        (content, metadata): content is the safetensors' tensors, or the unpickled object (a dict of anything) with
        unknown classes as `Inert`; metadata is the safetensors header's "__metadata__" with JSON values parsed.

    Raises:
        InputError: the file is absent, truncated, not a checkpoint, names functions that run code, or claims more
            than it holds.
    """
    if not path.is_file():
        near = sorted(other.name for other in path.parent.glob("*.safetensors"))[:3] if path.parent.is_dir() else []
        found = f"no such file{' (beside it: ' + ', '.join(near) + ')' if near else ''}"
        _refuse(path, "an existing file", found, "Check the path given to --checkpoint.")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        content = unpickle(path)
    except RefusedError as error:
        _refuse(path, "tensors and plain data", f"{error} (nothing was run)", "Do not use this file.")
    except (AttributeError, TypeError, IndexError) as error:
        _refuse(path, "a file of torch.save", f"a pickle that does not rebuild ({error})", "Save it again.")
    except _UNREADABLE as error:
        reason = str(error).splitlines()[0][:120] if str(error) else repr(error)
        found = f"{path.stat().st_size} bytes that do not parse ({reason})"
        _refuse(path, "a whole file of torch.save", found, "It may be truncated: download or copy it again.")
    if not isinstance(content, dict):
        _refuse(path, "a dict of tensors", type(content).__name__, "Save the model's state_dict() instead.")
    return content, {}


def _read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = {key: _parse(value) for key, value in (file.metadata() or {}).items()}
            return {key: file.get_tensor(key) for key in file.keys()}, metadata  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        _refuse(path, "a whole safetensors file", f"{path.stat().st_size} bytes: {error}", "Copy or make it again.")


def _parse(value: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):  # not JSON, or not of this world
        return value


def _refuse(path: Path, expected: str, found: str, fix: str) -> NoReturn:
    raise InputError("checkpoint", expected=expected, found=found, where=str(path), fix=fix)


def find_tensors(content: dict[str, Any]) -> dict[str, Tensor]:
    """The state dict inside a checkpoint: under "model", "state_dict" or "module", else the content itself.

    A common "module." prefix (DataParallel) is taken off.

    Raises:
        InputError: a name with control characters.
    """
    wrapper = find_wrapper(content)
    state = content[wrapper] if wrapper else content
    tensors = {key: value for key, value in state.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if odd := [key for key in tensors if not key.isprintable()]:  # names are printed, and terminals obey some of these
        raise InputError(
            "checkpoint",
            expected="names of tensors that can be printed",
            found=ascii(odd[0])[:60],
            where="state dict",
            fix="Do not use this file.",
        )
    if tensors and all(key.startswith("module.") for key in tensors):
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
    return tensors


def find_wrapper(content: dict[str, Any]) -> str:
    """The key that a checkpoint's state dict stands under; "" where the checkpoint is the state dict."""
    return next((key for key in ("model", "state_dict", "module") if isinstance(content.get(key), dict)), "")


def read_beside(path: Path, name: str) -> dict[str, Any]:
    """A JSON file that stands beside a checkpoint (config.json …); {} where there is none.

    Raises:
        InputError: it is there, but is not a JSON object.
    """
    beside = path.parent / name
    if not beside.is_file():
        return {}
    try:
        content = json.loads(beside.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        _refuse(beside, "a JSON object", f"{beside.stat().st_size} bytes that are none", "Restore it, or remove it.")
    return content


def digest_tensors(tensors: dict[str, Tensor]) -> str:
    """16 hex digits of names, types, shapes and values; independent of file format and order."""
    digest = hashlib.blake2b(digest_size=8)
    for key in sorted(tensors):
        tensor = tensors[key].detach().cpu().contiguous()
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
