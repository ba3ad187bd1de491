"""The loops of embedding, for Numba.

The mathematics and the names are those of embedding.py.  Going back, a thread owns some columns and not some rows: each
number of dw is summed by one thread, in the order of the places.
"""

from numba import njit, prange

from ..layout import as_rows, flat

STRIPE = 64  # columns that one thread takes at a time


def gather(w, ids, y):
    _gather(as_rows(w), flat(ids), y.reshape(ids.size, w.shape[1]))


@njit(parallel=True, cache=True)
def _gather(w, ids, y):
    for i in prange(len(ids)):
        for c in range(w.shape[1]):
            y[i, c] = w[ids[i], c]


@njit(parallel=True, cache=True)
def clear(dw):
    for i in prange(len(dw)):
        dw[i] = 0


def scatter_add(dy, ids, padding_idx, dw):
    _scatter_add(as_rows(dy), flat(ids), padding_idx, dw)


@njit(parallel=True, cache=True)
def _scatter_add(dy, ids, padding_idx, dw):
    C = dw.shape[1]
    for k in prange((C + STRIPE - 1) // STRIPE):
        for i in range(len(ids)):
            j = ids[i]
            if j != padding_idx:
                for c in range(k * STRIPE, min(C, (k + 1) * STRIPE)):
                    dw[j, c] += dy[i, c]
