"""pytorch_model.bin, judged by torch: what it writes is read, and nothing in it is ever run."""

import os
import random
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch

from minilm.checkpoint import CheckpointError, open_weights, pickled, stored_zip

from .damage import damaged

FORMS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
BASE = torch.arange(24.0).reshape(4, 6)
FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
INTEGERS = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool]


def state():
    return OrderedDict(
        whole=BASE,
        transposed=BASE.t(),
        part=BASE[1:3, 1::2],
        row=BASE[3],
        parameter=torch.nn.Parameter(torch.ones(2, 3)),
        none=torch.zeros(0, 3),
        number=torch.tensor(3),
        expanded=torch.arange(5).expand(1, -1),
        **{str(dtype): torch.tensor([1, 0, 1], dtype=dtype) for dtype in FLOATS + INTEGERS},
    )


def saved(path, content, zipped=True, **options):
    torch.save(content, path, _use_new_zipfile_serialization=zipped, **options)
    return path


def same(weights, expected):
    assert list(weights) == list(expected)
    for name, tensor in expected.items():
        array = weights[name].read()
        assert array.shape == weights[name].shape == tuple(tensor.shape)
        assert array.dtype.name == str(tensor.dtype).removeprefix("torch.")
        np.testing.assert_array_equal(array.astype(np.float64), tensor.detach().double().numpy())
        assert array.flags.aligned


@FORMS
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_every_dtype_and_stride(tmp_path, zipped, protocol):
    same(open_weights(saved(tmp_path / "a", state(), zipped, pickle_protocol=protocol)), state())


def test_dtypes_that_only_the_zip_form_has(tmp_path):
    content = {
        str(dtype): torch.tensor([1, 0, 1]).to(dtype)
        for dtype in (torch.float8_e4m3fn, torch.float8_e5m2, torch.uint16, torch.uint32, torch.uint64)
    }
    same(open_weights(saved(tmp_path / "a", content)), content)


@FORMS
def test_a_modules_state(tmp_path, zipped):
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    same(open_weights(saved(tmp_path / "a", module.state_dict(), zipped)), module.state_dict())


@FORMS
def test_tensors_of_one_storage_share_memory_and_the_file_stays(tmp_path, zipped):
    path = saved(tmp_path / "a", {"x": BASE, "y": BASE.t()}, zipped)
    before = path.read_bytes()
    weights = open_weights(path)
    x, y = weights["x"].read(), weights["y"].read()
    if zipped:  # aligned to 64 bytes; the older form is not, and is copied
        assert np.shares_memory(x, y)
    x[0, 1] = 99
    assert path.read_bytes() == before


