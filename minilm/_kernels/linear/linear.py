"""Multiply the last axis by a matrix and add a bias.

With x of N rows and C columns (all leading axes are rows), and W of shape (C, F):

    y = x W + b

Backward:

    dx = dy Wᵀ        dW = xᵀ dy        db = Σ_rows dy

``transposed`` says that the matrix is kept as (F, C), as in torch.nn.Linear, so that W is its transpose; GPT-2's
checkpoints keep (C, F).  Saves x and W.  All the work is one matrix product each way, which BLAS does; leading axes
are folded into rows first, because np.matmul would make one small product per leading index.  What is left to compiled
loops is the bias, a tenth of the time of the whole when NumPy adds it on one thread, and its gradient, summed over
chunks of rows that depend on the shape alone, so that its bits do not depend on the threads, as BLAS's may.
Derivation: linear.md.
"""

from math import prod

import numpy as np

from ..layout import CHUNKS, as_rows, flat

SMALL = 8192  # numbers below which adding the bias by the loops costs more than it saves
CHUNK = 1 << 18  # numbers that one thread sums, or more where that would make too many chunks


def linear_forward(x, w, b, *, transposed):  # (..., C), (F, C) or (C, F), (F,) -> (..., F)
    W = w.swapaxes(0, 1) if transposed else w
    rows = x.reshape(prod(x.shape[:-1]), x.shape[-1])  # (N, C)
    y = rows @ W  # (N, F)
    if b is not None:
        y += b
    return y.reshape(*x.shape[:-1], W.shape[1]), (x, w, transposed)


def linear_backward(dy, saved, needs):
    x, w, transposed = saved
    N = prod(x.shape[:-1])
    x_rows, dy_rows = x.reshape(N, x.shape[-1]), dy.reshape(N, dy.shape[-1])
    dx = dw = db = None
    if needs[0]:
        dx = (dy_rows @ (w if transposed else w.T)).reshape(x.shape)
    if needs[1]:
        dw = dy_rows.T @ x_rows if transposed else x_rows.T @ dy_rows
    if needs[2]:
        db = np.ones(len(dy_rows), dy.dtype) @ dy_rows  # a product with ones: BLAS sums columns on every thread
    return dx, dw, db


def linear_compiled(loops):
    """Wrap the compiled ``loops``, which add the bias and sum its gradient; the products are the reference's."""

    def forward(x, w, b, *, transposed):
        if b is None or len(b) * prod(x.shape[:-1]) < SMALL:
            return linear_forward(x, w, b, transposed=transposed)
        y, saved = linear_forward(x, w, None, transposed=transposed)
        loops.add_bias(y.reshape(-1, y.shape[-1]), flat(b))
        return y, saved

    def backward(dy, saved, needs):
        dx, dw, _ = linear_backward(dy, saved, (*needs[:2], False))
        if not needs[2]:
            return dx, dw, None
        db = np.zeros((min(CHUNKS, 1 + dy.size // CHUNK), dy.shape[-1]), dy.dtype)
        loops.sum_rows(as_rows(dy), db)
        return dx, dw, db.sum(axis=0)

    return forward, backward
