"""The loops of gelu and bias_gelu, for Numba: x is one long row in C order, b one period of what is added, or empty.

The mathematics and the names are those of gelu.py.  The exact Φ is 1 - q for h > 0 and q for h < 0, q the tail of the
normal distribution beyond |h|, which shares its exponential with φ; and with e = exp(-2|u|), ½ (1 + tanh u) is the
logistic function s of 2u, and s (1 - s) is e / (1 + e)².  Constants take the array's type, or float32 would be computed
in float64.
"""

import numpy as np
from numba import njit, prange

from ..layout import add_up, flat
from ..vecmath_numba import BLOCK, EXACT, exp, normal_tail
from .gelu import LARGE, PEAK, TANH_CUBE, TANH_SCALE

SHARE = 4096  # elements that one thread takes at a time on the way back, where nothing is summed


@njit(**EXACT)
def _forward_erf(x, b, y):
    real, added = x.dtype.type, len(b) > 0
    for i in range(len(x)):
        h = x[i] + b[i] if added else x[i]
        q = normal_tail(abs(h), exp(real(-0.5) * (h * h)))
        y[i] = max(h, real(-LARGE)) * (real(1) - q if h > 0 else q)


@njit(**EXACT)
def _backward_erf(dy, x, b, dx):
    real, added = x.dtype.type, len(b) > 0
    for i in range(len(x)):
        h = x[i] + b[i] if added else x[i]
        e = exp(real(-0.5) * (h * h))
        q = normal_tail(abs(h), e)
        held = min(max(h, real(-LARGE)), real(LARGE))
        dx[i] = dy[i] * ((real(1) - q if h > 0 else q) + held * (real(PEAK) * e))


@njit(**EXACT)
def _forward_tanh(x, b, y):
    real, added = x.dtype.type, len(b) > 0
    for i in range(len(x)):
        h = x[i] + b[i] if added else x[i]
        u = real(TANH_SCALE) * (h + real(TANH_CUBE) * (h * h * h))
        y[i] = max(h, real(-LARGE)) / (real(1) + exp(real(-2) * u))


@njit(**EXACT)
def _backward_tanh(dy, x, b, dx):
    real, added = x.dtype.type, len(b) > 0
    for i in range(len(x)):
        h = x[i] + b[i] if added else x[i]
        h = min(max(h, real(-LARGE)), real(LARGE))
        u = real(TANH_SCALE) * (h + real(TANH_CUBE) * (h * h * h))
        e = exp(real(-2) * abs(u))
        r = real(1) / (real(1) + e)
        φ = real(2) * e * (r * r) * (real(TANH_SCALE) * (real(1) + real(3 * TANH_CUBE) * (h * h)))
        dx[i] = dy[i] * ((r if u > 0 else e * r) + h * φ)


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
