"""The loops of softmax, for Numba: one row at a time, which stays in the cache from its first pass to its last.

The mathematics and the names are those of softmax.py.
"""

import numpy as np
from numba import float32, float64, njit, prange, types, void

from ..layout import as_rows
from ..vecmath_numba import EXACT, PART, SUM, dot, exp, largest


def _signature(real, reads):
    read, write = types.Array(real, 2, "C", readonly=True), types.Array(real, 2, "C")
    return void(*[read] * reads, write)


@njit(**SUM)
def _exponentials(x, top, y):
    """y = exp(x - top), and their sum."""
    total = x.dtype.type(0)
    for c in range(len(x)):
        e = exp(x[c] - top)
        y[c] = e
        total += e
    return total


@njit(**EXACT)
def _forward_row(x, y):
    top, total = largest(x), 0.0
    if top == -np.inf:
        top = x.dtype.type(0)
    for c in range(0, len(x), PART):
        total += _exponentials(x[c : c + PART], top, y[c : c + PART])
    scale = x.dtype.type(1 / total if total != 0 else 0)
    for c in range(len(y)):
        y[c] *= scale


@njit(**EXACT)
def _backward_row(dy, y, dx):
    mean = y.dtype.type(dot(dy, y))
    for c in range(len(y)):
        dx[c] = y[c] * (dy[c] - mean)


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
