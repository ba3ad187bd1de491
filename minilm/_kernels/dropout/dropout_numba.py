"""The loop of dropout, for Numba: four elements to a counter.

The mathematics and the names are those of dropout.py.
"""

import numpy as np
from numba import float32, float64, njit, prange, types, void

from ..random_numba import HALF, LOW, philox

CHUNK = 1024  # elements that one thread takes at a time


def _signature(real):
    read, write = types.Array(real, 1, "C", readonly=True), types.Array(real, 1, "C")
    return void(read, types.uint64, types.float64, types.uint64, write)


@njit([_signature(float32), _signature(float64)], parallel=True, cache=True)
def drop(x, threshold, scale, seed, y):
    N = len(x)
    kept = x.dtype.type(scale)
    zero = x.dtype.type(0)
    k0, k1 = seed & LOW, seed >> HALF
    for k in prange((N + CHUNK - 1) // CHUNK):
        for block in range(k * CHUNK // 4, min((k + 1) * CHUNK, N + 3) // 4):
            counter = np.uint64(block)
            words = philox(counter & LOW, counter >> HALF, np.uint64(0), np.uint64(0), k0, k1)
            for i in range(4 * block, min(4 * block + 4, N)):
                y[i] = x[i] * (kept if words[i % 4] >= threshold else zero)
