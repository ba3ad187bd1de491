"""Catch writes into arrays that the tape has saved, so that they end in an error and not in a wrong gradient.

Writes through the library (``tensor[...] = value``, an optimizer's step) are announced with ``wrote`` and cost one
comparison of integers per node.  Writes behind its back need an array in the user's hands: one given to ``Tensor``, or
one read from ``tensor.data``.  Those arrays are announced with ``expose``, and only they pay for a checksum when an op
saves them and again when its backward runs.  Parameters of a model that nobody looks into are never read twice.
"""

import weakref
import zlib
from typing import NamedTuple

import numpy as np

_clock = 0  # counts announcements; what is saved is stamped with it
_written: dict[int, tuple[weakref.ref, int]] = {}  # id of the array that owns the memory -> when
_exposed: dict[int, "_Exposed"] = {}


class _Exposed(NamedTuple):
    owner: weakref.ref
    time: int
    seen: weakref.ref  # the array that was handed out, and its checksum then
    checksum: int


class Seal(NamedTuple):
    """When an op saved its arrays, and the checksums of those that the user can reach."""

    time: int
    checksums: dict[int, int] | None


def wrote(array: np.ndarray) -> None:
    """Announce that ``array`` is being written to."""
    global _clock
    _clock += 1
    owner = _owner(array)
    key = id(owner)
    _written[key] = (weakref.ref(owner, lambda _: _written.pop(key, None)), _clock)


def expose(array: np.ndarray) -> np.ndarray:
    """Announce that the user holds ``array``, or a view of it, and return it."""
    global _clock
    owner = _owner(array)
    key = id(owner)
    if key not in _exposed:
        _clock += 1
        forget = weakref.ref(owner, lambda _: _exposed.pop(key, None))
        _exposed[key] = _Exposed(forget, _clock, weakref.ref(array), _checksum(array))
    return array


def seal(saved: tuple) -> Seal:
    """Return the stamp that ``broken`` needs."""
    checksums = None
    if _exposed:
        for i, array in enumerate(saved):
            if isinstance(array, np.ndarray) and id(_owner(array)) in _exposed:
                checksums = checksums or {}
                checksums[i] = _checksum(array)
    return Seal(_clock, checksums)


def broken(saved: tuple, seal: Seal) -> np.ndarray | None:
    """Return the first array of ``saved`` that was written to since it was sealed, or None."""
    if seal.checksums is None and seal.time == _clock:
        return None
    for i, array in enumerate(saved):
        if not isinstance(array, np.ndarray):
            continue
        owner = id(_owner(array))
        if owner in _written and _written[owner][1] > seal.time:
            return array
        if seal.checksums and i in seal.checksums:
            if _checksum(array) != seal.checksums[i]:
                return array
        elif owner in _exposed and _exposed[owner].time > seal.time:  # handed out after it was saved
            seen = _exposed[owner].seen()
            if seen is not None and _checksum(seen) != _exposed[owner].checksum:
                return array
    return None


def _owner(array: np.ndarray) -> np.ndarray:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _checksum(array: np.ndarray) -> int:
    if array.dtype.hasobject:
        return 0
    return zlib.crc32(array.reshape(-1).view(np.uint8) if array.flags.c_contiguous else array.tobytes())
