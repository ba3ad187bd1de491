"""The loops of silu, for Numba.

The mathematics and the names are those of silu.py and silu.md; a, r and D are those of silu_cython.pyx.  Constants take
the array's type, or float32 would be computed in float64.
"""

import numpy as np
from numba import njit, prange

from ..layout import flat
from ..vecmath_numba import BLOCK, EXACT, decay
from .silu import LARGE


@njit(**EXACT)
def _silu(x, real):
    a = min(abs(x), real(LARGE))
    e = decay(-a)
    return max(x, real(0)) - a * e / (real(1) + e)


@njit(**EXACT)
def _slope(x, real):
    a = min(abs(x), real(LARGE))
    e = decay(-a)
    r = real(1) / (real(1) + e)
    D = e * r * (real(1) - a * r)
    return real(1) - D if x > 0 else D


@njit(**EXACT)
def _forward(x, u, y):
    real = x.dtype.type
    if len(u):
        for i in range(len(x)):
            y[i] = _silu(x[i], real) * u[i]
    else:
        for i in range(len(x)):
            y[i] = _silu(x[i], real)


@njit(**EXACT)
def _backward(dy, x, u, dx, du):
    real = x.dtype.type
    if len(u):
        for i in range(len(x)):
            du[i] = dy[i] * _silu(x[i], real)
            dx[i] = dy[i] * u[i] * _slope(x[i], real)
    else:
        for i in range(len(x)):
            dx[i] = dy[i] * _slope(x[i], real)


def forward(x, u, y):
    """Write silu(x) into y, times u unless that is None; the loops get no numbers of it then."""
    x, y = flat(x), y.reshape(-1)
    _forward_blocks(x, x[:0] if u is None else flat(u), y)


@njit(parallel=True, cache=True)
def _forward_blocks(x, u, y):
    for k in prange((len(x) + BLOCK - 1) // BLOCK):
        of = slice(np.int64(k) * BLOCK, np.int64(k + 1) * BLOCK)
        _forward(x[of], u[of], y[of])


def backward(dy, x, u, dx, du):
    """The gradients in x and, unless they are None, in u."""
    x, dx = flat(x), dx.reshape(-1)
    u, du = (x[:0], dx[:0]) if u is None else (flat(u), du.reshape(-1))
    _backward_blocks(flat(dy), x, u, dx, du)


@njit(parallel=True, cache=True)
def _backward_blocks(dy, x, u, dx, du):
    for k in prange((len(x) + BLOCK - 1) // BLOCK):
        of = slice(np.int64(k) * BLOCK, np.int64(k + 1) * BLOCK)
        _backward(dy[of], x[of], u[of], dx[of], du[of])
