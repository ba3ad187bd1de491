"""The reader and the writer of safetensors, judged by the safetensors library."""

import json
import random
import struct

import ml_dtypes
import numpy as np
import pytest
import safetensors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save

from minilm.checkpoint import CheckpointError, open_weights
from minilm.checkpoint.safetensors_file import open_safetensors, write_arrays
from minilm.checkpoint.weights import DTYPES, numpy_dtype

from .damage import damaged, header_damaged

ARRAYS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.arange(5, dtype=np.int64),
    "c": np.array([True, False, True]),
    "d": np.array(3.0),
    "e": np.zeros((0, 4), np.float16),
    "é": np.arange(4, dtype=np.uint8),
    "f": np.arange(4, dtype=np.float16),
}


def test_the_bytes_of_the_library(tmp_path):
    write_arrays(tmp_path / "a", ARRAYS)
    assert (tmp_path / "a").read_bytes() == save(ARRAYS, metadata={"format": "pt"})


@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype_there_and_back(tmp_path, name):
    bits = np.random.default_rng(3).integers(0, 2 if name == "BOOL" else 256, (3, 2, 8), np.uint8)
    array = bits.view(numpy_dtype(name))
    write_arrays(tmp_path / "a", {"x": array})
    entry = open_safetensors(tmp_path / "a")["x"]
    [(_, theirs)] = safetensors.deserialize((tmp_path / "a").read_bytes())
    assert (entry.dtype, list(entry.shape), entry.read().tobytes()) == (name, theirs["shape"], bytes(theirs["data"]))
    assert entry.read().dtype == array.dtype
    assert entry.nbytes == array.nbytes


@pytest.mark.parametrize("name", ["BF16", "F8_E4M3", "F8_E5M2", "F16"])
def test_small_floats_are_those_of_torch(tmp_path, name):
    import torch
    from safetensors.torch import save_file

    dtype = {"BF16": torch.bfloat16, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}.get(name)
    count = 256 if name.startswith("F8") else 65536
    bits = torch.arange(count).to(torch.uint8 if count == 256 else torch.uint16).view(dtype or torch.float16)
    save_file({"x": bits}, tmp_path / "a")
    np.testing.assert_array_equal(open_safetensors(tmp_path / "a")["x"].read(np.float32), bits.float().numpy())


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    arrays=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
        hnp.arrays(
            st.sampled_from([np.float32, np.float16, np.float64, np.int8, np.uint16, np.int64, np.bool_]),
            hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
            elements={"allow_nan": False},
        ),
        min_size=1,  # of nothing, with empty metadata, the library writes what it cannot read
        max_size=5,
    ),
    metadata=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=4), st.text('aé\n\0"', max_size=4)
    ),
)
def test_what_the_library_writes_we_read_and_the_other_way(tmp_path, arrays, metadata):
    arrays.pop("__metadata__", None)
    (tmp_path / "theirs").write_bytes(save(arrays, metadata=metadata))
    write_arrays(tmp_path / "ours", arrays, metadata)
    ours = open_safetensors(tmp_path / "theirs")
    assert ours.metadata == metadata
    assert {name: (entry.dtype, entry.shape) for name, entry in open_safetensors(tmp_path / "ours").items()} == {
        name: (entry.dtype, entry.shape) for name, entry in ours.items()
    }
    theirs = dict(safetensors.deserialize((tmp_path / "ours").read_bytes()))
    for name, array in arrays.items():
        np.testing.assert_array_equal(ours[name].read(), array)
        assert bytes(theirs[name]["data"]) == array.tobytes()


def test_mapped_and_copy_on_write(tmp_path):
    path = tmp_path / "a"
    write_arrays(path, ARRAYS)
    before = path.read_bytes()
    weights = open_weights(path)
    array = weights["a"].read()
    assert np.shares_memory(array, weights["a"].read())
    array[0, 0] = 99
    assert path.read_bytes() == before
    np.testing.assert_array_equal(open_weights(path)["a"].read(), ARRAYS["a"])
    assert weights["a"].read(np.float32) is not None
    assert np.shares_memory(weights["a"].read(np.float32), array)
    assert weights["a"].read(np.float64).dtype == np.float64


def test_an_unaligned_tensor_is_copied_to_where_loops_can_read_it(tmp_path):
    header = json.dumps({"x": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}}).encode()
    for pad in range(8):
        text = header + b" " * pad
        (tmp_path / "a").write_bytes(struct.pack("<Q", len(text)) + text + np.arange(3, dtype="<f4").tobytes())
        array = open_weights(tmp_path / "a")["x"].read()
        assert array.flags.aligned
        np.testing.assert_array_equal(array, [0, 1, 2])


def one(dtype="F32", shape=(2,), offsets=(0, 8), **more):
    return {"x": {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}}


