"""The sum of a residual stream and what is added to it, and its root-mean-square normalization, in one pass.

    s = x + y        n = rms_norm(s; w, ε)

Two outputs, as in add_layer_norm.py.  Backward, with rms_norm.py's gradients for dn, ds_n being that of its input:

    dx = dy = ds + ds_n        dw as there

Saves what rms_norm saves of s.  w may be None, and so may the gradient of an output that nobody used.
Derivation: add_rms_norm.md.
"""

from functools import partial

import numpy as np

from ..add_layer_norm.add_layer_norm import of_sum, with_residual
from ..layout import scale_of
from ..rms_norm.rms_norm import gradients, rms_norm_backward, rms_norm_forward

LOOPS = "layer_norm"  # the op whose loops these are


def add_rms_norm_forward(x, y, w, *, eps):  # (..., C), (..., C), (C,) -> (..., C), (..., C)
    s = x + y
    n, saved = rms_norm_forward(s, w, eps=eps)
    return (s, n), saved


def add_rms_norm_backward(grads, saved, needs):
    return of_sum(grads, saved, needs, partial(with_residual, rms_norm_backward))


def add_rms_norm_compiled(loops):
    """Wrap the compiled ``loops`` of layer_norm, told that rows are not centred: lay out, allocate, call."""

    def forward(x, y, w, *, eps):
        x, y = np.ascontiguousarray(x), np.ascontiguousarray(y)
        s, n, r = np.empty(x.shape, x.dtype), np.empty(x.shape, x.dtype), np.empty(x.shape[:-1], x.dtype)
        loops.forward_rows(x, y, scale_of(w, x), None, eps, s, n, r, False)
        return (s, n), (s, w, r)

    of_loops = partial(gradients, loops)

    def backward(grads, saved, needs):
        return of_sum(grads, saved, needs, of_loops)

    return forward, backward
