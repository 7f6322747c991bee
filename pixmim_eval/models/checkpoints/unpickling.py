"""Files of torch.save, read without running anything they bring along and without allocating more than they hold.

A pickle is a program. This reader runs it with a vocabulary of its own: tensors, plain containers, and inert
placeholders for everything else. Before that it walks over the opcodes once and refuses what would exhaust memory or
the stack; after that no tensor may hold more elements than its storage, and no storage more bytes than the file.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

# Nothing outside the vocabulary is ever called; what stands here is not merely made inert, but makes the file refused.
_CODE = {"os", "posix", "nt", "subprocess", "sys", "runpy", "importlib", "shutil", "socket", "pty", "ctypes", "pip"}
_CODE_BUILTINS = {"eval", "exec", "compile", "open", "__import__", "breakpoint", "input"}
_STORAGE_TYPES = {
    "UntypedStorage": torch.uint8,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "ShortStorage": torch.int16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "BoolStorage": torch.bool,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}
_LEGACY_MAGIC, _LEGACY_VERSION = 0x1950A86A20F9469CFC6C, 1001
_DEEPEST = 200  # levels of nesting; checkpoints have some ten, and hashing a deep tuple overflows the C stack
_LARGEST = 20_000_000  # nodes of an object written out; shared parts are one in memory, but hashing visits each again
_Extent = tuple[int, int]  # of an object: levels of nesting, nodes written out
_MARK: _Extent = (-1, 0)
_GROWING = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"}


class RefusedError(Exception):
    """The file asks for something that no checkpoint needs; the message says what."""


class Inert:
    """Stands in for an object of an unknown class: keeps its state for reading, runs none of its code."""

    def __new__(cls, *_arguments: Any, **_keywords: Any) -> Inert:
        return super().__new__(cls)

    def __init__(self, *arguments: Any, **_keywords: Any) -> None:
        self.arguments = arguments

    def __call__(self, *arguments: Any) -> Inert:
        return Inert(*arguments)

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state if isinstance(state, dict) else {"state": state})

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(key, str):
            self.__dict__[key] = value

    def append(self, _item: Any) -> None:
        """Elements of list subclasses are dropped."""

    def extend(self, _items: Any) -> None:
        """Elements of list subclasses are dropped."""


def unpickle(path: Path) -> Any:
    """The object in a file of torch.save: tensors on the CPU, plain data, and `Inert` for everything else.

    Raises:
        RefusedError: code, TorchScript, allocations beyond the file's own size, or extreme nesting or sharing.
        Exception: whatever a file that does not parse leads to (see reading.read_checkpoint, which names them).
    """
    with path.open("rb") as file:
        if file.read(4) == b"PK\x03\x04":
            return _read_zip(path)
        file.seek(0)
        return _read_legacy(file, path.stat().st_size)


@dataclass(frozen=True)
class _Storage:
    """Memory of a tensor: count elements of dtype."""

    untyped: torch.UntypedStorage
    dtype: torch.dtype
    count: int


class _Word:
    """A callable of the vocabulary. Made anew for each mention, so that a pickle cannot change it for anybody."""

    __slots__ = ("run",)

    def __init__(self, run: Callable[..., Any]) -> None:
        self.run = run

    def __call__(self, *arguments: Any) -> Any:
        return self.run(*arguments)


class _StorageType(_Word):
    """Names the element type of a storage; never called."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__(Inert)
        self.dtype = dtype


