"""Catch writes into arrays that the tape has saved, so that they end in an error and not in a wrong gradient.

Writes through the library (``tensor[...] = value``, an optimizer's step) are announced with ``wrote`` and cost one
comparison of integers per node.  Writes behind its back need an array in the user's hands: one given to ``Tensor``, or
one read from ``tensor.data``.  Those arrays are announced with ``expose``, and only they pay for a checksum when an op
saves them and again when its backward runs.  Parameters of a model that nobody looks into are never read twice.
"""

import weakref
import zlib
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

_written: dict[int, tuple[weakref.ref, int]] = {}  # id of the array that owns the memory -> when
_exposed: dict[int, "_Exposed"] = {}  # id of the array that owns the memory -> what of it the user has seen


class _Exposed(NamedTuple):
    owner: weakref.ref
    seen: dict[int, "_Seen"]  # by the id of the array


class _Seen(NamedTuple):
    array: weakref.ref
    checksum: int  # when it was handed out


Seal = tuple[int, dict[int, int] | None]  # when an op saved its arrays; checksums of those that the user can reach

_now: Seal = (0, None)  # counts announcements; what is saved is stamped with it


def wrote(*arrays: np.ndarray) -> None:
    """Announce that ``arrays`` are being written to."""
    now = _tick()
    for array in arrays:
        owner = array if array.base is None else _owner(array)
        key = id(owner)
        known = _written.get(key)
        if known is None or known[0]() is not owner:
            ref = weakref.ref(owner, _dropping(_written, key))
        else:
            ref = known[0]
        _written[key] = (ref, now)


def expose(array: np.ndarray, *, given: bool = False) -> np.ndarray:
    """Announce that the user holds ``array``, or a view of it, and return it.

    ``given``: by the user.  Integers of an owner that nobody knew are in no op that is on the tape: its inputs were
    given before, or made here.  So its nodes need not look for them, as they would for the labels of every batch.
    """
    owner = _owner(array)
    key = id(owner)
    if key not in _exposed:
        _exposed[key] = _Exposed(weakref.ref(owner, _dropping(_exposed, key)), {})
        if not (given and array.dtype.kind in "iu"):
            _tick()  # what was saved before without a checksum may be this
    seen = _exposed[key].seen
    whole = owner if 2 * array.nbytes >= owner.nbytes else array  # the owner outlives a view of it
    if (old := seen.get(id(whole))) is None or old.array() is not whole:
        seen[id(whole)] = _Seen(weakref.ref(whole), _checksum(whole))
    return array


def is_exposed(array: np.ndarray) -> bool:
    """Return whether the user was seen to hold ``array``, or what it is a view of."""
    return id(_owner(array)) in _exposed


def seal(saved: tuple) -> Seal:
    """Return the stamp that ``broken`` needs."""
    checksums = None
    if _exposed:
        for i, array in enumerate(saved):
            if isinstance(array, np.ndarray) and id(array if array.base is None else _owner(array)) in _exposed:
                checksums = checksums or {}
                checksums[i] = _checksum(array)
    return _now if checksums is None else (_now[0], checksums)


def broken(saved: tuple, seal: Seal) -> np.ndarray | None:
    """Return the first array of ``saved`` that was written to since it was sealed, or None."""
    if seal is _now:  # nothing was announced since, and nobody can write unannounced
        return None
    time, checksums = seal
    for i, array in enumerate(saved):
        if not isinstance(array, np.ndarray):
            continue
        owner = id(_owner(array))
        if owner in _written and _written[owner][1] > time:
            return array
        if checksums and i in checksums:
            if _checksum(array) != checksums[i]:
                return array
        elif owner in _exposed and _changed(array, _exposed[owner]):
            return array
    return None


def _tick() -> int:
    """Let one announcement pass, and return its number."""
    global _now
    _now = (_now[0] + 1, None)
    return _now[0]


def _changed(array: np.ndarray, exposed: _Exposed) -> bool:
    """Return whether something of ``array``, all handed out after it was saved, was written to since then."""
    for seen in exposed.seen.values():
        part = seen.array()
        if part is not None and np.may_share_memory(part, array) and _checksum(part) != seen.checksum:
            return True
    return False


def _dropping(entries: dict, key: int) -> Callable:
    """What a weak reference calls when its array is gone: no Python code, in which a Ctrl-C would be lost.

    The reference that it is called with is the default of ``pop``.
    """
    return partial(entries.pop, key)


def _owner(array: np.ndarray) -> np.ndarray:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _checksum(array: np.ndarray) -> int:
    if array.dtype.hasobject:
        return 0
    return zlib.crc32(array if array.flags.c_contiguous else array.tobytes())  # type: ignore[arg-type]
