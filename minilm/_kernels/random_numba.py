"""Philox4x32-10 of random.py, for the loops of Numba."""

import numpy as np
from numba import njit

# Every number is a uint64: Numba turns a uint64 and a plain integer into a float64.
M0, M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
W0, W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
LOW, HALF = np.uint64(0xFFFFFFFF), np.uint64(32)


@njit(cache=True)
def philox(c0, c1, c2, c3, k0, k1):
    """Return the four words of one counter under the key (k0, k1); all are uint64 below 2³²."""
    for _ in range(10):
        left, right = c0 * M0, c2 * M1
        c0, c1 = (right >> HALF) ^ c1 ^ k0, right & LOW
        c2, c3 = (left >> HALF) ^ c3 ^ k1, left & LOW
        k0, k1 = (k0 + W0) & LOW, (k1 + W1) & LOW
    return c0, c1, c2, c3
