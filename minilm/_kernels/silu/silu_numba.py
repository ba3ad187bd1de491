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
def _forward(x, y):
    for i in range(len(x)):
        y[i] = _silu(x[i], x.dtype.type)


@njit(**EXACT)
def _backward(dy, x, dx):
    for i in range(len(x)):
        dx[i] = dy[i] * _slope(x[i], x.dtype.type)


def forward(x, y):
    _forward_blocks(flat(x), y.reshape(-1))


@njit(parallel=True, cache=True)
def _forward_blocks(x, y):
    for k in prange((len(x) + BLOCK - 1) // BLOCK):
        of = slice(np.int64(k) * BLOCK, np.int64(k + 1) * BLOCK)
        _forward(x[of], y[of])


@njit(**EXACT)
def _gate(x, u, y):
    for i in range(len(x)):
        y[i] = _silu(x[i], x.dtype.type) * u[i]


@njit(**EXACT)
def _gate_backward(dy, x, u, dx, du):
    for i in range(len(x)):
        du[i] = dy[i] * _silu(x[i], x.dtype.type)
        dx[i] = dy[i] * u[i] * _slope(x[i], x.dtype.type)


def gate(x, u, y):
    """Write silu(x) u into y."""
    _gate_blocks(flat(x), flat(u), y.reshape(-1))


@njit(parallel=True, cache=True)
def _gate_blocks(x, u, y):
    for k in prange((len(x) + BLOCK - 1) // BLOCK):
        of = slice(np.int64(k) * BLOCK, np.int64(k + 1) * BLOCK)
        _gate(x[of], u[of], y[of])


def gate_backward(dy, x, u, dx, du):
    _gate_backward_blocks(flat(dy), flat(x), flat(u), dx.reshape(-1), du.reshape(-1))


@njit(parallel=True, cache=True)
def _gate_backward_blocks(dy, x, u, dx, du):
    for k in prange((len(x) + BLOCK - 1) // BLOCK):
        of = slice(np.int64(k) * BLOCK, np.int64(k + 1) * BLOCK)
        _gate_backward(dy[of], x[of], u[of], dx[of], du[of])


def backward(dy, x, dx):
    _backward_blocks(flat(dy), flat(x), dx.reshape(-1))


@njit(parallel=True, cache=True)
def _backward_blocks(dy, x, dx):
    for k in prange((len(x) + BLOCK - 1) // BLOCK):
        of = slice(np.int64(k) * BLOCK, np.int64(k + 1) * BLOCK)
        _backward(dy[of], x[of], dx[of])
