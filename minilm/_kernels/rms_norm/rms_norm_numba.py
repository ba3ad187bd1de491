"""The loops of rms_norm, for Numba.  Each row is read twice; no temporary array is made.

The mathematics and the names are those of rms_norm.py.
"""

import numpy as np
from numba import njit, prange


@njit(parallel=True, cache=True)
def forward_rows(x, w, eps, y, r):
    N, C = x.shape
    for i in prange(N):
        total = 0.0
        for c in range(C):
            total += x[i, c] * x[i, c]
        r[i] = 1 / np.sqrt(total / C + eps)
        for c in range(C):
            y[i, c] = x[i, c] * r[i] * w[c]


@njit(parallel=True, cache=True)
def backward_rows(dy, x, w, r, dx, dw):
    N, C = x.shape
    chunks = len(dw)
    for k in prange(chunks):
        for i in range(k * N // chunks, (k + 1) * N // chunks):
            sum_gn = 0.0
            for c in range(C):
                n = x[i, c] * r[i]
                sum_gn += dy[i, c] * w[c] * n
                dw[k, c] += dy[i, c] * n
            mean_gn = dx.dtype.type(sum_gn / C)
            for c in range(C):
                dx[i, c] = r[i] * (dy[i, c] * w[c] - x[i, c] * r[i] * mean_gn)
