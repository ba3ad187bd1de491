"""Softmax along one axis: positive numbers that sum to 1.

    y = exp(x - max x) / Σ exp(x - max x)

Backward:

    dx = y (dy - ⟨dy, y⟩)        ⟨a, b⟩ = Σ a b along the axis

An entry of -inf gets probability 0; where a whole row is -inf, y is 0 and so is dx.  Saves y alone: x is not needed.
Derivation: softmax.md.  Source: Bridle (1990), "Probabilistic interpretation of feedforward network outputs".
"""

import numpy as np

from ..layout import as_rows


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
    """Wrap the compiled ``loops``: bring the axis to the end, lay out rows, allocate, call."""

    def forward(x, *, axis):
        rows = as_rows(x.swapaxes(axis, -1))  # (N, C)
        y = np.empty_like(rows)
        if y.size:
            loops.forward_rows(rows, y)
        return _axis_back(y, x.shape, axis), (y, x.shape, axis)

    def backward(dy, saved, needs):
        y, shape, axis = saved
        if not needs[0]:
            return (None,)
        dx = np.empty_like(y)
        if y.size:
            loops.backward_rows(as_rows(dy.swapaxes(axis, -1)), y, dx)
        return (_axis_back(dx, shape, axis),)

    return forward, backward


def _axis_back(rows, shape, axis):
    """Undo swapaxes and as_rows: (N, C) with C = shape[axis] -> shape."""
    swapped = list(shape)
    swapped[axis], swapped[-1] = swapped[-1], swapped[axis]
    return rows.reshape(swapped).swapaxes(axis, -1)
