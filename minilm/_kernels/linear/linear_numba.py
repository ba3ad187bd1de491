"""The loops of linear, for Numba: the bias and its gradient.  The products themselves are BLAS's."""

import numpy as np
from numba import njit, prange

from ..layout import add_up, as_rows
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


def sum_rows(dy, chunks, db):
    """db is the sum of the rows of dy, made in chunks."""
    dy = as_rows(dy)
    sums = np.zeros((chunks, dy.shape[1]), dy.dtype)
    _sum_rows(dy, sums)
    add_up(sums, db)


@njit(parallel=True, cache=True)
def _sum_rows(dy, db):
    N, chunks = len(dy), len(db)
    for k in prange(chunks):
        for n in range(np.int64(k) * N // chunks, np.int64(k + 1) * N // chunks):
            _add(db[k], dy[n])
