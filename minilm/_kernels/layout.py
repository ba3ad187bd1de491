"""How the wrappers of the compiled loops lay out their arrays.

Loops take C-contiguous arrays.  Those of Cython take them with any axes; those of Numba are compiled again for every
number of axes and every combination of read-only and writable arguments: ``flat`` and ``as_rows`` leave them one.
"""

import math
from functools import cache, lru_cache
from itertools import pairwise

import numpy as np

CHUNKS = 16  # in which sums over rows are made, on any number of threads: so the bits never change
FEW = 8192  # numbers that are summed in one chunk


def flat(x):  # (...) -> (n,)
    """Return x as one row in C order, not to be written to; a view where that is possible."""
    row = x.view() if x.ndim == 1 and x.flags.c_contiguous else np.ascontiguousarray(x).reshape(-1)
    row.flags.writeable = False
    return row


def as_rows(x):  # (..., C) -> (N, C)
    """Return x as a matrix of its last axis, not to be written to; a view where that is possible."""
    if x.ndim == 2 and x.flags.c_contiguous:
        rows = x.view()
    else:
        rows = np.ascontiguousarray(x).reshape(math.prod(x.shape[:-1]), x.shape[-1])
    rows.flags.writeable = False
    return rows


def to_end(x, axis):
    """Return x with ``axis`` and the last one exchanged, which undoes itself."""
    return x if axis == x.ndim - 1 else x.swapaxes(axis, -1)


def scale_of(w, x):  # (C,) or None, (..., C) -> (C,)
    """Return the scale w, or the one that changes nothing where w is None."""
    return np.ones(x.shape[-1], x.dtype) if w is None else np.ascontiguousarray(w)


def shift_of(b, x):  # (C,) or None, (..., C) -> (C,)
    """Return the shift b, or the one that changes nothing where b is None."""
    return np.zeros(x.shape[-1], x.dtype) if b is None else np.ascontiguousarray(b)


def chunks_of(x):  # (..., C)
    """Return in how many chunks a loop sums the rows of an array like x."""
    return 1 if x.size <= FEW else CHUNKS


def add_up(parts, to):  # (chunks, C), (C,)
    """Write the sum of all chunks into ``to``, unless that is None."""
    if to is not None:
        np.add.reduce(parts, axis=0, out=to)


def room(into, shape, dtype):
    """Return the array that a gradient is written to: ``into``, if there is one that loops can add to, or a new one."""
    if into is not None and into.dtype == dtype and into.flags.c_contiguous:
        return into
    return np.empty(shape, dtype)


def side_by_side(parts):  # n of (...) -> n and (...), or None
    """Return ``parts`` as one array, without a copy, where they lie in one at equal distances."""
    if (found := _finder()(parts)) is None:
        return None
    first, (start, step) = parts[0], found
    return np.ndarray((len(parts), *first.shape), first.dtype, first.base, start, (step, *first.strides))


def laid_out_as(parts):  # n of (..., D) -> n of (..., D), or None
    """Return empty arrays that lie in one as ``parts`` do, the last axis innermost, where they do.

    The gradients of queries, keys and values that came out of one product are then in place for its backward.
    """
    if (found := _finder()(parts)) is None:
        return None
    first = parts[0]
    shape, axes = _dense((len(parts), *first.shape), (found[1], *first.strides))
    return None if shape is None else tuple(np.empty(shape, first.dtype).transpose(axes))


@lru_cache(maxsize=32)
def _dense(shape, strides):
    """The shape, in C order, of an array whose axes lie as these strides say, and its axes in their order here."""
    order = sorted(range(len(shape)), key=lambda axis: -strides[axis])
    if order[-1] != len(shape) - 1:
        return None, None
    return tuple(shape[axis] for axis in order), tuple(order.index(axis) for axis in range(len(shape)))


@cache
def _finder():
    """Where what is compiled is imported: not before it is needed."""
    try:
        from .machine_cython import lies
    except ImportError:  # Numba runs without it
        return _lies
    return lies


def _lies(parts):
    """Where ``parts``, arrays of one layout, begin in the array that they are views of, and how far apart, in bytes.

    None where one of them is no such view, or they lie at unequal distances.
    """
    first = parts[0] if parts else None
    owner = getattr(first, "base", None)
    if not (isinstance(owner, np.ndarray) and owner.flags.c_contiguous):
        return None
    like = first.shape, first.strides, owner.dtype
    if any(p is None or p.base is not owner or (p.shape, p.strides, p.dtype) != like for p in parts):
        return None
    places = [p.ctypes.data for p in parts]
    step = places[1] - places[0] if len(parts) > 1 else 0
    if any(q - p != step for p, q in pairwise(places)):
        return None
    return places[0] - owner.ctypes.data, step


@lru_cache(maxsize=32)
def pieces(queries, keys, offset, most):
    """Cut the packed sequences of attention into pieces of at most ``most`` queries: rows t0, t1, s0, s1, offset.

    ``queries`` and ``keys`` are the lengths of the sequences.  The queries [t0, t1) are of the sequence whose keys are
    [s0, s1); the row's own offset is the one with t and s counted from the start of the arrays.  A sequence without
    queries is one piece, since its keys have gradients.
    """
    rows, t, s = [], 0, 0
    for n, m in zip(queries, keys, strict=True):
        starts = range(t, t + max(n, 1), max(most, 1))
        rows += [(t0, min(t0 + most, t + n), s, s + m, offset + s - t) for t0 in starts]
        t, s = t + n, s + m
    made = np.array(rows, np.int64).reshape(-1, 5)
    made.flags.writeable = False
    return made
