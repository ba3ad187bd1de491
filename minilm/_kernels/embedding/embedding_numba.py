"""The loops of embedding, for Numba.

The mathematics and the names are those of embedding.py.  Going back, a thread owns some columns and not some rows: each
number of dw is summed by one thread, in the order of the places.
"""

from numba import njit, prange

STRIPE = 64  # columns that one thread takes at a time


@njit(parallel=True, cache=True)
def gather(w, ids, y):
    for i in prange(len(ids)):
        for c in range(w.shape[1]):
            y[i, c] = w[ids[i], c]


@njit(parallel=True, cache=True)
def scatter_add(dy, ids, padding_idx, dw):
    C = dw.shape[1]
    for k in prange((C + STRIPE - 1) // STRIPE):
        for i in range(len(ids)):
            j = ids[i]
            if j != padding_idx:
                for c in range(k * STRIPE, min(C, (k + 1) * STRIPE)):
                    dw[j, c] += dy[i, c]
