"""The sum of a residual stream and what is added to it, and its layer normalization, in one pass.

    s = x + y        n = layer_norm(s; w, b, ε)

Two outputs: a block that normalizes first carries s on and works with n; one that normalizes last uses n alone.
Backward, with layer_norm.py's gradients for dn, of which ds_n is that of its input:

    dx = dy = ds + ds_n        dw, db as there

Saves what layer_norm saves of s.  w and b may be None, and so may the gradient of an output that nobody used.
Derivation: add_layer_norm.md.
"""

from functools import partial

import numpy as np

from ..layer_norm.layer_norm import gradients, layer_norm_backward, layer_norm_forward
from ..layout import scale_of, shift_of

LOOPS = "layer_norm"  # the op whose loops these are


def add_layer_norm_forward(x, y, w, b, *, eps):  # (..., C), (..., C), (C,), (C,) -> (..., C), (..., C)
    s = x + y
    n, saved = layer_norm_forward(s, w, b, eps=eps)
    return (s, n), saved


def add_layer_norm_backward(grads, saved, needs):
    return of_sum(grads, saved, needs, partial(with_residual, layer_norm_backward))


def with_residual(norm_backward, ds, dn, saved, needs):
    """Return the gradients of a norm, the first with ds, which may be None, added to it."""
    dx, *others = norm_backward(dn, saved, needs)
    return dx if dx is None or ds is None else dx + ds, *others


def of_sum(grads, saved, needs, gradients):
    """Return the gradients of x, of y, which is the same array, and of the norm's parameters."""
    ds, dn = grads
    needs_x, needs_y, *others = needs
    if dn is None:
        both, others = ds, [None] * len(others)
    else:
        both, *others = gradients(ds, dn, saved, (needs_x or needs_y, *others))
    return both if needs_x else None, both if needs_y else None, *others


def add_layer_norm_compiled(loops):
    """Wrap the compiled ``loops`` of layer_norm_numba or layer_norm_cython: lay out, allocate, call."""

    def forward(x, y, w, b, *, eps):
        x, y = np.ascontiguousarray(x), np.ascontiguousarray(y)
        s, n, stats = np.empty(x.shape, x.dtype), np.empty(x.shape, x.dtype), np.empty((2, *x.shape[:-1]), x.dtype)
        loops.forward_rows(x, y, scale_of(w, x), shift_of(b, x), eps, s, n, stats, True)
        return (s, n), (s, w, b is not None, stats)

    of_loops = partial(gradients, loops)

    def backward(grads, saved, needs):
        return of_sum(grads, saved, needs, of_loops)

    return forward, backward