class _Unpickler(pickle.Unpickler):
    """Runs a pickle with the vocabulary.

    Args:
        data: the pickle.
        budget: bytes that it may fill by copying containers: the file's size.
        open_storage: (dtype, key, count of elements) -> storage.
    """

    def __init__(
        self, data: bytes, budget: int, open_storage: Callable[[torch.dtype, str, int], torch.UntypedStorage]
    ) -> None:
        super().__init__(io.BytesIO(data))
        self._budget, self._open_storage = budget, open_storage
        containers: dict[str, Callable[[Any], Any]] = {"set": set, "frozenset": frozenset, "list": list, "tuple": tuple}
        containers |= {"dict": dict, "bytes": bytes, "bytearray": bytearray}
        builtins = {name: self._copier(kind) for name, kind in containers.items()} | {"slice": slice}
        self._words: dict[tuple[str, str], Callable[..., Any]] = {
            **{(module, name): run for module in ("builtins", "__builtin__") for name, run in builtins.items()},
            ("collections", "OrderedDict"): self._copier(OrderedDict),
            ("collections", "defaultdict"): lambda *_factory: {},
            ("torch", "Size"): self._copier(tuple),
            ("_codecs", "encode"): self._encode,
            ("torch._utils", "_rebuild_tensor"): _build_tensor,
            ("torch._utils", "_rebuild_tensor_v2"): lambda data, at, size, step, *_rest: _build_tensor(
                data, at, size, step
            ),
            ("torch._utils", "_rebuild_tensor_v3"): (
                lambda data, at, size, step, _grad, _hooks, dtype, *_rest: _build_tensor(data, at, size, step, dtype)
            ),
            ("torch._utils", "_rebuild_parameter"): lambda data, *_rest: data,
            ("torch._utils", "_rebuild_parameter_with_state"): lambda data, *_rest: data,
            ("torch._tensor", "_rebuild_from_type_v2"): lambda rebuild, _kind, arguments, _state: rebuild(*arguments),
        }

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] in _CODE or (module in ("builtins", "__builtin__") and name in _CODE_BUILTINS):
            raise RefusedError(f"a call of {module}.{name}")
        if (module, name) in self._words:
            return _Word(self._words[module, name])
        if module in ("torch", "torch.storage", "torch.cuda") and name in _STORAGE_TYPES:
            return _StorageType(_STORAGE_TYPES[name])
        if module == "torch" and isinstance(vars(torch).get(name), torch.dtype):
            return vars(torch)[name]
        return type(name, (Inert,), {"__module__": module})

    def persistent_load(self, saved: Any) -> Any:
        kind, first, *rest = saved
        if kind in ("module", b"module"):  # a whole module of old: its class
            return first
        key, _location, count, *views = rest
        if kind not in ("storage", b"storage") or not isinstance(first, _StorageType) or type(count) is not int:
            raise pickle.UnpicklingError(f"a storage of unknown kind ({kind!r})")
        untyped = self._open_storage(first.dtype, str(key), count)
        if views and views[0] is not None:
            _, offset, count = views[0]
            untyped = untyped[offset * first.dtype.itemsize : (offset + count) * first.dtype.itemsize]
        return _Storage(untyped, first.dtype, untyped.nbytes() // first.dtype.itemsize)

    def _copier(self, kind: Callable[[Any], Any]) -> Callable[..., Any]:
        def copy(items: Any = ()) -> Any:
            if not isinstance(items, list | tuple | dict | set | frozenset | bytes | bytearray):
                raise pickle.UnpicklingError(f"a container made of {type(items).__name__}")
            self._spend(len(items))
            return kind(items)

        return copy

    def _encode(self, text: str, _encoding: str = "") -> bytes:
        """How pickle protocol 2 stores bytes."""
        self._spend(len(text))
        return text.encode("latin1")

    def _spend(self, count: int) -> None:
        self._budget -= count
        if self._budget < 0:
            raise RefusedError("copies of data beyond the size of the file")


# Storages come as slices, which torch never lets grow: a pickle can still call Tensor.__setstate__, which would.
def _build_tensor(storage: Any, offset: int, size: Any, stride: Any, dtype: torch.dtype | None = None) -> Tensor:
    dtype = dtype or storage.dtype
    size, stride, available = tuple(size), tuple(stride), storage.untyped.nbytes() // dtype.itemsize
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or any(type(number) is not int or number < 0 for number in numbers):
        raise pickle.UnpicklingError("a tensor of impossible shape")
    count = math.prod(size)
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if count and (count > available or last >= available):
        raise RefusedError(f"a tensor of {count:,} elements on a storage of {available:,}")
    return torch.empty(0, dtype=dtype).set_(storage.untyped, offset, size, stride)


def _take_pickle(file: BinaryIO) -> bytes:
    """The bytes of the next pickle in a file, walked over opcode by opcode but not run.

    Raises:
        RefusedError: nesting or sharing beyond any checkpoint's, or a memo table larger than the pickle.
    """
    start = file.tell()
    stack: list[_Extent] = []
    memo: dict[int, _Extent] = {}
    for steps, (opcode, argument, _position) in enumerate(pickletools.genops(file)):
        name = opcode.name
        if name == "MARK":
            stack.append(_MARK)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            index = len(memo) if name == "MEMOIZE" else int(argument or 0)
            if index > steps:
                raise RefusedError(f"a memo of {index:,} entries in a pickle of {steps:,} steps")
            memo[index] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[int(argument or 0)])
        elif name == "DUP":
            stack.append(stack[-1])
        else:
            taken = _pop(stack, opcode)
            own = taken.pop(0) if name in _GROWING else (0, 1)
            depth = max(own[0], 1 + max((part[0] for part in taken), default=-1))
            nodes = own[1] + sum(part[1] for part in taken)
            if depth > _DEEPEST:
                raise RefusedError(f"objects nested more than {_DEEPEST} deep")
            if nodes > _LARGEST:
                raise RefusedError(f"objects shared until they stand for more than {_LARGEST:,}")
            stack.extend([(depth, nodes)] * len(opcode.stack_after))
    end = file.tell()
    file.seek(start)
    return file.read(end - start)


