"""The loop of rotary, for Numba: one row at a time.

The mathematics and the names are those of rotary.py; ``sign`` is -1 in the backward.
"""

import numpy as np
from numba import boolean, float32, float64, njit, prange, types, void

from ..vecmath_numba import EXACT, contiguous


def _turn(real):
    return void(*[types.Array(real, 4, "A", readonly=True)] * 3, float64, boolean, types.Array(real, 4, "A"))


@njit(**EXACT)
def _turn_row(x, cos, sin, sign, interleaved, y):
    half = len(cos)
    if interleaved:
        for i in range(half):
            x1, x2, s = x[2 * i], x[2 * i + 1], sin[i] * sign
            y[2 * i] = x1 * cos[i] - x2 * s
            y[2 * i + 1] = x2 * cos[i] + x1 * s
    else:
        first, second, y1, y2 = x[:half], x[half : 2 * half], y[:half], y[half : 2 * half]
        for i in range(half):
            s = sin[i] * sign
            y1[i] = first[i] * cos[i] - second[i] * s
            y2[i] = second[i] * cos[i] + first[i] * s
    for d in range(2 * half, len(x)):
        y[d] = x[d]


def turn(x, cos, sin, sign, interleaved, y):
    x, cos, sin, y = (a.reshape((1,) * (4 - a.ndim) + a.shape) for a in (x, cos, sin, y))
    _turn_rows(x, cos, sin, sign, interleaved, y)


@njit([_turn(float32), _turn(float64)], parallel=True, cache=True, error_model="numpy")
def _turn_rows(x, cos, sin, sign, interleaved, y):
    B, H, T, _ = x.shape
    for w in prange(B * H):
        b, h = np.int64(w) // H, np.int64(w) % H
        c = cos[min(b, cos.shape[0] - 1), min(h, cos.shape[1] - 1)]
        s = sin[min(b, sin.shape[0] - 1), min(h, sin.shape[1] - 1)]
        for t in range(T):
            ct, st = c[min(t, c.shape[0] - 1)], s[min(t, s.shape[0] - 1)]
            _turn_row(
                contiguous(x[b, h, t]),
                contiguous(ct),
                contiguous(st),
                x.dtype.type(sign),
                interleaved,
                contiguous(y[b, h, t]),
            )
