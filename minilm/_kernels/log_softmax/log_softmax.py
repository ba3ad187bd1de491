"""The logarithm of softmax along one axis, without ever dividing by or taking the logarithm of a tiny number.

    y = x - max x - log Σ exp(x - max x)

Backward:

    dx = dy - exp(y) Σ dy

An entry of -inf stays -inf, the logarithm of probability 0.  So does a whole row of them, and its dx is 0.
Saves y alone.
Derivation: log_softmax.md.  Source: Blanchard, Higham & Higham (2021), doi:10.1093/imanum/draa038.
"""

import numpy as np

from ..layout import to_end


def log_softmax_forward(x, *, axis):
    if x.shape[axis] == 0:
        return x * 1, (x * 1, axis)  # nothing has no largest entry
    top = x.max(axis=axis, keepdims=True)
    x = x - np.where(top == -np.inf, 0, top)
    total = np.exp(x).sum(axis=axis, keepdims=True)
    y = np.where(total == 0, -np.inf, x - np.log(np.where(total == 0, 1, total)))
    return y, (y, axis)


def log_softmax_backward(dy, saved, needs):
    y, axis = saved
    if not needs[0]:
        return (None,)
    p = np.exp(y)
    dx = dy - p * dy.sum(axis=axis, keepdims=True)
    return (np.where(p.sum(axis=axis, keepdims=True) == 0, 0, dx),)


def log_softmax_compiled(loops):
    """Wrap the compiled ``loops``: bring the axis to the end, lay out, allocate, call."""

    def forward(x, *, axis):
        x = np.ascontiguousarray(to_end(x, axis))
        y = np.empty(x.shape, x.dtype)
        loops.forward_rows(x, y)
        return to_end(y, axis), (y, axis)

    def backward(dy, saved, needs):
        y, axis = saved
        if not needs[0]:
            return (None,)
        dx = np.empty(y.shape, y.dtype)
        loops.backward_rows(np.ascontiguousarray(to_end(dy, axis)), y, dx)
        return (to_end(dx, axis),)

    return forward, backward
