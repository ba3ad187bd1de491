"""The loops of relu, for Numba.  The mathematics and the names are those of relu.py."""

import numpy as np
from numba import njit, prange

from ..layout import flat
from ..vecmath_numba import BLOCK, EXACT


@njit(**EXACT)
def _forward(x, y):
    zero = x.dtype.type(0)
    for i in range(len(x)):
        y[i] = zero if x[i] <= zero else x[i]


@njit(**EXACT)
def _backward(dy, y, dx):
    zero = y.dtype.type(0)
    for i in range(len(y)):
        dx[i] = zero if y[i] == zero else dy[i]


def forward(x, y):
    _forward_blocks(flat(x), y.reshape(-1))


@njit(parallel=True, cache=True)
def _forward_blocks(x, y):
    for k in prange((len(x) + BLOCK - 1) // BLOCK):
        of = slice(np.int64(k) * BLOCK, np.int64(k + 1) * BLOCK)
        _forward(x[of], y[of])


def backward(dy, y, dx):
    _backward_blocks(flat(dy), flat(y), dx.reshape(-1))


@njit(parallel=True, cache=True)
def _backward_blocks(dy, y, dx):
    for k in prange((len(y) + BLOCK - 1) // BLOCK):
        of = slice(np.int64(k) * BLOCK, np.int64(k + 1) * BLOCK)
        _backward(dy[of], y[of], dx[of])
