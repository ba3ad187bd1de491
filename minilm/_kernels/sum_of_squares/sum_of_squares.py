"""The squares of all numbers of a list of arrays, added in float64: the global norm of gradients is its root.

    s = Σ_a Σ_i a[i]²

A float32 sum would be wrong by a percent after some ten million terms, and a float32 square overflows from 2e19 on.
There is nothing to differentiate: a norm is measured, not trained.  Why the errors stay small: sum_of_squares.md.
"""

import numpy as np

from .. import places

PIECE = 8192  # numbers in float64 at a time


def sum_of_squares(arrays):  # any shapes, layouts and floating-point dtypes -> a Python float
    return sum((float(x @ x) for a in arrays for x in _pieces(a)), 0.0)


def _pieces(a):
    """Return all numbers of ``a`` in float64, in rows of which only one exists at a time."""
    flags = ["external_loop", "buffered", "zerosize_ok"]
    return np.nditer(a, flags, ["readonly"], np.float64, order="K", buffersize=PIECE)


def sum_of_squares_compiled(loops):
    """Wrap the compiled ``loops`` of sum_of_squares_numba or sum_of_squares_cython: one call for all arrays.

    Arrays with holes go to the reference, which makes no copy of them, and so do dtypes that the loops do not have.
    """

    def total(arrays):
        whole, rest = [], []
        for a in arrays:
            if a.dtype.char in "fd" and a.flags.forc:
                whole.append(a if a.flags.c_contiguous else a.T)
            else:
                rest.append(a)
        at, starts, _ = places.table([whole], written=[False])
        sums = np.zeros((int(starts[-1]) + loops.CHUNK - 1) // loops.CHUNK)
        loops.add(at, starts, sums)
        return float(sums.sum()) + sum_of_squares(rest)

    return total
