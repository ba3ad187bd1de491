"""The loops of linear, for Numba: the bias and its gradient.  The products themselves are BLAS's."""

import numpy as np
from numba import njit, prange

from ..vecmath_numba import EXACT

GEMM = False  # there is no ``product``: see linear.py


@njit(**EXACT)
def _add(y, b):
    for f in range(len(y)):
        y[f] += b[f]


@njit(parallel=True, cache=True)
def add_bias(y, b):
    for n in prange(len(y)):
        _add(y[n], b)


@njit(parallel=True, cache=True)
def sum_rows(dy, db):
    """Add to each row of db the rows of one chunk of dy."""
    N, chunks = len(dy), len(db)
    for k in prange(chunks):
        for n in range(np.int64(k) * N // chunks, np.int64(k + 1) * N // chunks):
            _add(db[k], dy[n])
