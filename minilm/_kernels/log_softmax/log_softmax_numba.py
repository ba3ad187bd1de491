"""The loops of log_softmax, for Numba: one row at a time, which stays in the cache from its first pass to its last.

The mathematics and the names are those of log_softmax.py.
"""

import numpy as np
from numba import float32, float64, njit, prange, types, void

from ..layout import as_rows
from ..vecmath_numba import EXACT, exp, exponentials, largest, total


def _signature(real, reads):
    read, write = types.Array(real, 2, "C", readonly=True), types.Array(real, 2, "C")
    return void(*[read] * reads, write)


@njit(**EXACT)
def _forward_row(x, y):
    top = largest(x)
    if top == -np.inf:
        top = x.dtype.type(0)
    sum = exponentials(x, top)
    log_sum = x.dtype.type(np.log(sum if sum != 0 else 1.0))
    for c in range(len(x)):
        y[c] = x[c] - top - log_sum


@njit(**EXACT)
def _backward_row(dy, y, dx):
    sum = y.dtype.type(total(dy))
    hidden = 0
    while hidden < len(y) and y[hidden] == -np.inf:
        hidden += 1
    if hidden == len(y):
        dx[:] = 0
        return
    for c in range(len(y)):
        dx[c] = dy[c] - exp(y[c]) * sum


def forward_rows(x, y):
    x = as_rows(x)
    _forward_rows(x, y.reshape(x.shape))


@njit([_signature(float32, 1), _signature(float64, 1)], parallel=True, cache=True)
def _forward_rows(x, y):
    for i in prange(len(x)):
        _forward_row(x[i], y[i])


def backward_rows(dy, y, dx):
    y = as_rows(y)
    _backward_rows(as_rows(dy), y, dx.reshape(y.shape))


@njit([_signature(float32, 2), _signature(float64, 2)], parallel=True, cache=True)
def _backward_rows(dy, y, dx):
    for i in prange(len(y)):
        _backward_row(dy[i], y[i], dx[i])
