"""The loops of silu, for Numba.

The mathematics and the names are those of silu.py.  Constants take the array's type, or float32 would be computed in
float64.
"""

import numpy as np
from numba import njit, prange

from ..layout import flat
from ..vecmath_numba import BLOCK, EXACT, exp
from .silu import LARGE


@njit(**EXACT)
def _forward(x, y):
    real = x.dtype.type
    for i in range(len(x)):
        y[i] = max(x[i], real(-LARGE)) / (real(1) + exp(-x[i]))


@njit(**EXACT)
def _backward(dy, x, dx):
    real = x.dtype.type
    for i in range(len(x)):
        h = min(max(x[i], real(-LARGE)), real(LARGE))
        e = exp(-abs(h))
        r = real(1) / (real(1) + e)
        σ, τ = (r, e * r) if h > 0 else (e * r, r)  # τ = 1 - σ
        dx[i] = dy[i] * (σ * (real(1) + h * τ))


def forward(x, y):
    _forward_blocks(flat(x), y.reshape(-1))


@njit(parallel=True, cache=True)
def _forward_blocks(x, y):
    for k in prange((len(x) + BLOCK - 1) // BLOCK):
        of = slice(np.int64(k) * BLOCK, np.int64(k + 1) * BLOCK)
        _forward(x[of], y[of])


@njit(**EXACT)
def _gate(x, u, y):
    real = x.dtype.type
    for i in range(len(x)):
        y[i] = max(x[i], real(-LARGE)) / (real(1) + exp(-x[i])) * u[i]


@njit(**EXACT)
def _gate_backward(dy, x, u, dx, du):
    real = x.dtype.type
    for i in range(len(x)):
        h = min(max(x[i], real(-LARGE)), real(LARGE))
        e = exp(-abs(h))
        r = real(1) / (real(1) + e)
        σ, τ = (r, e * r) if h > 0 else (e * r, r)  # τ = 1 - σ
        du[i] = dy[i] * (max(x[i], real(-LARGE)) * σ)
        dx[i] = dy[i] * u[i] * (σ * (real(1) + h * τ))


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
