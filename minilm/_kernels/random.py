"""Random numbers that can be drawn again: Philox4x32-10, a function from (counter, seed) to four 32-bit words.

One round, on the counter c and the key κ, with (hi, lo) the two halves of a 64-bit product:

    (h0, l0) = M0 c0        (h1, l1) = M1 c2        c ← (h1 ^ c1 ^ κ0, l1, h0 ^ c3 ^ κ1, l0)        κ ← κ + W

Ten rounds scramble the counter fully.  There is no state: an element's word depends on the seed and on its own place,
so a backward pass draws the mask of its forward again, and every backend and every number of threads draws the same.
Source: Salmon, Moraes, Dror & Shaw (2011), "Parallel random numbers: as easy as 1, 2, 3".
"""

import numpy as np

M0, M1 = 0xD2511F53, 0xCD9E8D57  # multipliers
W0, W1 = 0x9E3779B9, 0xBB67AE85  # what the key grows by: the golden ratio and √3 - 1, as fractions of 2³²
ROUNDS = 10
LOW = 0xFFFFFFFF  # the lower 32 bits


def philox(c0, c1, c2, c3, seed):
    """Return the four words of each counter.

    The four parts of the counter are integers or integer arrays that broadcast together, each below 2³²; ``seed`` is
    an integer, of which 64 bits count.  Returns four uint32 arrays of the broadcast shape.
    """
    c0, c1, c2, c3 = np.broadcast_arrays(*(np.asarray(c, np.uint64) for c in (c0, c1, c2, c3)))
    k0, k1 = seed & LOW, (seed >> 32) & LOW
    for _ in range(ROUNDS):
        left, right = c0 * np.uint64(M0), c2 * np.uint64(M1)
        c0, c1 = (right >> np.uint64(32)) ^ c1 ^ np.uint64(k0), right & np.uint64(LOW)
        c2, c3 = (left >> np.uint64(32)) ^ c3 ^ np.uint64(k1), left & np.uint64(LOW)
        k0, k1 = (k0 + W0) & LOW, (k1 + W1) & LOW
    return tuple(c.astype(np.uint32) for c in (c0, c1, c2, c3))


def threshold(p):
    """Return the integer that a word must reach for its element to be kept, so that a share ``p`` is dropped."""
    return min(round(p * 2**32), LOW) if p else 0


def keep_linear(shape, p, seed):
    """Return which elements dropout keeps: element i, in C order, has word i % 4 of counter (i // 4, 0, 0)."""
    size = int(np.prod(shape, dtype=np.int64))
    block = np.arange(-(-size // 4), dtype=np.uint64)
    words = np.stack(philox(block & np.uint64(LOW), block >> np.uint64(32), 0, 0, seed), axis=-1)
    return (words.reshape(-1)[:size] >= np.uint32(threshold(p))).reshape(shape)


def keep_attention(B, H, T, S, p, seed):
    """Return which probabilities attention keeps: element (b, h, t, s) has word s % 4 of (s // 4, t, b H + h, 1)."""
    block = np.arange(-(-S // 4))
    row = np.arange(T)[:, None]
    head = np.arange(B * H)[:, None, None]
    words = np.stack(philox(block, row, head, 1, seed), axis=-1)  # (B·H, T, ⌈S/4⌉, 4)
    return (words.reshape(B, H, T, 4 * len(block))[..., :S] >= np.uint32(threshold(p))).reshape(B, H, T, S)
