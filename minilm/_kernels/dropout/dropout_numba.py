"""The loop of dropout, for Numba: four elements to a counter.

The mathematics and the names are those of dropout.py.
"""

import numpy as np
from numba import float32, float64, njit, prange, types, void

from ..layout import flat
from ..random_numba import draw
from ..vecmath_numba import BLOCK


def _signature(real):
    read, write = types.Array(real, 1, "C", readonly=True), types.Array(real, 1, "C")
    return void(read, types.uint64, types.float64, types.uint64, write)


@njit
def _times(x, y):
    for i in range(len(x)):
        y[i] *= x[i]


def drop(x, threshold, scale, seed, y):
    _drop(flat(x), threshold, scale, seed, y.reshape(-1))


@njit([_signature(float32), _signature(float64)], parallel=True, cache=True)
def _drop(x, threshold, scale, seed, y):
    for k in prange((len(x) + BLOCK - 1) // BLOCK):
        start = np.int64(k) * BLOCK
        part = y[start : start + BLOCK]
        draw(start // 4, 0, 0, 0, seed, threshold, x.dtype.type(scale), part)
        _times(x[start : start + BLOCK], part)
