"""The loops of gelu and bias_gelu, for Numba: x is one long row in C order, b one period of what is added, or empty.

The mathematics and the names are those of gelu.py and gelu.md; a, Q and D are those of gelu_cython.pyx.  Constants take
the array's type, or float32 would be computed in float64.
"""

import numpy as np
from numba import njit, prange

from ..layout import add_up, flat
from ..vecmath_numba import BLOCK, EXACT, decay, normal_tail
from .gelu import LARGE, PEAK, TANH_CUBE, TANH_SCALE

SHARE = 4096  # elements that one thread takes at a time on the way back, where nothing is summed


@njit(**EXACT)
def _forward_erf(x, b, y):
    real, added = x.dtype.type, len(b) > 0
    for i in range(len(x)):
        h = x[i] + b[i] if added else x[i]
        a = min(abs(h), real(LARGE))
        y[i] = max(h, real(0)) - a * normal_tail(a, decay(real(-0.5) * (a * a)))


@njit(**EXACT)
def _backward_erf(dy, x, b, dx):
    real, added = x.dtype.type, len(b) > 0
    for i in range(len(x)):
        h = x[i] + b[i] if added else x[i]
        a = min(abs(h), real(LARGE))
        e = decay(real(-0.5) * (a * a))
        D = normal_tail(a, e) - a * (real(PEAK) * e)
        dx[i] = dy[i] * (real(1) - D if h > 0 else D)


@njit(**EXACT)
def _forward_tanh(x, b, y):
    real, added = x.dtype.type, len(b) > 0
    for i in range(len(x)):
        h = x[i] + b[i] if added else x[i]
        a = min(abs(h), real(LARGE))
        e = decay(a * (real(-2 * TANH_SCALE) + real(-2 * TANH_SCALE * TANH_CUBE) * (a * a)))
        y[i] = max(h, real(0)) - a * e / (real(1) + e)


@njit(**EXACT)
def _backward_tanh(dy, x, b, dx):
    real, added = x.dtype.type, len(b) > 0
    for i in range(len(x)):
        h = x[i] + b[i] if added else x[i]
        a = min(abs(h), real(LARGE))
        e = decay(a * (real(-2 * TANH_SCALE) + real(-2 * TANH_SCALE * TANH_CUBE) * (a * a)))
        r = real(1) / (real(1) + e)
        D = (e * r) * (real(1) - r * (a * (real(2 * TANH_SCALE) + real(6 * TANH_SCALE * TANH_CUBE) * (a * a))))
        dx[i] = dy[i] * (real(1) - D if h > 0 else D)


@njit(**EXACT)
def _add(row, sum):
    for i in range(len(row)):
        sum[i] += row[i]


def forward(x, b, y, tanh):
    _forward(flat(x), flat(np.empty(0, x.dtype) if b is None else b), y.reshape(-1), tanh)


@njit(parallel=True, cache=True)
def _forward(x, b, y, tanh):
    n, C = len(x), len(b)
    for k in prange((n + BLOCK - 1) // BLOCK):
        begin, end = np.int64(k) * BLOCK, min(n, np.int64(k + 1) * BLOCK)
        while begin < end:
            c = begin % C if C else 0
            size = min(C - c, end - begin) if C else end - begin
            of, shift = slice(begin, begin + size), slice(c, c + (size if C else 0))
            if tanh:
                _forward_tanh(x[of], b[shift], y[of])
            else:
                _forward_erf(x[of], b[shift], y[of])
            begin += size


def backward(dy, x, b, dx, chunks, db, tanh):
    """db, which may be None, is the sum of the rows of dx, made in chunks; without b there is no sum, and no chunks."""
    if b is None:
        b, chunks = np.empty(0, x.dtype), 1 + x.size // SHARE
    sums = np.zeros((chunks, len(b)), x.dtype)
    _backward(flat(dy), flat(x), flat(b), dx.reshape(-1), sums, tanh)
    add_up(sums, db)


@njit(parallel=True, cache=True)
def _backward(dy, x, b, dx, db, tanh):
    chunks, C = len(db), len(b)
    N = len(x) // max(C, 1)
    for k in prange(chunks):
        begin = np.int64(k) * N // chunks * max(C, 1)
        end = np.int64(k + 1) * N // chunks * max(C, 1)
        while begin < end:
            size = C if C else min(BLOCK, end - begin)
            of = slice(begin, begin + size)
            if tanh:
                _backward_tanh(dy[of], x[of], b, dx[of])
            else:
                _backward_erf(dy[of], x[of], b, dx[of])
            if C:
                _add(dx[of], db[k])
            begin += size
