"""The GGUF format, versions 2 and 3: metadata of any kind, and tensors that may be quantised.

    "GGUF" | version u32 | tensors u64 | pairs u64 | pairs: key, type u32, value | tensors: name, dimensions u32,
    their lengths u64 from the innermost outwards, type u32, offset u64 | padding | data

A string is its length, u64, and UTF-8; an array its members' type, u32, its length, u64, and they.  Offsets count from
the beginning of the data, which like every tensor begins at a multiple of general.alignment, or of 32.
Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from pathlib import Path
from typing import Any

import numpy as np

from .quantized import BLOCKS, dequantize
from .reading import broken, map_file, short
from .weights import DTYPES, Entry, Weights, elements, plain

TYPES = {  # the number of a tensor's type -> its name: of those read here
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    8: "Q8_0",
    12: "Q4_K",
    14: "Q6_K",
    24: "I8",
    25: "I16",
    26: "I32",
    27: "I64",
    28: "F64",
    30: "BF16",
}
OTHERS = {6: "Q5_0", 7: "Q5_1", 10: "Q2_K", 11: "Q3_K", 13: "Q5_K", 15: "Q8_K", 20: "IQ4_NL", 23: "IQ4_XS"}
NUMBERS = {  # the number of a value's type -> its NumPy dtype; 7 is bool, 8 a string, 9 an array
    0: "u1",
    1: "i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
BOOL, STRING, ARRAY = 7, 8, 9
MOST_NESTED = 4
ALIGNMENT = "general.alignment"


def open_gguf(path: Path) -> Weights:
    """Return the tensors of a GGUF file under its own names, shapes as NumPy has them (outermost first).

    ``metadata`` holds every key: numbers, bools and strings; arrays of strings and of arrays as lists, all others as
    NumPy arrays.  Quantised tensors are read as float32.  CheckpointError: damaged, or of a type not read here.
    """
    reader = _Reader(path, map_file(path))
    if reader.take(4, "the magic number") != b"GGUF":
        raise broken(path, "the magic number", "be GGUF", "another", "is it GGUF?")
    version = reader.integer(4, "the version")
    if version not in (2, 3):
        hint = "it is of a big-endian machine" if version & 0xFFFF == 0 else "convert it anew"
        raise broken(path, "the version", "be 2 or 3", version, hint)
    count = reader.count(24, "the number of tensors")  # bytes that one takes at least
    pairs = reader.count(13, "the number of metadata pairs")
    metadata: dict[str, Any] = {}
    for i in range(pairs):
        key = reader.string(f"metadata key {i}")
        if key in metadata:
            raise broken(path, f"metadata {short(key)}", "be there once", "it again")
        metadata[key] = reader.value(reader.integer(4, short(key)), f"metadata {short(key)}")
    alignment = metadata.get(ALIGNMENT, 32)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1) or alignment > 2**20:
        raise broken(path, ALIGNMENT, "be a power of two, at most 2**20", short(alignment))
    infos = [reader.tensor(i) for i in range(count)]
    data = reader.file[-(-reader.place // alignment) * alignment :]
    entries = [_entry(path, *info, alignment=alignment, data=data) for info in infos]
    _check_overlap(path, [(offset, entry) for (_, _, _, offset), entry in zip(infos, entries, strict=True)])
    return Weights(path, "gguf", entries, metadata)


def _entry(
    path: Path, name: str, shape: list[int], kind: int, offset: int, *, alignment: int, data: np.ndarray
) -> Entry:
    field = f"tensor {short(name)}"
    if kind not in TYPES:
        got = OTHERS.get(kind, f"number {kind}")
        raise broken(path, f"{field}: type", f"be one of {', '.join(TYPES.values())}", got, "take another quantisation")
    dtype = TYPES[kind]
    count = elements(path, field, shape)
    block, size = BLOCKS[dtype][:2] if dtype in BLOCKS else (1, DTYPES[dtype][1])
    if (shape[-1] if shape else 1) % block:
        raise broken(path, f"{field}: shape", f"end with a multiple of {block}, a block of {dtype}", short(shape))
    nbytes = count // block * size
    if offset % alignment:
        raise broken(path, f"{field}: offset", f"be a multiple of {alignment}", offset)
    if offset + nbytes > len(data):
        got = f"{nbytes} bytes at {offset}"
        raise broken(path, f"{field}: offset", f"lie with its {dtype} {shape} in the {len(data)} bytes of data", got)
    raw = data[offset : offset + nbytes]
    if dtype in BLOCKS:
        return Entry(name, dtype, tuple(shape), nbytes, path, lambda: dequantize(raw, dtype).reshape(shape))
    return plain(name, dtype, tuple(shape), path, raw)


def _check_overlap(path: Path, tensors: list[tuple[int, Entry]]) -> None:
    last = 0
    for offset, entry in sorted(tensors, key=lambda pair: (pair[0], pair[1].nbytes)):
        if offset < last and entry.nbytes:
            raise broken(
                path, f"tensor {short(entry.name)}: offset", f"be {last} at least, after the one before", offset
            )
        last = max(last, offset + entry.nbytes)


class _Reader:
    """A place in the bytes of a file; every step is checked against its end."""

    def __init__(self, path: Path, file: np.ndarray) -> None:
        self.path, self.file, self.bytes, self.place = path, file, file.data, 0

    def take(self, size: int, field: str) -> bytes:
        if size > len(self.file) - self.place:
            raise broken(self.path, field, f"lie in the {len(self.file)} bytes of the file", f"{size} at {self.place}")
        self.place += size
        return bytes(self.bytes[self.place - size : self.place])

    def integer(self, size: int, field: str) -> int:
        return int.from_bytes(self.take(size, field), "little")

    def count(self, size: int, field: str) -> int:
        """Return a number of things that take ``size`` bytes each at least, after checking that there is room."""
        count = self.integer(8, field)
        if count * size > len(self.file) - self.place:
            must = f"leave room for {size} bytes each in the {len(self.file)} bytes of the file"
            raise broken(self.path, field, must, count)
        return count

    def string(self, field: str) -> str:
        data = self.take(self.count(1, field), field)
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise broken(self.path, field, "be UTF-8", error) from None

    def value(self, kind: int, field: str, depth: int = 0) -> Any:
        if kind == STRING:
            return self.string(field)
        if kind == ARRAY:
            return self.array(field, depth)
        return self.numbers(kind, 1, field)[0].item()

    def array(self, field: str, depth: int) -> Any:
        kind = self.integer(4, field)
        if depth > MOST_NESTED:
            raise broken(self.path, field, f"be an array nested at most {MOST_NESTED} deep", "deeper")
        if kind in (STRING, ARRAY):
            length = self.count(8 if kind == STRING else 12, field)
            return [self.value(kind, field, depth + 1) for _ in range(length)]
        return self.numbers(kind, self.count(1, field), field)

    def numbers(self, kind: int, length: int, field: str) -> np.ndarray:
        """Return numbers or bools, (length,), in memory of their own."""
        if kind != BOOL and kind not in NUMBERS:
            raise broken(self.path, f"{field}: type", "be one of 0 to 12", kind)
        dtype = np.dtype("u1" if kind == BOOL else NUMBERS[kind])
        data = np.frombuffer(bytearray(self.take(length * dtype.itemsize, field)), np.uint8)
        if kind == BOOL and (data > 1).any():
            raise broken(self.path, field, "be bools, 0 or 1", int(data.max()))
        return data.view(bool if kind == BOOL else dtype)

    def tensor(self, number: int) -> tuple[str, list[int], int, int]:
        """Return name, shape, type and offset of a tensor."""
        name = self.string(f"the name of tensor {number}")
        field = f"tensor {short(name)}"
        dimensions = self.integer(4, field)
        if dimensions > 4:
            raise broken(self.path, f"{field}: dimensions", "be at most 4", dimensions)
        shape = [self.integer(8, field) for _ in range(dimensions)][::-1]
        return name, shape, self.integer(4, field), self.integer(8, field)
