"""Rows of a table, looked up by number.

    y[i] = w[ids[i]]

Backward: every row of w collects the gradients of the places where it was used,

    dw[j] = Σ_{i : ids[i] = j} dy[i]        and 0 for j = padding_idx

Where w already has a gradient, as the table that is the head's matrix too, the dy are added into that (``into``): no
second table, mostly zeros, is made and summed.  Saves the ids and the number of rows.
Every id must lie in 0 … V - 1.
Derivation: embedding.md.
"""

import numpy as np

from ..layout import room


def embedding_forward(w, ids, *, padding_idx):  # (V, C), (...) -> (..., C)
    return w[ids], (ids, w.shape[0], padding_idx)


def embedding_backward(dy, saved, needs, into=(None, None)):
    ids, V, padding_idx = saved
    if not needs[0]:
        return None, None
    dw = np.zeros((V, dy.shape[-1]), dy.dtype) if into[0] is None else into[0]
    counts = np.full(ids.shape, True) if padding_idx is None else ids != padding_idx % V
    np.add.at(dw, ids[counts], dy[counts])
    return dw, None


def embedding_compiled(loops):
    """Wrap the compiled ``loops`` of embedding_numba or embedding_cython: lay out, allocate, call."""

    def forward(w, ids, *, padding_idx):
        y = np.empty((*ids.shape, w.shape[1]), w.dtype)
        ids = np.ascontiguousarray(ids, np.int64)
        loops.gather(np.ascontiguousarray(w), ids, y)
        return y, (ids, len(w), padding_idx)

    def backward(dy, saved, needs, into=(None, None)):
        if not needs[0]:
            return None, None
        ids, V, padding_idx = saved
        dw = room(into[0], (V, dy.shape[-1]), dy.dtype)
        if dw is not into[0]:
            loops.clear(dw)  # on all threads, where np.zeros clears memory that was used before on one
        loops.scatter_add(np.ascontiguousarray(dy), ids, -1 if padding_idx is None else padding_idx % V, dw)
        return dw, None

    return forward, backward
