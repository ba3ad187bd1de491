"""The loops of gelu, for Numba: one element at a time, no temporary array.

The mathematics and the names are those of gelu.py.  Constants take the array's type, or float32 would be computed in
float64.
"""

import math

import numpy as np
from numba import njit, prange

from .gelu import LARGE, PEAK, SQRT_HALF, TANH_CUBE, TANH_SCALE


@njit(parallel=True, cache=True)
def forward_erf(x, y):
    real = x.dtype.type
    for i in prange(len(x)):
        y[i] = max(x[i], real(-LARGE)) * (real(0.5) * (real(1) + math.erf(x[i] * real(SQRT_HALF))))


@njit(parallel=True, cache=True)
def backward_erf(dy, x, dx):
    real = x.dtype.type
    for i in prange(len(x)):
        h = min(max(x[i], real(-LARGE)), real(LARGE))
        Φ = real(0.5) * (real(1) + math.erf(x[i] * real(SQRT_HALF)))
        dx[i] = dy[i] * (Φ + h * np.exp(real(-0.5) * h * h) * real(PEAK))


@njit(parallel=True, cache=True)
def forward_tanh(x, y):
    real = x.dtype.type
    for i in prange(len(x)):
        h = min(max(x[i], real(-LARGE)), real(LARGE))
        u = real(TANH_SCALE) * (h + real(TANH_CUBE) * h * h * h)
        y[i] = max(x[i], real(-LARGE)) * (real(0.5) * (real(1) + np.tanh(u)))


@njit(parallel=True, cache=True)
def backward_tanh(dy, x, dx):
    real = x.dtype.type
    for i in prange(len(x)):
        h = min(max(x[i], real(-LARGE)), real(LARGE))
        t = np.tanh(real(TANH_SCALE) * (h + real(TANH_CUBE) * h * h * h))
        φ = real(0.5) * (real(1) - t * t) * real(TANH_SCALE) * (real(1) + real(3 * TANH_CUBE) * h * h)
        dx[i] = dy[i] * (real(0.5) * (real(1) + t) + h * φ)
