"""Root-mean-square normalization over the last axis, then a learned scale.

One row x of length C at a time; ⟨·⟩ is the mean over the row:

    r = 1 / √(⟨x²⟩ + ε)        n = x r        y = n w

Backward, with g = dy w:

    dx = r (g - n ⟨g n⟩)        dw = Σ_rows dy n

Saves x, w and one number per row (r); n is cheaper to recompute than to keep.  w may be None.
Derivation: rms_norm.md.  Source: Zhang & Sennrich (2019), arXiv:1910.07467.
"""

import numpy as np

from ..layout import CHUNKS, as_rows, scale_of


def rms_norm_forward(x, w, *, eps):  # (..., C), (C,) -> (..., C)
    r = 1 / np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + eps)  # (..., 1)
    n = x * r
    return n if w is None else n * w, (x, w, r)


def rms_norm_backward(dy, saved, needs):
    x, w, r = saved
    n = x * r
    dx = dw = None
    if needs[0]:
        g = dy if w is None else dy * w
        dx = r * (g - n * (g * n).mean(axis=-1, keepdims=True))
    if needs[1] and w is not None:
        dw = (dy * n).sum(axis=tuple(range(x.ndim - 1)))
    return dx, dw


def rms_norm_compiled(loops):
    """Wrap the compiled ``loops`` of rms_norm_numba or rms_norm_cython: lay out rows, allocate, call."""

    def forward(x, w, *, eps):
        rows = as_rows(x)  # (N, C)
        y = np.empty(x.shape, x.dtype)
        r = np.empty(len(rows), x.dtype)
        loops.forward_rows(rows, scale_of(w, x), eps, y.reshape(rows.shape), r)
        return y, (rows, w, r)

    def backward(dy, saved, needs):
        rows, w, r = saved
        dx = np.empty(dy.shape, dy.dtype)
        dw = np.zeros((CHUNKS, rows.shape[1]), dy.dtype)
        loops.backward_rows(as_rows(dy), rows, scale_of(w, rows), r, dx.reshape(rows.shape), dw)
        return dx if needs[0] else None, dw.sum(axis=0) if needs[1] and w is not None else None

    return forward, backward
