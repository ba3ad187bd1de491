"""The loops of log_softmax, for Numba: one row at a time, which stays in the cache from its first pass to its last.

The mathematics and the names are those of log_softmax.py.
"""

import numpy as np
from numba import float32, float64, njit, prange, types, void


def _signature(real, reads):
    read, write = types.Array(real, 2, "C", readonly=True), types.Array(real, 2, "C")
    return void(*[read] * reads, write)


@njit([_signature(float32, 1), _signature(float64, 1)], parallel=True, cache=True)
def forward_rows(x, y):
    N, C = x.shape
    for i in prange(N):
        top = x.dtype.type(-np.inf)
        for c in range(C):
            top = x[i, c] if x[i, c] > top else top
        if top == -np.inf:
            top = x.dtype.type(0)
        total = 0.0
        for c in range(C):
            total += np.exp(x[i, c] - top)
        log_total = x.dtype.type(np.log(total if total != 0 else 1.0))
        for c in range(C):
            y[i, c] = x[i, c] - top - log_total


@njit([_signature(float32, 2), _signature(float64, 2)], parallel=True, cache=True)
def backward_rows(dy, y, dx):
    N, C = y.shape
    for i in prange(N):
        sum_dy = 0.0
        for c in range(C):
            sum_dy += dy[i, c]
        total = y.dtype.type(sum_dy)
        hidden = 0
        while hidden < C and y[i, hidden] == -np.inf:
            hidden += 1
        for c in range(C):
            dx[i, c] = 0
        for c in range(C if hidden < C else 0):
            dx[i, c] = dy[i, c] - np.exp(y[i, c]) * total
