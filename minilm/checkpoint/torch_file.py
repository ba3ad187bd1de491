"""What torch.save writes: ``pytorch_model.bin``, read without torch and without running anything in it.

    since torch 1.6   a zip archive, nothing compressed: NAME/data.pkl, a pickle of the dict with each tensor as
                      (storage, offset, shape, strides), and NAME/data/KEY, the bytes of each storage
    before            pickles end to end: a magic number, the protocol, the machine's sizes, the dict, the storages'
                      keys; then for each key the number of elements, int64, and the bytes

Storages are mapped, so tensors that share one share memory here too.  Source: torch/serialization.py.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np

from . import stored_zip
from .pickled import CLASSES, Refused, Storage, Tensor, load
from .reading import broken, map_file, short
from .weights import DTYPES, Entry, Weights, elements, numpy_dtype

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
CONVERT = "convert it to safetensors where it was made, if you trust it"


def open_torch(path: Path) -> Weights:
    """Return the tensors of a file that torch.save wrote: of a dict of tensors, or of the only such dict in a dict.

    CheckpointError: damaged; a pickle that does anything but build tensors; none or several dicts of tensors.
    """
    file = map_file(path)
    root = _open_zip(path, file) if file[:4].tobytes() == b"PK\3\4" else _open_legacy(path, file)
    return Weights(path, "pytorch", [_entry(path, name, tensor) for name, tensor in _tensors(path, root).items()])


def _tensors(path: Path, root: Any) -> dict[Any, Tensor]:
    """Find the dict of tensors: the root, or else the one member of the root that holds tensors."""

    def of(found: Any) -> dict[Any, Tensor]:
        found = found if isinstance(found, dict) else {}
        return {name: value for name, value in found.items() if isinstance(value, Tensor)}

    if not isinstance(root, dict):
        raise broken(path, "the pickle", "be a dict of tensors", type(root).__name__, CONVERT)
    inner = {name: of(value) for name, value in root.items() if of(value)}
    if of(root):
        inner[""] = of(root)
    if len(inner) > 1 or (root and not inner):
        got = short([name or "the dict itself" for name in inner]) if inner else "none"
        raise broken(path, "the pickle", "hold one dict of tensors", got, "save the one that you mean by itself")
    return next(iter(inner.values()), {})


def _entry(path: Path, name: Any, tensor: Tensor) -> Entry:
    """Return the tensor's entry, after checking that it lies within its storage."""
    field = f"tensor {short(name)}"
    if not isinstance(name, str):
        raise broken(path, field, "have a name", type(name).__name__, CONVERT)
    shape, stride, size = tensor.shape, tensor.stride, DTYPES[tensor.dtype][1]
    count = elements(path, field, list(shape))
    room = tensor.storage.data.nbytes // size
    if len(stride) != len(shape) or min(stride, default=0) < 0 or tensor.offset < 0:
        got = f"strides {short(stride)}, offset {short(tensor.offset)}"
        raise broken(path, field, f"have a stride of at least 0 for each dimension of {short(shape)}", got)
    last = tensor.offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
    if count > room or (count and last >= room):  # count > room: a small storage, repeated by strides of 0
        got = f"shape {short(shape)}, strides {short(stride)}, offset {short(tensor.offset)}"
        raise broken(path, field, f"lie within the {room} elements of its storage", got)
    strides = [s * size for s in stride] if count else None
    start = tensor.offset * size if count else 0

    def array() -> np.ndarray:
        dtype = numpy_dtype(tensor.dtype)
        view: np.ndarray = np.ndarray(shape, dtype, tensor.storage.data.data, start, strides)
        return view if view.flags.aligned else view.copy()

    return Entry(name, tensor.dtype, shape, math.prod(shape) * size, path, array)


# Since torch 1.6: a zip archive.


