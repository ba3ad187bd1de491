"""The loop of sum_of_squares, for Numba.

The mathematics and the names are those of sum_of_squares.py; places and starts are those of places.py.
"""

import numpy as np
from numba import njit, prange

from ..places_numba import FLOAT, numbers

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


@njit(cache=True)
def _squares(x):
    """Eight sums side by side: a single one would wait for each addition."""
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = 0.0
    whole = len(x) - len(x) % 8
    for i in range(0, whole, 8):
        s0 += np.float64(x[i]) ** 2
        s1 += np.float64(x[i + 1]) ** 2
        s2 += np.float64(x[i + 2]) ** 2
        s3 += np.float64(x[i + 3]) ** 2
        s4 += np.float64(x[i + 4]) ** 2
        s5 += np.float64(x[i + 5]) ** 2
        s6 += np.float64(x[i + 6]) ** 2
        s7 += np.float64(x[i + 7]) ** 2
    for i in range(whole, len(x)):
        s0 += np.float64(x[i]) ** 2
    return s0 + s1 + s2 + s3 + s4 + s5 + s6 + s7
