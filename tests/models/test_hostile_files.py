"""Files made to do harm: refused or inert, nothing of them runs, and nothing large is allocated for them."""

from __future__ import annotations

import collections
import io
import os
import pickle
import resource
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pixmim_eval.errors import InputError
from pixmim_eval.models.checkpoints import load
from pixmim_eval.models.checkpoints.reading import find_tensors, read_checkpoint
from pixmim_eval.models.checkpoints.unpickling import Inert

WEIGHTS = {"weight": torch.arange(2048.0), "bias": torch.zeros(3)}


def save(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def save_pickle(path: Path, program: bytes, *, zipped: bool = True) -> Path:
    """A checkpoint whose pickle is the given program."""
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x/data.pkl", program)
            archive.writestr("x/data/0", bytes(16))
    else:
        parts = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
        path.write_bytes(b"".join(parts) + program + pickle.dumps([], 2))
    return path


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.function, self.arguments


class Reference:
    """Pickles as the mention of a class or function by name, whether it exists or not."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class Forger(pickle._Pickler):  # type: ignore[name-defined]
    """A pickler that writes references as they are told."""

    def save(self, obj: Any, *rest: Any, **keywords: Any) -> None:
        if isinstance(obj, Reference):
            self.write(f"c{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, Call):
            self.save(obj.function)
            self.save(obj.arguments)
            self.write(b"R")
        else:
            super().save(obj, *rest, **keywords)


def forge(content: Any) -> bytes:
    buffer = io.BytesIO()
    Forger(buffer, 2).dump(content)
    return buffer.getvalue()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_that_carries_code_is_refused_and_nothing_runs(tmp_path: Path, zipped: bool) -> None:
    mark = tmp_path / "ran"
    path = tmp_path / "evil.pth"
    torch.save({"model": {}, "hook": Call(os.system, f"touch {mark}")}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r"a call of posix\.system \(nothing was run\)"):
        load(path)
    assert not mark.exists()


class Program(torch.nn.Module):
    """A module whose TorchScript runs when it is loaded: __setstate__ writes a file."""

    def __init__(self, mark: str) -> None:
        super().__init__()
        self.mark = mark
        self.training = False

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.mark, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.mark = state[0]
        self.training = state[1]
        torch.from_file(self.mark, shared=True, size=4)

    def forward(self) -> str:
        return self.mark


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_torchscript_program_is_refused_and_does_not_run(tmp_path: Path) -> None:
    mark, path = tmp_path / "ran", tmp_path / "program.pt"
    torch.jit.script(Program(str(mark))).save(str(path))
    mark.unlink(missing_ok=True)
    with pytest.raises(InputError, match="a TorchScript program"):
        load(path)
    assert not mark.exists()


def test_reducers_inside_reducers_are_inert(tmp_path: Path) -> None:
    """getattr(getattr(import_module("x"), "y"), "z")(…): every call makes one more placeholder."""
    mark = tmp_path / "ran"
    attribute = Call(Reference("builtins", "getattr"), Call(Reference("codecs", "lookup"), "rot13"), "decode")
    chain = Call(Call(Reference("builtins", "getattr"), attribute, "__globals__"), f"open({str(mark)!r}, 'w')")
    mapped = Call(Reference("functools", "partial"), Reference("pathlib", "Path.touch"), chain)
    path = save_pickle(tmp_path / "x.pth", forge({"model": {}, "chain": mapped}))
    content, _ = read_checkpoint(path)
    assert isinstance(content["chain"], Inert)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        *(("builtins", name) for name in ("eval", "exec", "compile", "open", "__import__", "breakpoint")),
        *(("os", "system"), ("posix", "system"), ("nt", "system"), ("subprocess", "Popen"), ("sys", "exit")),
        *(("importlib", "import_module"), ("runpy", "run_path"), ("os.path", "join"), ("__builtin__", "eval")),
    ],
)
@pytest.mark.parametrize("depth", [0, 3])
def test_a_mention_of_code_is_enough_to_refuse(tmp_path: Path, module: str, name: str, depth: int) -> None:
    call: Any = Reference(module, name)
    for _ in range(depth):
        call = Call(Reference("functools", "partial"), call, "1 + 1")
    path = save_pickle(tmp_path / "x.pth", forge({"model": {}, "call": call}))
    with pytest.raises(InputError, match=rf"a call of {module}\.{name} \(nothing was run\)"):
        read_checkpoint(path)


def test_a_pickle_cannot_change_what_it_is_read_with(tmp_path: Path) -> None:
    """BUILD with a slot state sets attributes: on torch's classes, or on the reader's own functions, it must not."""
    program = b"\x80\x02}X\x05\x00\x00\x00modelc%s\nN}X\x04\x00\x00\x00evilK\x01s\x86bs."
    for name in (b"torch\nUntypedStorage", b"torch._utils\n_rebuild_tensor_v2", b"collections\nOrderedDict"):
        with pytest.raises(InputError):
            read_checkpoint(save_pickle(tmp_path / "x.pth", program % name))
    assert not any(hasattr(o, "evil") for o in (torch.UntypedStorage, torch._utils._rebuild_tensor_v2))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "program",
    [
        b"(cposix\nsystem\nS'touch %s'\no.",  # OBJ, of protocol 1
        b"(S'touch %s'\niposix\nsystem\n.",  # INST, of protocol 0
        b"cposix\nsystem\n(S'touch %s'\ntR.",  # GLOBAL and REDUCE, of protocol 0
        b"(S'touch %s'\ni__builtin__\neval\n.",
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93(S'touch %s'\ntR.",  # STACK_GLOBAL, of protocol 4
        b"\x80\x02cposix\nsystem\n(S'touch %s'\nt\x81.",  # NEWOBJ
        b"\x80\x04cposix\nsystem\n(S'touch %s'\nt}\x92.",  # NEWOBJ_EX
    ],
)
def test_every_way_to_call_is_closed_in_every_protocol(tmp_path: Path, program: bytes, zipped: bool) -> None:
    mark = tmp_path / "ran"
    path = save_pickle(tmp_path / "x.pth", program % str(mark).encode(), zipped=zipped)
    with pytest.raises(InputError, match=r"a call of (posix\.system|__builtin__\.eval) \(nothing was run\)"):
        read_checkpoint(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "program",
    [
        b"Pposix.system\n.",  # PERSID, a persistent id of protocol 0
        b"\x80\x02\x82\x01.",  # EXT1, an entry of copyreg's table
        b"\x80\x05\x97.",  # NEXT_BUFFER
        b"L" + b"9" * 100_000 + b"L\n.",  # a number whose parsing takes time squared
        b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"}.",  # FRAME of an exbibyte
    ],
)
def test_odd_opcodes_are_refused(tmp_path: Path, program: bytes) -> None:
    for zipped in (True, False):
        with pytest.raises(InputError):
            read_checkpoint(save_pickle(tmp_path / "x.pth", program, zipped=zipped))


@pytest.mark.parametrize("name", ["getattr", "setattr", "vars", "globals", "map", "type", "object", "memoryview"])
def test_builtins_that_lead_elsewhere_are_placeholders(tmp_path: Path, name: str) -> None:
    call = Call(Reference("builtins", name), Reference("torch", "Size"), "__class__")
    content, _ = read_checkpoint(save_pickle(tmp_path / "x.pth", forge({"model": {}, "x": call})))
    assert isinstance(content["x"], Inert)


def test_a_state_gives_no_object_another_class(tmp_path: Path) -> None:
    """BUILD, twice: what it leaves in place of __setstate__ is called the second time, and is as inert as the rest."""
    state = {"__class__": Reference("torch", "Size"), "__setstate__": Reference("elsewhere", "f"), "x": 2}
    thing = forge(Call(Reference("somewhere", "Thing")))[2:-1] + 2 * (forge(state)[2:-1] + b"b")
    content, _ = read_checkpoint(save_pickle(tmp_path / "y.pth", b"\x80\x02}K\x00" + thing + b"s."))
    assert type(content[0]).__mro__[1] is Inert
    assert (type(content[0]).__name__, content[0].x) == ("Thing", 2)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_state_cannot_make_a_tensor_larger_than_its_storage(tmp_path: Path, zipped: bool) -> None:
    """BUILD on a tensor runs torch's own Tensor.__setstate__, which sets another tensor's storage and lets it grow."""
    whole = forge_tensor(4, (4,), (1,))
    tensor = whole[whole.index(b"ctorch._utils") : whole.rindex(b"R") + 1]
    state = b"(h\x14K\x00\x8a\x05\x00\x00\x00\x00\x02\x85K\x01\x85t"  # (the tensor, 0, (2**33,), (1,))
    memo = b"q\x14"
    program = b"\x80\x02}X\x05\x00\x00\x00model}X\x01\x00\x00\x00w" + tensor + memo + state + b"bss."
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match="not resizable"):
        read_checkpoint(save_pickle(tmp_path / "x.pth", program, zipped=zipped))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


@pytest.mark.parametrize("zipped", [True, False])
def test_objects_that_double_at_every_step_are_refused(tmp_path: Path, zipped: bool) -> None:
    """A hundred pairs of the pair before: small in memory, but hashing or printing them would take for ever."""
    pairs = b"K\x01" + b"".join(b"q%ch%c\x86" % (n, n) for n in range(100))
    path = save_pickle(tmp_path / "x.pth", b"\x80\x02}" + pairs + b"K\x01s.", zipped=zipped)
    with pytest.raises(InputError, match=r"shared until they stand for more than 20,000,000 \(nothing was run\)"):
        read_checkpoint(path)


def test_a_header_that_doubles_at_every_step_is_not_written_out(tmp_path: Path) -> None:
    """Lists may grow after they are shared; nothing hashes them, and a message shows only their beginning."""
    lists = b"]q\x00K\x01a" + b"".join(b"0]q%c(h%ch%ce" % (n, n - 1, n - 1) for n in range(1, 100))
    parts = b"X\x06\x00\x00\x00formatX\x0b\x00\x00\x00pixmim-evals"
    program = b"\x80\x02}" + parts + b"X\x0c\x00\x00\x00architecture" + lists + b"s."
    with pytest.raises(InputError, match="a whole header, found architecture") as caught:
        load(save_pickle(tmp_path / "x.pth", program))
    assert len(str(caught.value)) < 1000


def forge_tensor(count: int, size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    """{"model": {"weight": tensor}} over storage "0" with a claimed count of float32 elements."""
    storage = Reference("torch", "FloatStorage")
    buffer = io.BytesIO()
    pickler = Forger(buffer, 2)
    token = object()
    pickler.persistent_id = lambda obj: ("storage", storage, "0", "cpu", count) if obj is token else None
    hooks: Any = collections.OrderedDict()
    tensor = Call(Reference("torch._utils", "_rebuild_tensor_v2"), token, 0, size, stride, False, hooks)
    pickler.dump({"model": {"weight": tensor}})
    return buffer.getvalue()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("count", "size", "stride", "message"),
    [
        (10**12, (10**12,), (1,), "a storage of 4,000,000,000,000 bytes in a (record|file) of"),
        (10**30, (4,), (1,), "a storage of .* bytes in a (record|file) of"),
        (-4, (4,), (1,), "a storage of -16 bytes"),
        (4, (10**6, 10**6), (0, 0), "a tensor of 1,000,000,000,000 elements on a storage of 4"),
        (4, (3,), (2,), "a tensor of 3 elements on a storage of 4"),
    ],
)
def test_no_tensor_claims_more_than_its_file_holds(
    tmp_path: Path, zipped: bool, count: int, size: tuple[int, ...], stride: tuple[int, ...], message: str
) -> None:
    path = save_pickle(tmp_path / "x.pth", forge_tensor(count, size, stride), zipped=zipped)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=message):
        read_checkpoint(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (b"\x80\x04}\x8e" + struct.pack("<Q", 2**45) + b"x.", "do not parse"),  # bytes of 32 TiB
        (b"\x80\x04}\x8d" + struct.pack("<Q", 2**45) + b"x.", "do not parse"),  # text of 32 TiB
        (b"\x80\x05}\x96" + struct.pack("<Q", 2**45) + b"x.", "do not parse"),  # bytearray of 32 TiB
        (b"\x80\x02}r" + struct.pack("<I", 2**31) + b".", "a memo of 2,147,483,648 entries"),
        (b"\x80\x02}K\x00cbuiltins\nbytes\n\x8a\x06\x00\x00\x00\x00\x00\x7f\x85Rs.", "a container made of int"),
        (
            b"\x80\x02}K\x00cbuiltins\nlist\nc__builtin__\nrange\n\x8a\x06\x00\x00\x00\x00\x00\x7f\x85R\x85Rs.",
            "container",
        ),
        (
            b"\x80\x02}cbuiltins\nlist\n]("
            + b"K\x01" * 500
            + b"eq\x00\x85R"
            + b"cbuiltins\nlist\nh\x00\x85R" * 2000
            + b".",
            "copies",
        ),
    ],
)
def test_huge_allocations_are_refused_before_they_are_made(tmp_path: Path, program: bytes, message: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=message):
        read_checkpoint(save_pickle(tmp_path / "x.pth", program))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


@pytest.mark.parametrize("name", ["data/0", "byteorder", "data.pkl"])
def test_a_compressed_record_is_refused(tmp_path: Path, name: str) -> None:
    """A zip bomb is small on disk and large in memory; torch.save stores records as they are."""
    records = {"data.pkl": forge_tensor(4, (4,), (1,)), "data/0": bytes(16), name: bytes(200_000_000)}
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        for record, content in records.items():
            method = zipfile.ZIP_DEFLATED if record == name else zipfile.ZIP_STORED
            archive.writestr(f"x/{record}", content, method, compresslevel=1)
    del records, content
    assert (tmp_path / "x.pth").stat().st_size < 2_000_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match="compressed records"):
        read_checkpoint(tmp_path / "x.pth")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("key", [b"K\x01" + b"\x85" * 100_000, b"](" * 50_000 + b"e" * 50_000])
def test_deep_nesting_is_refused_not_followed(tmp_path: Path, zipped: bool, key: bytes) -> None:
    """Tuples inside each other, used as a key: hashing them would overflow the C stack and kill Python."""
    path = save_pickle(tmp_path / "x.pth", b"\x80\x02}" + key + b"K\x01s.", zipped=zipped)
    with pytest.raises(InputError, match=r"nested more than 200 deep \(nothing was run\)"):
        read_checkpoint(path)


def test_a_deeply_nested_header_does_no_harm(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "x.safetensors", metadata={"a": "[" * 100_000, "b": "1" * 10_000})
    content, metadata = read_checkpoint(tmp_path / "x.safetensors")
    assert torch.equal(content["weight"], WEIGHTS["weight"])
    assert metadata["a"] == "[" * 100_000


@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_saves_is_read_to_the_bit(tmp_path: Path, zipped: bool) -> None:
    """Both formats of torch.save: every type, views and shared storages, odd strides, optimiser state."""
    torch.manual_seed(0)
    base = torch.randn(8, 6)
    model = torch.nn.Linear(4, 3)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    numbers = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16]
    tensors = {str(dtype): (base * 10).to(dtype) for dtype in (*numbers, torch.float64, torch.complex64)}
    tensors |= {"bool": base > 0, "transposed": base.T, "view": base[2:5, 1::2], "scalar": torch.tensor(2.5)}
    tensors |= {"empty": torch.empty(0, 3), "parameter": torch.nn.Parameter(base), "shared": base}
    if zipped:  # the old format has no float8
        tensors["float8"] = base.to(torch.float8_e4m3fn)
    content = {
        "state_dict": tensors,
        "optimizer": optimizer.state_dict(),
        "set": {1, 2},
        "scale": np.float32(2),
        "b": b"ab",
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    found, _ = read_checkpoint(tmp_path / "x.pth")
    read = find_tensors(found)
    assert read.keys() == tensors.keys()
    for key, value in tensors.items():
        assert read[key].dtype == value.dtype
        assert read[key].shape == value.shape
        assert torch.equal(
            read[key].contiguous().reshape(-1).view(torch.uint8),
            value.detach().contiguous().reshape(-1).view(torch.uint8),
        )
    assert (found["set"], found["b"]) == ({1, 2}, b"ab")
    moments = found["optimizer"]["state"][0]["exp_avg"]
    assert torch.equal(moments, optimizer.state_dict()["state"][0]["exp_avg"])


@pytest.mark.parametrize("kept", [0, 100, 5_000, -1_000])
def test_a_truncated_file_is_named_as_such(tmp_path: Path, kept: int) -> None:
    path = save(tmp_path / "x.pth", {"model": WEIGHTS})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"expected a whole file.*truncated"):
        read_checkpoint(path)


def test_a_truncated_safetensors_file_is_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file(WEIGHTS, path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match="expected a whole safetensors file"):
        read_checkpoint(path)
