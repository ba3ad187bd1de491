"""How the wrappers of the compiled loops lay out their arrays.

Loops take C-contiguous arrays.  What they only read is marked so: Numba compiles a loop again for every combination of
read-only and writable arguments, and this leaves it one.
"""

import math

import numpy as np

CHUNKS = 16  # sums over rows are made in this many parts on any number of threads, so the bits never change


def flat(x):  # (...) -> (n,)
    """Return x as one row in C order, not to be written to; a view where that is possible."""
    row = np.ascontiguousarray(x).reshape(-1)
    row.flags.writeable = False
    return row


def as_rows(x):  # (..., C) -> (N, C)
    """Return x as a matrix of its last axis, not to be written to; a view where that is possible."""
    rows = np.ascontiguousarray(x).reshape(math.prod(x.shape[:-1]), x.shape[-1])
    rows.flags.writeable = False
    return rows


def scale_of(w, x):  # (C,) or None, (..., C) -> (C,)
    """Return the scale w, or the one that changes nothing where w is None."""
    return flat(np.ones(x.shape[-1], x.dtype) if w is None else w)


def shift_of(b, x):  # (C,) or None, (..., C) -> (C,)
    """Return the shift b, or the one that changes nothing where b is None."""
    return flat(np.zeros(x.shape[-1], x.dtype) if b is None else b)