def _pop(stack: list[_Extent], opcode: pickletools.OpcodeInfo) -> list[_Extent]:
    """Take off the stack what an opcode consumes, oldest first."""
    before = opcode.stack_before
    taken: list[_Extent] = []
    if pickletools.markobject in before:
        while (depth := stack.pop()) != _MARK:
            taken.append(depth)
        before = before[: before.index(pickletools.markobject)]
    taken.extend(stack.pop() for _ in before)
    return taken[::-1]


def _read_zip(path: Path) -> Any:
    """torch.save's format since 1.6: a zip with data.pkl and one uncompressed record a storage, mapped, not copied."""
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        names = archive.namelist()
        pickles = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise pickle.UnpicklingError("a zip without one data.pkl")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}constants.pkl" in names or any(name.startswith(f"{root}code/") for name in names):
            raise RefusedError("a TorchScript program")
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise RefusedError("compressed records, which torch.save never writes")
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise RefusedError("numbers in big-endian order")
        whole = torch.UntypedStorage.from_file(str(path), False, size)

        def open_storage(dtype: torch.dtype, key: str, count: int) -> torch.UntypedStorage:
            info, wanted = archive.getinfo(f"{root}data/{key}"), count * dtype.itemsize
            file.seek(info.header_offset + 26)
            start = info.header_offset + 30 + sum(struct.unpack("<HH", file.read(4)))  # after name and extra field
            if not 0 <= wanted <= min(info.file_size, size - start):
                raise RefusedError(f"a storage of {wanted:,} bytes in a record of {info.file_size:,}")
            part = whole[start : start + wanted]
            return part if start % dtype.itemsize == 0 else part.clone()[:]

        data = _take_pickle(io.BytesIO(archive.read(pickles[0])))
        return _Unpickler(data, size, open_storage).load()


def _read_legacy(file: BinaryIO, size: int) -> Any:
    """torch.save's format before 1.6: five pickles, then the storages one after the other."""
    storages: dict[str, torch.UntypedStorage] = {}
    budget = size

    def open_storage(dtype: torch.dtype, key: str, count: int) -> torch.UntypedStorage:
        nonlocal budget
        wanted = count * dtype.itemsize
        if key not in storages:
            budget -= wanted
            if wanted < 0 or budget < 0:
                raise RefusedError(f"a storage of {wanted:,} bytes in a file of {size:,}")
            storages[key] = torch.UntypedStorage(wanted)[:]
        return storages[key]

    def load() -> Any:
        return _Unpickler(_take_pickle(file), size, open_storage).load()

    magic, version = load(), load()
    if (magic, version) != (_LEGACY_MAGIC, _LEGACY_VERSION):
        raise pickle.UnpicklingError("a pickle, but not of torch.save")
    system = load()
    if not system.get("little_endian", True):
        raise RefusedError("numbers in big-endian order")
    content = load()
    _fill_storages(file, load(), storages)
    return content


def _fill_storages(file: BinaryIO, keys: Iterable[Any], storages: dict[str, torch.UntypedStorage]) -> None:
    for key in keys:
        storage = storages[str(key)]
        file.seek(8, io.SEEK_CUR)  # the count of elements, known from the pickle
        if not storage.nbytes():
            continue
        memory = torch.empty(0, dtype=torch.uint8).set_(storage).numpy()
        if file.readinto(memory.data) != storage.nbytes():  # type: ignore[attr-defined]
            raise EOFError(f"storage {key} ends early")
