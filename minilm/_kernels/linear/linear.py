"""Multiply the last axis by a matrix and add a bias.

With x of N rows and C columns (all leading axes are rows), and W of shape (C, F):

    y = x W + b

Backward:

    dx = dy Wᵀ        dW = xᵀ dy        db = Σ_rows dy

``transposed`` says that the matrix is kept as (F, C), as in torch.nn.Linear, so that W is its transpose; GPT-2's
checkpoints keep (C, F).  Saves x and W.  Leading axes are folded into rows first, because np.matmul would make one
small product per leading index.  The compiled form makes its products in gemm.h, which adds the bias on the way and
gives the same bits on any number of threads; where that was not built, and where there is little to multiply, it
leaves them to BLAS.  The gradient of the bias is summed over chunks of rows that depend on the shape alone, for the
sake of the bits.
Derivation: linear.md.
"""

from math import prod

import numpy as np

from ..layout import CHUNKS, as_rows, flat, sum_of_parts

CHUNK = 1 << 18  # numbers that one thread sums, or more where that would make too many chunks
FEW = 8  # rows below which a product is a few passes over a matrix, which BLAS makes without a copy
LITTLE = 1 << 15  # multiplications that take less time than laying out arguments, where no bias is to be added
BLOCK = 1 << 22  # bytes of a sum that are added at a time: they stay in the cache between BLAS's product and the sum


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
    """Wrap the compiled ``loops``: fold rows, allocate, multiply; and sum the gradient of the bias."""
    product = product_of(loops)

    def forward(x, w, b, *, transposed):
        W = w.T if transposed else w
        F = W.shape[1]
        y = np.empty((*x.shape[:-1], F), x.dtype)
        product(_folded(x), W, _folded(y), b)
        return y, (x, w, transposed)

    def backward(dy, saved, needs):
        x, w, transposed = saved
        x_rows, dy_rows = _folded(x), _folded(dy)
        dx = dw = db = None
        if needs[0]:
            dx = np.empty(x.shape, x.dtype)
            product(dy_rows, w if transposed else w.T, _folded(dx))
        if needs[1]:
            dw = np.empty(w.shape, w.dtype)
            product(dy_rows.T, x_rows, dw) if transposed else product(x_rows.T, dy_rows, dw)
        if needs[2]:
            chunks, F = min(CHUNKS, 1 + dy.size // CHUNK), dy.shape[-1]
            db = np.zeros((chunks, F) if chunks > 1 else F, dy.dtype)
            loops.sum_rows(as_rows(dy_rows), db.reshape(chunks, F))
            db = sum_of_parts(db)
        return dx, dw, db

    return forward, backward


def product_of(loops):
    """Return ``product(a, b, c, bias=None, add=False)``, which writes a b + bias into c, or adds it to what is there.

    a (M, K) and b (K, N) may be any views; c (M, N) is apart from them, and each of its rows in one piece.
    """

    def product(a, b, c, bias=None, add=False):
        (M, K), N = a.shape, b.shape[1]
        worth_it = M >= FEW and (bias is not None or M * N * K >= LITTLE) and min(N, K) > 0
        if loops.GEMM and worth_it and a.flags.aligned and b.flags.aligned:
            loops.product(a, b, c, None if bias is None else np.ascontiguousarray(bias), add)
            return
        if add:
            _add_in_blocks(a, b, c)
        else:
            np.matmul(a, b, out=c)
        if bias is not None:
            loops.add_bias(c, flat(bias))

    return product


def _folded(x):  # (..., C) -> (N, C)
    return x if x.ndim == 2 else x.reshape(prod(x.shape[:-1]), x.shape[-1])


def _add_in_blocks(a, b, c):
    step = max(1, BLOCK // max(1, c.shape[1] * c.itemsize))  # rows
    block = np.empty((min(step, len(c)), c.shape[1]), c.dtype)
    for i in range(0, len(c), step):
        to = c[i : i + step]
        to += np.matmul(a[i : i + step], b, out=block[: len(to)])
