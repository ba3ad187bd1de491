"""Softmax along one axis: positive numbers that sum to 1.

    y = exp(x - max x) / Σ exp(x - max x)

Backward:

    dx = y (dy - ⟨dy, y⟩)        ⟨a, b⟩ = Σ a b along the axis

An entry of -inf gets probability 0; where a whole row is -inf, y is 0 and so is dx.  Saves y alone: x is not needed.
Derivation: softmax.md.  Source: Bridle (1990), "Probabilistic interpretation of feedforward network outputs".
"""

import numpy as np

from ..layout import to_end


def softmax_forward(x, *, axis):
    if x.shape[axis] == 0:
        return x * 1, (x * 1, axis)  # nothing has no largest entry
    top = x.max(axis=axis, keepdims=True)
    e = np.exp(x - np.where(top == -np.inf, 0, top))
    total = e.sum(axis=axis, keepdims=True)
    y = e / np.where(total == 0, 1, total)
    return y, (y, axis)


def softmax_backward(dy, saved, needs):
    y, axis = saved
    return (y * (dy - (dy * y).sum(axis=axis, keepdims=True)) if needs[0] else None,)


def softmax_compiled(loops):
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
