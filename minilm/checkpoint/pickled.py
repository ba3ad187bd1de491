"""A pickle machine that can build tensors out of storages, and plain containers around them, and nothing else.

A pickle is a program for a small stack machine: push a number, push a name, call what the name stands for.  Calling is
what makes pickles of strangers dangerous.  Here nothing is ever looked up in Python: a name is compared with the few
that torch.save writes for tensors, and what these would do is done by the code below.  Any other name, opcode or use
ends the reading with an error.  No opcode makes more than the bytes that it has itself; their number is limited.

Source of the opcodes' meaning: Python's pickletools; of the arguments: torch/_utils.py, torch/serialization.py.
"""

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .reading import broken, short
from .weights import DTYPES

MOST_STEPS = 2_000_000  # a tensor takes about 40
MOST_BYTES = 64_000_000
TORCH_DTYPES = {f"torch {'bool' if name == 'BOOL' else numpy_name}": name for name, (numpy_name, _) in DTYPES.items()}
STORAGES = {
    "Double": "F64",
    "Float": "F32",
    "Half": "F16",
    "BFloat16": "BF16",
    "Long": "I64",
    "Int": "I32",
    "Short": "I16",
    "Char": "I8",
    "Byte": "U8",
    "Bool": "BOOL",
}
CLASSES = {f"{module} {kind}Storage": name for kind, name in STORAGES.items() for module in ("torch", "torch.cuda")}
CLASSES["torch.storage UntypedStorage"] = "U8"
CALLS = {
    "collections OrderedDict",
    "torch Size",
    "torch._utils _rebuild_tensor",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_tensor_v3",
    "torch._utils _rebuild_parameter",
}


@dataclass(frozen=True)
class Name:
    """A name that torch.save writes, "MODULE NAME"."""

    text: str


@dataclass(eq=False)
class Storage:
    """Memory that tensors look into; ``data``, uint8, is put in by the reader of the file."""

    dtype: str
    data: np.ndarray


@dataclass(frozen=True, eq=False)
class Tensor:
    storage: Storage
    dtype: str
    offset: int  # in elements of dtype, as the strides
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class Refused(Exception):
    """What is wrong with a pickle: what it must do; what it does."""


def load(path: Path, field: str, data: np.ndarray, storage: Callable[[Any], Storage]) -> tuple[Any, int]:
    """Run the pickle at the beginning of ``data``, uint8; return what it builds and the number of its bytes.

    ``storage`` is given the "persistent id" of each storage.  CheckpointError: damaged, or not of tensors alone.
    """
    machine = _Machine(data, storage)
    try:
        machine.run()
        return machine.pop(), machine.place
    except Refused as error:
        must, got = error.args
        hint = "convert it to safetensors where it was made, if you trust it"
        raise broken(path, f"{field}: byte {machine.place}", must, got, hint) from None
    except (IndexError, UnicodeDecodeError):
        raise broken(path, f"{field}: byte {machine.place}", "go on with a pickle of tensors", "other bytes") from None


class _Machine:
    def __init__(self, data: np.ndarray, storage: Callable[[Any], Storage]) -> None:
        self.data, self.place, self.storage = data[:MOST_BYTES].data, 0, storage
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under the open marks
        self.memo: dict[int, Any] = {}

    def run(self) -> None:
        for _ in range(MOST_STEPS):
            code = self.take(1)
            if code == pickle.STOP:
                return
            if code not in OPCODES:
                names = {value: name for name, value in vars(pickle).items() if name.isupper()}
                raise Refused("only build tensors", f"the opcode {names.get(code, short(code))}")
            OPCODES[code](self)
        raise Refused(f"have at most {MOST_STEPS} opcodes", "more")

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.place:
            raise IndexError
        self.place += count
        return bytes(self.data[self.place - count : self.place])

    def number(self, size: int, signed: bool = False) -> int:
        return int.from_bytes(self.take(size), "little", signed=signed)

    def pop(self) -> Any:
        return self.stack.pop()

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def top(self, kind: type) -> Any:
        if type(self.stack[-1]) is not kind:
            raise Refused(f"put members into a {kind.__name__}", type(self.stack[-1]).__name__)
        return self.stack[-1]

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        members, self.stack = self.stack, self.below.pop()
        return members

    def last(self, count: int) -> tuple[Any, ...]:
        return tuple(reversed([self.pop() for _ in range(count)]))

    def set_items(self, members: list[Any]) -> None:
        found = self.top(dict)
        if len(members) % 2:
            raise IndexError
        for key, value in zip(members[::2], members[1::2], strict=True):
            found[_key(key)] = value

    def name(self, module: Any, name: Any) -> None:
        text = f"{module} {name}"
        if text not in CALLS and text not in CLASSES and text not in TORCH_DTYPES:
            raise Refused("only build tensors", f"the name {short(f'{module}.{name}')}, which was not looked up")
        self.push(Name(text))

    def line(self) -> str:
        start = self.place
        while self.take(1) != b"\n":
            if self.place - start > 200:
                raise IndexError
        return bytes(self.data[start : self.place - 1]).decode()

    def global_(self) -> None:
        module = self.line()
        self.name(module, self.line())

    def reduce(self) -> None:
        name, arguments = self.last(2)
        if type(name) is not Name or name.text not in CALLS or type(arguments) is not tuple:
            raise Refused("call only what builds tensors", short(name.text if type(name) is Name else type(name)))
        self.push(_called(name.text, arguments))

    def build(self) -> None:
        """Attributes of an OrderedDict: torch keeps the version of each module there."""
        self.pop()
        self.top(dict)

    def persistent_id(self) -> None:
        found = self.pop()
        if type(found) is not tuple or len(found) < 5 or found[0] != "storage" or type(found[1]) is not Name:
            raise Refused("refer to storages alone", short(found[0]) if type(found) is tuple and found else "another")
        self.push(self.storage(found))