@FORMS
def test_a_dict_around_it(tmp_path, zipped):
    optimizer = {"state": {0: {"exp_avg": BASE}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    content = {"model": state(), "optimizer": optimizer, "epoch": 3, "name": "é", "dtype": torch.float16}
    content |= {"size": torch.Size([1, 2]), "none": None, "flags": (True, False), "big": 2**70, "loss": [1.5, -1]}
    same(open_weights(saved(tmp_path / "a", content, zipped)), state())
    same(open_weights(saved(tmp_path / "a", state() | {"step": 3}, zipped)), state())


AMBIGUOUS = {
    "two": ({"model": {"x": BASE}, "ema": {"x": BASE}}, r"hold one dict of tensors; got \['model', 'ema'\]"),
    "in and out": ({"x": BASE, "more": {"x": BASE}}, r"hold one dict of tensors; got \['more', 'the dict itself'\]"),
    "a tensor": (BASE, "must be a dict of tensors; got Tensor"),
    "a list": ([BASE], "must be a dict of tensors; got list"),
    "numbers for names": ({0: BASE}, "tensor 0 must have a name; got int"),
    "too deep": ({"a": {"b": {"c": BASE}}}, "hold one dict of tensors; got none"),
}


@FORMS
@pytest.mark.parametrize("name", AMBIGUOUS)
def test_which_dict_is_meant_must_be_clear(tmp_path, zipped, name):
    content, message = AMBIGUOUS[name]
    with pytest.raises(CheckpointError, match=message):
        open_weights(saved(tmp_path / "a", content, zipped))


class Calls:
    """An object whose pickle calls a function with arguments."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class State:
    def __init__(self):
        self.x = BASE


@FORMS
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    ("content", "name"),
    [
        (lambda marker: Calls(os.system, f"touch {marker}"), "posix.system|nt.system"),
        (lambda marker: Calls(eval, f"open({marker!r}, 'w')"), "__builtin__.eval|builtins.eval"),
        (lambda marker: Calls(open, marker, "w"), "io.open"),
        (lambda marker: Calls(torch.load, marker), "torch.serialization.load"),
        (lambda marker: Calls(torch.zeros, 10**12), "getattr"),
        (lambda marker: State(), "State"),
        (lambda marker: np.float64(3), "numpy"),
        (lambda marker: torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        (lambda marker: {1, 2}, "set|EMPTY_SET"),
        (lambda marker: complex(1, 2), "complex"),
        (lambda marker: bytearray(3), "bytearray"),
        (lambda marker: torch.device("cpu"), "torch.device"),
        (lambda marker: torch.sparse_coo_tensor([[0]], [1.0], (2,), check_invariants=True), "_rebuild_sparse_tensor"),
    ],
)
def test_nothing_else_is_built_and_nothing_run(tmp_path, zipped, protocol, content, name):
    marker = tmp_path / "touched"
    path = saved(tmp_path / "a", {"x": BASE, "y": content(str(marker))}, zipped, pickle_protocol=protocol)
    with pytest.raises(CheckpointError, match=f"must only build tensors; got the (name|opcode) .*({name})"):
        open_weights(path)
    assert not marker.exists()


def zipped_pickle(path, data, *, compress=zipfile.ZIP_STORED, members=()):
    """Write an archive as torch does around a pickle made by hand."""
    with zipfile.ZipFile(path, "w", compress) as archive:
        archive.writestr("a/data.pkl", data)
        archive.writestr("a/byteorder", "little")
        archive.writestr("a/data/0", bytes(16))
        for name, content in members:
            archive.writestr(name, content)
    return path


def tensor(
    shape, stride, offset=0, numel=4, storage="torch\nFloatStorage\n", call="torch._utils\n_rebuild_tensor_v2\n"
):
    """Return the pickle of {"x": tensor}, opcode by opcode."""

    def number(n):
        size = (n.bit_length() + 8) // 8
        return b"\x8a" + bytes([size]) + n.to_bytes(size, "little", signed=True)

    def numbers(values):
        return b"(" + b"".join(number(n) for n in values) + b"t"

    def text(value):
        return b"X" + struct.pack("<I", len(value)) + value

    storage_id = b"(" + text(b"storage") + b"c" + storage.encode() + text(b"0") + text(b"cpu") + number(numel) + b"tQ"
    arguments = b"(" + storage_id + number(offset) + numbers(shape) + numbers(stride) + b"\x89}t"
    return b"\x80\2}" + text(b"x") + b"c" + call.encode() + arguments + b"Rs."


def test_the_pickle_made_by_hand_is_one_that_is_read(tmp_path):
    same(open_weights(zipped_pickle(tmp_path / "a", tensor([2, 2], [2, 1]))), {"x": torch.zeros(2, 2)})


OUTSIDE = {
    "too long": (([5], [1]), "must lie within the 4 elements of its storage"),
    "offset": (([2], [1], 3), "must lie within the 4 elements"),
    "huge offset": (([1], [1], 2**62), "must lie within the 4 elements"),
    "negative offset": (([1], [1], -1), "must have a stride of at least 0"),
    "strides": (([2, 2], [3, 1]), "must lie within the 4 elements"),
    "negative stride": (([2], [-1], 1), "must have a stride of at least 0"),
    "repeated": (([1000, 1000], [0, 0]), "must lie within the 4 elements"),
    "repeated without end": (([2**40, 2**40], [0, 0]), "shape must have fewer than"),
    "negative shape": (([-1], [1]), "shape must be integers of at least 0"),
    "strides missing": (([2, 2], [1]), "must have a stride of at least 0 for each dimension"),
    "storage": (([2], [1], 0, 5), "have storage '0' within its 16 bytes; got 20 bytes"),
    "negative storage": (([2], [1], 0, -1), "name storages by class, key, device and size"),
    "wider storage": (([2], [1], 0, 4, "torch\nDoubleStorage\n"), "have storage '0' within its 16 bytes; got 32"),
    "no storage": (([2], [1], 0, 4, "torch\nfloat32\n"), "have storages of known classes"),
    "unknown storage": (([2], [1], 0, 4, "torch\nQInt8Storage\n"), "the name 'torch.QInt8Storage'"),
    "called storage": (([2], [1], 0, 4, "torch\nFloatStorage\n", "torch\nFloatStorage\n"), "call only what builds"),
    "a size": (([2], [1], 0, 4, "torch\nFloatStorage\n", "torch\nSize\n"), "integers"),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_tensors_lie_within_their_storages(tmp_path, name):
    arguments, message = OUTSIDE[name]
    with pytest.raises(CheckpointError, match=message):
        open_weights(zipped_pickle(tmp_path / "a", tensor(*arguments)))


NEST = b"\x80\2" + b"]" * 100_000
BOMBS = {
    "absurd string": b"\x80\4\x8d" + struct.pack("<Q", 2**62),
    "absurd bytes": b"\x80\4\x8e" + struct.pack("<Q", 2**40),
    "absurd bytearray": b"\x80\5\x96" + struct.pack("<Q", 2**40),
    "absurd long": b"\x80\2\x8b" + struct.pack("<i", 2**31 - 1),
    "absurd frame": b"\x80\4\x95" + struct.pack("<Q", 2**62),
    "sparse memo": b"\x80\2]r\xff\xff\xff\xff]r\xfe\xff\xff\xff0",
    "no memo": b"\x80\2h\7.",
    "nested lists": NEST + b"a" * 99_999 + b".",
    "nested tuples": b"\x80\2)" + b"\x85" * 200_000 + b".",
    "a nested tuple for a key": b"\x80\2})" + b"\x85" * 200_000 + b"Ns.",
    "doubling": b"\x80\2]q\0"
    + b"".join(b"]q" + bytes([i + 1]) + b"(" + (b"h" + bytes([i])) * 10 + b"e" for i in range(200))
    + b".",
    "marks": b"\x80\2" + b"(" * 200_000,
    "dicts": b"\x80\2" + b"}" * 200_000,
    "empty": b"",
    "stop": b"\x80\2.",
    "pop of nothing": b"\x80\2e.",
    "protocol 0": b"cos\nsystem\n(S'true'\ntR.",
    "name without end": b"\x80\2c" + b"a" * 200_000,
    "extension": b"\x80\2\x82\1.",
    "instance": b"(i__main__\nC\n.",
    "new": b"\x80\2c__builtin__\nobject\n)\x81.",
    "self": b"\x80\2}q\0X\1\0\0\0xh\0s.",
    "other persistent id": b"\x80\2X\1\0\0\0xQ.",
    "odd items": b"\x80\2}(X\1\0\0\0xu.",
    "keys of lists": b"\x80\2}]Ns.",
    "colliding keys": b"\x80\2}\x8a\x0a" + bytes(8) + b"\1\0Ns.",
}

LIMITED = """
import resource, sys
import numpy, ml_dtypes
from minilm.checkpoint import CheckpointError, open_weights
resource.setrlimit(resource.RLIMIT_AS, (1_500_000_000, 1_500_000_000))
for path in sys.argv[1:]:
    try:
        assert len(open_weights(path)) == 0, path
    except CheckpointError:
        pass
"""


def test_bombs_neither_hang_nor_grab_memory(tmp_path):
    paths = [zipped_pickle(tmp_path / str(i), data) for i, data in enumerate(BOMBS.values())]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", LIMITED, *map(str, paths)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_the_pickle_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(pickled, "MOST_STEPS", 100)
    with pytest.raises(CheckpointError, match="must have at most 100 opcodes; got more"):
        open_weights(zipped_pickle(tmp_path / "a", b"\x80\2" + b"]" * 200))


def test_zip_bombs(tmp_path):
    packed = {"data": tensor([1], [1]), "compress": zipfile.ZIP_DEFLATED}
    path = zipped_pickle(tmp_path / "a", **packed, members=[("a/data/1", bytes(10**6))])
    with pytest.raises(CheckpointError, match=r"be no larger than its \d+ bytes"):
        open_weights(path)
    path = zipped_pickle(tmp_path / "b", **packed, members=[("a/data/1", os.urandom(10**4))])
    with pytest.raises(CheckpointError, match=r"zip member 'a/byteorder' must be stored as it is; got one compressed"):
        open_weights(path)


def test_archives_of_other_kinds(tmp_path):
    path = tmp_path / "a"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "<a/>")
    with pytest.raises(CheckpointError, match=r"must hold one NAME/data.pkl; got 0; is it torch.save's"):
        open_weights(path)
    with pytest.raises(CheckpointError, match=r"must hold one NAME/data.pkl; got 2"):
        open_weights(zipped_pickle(path, tensor([1], [1]), members=[("b/data.pkl", b"")]))
    with pytest.warns(UserWarning, match="Duplicate name"):
        zipped_pickle(path, tensor([1], [1]), members=[("a/byteorder", b"little")])
    with pytest.raises(CheckpointError, match="zip member 'a/byteorder' must be there once"):
        open_weights(path)
    zipped_pickle(path, tensor([1], [1]))
    path.write_bytes(path.read_bytes().replace(b"little", b"bigbig"))
    with pytest.raises(CheckpointError, match="byteorder must be little; got b'bigbig'"):
        open_weights(path)
    zipped_pickle(path, tensor([1], [1]))
    path.write_bytes(path.read_bytes().replace(b"a/data/0", b"a/data/7"))
    with pytest.raises(CheckpointError, match="zip member 'a/data/0' must be there; got none"):
        open_weights(path)


def test_a_large_archive_has_numbers_of_64_bits(tmp_path):
    """Archives beyond 4 GB, and torch's always, have their directory twice; the wide one is the one to believe."""
    path = saved(tmp_path / "a", {"x": BASE})
    data = path.read_bytes()
    assert b"PK\6\6" in data
    end = data.rindex(b"PK\5\6")
    path.write_bytes(data[: end + 8] + b"\xff" * 12 + data[end + 20 :])
    same(open_weights(path), {"x": BASE})
    member = stored_zip._entry(
        struct.pack("<4s4xHH8xLLHHH8xL", b"PK\1\2", 0, 0, 2**32 - 1, 2**32 - 1, 1, 28, 0, 2**32 - 1)
        + b"x"
        + struct.pack("<HHQQQ", 1, 24, 5 * 2**32, 6 * 2**32, 7 * 2**32),
        0,
    )
    assert member == ("x", (0, 0, 6 * 2**32, 5 * 2**32, 7 * 2**32), 46 + 1 + 28)


def fuzz(path, data, runs, marker):
    draw = random.Random(0)
    read = 0
    for _ in range(runs):
        path.write_bytes(damaged(data, draw))
        try:
            arrays = {name: entry.read() for name, entry in open_weights(path).items()}
        except CheckpointError:
            continue
        read += 1
        assert sum(array.size for array in arrays.values()) <= 50 * len(data)
    assert not marker.exists()
    return read / runs


def small(path, zipped):
    content = {"model": {"x": BASE, "y": BASE.t(), "z": torch.ones(3, dtype=torch.bfloat16)}, "epoch": 3}
    return saved(path, content, zipped).read_bytes()


@FORMS
def test_damaged_files(tmp_path, zipped):
    assert 0.02 < fuzz(tmp_path / "b", small(tmp_path / "a", zipped), 300, tmp_path / "touched") < 0.98


@pytest.mark.slow
@FORMS
def test_many_damaged_files(tmp_path, zipped):
    data = small(tmp_path / "a", zipped)
    assert 0.02 < fuzz(tmp_path / "b", data, 3_000, tmp_path / "touched") < 0.98
    hostile = {"x": BASE, "y": Calls(os.system, f"touch {tmp_path / 'touched'}")}
    data = saved(tmp_path / "a", hostile, zipped).read_bytes()
    assert fuzz(tmp_path / "b", data, 1_000, tmp_path / "touched") < 0.1
