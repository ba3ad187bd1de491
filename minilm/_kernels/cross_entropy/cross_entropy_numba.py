"""The loops of cross_entropy, for Numba.

The mathematics and the names are those of cross_entropy.py.  The gradient may be written over z.
"""

import numpy as np
from numba import float32, float64, int64, njit, prange, types, void


def _read(kind, dimensions):
    return types.Array(kind, dimensions, "C", readonly=True)


def _forward(real):
    return void(_read(real, 2), _read(int64, 1), int64, float64, real[::1], real[::1])


def _backward(real):
    return void(_read(real, 2), _read(int64, 1), _read(real, 1), _read(real, 1), int64, float64, real[:, ::1])


@njit([_forward(float32), _forward(float64)], parallel=True, cache=True)
def forward_rows(z, target, ignore_index, label_smoothing, loss, L):
    N, V = z.shape
    for i in prange(N):
        loss[i] = L[i] = 0
        t = target[i]
        if t == ignore_index:
            continue
        top = z.dtype.type(-np.inf)
        for c in range(V):
            top = z[i, c] if z[i, c] > top else top
        if top == -np.inf:
            top = z.dtype.type(0)
        total = 0.0
        for c in range(V):
            total += np.exp(z[i, c] - top)
        L[i] = top + np.log(total if total != 0 else 1.0)
        loss[i] = L[i] - (1 - label_smoothing) * z[i, t]
        if label_smoothing != 0:
            sum_z = 0.0
            for c in range(V):
                sum_z += z[i, c]
            loss[i] = L[i] - (1 - label_smoothing) * z[i, t] - label_smoothing / V * sum_z


@njit([_backward(float32), _backward(float64)], parallel=True, cache=True)
def backward_rows(z, target, L, w, ignore_index, label_smoothing, dz):
    N, V = z.shape
    everywhere = z.dtype.type(label_smoothing / V)
    hit = z.dtype.type(1 - label_smoothing)
    for i in prange(N):
        t = target[i]
        if t == ignore_index:
            for c in range(V):
                dz[i, c] = 0
            continue
        z_t = z[i, t]
        for c in range(V):
            dz[i, c] = w[i] * (np.exp(z[i, c] - L[i]) - everywhere)
        dz[i, t] = w[i] * (np.exp(z_t - L[i]) - hit - everywhere)