def _key(key: Any) -> str | int:
    if type(key) is str or (type(key) is int and abs(key) < 2**63):
        return key
    raise Refused("have dicts with names for keys", type(key).__name__)


def _called(name: str, arguments: tuple[Any, ...]) -> Any:
    """Do what a call of ``name`` would do in torch."""
    if name == "collections OrderedDict":
        pairs = arguments[0] if len(arguments) == 1 else []
        if (
            len(arguments) > 1
            or type(pairs) is not list
            or not all(type(p) in (list, tuple) and len(p) == 2 for p in pairs)
        ):
            raise Refused("make an OrderedDict of pairs", "something else")
        return {_key(key): value for key, value in pairs}
    if name == "torch Size":
        return _integers(arguments[0] if len(arguments) == 1 else None)
    if name == "torch._utils _rebuild_parameter":
        if len(arguments) != 3 or type(arguments[0]) is not Tensor:
            raise Refused("make a parameter of a tensor", "something else")
        return arguments[0]
    count = {"_rebuild_tensor": (4,), "_rebuild_tensor_v2": (6, 7), "_rebuild_tensor_v3": (7, 8)}[name.split()[1]]
    if len(arguments) not in count or type(arguments[0]) is not Storage or type(arguments[1]) is not int:
        raise Refused("make a tensor of a storage, an offset, a shape and strides", "something else")
    storage, offset, shape, stride = arguments[:4]
    dtype = storage.dtype
    if name.endswith("v3"):
        dtype = TORCH_DTYPES.get(arguments[6].text, "") if type(arguments[6]) is Name else ""
        if not dtype:
            raise Refused("make a tensor of a dtype", "something else")
    return Tensor(storage, dtype, offset, _integers(shape), _integers(stride))


def _integers(found: Any) -> tuple[int, ...]:
    if type(found) is not tuple or not all(type(n) is int for n in found):
        raise Refused("have shapes and strides of integers", "something else")
    return found


def _memoize(machine: _Machine, place: int) -> None:
    machine.memo[place] = machine.stack[-1]


def _recall(machine: _Machine, place: int) -> None:
    if place not in machine.memo:
        raise IndexError
    machine.push(machine.memo[place])


def _float(machine: _Machine) -> None:
    machine.push(float(np.frombuffer(machine.take(8), ">f8")[0]))


def _text(machine: _Machine, size: int) -> None:
    machine.push(machine.take(machine.number(size)).decode("utf-8", "surrogatepass"))


def _append(machine: _Machine) -> None:
    value = machine.pop()
    machine.top(list).append(value)


def _appends(machine: _Machine) -> None:
    members = machine.since_mark()
    machine.top(list).extend(members)


def _dict(machine: _Machine) -> None:
    members = machine.since_mark()
    machine.push({})
    machine.set_items(members)


OPCODES: dict[bytes, Callable[[_Machine], Any]] = {
    pickle.PROTO: lambda m: m.take(1),
    pickle.FRAME: lambda m: m.take(8),
    pickle.MARK: lambda m: m.mark(),
    pickle.NONE: lambda m: m.push(None),
    pickle.NEWTRUE: lambda m: m.push(True),
    pickle.NEWFALSE: lambda m: m.push(False),
    pickle.BININT: lambda m: m.push(m.number(4, signed=True)),
    pickle.BININT1: lambda m: m.push(m.number(1)),
    pickle.BININT2: lambda m: m.push(m.number(2)),
    pickle.LONG1: lambda m: m.push(m.number(m.number(1), signed=True)),
    pickle.BINFLOAT: _float,
    pickle.SHORT_BINUNICODE: lambda m: _text(m, 1),
    pickle.BINUNICODE: lambda m: _text(m, 4),
    pickle.BINUNICODE8: lambda m: _text(m, 8),
    pickle.SHORT_BINSTRING: lambda m: _text(m, 1),  # as Python 2 wrote its str
    pickle.BINSTRING: lambda m: _text(m, 4),
    pickle.EMPTY_TUPLE: lambda m: m.push(()),
    pickle.TUPLE1: lambda m: m.push(m.last(1)),
    pickle.TUPLE2: lambda m: m.push(m.last(2)),
    pickle.TUPLE3: lambda m: m.push(m.last(3)),
    pickle.TUPLE: lambda m: m.push(tuple(m.since_mark())),
    pickle.EMPTY_LIST: lambda m: m.push([]),
    pickle.LIST: lambda m: m.push(m.since_mark()),
    pickle.APPEND: _append,
    pickle.APPENDS: _appends,
    pickle.EMPTY_DICT: lambda m: m.push({}),
    pickle.DICT: _dict,
    pickle.SETITEM: lambda m: m.set_items(list(m.last(2))),
    pickle.SETITEMS: lambda m: m.set_items(m.since_mark()),
    pickle.BINPUT: lambda m: _memoize(m, m.number(1)),
    pickle.LONG_BINPUT: lambda m: _memoize(m, m.number(4)),
    pickle.MEMOIZE: lambda m: _memoize(m, len(m.memo)),
    pickle.BINGET: lambda m: _recall(m, m.number(1)),
    pickle.LONG_BINGET: lambda m: _recall(m, m.number(4)),
    pickle.GLOBAL: lambda m: m.global_(),
    pickle.STACK_GLOBAL: lambda m: m.name(*m.last(2)),
    pickle.REDUCE: lambda m: m.reduce(),
    pickle.BUILD: lambda m: m.build(),
    pickle.BINPERSID: lambda m: m.persistent_id(),
}
