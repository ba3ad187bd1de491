"""The loop of sum_of_squares, for Numba.

The mathematics and the names are those of sum_of_squares.py; places and starts are those of places.py.
"""

import numpy as np
from numba import njit, prange

from ..places_numba import FLOAT, numbers
from ..vecmath_numba import SUM

CHUNK = 16384  # numbers that one thread takes at a time, of as many arrays as they are


@njit(parallel=True, cache=True)
def add(places, starts, sums):
    for k in prange(len(sums)):
        begin, end, i = k * CHUNK, min((k + 1) * CHUNK, starts[-1]), 0
        while begin < end:
            while starts[i + 1] <= begin:
                i += 1
            first, size = begin - starts[i], min(end, starts[i + 1]) - begin
            if places[1, i] == FLOAT:
                sums[k] += _squares(numbers(places[0, i], first, size, np.float32))
            else:
                sums[k] += _squares(numbers(places[0, i], first, size, np.float64))
            begin += size


@njit(**SUM)
def _squares(x):
    total = 0.0
    for i in range(len(x)):
        total += np.float64(x[i]) * np.float64(x[i])
    return total
