"""The safetensors format: 8 bytes of length, a JSON header, and the tensors end to end.

    n, 8 bytes little-endian | header, n bytes: {"NAME": {"dtype", "shape", "data_offsets": [begin, end]}, ...} | data

``data_offsets`` count from the end of the header.  The tensors fill the data without overlap and without holes.
Source: the format's specification, https://huggingface.co/docs/safetensors.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .reading import MOST_JSON, broken, map_file, parse_json, short
from .weights import DTYPES, NAMES, Entry, Weights, elements, plain

FIELDS = {"dtype", "shape", "data_offsets"}


def open_safetensors(path: Path) -> Weights:
    """Return the tensors of a safetensors file.  CheckpointError: anything that the format forbids."""
    file = map_file(path)
    if len(file) < 8:
        raise broken(path, "the file", "be safetensors, 8 bytes of length first", f"{len(file)} bytes")
    length = int(file[:8].view("<u8")[0])
    if length > min(MOST_JSON, len(file) - 8):
        must = f"be at most {MOST_JSON} and fit into the file's {len(file)} bytes"
        raise broken(path, "the header's length", must, length, "is it safetensors? take another copy of it")
    text = file[8 : 8 + length].tobytes()
    if not text.startswith(b"{"):
        raise broken(
            path, "the header", "begin with '{'", short(text[:1]), "is it safetensors? take another copy of it"
        )
    header = parse_json(path, "the header", text)
    metadata = header.pop("__metadata__", None)
    if not _is_metadata(metadata):
        raise broken(path, "__metadata__", "be a JSON object of strings", short(metadata))
    data = file[8 + length :]
    entries = [_entry(path, name, info, data) for name, info in header.items()]
    _check_order(path, {entry.name: header[entry.name]["data_offsets"] for entry in entries}, len(data))
    return Weights(path, "safetensors", entries, metadata)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a safetensors file, mapped.  CheckpointError: missing, cut short, something else."""
    return {name: entry.read() for name, entry in open_safetensors(path).items()}


def _is_metadata(found: Any) -> bool:
    return found is None or (isinstance(found, dict) and all(isinstance(value, str) for value in found.values()))


def _entry(path: Path, name: str, info: Any, data: np.ndarray) -> Entry:
    field = f"tensor {short(name)}"
    if not isinstance(info, dict) or info.keys() != FIELDS:
        raise broken(path, field, f"have the fields {', '.join(sorted(FIELDS))} and no others", short(info))
    dtype, shape, offsets = info["dtype"], info["shape"], info["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise broken(path, f"{field}: dtype", f"be one of {', '.join(DTYPES)}", short(dtype))
    if not isinstance(shape, list):
        raise broken(path, f"{field}: shape", "be a list", short(shape))
    nbytes = elements(path, field, shape) * DTYPES[dtype][1]
    if not (isinstance(offsets, list) and len(offsets) == 2 and all(type(n) is int for n in offsets)):
        raise broken(path, f"{field}: data_offsets", "be two integers", short(offsets))
    begin, end = offsets
    if not 0 <= begin <= end <= len(data):
        raise broken(path, f"{field}: data_offsets", f"lie in the {len(data)} bytes of data", short(offsets))
    if end - begin != nbytes:
        must = f"span the {nbytes} bytes of {dtype} {short(shape)}"
        raise broken(path, f"{field}: data_offsets", must, f"{end - begin} bytes")
    return plain(name, dtype, tuple(shape), path, data[begin:end])


def _check_order(path: Path, offsets: Mapping[str, list[int]], length: int) -> None:
    """Check that tensor follows on tensor up to the end of the file."""
    last = 0
    for name, (begin, end) in sorted(offsets.items(), key=lambda item: item[1]):
        if begin != last:
            got = f"{begin}, which leaves a hole" if begin > last else f"{begin}, which overlaps"
            raise broken(path, f"tensor {short(name)}: data_offsets", f"begin at {last}, where the last one ends", got)
        last = end
    if last != length:
        raise broken(path, "the file", f"end with the last tensor, {last} bytes after the header", f"{length} bytes")


def write_arrays(
    path: Path, arrays: Mapping[str, np.ndarray | Entry], metadata: Mapping[str, str] | None = None
) -> None:
    """Write arrays as a safetensors file, one at a time, and wait until it is on the disk.

    The same arrays give the same bytes whatever their order: the widest type first, so that all lie aligned, then by
    name.  Entries are read one at a time.  CheckpointError: a dtype that the format does not have.
    """
    order = list(DTYPES)
    dtypes = {name: stored_dtype(path, name, array) for name, array in arrays.items()}
    sizes = stored_sizes(path, arrays)
    names = sorted(arrays, key=lambda name: (-order.index(dtypes[name]), name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"} if metadata is None else dict(metadata)}
    end = 0
    for name in names:
        begin, end = end, end + sizes[name]
        header[name] = {"dtype": dtypes[name], "shape": list(arrays[name].shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in names:
            array = arrays[name]
            array = array.read() if isinstance(array, Entry) else array
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        file.flush()
        os.fsync(file.fileno())


def stored_dtype(path: Path, name: str, array: np.ndarray | Entry) -> str:
    """Return the format's name of an array's dtype.  CheckpointError where it has none."""
    dtype = array.numpy_dtype if isinstance(array, Entry) else array.dtype
    found = NAMES.get(dtype.name)
    if found is None or dtype.byteorder == ">":
        must = f"have one of the dtypes {', '.join(NAMES)}, little-endian"
        raise broken(path, f"tensor {short(name)}", must, dtype, "convert it with astype")
    return found


def stored_sizes(path: Path, arrays: Mapping[str, np.ndarray | Entry]) -> dict[str, int]:
    """Return the bytes that each array takes in a file.  CheckpointError: a dtype that the format does not have."""
    return {name: math.prod(array.shape) * DTYPES[stored_dtype(path, name, array)][1] for name, array in arrays.items()}
