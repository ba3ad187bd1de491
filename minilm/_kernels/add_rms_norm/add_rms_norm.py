"""The sum of a residual stream and what is added to it, and its root-mean-square normalization, in one pass.

    s = x + y        n = rms_norm(s; w, ε)

Two outputs, as in add_layer_norm.py.  Backward, with rms_norm.py's gradients for dn, ds_n being that of its input:

    dx = dy = ds + ds_n        dw as there

Saves what rms_norm saves of s.  w may be None, and so may the gradient of an output that nobody used.
Derivation: add_rms_norm.md.
"""

from functools import partial

import numpy as np

from ..layout import scale_of
from ..rms_norm.rms_norm import gradients, rms_norm_backward, rms_norm_forward

LOOPS = "layer_norm"  # the op whose loops these are


def add_rms_norm_forward(x, y, w, *, eps):  # (..., C), (..., C), (C,) -> (..., C), (..., C)
    s = x + y
    n, saved = rms_norm_forward(s, w, eps=eps)
    return (s, n), saved


def add_rms_norm_backward(grads, saved, needs):
    return _backward(grads, saved, needs, _gradients)


def _gradients(ds, dn, saved, needs):
    dx, dw = rms_norm_backward(dn, saved, needs)
    return dx if dx is None or ds is None else dx + ds, dw


def _backward(grads, saved, needs, gradients):
    """dx and dy are one array."""
    ds, dn = grads
    needs_x, needs_y, needs_w = needs
    both, dw = (ds, None) if dn is None else gradients(ds, dn, saved, (needs_x or needs_y, needs_w))
    return both if needs_x else None, both if needs_y else None, dw


def add_rms_norm_compiled(loops):
    """Wrap the compiled ``loops`` of layer_norm, told that rows are not centred: lay out, allocate, call."""

    def forward(x, y, w, *, eps):
        x, y = np.ascontiguousarray(x), np.ascontiguousarray(y)
        s, n, r = np.empty(x.shape, x.dtype), np.empty(x.shape, x.dtype), np.empty(x.shape[:-1], x.dtype)
        loops.forward_rows(x, y, scale_of(w, x), None, eps, s, n, r, False)
        return (s, n), (s, w, r)

    of_loops = partial(gradients, loops)

    def backward(grads, saved, needs):
        return _backward(grads, saved, needs, of_loops)

    return forward, backward
