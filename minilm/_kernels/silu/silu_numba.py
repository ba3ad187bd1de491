"""The loops of silu, for Numba: one element at a time, no temporary array.

The mathematics and the names are those of silu.py.  Constants take the array's type, or float32 would be computed in
float64.
"""

import numpy as np
from numba import njit, prange

from .silu import LARGE


@njit(parallel=True, cache=True, error_model="numpy")
def forward(x, y):
    real = x.dtype.type
    for i in prange(len(x)):
        y[i] = max(x[i], real(-LARGE)) / (real(1) + np.exp(-x[i]))


@njit(parallel=True, cache=True, error_model="numpy")
def backward(dy, x, dx):
    real = x.dtype.type
    for i in prange(len(x)):
        h = min(max(x[i], real(-LARGE)), real(LARGE))
        e = np.exp(-abs(h))
        r = real(1) / (real(1) + e)
        σ, τ = (r, e * r) if h > 0 else (e * r, r)  # τ = 1 - σ
        dx[i] = dy[i] * (σ * (real(1) + h * τ))
