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

from ..layout import CHUNKS, flat, room

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
        y = np.empty((*x.shape[:-1], W.shape[1]), x.dtype)
        product(x, W, y, b)
        return y, (x, w, transposed)

    def backward(dy, saved, needs, into=(None, None, None)):
        x, w, transposed = saved
        dx = dw = db = None
        if needs[0]:
            dx = room(into[0], x.shape, x.dtype)
            product(dy, w if transposed else w.T, dx, None, dx is into[0])
        if needs[1]:
            dw = room(into[1], w.shape, w.dtype)
            add = dw is into[1]
            product(dy, x, dw, None, add, True) if transposed else product(x, dy, dw, None, add, True)
        if needs[2]:
            db = np.empty(dy.shape[-1:], dy.dtype)
            loops.sum_rows(np.ascontiguousarray(dy), min(CHUNKS, 1 + dy.size // CHUNK), db)
        return dx, dw, db

    return forward, backward


def product_of(loops):
    """Return ``product(a, b, c, bias=None, add=False, turned=False)``: write a b + bias into c, or add it to c.

    a (M, K) and b (K, N) may be any views; c (M, N) is apart from them, and each of its rows in one piece.  ``turned``
    says that a is given as (K, M).  All axes but the last are rows.
    """

    def product(a, b, c, bias=None, add=False, turned=False):
        N = c.shape[-1]
        K = a.size // max(1, len(c)) if turned else a.shape[-1]
        worth_it = min(N, K) > 0 and c.size >= FEW * N and (bias is not None or c.size * K >= LITTLE)
        if loops.GEMM and worth_it:
            bias = None if bias is None else np.ascontiguousarray(bias)
            given = c, bias, add, turned
            if loops.product(a, b, *given) or loops.product(_folded(a), _folded(b), *given):
                return
        a, b, c = _folded(a), _folded(b), _folded(c, copy=False)
        if turned:
            a = a.T
        if add:
            _add_in_blocks(a, b, c)
        else:
            np.matmul(a, b, out=c)
        if bias is not None:
            loops.add_bias(c, flat(bias))

    return product


def _folded(x, copy=None):  # (..., C) -> (N, C), a copy where its rows lie at unequal distances
    return x if x.ndim == 2 else x.reshape(prod(x.shape[:-1]), x.shape[-1], copy=copy)


def _add_in_blocks(a, b, c):
    if c.nbytes <= BLOCK:
        c += a @ b
        return
    step = max(1, BLOCK // max(1, c.shape[1] * c.itemsize))  # rows
    block = np.empty((min(step, len(c)), c.shape[1]), c.dtype)
    for i in range(0, len(c), step):
        to = c[i : i + step]
        to += np.matmul(a[i : i + step], b, out=block[: len(to)])