def _open_zip(path: Path, file: np.ndarray) -> Any:
    records = stored_zip.directory(path, file)
    pickles = [name for name in records if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise broken(path, "the zip archive", "hold one NAME/data.pkl", len(pickles), "is it torch.save's?")
    folder = pickles[0].removesuffix("data.pkl")
    order = stored_zip.member(path, file, records, f"{folder}byteorder") if f"{folder}byteorder" in records else None
    if order is not None and order.tobytes() != b"little":
        raise broken(path, "byteorder", "be little", short(order[:8].tobytes()), CONVERT)
    storages: dict[str, np.ndarray] = {}

    def storage(found: tuple[Any, ...]) -> Storage:
        dtype, key, numel = _storage_id(found, 5)
        if key not in storages:
            storages[key] = stored_zip.member(path, file, records, f"{folder}data/{key}")
        nbytes = numel * DTYPES[dtype][1]
        if nbytes > storages[key].nbytes:
            raise Refused(f"have storage {short(key)} within its {storages[key].nbytes} bytes", f"{nbytes} bytes")
        return Storage(dtype, storages[key][:nbytes])

    return load(path, pickles[0], stored_zip.member(path, file, records, pickles[0]), storage)[0]


def _storage_id(found: tuple[Any, ...], length: int) -> tuple[str, str, int]:
    """Return dtype, key and number of elements of a storage out of its persistent id."""
    if len(found) != length or type(found[2]) is not str or type(found[4]) is not int or found[4] < 0:
        raise Refused("name storages by class, key, device and size", "something else")
    if found[1].text not in CLASSES:
        raise Refused("have storages of known classes", short(found[1].text))
    return CLASSES[found[1].text], found[2], found[4]


# Before: pickles end to end.


def _open_legacy(path: Path, file: np.ndarray) -> Any:
    waiting: list[tuple[Storage, str, int, int]] = []  # storages, and what they are of the one with that key

    def storage(found: tuple[Any, ...]) -> Storage:
        dtype, key, numel = _storage_id(found, 6)
        size = DTYPES[dtype][1]
        begin = 0
        if found[5] is not None:  # a view of a part of the storage
            if type(found[5]) is not tuple or len(found[5]) != 3 or not all(type(n) is int for n in found[5][1:]):
                raise Refused("have views by key, offset and size", "something else")
            begin, numel = found[5][1:]
        if begin < 0 or numel < 0:
            raise Refused("have views by key, offset and size", f"{begin}, {numel}")
        waiting.append((Storage(dtype, np.zeros(0, np.uint8)), key, begin * size, (begin + numel) * size))
        return waiting[-1][0]

    place = 0
    parts = []
    for field in ("the magic number", "the protocol", "the machine's sizes", "the pickle", "the storages' keys"):
        found, length = load(path, field, file[place:], storage)
        place += length
        parts.append(found)
        if parts[0] != MAGIC or type(parts[0]) is not int:
            raise broken(path, "the magic number", "be torch.save's", "another", "is it torch.save's?")
    _, protocol, sizes, root, keys = parts
    if protocol != PROTOCOL or type(sizes) is not dict or sizes.get("little_endian") is not True:
        raise broken(path, "the protocol", f"be {PROTOCOL}, little-endian", short(protocol), CONVERT)
    if type(keys) is not list or not all(type(key) is str for key in keys):
        raise broken(path, "the storages' keys", "be a list of names", short(type(keys)))
    data = _legacy_storages(path, file, place, keys, {key: DTYPES[one.dtype][1] for one, key, _, _ in waiting})
    for one, key, begin, end in waiting:
        if key not in data or end > data[key].nbytes:
            got = f"{data[key].nbytes} bytes" if key in data else "none"
            raise broken(path, f"storage {short(key)}", f"have {end} bytes", got)
        one.data = data[key][begin:end]
    return root


def _legacy_storages(
    path: Path, file: np.ndarray, place: int, keys: list[str], itemsizes: dict[str, int]
) -> dict[str, np.ndarray]:
    """Return the bytes of each storage, uint8, which lie in the file in the order of the keys from ``place`` on."""
    data = {}
    for key in keys:
        numel = int.from_bytes(file[place : place + 8].tobytes(), "little")
        nbytes = numel * itemsizes.get(key, 1)
        place += 8
        if place + nbytes > len(file):
            raise broken(path, f"storage {short(key)}", f"lie in the {len(file)} bytes of the file", f"{nbytes} bytes")
        data[key] = file[place : place + nbytes]
        place += nbytes
    return data
