"""Philox4x32-10 of random.py, for the loops of Numba: runs of counters, whose loop vectorises."""

import numpy as np
from numba import njit

# Every number is a uint64: Numba turns a uint64 and a plain integer into a float64.
M0, M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
W0, W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
LOW, HALF = np.uint64(0xFFFFFFFF), np.uint64(32)


@njit
def _philox(c0, c1, c2, c3, k0, k1):
    """Return the four words of one counter under the key (k0, k1); all are uint64 below 2³²."""
    for _ in range(10):
        left, right = (c0 & LOW) * M0, (c2 & LOW) * M1  # the masks tell LLVM that a short multiplication will do
        c0, c1 = (right >> HALF) ^ c1 ^ k0, right & LOW
        c2, c3 = (left >> HALF) ^ c3 ^ k1, left & LOW
        k0, k1 = (k0 + W0) & LOW, (k1 + W1) & LOW
    return c0, c1, c2, c3


@njit(cache=True)
def draw(block, c1, c2, c3, seed, threshold, kept, keep):
    """Fill ``keep`` with ``kept`` or 0, four numbers to a counter, the first of which is ``block``.

    The high half of a block, which only dropout has, and c1, which only attention has, share a place.
    """
    k0, k1, zero = seed & LOW, seed >> HALF, keep.dtype.type(0)
    start, c1, c2, c3 = np.uint64(block), np.uint64(c1), np.uint64(c2), np.uint64(c3)
    for i in range(len(keep) // 4):
        c0 = start + np.uint64(i)
        w0, w1, w2, w3 = _philox(c0 & LOW, (c0 >> HALF) ^ c1, c2, c3, k0, k1)
        keep[4 * i] = kept if w0 >= threshold else zero
        keep[4 * i + 1] = kept if w1 >= threshold else zero
        keep[4 * i + 2] = kept if w2 >= threshold else zero
        keep[4 * i + 3] = kept if w3 >= threshold else zero
    rest = len(keep) // 4
    if 4 * rest < len(keep):
        c0 = start + np.uint64(rest)
        words = _philox(c0 & LOW, (c0 >> HALF) ^ c1, c2, c3, k0, k1)
        for i in range(4 * rest, len(keep)):
            keep[i] = kept if words[i - 4 * rest] >= threshold else zero
