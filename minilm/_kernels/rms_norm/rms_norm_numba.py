"""The loops of rms_norm, for Numba.  Each row is read twice; no temporary array is made.

The mathematics and the names are those of rms_norm.py.
"""

import numpy as np
from numba import njit, prange

from ..layout import add_up, as_rows, flat
from ..vecmath_numba import EXACT, SUM, dot


@njit(**SUM)
def _sum_gn(dy, x, w):
    """Σ g n, but for the factor r."""
    sum = x.dtype.type(0)
    for c in range(len(x)):
        sum += dy[c] * w[c] * x[c]
    return sum


@njit(**EXACT)
def _forward_row(x, w, eps, y):
    r = x.dtype.type(1 / np.sqrt(dot(x, x) / len(x) + eps))
    for c in range(len(x)):
        y[c] = x[c] * r * w[c]
    return r


@njit(**EXACT)
def _backward_row(dy, x, w, r, dx, dw):
    mean_gn = _sum_gn(dy, x, w) * r / x.dtype.type(len(x))
    for c in range(len(x)):
        dw[c] += dy[c] * (x[c] * r)
    for c in range(len(x)):
        dx[c] = r * (dy[c] * w[c] - x[c] * r * mean_gn)


def forward_rows(x, w, eps, y, r):
    x = as_rows(x)
    _forward_rows(x, flat(w), eps, y.reshape(x.shape), r.reshape(-1))


@njit(parallel=True, cache=True)
def _forward_rows(x, w, eps, y, r):
    for i in prange(len(x)):
        r[i] = _forward_row(x[i], w, eps, y[i])


def backward_rows(dy, x, w, r, dx, chunks, dw):
    x = as_rows(x)
    sums = np.zeros((chunks, x.shape[1]), x.dtype)
    _backward_rows(as_rows(dy), x, flat(w), r.reshape(-1), dx.reshape(x.shape), sums)
    add_up(sums, dw)


@njit(parallel=True, cache=True)
def _backward_rows(dy, x, w, r, dx, dw):
    N, chunks = len(x), len(dw)
    for k in prange(chunks):
        for i in range(np.int64(k) * N // chunks, np.int64(k + 1) * N // chunks):
            _backward_row(dy[i], x[i], w, r[i], dx[i], dw[k])