ENTRY = '{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
WRONG = {  # header, data, what is said
    "not an object": ("[]", b"", "the header must begin with '{'"),
    "space before it": (" {}", b"", "the header must begin with '{'"),
    "not JSON": ("{", b"", "the header must be JSON; got Expecting"),
    "NaN": ('{"x":NaN}', b"", "NaN, which is not JSON"),
    "key twice": (f'{{"x":{ENTRY},"x":{ENTRY}}}', b"", "the key 'x' twice"),
    "field twice": (ENTRY.join(['{"x":', "}"]).replace('"shape"', '"dtype":"F32","shape"'), b"", "'dtype' twice"),
    "deep": ('{"x":' * 100_000, b"", "nested too deep"),
    "metadata of numbers": ({"__metadata__": {"a": 1}}, b"", "__metadata__ must be a JSON object of strings"),
    "half a surrogate": ('{"\\ud800":' + ENTRY + "}", b"", "the header must be JSON"),
    "no dtype": ({"x": {"shape": [2], "data_offsets": [0, 8]}}, b"", "tensor 'x' must have the fields"),
    "one field more": (one(more=1), b"", "and no others"),
    "unknown dtype": (one("F4"), b"", "tensor 'x': dtype must be one of BOOL, .*; got 'F4'"),
    "dtype a list": (one(["F32"]), b"", "dtype must be one of"),
    "shape of bool": (one(shape=[True, 2]), b"", r"shape must be integers .*; got \[True, 2\]"),
    "shape of floats": (one(shape=[2.0]), b"", "shape must be integers"),
    "negative shape": (one(shape=[-1, -2]), b"", "shape must be integers"),
    "huge shape": (one(shape=[2**40, 2**40, 0], offsets=[0, 0]), b"", "shape must have fewer than"),
    "absurd shape": (one(shape=[10**4000]), b"", "shape must be integers"),
    "many dimensions": (one(shape=[1] * 65, offsets=[0, 4]), b"", "at most 64 dimensions; got 65"),
    "size": (one(offsets=[0, 7]), bytes(7), r"data_offsets must span the 8 bytes of F32 \[2\]; got 7 bytes"),
    "backwards": (one(offsets=[8, 0]), bytes(8), "data_offsets must lie in the 8 bytes"),
    "past the end": (one(offsets=[4, 12]), bytes(8), "data_offsets must lie in the 8 bytes"),
    "three offsets": (one(offsets=[0, 8, 8]), bytes(8), "data_offsets must be two integers"),
    "offsets of bool": (one(offsets=[False, 8]), bytes(8), "data_offsets must be two integers"),
    "a hole": (one(offsets=[4, 12]), bytes(12), "must begin at 0, where the last one ends; got 4, which leaves a hole"),
    "an overlap": (one() | {"y": one()["x"] | {"data_offsets": [4, 12]}}, bytes(12), "got 4, which overlaps"),
    "too much": (one(), bytes(9), "must end with the last tensor, 8 bytes after the header; got 9 bytes"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_the_format_forbids_is_named(tmp_path, name):
    header, data, message = WRONG[name]
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    with pytest.raises(CheckpointError, match=message) as error:
        open_safetensors(path)
    assert str(error.value).startswith(f"{path}: ")
    assert len(str(error.value)) < len(str(path)) + 400


@pytest.mark.parametrize("length", [3, 2**27, 2**63 - 1, 2**63, 2**64 - 1])
def test_an_absurd_header_length(tmp_path, length):
    (tmp_path / "a").write_bytes(struct.pack("<Q", length) + b"{}")
    with pytest.raises(CheckpointError, match="the header's length must be at most 100000000 and fit into the file"):
        open_safetensors(tmp_path / "a")


def test_what_cannot_be_written(tmp_path):
    for array in (np.zeros(2, np.complex64), np.zeros(2, ">f4"), np.array([None])):
        with pytest.raises(CheckpointError, match="tensor 'x' must have one of the dtypes"):
            write_arrays(tmp_path / "a", {"x": array})


# Where the library accepts and we do not; each is a decision.
STRICTER = (
    "must begin with '{'",  # as the specification says; the library lets white space come first
    "' twice",  # a key of the header twice: the library keeps one of the two
    "and no others",  # unknown fields of a tensor, which the library ignores; a tensor written as a JSON array
    "dtype must be one of",  # C64, F4, F6 and F8_E8M0: nothing here computes with them
    "at most 64 dimensions",  # NumPy's limits
    "fewer than 2**60 elements",
    "below 2**63",
)


def theirs(data):
    try:
        read = safetensors.deserialize(data)
    except safetensors.SafetensorError:
        return None
    return {name: (info["shape"], bytes(info["data"])) for name, info in read}


def ours(path):
    try:
        return {name: (list(entry.shape), entry.read().tobytes()) for name, entry in open_safetensors(path).items()}
    except CheckpointError as error:
        return str(error)


def judged(path, data):
    """Read the bytes with both; the same outcome, or a stricter one of the kinds above.  Return whether we read it."""
    path.write_bytes(data)
    expected, got = theirs(data), ours(path)
    if isinstance(got, dict):
        assert got == expected, data
        return True
    assert expected is None or any(reason in got for reason in STRICTER), (got, data)
    return False


def fuzz(path, runs):
    draw = random.Random(0)
    data = save(ARRAYS, metadata={"format": "pt"})
    read = 0
    for run in range(runs):
        read += judged(path, damaged(data, draw) if run % 4 == 0 else header_damaged(data, draw))
    return read / runs


def test_damaged_files_as_the_library_takes_them(tmp_path):
    assert 0.05 < fuzz(tmp_path / "a", 600) < 0.5


@pytest.mark.slow
def test_many_damaged_files_as_the_library_takes_them(tmp_path):
    assert 0.05 < fuzz(tmp_path / "a", 10_000) < 0.5


def test_not_finite(tmp_path):
    good = {"a": np.ones((3, 4), np.float32), "i": np.arange(3), "h": np.ones(4, ml_dtypes.bfloat16)}
    write_arrays(tmp_path / "a", good)
    open_weights(tmp_path / "a").check()
    for name, bad in (("a", np.nan), ("a", -np.inf), ("h", np.nan)):
        arrays = {key: array.copy() for key, array in good.items()}
        arrays[name].reshape(-1)[3] = bad
        write_arrays(tmp_path / "a", arrays)
        place = {"a": r"\[0, 3\]", "h": r"\[3\]"}[name]
        with pytest.raises(CheckpointError, match=f"a: tensor '{name}' must be finite; got {bad} at {place}"):
            open_weights(tmp_path / "a").check()
