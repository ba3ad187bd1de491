"""A set of named tensors that lie in files and are read when they are asked for, whatever the format."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from .reading import broken, short

DTYPES = {  # name in files -> NumPy's name, bytes; in the order in which safetensors files keep their tensors, reversed
    "BOOL": ("bool", 1),
    "U8": ("uint8", 1),
    "I8": ("int8", 1),
    "F8_E5M2": ("float8_e5m2", 1),
    "F8_E4M3": ("float8_e4m3fn", 1),
    "I16": ("int16", 2),
    "U16": ("uint16", 2),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "I32": ("int32", 4),
    "U32": ("uint32", 4),
    "F32": ("float32", 4),
    "F64": ("float64", 8),
    "I64": ("int64", 8),
    "U64": ("uint64", 8),
}
NAMES = {numpy_name: name for name, (numpy_name, _) in DTYPES.items()}
MOST_DIMENSIONS = 64  # NumPy's
CHUNK = 1 << 20  # elements looked at together by check()


def numpy_dtype(name: str) -> np.dtype:
    """Return the NumPy dtype of a name in DTYPES; BF16 and FP8 are those of ml_dtypes."""
    numpy_name = DTYPES[name][0]
    if numpy_name.startswith(("bfloat", "float8")):
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, numpy_name))
    return np.dtype(numpy_name)


@dataclass(frozen=True)
class Entry:
    """One tensor: what is known without reading it, and read() for the rest.

    ``dtype`` is the stored type's name ("F32", "BF16", "Q4_K"), ``nbytes`` what it takes in ``file``.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    file: Path
    array: Callable[[], np.ndarray] = field(repr=False, compare=False)

    @property
    def numpy_dtype(self) -> np.dtype:
        """The dtype of read()."""
        return numpy_dtype(self.dtype if self.dtype in DTYPES else "F32")

    def read(self, dtype: Any = None) -> np.ndarray:
        """Return the tensor, of shape ``shape``.

        Without ``dtype``: as it lies in the file, mapped and not read yet, copy-on-write (a copy only where it lies
        unaligned); BF16 and FP8 as ml_dtypes arrays; quantised types as float32.  With ``dtype``: converted to it,
        where it is another; what does not fit becomes infinite, as in any cast.
        """
        array = self.array()
        if dtype is None or array.dtype == dtype:
            return array
        with np.errstate(all="ignore"):
            return array.astype(dtype)


class Weights(Mapping[str, Entry]):
    """Tensors by name, in the file's order.

    ``path``: the file or folder; ``format``: "safetensors", "pytorch", "gguf" or "llama2.c"; ``metadata``: what the
    file says besides; ``config``: the configuration in the Hugging Face form where the file itself holds one.
    """

    def __init__(
        self,
        path: Path,
        format: str,
        entries: Iterable[Entry],
        metadata: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.path, self.format = path, format
        self.metadata = dict(metadata or {})
        self.config = None if config is None else dict(config)
        self._entries: dict[str, Entry] = {}
        for entry in entries:
            if entry.name in self._entries:
                raise broken(path, f"tensor {short(entry.name)}", "be there once", f"it in {entry.file} again")
            self._entries[entry.name] = entry

    def __getitem__(self, name: str) -> Entry:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"Weights({str(self.path)!r}, {self.format}, {len(self)} tensors, {self.nbytes} bytes)"

    @property
    def names(self) -> list[str]:
        return list(self._entries)

    @property
    def nbytes(self) -> int:
        """What the tensors take in their files."""
        return sum(entry.nbytes for entry in self.values())

    def check(self) -> None:
        """Read everything.  CheckpointError naming the first tensor that holds NaN or infinity, and where."""
        for entry in self.values():
            array = entry.read()
            if array.dtype.kind in "biu":
                continue
            flat = array.reshape(-1)
            for start in range(0, flat.size, CHUNK):
                finite = np.isfinite(flat[start : start + CHUNK])
                if not finite.all():
                    at = start + int(finite.argmin())
                    place = [int(i) for i in np.unravel_index(at, array.shape)]
                    got = f"{float(flat[at])} at {place}"
                    raise broken(entry.file, f"tensor {short(entry.name)}", "be finite", got)


def plain(name: str, dtype: str, shape: tuple[int, ...], file: Path, data: np.ndarray) -> Entry:
    """Return the entry of a tensor whose elements lie in ``data``, uint8, one after the other in C order."""

    def array() -> np.ndarray:
        return aligned(data, numpy_dtype(dtype)).reshape(shape)

    return Entry(name, dtype, shape, data.nbytes, file, array)


def aligned(data: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return bytes as a flat array of ``dtype``: the same memory, or a copy where compiled loops could not read it."""
    array = data.view(dtype)
    return array if array.flags.aligned else array.copy()


def elements(path: Path, field: str, shape: list[Any]) -> int:
    """Return the number of elements of a shape.  CheckpointError where NumPy could have no array of it."""
    if not all(type(n) is int and 0 <= n < 2**63 for n in shape):
        raise broken(path, f"{field}: shape", "be integers of at least 0, below 2**63", short(shape))
    if len(shape) > MOST_DIMENSIONS:
        raise broken(path, f"{field}: shape", f"have at most {MOST_DIMENSIONS} dimensions", len(shape))
    if math.prod(n for n in shape if n) * 8 >= 2**63:
        raise broken(path, f"{field}: shape", "have fewer than 2**60 elements", short(shape))
    return math.prod(shape)


def converted(entry: Entry, dtype: Any) -> Entry:
    """Return the entry of the tensor in another dtype, one of DTYPES; it is converted each time it is read."""
    name = NAMES[np.dtype(dtype).name]
    nbytes = math.prod(entry.shape) * DTYPES[name][1]
    return replace(entry, dtype=name, nbytes=nbytes, array=lambda: entry.read(dtype))


def changed(entry: Entry, name: str, change: Callable[[np.ndarray], np.ndarray] | None = None) -> Entry:
    """Return the entry under another name; ``change`` is done to the array when it is read."""
    if change is None:
        return replace(entry, name=name)
    return replace(entry, name=name, array=lambda: change(entry.array()))
