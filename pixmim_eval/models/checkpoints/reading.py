"""Tensors out of a checkpoint file, executing nothing that the file brings along."""

from __future__ import annotations

import collections
import hashlib
import json
import pickle
import struct
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pixmim_eval.errors import InputError

# Nothing outside _ALLOWED is ever called; what stands here is not merely made inert, but makes the file refused.
_CODE = {"os", "posix", "nt", "subprocess", "sys", "runpy", "importlib", "shutil", "socket", "pty", "ctypes", "pip"}
_CODE_BUILTINS = {"eval", "exec", "compile", "open", "__import__", "breakpoint", "input"}
_DATA_BUILTINS = {
    name: getattr(__import__("builtins"), name)
    for name in (
        "set",
        "frozenset",
        "dict",
        "list",
        "tuple",
        "int",
        "float",
        "complex",
        "bool",
        "str",
        "bytes",
        "slice",
    )
}
_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("collections", "defaultdict"): lambda *_factory: {},
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_tensor_v3"): torch._utils._rebuild_tensor_v3,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): lambda data, *_state: data,
    ("torch._tensor", "_rebuild_from_type_v2"): lambda rebuild, _kind, arguments, _state: rebuild(*arguments),
    ("torch.storage", "UntypedStorage"): torch.UntypedStorage,
    ("torch", "UntypedStorage"): torch.UntypedStorage,
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
    ("_codecs", "encode"): lambda text, _encoding: text.encode("latin1"),  # how pickle protocol 2 stores bytes
    **{("builtins", name): value for name, value in _DATA_BUILTINS.items()},
    **{("__builtin__", name): value for name, value in _DATA_BUILTINS.items()},
}


class Inert:
    """Stands in for an object of an unknown class: keeps its state for reading, runs none of its code."""

    def __new__(cls, *_arguments: Any, **_keywords: Any) -> Inert:
        return super().__new__(cls)

    def __init__(self, *arguments: Any, **_keywords: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state if isinstance(state, dict) else {"state": state})

    def __setitem__(self, key: Any, value: Any) -> None:
        self.__dict__[str(key)] = value

    def append(self, _item: Any) -> None:
        """Elements of list subclasses are dropped."""

    def extend(self, _items: Any) -> None:
        """Elements of list subclasses are dropped."""


class _CodeFoundError(Exception):
    """A pickle names a function that runs code."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if module.split(".")[0] in _CODE or (module in ("builtins", "__builtin__") and name in _CODE_BUILTINS):
            raise _CodeFoundError(f"{module}.{name}")
        return type(name, (Inert,), {"__module__": module})


def _load(file: Any, **keywords: Any) -> Any:
    return _Unpickler(file, **keywords).load()


_INERT_PICKLE = SimpleNamespace(Unpickler=_Unpickler, load=_load, __name__="inert_pickle")


def read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a checkpoint file holds.

    Args:
        path: safetensors, or a file of torch.save.

    Returns:
        (content, metadata): content is the safetensors' tensors, or the unpickled object (a dict of anything) with
        unknown classes as `Inert`; metadata is the safetensors header's "__metadata__" with JSON values parsed.

    Raises:
        InputError: the file is absent, truncated, not a checkpoint, or names functions that run code.
    """
    if not path.is_file():
        near = sorted(other.name for other in path.parent.glob("*.safetensors"))[:3] if path.parent.is_dir() else []
        found = f"no such file{' (beside it: ' + ', '.join(near) + ')' if near else ''}"
        _refuse(path, "an existing file", found, "Check the path given to --checkpoint.")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        if _is_torchscript(path):
            _refuse(path, "tensors and plain data", "a TorchScript program (nothing was run)", "Save its state_dict().")
        content = torch.load(path, map_location="cpu", pickle_module=_INERT_PICKLE, weights_only=False)
    except _CodeFoundError as error:
        _refuse(path, "tensors and plain data", f"a call of {error} (nothing was run)", "Do not use this file.")
    except (
        pickle.UnpicklingError,
        OSError,
        EOFError,
        RuntimeError,
        zipfile.BadZipFile,
        ValueError,
        KeyError,
        struct.error,
    ) as e:
        found = f"{path.stat().st_size} bytes that do not parse ({str(e).splitlines()[0][:120] if str(e) else e!r})"
        _refuse(path, "a whole file of torch.save", found, "It may be truncated: download or copy it again.")
    except (AttributeError, TypeError, IndexError) as error:
        _refuse(path, "a file of torch.save", f"a pickle that does not rebuild ({error})", "Save it again.")
    if not isinstance(content, dict):
        _refuse(path, "a dict of tensors", type(content).__name__, "Save the model's state_dict() instead.")
    return content, {}


def _is_torchscript(path: Path) -> bool:
    """Whether torch.load would hand the file to torch.jit, which runs code; asked of torch's own functions."""
    with path.open("rb") as file:
        if not torch.serialization._is_zipfile(file):
            return False
        with torch.serialization._open_zipfile_reader(file) as archive:
            return torch.serialization._is_torchscript_zip(archive)


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
    except json.JSONDecodeError:
        return value


def _refuse(path: Path, expected: str, found: str, fix: str) -> NoReturn:
    raise InputError("checkpoint", expected=expected, found=found, where=str(path), fix=fix)


def find_tensors(content: dict[str, Any]) -> dict[str, Tensor]:
    """The state dict inside a checkpoint: under "model", "state_dict" or "module", else the content itself.

    A common "module." prefix (DataParallel) is taken off.
    """
    for key in ("model", "state_dict", "module"):
        if isinstance(content.get(key), dict):
            content = content[key]
            break
    tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    if tensors and all(key.startswith("module.") for key in tensors):
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
    return tensors


def digest_tensors(tensors: dict[str, Tensor]) -> str:
    """16 hex digits of names, types, shapes and values; independent of file format and order."""
    digest = hashlib.blake2b(digest_size=8)
    for key in sorted(tensors):
        tensor = tensors[key].detach().cpu().contiguous()
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
