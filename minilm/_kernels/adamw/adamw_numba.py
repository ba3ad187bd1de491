"""The loop of adamw, for Numba.

The mathematics and the names are those of adamw.py; places and starts are those of places.py.
"""

import numpy as np
from numba import njit, prange

from ..places_numba import FLOAT, numbers

CHUNK = 16384  # numbers that one thread takes at a time, of as many arrays as they are


@njit(parallel=True, cache=True)
def update(places, starts, repairs, decay, beta1, beta2, eps, grad_scale):
    total = starts[-1]
    for k in prange((total + CHUNK - 1) // CHUNK):
        begin, end, i = k * CHUNK, min((k + 1) * CHUNK, total), 0
        while begin < end:
            while starts[i + 1] <= begin:
                i += 1
            first, size = begin - starts[i], min(end, starts[i + 1]) - begin
            rate, root = repairs[i]
            if places[4, i] == FLOAT:
                _update(places[:, i], first, size, np.float32, decay, rate, root, beta1, beta2, eps, grad_scale)
            else:
                _update(places[:, i], first, size, np.float64, decay, rate, root, beta1, beta2, eps, grad_scale)
            begin += size


@njit(cache=True, error_model="numpy")  # Python's would stop at a division by zero, and so not be vectorised
def _update(at, first, size, real, decay, rate, root, beta1, beta2, eps, grad_scale):
    p, g = numbers(at[0], first, size, real), numbers(at[1], first, size, real)
    m, v = numbers(at[2], first, size, real), numbers(at[3], first, size, real)
    decay_, rate_, root_, eps_, scale = real(decay), real(rate), real(root), real(eps), real(grad_scale)
    beta1_, rest1, beta2_, rest2 = real(beta1), real(1 - beta1), real(beta2), real(1 - beta2)
    for i in range(size):
        gradient = g[i] * scale
        m[i] = beta1_ * m[i] + rest1 * gradient
        v[i] = beta2_ * v[i] + rest2 * gradient * gradient
        p[i] = decay_ * p[i] - rate_ * m[i] / (np.sqrt(v[i]) / root_ + eps_)
