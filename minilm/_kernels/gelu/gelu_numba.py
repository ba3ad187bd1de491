"""The loops of gelu and bias_gelu, for Numba: one element at a time, no temporary array.

The mathematics and the names are those of gelu.py.  Constants take the array's type, or float32 would be computed in
float64.  x is one long row in C order, and b one period of what is added to it, or empty.
"""

import math

import numpy as np
from numba import njit, prange

from .gelu import LARGE, PEAK, SQRT_HALF, TANH_CUBE, TANH_SCALE

BLOCK = 2048  # elements that one thread takes at a time


@njit
def _probability(h, real, tanh):
    """Φ(h)"""
    if tanh:
        return real(0.5) * (real(1) + np.tanh(real(TANH_SCALE) * (h + real(TANH_CUBE) * h * h * h)))
    return real(0.5) * (real(1) + math.erf(h * real(SQRT_HALF)))


@njit
def _density(h, Φ, real, tanh):
    """φ(h), where ½ (1 - tanh² u) = 2 Φ (1 - Φ)"""
    if tanh:
        slope = real(TANH_SCALE) * (real(1) + real(3 * TANH_CUBE) * h * h)
        return real(2) * Φ * (real(1) - Φ) * slope
    return np.exp(real(-0.5) * h * h) * real(PEAK)


@njit(parallel=True, cache=True)
def forward(x, b, y, tanh):
    real, n, C = x.dtype.type, len(x), len(b)
    for k in prange((n + BLOCK - 1) // BLOCK):
        c = k * BLOCK % C if C else 0
        for i in range(k * BLOCK, min(n, (k + 1) * BLOCK)):
            h = max(x[i] + b[c] if C else x[i], real(-LARGE))
            y[i] = h * _probability(min(h, real(LARGE)), real, tanh)
            c = c + 1 if c + 1 < C else 0


@njit(parallel=True, cache=True)
def backward(dy, x, b, dx, db, tanh):
    """Each row of db is the sum over one chunk of the rows of dx."""
    real, chunks, C = x.dtype.type, len(db), len(b)
    row = max(C, 1)
    N = len(x) // row
    for k in prange(chunks):
        c = 0
        for i in range(k * N // chunks * row, (k + 1) * N // chunks * row):
            h = min(max(x[i] + b[c] if C else x[i], real(-LARGE)), real(LARGE))
            Φ = _probability(h, real, tanh)
            dx[i] = dy[i] * (Φ + h * _density(h, Φ, real, tanh))
            if C:
                db[k, c] += dx[i]
            c = c + 1 if c + 1 < C else 0
