"""Root-mean-square normalization over the last axis, then a learned scale.

One row x of length C at a time; ⟨·⟩ is the mean over the row:

    r = 1 / √(⟨x²⟩ + ε)        n = x r        y = n w

Backward, with g = dy w:

    dx = r (g - n ⟨g n⟩)        dw = Σ_rows dy n

Saves x, w and one number per row (r); n is cheaper to recompute than to keep.  w may be None.
Derivation: rms_norm.md.  Source: Zhang & Sennrich (2019), arXiv:1910.07467.
"""

import numpy as np

from ..layout import chunks_of, scale_of

LOOPS = "layer_norm"  # the op whose loops these are


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
    """Wrap the compiled ``loops`` of layer_norm, told that rows are not centred: lay out, allocate, call."""

    def forward(x, w, *, eps):
        x = np.ascontiguousarray(x)
        y, r = np.empty(x.shape, x.dtype), np.empty(x.shape[:-1], x.dtype)
        loops.forward_rows(x, None, scale_of(w, x), None, eps, None, y, r, False)
        return y, (x, w, r)

    def backward(dy, saved, needs):
        return gradients(loops, None, dy, saved, needs)

    return forward, backward


def gradients(loops, ds, dy, saved, needs):
    """Return dx + ds, where ds may be None, and dw."""
    x, w, r = saved
    dx = np.empty(x.shape, x.dtype)
    dw = np.empty(x.shape[-1:], x.dtype) if needs[1] and w is not None else None
    ds, dy = None if ds is None else np.ascontiguousarray(ds), np.ascontiguousarray(dy)
    loops.backward_rows(ds, dy, x, scale_of(w, x), r, dx, chunks_of(x), dw, None, False)
    return dx if needs[0] else None, dw
