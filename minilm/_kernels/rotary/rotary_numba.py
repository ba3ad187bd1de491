"""The loop of rotary, for Numba: one row at a time.

The mathematics and the names are those of rotary.py; ``sign`` is -1 in the backward.
"""

import numpy as np
from numba import boolean, float32, float64, njit, prange, types, void


def _turn(real):
    return void(*[types.Array(real, 4, "A", readonly=True)] * 3, float64, boolean, types.Array(real, 4, "A"))


@njit([_turn(float32), _turn(float64)], parallel=True, cache=True, error_model="numpy")
def turn(x, cos, sin, sign, interleaved, y):
    B, H, T, D = x.shape
    half, real = cos.shape[3], x.dtype.type
    step, apart = (2, 1) if interleaved else (1, half)  # from pair to pair, and within a pair
    for w in prange(B * H * T):
        b, h, t = np.int64(w) // T // H, np.int64(w) // T % H, np.int64(w) % T
        cb, ch, ct = min(b, cos.shape[0] - 1), min(h, cos.shape[1] - 1), min(t, cos.shape[2] - 1)
        sb, sh, st = min(b, sin.shape[0] - 1), min(h, sin.shape[1] - 1), min(t, sin.shape[2] - 1)
        for i in range(half):
            x1, x2 = x[b, h, t, i * step], x[b, h, t, i * step + apart]
            c, s = cos[cb, ch, ct, i], sin[sb, sh, st, i] * real(sign)
            y[b, h, t, i * step] = x1 * c - x2 * s
            y[b, h, t, i * step + apart] = x2 * c + x1 * s
        for d in range(2 * half, D):
            y[b, h, t, d] = x[b, h, t, d]
